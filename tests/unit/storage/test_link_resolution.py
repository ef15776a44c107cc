"""Links of a tree lead where the kernel leads them, whoever tells what they are: a dictionary, a tree, a union."""

from __future__ import annotations

import errno
import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.errors import InvalidInput
from rootless.kernel.files import open_in_root
from rootless.storage.changes.lowers import Lowers, resolve_in_union
from rootless.storage.files.link_resolution import MAX_LINKS, resolve_links
from rootless.storage.layers.expected import Expected
from rootless.storage.layers.replaced import real_path
from rootless.storage.tar.inflate import Inflated

NAMES = ("a", "b", "c")
PARTS = st.sampled_from([*NAMES, ".", "..", ""])
TARGETS = st.builds(
    lambda root, parts: root + "/".join(parts) or ".", st.sampled_from(["", "/"]), st.lists(PARTS, max_size=5)
)
# What lies at a path of at most two names: a directory (None), or a link
TREES = st.dictionaries(
    st.tuples(st.sampled_from(NAMES)) | st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.none() | TARGETS,
    max_size=9,
)
LINKS = st.dictionaries(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join), TARGETS)
PATHS = st.lists(PARTS, max_size=6).map("/".join)


def make(root: Path, tree: dict[tuple[str, ...], str | None]) -> dict[bytes, bytes]:
    """Make the tree, parents first; its links."""
    links = {}
    for names in sorted(tree, key=len):
        target, path = tree[names], root.joinpath(*names)
        if any(parent.is_symlink() for parent in (path, *path.parents) if parent != root):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if target is None:
            path.mkdir(exist_ok=True)
        elif not path.exists():
            path.symlink_to(target)
            links["/".join(names).encode()] = target.encode()
    return links


def by_kernel(root: Path, path: str) -> str | None:
    """Where the kernel finds the path, None where it does not; ELOOP is raised."""
    top = os.open(root, os.O_PATH)
    try:
        fd = open_in_root(top, f"/{path}", os.O_PATH)
    except OSError as e:
        if e.errno == errno.ELOOP:
            raise
        return None
    finally:
        os.close(top)
    try:
        return os.readlink(f"/proc/self/fd/{fd}").removeprefix(str(root)).strip("/")
    finally:
        os.close(fd)


def on_disk(root: Path, path: str) -> str:
    top = os.open(root, os.O_PATH)
    try:
        return os.fsdecode(real_path(top, os.fsencode(f"{path}/x"))).removesuffix("x").rstrip("/")
    finally:
        os.close(top)


@settings(max_examples=150, deadline=None)
@given(tree=TREES, path=PATHS)
def test_it_finds_what_the_kernel_finds(tree: dict[tuple[str, ...], str | None], path: str) -> None:
    with tempfile.TemporaryDirectory() as made:
        root = Path(made).resolve()
        links = make(root, tree)
        try:
            expected = by_kernel(root, path)
        except OSError:
            with pytest.raises(OSError, match="Too many levels"):
                resolve_links(path.encode(), links.get)
            return
        if expected is None:
            return
        assert resolve_links(path.encode(), links.get).decode() == expected
        assert on_disk(root, path) == expected
        assert resolve_in_union(Lowers([str(root)], by_name=True), path) == expected


@given(
    tree=st.dictionaries(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join), TARGETS), path=PATHS
)
def test_what_it_finds_is_below_the_root_and_free_of_links(tree: dict[str, str], path: str) -> None:
    links = {name.encode(): target.encode() for name, target in tree.items()}
    asked = 0

    def read_link(here: bytes) -> bytes | None:
        nonlocal asked
        asked += 1
        return links.get(here)

    try:
        found = resolve_links(path.encode(), read_link)
    except OSError as e:
        assert e.errno == errno.ELOOP
        found = b""
    names = found.split(b"/") if found else []
    assert not {b"", b".", b".."} & set(names)
    assert all(b"/".join(names[: length + 1]) not in links for length in range(len(names)))
    assert asked <= len(path) + MAX_LINKS * max(map(len, links.values()), default=0) + MAX_LINKS


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("absolute/x", "d/x"),
        ("d/absolute/x", "d/x"),
        ("../../d", "d"),
        ("out/x", "x"),
        ("d/out/x", "x"),
        ("missing/../d", "d"),
        ("d/./up", ""),
        ("", ""),
    ],
)
def test_absolute_links_and_dots_stay_inside(path: str, found: str) -> None:
    links = {b"absolute": b"/d", b"d/absolute": b"/d", b"out": b"../..", b"d/out": b"../../..", b"d/up": b".."}
    assert resolve_links(path.encode(), links.get).decode() == found


def test_a_chain_has_forty_links_at_most() -> None:
    links = {b"%d" % number: b"%d" % (number + 1) for number in range(50)}
    assert resolve_links(b"10", links.get) == b"50"
    with pytest.raises(OSError) as raised:
        resolve_links(b"9", links.get)
    assert raised.value.errno == errno.ELOOP


def test_links_that_double_end_soon() -> None:
    with pytest.raises(OSError, match=r"Too many|too long"):
        resolve_links(b"l", {b"l": b"l/l"}.get)
    long = b"/".join([b"n" * 200] * 20)
    with pytest.raises(OSError, match="too long"):
        resolve_links(b"l/l", {b"l": long, long + b"/l": long}.get)


def test_a_mount_target_in_a_loop_stays_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert resolve_in_union(Lowers([str(tmp_path)], by_name=False), "/loop/x") == "loop/x"


def test_the_topmost_layer_says_what_a_name_is(tmp_path: Path) -> None:
    for layer in ("top", "bottom"):
        (tmp_path / layer).mkdir()
    (tmp_path / "top/l").symlink_to("/new")
    (tmp_path / "bottom/l").symlink_to("/old")
    (tmp_path / "bottom/gone").symlink_to("/old")
    (tmp_path / "top/.wh.gone").touch()
    union = Lowers([str(tmp_path / "top"), str(tmp_path / "bottom")], by_name=True)
    assert [resolve_in_union(union, path) for path in ("l/x", "gone/x")] == ["new/x", "gone/x"]


def archive_of(links: dict[str, str], name: str) -> Callable[[int], Iterator[bytes]]:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for path, target in links.items():
            member = tarfile.TarInfo(path)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
        tar.addfile(tarfile.TarInfo(name))
    return lambda fd: iter([stream.getvalue()])


def test_an_archive_through_its_own_links() -> None:
    expected = Expected()
    expected.read(Inflated(-1, archive_of({"l": "/d", "d/m": "../../e"}, "l/m/f")))
    assert b"e/f" in expected.entries


def test_an_archive_through_a_loop_is_refused() -> None:
    with pytest.raises(InvalidInput, match="leads nowhere"):
        Expected().read(Inflated(-1, archive_of({"l": "l"}, "l/f")))
