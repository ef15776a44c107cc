"""The records of rootless-oci: one directory per container below `--root`. It starts and signals nothing.

ROOT/ID/state.json (written by rename), config.json (as it was at create: later edits of the bundle have no effect),
start.sock (the start gate; there until `start`), lock.
"""

from __future__ import annotations

import json
import os
import re
import stat

from rootless.errors import AlreadyExists, InvalidInput, InvalidState, NotFound, UsageError
from rootless.kernel import procfs
from rootless.paths import Lock, atomic_write, close_to_others, ensure_private
from rootless.records.fields import Fields, parse_json
from rootless.records.state import ContainerNamespaces
from rootless.runtime.spec.oci_state import OciState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.runtime.spec.oci_config import OciConfig


def _is_own(_name: str) -> bool:
    """The directory of `--root` is the caller's: its mode is looked at and not changed."""
    return False


_ID = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.+-]{0,1023}")


def check_id(container_id: str) -> str:
    """Return the id, or raise UsageError: it becomes a directory's name."""
    if not _ID.fullmatch(container_id):
        raise UsageError(
            f"invalid container id '{container_id}'", hint="letters, digits and _ . + - are allowed, a letter first"
        )
    return container_id


class OciFacts:
    """state.json: what is known of one container. version: of the specification, as its configuration declares it.

    bundle, rootfs: absolute paths; created: the time of `create` (UTC); boot_id: of the boot in which it was made; pid,
    pid_start: first process and its start time in clock ticks, 0 before there is one; cgroup: what
    runtime.cgroups.group.restore takes, None without one; namespaces: noted where a pid or user namespace is another's.
    """

    __slots__ = (
        "annotations",
        "boot_id",
        "bundle",
        "cgroup",
        "created",
        "namespaces",
        "pid",
        "pid_start",
        "rootfs",
        "version",
    )

    def __init__(self, version: str, bundle: str) -> None:
        self.version = version
        self.bundle = bundle
        self.rootfs = ""
        self.created = ""
        self.boot_id = ""
        self.annotations: dict[str, str] = {}
        self.pid = 0
        self.pid_start = 0
        self.cgroup: object = None
        self.namespaces: ContainerNamespaces | None = None

    def to_json(self) -> dict[str, object]:
        """The content of state.json."""
        return {
            "ociVersion": self.version,
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
            "boot_id": self.boot_id,
            "annotations": self.annotations,
            "pid": self.pid,
            "pid_start": self.pid_start,
            "cgroup": self.cgroup,
            "namespaces": None if self.namespaces is None else self.namespaces.to_json(),
        }

    @classmethod
    def from_json(cls, value: object, file: str) -> OciFacts:
        """The reverse of `to_json`, also of what earlier versions wrote. Raises InvalidInput naming file and key."""
        fields = Fields(value, file)
        facts = cls(fields.text("ociVersion"), fields.text("bundle"))
        facts.rootfs = fields.text("rootfs", "")
        facts.created = fields.text("created", "")
        facts.boot_id = fields.text("boot_id", "")
        facts.annotations = fields.text_mapping("annotations")
        facts.pid = fields.integer("pid", 0)
        facts.pid_start = fields.integer("pid_start", 0)
        facts.cgroup = fields.mapping("cgroup") or None
        facts.namespaces = ContainerNamespaces.from_json(fields.member("namespaces"))
        return facts


