"""The three drivers pass one suite: what a container sees of its layers, and what its changes leave."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.errors import HostLimit, RootlessError, UsageError
from rootless.host import doctor, facts
from rootless.host.probes.result import Probe
from rootless.paths import user_directories
from rootless.records.id_map import IdMap
from rootless.storage import drivers
from rootless.storage.drivers import choice
from rootless.storage.drivers.choice import choose_driver
from rootless.storage.store.store import Store
from tests.conftest import make_private_directory, remove_private_directory, require

from .conftest import Archive, Mounted, Unpacker, reason_against

CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)  # cap_net_bind_service... effective, revision 2


def listing(path: str) -> str:
    return " ".join(sorted(os.listdir(path)))


def test_layers_are_seen_as_one_tree(mounted: Mounted) -> None:
    u = mounted.unpacker
    u.layer(Archive().directory("d").file("d/low", b"low").file("same", b"old"))
    u.layer(Archive().directory("d").file("d/high", b"high").file("same", b"new"))
    assert mounted.run(lambda t: listing("d")) == "high low"
    assert mounted.run(lambda t: Path("same").read_text()) == "new"


def test_whiteouts_hide_files_and_directories(mounted: Mounted) -> None:
    u = mounted.unpacker
    u.layer(Archive().directory("d").directory("d/gone").file("d/gone/f").file("d/gone2").file("d/kept"))
    u.layer(Archive().directory("d").file("d/.wh.gone").file("d/.wh.gone2"))
    assert mounted.run(lambda t: listing("d")) == "kept"


def test_opaque_directory_hides_all_below_it(mounted: Mounted) -> None:
    u = mounted.unpacker
    u.layer(Archive().directory("d").file("d/old").directory("d/sub").file("d/sub/old"))
    u.layer(Archive().directory("d").file("d/new").directory("d/sub").file("d/sub/new").file("d/.wh..wh..opq"))
    assert mounted.run(lambda t: listing("d") + ";" + listing("d/sub")) == "new sub;new"


def test_directory_added_after_its_whiteout_is_empty_below(mounted: Mounted) -> None:
    u = mounted.unpacker
    u.layer(Archive().directory("d").file("d/old"))
    u.layer(Archive().file(".wh.d").directory("d").file("d/new"))
    assert mounted.run(lambda t: listing("d")) == "new"


def test_file_becomes_directory_and_back(mounted: Mounted) -> None:
    u = mounted.unpacker
    u.layer(Archive().file("a").directory("b").file("b/f"))
    u.layer(Archive().directory("a").file("a/f", b"x").file("b", b"file"))
    assert mounted.run(lambda t: listing("a") + Path("b").read_text()) == "ffile"


def test_symlink_to_directory_in_upper_layer_replaces_directory(mounted: Mounted) -> None:
    u = mounted.unpacker
    u.layer(Archive().directory("lib").file("lib/a").directory("usr").directory("usr/lib").file("usr/lib/b"))
    u.layer(Archive().symlink("lib", "usr/lib"))
    assert mounted.run(lambda t: os.readlink("lib") + " " + listing("lib")) == "usr/lib b"


def test_hard_links_within_a_layer(mounted: Mounted) -> None:
    mounted.unpacker.layer(Archive().file("a", b"x").link("b", "a").symlink("s", "nowhere").link("t", "s"))

    def same(target: str) -> str:
        return f"{os.stat('a').st_ino == os.stat('b').st_ino} {os.stat('a').st_nlink} {os.readlink('t')}"

    assert mounted.run(same) == "True 2 nowhere"


def test_hard_link_across_layers_is_copied_up(mounted: Mounted) -> None:
    """Trap 3.11."""
    u = mounted.unpacker
    u.layer(Archive().directory("d").file("d/a", b"content", mode=0o640, uid=0, gid=0).file("hidden"))
    u.layer(Archive().file(".wh.hidden"))
    diff = u.layer(Archive().link("b", "d/a").link("c", "b"))
    assert mounted.run(lambda t: Path("b").read_text() + oct(os.stat("c").st_mode & 0o777)) == "content0o640"
    assert mounted.run(lambda t: str(os.stat("b").st_mtime)) == "1600000000.0"
    assert (diff / "b").stat().st_nlink == 2
    with pytest.raises(RootlessError, match="no layer"):
        u.layer(Archive().link("x", "hidden"))


def test_implied_directories_keep_the_attributes_of_the_layer_below(mounted: Mounted) -> None:
    u = mounted.unpacker
    u.layer(Archive().directory("tmp", mode=0o1777).directory("root", mode=0o700))
    u.layer(Archive().file("tmp/f").file("root/.wh.x"))
    assert mounted.run(
        lambda t: oct(os.stat("tmp").st_mode) + oct(os.stat("root").st_mode)
    ) == "0o410000o40700".replace("0o41000", "0o41777")


def test_attributes_survive(mounted: Mounted, has_range: bool) -> None:
    u = mounted.unpacker
    u.layer(
        Archive()
        .file("suid", b"x", mode=0o4755)
        .file("owned", b"x", uid=33, gid=34, mode=0o640)
        .directory("d", mode=0o2775, mtime=1_500_000_000)
        .file("d/f")
        .symlink("s", "target", mtime=1_400_000_000)
        .add("fifo", tarfile.FIFOTYPE)
        .file("caps", b"x", pax_headers={"SCHILY.xattr.user.note": "hello"})
    )

    def look(target: str) -> str:
        status = [os.lstat(name) for name in ("suid", "owned", "d", "s", "fifo")]
        owner = f"{status[1].st_uid}:{status[1].st_gid}" if has_range else "33:34"
        return " ".join(
            [
                oct(status[0].st_mode & 0o7777),
                owner,
                oct(status[2].st_mode & 0o7777),
                str(int(status[2].st_mtime)),
                str(int(status[3].st_mtime)),
                str(stat.S_ISFIFO(status[4].st_mode)),
            ]
        )

    assert mounted.run(look) == "0o4755 33:34 0o2775 1500000000 1400000000 True"
    assert mounted.run(lambda t: os.getxattr("caps", "user.note").decode()) == "hello"


def test_file_capabilities_survive(mounted: Mounted) -> None:
    header = {"SCHILY.xattr.security.capability": CAPABILITY.decode("latin-1")}
    archive = Archive().file("ping", b"x", mode=0o755, pax_headers=header)
    mounted.unpacker.layer(archive)
    assert mounted.run(lambda t: os.getxattr("ping", "security.capability").hex()) == CAPABILITY.hex()


def test_sparse_files_stay_sparse(mounted: Mounted, tmp_path: Path) -> None:
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.truncate(50 << 20)
        for offset in (0, 10 << 20, 30 << 20):
            file.seek(offset)
            file.write(b"data" * 1024)
    for layout in (
        ["--format=gnu"],
        ["--format=posix", "--sparse-version=1.0"],
        ["--format=posix", "--sparse-version=0.1"],
        ["--format=posix", "--sparse-version=0.0"],
    ):
        tar = subprocess.run(
            ["tar", "-C", str(tmp_path), "-S", *layout, "-cf", "-", "sparse"], check=True, capture_output=True
        ).stdout
        assert len(tar) < 1 << 20
        mounted.unpacker.chains.clear()
        mounted.unpacker.layer(tar)

        def look(target: str) -> str:
            content = Path("sparse").read_bytes()
            return f"{content == source.read_bytes()} {os.stat('sparse').st_blocks * 512 < 2 << 20}"

        assert mounted.run(look) == "True True", layout


def test_odd_names_survive(mounted: Mounted) -> None:
    names = [
        "n" * 255,
        "\udcff\udcfe latin",
        "new\nline",
        "tab\t",
        "back\\slash",
        'q"uote',
        " ",
        "ünï",
        "-dash",
        "a:b,c",
    ]
    archive = Archive()
    for name in names:
        archive.file(f"d/{name}", b"x")
    deep = "/".join(["d" * 100] * 30)
    archive.file(f"{deep}/leaf", b"deep")
    mounted.unpacker.layer(archive)
    found = mounted.run(lambda t: "\0".join(os.listdir("d")))
    assert sorted(found.split("\0")) == sorted(names)
    assert mounted.run(lambda t: Path(deep, "leaf").read_text()) == "deep"


@pytest.fixture(scope="module")
def tall() -> Iterator[Unpacker]:
    """A store with 120 layers on top of each other, which show 109 files."""
    root = make_private_directory("s")
    unpacker = Unpacker(Store(user_directories(str(root))))
    for number in range(120):
        archive = Archive().file(f"f{number}", b"%d" % number).file("last", b"%d" % number)
        if number % 10 == 9:
            archive.file(f".wh.f{number - 1}")
        unpacker.layer(archive, "application/vnd.oci.image.layer.v1.tar")
    yield unpacker
    remove_private_directory(root)


def look_from_the_top(tall: Unpacker, driver: str) -> str:
    reason = reason_against(driver, tall.store)
    require(not reason, f"driver {driver}: {reason}")
    mounted = Mounted(tall, driver)
    mounted.count = len(os.listdir(tall.store.path("containers")))  # those of the other tests lie there as well
    return mounted.run(lambda t: f"{len(os.listdir('.'))} {Path('last').read_text()}")


@pytest.mark.parametrize("driver", drivers.driver_names())
def test_120_layers(tall: Unpacker, driver: str) -> None:
    """Trap 3.12: the options are longer than a page."""
    assert look_from_the_top(tall, driver) == "109 119"


def test_changes_go_to_the_container_alone(mounted: Mounted) -> None:
    diff = mounted.unpacker.layer(
        Archive().directory("d").file("d/f", b"image").file("gone").directory("dir").file("dir/x").file("r", b"moved")
    )
    before = sorted(str(p) for p in diff.rglob("*"))

    def change(target: str) -> str:
        Path("d/f").write_text("changed")
        Path("new").write_text("new")
        os.unlink("gone")
        os.rename("r", "renamed")
        os.unlink("dir/x")
        os.rmdir("dir")
        os.mkdir("dir")
        Path("dir/y").write_text("y")
        os.link("new", "linked")
        os.chmod("d", 0o700)
        os.setxattr("new", "user.mine", b"1")
        return listing(".") + ";" + listing("dir") + ";" + Path("renamed").read_text()

    result = mounted.run(change)
    assert result == "d dir linked new renamed;y;moved"
    again = mounted.run(
        lambda t: listing(".") + ";" + listing("dir") + ";" + Path("d/f").read_text() + Path("renamed").read_text(),
        fresh=False,
    )
    assert again == "d dir linked new renamed;y;changedmoved"
    assert sorted(str(p) for p in diff.rglob("*")) == before
    assert (diff / "d/f").read_bytes() == b"image"
    assert mounted.run(lambda t: Path("d/f").read_text()) == "image"


def test_everything_written_is_there_after_the_namespace_is_gone(mounted: Mounted) -> None:
    mounted.unpacker.layer(Archive().file("f", bytes(1 << 20)))

    def write(target: str) -> str:
        import mmap

        with open("f", "r+b") as file, mmap.mmap(file.fileno(), 0) as area:
            area[:] = b"m" * (1 << 20)
        with open("big", "wb") as file:
            file.write(b"b" * (20 << 20))
        return ""

    mounted.run(write)
    upper = Path(mounted.plan.upper)
    assert (upper / "f").read_bytes() == b"m" * (1 << 20)
    assert (upper / "big").stat().st_size == 20 << 20


def test_volatile_container_can_be_mounted_again(mounted: Mounted) -> None:
    mounted.unpacker.layer(Archive().file("f"))
    mounted.run(lambda t: str(Path("new").write_text("x")), volatile=True)
    assert mounted.run(lambda t: Path("new").read_text(), fresh=False) == "x"


def test_removal_leaves_nothing(mounted: Mounted) -> None:
    """Trap 3.13: files of mapped ids, and overlayfs' work/work of mode 000."""
    from rootless.storage.files.removal import remove_tree

    mounted.unpacker.layer(Archive().directory("d").file("d/f", uid=5, gid=5))

    def change(target: str) -> str:
        os.makedirs("locked/inner")
        Path("locked/inner/f").write_text("x")
        if os.stat("d/f").st_uid == 5:
            os.chown("locked/inner", 7, 7)
        os.chmod("locked/inner", 0)
        os.chmod("locked", 0)
        return ""

    mounted.run(change)
    store = mounted.unpacker.store
    remove_tree(mounted.plan.directory, store.id_map)
    assert not os.path.exists(mounted.plan.directory)
    assert os.listdir(store.path("trash")) == []


