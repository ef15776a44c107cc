"""All printing: results on stdout, warnings and errors on stderr. It decides nothing and knows no command.

Text that came from outside (image labels, registry answers, names in archives) may carry terminal control sequences;
what goes to a terminal is escaped here, so that no caller has to remember it.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

# These are C0 and C1 controls, DEL, line separators, and the marks that reorder text on a terminal (CVE-2021-42574)
_UNSAFE = [*range(0x20), *range(0x7F, 0xA0), 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
_NAMED = {0x07: "\\a", 0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0C: "\\f", 0x0D: "\\r"}
_ESCAPES = {code: _NAMED.get(code) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}") for code in _UNSAFE}
_BLOCK_ESCAPES = {code: text for code, text in _ESCAPES.items() if code not in (0x09, 0x0A)}
_COLORS = {"red": 31, "green": 32, "yellow": 33, "cyan": 36, "bold": 1}


def escape(text: str) -> str:
    """`text` as one harmless line: control characters, line ends and reordering marks become visible escapes.

    Otherwise a stranger's control characters could move the cursor, or overwrite what was shown.
    """
    return text.translate(_ESCAPES)


def escape_block(text: str) -> str:
    """Like `escape`, and line ends and tabs stay."""
    return text.translate(_BLOCK_ESCAPES)


def is_terminal(stream: TextIO | None) -> bool:
    """True when `stream` is open and a terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # the stream is closed
        return False


def can_draw(stream: TextIO | None) -> bool:
    """True when `stream` is a terminal that can move its cursor; editors and logs say in TERM that theirs cannot."""
    return is_terminal(stream) and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def colored(text: str, color: str, stream: TextIO) -> str:
    """`text` in `color` (see _COLORS) where `stream` is a terminal that wants it (see no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not is_terminal(stream):
        return text
    return f"\x1b[{_COLORS[color]}m{text}\x1b[0m"


def write(text: str, stream: TextIO | None = None) -> None:
    """Write `text` (default: to stdout) as it is; on a terminal with its control characters escaped."""
    stream = stream or sys.stdout
    raw(escape_block(text) if is_terminal(stream) else text, stream)


def raw(text: str, stream: TextIO | None = None) -> None:
    """Write `text` of our own making, which may carry colours; characters the stream cannot show are escaped."""
    stream = stream or sys.stdout
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def line(text: str = "", stream: TextIO | None = None) -> None:
    """Write `text` and a line end, as `write` does."""
    write(f"{text}\n", stream)


def json_text(value: object, *, indent: int | None = 4) -> str:
    """`value` as docker prints JSON: four spaces deep, or on one line without spaces (indent None)."""
    import json

    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(value, indent=indent, separators=separators, ensure_ascii=False)


def warn(message: str) -> None:
    """Print one line `warning: …` on stderr; `message` may come from outside, and is escaped."""
    _stderr_line(f"{colored('warning:', 'yellow', sys.stderr)} {escape(message)}")


def debug(message: str) -> None:
    """Print one line `debug: …` on stderr; `message` may come from outside, and is escaped."""
    _stderr_line(f"{colored('debug:', 'cyan', sys.stderr)} {escape(message)}")


def note(message: str) -> None:
    """Print one line to stderr that is neither a result nor a warning."""
    _stderr_line(escape(message))


def error(message: str) -> None:
    """Print one line `rootless: …` on stderr; `message` may come from outside, and is escaped."""
    _stderr_line(f"{colored('rootless:', 'red', sys.stderr)} {escape(message)}")


def _stderr_line(text: str) -> None:
    # Results that were printed before the message come before it where both streams lead to one place
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        pass  # the message matters more than what stdout could not take
    try:
        raw(f"{text}\n", sys.stderr)
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # no stream is left that could say so
