"""Layers made to escape, to plant, to exhaust: each test is a row of the list of traps (1.3 and 3.9 to 3.11)."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from rootless.errors import DigestMismatch, InvalidInput
from rootless.storage.store.gc import collect_garbage
from rootless.storage.store.store import Store

from .conftest import GZIP, PLAIN, ZSTD, Archive, Unpacker


def leftovers(store: Store) -> list[str]:
    return [name for name in os.listdir(store.layers.directory) if len(name) != 64]


@pytest.mark.parametrize("name", ["../escape", "a/../../escape", "a/..", ".."])
def test_cve_2007_4559_dot_dot_is_refused(unpacker: Unpacker, store: Store, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"\.\."):
        unpacker.layer(Archive().directory("a").file(name, b"x"))
    assert leftovers(store) == []
    assert not Path(store.root, "layers/escape").exists()


def test_absolute_names_land_inside(unpacker: Unpacker) -> None:
    diff = unpacker.layer(Archive().directory("/tmp/deep").file("//tmp/deep/f", b"x"))
    assert (diff / "tmp/deep/f").read_bytes() == b"x"


@pytest.mark.parametrize("target", ["/", "/tmp", "..", "../..", "/proc/self/cwd", "/etc"])
def test_cve_2024_12718_write_through_symlink_stays_inside(unpacker: Unpacker, target: str) -> None:
    marker = f"planted-{os.getpid()}"
    archive = Archive().directory("tmp").symlink("out", target).file(f"out/{marker}", b"x")
    try:
        diff = unpacker.layer(archive)
    except InvalidInput:
        pass  # the target is not in the layer
    else:
        assert list(diff.rglob(marker))
    for place in ("/", "/tmp", "/etc", str(Path.cwd())):
        assert not Path(place, marker).exists()


def test_cve_2025_4330_symlink_chain_through_the_root_stays_inside(unpacker: Unpacker) -> None:
    archive = Archive().directory("a").symlink("a/up", "../../../../../..").file("a/up/landed", b"x")
    diff = unpacker.layer(archive)
    assert (diff / "landed").read_bytes() == b"x"


def test_last_name_is_never_followed(unpacker: Unpacker) -> None:
    archive = Archive().file("victim", b"old").symlink("name", "victim").file("name", b"new")
    diff = unpacker.layer(archive)
    assert (diff / "victim").read_bytes() == b"old"
    assert (diff / "name").read_bytes() == b"new"
    assert not (diff / "name").is_symlink()


def test_symlink_to_directory_is_replaced_by_directory(unpacker: Unpacker) -> None:
    archive = Archive().directory("real", mode=0o755).symlink("d", "real").directory("d", mode=0o700).file("d/f", b"x")
    diff = unpacker.layer(archive)
    assert not (diff / "d").is_symlink()
    assert (diff / "d/f").exists()
    assert not (diff / "real/f").exists()
    assert stat.S_IMODE((diff / "real").stat().st_mode) == 0o755


def test_cve_2025_4138_attributes_do_not_go_through_links(unpacker: Unpacker, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("x")
    os.chmod(victim, 0o600)
    os.utime(victim, (1, 1))
    unpacker.layer(Archive().symlink("l", str(victim), mode=0o777, pax_headers={"SCHILY.xattr.user.a": "b"}))
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600
    assert victim.stat().st_mtime == 1


def test_cve_2026_11940_hard_link_to_symlink_links_the_symlink(unpacker: Unpacker) -> None:
    archive = Archive().symlink("s", "/etc/passwd").link("h", "s").file("h", b"mine")
    diff = unpacker.layer(archive)
    assert (diff / "s").is_symlink()
    assert (diff / "h").read_bytes() == b"mine"


@pytest.mark.parametrize("target", ["../../../etc/passwd", "a/../../x"])
def test_cve_2025_4517_hard_link_outside_is_refused(unpacker: Unpacker, target: str) -> None:
    with pytest.raises(InvalidInput):
        unpacker.layer(Archive().directory("a").link("h", target))


def test_hard_link_to_absolute_path_stays_inside(unpacker: Unpacker) -> None:
    with pytest.raises(InvalidInput, match="hard link"):
        unpacker.layer(Archive().link("h", "/etc/passwd"))


def test_hard_link_through_symlinked_parent_stays_inside(unpacker: Unpacker) -> None:
    with pytest.raises(InvalidInput):
        unpacker.layer(Archive().symlink("etc", "/etc").link("h", "etc/passwd"))


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("name", [".", "/", "./"])
def test_cve_2021_29136_root_entry_stays_a_directory(unpacker: Unpacker, kind: bytes, name: str) -> None:
    member = Archive()
    member.add("placeholder")
    raw = Archive().add(name if not name.endswith("/") else name + ".", kind, linkname="/etc")
    with pytest.raises(InvalidInput, match="root"):
        unpacker.layer(raw)


def test_root_entry_sets_the_root_attributes(unpacker: Unpacker) -> None:
    diff = unpacker.layer(Archive().directory("./", mode=0o711).file("f"))
    assert stat.S_IMODE(diff.stat().st_mode) == 0o711
    assert diff.stat().st_mtime == 1_600_000_000


@pytest.mark.parametrize("name", [".wh.", "d/.wh.", ".wh...", ".wh..", "d/.wh.."])
def test_whiteout_of_no_name_is_refused(unpacker: Unpacker, name: str) -> None:
    with pytest.raises(InvalidInput, match="whiteout"):
        unpacker.layer(Archive().directory("d").file(name))


def test_whiteout_of_aufs_names_is_skipped(unpacker: Unpacker) -> None:
    diff = unpacker.layer(Archive().directory(".wh..wh.plnk").file(".wh..wh.x").file("f"))
    assert os.listdir(diff) == ["f"]


def test_whiteout_in_symlinked_directory_stays_inside(unpacker: Unpacker, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("x")
    try:
        unpacker.layer(Archive().symlink("d", str(tmp_path)).file("d/.wh.victim"))
    except InvalidInput:
        pass
    assert (tmp_path / "victim").exists()


def test_whiteout_never_removes_files_of_its_own_layer(unpacker: Unpacker) -> None:
    diff = unpacker.layer(Archive().file("f", b"kept").file(".wh.f").directory("d").file("d/g").file(".wh.d"))
    assert (diff / "f").read_bytes() == b"kept"
    assert (diff / "d/g").exists()
    assert os.getxattr(diff / "d", "user.overlay.opaque") == b"y"


def test_image_cannot_plant_whiteout_device(unpacker: Unpacker) -> None:
    unpacker.layer(Archive().file("secret", b"x"))
    diff = unpacker.layer(Archive().add("secret", tarfile.CHRTYPE, devmajor=0, devminor=0).add("b", tarfile.BLKTYPE))
    for name in ("secret", "b"):
        assert stat.S_ISREG((diff / name).stat().st_mode)
        assert (diff / name).stat().st_size == 0


def test_image_cannot_plant_overlay_xattrs(unpacker: Unpacker) -> None:
    planted = {
        f"SCHILY.xattr.{name}": "y"
        for name in (
            "user.overlay.opaque",
            "user.overlay.redirect",
            "trusted.overlay.opaque",
            "user.fuseoverlayfs.opaque",
            "user.containers.override_stat",
            "security.selinux",
        )
    }
    kept = {"SCHILY.xattr.user.note": "kept"}
    diff = unpacker.layer(
        Archive().directory("d", pax_headers={**planted, **kept}).file("f", b"", pax_headers={**planted, **kept})
    )
    for name in ("d", "f"):
        assert [x for x in os.listxattr(diff / name) if x.startswith("user.")] == ["user.note"]


def test_hard_link_to_whiteout_is_refused(unpacker: Unpacker) -> None:
    with pytest.raises(InvalidInput, match="deletes"):
        unpacker.layer(Archive().file(".wh.gone").link("copy", "gone"))


def test_entry_inside_of_whiteout_is_refused(unpacker: Unpacker) -> None:
    with pytest.raises(InvalidInput, match="whiteout"):
        unpacker.layer(Archive().file(".wh.d/f"))


def test_path_added_again_under_its_whiteout_hides_lower_content(unpacker: Unpacker) -> None:
    diff = unpacker.layer(Archive().file(".wh.d").directory("d").file("d/new").file(".wh.e").file("e", b"x"))
    assert os.getxattr(diff / "d", "user.overlay.opaque") == b"y"
    assert (diff / "e").read_bytes() == b"x"


def test_no_whiteout_inside_of_opaque_directory(unpacker: Unpacker) -> None:
    archive = Archive().directory("d").directory("d/e").file("d/e/.wh.early").file("d/.wh.x").file("d/.wh..wh..opq")
    diff = unpacker.layer(archive.file("d/.wh.late").file("d/f"))
    assert sorted(os.listdir(diff / "d")) == ["e", "f"]
    assert os.listdir(diff / "d/e") == []


def test_cve_2021_20291_duplicates_are_bounded_and_linear(unpacker: Unpacker, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive()
    for number in range(3000):
        archive.file("same", b"%d" % number)
    diff = unpacker.layer(archive)
    assert (diff / "same").read_bytes() == b"2999"


def test_duplicate_limit(unpacker: Unpacker) -> None:
    member = Archive().file("f").tar()[:1024][:512]
    with pytest.raises(InvalidInput, match="already had"):
        unpacker.layer(member * 100_002 + bytes(1024))


def test_file_replaces_directory_tree_of_the_same_layer(unpacker: Unpacker) -> None:
    archive = Archive().directory("d").directory("d/e").file("d/e/f").file("d", b"file").file("other/x", b"y")
    diff = unpacker.layer(archive)
    assert (diff / "d").read_bytes() == b"file"
    assert (diff / "other/x").read_bytes() == b"y"


def test_entry_below_a_file_is_refused(unpacker: Unpacker) -> None:
    with pytest.raises(InvalidInput):
        unpacker.layer(Archive().file("f").file("f/g"))


def test_set_id_bits_need_their_owner(unpacker: Unpacker, has_range: bool) -> None:
    """They go where the file has become root's, who had not owned it. With one id they stay: there is nobody else."""
    diff = unpacker.layer(Archive().file("suid", b"x", uid=4_000_000, gid=4_000_000, mode=0o6755))
    assert (diff / "suid").stat().st_mode & 0o6000 == (0 if has_range else 0o6000)


