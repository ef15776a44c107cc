"""How an archive describes a file: kind, capabilities, access control lists, holes. It writes no archive itself."""

from __future__ import annotations

import errno
import os
import stat

from rootless.storage.tar.tarheader import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    SYMLINK,
    Member,
    encode_header,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: SYMLINK, stat.S_IFIFO: FIFO,
         stat.S_IFCHR: CHARACTER, stat.S_IFBLK: BLOCK_DEVICE}  # fmt: skip
SPARSE = 1 << 20  # a file with fewer bytes of holes is written out with zeros: not every reader knows sparse files
_ACL_USER, _ACL_GROUP = 2, 8


def plain_capability(value: bytes) -> bytes:
    """File capabilities in the form without the root of a user namespace (VFS_CAP_REVISION_2).

    Inside a user namespace the kernel stores revision 3, which adds the id of the namespace's root. That id belongs to
    this host; in an archive it would be wrong wherever the image is used (capabilities(7)).
    """
    if len(value) != 24:
        return value
    return ((2 << 24) | (value[0] & 1)).to_bytes(4, "little") + value[4:20]


def translate_acl(value: bytes, owner: Callable[[int, int], tuple[int, int]]) -> bytes:
    """The access control list `value` with its ids translated by `owner`, which takes and gives (uid, gid).

    The value has four bytes of version, then eight for each entry: tag, permissions, id (linux/posix_acl_xattr.h).
    """
    translated = bytearray(value)
    for at in range(4, len(value) - 7, 8):
        tag = int.from_bytes(value[at : at + 2], "little")
        number = int.from_bytes(value[at + 4 : at + 8], "little")
        if tag == _ACL_USER:
            number = owner(number, 0)[0]
        elif tag == _ACL_GROUP:
            number = owner(0, number)[1]
        translated[at + 4 : at + 8] = number.to_bytes(4, "little")
    return bytes(translated)


def data_segments(fd: int, status: os.stat_result) -> list[tuple[int, int]] | None:
    """(offset, length) of each piece of data in a file with at least SPARSE bytes of holes, None for other files.

    `fd` stands at the start of the file afterwards.
    """
    size = status.st_size
    if size - status.st_blocks * 512 < SPARSE:
        return None
    segments = []
    position = data = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as e:
            if e.errno != errno.ENXIO:  # lseek(2): nothing but a hole is left
                raise
            break
        position = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        segments.append((start, position - start))
        data += position - start
    os.lseek(fd, 0, os.SEEK_SET)
    # Fewer blocks than bytes do not prove holes: the file system may have compressed the file
    return segments if size - data >= SPARSE else None


def sparse_head(member: Member, size: int, segments: list[tuple[int, int]]) -> tuple[bytes, int]:
    """Header and map of a sparse file in GNU tar's format 1.0, and the number of bytes that follow the header: the map
    and the data of the segments. size: bytes of the file, holes included."""
    numbers = [len(segments), *(number for segment in segments for number in segment)]
    text = b"".join(b"%d\n" % number for number in numbers)
    text += bytes(-len(text) % BLOCK)
    stored = len(text) + sum(length for _, length in segments)
    records = (
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", member.name),
        (b"GNU.sparse.realsize", b"%d" % size),
    )
    short = b"GNUSparseFile.0/" + member.name.rpartition(b"/")[2][:80]
    return encode_header(member._replace(name=short, size=stored, records=records)) + text, stored
