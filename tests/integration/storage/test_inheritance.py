"""What the files of the store would inherit from the directory that it lies in, or from one of the image: nothing."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootless.host import userns
from rootless.host.idmap import default_map
from rootless.host.subid import subordinate_ids
from rootless.paths import user_directories
from rootless.storage.layers.layer_store import LayerOptions
from rootless.storage.store.store import Store
from tests.conftest import Runner, make_private_directory, make_runner, owns_range, remove_private_directory, require

from .conftest import Archive, Mounted, Unpacker, reason_against

DEFAULT = "system.posix_acl_default"
ACCESS = "system.posix_acl_access"


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An access control list as the kernel has it: (tag, permissions, id) each."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


RANGE = owns_range()  # asked here: inside of a namespace the answer is another
NOBODY = 0xFFFFFFFF
OPEN = acl((1, 7, NOBODY), (2, 7, 0), (4, 7, NOBODY), (0x10, 7, NOBODY), (0x20, 5, NOBODY))


def inside(function: Callable[[], object]) -> object:
    ids = subordinate_ids() if RANGE else None
    return json.loads(
        userns.call_in_new_namespace(
            default_map(ids, os.getuid(), os.getgid()), lambda: json.dumps(function()).encode()
        )
    )


def make_place(kind: str, path: Path) -> None:
    """Give a directory what a project directory may have, so that it passes on its group, or who else may write."""
    if kind == "set-gid":

        def share() -> None:
            os.chown(path, 0, 7 if RANGE else 0)
            path.chmod(0o2775)

        inside(share)
        return
    try:
        os.setxattr(path, DEFAULT, acl((1, 7, NOBODY), (2, 7, os.getuid()), *_REST))
    except OSError as e:
        if e.errno != errno.ENOTSUP:
            raise
        require(False, "this file system has no access control lists")


_REST = ((4, 7, NOBODY), (0x10, 7, NOBODY), (0x20, 5, NOBODY))


@pytest.fixture(params=["set-gid", "default ACL", "umask"])
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory in which new files inherit, or the umask takes more than usual."""
    base = make_private_directory("i")
    before = os.umask(0o077 if request.param == "umask" else 0o022)
    try:
        if request.param != "umask":
            make_place(request.param, base)
        yield base
    finally:
        os.umask(before)
        remove_private_directory(base)


