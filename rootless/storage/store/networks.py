"""Networks with names: one record each, found by name or id. It makes no interface and knows no container."""

from __future__ import annotations

import os
import time

from rootless.errors import AlreadyExists, HostLimit, InvalidInput, NotFound, RootlessError, UsageError
from rootless.paths import Lock, sync_paths
from rootless.records.json_file import random_name, read_record, write_record
from rootless.records.network_record import HINT, NetworkRecord
from rootless.storage.store.containers import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Found = list[NetworkRecord]

_END = ".json"


class Networks:
    """The directory `networks` of the store at `root`."""

    __slots__ = ("_lock", "directory")

    def __init__(self, root: str) -> None:
        self.directory = f"{root}/networks"
        self._lock = f"{root}/locks/networks"

    def create(self, name: str, describe: Callable[[Found], NetworkRecord]) -> NetworkRecord:
        """Write the record of a new network under its name, and return it.

        describe: makes the record, id and time aside, from all networks that there are. No other network is made
        meanwhile, so that two commands never choose one subnet. Raises what it raises; UsageError for a bad name,
        AlreadyExists, HostLimit.
        """
        check_name(name, what="network")
        try:
            with Lock(self._lock):
                if os.path.lexists(self._path(name)):
                    raise AlreadyExists(f"network with name {name} already exists")
                record = describe(self.list())
                record.id = random_name()
                record.created_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                write_record(self._path(name), record.to_json())
        except OSError as e:
            raise HostLimit(f"cannot make network '{name}': {e.strerror}") from e
        return record

    def get(self, name: str) -> NetworkRecord:
        """The network of that name, else of that id or the beginning of one.

        Raises NotFound; UsageError for a beginning of several ids; InvalidInput when the record is damaged.
        """
        try:
            check_name(name, what="network")
            return self._read(name)
        except (UsageError, NotFound):
            pass
        found = [record for record in self.list() if name and record.id.startswith(name)]
        if len(found) > 1:
            raise UsageError(f"network {name} is ambiguous ({len(found)} matches found based on ID prefix)")
        if not found:
            raise NotFound(f"network {name} not found", hint="`rootless network ls` lists them")
        return found[0]

    def list(self) -> Found:
        """All networks, by name. One whose record is damaged is left out; `get` says what is wrong with it."""
        try:
            entries = sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return []
        found = []
        for entry in entries:
            if entry.startswith(".") or not entry.endswith(_END):
                continue
            try:
                found.append(self._read(entry.removesuffix(_END)))
            except RootlessError:
                continue
        return found

    def remove(self, name: str) -> None:
        """Remove the record of the network of that name, even a damaged one. Raises NotFound, HostLimit."""
        try:
            with Lock(self._lock):
                os.unlink(self._path(name))
            sync_paths((self.directory,))
        except FileNotFoundError:
            raise NotFound(f"network {name} not found") from None
        except OSError as e:
            raise HostLimit(f"cannot remove network '{name}': {e.strerror}") from e

    def _path(self, name: str) -> str:
        return f"{self.directory}/{name}{_END}"

    def _read(self, name: str) -> NetworkRecord:
        path = self._path(name)
        record = NetworkRecord.from_json(read_record(path, what="network record", hint=HINT), path)
        if record.name != name:
            raise InvalidInput(f"'{path}' is the record of another network, '{record.name}'")
        return record
