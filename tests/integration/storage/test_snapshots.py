"""What a container changes becomes a layer that shows the same tree again, whatever the driver and the id map."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import stat
import struct
import tarfile
from pathlib import Path

import pytest

from rootless.errors import InvalidInput
from rootless.host import idmap, subid
from rootless.storage import drivers
from rootless.storage.layers import worker_client
from rootless.storage.layers.jobs import Changed, ChangesJob
from rootless.storage.layers.layer_store import LayerOptions
from rootless.storage.owners import overrides
from rootless.storage.store.store import Store
from tests.conftest import require
from tests.tree_compare import describe, differences

from .conftest import PLAIN, Archive, Mounted, Unpacker, reason_against

CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)
MOUNTED = ("/etc/resolv.conf", "/proc", "/var/run/secret/mount", "/made/by/runtime")
_ACL_USER, _ACL_GROUP = 2, 8


def lower(u: Unpacker) -> None:
    """Two layers with everything that a change can meet."""
    u.layer(
        Archive()
        .directory("bin").file("bin/tool", b"tool", mode=0o4755).file("bin/gone", b"x")
        .file("bin/one", b"1").link("bin/two", "bin/one")
        .directory("etc").file("etc/config", b"old").file("etc/kept", b"kept")
        .directory("deep").directory("deep/er").file("deep/er/low", b"low").directory("deep/er/est")
        .file("deep/er/est/f", b"f").directory("whole").file("whole/a", b"a").directory("whole/sub")
        .file("whole/sub/b", b"b").file("becomes-directory", b"x").directory("becomes-file")
        .file("becomes-file/x", b"x").symlink("link", "etc").directory("run").directory("var")
        .symlink("var/run", "../run").file("chmod", b"c").file("renamed", b"moved").directory("untouched")
        .file("untouched/f", b"u").directory("tmp", mode=0o1777)
    )  # fmt: skip
    u.layer(Archive().directory("etc").file("etc/second", b"2").file("deep/er/.wh.low").file("deep/er/low2", b"2"))


def change(target: str) -> str:
    """Every kind of change, with fixed times."""
    os.umask(0o022)
    Path("new").write_bytes(b"new" * 1000)
    os.link("new", "linked")
    os.link("linked", "etc/linked too")
    Path("etc/config").write_bytes(b"changed")
    os.unlink("bin/gone")
    os.unlink("etc/second")
    os.rename("renamed", "moved here")
    os.chmod("chmod", 0o600)
    # An opaque directory: its files come from this container only, also in a directory that a lower layer has
    for path in ("whole/a", "whole/sub/b"):
        os.unlink(path)
    os.rmdir("whole/sub")
    os.rmdir("whole")
    os.makedirs("whole/sub")
    Path("whole/c").write_bytes(b"c")
    Path("whole/sub/d").write_bytes(b"d")
    os.unlink("becomes-directory")
    os.mkdir("becomes-directory")
    Path("becomes-directory/x").write_bytes(b"x")
    os.unlink("becomes-file/x")
    os.rmdir("becomes-file")
    Path("becomes-file").write_bytes(b"file")
    os.unlink("link")
    os.symlink("n" * 300, "link")
    os.link("link", "link2", follow_symlinks=False)
    os.mkfifo("pipe", 0o640)
    os.link("pipe", "pipe2")
    Path("empty").touch()
    os.makedirs("d/" + "/".join(["x" * 60] * 5))
    Path("d/" + "/".join(["x" * 60] * 5), "leaf").write_bytes(b"leaf")
    for name in ("\udcff\udcfe latin", "new\nline", "tab\t", "back\\slash", "ünï", "n" * 200, " "):
        Path("d", name).write_bytes(name.encode("utf-8", "surrogateescape"))
    with open("sparse", "wb") as file:
        file.write(b"start")
        file.truncate(50 << 20)
        file.seek(20 << 20)
        file.write(b"middle" * 1000)
    Path("attributes").write_bytes(b"x")
    os.setxattr("attributes", "user.note", b"line\n\xff\0end")
    os.setxattr("attributes", "security.capability", CAPABILITY)
    os.setxattr("etc", "user.directory", b"1")
    try:
        os.chown("bin/tool", 33, 44)
        os.chmod("bin/tool", 0o6755)
        os.chown("link", 5, 6, follow_symlinks=False)
        os.chown("whole", 7, 8)
        os.chown("pipe", 9, 10)
        acl = struct.pack("<IHHIHHIHHIHHIHHI", 2, 1, 6, 2**32 - 1, _ACL_USER, 7, 33, 4, 4, 2**32 - 1, 16, 7, 2**32 - 1,
                          32, 4, 2**32 - 1)  # fmt: skip
        os.setxattr("attributes", "system.posix_acl_access", acl)
    except OSError:
        pass  # with one id nobody else can own a file
    settle(target)
    return ""


def settle(target: str) -> None:
    """Times that differ from file to file and have a fraction."""
    count = 0
    for parent, names, files in os.walk(".", topdown=False):
        for name in [*sorted(files), *sorted(names)]:
            path = os.path.join(parent, name)
            if os.lstat(path).st_mtime > 1_650_000_000:
                count += 1
                when = 1_610_000_000_123_456_789 + count * 1_000_000_007
                os.utime(path, ns=(when, when), follow_symlinks=False)
    os.utime("d/ünï", ns=(-1_500_000_000, -1_500_000_000))


def commit(mounted: Mounted, *, move: bool = False, timestamp: int | None = None) -> str:
    store = mounted.unpacker.store
    chain_id = store.layers.commit(mounted.plan, store.id_map, LayerOptions(move=move, timestamp=timestamp))
    assert chain_id is not None
    return chain_id


def seen(mounted: Mounted, *, fresh: bool) -> dict[str, dict[str, object]]:
    """The tree as a container sees it; without the top's own time, which no layer has."""
    text = mounted.run(lambda t: json.dumps(describe(".")), fresh=fresh)
    tree: dict[str, dict[str, object]] = json.loads(text)
    tree["."]["mtime"] = 0
    return tree


