"""kernel.files: paths that stay in their root, with openat2 and (forced) without."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.kernel import files
from tests.conftest import require


@pytest.fixture(params=["openat2", "fallback"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs twice; the second time openat2 says ENOSYS."""
    monkeypatch.setenv("ROOTLESS_NO_OPENAT2", "1" if request.param == "fallback" else "0")
    return str(request.param)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    base = tmp_path / "root"
    (base / "etc").mkdir(parents=True)
    (base / "etc/passwd").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    (base / "absolute").symlink_to("/etc/passwd")
    (base / "dots").symlink_to("../../../../etc")
    (base / "out").symlink_to("../secret")
    (base / "loop").symlink_to("loop")
    (base / "chain").symlink_to("dots/../absolute")
    (base / "dangling").symlink_to("/made/up/../there")
    fd = os.open(base, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def content(rootfd: int, path: str) -> str:
    with open(files.open_in_root(rootfd, path, os.O_RDONLY)) as f:
        return f.read()


@pytest.mark.parametrize("path", ["etc/passwd", "/etc/passwd", "absolute", "dots/passwd", "../../etc/passwd", "chain"])
def test_stays_in_root(root: int, path: str) -> None:
    """CVE-2021-30465: links and dots mean the same as in a chroot."""
    assert content(root, path) == "inside"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("out", errno.ENOENT),
        ("../secret", errno.ENOENT),
        ("loop", errno.ELOOP),
        ("etc/passwd/x", errno.ENOTDIR),
        ("etc/passwd/", errno.ENOTDIR),
        ("nothing", errno.ENOENT),
        ("nothing/..", errno.ENOENT),
    ],
)
def test_refusals(root: int, path: str, code: int) -> None:
    with pytest.raises(OSError) as caught:
        files.open_in_root(root, path, os.O_RDONLY)
    assert caught.value.errno == code
    assert caught.value.filename == path


def test_root_itself(root: int) -> None:
    for path in ("", "/", ".", "..", "etc/.."):
        fd = files.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
        assert os.path.samestat(os.fstat(fd), os.fstat(root))
        assert not os.get_inheritable(fd)
        os.close(fd)


def test_last_link_with_nofollow(root: int) -> None:
    fd = files.open_in_root(root, "absolute", os.O_PATH | os.O_NOFOLLOW)
    assert os.readlink("", dir_fd=fd) == "/etc/passwd"
    os.close(fd)
    with pytest.raises(OSError) as caught:
        files.open_in_root(root, "absolute", os.O_RDONLY | os.O_NOFOLLOW)
    assert caught.value.errno == errno.ELOOP


