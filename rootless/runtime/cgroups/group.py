"""One container's cgroup, of either version: make, limit, join, freeze, kill, remove. host.cgroups knows where."""

from __future__ import annotations

import errno
import os
import signal
import time

from rootless.errors import HostLimit, InvalidState, RuntimeFailure
from rootless.host import cgroups
from rootless.host.cgroups import write_value
from rootless.records.fields import Fields
from rootless.runtime.cgroups.limit_values import Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Unmet = Callable[[HostLimit], None]

PATIENCE = 10.0  # seconds for what the kernel does when it likes: a process to die, a group to freeze
_PAUSE = 0.002
# Levels of sub-cgroups that are looked at: the kernel sets no bound by default, and a hostile container to which its
# cgroup was given could make more of them than we have memory for
_DEPTH = 64
_DELEGATE = "/sys/kernel/cgroup/delegate"
_FILES_TO_DELEGATE = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "memory.oom.group")


class NoController(HostLimit):
    """A limit cannot be enforced because its controller was not delegated to the user."""


class Group:
    """A cgroup of version 2. path: its directory; unit: the systemd scope that it is in, "" without."""

    version = 2
    __slots__ = ("path", "unit")

    def __init__(self, path: str, unit: str = "") -> None:
        self.path = path
        self.unit = unit

    def to_json(self) -> dict[str, object]:
        """The group as JSON values, from which `restore` makes it again in another process."""
        return {"version": 2, "path": self.path, "unit": self.unit}

    def make(self) -> None:
        """Make the directory; one that is there and empty will do. Raises InvalidState when processes are in it, and
        when it is frozen."""
        _make(self.path)
        _require_usable(self)

    def apply(self, settings: Iterable[Setting], unmet: Unmet) -> None:
        """Write limits. unmet: gets the HostLimit, naming property and controller, of each that cannot be."""
        present = cgroups.read_controllers(self.path)
        for setting in settings:
            if setting.controller and setting.controller not in present:
                unmet(_missing(setting, present))
                continue
            try:
                write_value(f"{self.path}/{setting.name}", setting.value)
            except OSError as e:
                if setting.name == "memory.swap.max" and e.errno == errno.ENOENT:
                    continue  # a kernel without swap accounting has no swap, or cannot limit it
                unmet(_refused(self.path, setting, e))

    def join(self, pid: int) -> None:
        """Move a process into it. Raises OSError: EACCES where only systemd may, EBUSY below controllers."""
        write_value(f"{self.path}/cgroup.procs", str(pid))

    def pids(self) -> list[int]:
        """All processes in it and below."""
        found: list[int] = []
        for directory in _tree(self.path):
            found += _read_pids(f"{directory}/cgroup.procs")
        return found

    def kill(self) -> bool:
        """SIGKILL to all, born or not (cgroup.kill, Linux 5.14); False where only one after the other can be killed."""
        try:
            write_value(f"{self.path}/cgroup.kill", "1")
        except OSError as e:
            if e.errno == errno.ENOENT and os.path.isdir(self.path):
                _kill_each(self)
                return False
            if e.errno not in (errno.ENOENT, errno.ENODEV):
                raise HostLimit(f"cannot kill the processes of cgroup '{self.path}': {e.strerror}") from e
        return True

    def freeze(self) -> None:
        """Stop all processes; returns once they stand still. Raises HostLimit."""
        self._set_frozen(True)

    def thaw(self) -> None:
        """Let the processes of a frozen group go on. Raises HostLimit."""
        self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> None:
        verb = "freeze" if frozen else "thaw"
        try:
            write_value(f"{self.path}/cgroup.freeze", "01"[frozen])
        except OSError as e:
            raise HostLimit(f"cannot {verb} cgroup '{self.path}': {e.strerror}") from e
        deadline = time.monotonic() + PATIENCE
        while self.events("cgroup.events").get("frozen", int(frozen)) != int(frozen):
            if time.monotonic() > deadline:
                if frozen:
                    write_value(f"{self.path}/cgroup.freeze", "0")
                raise HostLimit(f"cannot {verb} cgroup '{self.path}': a process of it does not react")
            time.sleep(_PAUSE)

    def is_frozen(self) -> bool:
        """Are its processes stopped, by it or by one above?"""
        return self.events("cgroup.events").get("frozen") == 1

    def events(self, name: str) -> dict[str, int]:
        """A file of `key number` lines, such as memory.events; empty when it is not there."""
        return read_pairs(f"{self.path}/{name}")

    def oom_kills(self) -> int:
        """How many processes the kernel has killed for its memory limit."""
        return self.events("memory.events").get("oom_kill", 0)

    def watched(self) -> str:
        """The file that polls POLLPRI when something runs out of memory."""
        return f"{self.path}/memory.events"

    def remove(self) -> None:
        """Remove it and what was made below; its processes must be ending.

        Raises HostLimit when it stays busy, PermissionError where another id of the container's owns a directory.
        """
        _remove(self.path)

    def delegate(self, uid: int, gid: int) -> None:
        """Give directory and the files of the kernel's list to `uid`, and nothing else. Raises OSError."""
        os.chown(self.path, uid, gid)
        try:
            with open(_DELEGATE, encoding="ascii") as file:
                names = file.read(1 << 16).split()
        except OSError:
            names = list(_FILES_TO_DELEGATE)
        for name in names:
            if "/" in name:
                continue
            try:
                os.chown(f"{self.path}/{name}", uid, gid, follow_symlinks=False)
            except FileNotFoundError:
                pass