def tar_of(store: Store, chain_id: str) -> bytes:
    """The layer's tar, made again from its recipe."""
    rebuilt = worker_client.Rebuilt([store.layers.path(chain_id)], store.id_map)
    try:
        return b"".join(iter(lambda: rebuilt.read(1 << 20), b""))
    finally:
        rebuilt.close()


@pytest.mark.parametrize("move", [False, True])
def test_every_odd_file_comes_back(mounted: Mounted, move: bool, tmp_path: Path) -> None:
    u = mounted.unpacker
    lower(u)
    mounted.run(change)
    before = seen(mounted, fresh=False)
    chain_id = commit(mounted, move=move)
    assert os.path.exists(mounted.plan.upper) == (not move or mounted.driver == "copy")
    below = list(u.chains)
    u.chains.append(chain_id)
    assert differences(before, seen(mounted, fresh=True)) == []

    # the archive is the tree: its digest is right, and unpacking it elsewhere gives the same
    content = u.store.layers.record(chain_id).content
    tar = tar_of(u.store, chain_id)
    assert "sha256:" + hashlib.sha256(tar).hexdigest() == content.diff_id
    assert len(tar) == content.tar_size < 2 << 20
    u.store.layers.remove(chain_id)
    u.chains[:] = below
    u.layer(tar, PLAIN)
    assert u.chains[-1] == chain_id
    assert differences(before, seen(mounted, fresh=True)) == []


def test_drivers_agree_on_the_bytes(unpacker: Unpacker) -> None:
    """One change, one digest: caches and registries see the same layer, and nothing in it depends on the driver."""
    lower(unpacker)
    store = unpacker.store
    made = {}
    for name in drivers.driver_names():
        reason = reason_against(name, store)
        require(not reason, f"driver {name}: {reason}")
        mounted = Mounted(unpacker, name)
        mounted.count = drivers.driver_names().index(name) * 100
        mounted.run(change)
        chain_id = commit(mounted, timestamp=1_600_000_500)
        made[name] = tar_of(store, chain_id)
        store.layers.remove(chain_id)
    names = {name: [m.name for m in tarfile.open(fileobj=io.BytesIO(tar))] for name, tar in made.items()}
    assert names["overlay"] == names["fuse-overlayfs"] == names["copy"]
    assert made["overlay"] == made["fuse-overlayfs"] == made["copy"]