class OciRecord:
    """One container of rootless-oci, which has the directory `directory` below `--root`.

    facts: its state.json; None when `create` was killed before it had written that. Create with `Records.new`, find
    with `Records.get`.
    """

    __slots__ = ("_facts", "directory", "id")

    def __init__(self, directory: str, container_id: str, facts: OciFacts | None) -> None:
        self.directory = directory
        self.id = container_id
        self._facts = facts

    @property
    def facts(self) -> OciFacts:
        """The content of state.json; of one that was never written, that nothing is known."""
        if self._facts is None:
            self._facts = OciFacts("", "")
        return self._facts

    @property
    def is_complete(self) -> bool:
        """Whether `create` has written what it knows of the container."""
        return bool(self.facts.bundle)

    @property
    def pid(self) -> int:
        """Pid of the first process; 0 before there is one."""
        return self.facts.pid

    @property
    def gate(self) -> str:
        """Path of the start gate."""
        return f"{self.directory}/start.sock"

    def is_alive(self) -> bool:
        """Whether that very process still runs on this boot; a zombie does not."""
        if not self.pid or self.facts.boot_id != procfs.boot_id():
            return False
        try:
            status = procfs.read_stat(self.pid)
        except OSError:
            return False
        return status.start_time == self.facts.pid_start and status.state not in "ZX"

    def status(self) -> str:
        """creating, created, running or stopped (runtime.md, State), and paused as runc says."""
        if not self.pid:
            return "creating"
        if not self.is_alive():
            return "stopped"
        if os.path.exists(self.gate):
            return "created"
        return "paused" if self._is_frozen() else "running"

    def _is_frozen(self) -> bool:
        if self.facts.cgroup is None:
            return False
        from rootless.runtime.cgroups.group import restore

        group = restore(self.facts.cgroup)
        return group is not None and group.is_frozen()

    def require(self, verb: str, *statuses: str) -> None:
        """Raise InvalidState unless the container is in one of `statuses`."""
        status = self.status()
        if status not in statuses:
            raise InvalidState(f"cannot {verb} container '{self.id}': it is {status}, not {' or '.join(statuses)}")

    def config(self) -> OciConfig:
        """The configuration at create time. Raises InvalidInput when its copy is missing or damaged."""
        from rootless.runtime.spec.oci_config import OciConfig, read_json

        return OciConfig.from_json(read_json(self.config_path))

    @property
    def config_path(self) -> str:
        """Path of the copy of config.json: later edits of the bundle's have no effect (runtime.md, create)."""
        return f"{self.directory}/config.json"

    def save(self) -> None:
        """Write the record of the container, by rename, so that readers see the old or the new one whole."""
        content = json.dumps(self.facts.to_json()).encode()
        atomic_write(f"{self.directory}/state.json", content, durable=False)

    def oci_state(self, status: str = "") -> OciState:
        """The state as runtime.md defines it. status: what hooks and agents are to be told, "" for what it is."""
        status = status or self.status()
        facts = self.facts
        pid = facts.pid if status in ("created", "running", "paused") else 0
        state = OciState(self.id, status, pid, facts.bundle)
        state.version, state.annotations = facts.version, facts.annotations
        state.rootfs, state.created = facts.rootfs, facts.created
        return state

    def lock(self) -> Lock:
        """The lock that every change of this container holds."""
        return Lock(f"{self.directory}/lock")

    def remove(self) -> None:
        """Delete the directory of the container below `--root`, and with it the record."""
        for name in ("start.sock", "config.json", "state.json", "lock"):
            try:
                os.unlink(f"{self.directory}/{name}")
            except FileNotFoundError:
                pass
        for name in os.listdir(self.directory):
            path = f"{self.directory}/{name}"
            if stat.S_ISDIR(os.lstat(path).st_mode):  # notify; a link in its place is unlinked, not entered
                for inner in os.listdir(path):
                    os.unlink(f"{path}/{inner}")
                os.rmdir(path)
            else:
                # a temporary file of a killed writer
                os.unlink(path)
        os.rmdir(self.directory)


class Records:
    """All containers below one root directory."""

    __slots__ = ("root",)

    def __init__(self, root: str) -> None:
        self.root = root

    def new(self, container_id: str, facts: OciFacts, config: bytes) -> OciRecord:
        """Take the id for a container with the configuration `config`. Raises AlreadyExists when it is in use."""
        check_id(container_id)
        ensure_private(self.root, is_own=_is_own)
        directory = os.path.join(self.root, container_id)
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            raise AlreadyExists(
                f"container '{container_id}' exists", hint=f"remove it: rootless-oci delete {container_id}"
            ) from None
        record = OciRecord(directory, container_id, facts)
        try:
            atomic_write(record.config_path, config, durable=False)
            record.save()
        except BaseException:
            record.remove()
            raise
        return record

    def get(self, container_id: str) -> OciRecord:
        """The record of an id. Raises NotFound; HostLimit when the root directory is another user's: his records would
        say whom we signal, which hooks we run and what we remove."""
        check_id(container_id)
        close_to_others(self.root, is_own=_is_own)
        directory = os.path.join(self.root, container_id)
        path = f"{directory}/state.json"
        try:
            with open(path, "rb") as file:
                value = parse_json(file.read())
        except FileNotFoundError:
            if os.path.isdir(directory):
                # killed between making the directory and its record
                return OciRecord(directory, container_id, None)
            raise NotFound(f"container '{container_id}' does not exist") from None
        except ValueError as e:
            raise InvalidInput(f"record '{path}' is damaged: {e}") from e
        return OciRecord(directory, container_id, OciFacts.from_json(value, path))

    def all(self) -> list[OciRecord]:
        """Every container, by id; damaged and vanishing ones are left out. Raises HostLimit as `get` does."""
        close_to_others(self.root, is_own=_is_own)
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []
        records = []
        for name in names:
            try:
                record = self.get(name)
            except (NotFound, InvalidInput, UsageError):
                continue
            if record.is_complete:
                records.append(record)
        return records
