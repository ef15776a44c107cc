"""Signal names as docker takes them: KILL, SIGKILL, 9, SIGRTMIN+3. Pure."""

from __future__ import annotations

import signal

from rootless.errors import UsageError
from rootless.units import whole_number


def parse_signal(text: str, flag: str) -> int:
    """The number of the signal that `text` (TERM, SIGTERM, 15, SIGRTMIN+3) means. Raises UsageError naming `flag`."""
    name = text.strip().upper()
    if name.isascii() and name.isdigit():
        number = int(name) if len(name) < 4 else 0
    else:
        name = name.removeprefix("SIG")
        number = 0
        for start, base, step in (("RTMIN", signal.SIGRTMIN, "+"), ("RTMAX", signal.SIGRTMAX, "-")):
            if name.startswith(start):
                text_behind = name.removeprefix(start)
                offset = whole_number(text_behind.removeprefix(step)) if text_behind[:1] == step else None
                if not text_behind or offset is not None:
                    number = int(base) + (offset or 0) * (1 if step == "+" else -1)
                number = number if signal.SIGRTMIN <= number <= signal.SIGRTMAX else 0
        known = signal.Signals.__members__.get({"POLL": "SIGIO", "CLD": "SIGCHLD"}.get(name, f"SIG{name}"))
        if known is not None and not name.startswith("RT"):
            number = int(known)
    if not 0 < number <= signal.SIGRTMAX:
        raise UsageError(f"invalid signal '{text}' ({flag})", hint="write TERM, SIGTERM, 15 or SIGRTMIN+3")
    return number


def signal_name(number: int) -> str:
    """The name of signal `number`, such as SIGTERM or SIGRTMIN+3. Raises ValueError for a number without a name."""
    if signal.SIGRTMIN < number < signal.SIGRTMAX:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
    return signal.Signals(number).name
