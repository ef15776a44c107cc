"""`top`: the processes of a container as the host's /proc shows them.

Nothing of the image is run: a `ps` of the image, run with namespaces of ours, could do there what it likes
(CVE-2022-1227).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rootless.engine.container.execute import running
from rootless.engine.container.pause import processes_of
from rootless.engine.types import TopTable
from rootless.errors import UsageError
from rootless.kernel import procfs
from rootless.records.id_map import IdMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine


_HERTZ = os.sysconf("SC_CLK_TCK")
# Bytes of a command line that are read at most, at least, and of all command lines together; and of /proc/PID/stat and
# /proc/PID/status, whose longest line is Groups. The container's processes decide how long these are
_LONGEST, _SHORTEST, _ALL_COMMANDS = 1 << 16, 1 << 8, 1 << 24
_STATUS = 1 << 20


class _Seen(NamedTuple):
    """What /proc says of one process.

    pid, parent: the host's numbers; inside_pid: the number in its own pid namespace; uid: the container's, or the
    host's where that is not mapped; ticks: CPU time in clock ticks; started: seconds since the epoch; resident,
    virtual: bytes.
    """

    pid: int
    parent: int
    state: str
    name: str
    command: str
    user: str
    uid: int
    threads: str
    inside_pid: str
    tty: str
    ticks: int
    started: float
    resident: int
    virtual: int
    nice: int
    priority: int


def _table(headers: dict[str, tuple[str, Callable[[_Seen], str]]]) -> dict[str, tuple[str, Callable[[_Seen], str]]]:
    return headers


_COLUMNS = _table(
    {
        "user": ("USER", lambda p: p.user),
        "uid": ("UID", lambda p: str(p.uid)),
        "pid": ("PID", lambda p: str(p.pid)),
        "nspid": ("NSPID", lambda p: p.inside_pid),
        "ppid": ("PPID", lambda p: str(p.parent)),
        "c": ("C", lambda p: str(int(_share(p)))),
        "%cpu": ("%CPU", lambda p: f"{_share(p):.1f}"),
        "stime": ("STIME", lambda p: _clock(p.started)),
        "start": ("START", lambda p: _clock(p.started)),
        "etime": ("ELAPSED", lambda p: _elapsed(time.time() - p.started)),
        "etimes": ("ELAPSED", lambda p: str(int(time.time() - p.started))),
        "tty": ("TTY", lambda p: p.tty),
        "time": ("TIME", lambda p: _elapsed(p.ticks / _HERTZ, hours=True)),
        "cmd": ("CMD", lambda p: p.command),
        "args": ("COMMAND", lambda p: p.command),
        "comm": ("COMMAND", lambda p: p.name),
        "stat": ("STAT", lambda p: p.state),
        "s": ("S", lambda p: p.state),
        "rss": ("RSS", lambda p: str(p.resident // 1024)),
        "vsz": ("VSZ", lambda p: str(p.virtual // 1024)),
        "ni": ("NI", lambda p: str(p.nice)),
        "pri": ("PRI", lambda p: str(p.priority)),
        "nlwp": ("NLWP", lambda p: p.threads),
    }
)
_ALIASES = {
    "command": "args",
    "pcpu": "%cpu",
    "tname": "tty",
    "tt": "tty",
    "state": "s",
    "nice": "ni",
    "cputime": "time",
    "euser": "user",
    "euid": "uid",
    "vsize": "vsz",
    "rssize": "rss",
    "start_time": "stime",
    "thcount": "nlwp",
    "ruser": "user",
    "ucmd": "comm",
    "hpid": "pid",
    "huser": "user",
}
_FULL = ("user", "pid", "ppid", "c", "stime", "tty", "time", "cmd")  # ps -ef
_BSD = ("user", "pid", "%cpu", "vsz", "rss", "tty", "stat", "start", "time", "args")  # ps aux


def container_processes(engine: Engine, container: str, arguments: Sequence[str] = ()) -> TopTable:
    """The processes of a running container, read from the host's /proc; nothing of the image is run.

    arguments: `-ef`, `aux`, or `-o NAME,...` of ps, or names of columns alone. Raises NotFound, InvalidState, and
    UsageError for options and columns that are not known here.
    """
    columns = parse_columns(arguments)
    container_id, state = running(engine, container, "top")
    id_map = engine.store.containers.read(container_id).id_map
    boot = _boot_time()
    pids = processes_of(engine, container_id, state)
    # A container may have tens of thousands of processes, each with a command line of megabytes: the more there are,
    # the less is read of each
    longest = max(_SHORTEST, min(_LONGEST, _ALL_COMMANDS // max(len(pids), 1)))
    seen = [process for pid in pids if (process := _look(pid, id_map, boot, longest)) is not None]
    return TopTable(tuple(title for title, _ in columns), tuple(tuple(show(p) for _, show in columns) for p in seen))


def parse_columns(arguments: Sequence[str]) -> list[tuple[str, Callable[[_Seen], str]]]:
    """The columns that options of ps ask for: each one's title, and the function that shows it. Raises UsageError."""
    names: list[str] = []
    words = [word for argument in arguments for word in argument.split()]
    while words:
        word = words.pop(0)
        if word in ("-o", "-eo", "o", "--format"):
            if not words:
                raise UsageError(f"option '{word}' needs a list of columns")
            names += words.pop(0).split(",")
        elif word.startswith(("-o", "-eo")) and "," in word:
            names += word.partition("o")[2].split(",")
        elif word in ("-ef", "-e", "-f", "-A", "-fe"):
            names += [] if names else _FULL
        elif word in ("aux", "-aux", "au", "ax"):
            names += [] if names else _BSD
        elif word.startswith("-"):
            raise UsageError(f"ps option '{word}' is not supported", hint="use -ef, aux or -o NAME,NAME,...")
        else:
            names += word.split(",")
    columns = []
    for name in names or _FULL:
        key, _, title = name.lower().partition("=")
        key = _ALIASES.get(key, key)
        if key not in _COLUMNS:
            raise UsageError(f"unknown column '{name}'", hint=f"known are {', '.join(_COLUMNS)}")
        columns.append((title.upper() or _COLUMNS[key][0], _COLUMNS[key][1]))
    return columns


