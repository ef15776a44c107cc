"""Compares a layer's tree with its archive: the content by the recipe, everything else by the archive's headers.

It runs in the worker inside the user namespace, with the layer's directory as its root, and changes nothing.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from rootless.kernel.files import is_whiteout
from rootless.storage.files.tree_copy import is_opaque
from rootless.storage.layers.attributes import ACCESS_ACL, KEPT, is_mapped
from rootless.storage.layers.complete import by_directory, needless_whiteouts
from rootless.storage.layers.expected import Expected
from rootless.storage.layers.jobs import Verified
from rootless.storage.owners import overrides
from rootless.storage.owners.overrides import PLANTED
from rootless.storage.tar.layer_rules import OPAQUE_NAME, WHITEOUT, show_path
from rootless.storage.tar.tarstream import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, FILE, SYMLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.records.id_map import IdMap
    from rootless.storage.layers.jobs import VerifyJob
    from rootless.storage.layers.layer_record import LostAttributes
    from rootless.storage.tar.tarstream import TarEntry

MOST = 50  # damages that are described one by one; of the others only the number is given
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FORMATS = {FILE: stat.S_IFREG, DIRECTORY: stat.S_IFDIR, SYMLINK: stat.S_IFLNK, FIFO: stat.S_IFIFO,
            CHARACTER: stat.S_IFREG, BLOCK_DEVICE: stat.S_IFREG}  # fmt: skip
_OURS = ("user.overlay.", "user.fuseoverlayfs.", "user.containers.")
_MINIMAL_ACL = 4 + 3 * 8  # bytes of a list that only names owner, group and others
_LAST_SECOND = 1 << 31  # times beyond it do not fit every file system


class BesideTree(NamedTuple):
    """What is known of a layer beside its tree. owners: the layer's table of owners; lost: what unpacking could not
    keep; lowers: fds of the trees of the layers below, topmost first, None when one of them is missing."""

    owners: overrides.Table
    lost: LostAttributes
    lowers: list[int] | None


class Damages:
    """The damages that were found. texts: descriptions of the first ones; count: number of all."""

    __slots__ = ("count", "texts")

    def __init__(self) -> None:
        self.count = 0
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        """Count one more damage, and keep its description when it is among the first."""
        self.count += 1
        if len(self.texts) < MOST:
            self.texts.append(text)


class Verifier:
    """Compares a tree with what is expected. damages: gets what is found; id_map: the map of this user namespace."""

    __slots__ = (
        "_damages",
        "_expected",
        "_gids",
        "_lost",
        "_lowers",
        "_marks",
        "_owners",
        "_single",
        "_uids",
    )

    def __init__(
        self,
        expected: Expected,
        damages: Damages,
        id_map: IdMap,
        beside: BesideTree,
    ) -> None:
        self._expected = expected
        self._damages = damages
        self._uids, self._gids = ([(e.container, e.size) for e in ids] for ids in (id_map.uids, id_map.gids))
        self._single = id_map.kind == "single"
        self._lost = beside.lost
        self._owners = beside.owners
        self._lowers = beside.lowers
        self._marks: list[bytes] = []

    def compare(self, diff: int) -> None:
        """Walk the tree whose top is the directory `diff` (an fd, which is closed)."""
        wanted = {*self._expected.entries, *self._expected.lower}
        wanted.discard(b"")
        top = self._expected.entries.get(b"")
        if top is not None:
            self._entry(b"", os.fstat(diff), top, diff, b".")
        self._directory(diff, b"", wanted)
        for path in sorted(wanted)[:MOST]:
            self._damages.add(f"'{show_path(path)}' is missing")
        self._damages.count += max(len(wanted) - MOST, 0)
        if self._lowers is None:
            return  # without the layers below, nobody knows which whiteouts are needed
        missing = [path for path in self._expected.whiteouts if not self._expected.is_hidden(path)]
        for directory, names in sorted(by_directory(map(os.fsdecode, missing)).items()):
            needless = needless_whiteouts(self._lowers, directory, names)
            for name in sorted(set(names) - set(names if needless is None else needless)):
                self._damages.add(f"the mark that deletes '{_joined(directory, name)}' is missing")
        for directory, names in sorted(by_directory(map(os.fsdecode, self._marks)).items()):
            # In a directory that overlayfs merges with lower ones, a needless mark does no harm: it is not shown there
            if needless_whiteouts(self._lowers, directory, names) is None:
                for name in names:
                    self._damages.add(f"the mark that deletes '{_joined(directory, name)}' deletes nothing, and shows")

    def _directory(self, fd: int, path: bytes, wanted: set[bytes]) -> None:
        # Unpacking has bounded the depth (MAX_DEPTH), so one call and one open directory for each level are enough
        try:
            if path in self._expected.opaque and not self._expected.is_hidden(path) and not is_opaque(fd):
                self._damages.add(f"the mark that hides what lower layers have in '{show_path(path)}' is missing")
            names = [os.fsencode(name) for name in os.listdir(fd)]
            for name in names:
                here = path + b"/" + name if path else name
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                wanted.discard(here)
                if name.startswith(WHITEOUT):
                    self._expected.whiteouts.discard(self._named(path, name))
                    continue
                if is_whiteout(status) and here in self._expected.whiteouts:
                    self._expected.whiteouts.discard(here)
                    self._marks.append(here)
                    continue
                entry = self._expected.entries.get(here)
                if entry is not None:
                    self._entry(here, status, entry, fd, name)
                elif here in self._expected.lower:
                    if stat.S_ISDIR(status.st_mode) or is_whiteout(status):
                        self._damages.add(f"'{show_path(here)}' is no file any more")
                elif not self._is_explained(here, status):
                    self._damages.add(f"'{show_path(here)}' is not of the layer")
                if stat.S_ISDIR(status.st_mode):
                    self._directory(os.open(name, _DIRECTORY, dir_fd=fd), here, wanted)
        finally:
            os.close(fd)

    @staticmethod
    def _named(path: bytes, name: bytes) -> bytes:
        hidden = name[len(WHITEOUT) :]
        return path + b"/" + hidden if path and name != OPAQUE_NAME else hidden

    def _is_explained(self, path: bytes, status: os.stat_result) -> bool:
        """Whether something without an entry may be there."""
        if stat.S_ISDIR(status.st_mode) and self._expected.is_parent(path):
            return True
        # A container's directory that became the layer may have sockets in it, which no archive can hold
        return stat.S_ISSOCK(status.st_mode)

    def _entry(self, path: bytes, status: os.stat_result, entry: TarEntry, parent: int, name: bytes) -> None:
        here = f"'{show_path(path) or '/'}'"
        format = stat.S_IFMT(status.st_mode)
        if format != _FORMATS[entry.type]:
            self._damages.add(f"{here} is another kind of file")
            return
        if entry.type == SYMLINK and os.readlink(name, dir_fd=parent) != entry.linkname:
            self._damages.add(f"{here} is a link to something else")
        size = entry.size if entry.type == FILE else 0
        if format == stat.S_IFREG and status.st_size != size:
            self._damages.add(f"{here} has {status.st_size} bytes instead of {size}")
        seconds = entry.mtime // 1_000_000_000
        if 0 <= seconds < _LAST_SECOND and status.st_mtime_ns // 1_000_000_000 != seconds:
            self._damages.add(f"{here} has another time")
        override = None
        if format in (stat.S_IFREG, stat.S_IFDIR):
            flags = _READ if format == stat.S_IFREG else _DIRECTORY
            fd = os.open(name, flags, dir_fd=parent)
            try:
                override = overrides.read_override(fd)
                self._xattrs(here, fd, entry)
            finally:
                os.close(fd)
        else:
            override = self._owners.find(path, status)
        self._owner(here, status, entry, override)

    def _owner(self, here: str, status: os.stat_result, entry: TarEntry, override: overrides.Override | None) -> None:
        mapped = is_mapped(entry.uid, self._uids) and is_mapped(entry.gid, self._gids)
        mode = stat.S_IMODE(status.st_mode)
        if override is not None:
            owner, mode = (override.uid, override.gid), override.mode_now(mode)
        elif mapped:
            owner = status.st_uid, status.st_gid
        else:
            return  # an earlier version, which did not note owners, has unpacked the layer: its owners are lost
        if owner != (entry.uid, entry.gid):
            self._damages.add(f"{here} belongs to {owner[0]}:{owner[1]} instead of {entry.uid}:{entry.gid}")
        if entry.type == SYMLINK:
            return
        wanted = entry.mode & 0o7777
        if not mapped and not self._single and entry.type != DIRECTORY:
            wanted &= 0o1777
        if mode != wanted and not (entry.type == DIRECTORY and self._single and mode == wanted | 0o700):
            self._damages.add(f"{here} has mode {mode:04o} instead of {wanted:04o}")

    def _xattrs(self, here: str, fd: int, entry: TarEntry) -> None:
        found = {name: os.getxattr(fd, name) for name in os.listxattr(fd) if not name.startswith(_OURS)}
        xattrs = entry.xattrs if entry.type in (FILE, DIRECTORY) else {}  # a device's placeholder gets none
        for name, value in xattrs.items():
            if name.startswith(PLANTED) or not name.startswith(KEPT):
                continue
            here_is = found.pop(name, None)
            if here_is is None and name == ACCESS_ACL and len(value) <= _MINIMAL_ACL:
                continue  # the list says no more than the mode does, and the kernel keeps no such list
            if here_is != value and not (here_is is None and self._lost.xattrs):
                self._damages.add(f"{here} lacks the attribute {name}, or has another")
        for name in found:
            if name.startswith(KEPT):
                self._damages.add(f"{here} has an attribute {name} that is not of the layer")


def _joined(directory: str, name: str) -> str:
    return show_path(os.fsencode(f"{directory}/{name}" if directory else name))


def verify_layer(job: VerifyJob, id_map: IdMap, enter: Callable[[], None]) -> Verified:
    """Compare the layer in the directory of `job` with its archive, in a namespace of `id_map`.

    enter: makes that directory the root of the process; all imports come before it.
    """
    from rootless.storage.layers.rebuild import Rebuilder
    from rootless.storage.tar.inflate import Inflated

    damages = Damages()
    rebuilder = Rebuilder(job.directory, damages.add)
    lowers = None if job.lowers is None else [os.open(directory, _DIRECTORY) for directory in job.lowers]
    enter()
    rebuilder.enter("")
    source = Inflated(-1, lambda fd: rebuilder.pieces())
    expected = Expected()
    expected.read(source)
    diff_id = source.drain()
    owners = overrides.open_table("")
    verifier = Verifier(expected, damages, id_map, BesideTree(owners, job.lost, lowers))
    verifier.compare(os.open("/diff", _DIRECTORY))
    for fd in lowers or ():
        os.close(fd)
    return Verified(diff_id, damages.count, damages.texts)
