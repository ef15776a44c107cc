"""Headers that we write are read by tarfile and by our own parser as they were meant."""

from __future__ import annotations

import io
import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.storage.tar.tarheader import END, FILE, LINK, SYMLINK, Member, encode_header
from rootless.storage.tar.tarstream import TarStream

names = st.binary(min_size=1, max_size=400).filter(
    lambda name: b"\0" not in name and not name.endswith(b"/") and name.strip(b"/")
)
xattrs = st.dictionaries(
    st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=20).map("user.{}".format),
    st.binary(min_size=1, max_size=300),
    max_size=4,
)


class Bytes:
    def __init__(self, content: bytes) -> None:
        self.stream = io.BytesIO(content)

    def take(self, size: int) -> bytes:
        return self.stream.read(size)

    def skip(self, size: int) -> None:
        assert len(self.stream.read(size)) == size


@settings(max_examples=200, deadline=None)
@given(
    name=names,
    linkname=names,
    kind=st.sampled_from([FILE, LINK, SYMLINK]),
    mode=st.integers(0, 0o7777),
    ids=st.tuples(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2)),
    mtime=st.integers(-(10**18), 10**19),
    attributes=xattrs,
)
def test_every_field_comes_back(
    name: bytes,
    linkname: bytes,
    kind: bytes,
    mode: int,
    ids: tuple[int, int],
    mtime: int,
    attributes: dict[str, bytes],
) -> None:
    link = b"" if kind == FILE else linkname
    member = Member(name, kind, mode, *ids, mtime=mtime, linkname=link, xattrs=tuple(sorted(attributes.items())))
    content = encode_header(member)
    assert len(content) % 512 == 0
    assert content == encode_header(member)
    entry = TarStream(Bytes(content + END)).next()
    assert entry is not None
    assert (entry.name, entry.type, entry.mode, entry.uid, entry.gid) == (name, kind, mode, *ids)
    assert (entry.mtime, entry.linkname, entry.xattrs) == (mtime, link, attributes)
    with tarfile.open(fileobj=io.BytesIO(content + END), errors="surrogateescape") as tar:
        (info,) = tar.getmembers()
    assert info.name.encode("utf-8", "surrogateescape") == name.rstrip(b"/")
    assert (info.uid, info.gid, info.mode) == (*ids, mode)


def test_size_beyond_the_field() -> None:
    content = encode_header(Member(b"big", FILE, size=9 << 30))
    entry = TarStream(Bytes(content)).next()
    assert entry is not None
    assert entry.size == entry.stored == 9 << 30


def test_plain_member_is_one_block() -> None:
    assert len(encode_header(Member(b"etc/passwd", FILE, mode=0o644, mtime=1_600_000_000 * 10**9, size=100))) == 512