class Group1:
    """A cgroup of version 1: one directory per controller that may be written. unit: always ""."""

    version = 1
    __slots__ = ("paths", "unit")

    def __init__(self, paths: dict[str, str]) -> None:
        self.paths = paths
        self.unit = ""

    @property
    def path(self) -> str:
        """One of the directories, for messages."""
        return next(iter(self.paths.values()), "")

    def to_json(self) -> dict[str, object]:
        """The group as JSON values, from which `restore` makes it again in another process."""
        return {"version": 1, "path": self.path, "paths": self.paths}

    def make(self) -> None:
        """Make the directory of this group in each hierarchy. Raises InvalidState where one has processes already, and
        when it is frozen."""
        for name, path in self.paths.items():
            _make(path)
            if name == "cpuset":
                _inherit_cpuset(path)
        _require_usable(self)

    def apply(self, settings: Iterable[Setting], unmet: Unmet) -> None:
        """Write limits. unmet: gets the HostLimit, naming property and controller, of each that cannot be."""
        for setting in settings:
            path = self.paths.get(setting.controller)
            if path is None:
                unmet(_missing(setting, tuple(self.paths)))
                continue
            try:
                write_value(f"{path}/{setting.name}", setting.value)
            except OSError as e:
                unmet(_refused(path, setting, e))

    def join(self, pid: int) -> None:
        """Move a process into each. Raises OSError."""
        for path in self.paths.values():
            write_value(f"{path}/cgroup.procs", str(pid))

    def pids(self) -> list[int]:
        """All processes in it and below."""
        found: set[int] = set()
        for path in self.paths.values():
            for directory in _tree(path):
                found.update(_read_pids(f"{directory}/cgroup.procs"))
        return sorted(found)

    def kill(self) -> bool:
        """SIGKILL to all, generation after generation."""
        freezer = self.paths.get("freezer")
        if freezer is not None and _read(f"{freezer}/freezer.state").strip() != "THAWED":
            # here, unlike in version 2, what is frozen does not even die: it gets its signal first, and then may run
            _signal_each(self.pids())
            try:
                write_value(f"{freezer}/freezer.state", "THAWED")
            except OSError as e:
                raise HostLimit(f"cannot thaw cgroup '{freezer}': {e.strerror}") from e
        _kill_each(self)
        return False

    def freeze(self) -> None:
        """Stop all processes. Raises HostLimit without the freezer."""
        self._set_state("FROZEN")

    def thaw(self) -> None:
        """Let the processes of a frozen group go on. Raises HostLimit."""
        self._set_state("THAWED")

    def _set_state(self, wanted: str) -> None:
        path = self.paths.get("freezer")
        if path is None:
            raise HostLimit("the freezer of cgroup version 1 is not yours to write")
        deadline = time.monotonic() + PATIENCE
        try:
            write_value(f"{path}/freezer.state", wanted)
            while _read(f"{path}/freezer.state").strip() != wanted:
                if time.monotonic() > deadline:
                    write_value(f"{path}/freezer.state", "THAWED")
                    raise HostLimit(f"cgroup '{path}' does not become {wanted.lower()}: a process does not react")
                time.sleep(_PAUSE)
                write_value(f"{path}/freezer.state", wanted)
        except OSError as e:
            raise HostLimit(f"cannot write '{path}/freezer.state': {e.strerror}") from e

    def is_frozen(self) -> bool:
        """Are its processes stopped?"""
        path = self.paths.get("freezer")
        return path is not None and _read(f"{path}/freezer.state").strip() == "FROZEN"

    def events(self, name: str) -> dict[str, int]:
        """memory.events as far as version 1 tells."""
        return {"oom_kill": self.oom_kills()} if name == "memory.events" else {}

    def oom_kills(self) -> int:
        """How many processes the kernel has killed for its memory limit (Linux 4.13)."""
        return read_pairs(f"{self.paths.get('memory', '')}/memory.oom_control").get("oom_kill", 0)

    def watched(self) -> str:
        """ "", for there is no file to poll: version 1 tells of a lack of memory by an eventfd, which is not used."""
        return ""

    def remove(self) -> None:
        """Remove the directory of this group from each hierarchy."""
        for path in self.paths.values():
            _remove(path)

    def delegate(self, uid: int, gid: int) -> None:
        """Does nothing: version 1 cannot be delegated safely (config-linux.md, "Cgroup ownership")."""


