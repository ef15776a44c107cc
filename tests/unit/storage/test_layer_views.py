"""Views of layers: what overlayfs needs in them, and what reads them without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rootless.records.id_map import Extent, IdMap
from rootless.storage.files.layer_views import METACOPY, REDIRECT, SolidCopier, ViewCopier, open_content
from rootless.storage.files.tree_copy import PATH_DIRECTORY, copy_tree
from tests.conftest import require


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    top = tmp_path / "layers/one/diff"
    (top / "a/b").mkdir(parents=True)
    (top / "a/b/file").write_text("content")
    (top / "a/empty").touch()
    (top / "link").symlink_to("a")
    os.link(top / "a/b/file", top / "z")
    try:
        os.setxattr(top, "user.test", b"1")
    except OSError as e:
        require(False, f"no user.* attributes on this file system: {e}")
    return top


def make_view(layer: Path, target: Path) -> Path:
    target.mkdir()
    source, made = os.open(layer, PATH_DIRECTORY), os.open(target, PATH_DIRECTORY)
    copier = ViewCopier("/one/diff", owner=lambda uid, gid: (uid, gid), capability_root=0)
    copy_tree(source, made, copier, str(target))
    os.close(source)
    os.close(made)
    return target


def test_a_view_says_where_the_content_is(layer: Path, tmp_path: Path) -> None:
    view = make_view(layer, tmp_path / "view")
    file = view / "a/b/file"
    assert file.stat().st_size == len("content") and file.stat().st_blocks * 512 < 8192
    assert file.stat().st_mtime_ns == (layer / "a/b/file").stat().st_mtime_ns
    assert file.stat().st_ino == (view / "z").stat().st_ino
    where = os.getxattr(file, REDIRECT).decode()
    assert where in ("/one/diff/a/b/file", "/one/diff/z") and os.getxattr(file, METACOPY) == b""
    assert not set(os.listxattr(view / "a/empty")) & {REDIRECT, METACOPY}
    assert os.readlink(view / "link") == "a" and os.getxattr(view, "user.test") == b"1"


def test_the_content_is_found_without_a_mount(layer: Path, tmp_path: Path) -> None:
    view = make_view(layer, tmp_path / "view")
    for path, data in (
        (view / "z", str(tmp_path / "layers")),
        (layer / "z", str(tmp_path / "layers")),
        (layer / "z", ""),
    ):
        file = os.open(path, os.O_RDONLY)
        content = open_content(file, data)
        assert os.read(content, 100) == b"content"
        os.close(content)
        os.close(file)
    (tmp_path / "solid").mkdir()
    source, made = os.open(view, PATH_DIRECTORY), os.open(tmp_path / "solid", PATH_DIRECTORY)
    copy_tree(source, made, SolidCopier(str(tmp_path / "layers")), str(tmp_path / "solid"))
    os.close(source)
    os.close(made)
    assert (tmp_path / "solid/a/b/file").read_text() == "content"
    assert not set(os.listxattr(tmp_path / "solid/a/b/file")) & {REDIRECT, METACOPY}


def test_reset_knows_the_directory_of_views(tmp_path: Path) -> None:
    from rootless.storage.layers.layer_store import Layers
    from rootless.storage.store.store import is_own_name

    layers = Layers(str(tmp_path), lambda: IdMap([], [], "range"))
    (tmp_path / "layers").mkdir()
    (tmp_path / f"layers/{'a' * 64}").mkdir()
    other = IdMap([Extent(0, 1, 5)], [], "range")
    path = layers.planned_view([f"sha256:{'a' * 64}"], other)
    assert is_own_name(path.removeprefix(f"{tmp_path}/").partition("/")[0])
    assert layers.copies() == []
    os.makedirs(path)
    assert layers.copies() == [os.path.dirname(path)]


def test_a_path_that_no_attribute_can_hold_is_copied(
    layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    real = os.setxattr

    def refuse(file: int, name: str, value: bytes) -> None:
        if name == REDIRECT:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, name, value)

    monkeypatch.setattr(os, "setxattr", refuse)
    view = make_view(layer, tmp_path / "view")
    assert (view / "a/b/file").read_text() == "content"
    assert not set(os.listxattr(view / "a/b/file")) & {REDIRECT, METACOPY}


def test_a_path_that_the_kernel_would_not_look_up_is_copied(layer: Path, tmp_path: Path) -> None:
    """With the directory of the store before it, it would be longer than PATH_MAX, and the file unreadable."""
    deep = "/".join(["d" * 200] * 15)
    (layer / deep).mkdir(parents=True)
    (layer / deep / "file").write_text("deep")
    view = make_view(layer, tmp_path / "view")
    assert (view / deep / "file").read_text() == "deep"
    assert not set(os.listxattr(view / deep / "file")) & {REDIRECT, METACOPY}
