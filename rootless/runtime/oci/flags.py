"""The one declaration of rootless-oci's verbs and flags, and a parser for lines without a fault. It runs nothing.

podman calls a runtime several times per container, and click alone takes longer to load than a container to start. So a
correct line is parsed here; help, completion, manual pages and every complaint come from click, which is given the same
declarations (`runtime.oci.cli`).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class Flag:
    """One option. kind: switch, text, number or choice; many: may be repeated, the value is then a tuple."""

    __slots__ = ("choices", "default", "help", "highest", "kind", "many", "metavar", "name", "names")

    def __init__(
        self,
        names: str,
        help: str,
        *,
        kind: str = "text",
        name: str | None = None,
        metavar: str | None = None,
        default: Any = None,
        choices: Sequence[str] = (),
        highest: int = 1024,
        many: bool = False,
    ) -> None:
        self.names = names.split()
        self.help = help
        self.kind = kind
        self.name = name or self.names[-1].lstrip("-").replace("-", "_")
        self.metavar = metavar
        self.default: Any = False if kind == "switch" else () if many else default
        self.choices = choices
        self.highest = highest
        self.many = many

    def value(self, word: str) -> Any:
        """The value of `word`; ValueError when it is none."""
        if self.kind == "number":
            if not word.isascii() or not word.isdigit() or int(word) > self.highest:
                raise ValueError(word)
            return int(word)
        if self.kind == "choice" and word not in self.choices:
            raise ValueError(word)
        return word


class Verb:
    """One command. arguments: names of the required ones; optional: (name, default) of one more; rest: name of all
    words that follow, flags among them too."""

    __slots__ = ("arguments", "flags", "help", "optional", "rest")

    def __init__(
        self,
        help: str,
        flags: Sequence[Flag] = (),
        *,
        arguments: Sequence[str] = ("container_id",),
        optional: tuple[str, str] | None = None,
        rest: str | None = None,
    ) -> None:
        self.help = help
        self.flags = flags
        self.arguments = arguments
        self.optional = optional
        self.rest = rest


GLOBAL = (
    Flag("--root", "Directory of the containers' records (default: below XDG_RUNTIME_DIR).", metavar="DIR"),
    Flag("--log", "Append messages to FILE.", metavar="FILE"),
    Flag("--log-format", "Format of the log file.", kind="choice", choices=("text", "json"), default="text"),
    Flag("--log-level", "As --debug when LEVEL is debug.", metavar="LEVEL"),
    Flag("--debug", "Show the plan of operations.", kind="switch"),
    Flag(
        "--systemd-cgroup",
        "Have your systemd make the cgroup; linux.cgroupsPath is SLICE:PREFIX:NAME.",
        kind="switch",
    ),
    Flag(
        "--cgroup-manager",
        "Who makes the cgroup (crun's flag); systemd is --systemd-cgroup, disabled makes none.",
        kind="choice",
        choices=("cgroupfs", "systemd", "disabled"),
    ),
    Flag(
        "--limits",
        "A limit that cannot be enforced: strict (default) fails, warn warns. Else as ROOTLESS_OCI_LIMITS says.",
        kind="choice",
        choices=("strict", "warn"),
    ),
    Flag("--rootless", "Accepted as runc does: this runtime always is.", kind="choice", choices=("true", "auto")),
)

_PID_FILE = Flag("--pid-file", "Write the process's pid to FILE.", metavar="FILE")
_CONSOLE_SOCKET = Flag("--console-socket", "Send the pty's master to this unix socket.", metavar="PATH")
_PRESERVE_FDS = Flag("--preserve-fds", "Pass on N fds from 3 on.", kind="number", metavar="N", default=0)
_DETACH = Flag("-d --detach", "Return when the command runs.", kind="switch")
_FORM = Flag("-f --format", "Form of the output.", kind="choice", choices=("table", "json"), default="table")
_BUNDLE = Flag("-b --bundle", "Directory of config.json (default: .).", metavar="DIR", default=".")

_CREATE = (
    _BUNDLE,
    _PID_FILE,
    _CONSOLE_SOCKET,
    _PRESERVE_FDS,
    Flag("--no-pivot", "Move the root in place of pivot_root (in an initramfs).", kind="switch"),
    Flag("--no-new-keyring", "Keep the caller's session keyring.", kind="switch"),
)

LIMITS = (
    ("--memory", "Most bytes of memory; -1: no limit.", "memory.limit"),
    ("--memory-reservation", "Bytes of memory that are not taken away.", "memory.reservation"),
    ("--memory-swap", "Most bytes of memory and swap together; -1: no limit.", "memory.swap"),
    ("--cpu-period", "Period of --cpu-quota in microseconds.", "cpu.period"),
    ("--cpu-quota", "Microseconds of CPU time in each period; -1: no limit.", "cpu.quota"),
    ("--cpu-share", "Share of CPU time.", "cpu.shares"),
    ("--cpuset-cpus", "CPUs to run on.", "cpu.cpus"),
    ("--cpuset-mems", "Memory nodes to use.", "cpu.mems"),
    ("--blkio-weight", "Share of block I/O, 10 to 1000.", "blockIO.weight"),
    ("--pids-limit", "Most processes and threads; -1: no limit.", "pids.limit"),
)
"""Flags of update: name, help, and the OCI property that each is."""

_CHECKPOINT = (
    Flag("--image-path", "Directory of the images.", metavar="DIR"),
    Flag("--work-path", "Directory of criu's own files.", metavar="DIR"),
    Flag("--leave-running", "Do not stop the container.", kind="switch"),
    Flag("--tcp-established", "Keep open connections.", kind="switch"),
    Flag("--ext-unix-sk", "Allow sockets to the outside.", kind="switch"),
    Flag("--shell-job", "Allow a terminal from outside.", kind="switch"),
    Flag("--file-locks", "Keep file locks.", kind="switch"),
)

VERBS = {
    "create": Verb("Make a container; its command waits for `start`.", _CREATE),
    "start": Verb("Start the command of a created container."),
    "state": Verb("Print the state of a container as JSON."),
    "kill": Verb(
        "Send a signal (default TERM) to the container's first process.",
        (Flag("-a --all", "Signal all processes of the container.", kind="switch", name="everything"),),
        optional=("signal", "TERM"),
    ),
    "delete": Verb(
        "Remove a stopped container.",
        (Flag("-f --force", "Kill it first if it runs; no error if there is none.", kind="switch"),),
    ),
    "run": Verb(
        "Make and start a container, and wait for its end.",
        (
            *_CREATE,
            _DETACH,
            Flag("--keep", "Do not delete the container when it has ended.", kind="switch"),
            Flag("--no-subreaper", "Accepted as runc does; orphans go to the container's own pid 1.", kind="switch"),
        ),
    ),
    "pause": Verb("Freeze all processes of a container."),
    "resume": Verb("Let the processes of a paused container go on."),
    "checkpoint": Verb("Refused, with the reason: criu cannot save a container of an ordinary user.", _CHECKPOINT),
    "restore": Verb(
        "Refused, with the reason: criu cannot restore a container of an ordinary user.",
        (*_CHECKPOINT, _BUNDLE, _PID_FILE, _CONSOLE_SOCKET, _DETACH),
    ),
    "update": Verb(
        "Change the limits of a container.",
        (
            Flag("-r --resources", "File with OCI resources as JSON, - for stdin.", metavar="FILE"),
            *(Flag(flag, help, metavar="N") for flag, help, _ in LIMITS),
        ),
    ),
    "events": Verb(
        "Print what a container uses, and lacks of memory, as JSON lines.",
        (
            Flag("--interval", "Time between two lines, such as 5s (the default).", metavar="TIME", default="5s"),
            Flag("--stats", "Print one line and end.", kind="switch"),
        ),
    ),
    "exec": Verb(
        "Run a further process in a running container.",
        (
            Flag("-e --env", "Set an environment variable.", metavar="NAME=VALUE", many=True),
            Flag("-t --tty", "Give the process a pty.", kind="switch"),
            _DETACH,
            Flag("--cwd", "Working directory.", metavar="DIR"),
            Flag("-u --user", "User and group, as numbers.", metavar="UID[:GID]"),
            Flag(
                "-g --additional-gids",
                "A further group.",
                kind="number",
                metavar="GID",
                highest=0xFFFFFFFE,
                many=True,
            ),
            Flag("-c --cap", "Add a capability.", metavar="NAME", many=True),
            Flag("--no-new-privs", "Set no_new_privs.", kind="switch"),
            Flag("--apparmor", "AppArmor profile.", metavar="PROFILE"),
            Flag("--process-label", "SELinux label.", metavar="LABEL"),
            Flag("-p --process", "File with an OCI process object, in place of a command.", metavar="FILE"),
            _PID_FILE,
            _CONSOLE_SOCKET,
            _PRESERVE_FDS,
        ),
        rest="command",
    ),
    "list": Verb(
        "List the containers below --root.",
        (_FORM, Flag("-q --quiet", "Ids only.", kind="switch")),
        arguments=(),
    ),
    "ps": Verb("List the processes of a container.", (_FORM,)),
    "features": Verb("Print what this runtime can do, as JSON.", arguments=()),
    "spec": Verb(
        "Write a configuration to start from.",
        (
            Flag("-b --bundle", "Where to write config.json (default: .).", metavar="DIR", default="."),
            Flag("--rootless", "Accepted as runc does: the configuration always is.", kind="switch"),
        ),
        arguments=(),
    ),
}


def parse(words: Sequence[str]) -> tuple[dict[str, Any], str, dict[str, Any]] | None:
    """(global flags, verb, its flags and arguments) of a correct line; None for click to look at."""
    try:
        overall, rest = _take(GLOBAL, list(words), interspersed=False)
        if not rest or rest[0] not in VERBS:
            return None
        verb = VERBS[rest[0]]
        values, arguments = _take(verb.flags, rest[1:], interspersed=verb.rest is None)
    except (ValueError, IndexError):
        return None
    count = len(verb.arguments)
    if len(arguments) < count:
        return None
    values.update(zip(verb.arguments, arguments[:count], strict=True))
    left = arguments[count:]
    if verb.rest is not None:
        values[verb.rest] = tuple(left)
    elif verb.optional is not None:
        values[verb.optional[0]] = left.pop(0) if left else verb.optional[1]
    if left and verb.rest is None:
        return None
    return overall, rest[0], values


def _take(flags: Sequence[Flag], words: list[str], *, interspersed: bool) -> tuple[dict[str, Any], list[str]]:
    """Flags taken out of `words`, and the other words. ValueError or IndexError for anything unusual."""
    values = {flag.name: flag.default for flag in flags}
    by_name = {name: flag for flag in flags for name in flag.names}
    others: list[str] = []
    while words:
        word = words.pop(0)
        if word == "--":
            return values, others + words
        if not word.startswith("-") or word == "-":
            others.append(word)
            if not interspersed:
                return values, others + words
            continue
        name, separator, attached = word.partition("=")
        if not word.startswith("--") and (separator or len(word) != 2):
            raise ValueError(word)
        if name not in by_name:
            raise ValueError(word)
        flag = by_name[name]
        if flag.kind == "switch":
            if separator:
                raise ValueError(word)
            values[flag.name] = True
            continue
        value = flag.value(attached if separator else words.pop(0))
        if flag.many:
            earlier: tuple[Any, ...] = values[flag.name]
            value = (*earlier, value)
        values[flag.name] = value
    return values, others