def test_mount_of_many_layers_without_lowerdir_plus(tall: Unpacker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels before 6.7 (trap 3.12): the fallback is forced."""
    from rootless.storage.drivers import driver_overlay

    monkeypatch.setattr(driver_overlay, "overlay_fd", lambda *a, **k: None)
    assert look_from_the_top(tall, "overlay") == "109 119"


def test_choose_climbs_down_and_names_reasons(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    directory, cache = store.path("containers"), str(tmp_path)
    assert choose_driver("auto", directory, store.id_map, cache) in drivers.driver_names()
    assert choose_driver("copy", directory, store.id_map, cache) == "copy"
    with pytest.raises(UsageError, match="unknown storage driver"):
        choose_driver("zfs", directory, store.id_map, cache)

    def fail(self: drivers.Driver, directory: str, id_map: IdMap) -> Probe:
        raise HostLimit("not today")

    for name in ("overlay", "fuse-overlayfs"):
        monkeypatch.setattr(type(drivers.find_driver(name)), "probe", fail)
    assert choose_driver("auto", directory, store.id_map, str(tmp_path / "other")) == "copy"
    with pytest.raises(RootlessError, match="not today"):
        choose_driver("overlay", directory, store.id_map, str(tmp_path / "other"))


def test_a_trial_leaves_nothing(store: Store) -> None:
    directory = store.path("containers")
    for name in drivers.driver_names():
        reason_against(name, store)
    assert os.listdir(directory) == []


def test_a_repaired_newuidmap_is_seen_at_once_and_doctor_and_run_agree(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has_range: bool
) -> None:
    require(has_range and not facts.is_privileged(), "only a user with a range needs newuidmap")
    real = facts.find_helper("newuidmap")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("newgidmap", "fuse-overlayfs"):
        if path := facts.find_helper(name):
            (programs / name).symlink_to(path)
    assert real is not None
    shutil.copy(real, programs / "newuidmap")  # the copy belongs to us: its setuid bit is gone
    monkeypatch.setattr(facts, "FIXED_DIRECTORIES", ())
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    directory, cache = store.path("containers"), str(tmp_path / "cache")

    def sections() -> dict[str, doctor.Section]:
        tried = [choice.TriedDriver(driver, store.id_map, cache) for driver in drivers.all_drivers()]
        return {section.title: section for section in doctor.run_probes(directory, [], tried)}

    for _ in range(2):
        with pytest.raises(HostLimit, match="neither the setuid bit nor file capabilities") as caught:
            choose_driver("auto", directory, store.id_map, cache)
    assert caught.value.hint is not None
    assert "chmod u+s" in caught.value.hint
    found = sections()
    assert not found["user namespaces and ids"].is_usable
    assert "cannot be written" in found["user namespaces and ids"].verdict
    assert not found["image layers"].is_usable
    (programs / "newuidmap").unlink()
    (programs / "newuidmap").symlink_to(real)
    assert choose_driver("auto", directory, store.id_map, cache) in drivers.driver_names()
    assert all(section.is_usable for section in sections().values())
