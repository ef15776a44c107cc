"""The one declaration of rootless-oci's verbs and flags, and a parser for lines without a fault. It runs nothing.

podman calls a runtime several times per container, and click alone takes longer to load than a container to start. So a
correct line is parsed here; help, completion, manual pages and every complaint come from click, which is given the same
declarations (`runtime.oci.cli`).
"""

from __future__ import annotations

from rootless.units import whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    FlagValue = str | int | tuple[str | int, ...] | None


class Flag:
    """One option. names: its spellings on the command line, the last one gives the name of its value.

    default: the value without the option; many: the option may be repeated, and its value is then a tuple.
    """

    __slots__ = ("default", "help", "many", "metavar", "name", "names")

    def __init__(self, names: str, help: str, *, metavar: str | None = None, many: bool = False) -> None:
        self.names = names.split()
        self.help = help
        self.metavar = metavar
        self.many = many
        self.name = self.names[-1].lstrip("-").replace("-", "_")
        self.default: FlagValue = () if many else None

    def value(self, word: str) -> str | int:
        """The value that `word` means. Raises ValueError when it is none."""
        return word


class TextFlag(Flag):
    """An option whose value is any text."""

    __slots__ = ()

    def __init__(self, names: str, help: str, *, metavar: str, default: str | None = None, many: bool = False) -> None:
        super().__init__(names, help, metavar=metavar, many=many)
        self.default = () if many else default


class SwitchFlag(Flag):
    """An option without a value: given or not. name: of its value, where its last spelling is not to give it."""

    __slots__ = ()

    def __init__(self, names: str, help: str, *, name: str | None = None) -> None:
        super().__init__(names, help)
        self.name = name or self.name
        self.default = False


class NumberFlag(Flag):
    """An option whose value is a whole number from 0 to `highest`; without it 0, or no number where it is `many`."""

    __slots__ = ("highest",)

    def __init__(self, names: str, help: str, *, metavar: str, highest: int = 1024, many: bool = False) -> None:
        super().__init__(names, help, metavar=metavar, many=many)
        self.highest = highest
        self.default = () if many else 0

    def value(self, word: str) -> int:
        """The number that `word` writes in decimal digits. Raises ValueError for another word, or above `highest`."""
        number = whole_number(word, self.highest)
        if number is None:
            raise ValueError(word)
        return number


class ChoiceFlag(Flag):
    """An option whose value is one of `choices`."""

    __slots__ = ("choices",)

    def __init__(self, names: str, help: str, choices: Sequence[str], default: str | None = None) -> None:
        super().__init__(names, help)
        self.choices = choices
        self.default = default

    def value(self, word: str) -> str:
        """The word itself. Raises ValueError when it is none of the choices."""
        if word not in self.choices:
            raise ValueError(word)
        return word