def look(top: str) -> dict[str, list[object]]:
    """(mode, uid, gid, access control lists) of everything below `top`, itself as "."."""
    seen = {}
    for directory, names, files in os.walk(top):
        for name in (".", *names, *files) if directory == top else (*names, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            acls = [] if stat.S_ISLNK(status.st_mode) else [n for n in os.listxattr(path) if "posix_acl" in n]
            ids = [status.st_uid, status.st_gid] if RANGE else [0, 0]
            mode = 0 if stat.S_ISLNK(status.st_mode) else stat.S_IMODE(status.st_mode)
            seen[os.path.relpath(path, top)] = [oct(mode), *ids, sorted(acls)]
    return seen


def of_shared() -> Archive:
    """A layer with a set-gid directory whose files have other groups than it."""
    group = {"uid": 5, "gid": 6} if RANGE else {}
    return (
        Archive()
        .directory("q", mode=0o2775, **group)
        .file("q/f", b"x", mode=0o640)
        .directory("q/sub", mode=0o755)
        .file("q/deep/g", b"x", mode=0o600)
        .symlink("q/l", "f")
        .add("q/p", tarfile.FIFOTYPE, mode=0o666)
    )


SHARED = {
    ".": ["0o755", 0, 0, []],
    "q": ["0o2775", 5, 6, []],
    "q/f": ["0o640", 0, 0, []],
    "q/sub": ["0o755", 0, 0, []],
    "q/deep": ["0o755", 0, 0, []],
    "q/deep/g": ["0o600", 0, 0, []],
    "q/l": ["0o0", 0, 0, []],
    "q/p": ["0o666", 0, 0, []],
}


def expected() -> dict[str, list[object]]:
    return SHARED if RANGE else {path: [mode, 0, 0, acls] for path, (mode, _, _, acls) in SHARED.items()}


def test_layer_is_what_its_archive_says_wherever_the_store_lies(place: Path) -> None:
    unpacker = Unpacker(Store(user_directories(str(place / "store"))))
    diff = unpacker.layer(of_shared())
    assert inside(lambda: look(str(diff))) == expected()


def test_files_in_a_directory_with_a_default_acl_have_what_the_archive_says(store: Store) -> None:
    unpacker = Unpacker(store)
    listed = {f"SCHILY.xattr.{DEFAULT}": OPEN.decode("utf-8", "surrogateescape")}
    probe = Path(store.path("incoming", "probe"))
    probe.mkdir()
    make_place("default ACL", probe)
    archive = Archive().directory("q", mode=0o755, pax_headers=listed).file("q/f", b"x", mode=0o640)
    archive.directory("q/sub").link("q/h", "q/f").add("q/p", tarfile.FIFOTYPE, mode=0o644)
    diff = unpacker.layer(archive)
    seen = inside(lambda: look(str(diff)))
    assert isinstance(seen, dict)
    assert {path: (facts[0], facts[3]) for path, facts in seen.items()} == {
        ".": ("0o755", []),
        "q": ("0o755", [DEFAULT]),
        "q/f": ("0o640", []),
        "q/h": ("0o640", []),
        "q/sub": ("0o755", []),
        "q/p": ("0o644", []),
    }
    # a link to a file of the layer below is copied up into the directory, which has its list by then
    above = unpacker.layer(Archive().directory("q", mode=0o755, pax_headers=listed).link("q/up", "q/f"))
    seen = inside(lambda: look(str(above)))
    assert isinstance(seen, dict)
    assert seen["q/up"][0::3] == ["0o640", []] and seen["q"][0::3] == ["0o755", [DEFAULT]]


def test_a_second_entry_of_a_directory_leaves_nothing_of_the_first(store: Store) -> None:
    listed = {f"SCHILY.xattr.{ACCESS}": OPEN.decode("utf-8", "surrogateescape"), "SCHILY.xattr.user.one": "1"}
    diff = Unpacker(store).layer(
        Archive().directory("q", mode=0o2775, pax_headers=listed).directory("q", mode=0o750).file("q/f", b"")
    )
    assert stat.S_IMODE(os.stat(f"{diff}/q").st_mode) == 0o750
    assert [name for name in os.listxattr(f"{diff}/q") if name.startswith(("user.one", "system."))] == []


def test_a_list_that_says_no_more_than_the_mode_is_no_damage(store: Store) -> None:
    """The kernel keeps no such list; the check of each unpacked layer (`Unpacker.layer`) must not miss it."""
    minimal = acl((1, 6, NOBODY), (4, 4, NOBODY), (0x20, 4, NOBODY)).decode("utf-8", "surrogateescape")
    Unpacker(store).layer(Archive().file("f", b"x", mode=0o644, pax_headers={f"SCHILY.xattr.{ACCESS}": minimal}))


def test_trees_that_are_copied_inherit_nothing_from_what_lower_layers_say(mounted: Mounted) -> None:
    """Layers on one another, as each driver shows them: the copy driver makes files in directories of lower layers."""
    unpacker = mounted.unpacker
    unpacker.layer(of_shared())
    unpacker.layer(Archive().file("q/new", b"x", mode=0o644).directory("q/sub/inner", mode=0o700))

    def tree(target: str) -> str:
        return json.dumps(look(target))

    seen = json.loads(mounted.run(tree))
    new = {"q/new": ["0o644", 0, 0, []], "q/sub/inner": ["0o700", 0, 0, []]}
    assert seen == {**expected(), **new}

    def change(target: str) -> str:
        os.umask(0o022)
        os.mkdir("q/made")  # as the kernel has it: the group of its directory, and the set-gid bit
        Path("q/made/f").write_text("x")
        os.chown("q/made/f", 0, 0)
        return ""

    mounted.run(change)
    layers = unpacker.store.layers
    chain = layers.commit(mounted.plan, unpacker.store.id_map, LayerOptions(move=False))
    assert chain is not None
    diff = f"{layers.path(chain)}/diff"
    committed = inside(lambda: look(diff))
    assert isinstance(committed, dict)
    if mounted.driver != "fuse-overlayfs":  # which passes nothing on
        assert committed["q/made"] == ["0o2755", 0, 6 if RANGE else 0, []]
    assert committed["q/made/f"] == ["0o644", 0, 0, []]


DOCKERFILE = """FROM base
COPY f /plain/f
COPY f d /shared/
ADD inner.tar /shared/
RUN ["/bin/busybox", "mkdir", "-p", "/a/b"]
VOLUME /shared
ENTRYPOINT ["/bin/busybox"]
"""


def make_context(context: Path) -> None:
    """A build's context, whose files have the modes that they usually have, and an image `base` to build on."""
    (context / "d").mkdir(parents=True)
    (context / "f").write_text("f")
    (context / "d" / "g").write_text("g")
    for path, mode in (("f", 0o644), ("d", 0o755), ("d/g", 0o600)):
        (context / path).chmod(mode)
    (context / "Dockerfile").write_text(DOCKERFILE)
    with tarfile.open(context / "base.tar", mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(os.path.realpath("/bin/busybox"), "bin/busybox")
        shared = tarfile.TarInfo("shared")
        shared.type, shared.mode = tarfile.DIRTYPE, 0o2775
        shared.uid, shared.gid = (5, 6) if RANGE else (0, 0)
        shared.pax_headers = {f"SCHILY.xattr.{DEFAULT}": OPEN.decode("utf-8", "surrogateescape")}
        tar.addfile(shared)
    with tarfile.open(context / "inner.tar", mode="w") as tar:
        for name, kind in (("sub", tarfile.DIRTYPE), ("implied/file", tarfile.REGTYPE), ("pipe", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o755 if kind == tarfile.DIRTYPE else 0o600
            tar.addfile(member)


def members_of(saved: Path) -> dict[str, tuple[str, int, int, list[str]]]:
    """(mode, uid, gid, access control lists) of all members of a saved image's layers."""
    members = {}
    with tarfile.open(saved) as archive:
        for name in json.loads(archive.extractfile("manifest.json").read())[0]["Layers"]:
            with tarfile.open(fileobj=io.BytesIO(archive.extractfile(name).read())) as tar:
                for member in tar:
                    acls = [key for key in member.pax_headers if "posix_acl" in key]
                    members[member.name] = (oct(member.mode), member.uid, member.gid, acls)
    return members


def test_what_is_built_run_and_kept_inherits_nothing() -> None:
    """The whole of it in the worst place: set-gid, with a default access control list, under a narrow umask."""
    require(Path("/bin/busybox").exists(), "no /bin/busybox on this host (apt-get install busybox-static)")
    base = make_private_directory("i")
    before = os.umask(0o077)
    try:
        make_context(base / "context")
        make_place("set-gid", base)
        make_place("default ACL", base)
        store = base / "store"
        rootless: Runner = make_runner(store)
        rootless("image", "import", str(base / "context/base.tar"), "base")
        rootless("build", "-t", "one", str(base / "context"))
        rootless("save", "-o", str(base / "one.tar"), "one")
        members = members_of(base / "one.tar")
        assert members["plain"] == members["a/b"] == ("0o755", 0, 0, [])
        assert members["plain/f"] == members["shared/f"] == ("0o644", 0, 0, [])
        assert members["shared/g"] == members["shared/implied/file"] == ("0o600", 0, 0, [])
        assert members["shared/sub"] == members["shared/implied"] == ("0o755", 0, 0, [])
        assert members["shared/pipe"][1:] == (0, 0, [])
        rootless("system", "check")
        rootless("volume", "create", "v")
        rootless("create", "--name", "c", "-v", "w:/shared", "one", "stat", "-c", "%a %u %g", "/")
        assert rootless("start", "-a", "c").stdout == "755 0 0\n"
        [container] = (store / "containers").iterdir()
        private = [store, *store.iterdir(), *(store / "layers").iterdir(), container]
        private += [store / "volumes/v", store / "volumes/w"]
        for path in filter(Path.is_dir, private):
            status = path.stat()
            assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o700, os.getgid()), path
        for path in (*container.iterdir(), store / "volumes/v/_data"):
            if path.is_dir():
                assert stat.S_IMODE(path.stat().st_mode) & 0o2000 == 0 and path.stat().st_gid == os.getgid()
                assert [name for name in os.listxattr(path) if "posix_acl" in name] == []
        assert stat.S_IMODE((store / "volumes/v/_data").stat().st_mode) == 0o755
    finally:
        os.umask(before)
        remove_private_directory(base)


@pytest.mark.parametrize("driver", ["overlay", "copy"])
def test_driver_works_in_such_a_place_where_it_does_elsewhere(place: Path, store: Store, driver: str) -> None:
    elsewhere = reason_against(driver, store)
    require(not elsewhere, f"driver {driver}: {elsewhere}")
    assert reason_against(driver, Store(user_directories(str(place / "store")))) == ""
