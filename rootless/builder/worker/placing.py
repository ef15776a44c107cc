"""Puts files into the mounted root of a step: COPY, ADD, WORKDIR, by docker's rules. No sources are chosen here.

This runs as root of the step's user namespace, in a mount namespace of its own. The tree is an image's and may be
hostile: a link in it may point to any file of the host. So the destination is resolved inside of the root, as in a
chroot (openat2(2), RESOLVE_IN_ROOT), and below it every directory is opened by its parent's fd without following links.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat

from rootless.builder.context.context_files import DIRECTORY, FileNode, Match, walk
from rootless.builder.context.digests import Seen
from rootless.builder.worker.placed_attributes import NO_ATTRIBUTE, PlacedAttributes, Spot
from rootless.errors import InvalidInput
from rootless.host.answer import write_all
from rootless.kernel.files import open_in_root, open_special
from rootless.storage.files.tree_copy import DEFAULT_ACL, copy_content, drop_acl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.builder.context.context_files import Skip
    from rootless.builder.context.digests import Content
    from rootless.builder.context.ignore import Exclusions
    from rootless.builder.worker.placed_attributes import Rules

# A source may become a link or a FIFO after it was looked at: the first must not be followed, and the open of the
# second would wait for a writer without O_NONBLOCK
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_LINKS = 40  # as many links as the kernel follows in one path (path_resolution(7))
_SMALL = 1 << 16  # bytes
_PAGE = 4096  # bytes: no file system has smaller holes


class _TreeCopy:
    """The copy of one directory: `path` below the root `source` (fd) to the path `top`.

    pending: excluded directories that were met and not made, by path from `top`; made: the paths of those that were.
    """

    __slots__ = ("made", "path", "pending", "source", "top")

    def __init__(self, source: int, path: str, top: str) -> None:
        self.source = source
        self.path = path
        self.top = top
        self.pending: dict[str, FileNode] = {}
        self.made = {""}


class Placer:
    """Writes files below `root`, an fd of the merged tree. `finish` has to be called at the end.

    content: collects the digest of what is copied, so that nobody has to read the files once more for it; None without.
    skipped: number of special files that could not be made; latest_change: the latest ctime (ns) of a file that was
    read.
    """

    def __init__(self, root: int, rules: Rules, content: Content | None = None) -> None:
        self._root = root
        self._placed = PlacedAttributes(rules)
        self._content = content
        self._seen = Seen()
        self._before: dict[str, tuple[int, int]] = {}
        self._set: list[tuple[str, int]] = []
        self._links: dict[tuple[int, int], tuple[str, str]] = {}
        self._linked_at: dict[tuple[str, str], tuple[int, int]] = {}
        self.skipped = 0
        self.latest_change = 0

    # Directories

    def directories(self, path: str, *, chmod: bool = True) -> str:
        """Make the directory `path` and its missing parents, and return its path in the tree without links.

        Links are followed as in a chroot; where one dangles, the directory that it leads to is made. chmod: whether
        --chmod holds for what is made, as BuildKit has it since 2025 (fsutil's #228). Raises InvalidInput when a file
        is in the way.
        """
        base = os.readlink(f"/proc/self/fd/{self._root}").rstrip("/")
        here, names, links = "", _names(path), 0
        while names:
            name = names.pop()
            if name == "..":  # `here` has no links in it
                here = here.rpartition("/")[0]
                continue
            target = f"{here}/{name}"
            try:
                fd = open_in_root(self._root, target, _PATH)
            except NotADirectoryError:
                raise InvalidInput(f"cannot make directory '{target}': a file is in the way") from None
            except FileNotFoundError:
                link = self._link(here, name)
                if link:
                    links += 1
                    _check_links(links, path)
                    here = "" if link.startswith("/") else here
                    names += _names(link)
                    continue
                self._make(here, name, chmod=chmod)
                fd = open_in_root(self._root, target, _PATH)
            except OSError as e:
                if e.errno != errno.ELOOP:
                    raise
                raise InvalidInput(f"cannot make directory '{target}': links lead to each other") from None
            try:
                here = os.readlink(f"/proc/self/fd/{fd}").removeprefix(base)
            finally:
                os.close(fd)
        return here

    def _link(self, parent: str, name: str) -> str:
        """The target of the link `name` in the directory `parent`; "" where no link is."""
        with self._open(parent) as directory:
            try:
                return os.readlink(name, dir_fd=directory)
            except OSError as e:
                if e.errno not in (errno.EINVAL, errno.ENOENT):
                    raise
                return ""

    def _make(self, parent: str, name: str, *, chmod: bool) -> None:
        with self._open(parent) as directory:
            self._keep_time(parent, directory)
            os.mkdir(name, 0o755, dir_fd=directory)
            made = os.open(name, DIRECTORY, dir_fd=directory)
            try:
                drop_acl(made)
                self._placed.give_made(made, 0o755, stat.S_IFDIR, chmod=chmod)
            finally:
                os.close(made)
        self._set.append((f"{parent}/{name}", self._placed.made_time))

    def _open(self, path: str) -> _Opened:
        return _Opened(open_in_root(self._root, path or "/", os.O_RDONLY | os.O_DIRECTORY))

    def _keep_time(self, path: str, directory: int) -> None:
        """Note the times of a directory that was there before anything in it changes, so that `finish` gives them back:
        a step that adds a file must not put a directory with a time of now into its layer."""
        if path not in self._before:
            status = os.fstat(directory)
            self._before[path] = status.st_atime_ns, status.st_mtime_ns

    def is_directory(self, path: str) -> bool:
        """Whether the tree has a directory `path`, to which a link may lead."""
        try:
            fd = open_in_root(self._root, path or "/", os.O_PATH)
        except OSError:
            return False
        try:
            return stat.S_ISDIR(os.fstat(fd).st_mode)
        finally:
            os.close(fd)

    # Sources

    def copy(self, source: int, match: Match, destination: str, *, parents: bool, exclusions: Exclusions) -> None:
        """Copy what `match` means in `source` (fd) to `destination`, an absolute path that may end with a slash.

        parents: --parents, the directories of the source's path are made too. Raises InvalidInput, OSError.
        """
        if self._content is not None:
            self._content.begin(match)
        if parents:
            self._parents(source, match, destination)
            destination = f"{destination.rstrip('/')}/{match.under}" if match.under else destination
        if match.is_directory:
            top = self.directories(destination)
            self._tree(source, match.path, top, *exclusions.below(match))
        else:
            self._single(source, match, destination)
        if self._content is not None and parents:
            self._content.directories(source, match)

    def _single(self, source: int, match: Match, destination: str) -> None:
        parent, _, name = match.path.rpartition("/")
        with _Opened(open_in_root(source, parent or "/", os.O_RDONLY | os.O_DIRECTORY)) as directory:
            node = FileNode("", directory, name, os.stat(name, dir_fd=directory, follow_symlinks=False))
            self.file(node, destination, match.name)
            self._note_content(node)

    def file(self, node: FileNode, destination: str, name: str) -> None:
        """Copy one file to `destination`: into it when it ends with a slash or is a directory, else to that name."""
        top, final = self.place(destination, name)
        with self._open(top) as target:
            self._keep_time(top, target)
            self._entry(node, Spot(target, top, final))

    def place(self, destination: str, name: str) -> tuple[str, str]:
        """(directory, name) where a single file goes; the directory is made when it is missing.

        A `destination` that is a link to a file, or dangles, means what it leads to inside of the root: the link stays.
        """
        links = 0
        while not (destination.endswith(("/", "/.", "/..")) or self.is_directory(destination)):
            parent, _, final = destination.rpartition("/")
            top = self.directories(parent)
            link = self._link(top, final)
            if not link:
                return top, final
            links += 1
            _check_links(links, destination)
            destination = link if link.startswith("/") else f"{top}/{link}"
        return self.directories(destination), name

    def _parents(self, source: int, match: Match, destination: str) -> None:
        """Make the directories of --parents with the modes that they have in the source."""
        names = match.under.split("/")[: None if match.is_directory else -1]
        first = match.path[: len(match.path) - len(match.under)].rstrip("/")
        here, origin = self.directories(destination), first
        for name in names:
            if not name:
                continue
            origin = f"{origin}/{name}" if origin else name
            target = f"{here}/{name}"
            if not self.is_directory(target):
                fd = open_in_root(source, origin, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    self._new_directory(here, name, fd, os.fstat(fd))
                finally:
                    os.close(fd)
            here = target

    def _tree(self, source: int, path: str, top: str, skip: Skip, may_hold: Skip | None) -> None:
        tree = _TreeCopy(source, path, top)
        opened = ""
        with self._open(top) as first:
            self._keep_time(top, first)
        directory = open_in_root(self._root, top or "/", os.O_RDONLY | os.O_DIRECTORY)
        is_bare = not _has_default_acl(directory)
        try:
            for node in walk(source, path, skip, may_hold=may_hold):
                if node.is_implied:
                    tree.pending[node.path] = node
                    continue
                parent = node.path.rpartition("/")[0]
                self._imply(tree, parent)
                if parent != opened:
                    os.close(directory)
                    directory = open_in_root(self._root, f"{top}/{parent}", os.O_RDONLY | os.O_DIRECTORY)
                    opened = parent
                    is_bare = not _has_default_acl(directory)
                where = f"{top}/{parent}".rstrip("/")
                if stat.S_ISDIR(node.status.st_mode):
                    self._subdirectory(node, directory, where)
                    tree.made.add(node.path)
                else:
                    self._entry(node, Spot(directory, where, node.name, is_bare))
                self._note_content(node)
        finally:
            os.close(directory)

    def _imply(self, tree: _TreeCopy, parent: str) -> None:
        """Make the excluded directories above `parent`, and `parent`, for something in it that is taken after all."""
        missing = []
        while parent and parent not in tree.made and parent in tree.pending:
            missing.append(parent)
            parent = parent.rpartition("/")[0]
        for each in reversed(missing):
            above = each.rpartition("/")[0]
            with (
                self._open(f"{tree.top}/{above}") as target,
                _Opened(open_in_root(tree.source, f"{tree.path}/{above}", os.O_RDONLY | os.O_DIRECTORY)) as origin,
            ):
                node = tree.pending[each]._replace(parent=origin)
                self._subdirectory(node, target, f"{tree.top}/{above}".rstrip("/"))
            tree.made.add(each)

    def _subdirectory(self, node: FileNode, target: int, where: str) -> None:
        fd = os.open(node.name, DIRECTORY, dir_fd=node.parent)
        try:
            try:
                there = os.stat(node.name, dir_fd=target, follow_symlinks=False)
            except FileNotFoundError:
                self._new_directory(where, node.name, fd, node.status, target)
                return
            if not stat.S_ISDIR(there.st_mode):
                raise InvalidInput(
                    f"cannot copy directory '{node.path}' to '{where}/{node.name}': no directory is there"
                )
            made = os.open(node.name, DIRECTORY, dir_fd=target)
            try:
                self._attributes(fd, made, node.status)
            finally:
                os.close(made)
            self._set.append((f"{where}/{node.name}", self._placed.time_of(node.status)))
        finally:
            os.close(fd)

    def _new_directory(
        self, where: str, name: str, source: int, status: os.stat_result, target: int | None = None
    ) -> None:
        with _Opened(os.dup(target)) if target is not None else self._open(where) as parent:
            self._keep_time(where, parent)
            os.mkdir(name, 0o700, dir_fd=parent)
            made = os.open(name, DIRECTORY, dir_fd=parent)
            try:
                drop_acl(made)
                self._attributes(source, made, status)
            finally:
                os.close(made)
        self._set.append((f"{where}/{name}", self._placed.time_of(status)))

    def _note_content(self, node: FileNode) -> None:
        if self._content is not None:
            self._content.node(node, self._seen)

    # Single entries

    def _entry(self, node: FileNode, spot: Spot) -> None:
        self._seen = Seen()
        status = node.status
        kind = stat.S_IFMT(status.st_mode)
        self.latest_change = max(self.latest_change, status.st_ctime_ns)
        if kind == stat.S_IFREG and status.st_nlink < 2:
            self._regular(node, spot)
            return
        self._clear(spot, node.name)
        if kind == stat.S_IFREG:
            if not self._linked(status, spot):
                self._regular(node, spot)
        elif kind == stat.S_IFLNK:
            link = os.readlink(node.name, dir_fd=node.parent)
            os.symlink(link, spot.name, dir_fd=spot.directory)
            self._placed.give_special(spot, status, link)
        elif kind == stat.S_IFIFO:
            os.mkfifo(spot.name, 0o600, dir_fd=spot.directory)
            fifo = open_special(spot.directory, spot.name, stat.S_IFIFO)
            try:
                drop_acl(f"/proc/self/fd/{fifo}")
            finally:
                os.close(fifo)
            self._placed.give_special(spot, status, "")
        else:
            self.skipped += 1

    def _clear(self, spot: Spot, source: str) -> None:
        """Take away what the file named `source` is to replace. Raises InvalidInput where that is a directory."""
        try:
            there = os.stat(spot.name, dir_fd=spot.directory, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(there.st_mode):
            raise InvalidInput(f"cannot replace directory '{spot.path}' with the file '{source}'")
        os.unlink(spot.name, dir_fd=spot.directory)
        # The file that goes may have further names among the sources, which must not become links to what replaces it
        gone = self._linked_at.pop((spot.where, spot.name), None)
        if gone is not None:
            del self._links[gone]

    def _linked(self, status: os.stat_result, spot: Spot) -> bool:
        """Make `spot` a hard link where the file was copied under another name before; whether that was so."""
        if status.st_nlink < 2:
            return False
        inode = status.st_dev, status.st_ino
        here = spot.where, spot.name
        first = self._links.setdefault(inode, here)
        if first == here:
            self._linked_at[first] = inode
            return False
        with self._open(first[0]) as directory:
            os.link(first[1], spot.name, src_dir_fd=directory, dst_dir_fd=spot.directory, follow_symlinks=False)
        return True

    def _regular(self, node: FileNode, spot: Spot) -> None:
        read = os.open(node.name, _READ, dir_fd=node.parent)
        try:
            status = os.fstat(read)
            # The user may change the context meanwhile: what counts is what was opened, not what the walk saw
            if not stat.S_ISREG(status.st_mode):
                raise InvalidInput(f"'{node.name}' is no regular file any more")
            given = self._placed.of_source(read, status)
            try:
                write = os.open(spot.name, _NEW, given.mode & 0o777, dir_fd=spot.directory)
            except FileExistsError:
                self._clear(spot, node.name)
                write = os.open(spot.name, _NEW, given.mode & 0o777, dir_fd=spot.directory)
            try:
                digest = self._copy_content(read, write, status)
                if not spot.is_bare:
                    drop_acl(write)
                self._placed.give(write, given, stat.S_IFREG)
                time = self._placed.time_of(status)
                os.utime(write, ns=(time, time))
            finally:
                os.close(write)
        finally:
            os.close(read)
        self._seen = Seen(digest, given.attributes)

    def _copy_content(self, read: int, write: int, status: os.stat_result) -> str | None:
        """Copy a file's bytes. Returns their SHA-256 where the content is collected, else None."""
        size = status.st_size
        is_sparse = status.st_blocks * 512 < size
        if size <= (_PAGE if is_sparse else _SMALL):
            # A read and a write of so few bytes cost less than asking the file system to share or copy them
            content = b""
            while len(content) < size and (piece := os.read(read, size - len(content))):
                content += piece
            if content:
                write_all(write, content)
            return None if self._content is None else hashlib.sha256(content).hexdigest()
        copy_content(read, write, size, sparse=is_sparse)
        if self._content is None:
            return None
        os.lseek(read, 0, os.SEEK_SET)
        with open(read, "rb", buffering=0, closefd=False) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def write(self, directory: str, name: str, content: bytes, *, mode: int) -> None:
        """Write a file whose content the Dockerfile holds. directory: its path in the tree, which is there."""
        with self._open(directory) as target:
            self._keep_time(directory, target)
            self._clear(Spot(target, directory, name), name)
            write = os.open(name, _NEW, 0o600, dir_fd=target)
            try:
                write_all(write, content)
                drop_acl(write)
                self._placed.give_made(write, mode, stat.S_IFREG)
                moment = self._placed.bounded(self._placed.made_time)
                os.utime(write, ns=(moment, moment))
            finally:
                os.close(write)

    def _attributes(self, read: int, write: int, status: os.stat_result) -> None:
        given = self._placed.of_source(read, status)
        self._placed.give(write, given, stat.S_IFMT(status.st_mode))
        self._seen = Seen(None, given.attributes)

    def finish(self) -> None:
        """Give directories their times, which every file that was made in them has changed.

        A directory that was there gets the time that it had before, a new one its source's. Inner directories are last
        made and first set.
        """
        for path, (atime, mtime) in self._before.items():
            self._touch(path, atime, mtime)
        for path, time in reversed(self._set):
            self._touch(path, time, time)

    def _touch(self, path: str, atime: int, mtime: int) -> None:
        with self._open(path) as fd:
            os.utime(fd, ns=(atime, mtime))


def _names(path: str) -> list[str]:
    """The names of `path`, last first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _check_links(count: int, path: str) -> None:
    """Raise InvalidInput where `count` links were followed in `path`, which may go on for ever."""
    if count > _LINKS:
        raise InvalidInput(f"cannot follow '{path}': more than {_LINKS} links")


class _Opened:
    """A context manager that closes an fd at the end of its `with`."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _has_default_acl(directory: int) -> bool:
    try:
        os.getxattr(directory, DEFAULT_ACL)
    except OSError as e:
        if e.errno not in NO_ATTRIBUTE:
            raise
        return False
    return True
