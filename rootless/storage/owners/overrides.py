"""Notes the owners, modes and devices that an ordinary user cannot give a file on disk. It changes no file's content.

Regular files and directories carry them in the extended attribute `user.containers.override_stat`, in the form that
containers/storage and fuse-overlayfs write: `uid:gid:mode:type`, mode in octal, type one of file, dir, symlink, pipe,
socket, `block-MAJOR-MINOR` and `char-MAJOR-MINOR` (older writers leave the type away). A device is a regular file, its
placeholder, with that attribute.

The kernel allows no `user.` attribute on links, pipes and sockets (xattr(7)). For these there is a table, the file
`owners` in the container's directory (beside `upper`) or the layer's (beside `diff`). Lines are only ever appended, and
the last line of a key counts. A line is `KEY<tab>VALUE<tab>TARGET`, percent-encoded where needed. The key is `/PATH`
from the top of the tree, or `#INODE` for a file of the upper directory; the value is as above, or empty when the note
is taken back; the target is what a symbolic link says. A file system gives the number of a deleted inode to a new file,
so a line with an inode counts only for a file of the noted type, and for a link only when it has the noted target.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

ATTRIBUTE = "user.containers.override_stat"
PLANTED = ("user.overlay.", "trusted.", "user.fuseoverlayfs.", "user.containers.", "overlay.")
"""Beginnings of attributes that nothing from outside may bring: the marks of overlay file systems, and our notes.

An image with its own could hide files of the layers below it, show one of their directories elsewhere, or claim an
owner."""
NO_XATTR = (errno.ENOTSUP, errno.EPERM, errno.EINVAL, errno.EACCES)
"""The errors by which the kernel says that a file cannot have an extended attribute."""
TABLE = "owners"
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block",
    stat.S_IFCHR: "char",
}
_FORMATS = {name: number for number, name in _KINDS.items()}
_DEVICES = (stat.S_IFBLK, stat.S_IFCHR)
_MAXIMUM_ID = (1 << 32) - 2
_MAXIMUM_TABLE = 256 << 20
_NONE = (errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.EACCES)


class Override:
    """The owner, mode and type that a file was asked to have and cannot have on disk.

    mode: permission bits (07777); format: stat.S_IF*, 0 when it was not noted; device: major and minor number.
    """

    __slots__ = ("device", "format", "gid", "mode", "uid")

    def __init__(self, uid: int, gid: int, mode: int, format: int = 0, device: tuple[int, int] = (0, 0)) -> None:
        self.uid = uid
        self.gid = gid
        self.mode = mode
        self.format = format
        self.device = device

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Override) and bytes(self) == bytes(other)

    def __hash__(self) -> int:
        return hash(bytes(self))

    def __repr__(self) -> str:
        return f"Override({bytes(self).decode()})"

    def __bytes__(self) -> bytes:
        if not self.format:
            return f"{self.uid}:{self.gid}:{self.mode:04o}".encode()
        kind = _KINDS[self.format]
        if self.format in _DEVICES:
            kind = f"{kind}-{self.device[0]}-{self.device[1]}"
        return f"{self.uid}:{self.gid}:{self.mode:04o}:{kind}".encode()

    @property
    def is_device(self) -> bool:
        """Whether the file on disk is the placeholder of a device."""
        return self.format in _DEVICES

    def applies_to(self, status: os.stat_result) -> bool:
        """Whether this can have been noted of a file with `status`. A device is noted on a regular file."""
        wanted = stat.S_IFREG if self.is_device else self.format
        return not wanted or wanted == stat.S_IFMT(status.st_mode)

    def mode_now(self, mode: int) -> int:
        """The permission bits that the file has for its users, when it has `mode` on disk.

        The noted ones count as long as the file has the bits that it got when they were noted (`on_disk`). Other bits
        say that somebody has changed them since, by a chmod that the kernel has allowed, and these count then.
        """
        mode = stat.S_IMODE(mode)
        return self.mode if mode == on_disk(self.mode, self.format) else mode


def on_disk(mode: int, format: int) -> int:
    """The permission bits on disk of a file whose owner is only noted. mode: those that it was asked to have.

    A directory stays open to its real owner, who must be able to delete what is in it without a namespace. Set-id bits
    stay: they name the user who owns the file, and nobody else can reach the store.
    """
    return mode | 0o700 if format == stat.S_IFDIR else mode


def parse_override(value: bytes) -> Override | None:
    """What the value of the attribute says; None for a malformed one, so that the file's real owner counts."""
    parts = value.split(b"\0")[0].split(b":")
    if len(parts) not in (3, 4) or not all(p.isdigit() and len(p) <= 10 for p in parts[:3]):
        return None
    uid, gid = int(parts[0]), int(parts[1])
    try:
        mode = int(parts[2], 8)
    except ValueError:
        return None
    if uid > _MAXIMUM_ID or gid > _MAXIMUM_ID:
        return None
    format, device = stat.S_IFMT(mode), (0, 0)
    if len(parts) == 4:
        kind, *numbers = parts[3].decode("ascii", "replace").split("-")
        if kind not in _FORMATS:
            return None
        format = _FORMATS[kind]
        if (format in _DEVICES) != (len(numbers) == 2) or not all(n.isascii() and n.isdigit() for n in numbers):
            return None
        if numbers:
            device = int(numbers[0][:10]), int(numbers[1][:10])
    elif format in _DEVICES:
        return None  # without its numbers
    return Override(uid, gid, stat.S_IMODE(mode), format, device)


