"""Archives and layouts read at random: hostile names, links, headers; and what our own writer makes."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import InvalidInput, RootlessError
from rootless.image.decompress import HEAD, PlainBytes, compression_of
from rootless.image.docker_archive import archive_sources
from rootless.image.file_sets import DirectoryFiles, TarFiles, read_file
from rootless.image.tarwriter import TarWriter


def tar_file(path: Path, content: bytes) -> TarFiles:
    path.write_bytes(content)
    return TarFiles(path.open("rb"))


def make_tar(*entries: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for info, content in entries:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def entry(name: str, *, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    return info


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_odd_names(tmp_path: Path, format: int) -> None:
    long = "d/" * 100 + "file"
    files = tar_file(
        tmp_path / "t", make_tar((entry("./a"), b"one"), (entry(long), b"two"), (entry("é"), b""), format=format)
    )
    assert read_file(files, "a", 10) == b"one"
    assert read_file(files, long, 10) == b"two"
    assert files.size("é") == 0
    assert not files.has("b")


def test_links_inside_the_archive_and_none_outside(tmp_path: Path) -> None:
    files = tar_file(
        tmp_path / "t",
        make_tar(
            (entry("x/layer.tar"), b"layer"),
            (entry("y/layer.tar", kind=tarfile.SYMTYPE, link="../x/layer.tar"), b""),
            (entry("z", kind=tarfile.LNKTYPE, link="x/layer.tar"), b""),
            (entry("out", kind=tarfile.SYMTYPE, link="/etc/passwd"), b""),
            (entry("up", kind=tarfile.SYMTYPE, link="../../../etc/passwd"), b""),
            (entry("loop", kind=tarfile.SYMTYPE, link="loop"), b""),
        ),
    )
    assert read_file(files, "y/layer.tar", 10) == read_file(files, "z", 10) == b"layer"
    for name in ("out", "up", "loop", "etc/passwd"):
        assert not files.has(name)


def test_a_later_entry_replaces_an_earlier_one(tmp_path: Path) -> None:
    files = tar_file(tmp_path / "t", make_tar((entry("a"), b"one"), (entry("a"), b"two")))
    assert read_file(files, "a", 10) == b"two"


def test_reading_from_an_offset_and_several_at_once(tmp_path: Path) -> None:
    files = tar_file(tmp_path / "t", make_tar((entry("a"), b"0123456789")))
    one, other = files.open("a", 4), files.open("a", 20)
    assert one.read(3) == b"456" and other.read() == b"" and one.read() == b"789" and one.read() == b""
    one.close()
    one.close()


def test_files_have_limits(tmp_path: Path) -> None:
    files = tar_file(tmp_path / "t", make_tar((entry("a"), b"0123456789")))
    with pytest.raises(InvalidInput, match="larger"):
        read_file(files, "a", 9)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 512,
        b"\0" * 1024,
        make_tar((entry("a"), b"x" * 2000))[:1024],
        b"\x1f\x8b" + b"\0" * 600,
    ],
)
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidInput):
        tar_file(tmp_path / "t", content)


def test_a_huge_extension_header_is_not_read(tmp_path: Path) -> None:
    info = entry("././@LongLink", kind=b"L")
    info.size = 1 << 40
    with pytest.raises(InvalidInput):
        tar_file(tmp_path / "t", info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


@given(st.binary(max_size=2000))
def test_any_bytes_are_an_archive_or_an_error_of_ours(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryFile() as file:
        file.write(content)
        try:
            TarFiles(file)
        except RootlessError:
            return


@given(st.integers(0, 2000), st.integers(0, 255))
def test_a_flipped_byte_never_leads_out(position: int, value: int) -> None:
    import tempfile

    content = bytearray(make_tar((entry("a" * 150), b"one"), (entry("b"), b"two")))
    content[position] = value
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            files = TarFiles(file)
            for name in files.names():
                reader = files.open(name)
                assert len(reader.read()) <= len(content)
                reader.close()
        except RootlessError:
            return


def test_a_directory_follows_no_links(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "f").write_bytes(b"y")
    (tmp_path / "away").symlink_to(tmp_path / "dir")
    os.mkfifo(tmp_path / "fifo")
    files = DirectoryFiles(str(tmp_path))
    assert files.has("real") and read_file(files, "dir/f", 5) == b"y"
    for name in ("link", "away/f", "fifo", "dir", "../" + tmp_path.name + "/real", "/etc/passwd", "a\0b", ""):
        assert not files.has(name)
    files.close()


def test_our_own_tar_is_read_by_python(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    tar = TarWriter(buffer.write)
    tar.directory("blobs")
    tar.file("a", b"abc", mode=0o755)
    tar.hard_link("b", "a")
    tar.stream("c", 5, io.BytesIO(b"12345"))
    tar.finish()
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as found:
        assert [(m.name, m.mode, m.size, m.linkname) for m in found] == [
            ("blobs", 0o755, 0, ""),
            ("a", 0o755, 3, ""),
            ("b", 0o755, 0, "a"),
            ("c", 0o644, 5, ""),
        ]
    with pytest.raises(EOFError):
        tar.stream("d", 5, io.BytesIO(b"123"))
    with pytest.raises(ValueError, match="too long"):
        tar.file("x" * 101, b"")


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd", None])
def test_compressions_are_told_apart(name: str | None) -> None:
    import bz2
    import gzip
    import lzma

    import zstandard

    content = os.urandom(300_000) + bytes(300_000)
    compressors = {
        "gzip": gzip.compress,
        "bzip2": bz2.compress,
        "xz": lzma.compress,
        "zstd": zstandard.ZstdCompressor().compress,
    }
    packed = compressors[name](content) * 2 if name else content
    assert compression_of(packed) == name
    plain = PlainBytes(packed[:HEAD], io.BytesIO(packed[HEAD:]))
    found = b""
    while piece := plain.read(70_000):
        found += piece
    assert found == (content * 2 if name else content)
    if name:
        cut = PlainBytes(packed[:HEAD], io.BytesIO(packed[HEAD : len(packed) // 4]))
        with pytest.raises(InvalidInput, match=name):
            while cut.read(70_000):
                pass


@pytest.mark.parametrize(
    "manifest",
    [
        b"{}",
        b"[{}]",
        b'[{"Config": "../../etc/passwd", "Layers": []}]',
        b'[{"Config": "c", "Layers": "x"}]',
        b'[{"Config": "c", "RepoTags": ["BAD NAME"]}]',
        b'[{"Config": "c", "RepoTags": "x"}]',
        b"[" * 5000,
    ],
)
def test_bad_docker_archives(tmp_path: Path, manifest: bytes) -> None:
    files = tar_file(tmp_path / "t", make_tar((entry("manifest.json"), manifest), (entry("c"), b"{}")))
    with pytest.raises(InvalidInput):
        for source in archive_sources(files):
            source.manifest(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [b"-0000000001\0", b"+0000000001\0", b"0_000000001\0", b"0000000008.\0"])
def test_a_number_of_a_header_is_octal_digits(tmp_path: Path, number: bytes) -> None:
    """A long name of -1 bytes had the rest of the archive read into memory, as often as it has entries."""
    raw = bytearray(make_tar((entry("x"), b"")))
    raw[124:136] = number
    raw[156:157] = b"L"
    raw[148:156] = b"%06o\0 " % (sum(raw[:148]) + 8 * 32 + sum(raw[156:512]))
    with pytest.raises(InvalidInput, match="malformed number"):
        tar_file(tmp_path / "t", bytes(raw))
