"""The owner, mode, time and extended attributes of what COPY, ADD and WORKDIR place, by docker's rules.

An owner that the id map lacks is noted beside the file (storage.owners.overrides). No file is made here.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from rootless.builder.context.digests import kept_attributes
from rootless.errors import InvalidInput
from rootless.kernel.files import chmod_special
from rootless.storage.files.tree_copy import CAPABILITY
from rootless.storage.owners import overrides

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.builder.dockerfile.modes import Change

NO_ATTRIBUTE = (*overrides.NO_XATTR, errno.ENODATA)
"""The errors by which the kernel says that a file has no such extended attribute, or cannot have it."""


class Rules(NamedTuple):
    """The attributes that files get.

    owner: (uid, gid) of --chown; None means root where `is_owned` is False, as for a context's files, else the file's
    own owner. keeps_set_id: files keep their set-id bits although their owner changes. chmod: --chmod, None without;
    timestamp: seconds, for what has no time of its own; latest: no time becomes later than these seconds. single: the
    id map has one id, so that other owners are noted in an extended attribute of the file; table: the directory whose
    table notes the owners of links and FIFOs, which can have no such attribute.
    """

    owner: tuple[int, int] | None
    chmod: Change | None
    timestamp: int
    latest: int | None = None
    is_owned: bool = False
    single: bool = False
    table: str | None = None
    keeps_set_id: bool = False


class Spot(NamedTuple):
    """A name in the tree: the fd of its directory, that directory's path, the name.

    is_bare: the directory has no default access control list, which a new file in it would inherit.
    """

    directory: int
    where: str
    name: str
    is_bare: bool = False

    @property
    def path(self) -> str:
        """The path from the top of the tree."""
        return f"{self.where}/{self.name}"


class GivenAttributes(NamedTuple):
    """What a copy gets: owner, mode, and the extended attributes of its source that count."""

    owner: tuple[int, int]
    mode: int
    attributes: dict[str, bytes]


class PlacedAttributes:
    """Gives files their attributes by `rules`."""

    __slots__ = ("_rules",)

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def give_made(self, fd: int, mode: int, kind: int, *, chmod: bool = True) -> None:
        """Give a file or directory that no source stands for the owner and mode of the rules. mode: without --chmod;
        chmod: whether --chmod is about it."""
        if chmod and self._rules.chmod is not None:
            mode = self._rules.chmod(mode, kind == stat.S_IFDIR)
        self.set_owner(fd, self._rules.owner or (0, 0), mode, kind)

    @property
    def made_time(self) -> int:
        """The time, in nanoseconds, of what no source stands for."""
        return self._rules.timestamp * 10**9

    def _owner(self, status: os.stat_result, override: overrides.Override | None) -> tuple[int, int]:
        if self._rules.owner is not None:
            return self._rules.owner
        if not self._rules.is_owned:
            return 0, 0
        return (override.uid, override.gid) if override is not None else (status.st_uid, status.st_gid)

    def of_source(self, read: int, status: os.stat_result) -> GivenAttributes:
        """What the copy of the open file or directory `read` gets."""
        attributes = kept_attributes(read) if self._rules.is_owned else {}
        noted = attributes.get(overrides.ATTRIBUTE)
        override = overrides.parse_override(noted) if noted is not None else None
        mode = self._mode(status) if override is None else override.mode_now(status.st_mode)
        if self._rules.chmod is not None:
            mode = self._rules.chmod(mode, stat.S_ISDIR(status.st_mode))
        return GivenAttributes(self._owner(status, override), mode, attributes)

    def give(self, write: int, given: GivenAttributes, kind: int) -> None:
        """Give the copy that is open as `write` what `of_source` has found. kind: stat.S_IF*."""
        self.set_owner(write, given.owner, given.mode, kind)
        for name, value in given.attributes.items():
            if name == CAPABILITY:
                try:
                    os.setxattr(write, name, value)
                except OSError as e:
                    if e.errno not in NO_ATTRIBUTE:
                        raise

    def _mode(self, status: os.stat_result) -> int:
        """The mode of a source, without the set-id bits where they would pass to another owner.

        Every file of a directory that is set-gid for its group's sake has them, and the image would depend on where
        the context lies. Buildah and docker's classic builder drop them too.
        """
        keeps = self._rules.is_owned or self._rules.keeps_set_id
        return status.st_mode & (0o7777 if keeps else 0o1777)

    def set_owner(self, fd: int, owner: tuple[int, int], mode: int, kind: int) -> None:
        """Give an open file an owner and a mode. kind: stat.S_IF*. Raises InvalidInput for an owner out of the range.

        The owner comes before the mode everywhere, because chown(2) takes set-id bits away.
        """
        status = os.fstat(fd)
        if owner != (status.st_uid, status.st_gid):
            if self._rules.single:
                overrides.write_override(fd, overrides.Override(*owner, mode, kind))
                os.fchmod(fd, overrides.on_disk(mode, kind))
                return
            try:
                os.fchown(fd, *owner)
            except OSError as e:
                raise owner_error(e, owner) from e
        elif mode == stat.S_IMODE(status.st_mode) and not self._rules.single:
            return
        if self._rules.single:
            overrides.write_override(fd, None)
        os.fchmod(fd, mode)

    def give_special(self, spot: Spot, status: os.stat_result, link: str) -> None:
        """Give a new link or fifo owner, mode and time. link: what it points to, "" for a fifo."""
        owner = self._owner(status, None)
        there = os.stat(spot.name, dir_fd=spot.directory, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if owner != (there.st_uid, there.st_gid):
            if self._rules.single:
                self._note(spot.path, overrides.Override(*owner, self._mode(status), kind), link)
            else:
                try:
                    os.chown(spot.name, *owner, dir_fd=spot.directory, follow_symlinks=False)
                except OSError as e:
                    raise owner_error(e, owner) from e
        if kind != stat.S_IFLNK:
            chmod_special(spot.directory, spot.name, kind | self._mode(status))
        time = self.time_of(status)
        os.utime(spot.name, ns=(time, time), dir_fd=spot.directory, follow_symlinks=False)

    def _note(self, path: str, override: overrides.Override, link: str) -> None:
        if self._rules.table is None:
            return
        fd = overrides.append_to(self._rules.table)
        try:
            os.write(fd, overrides.table_line(os.fsencode(path), override, os.fsencode(link)))
        finally:
            os.close(fd)

    def time_of(self, status: os.stat_result) -> int:
        """The time, in nanoseconds, of the copy of a source."""
        return self.bounded(status.st_mtime_ns)

    def bounded(self, time: int) -> int:
        """`time`, in nanoseconds, or the latest that is allowed."""
        return time if self._rules.latest is None else min(time, self._rules.latest * 10**9)


def owner_error(error: OSError, owner: tuple[int, int]) -> Exception:
    """What is to be raised for an `error` of chown(2) to `owner`, which fails with EINVAL for an unmapped id."""
    if error.errno != errno.EINVAL:
        return error
    return InvalidInput(
        f"owner {owner[0]}:{owner[1]} is not in your range of ids", hint="see `rootless doctor` for a wider range"
    )
