"""The files of CDI: which directories are searched, what is refused before it is read, and the devices that are found.

A specification names programs that run as the caller (`hooks`) and files that containers get. Whoever can write one can
act as the caller, so that only files of the caller and of the administrator are read, and none that others may write.
"""

from __future__ import annotations

import os
import stat

from rootless.engine.devices.cdi_spec import CdiSpec
from rootless.engine.report_types import CdiDevice, CdiFile
from rootless.errors import HostLimit, InvalidInput, RootlessError, UsageError
from rootless.records.fields import parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rootless.engine.context import Engine

LIMIT = 4 << 20
"""Bytes of a specification. A device takes some hundred bytes, so that thousands have room."""
MOST_FILES = 1000
"""Specifications in one directory."""
_MOST_LEVELS = 32  # of collections in collections of YAML; the specification needs six
_ENDINGS = (".json", ".yaml")
_SYSTEM = ("/etc/cdi", "/var/run/cdi")


class Found:
    """A device that a specification describes. name: VENDOR/CLASS=NAME; short: its NAME alone."""

    __slots__ = ("name", "short", "spec")

    def __init__(self, spec: CdiSpec, short: str) -> None:
        self.name = f"{spec.kind}={short}"
        self.short = short
        self.spec = spec


class Devices:
    """All devices of some directories, by name. problems: of files that were refused; conflicts: of devices.

    Of a device that two files of one directory describe nobody can say which is meant, so that it is not there. A later
    directory wins over an earlier one.
    """

    __slots__ = ("by_name", "conflicts", "problems")

    def __init__(self, directories: Sequence[str]) -> None:
        self.by_name: dict[str, Found] = {}
        self.problems: list[RootlessError] = []
        self.conflicts: list[RootlessError] = []
        for directory in directories:
            self._read(directory)

    def of_kind(self, kind: str) -> list[Found]:
        """The devices VENDOR/CLASS, in the order in which their files have them."""
        return [found for found in self.by_name.values() if found.spec.kind == kind]

    def _read(self, directory: str) -> None:
        here: dict[str, Found] = {}
        twice: dict[str, str] = {}
        for path in self._listed(directory):
            try:
                spec = read_spec(path)
            except RootlessError as e:
                self.problems.append(e)
                continue
            for short in spec.devices:
                found = Found(spec, short)
                other = here.setdefault(found.name, found)
                if other is not found:
                    twice[found.name] = f"'{other.spec.path}' and '{path}' both describe the device '{found.name}'"
        for name, problem in twice.items():
            del here[name]
            self.by_name.pop(name, None)
            self.conflicts.append(InvalidInput(problem, hint="remove one of these CDI specifications"))
        self.by_name |= here

    def _listed(self, directory: str) -> list[str]:
        try:
            return list_files(directory)
        except RootlessError as e:
            self.problems.append(e)
            return []


def spec_directories(engine: Engine) -> list[str]:
    """The directories of specifications, the one that wins last: those of the setting, else the usual ones.

    Raises UsageError for a relative path in the setting.
    """
    setting = engine.settings.cdi_spec_dirs
    if not setting:
        return [*_SYSTEM, f"{os.path.dirname(engine.directories.config)}/cdi"]
    chosen = [path for path in setting.split(":") if path]
    for path in chosen:
        if not path.startswith("/"):
            raise UsageError(f"the setting cdi_spec_dirs has '{path}', which is not an absolute path")
    return chosen