def read_override(file: int | str | bytes) -> Override | None:
    """What is noted on a file; None for nothing. Raises OSError.

    file: an fd (not one of O_PATH), or a path, of which a link at the end is not followed.
    """
    try:
        if isinstance(file, int):
            return parse_override(os.getxattr(file, ATTRIBUTE))
        return parse_override(os.getxattr(file, ATTRIBUTE, follow_symlinks=False))
    except OSError as e:
        if e.errno in _NONE:
            return None
        raise


def write_override(fd: int, override: Override | None) -> None:
    """Note `override` on an open regular file or directory; None takes away what was noted. Raises OSError."""
    if override is not None:
        os.setxattr(fd, ATTRIBUTE, bytes(override))
        return
    try:
        os.removexattr(fd, ATTRIBUTE)
    except OSError as e:
        if e.errno not in _NONE:
            raise


def change_owner(fd: int, uid: int, gid: int) -> bool:
    """Give an open file an owner; False when the user namespace does not map the ids. Raises OSError otherwise."""
    try:
        os.fchown(fd, uid, gid)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        return False
    return True


class Table:
    """The table of owners of one container or layer, with the lines that it had when it was opened."""

    __slots__ = ("_inodes", "_paths")

    def __init__(self, lines: Iterator[bytes] | None = None) -> None:
        self._paths: dict[bytes, Override] = {}
        self._inodes: dict[int, tuple[Override, bytes]] = {}
        for line in lines or ():
            self.add(line)

    def __len__(self) -> int:
        return len(self._paths) + len(self._inodes)

    def add(self, line: bytes) -> None:
        """Take one more line of the file."""
        parts = line.rstrip(b"\n").split(b"\t")
        if len(parts) != 3 or not line.endswith(b"\n"):
            return  # a full disk has cut the line off
        override = parse_override(parts[1])
        if parts[0].startswith(b"/"):
            path = _decode(parts[0]).strip(b"/")
            if override is None:
                self._paths.pop(path, None)
            else:
                self._paths[path] = override
        elif parts[0][:1] == b"#" and parts[0][1:].isdigit():
            inode = int(parts[0][1:])
            if override is None:
                self._inodes.pop(inode, None)
            else:
                self._inodes[inode] = override, _decode(parts[2])

    def find(self, path: bytes, status: os.stat_result, target: bytes = b"") -> Override | None:
        """What is noted of a link, pipe or socket. path: from the top of the tree; target: what a link says."""
        override = self._paths.get(path.strip(b"/"))
        if override is None:
            found = self._inodes.get(status.st_ino)
            if found is None or found[1] != target:
                return None
            override = found[0]
        return override if override.applies_to(status) else None


def open_table(directory: str) -> Table:
    """The table in a container's or layer's directory; an empty one when it has none. Raises OSError."""
    try:
        fd = os.open(f"{directory}/{TABLE}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return Table()
    with open(fd, "rb") as f:
        if os.fstat(fd).st_size > _MAXIMUM_TABLE:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), f"{directory}/{TABLE}")
        return Table(iter(f))


def append_to(directory: str, *, dir_fd: int | None = None) -> int:
    """A descriptor by which lines are appended to a directory's table, which is made if need be. Raises OSError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(f"{directory}/{TABLE}", flags, 0o600, dir_fd=dir_fd)


def table_line(key: bytes | int, override: Override | None, target: bytes = b"") -> bytes:
    """One line of a table. key: a path from the top of the tree, or the number of an inode; target: of a link."""
    name = b"#%d" % key if isinstance(key, int) else b"/" + _encode(key.strip(b"/"))
    return b"%s\t%s\t%s\n" % (name, b"" if override is None else bytes(override), _encode(target))


def _encode(text: bytes) -> bytes:
    for byte in (b"%", b"\t", b"\n"):
        text = text.replace(byte, b"%%%02X" % byte[0])
    return text


def _decode(text: bytes) -> bytes:
    for byte in (b"\n", b"\t", b"%"):
        text = text.replace(b"%%%02X" % byte[0], byte)
    return text