@pytest.mark.parametrize("tail", [b"garbage", b"\0" * 512])
def test_trailing_data_after_gzip_is_refused(unpacker: Unpacker, tail: bytes) -> None:
    tar = Archive().file("f").tar()
    with pytest.raises(InvalidInput, match="gzip"):
        unpacker.layer(tar, GZIP, gzip.compress(tar) + tail)


def test_concatenated_gzip_members_are_one_layer(unpacker: Unpacker) -> None:
    tar = Archive().file("f", os.urandom(100_000)).tar()
    diff = unpacker.layer(tar, GZIP, b"".join(gzip.compress(tar[i : i + 3000]) for i in range(0, len(tar), 3000)))
    assert (diff / "f").stat().st_size == 100_000


def test_zstd_frames_and_skippable_frames(unpacker: Unpacker) -> None:
    import zstandard

    tar = Archive().file("f", os.urandom(100_000)).tar()
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"table"
    diff = unpacker.layer(
        tar, ZSTD, zstandard.compress(tar[:4000]) + skippable + zstandard.compress(tar[4000:]) + skippable
    )
    assert (diff / "f").stat().st_size == 100_000


@pytest.mark.parametrize("media_type", [GZIP, ZSTD, PLAIN])
def test_truncated_layer_leaves_nothing(unpacker: Unpacker, store: Store, media_type: str) -> None:
    import zstandard

    tar = Archive().file("f", os.urandom(300_000)).tar()
    whole = {GZIP: gzip.compress(tar), ZSTD: zstandard.compress(tar), PLAIN: tar}[media_type]
    with pytest.raises(InvalidInput, match="cut off"):
        unpacker.layer(tar, media_type, whole[: len(whole) // 2])
    assert os.listdir(store.layers.directory) == []


def test_diff_id_is_verified_to_the_last_byte(unpacker: Unpacker, store: Store) -> None:
    tar = Archive().file("f").tar()
    with pytest.raises(DigestMismatch):
        unpacker.layer(tar, GZIP, gzip.compress(tar + bytes(512)))
    assert os.listdir(store.layers.directory) == []


def test_corrupt_gzip_is_refused(unpacker: Unpacker) -> None:
    tar = Archive().file("f", b"text" * 5000).tar()
    damaged = bytearray(gzip.compress(tar))
    damaged[len(damaged) // 2] ^= 0xFF
    with pytest.raises(InvalidInput):
        unpacker.layer(tar, GZIP, bytes(damaged))


def test_path_longer_than_the_kernel_takes_is_refused(unpacker: Unpacker) -> None:
    with pytest.raises(InvalidInput, match="path"):
        unpacker.layer(Archive().file("/".join(["d" * 100] * 60)))


def test_too_deep_path_is_refused(unpacker: Unpacker) -> None:
    with pytest.raises(InvalidInput, match="directories"):
        unpacker.layer(Archive().file("/".join(["d"] * 600)))


def test_sparse_bomb_costs_no_space(unpacker: Unpacker) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("hole")
        member.size = 0
        size = 1 << 40
        member.pax_headers = {"GNU.sparse.map": f"{size},0", "GNU.sparse.size": str(size), "GNU.sparse.numblocks": "1"}
        tar.addfile(member)
    diff = unpacker.layer(archive.getvalue())
    assert (diff / "hole").stat().st_size == 1 << 40
    assert (diff / "hole").stat().st_blocks < 100


def test_directory_modes_do_not_lock_anybody_out(unpacker: Unpacker, store: Store) -> None:
    unpacker.layer(
        Archive().directory("d", mode=0).file("d/f", b"x").directory("d/e", mode=0, uid=1, gid=1).file("d/e/g")
    )
    collect_garbage(store)
    assert os.listdir(store.layers.directory) == []
    assert os.listdir(store.path("trash")) == []
