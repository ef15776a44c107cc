"""The user's directories are those that platformdirs names; files that are replaced whole."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from platformdirs.unix import Unix

from rootless import paths
from rootless.errors import HostLimit
from rootless.paths import atomic_write, close_to_others, ensure_private, make_private, user_directories
from tests.conftest import require

VARIABLES = ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
values = st.none() | st.lists(st.sampled_from(["/", "a", ".", "..", "~", "é b", "$HOME"]), max_size=6).map("".join)


@given(st.fixed_dictionaries(dict.fromkeys(VARIABLES, values)))
@example(dict.fromkeys(VARIABLES))
@example({**dict.fromkeys(VARIABLES), "HOME": "/home/a"})
@example({**dict.fromkeys(VARIABLES), "HOME": "/"})
@example({**dict.fromkeys(VARIABLES, "/x"), "HOME": "relative"})
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_they_are_those_of_platformdirs(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str | None]) -> None:
    with monkeypatch.context() as patch:
        patch.delenv("ROOTLESS_ROOT", raising=False)
        for name, value in environment.items():
            if value is None:
                patch.delenv(name, raising=False)
            else:
                patch.setenv(name, value)
        theirs = Unix("rootless", appauthor=False)
        ours = user_directories()
        assert (ours.data, ours.cache, ours.config) == (
            theirs.user_data_dir,
            theirs.user_cache_dir,
            theirs.user_config_dir,
        )


def test_a_bare_name_is_replaced_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file is beside it, not in "/", which an ordinary user cannot write and which has other disks."""
    monkeypatch.chdir(tmp_path)
    opened: list[str] = []
    real = os.open

    def note(path: str, *arguments: int) -> int:
        opened.append(path)
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", note)
    atomic_write("here", b"content")
    assert opened == [f".here.{os.getpid()}.tmp", "."]  # the directory to be synced
    assert (tmp_path / "here").read_bytes() == b"content"
    assert [entry.name for entry in tmp_path.iterdir()] == ["here"]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(params=[0, 0o002, 0o022, 0o077, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    old = os.umask(request.param)
    yield request.param
    os.umask(old)


def test_what_is_made_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    ensure_private(str(tmp_path / "a" / "b" / "c"))
    assert [mode(tmp_path / name) for name in ("a", "a/b", "a/b/c")] == [0o700] * 3


def test_what_is_made_is_private_below_a_set_gid_directory(tmp_path: Path) -> None:
    parent = tmp_path / "project"
    parent.mkdir()
    others = [group for group in os.getgroups() if group != os.getegid()]
    if others:
        os.chown(parent, -1, others[0])
    parent.chmod(0o2775)
    assert parent.stat().st_mode & stat.S_ISGID
    make_private(str(parent / "a" / "b"))
    assert [mode(parent / name) for name in ("a", "a/b")] == [0o700] * 2
    (parent / "a/b/file").touch()
    assert {(parent / name).stat().st_gid for name in ("a", "a/b", "a/b/file")} == {os.getegid()}
    assert mode(parent) == 0o2775


def test_what_is_made_has_no_default_acl(tmp_path: Path) -> None:
    def entry(tag: int, permissions: int, id: int = 0xFFFFFFFF) -> bytes:
        return struct.pack("<HHI", tag, permissions, id)  # linux/posix_acl_xattr.h

    # user::rwx, user:4242:rwx, group::r-x, mask::rwx, other::r-x
    entries = (entry(1, 7), entry(2, 7, 4242), entry(4, 5), entry(16, 7), entry(32, 5))
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", struct.pack("<I", 2) + b"".join(entries))
    except OSError as e:
        require(False, f"no default ACL on this file system: {e.strerror}")
    (tmp_path / "plain").mkdir(0o700)
    assert "system.posix_acl_default" in os.listxattr(tmp_path / "plain")
    make_private(str(tmp_path / "a" / "b"))
    assert [mode(tmp_path / name) for name in ("a", "a/b")] == [0o700] * 2
    assert [os.listxattr(tmp_path / name).count("system.posix_acl_default") for name in ("a", "a/b")] == [0, 0]
    (tmp_path / "a/b/file").touch()
    assert os.listxattr(tmp_path / "a/b/file") == []


@pytest.mark.parametrize("wide", [0o755, 0o775, 0o2775, 0o777])
def test_a_directory_that_an_earlier_version_made_is_closed(tmp_path: Path, wide: int) -> None:
    for number, close in enumerate((ensure_private, close_to_others)):
        ours = tmp_path / str(number)
        ours.mkdir()
        (ours / "names").mkdir()
        ours.chmod(wide)
        close(str(ours))
        assert mode(ours) == 0o700


def test_a_directory_with_other_things_keeps_its_mode_or_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "letters").mkdir()
    ensure_private(str(tmp_path), is_own=lambda name: name == "names")
    assert mode(tmp_path) == 0o755
    tmp_path.chmod(0o775)
    with pytest.raises(HostLimit, match="not private to you"):
        ensure_private(str(tmp_path), is_own=lambda name: name == "names")
    assert mode(tmp_path) == 0o775
    (tmp_path / "letters").rmdir()
    (tmp_path / "names").mkdir()
    ensure_private(str(tmp_path), is_own=lambda name: name == "names")
    assert mode(tmp_path) == 0o700


def test_links_and_files_are_no_directories_of_ours(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(0o755)
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "file").touch()
    for name in ("link", "dangling", "file"):
        with pytest.raises(HostLimit, match="not private to you"):
            ensure_private(str(tmp_path / name))
    assert mode(target) == 0o755
    assert not (tmp_path / "nothing").exists()
    close_to_others(str(tmp_path / "link"))  # a cache that its owner has moved to another disk
    assert mode(target) == 0o700
    close_to_others(str(tmp_path / "dangling"))
    close_to_others(str(tmp_path / "absent"))


def test_the_runtime_directory_is_ours_or_has_another_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ROOTLESS_ROOT", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/a/data")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert user_directories().runtime == f"{tmp_path}/rootless"
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("link", "absent"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / name))
        assert paths.runtime_base() is None
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setattr(paths, "SHARED", str(shared))
    name = shared / f"rootless-{os.geteuid()}"
    assert user_directories().runtime == str(name)
    name.mkdir(0o755)
    assert user_directories().runtime == str(name)
    name.chmod(0o777)
    assert user_directories().runtime == "/home/a/data/rootless/run"
    name.rmdir()
    name.symlink_to(tmp_path)
    assert user_directories().runtime == "/home/a/data/rootless/run"
    assert user_directories("/store").runtime == "/store/run"
