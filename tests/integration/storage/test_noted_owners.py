"""What a layer asks for and the id map has not is noted beside the files when it is unpacked."""

from __future__ import annotations

import stat
import tarfile
from pathlib import Path

from rootless.storage.owners import overrides
from rootless.storage.owners.overrides import Override
from tests.conftest import owns_range

from .conftest import Archive, Unpacker

FAR = {"uid": 3_000_001, "gid": 3_000_002}


def noted(path: Path) -> str:
    found = overrides.read_override(str(path))
    return "" if found is None else bytes(found).decode()


def test_files_and_directories(unpacker: Unpacker) -> None:
    archive = Archive().directory("d", mode=0o2511, **FAR).file("d/f", b"x", mode=0o4755, **FAR).file("own", b"y")
    archive.file("negative", uid=3, gid=1 << 33)
    diff = unpacker.layer(archive)
    if owns_range():
        # nobody can be the file's owner, and a set-id bit would name root of the container
        assert noted(diff / "d/f") == "3000001:3000002:0755:file"
        assert stat.S_IMODE((diff / "d/f").stat().st_mode) == 0o755
    else:
        assert noted(diff / "d/f") == "3000001:3000002:4755:file"
        assert stat.S_IMODE((diff / "d/f").stat().st_mode) == 0o4755
    assert noted(diff / "d") == "3000001:3000002:2511:dir"
    assert (diff / "d").stat().st_mode & 0o700 == 0o700, "its real owner can delete it"
    assert noted(diff / "own") == ""
    assert noted(diff / "negative") in ("", "3:8589934592:0644:file"), "no id: ignored by whoever reads it"
    assert overrides.read_override(str(diff / "negative")) is None


def test_a_directory_that_is_named_twice_has_the_last_owner(unpacker: Unpacker) -> None:
    diff = unpacker.layer(Archive().directory("d", **FAR).directory("d").directory("e").directory("e", **FAR))
    assert noted(diff / "d") == "" and noted(diff / "e").startswith("3000001:3000002:")


def test_devices_are_placeholders(unpacker: Unpacker) -> None:
    """Device row of the traps: a node becomes an empty file, which says what it was."""
    archive = Archive().add("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
    archive.add("disk", tarfile.BLKTYPE, devmajor=253, devminor=70000, uid=FAR["uid"])
    diff = unpacker.layer(archive)
    assert noted(diff / "null") == "0:0:0666:char-1-3"
    assert noted(diff / "disk") == "3000001:0:0644:block-253-70000"
    assert (diff / "null").is_file() and (diff / "null").stat().st_size == 0


def test_links_and_pipes_are_in_the_table(unpacker: Unpacker) -> None:
    archive = Archive().symlink("./d/l", "nowhere", **FAR).add("p", tarfile.FIFOTYPE, b"", **FAR).symlink("mine", "x")
    diff = unpacker.layer(archive)
    table = overrides.open_table(str(diff.parent))
    assert table.find(b"d/l", (diff / "d/l").lstat()) == Override(3000001, 3000002, 0o644, stat.S_IFLNK)
    assert table.find(b"p", (diff / "p").lstat()) == Override(3000001, 3000002, 0o644, stat.S_IFIFO)
    assert table.find(b"mine", (diff / "mine").lstat()) is None


def test_an_image_brings_no_notes_of_its_own(unpacker: Unpacker) -> None:
    """Overlay row of the traps: `user.containers.*` of an image is dropped, it would be taken for ours."""
    headers = {f"SCHILY.xattr.{overrides.ATTRIBUTE}": "5:5:4755:file"}
    diff = unpacker.layer(Archive().file("f", pax_headers=headers))
    assert noted(diff / "f") == ""