def restore(known: object) -> Group | Group1 | None:
    """A group from its `to_json`; None for none. Raises InvalidInput when `known` is of another form."""
    if not known:
        return None
    fields = Fields(known, "state.json", "cgroup")
    if fields.integer("version", 2) == 1:
        return Group1(fields.text_mapping("paths"))
    return Group(fields.text("path"), fields.text("unit", ""))


def read_pairs(path: str) -> dict[str, int]:
    """`key number` lines of a file; those of another form are left out, no file is no line."""
    found = {}
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            found[key] = int(value)
    return found


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""


def _read_pids(path: str) -> list[int]:
    return [int(text) for text in _read(path).split() if text.isdigit() and text != "0"]


def _make(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as e:
        raise HostLimit(f"cannot make cgroup '{path}': {e.strerror}", hint=cgroups.DELEGATION) from e


def _inherit_cpuset(path: str) -> None:
    """Version 1 gives a new cpuset nothing, and lets no process into it."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not _read(f"{path}/{name}").strip():
            inherited = _read(f"{os.path.dirname(path)}/{name}").strip()
            try:
                write_value(f"{path}/{name}", inherited)
            except OSError as e:
                raise RuntimeFailure(f"cannot write '{path}/{name}': {e.strerror}") from e


def _missing(setting: Setting, present: tuple[str, ...]) -> NoController:
    return NoController(
        f"{setting.origin} cannot be enforced: controller '{setting.controller}' is not delegated"
        f" (there are {', '.join(present) or 'none'})",
        hint=cgroups.DELEGATION,
    )


def _refused(path: str, setting: Setting, error: OSError) -> HostLimit:
    return HostLimit(
        f"{setting.origin} cannot be enforced: writing '{setting.value}' to '{path}/{setting.name}': {error.strerror}"
    )


def _tree(path: str) -> list[str]:
    """`path` and all cgroups below, parents first, links never followed; a hostile depth is cut."""
    found, level = [], [path]
    for _ in range(_DEPTH):
        below = []
        for directory in level:
            found.append(directory)
            try:
                with os.scandir(directory) as entries:
                    below += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
            except OSError:
                continue
        if not below:
            break
        level = below
    return found


def _require_usable(group: Group | Group1) -> None:
    """Raise InvalidState where no container can start in the group: a process of it would stand still at its first
    step, and its launcher would wait for ever."""
    if group.pids():
        raise InvalidState(f"cgroup '{group.path}' has processes already", hint="use another cgroup path")
    if group.is_frozen():
        raise InvalidState(f"cgroup '{group.path}' is frozen", hint="thaw it, or the one above that is frozen")


def _kill_each(group: Group | Group1) -> None:
    deadline = time.monotonic() + PATIENCE
    while pids := group.pids():
        _signal_each(pids)
        if time.monotonic() > deadline:
            return  # `remove`, which is called next, then fails with the reason
        time.sleep(_PAUSE)


def _signal_each(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        except OSError as e:
            raise HostLimit(f"cannot kill process {pid} of the container: {e.strerror}") from e


def _remove(path: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        problem: OSError | None = None
        for directory in reversed(_tree(path)):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError as e:
                problem = e
        if problem is None:
            return
        if problem.errno in (errno.EACCES, errno.EPERM):
            raise problem
        # EBUSY: a process that was killed is not gone yet
        if problem.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > deadline:
            raise HostLimit(f"cannot remove cgroup '{path}': {problem.strerror}")
        time.sleep(_PAUSE)
