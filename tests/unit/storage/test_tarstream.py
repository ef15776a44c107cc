"""The archive parser, with tarfile as the oracle on benign archives and hypothesis for hostile bytes."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.errors import InvalidInput
from rootless.storage.tar import tarstream
from rootless.storage.tar.tarstream import TarEntry, TarStream


class Memory:
    """A source over bytes."""

    def __init__(self, content: bytes) -> None:
        self.stream = io.BytesIO(content)

    def take(self, size: int) -> bytes:
        return self.stream.read(size)

    def skip(self, size: int) -> None:
        if len(self.stream.read(size)) < size:
            raise InvalidInput("cut off")


def read(content: bytes) -> list[tuple[TarEntry, bytes]]:
    source = Memory(content)
    archive = TarStream(source)
    found = []
    while (entry := archive.next()) is not None:
        stored = b""
        if entry.type == tarstream.FILE:
            stored = source.take(entry.stored)
            if len(stored) < entry.stored:
                raise InvalidInput("cut off")
            source.skip(TarStream.padding(entry))
        found.append((entry, stored))
    return found


NAMES = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0/"), min_size=1, max_size=120
).filter(lambda n: n not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@settings(max_examples=200, deadline=None)
@given(
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    members=st.lists(
        st.tuples(
            PATHS,
            st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]),
            st.binary(max_size=1500),
            st.integers(0, 2**40),
            st.integers(-(2**33), 2**40),
            PATHS,
        ),
        max_size=5,
    ),
)
def test_reads_what_tarfile_writes(form: int, members: list[tuple[str, bytes, bytes, int, int, str]]) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for name, kind, content, uid, mtime, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.uid, member.gid, member.mtime = kind, uid, uid, mtime
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                member.linkname = target
            if kind == tarfile.REGTYPE:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    found = read(stream.getvalue())
    assert len(found) == len(members)
    for (entry, stored), (name, kind, content, uid, mtime, target) in zip(found, members, strict=True):
        assert entry.name.rstrip(b"/") == name.encode().rstrip(b"/")
        assert entry.type == kind
        assert (entry.uid, entry.gid, entry.mtime) == (uid, uid, mtime * 1_000_000_000)
        if kind == tarfile.REGTYPE:
            assert stored == content
        if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            assert entry.linkname == target.encode()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=3000))
def test_random_bytes_are_refused_or_empty(content: bytes) -> None:
    try:
        read(content)
    except InvalidInput:
        pass


def sample() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("n" * 300)
        member.size = 700
        member.pax_headers = {"SCHILY.xattr.user.a": "value", "mtime": "12.5"}
        tar.addfile(member, io.BytesIO(b"x" * 700))
    return stream.getvalue()


@settings(max_examples=400, deadline=None)
@given(position=st.integers(0, 3071), value=st.integers(0, 255))
def test_one_changed_byte_is_no_crash(position: int, value: int) -> None:
    content = bytearray(sample())
    content[position % len(content)] = value
    try:
        read(bytes(content))
    except InvalidInput:
        pass


@settings(max_examples=100, deadline=None)
@given(length=st.integers(1, 2559))
def test_every_truncation_is_refused(length: int) -> None:
    whole = sample()
    body = 512 + 1024 + 512 + 1024
    assert len(whole) >= body
    if length % body == 0:
        return
    with pytest.raises(InvalidInput):
        read(whole[: length % body])


def header(**fields: bytes) -> bytes:
    block = bytearray(tarfile.TarInfo("f").tobuf(tarfile.USTAR_FORMAT))
    places = {"uid": (108, 8), "size": (124, 12), "mtime": (136, 12), "typeflag": (156, 1), "mode": (100, 8)}
    for field, value in fields.items():
        start, length = places[field]
        block[start : start + length] = value.ljust(length, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_base_256_numbers() -> None:
    [(entry, _)] = read(header(uid=b"\x80" + (5_000_000).to_bytes(7, "big"), mtime=b"\xff" * 11 + b"\xfe"))
    assert entry.uid == 5_000_000
    assert entry.mtime == -2_000_000_000


@pytest.mark.parametrize(
    "fields",
    [
        {"size": b"\xff" * 12},
        {"size": b"\x80" + b"\xff" * 11},
        {"size": b"99999999999"},
        {"size": b"-1"},
        {"uid": b"0x10"},
        {"uid": b"+7"},
        {"uid": b"1_0"},
        {"typeflag": b"Q"},
    ],
)
def test_impossible_numbers_and_types_are_refused(fields: dict[str, bytes]) -> None:
    with pytest.raises(InvalidInput):
        read(header(**fields))


@pytest.mark.parametrize(
    "records",
    [
        b"11 path=a\n",  # one byte too many
        b"9 path=a\n"[:-1] + b"x",
        b"0 path=a\n",
        b"99999999 path=a\n",
        b"path=a\n",
        b"10 =abcde\n",
        b"17 size=-1aaaaaa\n",
        b"22 path=with\0nul bytes\n",
        b"18 size=99999999999999999999\n",
    ],
)
def test_malformed_pax_headers_are_refused(records: bytes) -> None:
    content = records.ljust(512, b"\0")
    extension = header(size=b"%o" % len(records), typeflag=b"x") + content
    with pytest.raises(InvalidInput):
        read(extension + header() + bytes(1024))


def test_extension_headers_are_bounded() -> None:
    for kind, size in ((b"x", tarstream.MAX_PAX + 1), (b"L", 10_000), (b"K", 10_000)):
        with pytest.raises(InvalidInput, match="limit"):
            read(header(size=b"%o" % size, typeflag=kind) + bytes(1 << 21))


@pytest.mark.parametrize(("kind", "count"), [(b"x", 3), (b"X", 3), (b"L", 3), (b"K", 3), (b"g", 4097), (b"V", 8193)])
def test_chains_of_extension_headers_are_bounded(kind: bytes, count: int) -> None:
    """An archive of nothing but headers costs its sender 1 KiB each, and would keep us busy without a member."""
    record = b"" if kind == b"V" else b"20 comment=01234567\n" if kind in b"xXg" else b"name"
    extension = header(size=b"%o" % len(record), typeflag=kind) + (record and record.ljust(512, b"\0"))
    with pytest.raises(InvalidInput, match="chain"):
        read(extension * (count + 4096 * (kind == b"g")) + header() + bytes(1024))
    assert len(read(extension * 2 + header() + extension * 2 + header() + bytes(1024))) == 2


def test_a_lone_zero_block_is_refused() -> None:
    with pytest.raises(InvalidInput, match="zero block"):
        read(header() + bytes(512) + header() + bytes(1024))


def test_archives_without_end_marker_are_whole() -> None:
    assert len(read(header())) == 1
    assert read(b"") == []


def test_global_headers_are_skipped() -> None:
    content = b"10 path=x\n"
    archive = header(size=b"%o" % len(content), typeflag=b"g") + content.ljust(512, b"\0") + header()
    [(entry, _)] = read(archive)
    assert entry.name == b"f"


@pytest.mark.parametrize("segments", [[(0, 10), (5, 10)], [(10, 5), (0, 5)], [(0, 100)], [(90, 20)]])
def test_sparse_maps_that_lie_are_refused(segments: list[tuple[int, int]]) -> None:
    numbers = ",".join(f"{a},{b}" for a, b in segments)
    stored = 10
    records = b""
    for key, value in (("GNU.sparse.map", numbers), ("GNU.sparse.size", "100")):
        text = f" {key}={value}\n"
        records += f"{len(text) + 2}{text}".encode()
    archive = header(size=b"%o" % len(records), typeflag=b"x") + records.ljust(512, b"\0")
    archive += header(size=b"%o" % stored) + bytes(512) + bytes(1024)
    with pytest.raises(InvalidInput, match="sparse"):
        read(archive)