class FlagValues:
    """The values of one parsed line by the names of flags and arguments, read with the type that each flag has.

    A name that the line's verb does not declare, or another type than the flag's, is a fault of the caller: KeyError
    and TypeError.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def optional_text(self, name: str) -> str | None:
        """The text of an option or argument; None where it was not given."""
        value = self._values[name]
        if value is not None and not isinstance(value, str):
            raise TypeError(name)
        return value

    def text(self, name: str) -> str:
        """The text of an argument, or of an option with a default."""
        value = self._values[name]
        if not isinstance(value, str):
            raise TypeError(name)
        return value

    def number(self, name: str) -> int:
        """The value of a NumberFlag."""
        value = self._values[name]
        if not isinstance(value, int):
            raise TypeError(name)
        return value

    def switch(self, name: str) -> bool:
        """Whether a SwitchFlag was given."""
        return self._values[name] is True

    def texts(self, name: str) -> list[str]:
        """The values of an option that may be repeated, or the words after the arguments."""
        return [value for value in self._listed(name) if isinstance(value, str)]

    def numbers(self, name: str) -> list[int]:
        """The values of a NumberFlag that may be repeated."""
        return [value for value in self._listed(name) if isinstance(value, int)]

    def _listed(self, name: str) -> tuple[object, ...]:
        value = self._values[name]
        if not isinstance(value, tuple):
            raise TypeError(name)
        return value


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
    TextFlag("--root", "Directory of the containers' records (default: below XDG_RUNTIME_DIR).", metavar="DIR"),
    TextFlag("--log", "Append messages to FILE.", metavar="FILE"),
    ChoiceFlag("--log-format", "Format of the log file.", ("text", "json"), "text"),
    TextFlag("--log-level", "As --debug when LEVEL is debug.", metavar="LEVEL"),
    SwitchFlag("--debug", "Show the plan of operations."),
    SwitchFlag(
        "--systemd-cgroup",
        "Have your systemd make the cgroup; linux.cgroupsPath is SLICE:PREFIX:NAME.",
    ),
    ChoiceFlag(
        "--cgroup-manager",
        "Who makes the cgroup (crun's flag); systemd is --systemd-cgroup, disabled makes none.",
        ("cgroupfs", "systemd", "disabled"),
    ),
    ChoiceFlag(
        "--limits",
        "A limit that cannot be enforced: strict (default) fails, warn warns. Else as ROOTLESS_OCI_LIMITS says.",
        ("strict", "warn"),
    ),
    ChoiceFlag("--rootless", "Accepted as runc does: this runtime always is.", ("true", "auto")),
)

_PID_FILE = TextFlag("--pid-file", "Write the process's pid to FILE.", metavar="FILE")
_CONSOLE_SOCKET = TextFlag("--console-socket", "Send the pty's master to this unix socket.", metavar="PATH")
_PRESERVE_FDS = NumberFlag("--preserve-fds", "Pass on N fds from 3 on.", metavar="N")
_DETACH = SwitchFlag("-d --detach", "Return when the command runs.")
_FORM = ChoiceFlag("-f --format", "Form of the output.", ("table", "json"), "table")
_BUNDLE = TextFlag("-b --bundle", "Directory of config.json (default: .).", metavar="DIR", default=".")

_CREATE = (
    _BUNDLE,
    TextFlag(
        "-f --config",
        "Configuration, from the bundle on where the path is relative (crun's flag).",
        metavar="FILE",
        default="config.json",
    ),
    _PID_FILE,
    _CONSOLE_SOCKET,
    _PRESERVE_FDS,
    SwitchFlag("--no-pivot", "Move the root in place of pivot_root (in an initramfs)."),
    SwitchFlag("--no-new-keyring", "Keep the caller's session keyring."),
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
    TextFlag("--image-path", "Directory of the images.", metavar="DIR"),
    TextFlag("--work-path", "Directory of criu's own files.", metavar="DIR"),
    SwitchFlag("--leave-running", "Do not stop the container."),
    SwitchFlag("--tcp-established", "Keep open connections."),
    SwitchFlag("--ext-unix-sk", "Allow sockets to the outside."),
    SwitchFlag("--shell-job", "Allow a terminal from outside."),
    SwitchFlag("--file-locks", "Keep file locks."),
)

VERBS = {
    "create": Verb("Make a container; its command waits for `start`.", _CREATE),
    "start": Verb("Start the command of a created container."),
    "state": Verb("Print the state of a container as JSON."),
    "kill": Verb(
        "Send a signal (default TERM) to the container's first process.",
        (SwitchFlag("-a --all", "Signal all processes of the container.", name="everything"),),
        optional=("signal", "TERM"),
    ),
    "delete": Verb(
        "Remove a stopped container.",
        (
            SwitchFlag("-f --force", "Kill it first if it runs; no error if there is none."),
            SwitchFlag("--regex", "ID is a regular expression: remove all whose id it matches (crun's flag)."),
        ),
    ),
    "run": Verb(
        "Make and start a container, and wait for its end.",
        (
            *_CREATE,
            _DETACH,
            SwitchFlag("--keep", "Do not delete the container when it has ended."),
            SwitchFlag("--no-subreaper", "Accepted as runc does; orphans go to the container's own pid 1."),
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
            TextFlag("-r --resources", "File with OCI resources as JSON, - for stdin.", metavar="FILE"),
            *(TextFlag(flag, help, metavar="N") for flag, help, _ in LIMITS),
        ),
    ),
    "events": Verb(
        "Print what a container uses, and lacks of memory, as JSON lines.",
        (
            TextFlag("--interval", "Time between two lines, such as 5s (the default).", metavar="TIME", default="5s"),
            SwitchFlag("--stats", "Print one line and end."),
        ),
    ),
    "exec": Verb(
        "Run a further process in a running container.",
        (
            TextFlag("-e --env", "Set an environment variable.", metavar="NAME=VALUE", many=True),
            SwitchFlag("-t --tty", "Give the process a pty."),
            _DETACH,
            TextFlag("--cwd", "Working directory.", metavar="DIR"),
            TextFlag("-u --user", "User and group, as numbers.", metavar="UID[:GID]"),
            NumberFlag(
                "-g --additional-gids",
                "A further group.",
                metavar="GID",
                highest=0xFFFFFFFE,
                many=True,
            ),
            TextFlag("-c --cap", "Add a capability.", metavar="NAME", many=True),
            SwitchFlag("--no-new-privs", "Set no_new_privs."),
            TextFlag("--apparmor", "AppArmor profile.", metavar="PROFILE"),
            TextFlag(
                "--cgroup",
                "Sub-cgroup of the container's to run in; of version 1 with the controllers that are meant.",
                metavar="[CONTROLLER[,...]:]PATH",
                many=True,
            ),
            SwitchFlag("--ignore-paused", "Wait in a paused container until it goes on, in place of failing."),
            TextFlag("--process-label", "SELinux label.", metavar="LABEL"),
            TextFlag("-p --process", "File or pipe with an OCI process object, in place of a command.", metavar="FILE"),
            _PID_FILE,
            _CONSOLE_SOCKET,
            _PRESERVE_FDS,
        ),
        rest="command",
    ),
    "list": Verb(
        "List the containers below --root.",
        (_FORM, SwitchFlag("-q --quiet", "Ids only.")),
        arguments=(),
    ),
    "ps": Verb("List the processes of a container; OPTIONS are those of the host's ps(1).", (_FORM,), rest="options"),
    "features": Verb("Print what this runtime can do, as JSON.", arguments=()),
    "spec": Verb(
        "Write a configuration to start from.",
        (
            TextFlag("-b --bundle", "Where to write config.json (default: .).", metavar="DIR", default="."),
            SwitchFlag("--rootless", "Accepted as runc does: the configuration always is."),
        ),
        arguments=(),
    ),
}


def parse(words: Sequence[str]) -> tuple[dict[str, FlagValue], str, dict[str, FlagValue]] | None:
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


def _take(flags: Sequence[Flag], words: list[str], *, interspersed: bool) -> tuple[dict[str, FlagValue], list[str]]:
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
        if isinstance(flag, SwitchFlag):
            if separator:
                raise ValueError(word)
            values[flag.name] = True
            continue
        value = flag.value(attached if separator else words.pop(0))
        earlier = values[flag.name]
        values[flag.name] = (*earlier, value) if isinstance(earlier, tuple) else value
    return values, others
