"""The records of rootless-oci: one directory per container below `--root`. It starts and signals nothing.

ROOT/ID/state.json (written by rename), config.json (as it was at create: later edits of the bundle have no effect),
start.sock (the start gate; there until `start`), lock.
"""

from __future__ import annotations

import json
import os
import re

from rootless.errors import AlreadyExists, InvalidInput, InvalidState, NotFound, UsageError
from rootless.kernel import procfs
from rootless.paths import Lock, atomic_write, ensure_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ID = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.+-]{0,1023}")


def check_id(container_id: str) -> str:
    """Return the id, or raise UsageError: it becomes a directory's name."""
    if not _ID.fullmatch(container_id):
        raise UsageError(
            f"invalid container id '{container_id}'", hint="letters, digits and _ . + - are allowed, a letter first"
        )
    return container_id


class OciRecord:
    """One container of rootless-oci. Create with `Records.new`, find with `Records.get`."""

    __slots__ = ("directory", "id", "values")

    def __init__(self, directory: str, container_id: str, values: dict[str, Any]) -> None:
        self.directory = directory
        self.id = container_id
        self.values = values

    @property
    def pid(self) -> int:
        """Pid of the first process; 0 before there is one."""
        return int(self.values.get("pid") or 0)

    @property
    def pid_start(self) -> int:
        """Start time of that process in clock ticks."""
        return int(self.values.get("pid_start") or 0)

    @property
    def gate(self) -> str:
        """Path of the start gate."""
        return f"{self.directory}/start.sock"

    def is_alive(self) -> bool:
        """Whether that very process still runs on this boot; a zombie does not."""
        if not self.pid or self.values.get("boot_id") != procfs.boot_id():
            return False
        try:
            status = procfs.read_stat(self.pid)
        except OSError:
            return False
        return status.start_time == self.pid_start and status.state not in "ZX"

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
        if not self.values.get("cgroup"):
            return False
        from rootless.runtime.cgroups.group import restore

        group = restore(self.values["cgroup"])
        return group is not None and group.is_frozen()

    def require(self, verb: str, *statuses: str) -> None:
        """Raise InvalidState unless the container is in one of `statuses`."""
        status = self.status()
        if status not in statuses:
            raise InvalidState(f"cannot {verb} container '{self.id}': it is {status}, not {' or '.join(statuses)}")

    def config(self) -> dict[str, Any]:
        """The configuration at create time."""
        with open(f"{self.directory}/config.json", "rb") as file:
            config: dict[str, Any] = json.load(file)
        return config

    def save(self) -> None:
        """Write the record of the container, by rename, so that readers see the old or the new one whole."""
        atomic_write(f"{self.directory}/state.json", json.dumps(self.values).encode(), durable=False)

    def oci_state(self) -> dict[str, Any]:
        """The state as runtime.md defines it."""
        status = self.status()
        state: dict[str, Any] = {
            "ociVersion": self.values["ociVersion"],
            "id": self.id,
            "pid": self.pid if status in ("created", "running", "paused") else 0,
            "status": status,
            "bundle": self.values["bundle"],
            "rootfs": self.values["rootfs"],
            "created": self.values["created"],
            "owner": "",
        }
        if self.values.get("annotations"):
            state["annotations"] = self.values["annotations"]
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
            if os.path.isdir(path):  # notify
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

    def new(self, container_id: str, values: dict[str, Any], config: bytes) -> OciRecord:
        """Take the id. Raises AlreadyExists when it is in use."""
        check_id(container_id)
        ensure_private(self.root)
        directory = os.path.join(self.root, container_id)
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            raise AlreadyExists(
                f"container '{container_id}' exists", hint=f"remove it: rootless-oci delete {container_id}"
            ) from None
        record = OciRecord(directory, container_id, values)
        try:
            atomic_write(f"{directory}/config.json", config, durable=False)
            record.save()
        except BaseException:
            record.remove()
            raise
        return record

    def get(self, container_id: str) -> OciRecord:
        """The record of an id. Raises NotFound."""
        check_id(container_id)
        directory = os.path.join(self.root, container_id)
        try:
            with open(f"{directory}/state.json", "rb") as file:
                values = json.load(file)
        except FileNotFoundError:
            if os.path.isdir(directory):
                # killed between making the directory and its record
                return OciRecord(directory, container_id, {})
            raise NotFound(f"container '{container_id}' does not exist") from None
        except ValueError as e:
            raise InvalidInput(f"record '{directory}/state.json' is damaged: {e}") from e
        return OciRecord(directory, container_id, values)

    def all(self) -> list[OciRecord]:
        """Every container, by id; damaged and vanishing ones are left out."""
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
            if record.values:
                records.append(record)
        return records