def test_tar_is_canonical(mounted: Mounted) -> None:
    lower(mounted.unpacker)
    mounted.run(change)
    chain_id = commit(mounted, timestamp=1_605_000_000)
    members = list(tarfile.open(fileobj=io.BytesIO(tar_of(mounted.unpacker.store, chain_id))))
    names = [member.name for member in members]
    assert len(names) == len(set(names)), "no path twice (image-spec)"
    for position, name in enumerate(names):
        parent = name.rpartition("/")[0]
        assert not parent or parent in names[:position], "parents stand before what is in them"
    assert {"bin/.wh.gone", "etc/.wh.second", ".wh.renamed", "whole/.wh.a", "whole/sub/.wh.b"} <= set(names)
    assert "untouched" not in names
    assert "deep" not in names
    assert not [name for name in names if name.endswith(".wh..wh..opq")], "whiteouts are explicit"
    siblings = [name for name in names if name.startswith("etc/")]
    assert siblings[0] == "etc/.wh.second", "whiteouts stand before their siblings"
    assert max(member.mtime for member in members) <= 1_605_000_000
    assert all(not member.uname and not member.gname for member in members)


def test_nothing_changed_is_no_layer(mounted: Mounted) -> None:
    u = mounted.unpacker
    lower(u)

    def look(target: str) -> str:
        Path("etc/kept").read_bytes()
        for path in MOUNTED:  # as the runtime makes mount targets
            inside = os.path.realpath(path.lstrip("/"))
            os.makedirs(os.path.dirname(inside), mode=0o755, exist_ok=True)
            Path(inside).touch() if path.endswith(".conf") else os.makedirs(inside, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("tmp/socket")
        return ""

    os.umask(0o022)
    mounted.run(look)
    store = u.store
    job = ChangesJob(Changed(mounted.plan, store.id_map, MOUNTED))
    found = worker_client.run_job(job, store.id_map).changes
    # a socket came, which no layer can hold, and the directory's time tells (with fuse-overlayfs it tells too little)
    assert found == ([] if mounted.driver == "fuse-overlayfs" else [("C", "/tmp")])
    assert not [name for name in os.listdir(store.path("layers")) if name.startswith(".")]


def test_copied_up_for_nothing_is_no_change(mounted: Mounted) -> None:
    """`chown -R` to the owner they have: a layer with copies of all files would be the whole image again."""
    lower(mounted.unpacker)

    def touch(target: str) -> str:
        os.chmod("untouched/f", 0o755)
        os.chmod("untouched/f", 0o644)
        os.chown("bin/tool", 0, 0)
        os.chmod("bin/tool", 0o4755)
        Path("etc/kept").write_bytes(b"KEPT")  # same size, same time
        os.utime("etc/kept", ns=(1_600_000_000 * 10**9, 1_600_000_000 * 10**9))
        return ""

    mounted.run(touch)
    chain_id = commit(mounted)
    names = [member.name for member in tarfile.open(fileobj=io.BytesIO(tar_of(mounted.unpacker.store, chain_id)))]
    assert names == ["etc", "etc/kept"]


def test_mount_targets_stay_out_of_the_layer(mounted: Mounted) -> None:
    u = mounted.unpacker
    lower(u)

    def run(target: str) -> str:
        os.umask(0o022)
        Path("etc/resolv.conf").touch()
        os.makedirs("run/secret/mount")
        os.makedirs("made/by/runtime")
        os.mkdir("proc")
        Path("made/mine").write_bytes(b"1")
        Path("etc/kept").write_bytes(b"written")
        return ""

    mounted.run(run)
    store = u.store
    chain_id = store.layers.commit(mounted.plan, store.id_map, LayerOptions(exclude=MOUNTED, move=True))
    assert chain_id is not None
    u.chains.append(chain_id)
    names = [member.name for member in tarfile.open(fileobj=io.BytesIO(tar_of(store, chain_id)))]
    assert names == ["etc", "etc/kept", "made", "made/mine"]
    assert mounted.run(lambda t: " ".join(sorted(os.listdir("made")) + sorted(os.listdir("run")))) == "mine"
    assert not os.path.exists(f"{store.layers.path(chain_id)}/diff/run")


def test_file_with_the_name_of_a_whiteout_deletes_nothing(mounted: Mounted) -> None:
    """TRAPS 1.3, whiteouts: a container cannot plant them in an image made of it."""
    u = mounted.unpacker
    lower(u)

    def plant(target: str) -> str:
        Path("a").write_text("x")
        try:
            Path("etc/.wh.kept").write_text("x")
        except OSError:
            return "refused"
        return ""

    # fuse-overlayfs has a use for such names itself, and refuses them
    assert mounted.run(plant) == ("refused" if mounted.driver == "fuse-overlayfs" else "")
    chain_id = commit(mounted)
    names = [member.name for member in tarfile.open(fileobj=io.BytesIO(tar_of(u.store, chain_id)))]
    assert "etc/.wh.kept" not in names
    u.chains.append(chain_id)
    assert mounted.run(lambda t: Path("etc/kept").read_text()) == "kept"


def test_default_acl_is_not_inherited_by_what_is_there(unpacker: Unpacker) -> None:
    lower(unpacker)
    mounted = Mounted(unpacker, "copy")
    acl = struct.pack("<IHHIHHIHHIHHI", 2, 1, 7, 2**32 - 1, 4, 5, 2**32 - 1, 16, 5, 2**32 - 1, 32, 4, 2**32 - 1)

    def make(target: str) -> str:
        os.makedirs("d/sub", mode=0o755)
        Path("d/f").write_bytes(b"x")
        os.chmod("d/f", 0o640)
        os.setxattr("d", "system.posix_acl_default", acl)
        return ""

    mounted.run(make)
    diff = unpacker.store.layers.path(commit(mounted)) + "/diff/d"
    assert os.listxattr(diff) == ["system.posix_acl_default"]
    assert os.listxattr(f"{diff}/sub") == os.listxattr(f"{diff}/f") == []
    assert stat.S_IMODE(os.stat(f"{diff}/f").st_mode) == 0o640


def test_too_deep_a_tree_is_refused(mounted: Mounted) -> None:
    lower(mounted.unpacker)

    def deep(target: str) -> str:
        for _ in range(600):
            os.mkdir("d")
            os.chdir("d")
        return ""

    mounted.run(deep)
    with pytest.raises(InvalidInput, match="more than 512"):
        commit(mounted)
    assert not [n for n in os.listdir(mounted.unpacker.store.path("layers")) if n.startswith(".")]


def test_links_planted_in_the_writable_directory_are_not_followed(mounted: Mounted, tmp_path: Path) -> None:
    """CVE-2018-15664: the directory belongs to whoever ran in the container."""
    lower(mounted.unpacker)
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("of the host")
    mounted.run(lambda t: str(os.symlink(secret, "evil")) + str(os.symlink("/etc/passwd", "etc/evil")))
    chain_id = commit(mounted)
    members = {m.name: m for m in tarfile.open(fileobj=io.BytesIO(tar_of(mounted.unpacker.store, chain_id)))}
    assert members["evil"].issym()
    assert members["etc/evil"].issym()
    assert not [name for name in members if name.startswith("evil/")]


def test_owners_are_those_inside_with_another_map(unpacker: Unpacker, has_range: bool) -> None:
    """keep-id: the ids on disk are others, those in the layer the container's."""
    require(has_range, "only a user who has a range can have another map")
    lower(unpacker)
    store = unpacker.store
    keep = idmap.keep_id_map(subid.subordinate_ids(), os.getuid(), os.getgid(), 1000, 1000)
    directory = store.path("containers", "f" * 64)
    os.mkdir(directory)
    lowerdirs = store.layers.lowerdirs(unpacker.chains, keep)
    plan = drivers.plan_root("overlay", directory, lowerdirs)
    drivers.prepare_root(plan, keep)
    os.mkdir(f"{directory}/rootfs")

    from rootless.host import userns

    def inside() -> bytes:
        drivers.mount_root(plan, f"{directory}/rootfs")
        os.chdir(f"{directory}/rootfs")
        for name, owner in (("root", 0), ("me", 1000), ("other", 33)):
            Path(name).write_text(name)
            os.chown(name, owner, owner)
        os.setxattr("me", "security.capability", CAPABILITY)
        os.chmod("etc/kept", 0o600)
        return b""

    userns.call_in_new_namespace(keep, inside)
    for move in (False, True):
        chain_id = store.layers.commit(plan, keep, LayerOptions(move=move))
        assert chain_id is not None
        members = {m.name: m for m in tarfile.open(fileobj=io.BytesIO(tar_of(store, chain_id)))}
        owners = {name: (member.uid, member.gid) for name, member in members.items()}
        assert owners["root"] == owners["etc/kept"] == owners["etc"] == (0, 0)
        assert owners["me"] == (1000, 1000)
        assert owners["other"] == (33, 33)
        raw = members["me"].pax_headers["SCHILY.xattr.security.capability"]
        assert raw.encode("utf-8", "surrogateescape") == CAPABILITY
        # the tree has the owners of the default map
        diff = store.layers.path(chain_id) + "/diff"
        assert unpacker.inside(lambda d=diff: os.stat(f"{d}/me").st_uid) == 1000  # type: ignore[misc]
        if not move:
            store.layers.remove(chain_id)


def test_noted_owners_are_those_of_the_layer(unpacker: Unpacker, has_range: bool) -> None:
    """Root emulation: what chown and mknod asked for is in the archive, the note itself is not."""
    lower(unpacker)
    store = unpacker.store
    mounted = Mounted(unpacker, "copy")

    def emulate(target: str) -> str:
        for name, note in (
            ("owned", overrides.Override(33, 34, 0o4711, stat.S_IFREG)),
            ("device", overrides.Override(0, 6, 0o660, stat.S_IFCHR, (1, 3))),
        ):
            fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
            os.fchmod(fd, overrides.on_disk(note.mode, note.format))
            overrides.write_override(fd, note)
            os.close(fd)
        os.symlink("x", "sym")
        return ""

    mounted.run(emulate)
    table = os.path.dirname(mounted.plan.upper)
    with open(overrides.append_to(table), "wb") as file:
        inode = os.lstat(f"{mounted.plan.upper}/sym").st_ino
        file.write(overrides.table_line(inode, overrides.Override(12, 13, 0o777, stat.S_IFLNK), b"x"))
    chain_id = commit(mounted)
    members = {m.name: m for m in tarfile.open(fileobj=io.BytesIO(tar_of(store, chain_id)))}
    assert (members["owned"].uid, members["owned"].gid, members["owned"].mode) == (33, 34, 0o4711)
    device = members["device"]
    assert (device.type, device.devmajor, device.devminor, device.gid) == (tarfile.CHRTYPE, 1, 3, 6)
    assert (members["sym"].uid, members["sym"].gid) == (12, 13)
    assert not [m for m in members.values() if any("override" in key for key in m.pax_headers)]
    # The tree keeps the notes that its owners cannot tell, so that they survive the next commit
    diff = store.layers.path(chain_id) + "/diff"
    noted = overrides.read_override(f"{diff}/device")
    assert noted is not None
    assert noted.is_device
    look = unpacker.inside(lambda: [os.stat(f"{diff}/owned").st_uid, str(overrides.read_override(f"{diff}/owned"))])
    assert look == ([33, "None"] if has_range else [0, "Override(33:34:4711:file)"])
    above = overrides.open_table(store.layers.path(chain_id)).find(b"sym", os.lstat(f"{diff}/sym"), b"x")
    assert above is not None
    assert (above.uid, above.gid) == (12, 13)