def test_create(root: int, tmp_path: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    os.close(files.open_in_root(root, "dots/new", flags, 0o640))
    assert (tmp_path / "root/etc/new").stat().st_mode & 0o777 == 0o640
    with pytest.raises(FileExistsError):
        files.open_in_root(root, "etc/new", flags, 0o640)


def test_magic_links_are_refused() -> None:
    """CVE-2024-21626: /proc/self/fd/N of a chrooted view must not lead to whatever fd N is."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError) as caught:
            files.open_in_root(root, f"proc/{os.getpid()}/root/etc", os.O_PATH)
        assert caught.value.errno == errno.ELOOP
    finally:
        os.close(root)


def test_mkdirs(root: int, tmp_path: Path) -> None:
    fd = files.mkdirs_in_root(root, "/a/b/../c", 0o755)
    assert os.readlink(f"/proc/self/fd/{fd}") == f"{tmp_path}/root/a/c"
    os.close(fd)
    os.close(files.mkdirs_in_root(root, "a/c", 0o755))


def test_mkdirs_makes_the_target_of_a_dangling_link_inside(root: int, tmp_path: Path) -> None:
    """CVE-2024-45310: nothing is created outside, and a dangling link is one in the root."""
    fd = files.mkdirs_in_root(root, "dangling/deep", 0o755)
    assert os.readlink(f"/proc/self/fd/{fd}") == f"{tmp_path}/root/made/there/deep"
    os.close(fd)
    assert sorted(os.listdir(tmp_path)) == ["root", "secret"]


def test_a_file_is_made_at_the_target_of_a_dangling_link_inside(root: int, tmp_path: Path) -> None:
    """CVE-2024-45310: also where the link is the last name of the path, and leads up and out of the root."""
    inside = tmp_path / "root"
    (inside / "last").symlink_to("../../deep/er/file")
    os.close(files.make_file_in_root(root, "last", 0o640, 0o750))
    assert stat.S_IMODE((inside / "deep/er/file").stat().st_mode) == 0o640
    assert stat.S_IMODE((inside / "deep/er").stat().st_mode) == 0o750
    assert sorted(os.listdir(tmp_path)) == ["root", "secret"]
    (inside / "deep/er/file").write_text("kept")
    os.close(files.make_file_in_root(root, "last", 0o640, 0o750))
    assert (inside / "deep/er/file").read_text() == "kept"


@pytest.mark.parametrize(("path", "code"), [("etc/passwd", errno.ENOTDIR), ("etc/passwd/x", errno.ENOTDIR)])
def test_mkdirs_over_a_file(root: int, path: str, code: int) -> None:
    with pytest.raises(OSError) as caught:
        files.mkdirs_in_root(root, path, 0o755)
    assert caught.value.errno == code


def test_no_fd_is_lost(root: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in ("etc/passwd", "loop", "nothing/x", "dots/../dots/passwd", "out"):
        try:
            os.close(files.open_in_root(root, path, os.O_RDONLY))
        except OSError:
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_swapping_links_never_lead_out(root: int, tmp_path: Path) -> None:
    """CVE-2021-30465: a directory that changes into a link to the outside and back, while it is resolved."""
    base = tmp_path / "root"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("outside")
    (base / "real").mkdir()
    (base / "real/passwd").write_text("inside")
    (base / "link").symlink_to("../../etc")
    stop = threading.Event()

    def swap() -> None:
        fd = os.open(base, os.O_PATH)
        while not stop.is_set():
            files.renameat2(fd, "real", fd, "link", files.RENAME_EXCHANGE)
        os.close(fd)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(300):
            try:
                assert content(root, "real/passwd") == "inside"
            except OSError as e:
                assert e.errno in (errno.ELOOP, errno.ENOENT, errno.ENOTDIR)
    finally:
        stop.set()
        thread.join()


def test_renameat2(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    fd = os.open(tmp_path, os.O_PATH)
    try:
        with pytest.raises(FileExistsError):
            files.renameat2(fd, "a", fd, "b", files.RENAME_NOREPLACE)
        files.renameat2(fd, "a", fd, "b", files.RENAME_EXCHANGE)
        assert (tmp_path / "a").read_text() == "b"
    finally:
        os.close(fd)


def test_clone_or_not(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 4096)
    with open(tmp_path / "a", "rb") as source, open(tmp_path / "b", "wb") as copy:
        if files.clone_file(source.fileno(), copy.fileno()):
            assert (tmp_path / "b").read_bytes() == b"x" * 4096
        else:
            assert (tmp_path / "b").read_bytes() == b""
        with pytest.raises(OSError):
            files.clone_file(source.fileno(), 999)


def test_xattrs_of_a_name_in_a_directory(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    fd = os.open(tmp_path, os.O_PATH)
    try:
        os.setxattr(tmp_path / "f", "user.test", b"value")
        assert files.lgetxattr(fd, "f", "user.test") == b"value"
    except OSError as e:
        if e.errno == errno.EOPNOTSUPP:
            require(False, "no user.* attributes on this file system")
        raise
    finally:
        os.close(fd)


def test_link_beneath_follows_no_link_on_the_way(root: int, tmp_path: Path) -> None:
    files.link_beneath(root, "etc/passwd", root, "again")
    files.link_beneath(root, "again", root, "third")
    assert (tmp_path / "root/third").samefile(tmp_path / "root/etc/passwd")
    (tmp_path / "root/there").symlink_to(tmp_path)
    for path, code in (("there/secret", (errno.ELOOP, errno.ENOTDIR)), ("../secret", (errno.EXDEV,))):
        with pytest.raises(OSError) as found:
            files.link_beneath(root, path, root, "stolen")
        assert found.value.errno in code
    assert (tmp_path / "secret").stat().st_nlink == 1


def test_chmod_special_changes_only_what_was_made(root: int, tmp_path: Path) -> None:
    os.mkfifo("pipe", 0o600, dir_fd=root)
    files.chmod_special(root, "pipe", stat.S_IFIFO | 0o2751)
    assert (tmp_path / "root/pipe").stat().st_mode == stat.S_IFIFO | 0o2751
    (tmp_path / "root/pipe").unlink()
    (tmp_path / "root/pipe").symlink_to(tmp_path / "secret")
    before = (tmp_path / "secret").stat().st_mode
    files.chmod_special(root, "pipe", stat.S_IFIFO | 0o777)
    assert (tmp_path / "secret").stat().st_mode == before
    with pytest.raises(OSError, match="taken its place"):
        files.open_special(root, "pipe", stat.S_IFIFO)
