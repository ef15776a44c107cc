"""The state of a container as runtime.md, "State", has it: what hooks and seccomp agents get, and `state` prints."""

from __future__ import annotations

from rootless.records.properties import INT32, Properties

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.runtime.spec.oci_config import OciConfig

STATUSES = ("creating", "created", "running", "paused", "stopped")
"""The states of a container; paused is runc's, beside those of the specification."""


class OciState:
    """One container. version: of the specification; pid: of the first process, 0 when it has none; bundle: absolute.

    status: one of STATUSES; rootfs, created: the root file system and the time of `create`, which runc tells too; ""
    are left out, as they are for hooks of the engine's containers.
    """

    __slots__ = ("annotations", "bundle", "created", "id", "pid", "rootfs", "status", "version")

    def __init__(self, container_id: str, status: str, pid: int, bundle: str) -> None:
        self.id = container_id
        self.status = status
        self.pid = pid
        self.bundle = bundle
        self.version = ""
        self.annotations: dict[str, str] = {}
        self.rootfs = ""
        self.created = ""

    def to_json(self) -> dict[str, object]:
        """The object with the specification's names, and `owner` where runc has it."""
        known: dict[str, object] = {
            "ociVersion": self.version,
            "id": self.id,
            "pid": self.pid,
            "status": self.status,
            "bundle": self.bundle,
        }
        if self.rootfs:
            known.update(rootfs=self.rootfs, created=self.created, owner="")
        if self.annotations:
            known["annotations"] = self.annotations
        return known

    @classmethod
    def from_json(cls, value: object) -> OciState:
        """The reverse of `to_json`. Raises InvalidInput."""
        given = Properties(value, "state")
        state = cls(given.text("id"), given.text("status"), given.integer("pid", INT32), given.text("bundle"))
        state.version = given.text("ociVersion")
        state.annotations = given.text_mapping("annotations")
        state.rootfs = given.text("rootfs")
        state.created = given.text("created")
        return state


class Bundle:
    """A container as the runtime gets it: its id, the absolute directory of its bundle, and its configuration."""

    __slots__ = ("config", "container_id", "directory")

    def __init__(self, config: OciConfig, directory: str, container_id: str = "") -> None:
        self.config = config
        self.directory = directory
        self.container_id = container_id

    def state(self, status: str, pid: int) -> OciState:
        """The state of the container with this status and first process."""
        state = OciState(self.container_id, status, pid, self.directory)
        state.version = self.config.version
        state.annotations = self.config.annotations
        return state
