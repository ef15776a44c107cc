"""Volumes: directories with labels, which outlive containers. Others fill them (host.seeding) and mount them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from rootless.errors import (
    AlreadyExists,
    HostLimit,
    InvalidInput,
    InvalidState,
    NewerFormat,
    NotFound,
    RootlessError,
    UsageError,
)
from rootless.paths import make_new_private, sync_paths
from rootless.records.fields import Fields
from rootless.records.json_file import random_name, read_record, write_record
from rootless.storage.store.containers import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rootless.records.id_map import IdMap
    from rootless.storage.store.containers import Containers

    Names = list[str]
    Found = list["VolumeRecord"]

_HINT = "restore the file or remove the volume's directory"


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    """One volume.

    path: the directory with its files; created_at: in the form of RFC 3339; anonymous: whether it was made without a
    name; options: those of `volume create -o`, which say what is mounted in place of `path`. Most volumes have none.
    """

    name: str
    path: str
    created_at: str
    anonymous: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


class Volumes:
    """The directory `volumes` of the store at `root`.

    containers: the store's containers, which may use a volume; default_map: returns the user's default id map, in whose
    user namespace files are removed.
    """

    __slots__ = ("_containers", "_default_map", "directory")

    def __init__(self, root: str, containers: Containers, default_map: Callable[[], IdMap]) -> None:
        self._containers = containers
        self._default_map = default_map
        self.directory = f"{root}/volumes"

    def create(
        self,
        name: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        anonymous: bool = False,
    ) -> VolumeRecord:
        """Make a volume. Without a name it gets one of 64 hexadecimal digits, and is anonymous.

        anonymous: whether `name` was made up for the caller; options: kept as they are, for whoever mounts the volume.
        Raises UsageError (bad name or driver), AlreadyExists, HostLimit.
        """
        if driver != "local":
            raise UsageError(f"volume driver '{driver}' is not known", hint="`local` is the only driver")
        anonymous = anonymous or name is None
        name = random_name() if name is None else check_name(name, what="volume")
        temporary = f"{self.directory}/.{random_name()}"
        try:
            make_new_private(temporary)
            os.mkdir(f"{temporary}/_data", 0o755)
            os.chmod(f"{temporary}/_data", 0o755)  # noqa: S103 - the root of the volume as containers see it; its parent is 0700
            self._write(temporary, name, anonymous=anonymous, labels=labels or {}, options=options or {})
            try:
                # The rename makes the volume appear as a whole. It fails when the name is taken, since no directory may
                # replace one that is not empty (rename(2)).
                os.rename(temporary, f"{self.directory}/{name}")
            except OSError as e:
                self._discard(temporary)
                if os.path.exists(f"{self.directory}/{name}"):
                    raise AlreadyExists(f"a volume named '{name}' exists") from e
                raise
            sync_paths((f"{self.directory}/{name}", self.directory))
        except OSError as e:
            raise HostLimit(f"cannot make volume '{name}': {e.strerror}") from e
        return self.get(name)

    def restore(self, name: str) -> bool:
        """Write the lost record of a volume anew, without labels and options. False when its files are lost too."""
        if not os.path.isdir(self.data_path(name)):
            return False
        self._write(f"{self.directory}/{name}", name, anonymous=len(name) == 64, labels={}, options={})
        return True

    @staticmethod
    def _write(
        directory: str, name: str, *, anonymous: bool, labels: Mapping[str, str], options: Mapping[str, str]
    ) -> None:
        record = {
            "name": name,
            "driver": "local",
            "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "anonymous": anonymous,
            "labels": dict(labels),
            "options": dict(options),
        }
        write_record(f"{directory}/volume.json", record)

    def data_path(self, name: str) -> str:
        """The directory in which a volume of that name has its files, or would have them."""
        return f"{self.directory}/{name}/_data"

    def exists(self, name: str) -> bool:
        """Whether there is a volume of that name. Raises UsageError for a name that no volume can have."""
        check_name(name, what="volume")
        try:
            self.get(name)
        except NotFound:
            return False
        return True

    def ensure(self, name: str, *, anonymous: bool = False) -> tuple[VolumeRecord, bool]:
        """The volume, which is made if it is not there, and whether this call has made it: it is to be filled then."""
        try:
            return self.get(name), False
        except NotFound:
            pass
        try:
            return self.create(name, anonymous=anonymous), True
        except AlreadyExists:
            return self.get(name), False

    def get(self, name: str) -> VolumeRecord:
        """The volume. Raises NotFound; InvalidInput when its record is damaged."""
        try:
            check_name(name, what="volume")
            record = read_record(f"{self.directory}/{name}/volume.json", what="volume record")
        except (UsageError, NotFound):
            raise NotFound(f"no such volume: '{name}'", hint="`rootless volume ls` lists them") from None
        fields = Fields(record, f"{name}/volume.json", hint=_HINT)
        return VolumeRecord(
            name=name,
            path=self.data_path(name),
            created_at=str(record.get("created_at", "")),
            anonymous=bool(record.get("anonymous")),
            labels=fields.text_mapping("labels"),
            options=fields.text_mapping("options"),
        )

    def list(self) -> Found:
        """All volumes, by name."""
        found = []
        for name in sorted(os.listdir(self.directory)):
            if name.startswith("."):
                continue
            try:
                found.append(self.get(name))
            except RootlessError:
                continue  # it is just being removed, or its record is damaged, which `system check` reports
        return found

    def users(self) -> dict[str, Names]:
        """The ids of the containers that use each volume, by the volume's name.

        Raises InvalidInput when the damaged files of some container do not say which volumes it uses.
        """
        users: dict[str, Names] = {}
        for container_id in self._containers.list():
            try:
                names = self._containers.read_needs(container_id).volumes
            except NotFound:
                continue
            except NewerFormat:
                raise
            except InvalidInput:
                names = self._mounted(container_id)
            for name in names:
                users.setdefault(name, []).append(container_id)
        return users

    def _mounted(self, container_id: str) -> Names:
        """The volumes that config.json mounts, for a container whose record is damaged. Raises InvalidInput."""
        path = self._containers.path(container_id, "config.json")
        mounts = Fields(self._containers.read_config(container_id), path).objects("mounts")
        sources = [mount.text("source", "") for mount in mounts]
        return [
            path.removeprefix(f"{self.directory}/").partition("/")[0]
            for path in sources
            if path.startswith(f"{self.directory}/")
        ]

    def remove(self, name: str) -> None:
        """Remove the volume and its files, even when its record is damaged.

        Raises NotFound; InvalidState when a container uses it.
        """
        from rootless.storage.files.removal import remove_tree

        try:
            self.get(name)
        except InvalidInput:
            pass
        users = self.users().get(name)
        if users:
            raise InvalidState(
                f"volume '{name}' is in use by container '{users[0][:12]}'", hint="remove the container first"
            )
        remove_tree(f"{self.directory}/{name}", self._default_map())

    def _discard(self, temporary: str) -> None:
        os.rmdir(f"{temporary}/_data")
        os.unlink(f"{temporary}/volume.json")
        os.rmdir(temporary)