def _look(pid: int, id_map: IdMap, boot: float, longest: int) -> _Seen | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read(_STATUS).decode("utf-8", "replace")
        status = _status(pid)
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(longest)
        tty_number = procfs.read_stat(pid).tty
    except OSError:
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    host_uid = int(status.get("Uid", "0").split()[0])
    uid = id_map.to_container_uid(host_uid)
    command = words.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace") or f"[{name}]"
    return _Seen(
        pid=pid,
        parent=int(fields[1]),
        state=fields[0],
        name=name,
        command=command,
        user=_user(uid),
        uid=host_uid if uid is None else uid,
        threads=fields[17],
        inside_pid=status.get("NSpid", str(pid)).split()[-1],
        tty=f"pts/{tty_number & 0xFF}" if tty_number >> 8 == 136 else "?",
        ticks=int(fields[11]) + int(fields[12]),
        started=boot + int(fields[19]) / _HERTZ,
        resident=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        virtual=int(fields[20]),
        nice=int(fields[16]),
        priority=int(fields[15]),
    )


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return {
            key: value.strip() for key, _, value in (line.partition(":") for line in file.read(_STATUS).splitlines())
        }


def _user(uid: int | None) -> str:
    """The text for a uid of the container. A name would have to come from the image's files, which may say anything."""
    return "?" if uid is None else ("root" if uid == 0 else str(uid))


def _boot_time() -> float:
    with open("/proc/stat", encoding="ascii") as file:
        for line in file:
            if line.startswith("btime "):
                return float(line.split()[1])
    return 0.0


def _share(process: _Seen) -> float:
    lifetime = max(time.time() - process.started, 0.01)
    return 100.0 * process.ticks / _HERTZ / lifetime


def _clock(moment: float) -> str:
    then = time.localtime(moment)
    return time.strftime("%H:%M" if time.time() - moment < 86400 else "%b%d", then)


def _elapsed(seconds: float, *, hours: bool = False) -> str:
    whole = max(int(seconds), 0)
    days, rest = divmod(whole, 86400)
    text = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    if days:
        return f"{days}-{text}"
    return text if hours or rest >= 3600 else text[3:]