def list_files(directory: str) -> list[str]:
    """The paths of the specifications in a directory, by name; none where it is missing.

    Raises HostLimit for a directory that others may write, InvalidInput for one with too many files.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as e:
        raise InvalidInput(f"cannot read '{directory}', where CDI specifications may be: {e.strerror}") from e
    try:
        names = sorted(name for name in os.listdir(fd) if name.endswith(_ENDINGS))
        if names:
            _check_writers(directory, os.fstat(fd))
    finally:
        os.close(fd)
    if len(names) > MOST_FILES:
        raise InvalidInput(f"'{directory}' has {len(names)} CDI specifications, and at most {MOST_FILES} are read")
    return [f"{directory}/{name}" for name in names]


def read_spec(path: str) -> CdiSpec:
    """The specification in file `path`.

    Raises HostLimit for a file that others may write, InvalidInput for one that is too large or breaks the
    specification; both name the file.
    """
    try:
        # without O_NONBLOCK opening a fifo would wait for ever
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as e:
        raise InvalidInput(f"cannot read the CDI specification '{path}': {e.strerror}") from e
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInput(f"the CDI specification '{path}' is not a file")
        _check_writers(path, status)
        content = file.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise InvalidInput(f"the CDI specification '{path}' is larger than {LIMIT >> 20} MiB")
    if path.endswith(".yaml"):
        return CdiSpec.from_json(path, _yaml(path, content))
    try:
        value = parse_json(content)
    except ValueError as e:
        raise InvalidInput(f"the CDI specification '{path}' is not JSON: {e}") from e
    return CdiSpec.from_json(path, value)


def _check_writers(path: str, status: os.stat_result) -> None:
    if status.st_uid not in (os.geteuid(), 0) and not _is_of_unmapped_root(status.st_uid):
        raise HostLimit(
            f"'{path}' belongs to another user, who could run programs as you by a CDI specification",
            hint="copy it to a directory of yours, and name that in the setting cdi_spec_dirs",
        )
    if status.st_mode & 0o022:
        raise HostLimit(
            f"others may write '{path}', and run programs as you by a CDI specification", hint=f"chmod go-w {path}"
        )


def _is_of_unmapped_root(uid: int) -> bool:
    """Whether a file of `uid` may be root's: in a user namespace without root's id it shows the overflow uid."""
    with open("/proc/sys/kernel/overflowuid", encoding="ascii") as file:
        if uid != int(file.read()):
            return False
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return not any(line.split()[1] == "0" for line in file)


def _yaml(path: str, content: bytes) -> object:
    """The value that a YAML text writes. PyYAML is loaded for a file of that form only, and need not be there.

    An alias stands for a collection any number of times (the "billion laughs"), and collections in collections take
    the parser's stack. Both are refused by the events of the text, before any value is made.
    """
    from importlib import import_module

    try:
        yaml = import_module("yaml")
    except ImportError as e:
        raise InvalidInput(
            f"the CDI specification '{path}' is YAML, which needs PyYAML",
            hint="pip install 'rootless[yaml]', or write it as JSON: "
            'nvidia-ctk cdi generate --format=json --output="$HOME/.config/cdi/nvidia.json"',
        ) from e
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        for event in yaml.parse(content, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise InvalidInput(f"the CDI specification '{path}' has an alias of YAML, which is refused")
            if depth > _MOST_LEVELS:
                raise InvalidInput(f"the CDI specification '{path}' is nested too deeply")
        value: object = yaml.load(content, Loader=loader)
    except (yaml.YAMLError, ValueError) as e:
        words = " ".join(str(e).split())
        raise InvalidInput(f"the CDI specification '{path}' is not YAML: {words}") from e
    return value


def list_cdi_devices(engine: Engine) -> list[CdiDevice]:
    """All devices that --device VENDOR/CLASS=NAME can name, by name; what was refused goes to the user as warnings."""
    devices = Devices(spec_directories(engine))
    for problem in (*devices.problems, *devices.conflicts):
        engine.warn(str(problem))
    return [CdiDevice(name, found.spec.path) for name, found in sorted(devices.by_name.items())]


def check_cdi_files(engine: Engine, paths: Sequence[str] = ()) -> Iterator[CdiFile]:
    """Read each of `paths`, or all specifications of the directories, and say what each one is.

    A device that two files of one directory describe is said at the end, without paths only. Raises UsageError for a
    setting that is wrong.
    """
    if paths:
        yield from map(_checked, paths)
        return
    directories = spec_directories(engine)
    for directory in directories:
        try:
            found = list_files(directory)
        except RootlessError as e:
            yield CdiFile(directory, "", 0, e)
            continue
        yield from map(_checked, found)
    for conflict in Devices(directories).conflicts:
        yield CdiFile("", "", 0, conflict)


def _checked(path: str) -> CdiFile:
    try:
        spec = read_spec(path)
    except RootlessError as e:
        return CdiFile(path, "", 0, e)
    return CdiFile(path, spec.kind, len(spec.devices), None)
