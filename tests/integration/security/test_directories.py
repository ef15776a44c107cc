"""Another user of the host who comes first: in /tmp, by the umask, by a link. His means here: ids of our own range."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootless import errors
from rootless.engine.container import attach_client
from rootless.host import idmap, subid, userns
from tests.conftest import (
    Runner,
    make_private_directory,
    make_runner,
    oci_command_path,
    remove_private_directory,
    require,
)

SOMEBODY = 7  # in the namespace of our range: an id that is not ours on the host


def as_somebody(function: Callable[[], None]) -> None:
    """Run `function` as another user of the host, in a child."""

    def inside() -> bytes:
        os.setresgid(SOMEBODY, SOMEBODY, SOMEBODY)
        os.setresuid(SOMEBODY, SOMEBODY, SOMEBODY)
        os.umask(0)
        function()
        return b""

    userns.call_in_new_namespace(idmap.default_map(subid.subordinate_ids(), os.getuid(), os.getgid()), inside)


def as_root_of_range(function: Callable[[], None]) -> None:
    def inside() -> bytes:
        function()
        return b""

    userns.call_in_new_namespace(idmap.default_map(subid.subordinate_ids(), os.getuid(), os.getgid()), inside)


@pytest.fixture
def shared_name(has_range: bool) -> Iterator[Path]:
    """The name of our runtime directory in /tmp, which nobody has taken yet."""
    require(has_range, "this user owns no range of subordinate ids to be somebody else with")
    name = Path(f"/tmp/rootless-{os.geteuid()}")
    require(not os.path.lexists(name), f"{name} exists")
    yield name
    if name.is_symlink():
        as_root_of_range(name.unlink)
    elif name.is_dir():
        as_root_of_range(lambda: subprocess.run(["rm", "-rf", name], check=True) and None)


@pytest.fixture
def at_home(shared_name: Path) -> Iterator[tuple[Runner, Path]]:
    """A runner without XDG_RUNTIME_DIR and --root, and its home."""
    require(Path("/bin/busybox").exists(), "no /bin/busybox on this host (apt-get install busybox-static)")
    home = make_private_directory("h")
    environment = {"HOME": str(home), "XDG_RUNTIME_DIR": "/nonexistent"}
    run = make_runner(home)

    def without_root(*arguments: str, **how: object) -> subprocess.CompletedProcess[str]:
        return run("--root", "", *arguments, env={**environment, "ROOTLESS_ROOT": ""}, **how)

    yield without_root, home
    names = without_root("ps", "-aq", check=False).stdout.split()
    if names:
        without_root("rm", "-f", *names, check=False)
    remove_private_directory(home)


def runtime_directory(run: Runner) -> str:
    return run("info", "--format", "{{.RuntimeDir}}").stdout.strip()


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o700])
def test_a_runtime_directory_of_somebody_else_is_not_used(
    at_home: tuple[Runner, Path], shared_name: Path, mode: int
) -> None:
    run, home = at_home
    as_somebody(lambda: os.mkdir(shared_name, mode))
    run("image", "bootstrap", "busybox")
    assert runtime_directory(run) == f"{home}/.local/share/rootless/run"
    run("run", "-d", "--name", "a", "busybox", "sleep", "100")
    assert run("exec", "a", "echo", "works").stdout == "works\n"
    assert len(list((home / ".local/share/rootless/run/containers").iterdir())) == 1
    if mode & 0o055:
        assert list(shared_name.iterdir()) == []
    run("rm", "-f", "a")


def test_a_link_of_somebody_else_leads_nobody_to_his_place(at_home: tuple[Runner, Path], shared_name: Path) -> None:
    run, home = at_home
    mine = home / "mine"
    (mine / "containers").mkdir(parents=True)
    (mine / "letter").write_text("dear")
    as_somebody(lambda: shared_name.symlink_to(mine))
    assert runtime_directory(run) == f"{home}/.local/share/rootless/run"
    run("image", "bootstrap", "busybox")
    assert run("run", "--rm", "busybox", "echo", "works").stdout == "works\n"
    assert list((mine / "containers").iterdir()) == []
    run("system", "reset", "--force")
    assert (mine / "letter").read_text() == "dear"


def test_what_an_earlier_start_recorded_is_not_trusted_either(at_home: tuple[Runner, Path], shared_name: Path) -> None:
    """A container that was started when the name in /tmp was still ours, and is started again when it is not."""
    run, home = at_home
    run("image", "bootstrap", "busybox")
    assert runtime_directory(run) == str(shared_name)
    run("run", "-d", "--name", "a", "busybox", "sleep", "100")
    assert (
        stat.S_IMODE(shared_name.stat().st_mode) == stat.S_IMODE((shared_name / "containers").stat().st_mode) == 0o700
    )
    run("stop", "-t", "0", "a")
    subprocess.run(["rm", "-r", str(shared_name)], check=True)
    as_somebody(lambda: (shared_name / "containers").mkdir(parents=True))
    run("start", "a")
    assert [path.suffix for path in (home / ".local/share/rootless/run/containers").iterdir()] == [".sock"]
    assert list((shared_name / "containers").iterdir()) == []


@pytest.mark.parametrize("part", ["cache", "run"])
def test_reset_removes_nothing_behind_a_link(store_root: Path, tmp_path: Path, part: str) -> None:
    (tmp_path / "letter").write_text("dear")
    run = make_runner(store_root / "store")
    run("images")
    (store_root / "store" / part).symlink_to(tmp_path)
    told = run("system", "reset", "--force")
    assert (tmp_path / "letter").read_text() == "dear"
    assert f"'{store_root}/store/{part}' is a link" in told.stderr


def listening_socket(path: Path, who: Callable[[Callable[[], None]], None]) -> socket.socket:
    """A socket on which another user listens; we hold a copy of it, so that it stays when he has ended."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def listen() -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(4)
        socket.send_fds(theirs, [b"+"], [listener.fileno()])

    with ours, theirs:
        who(listen)
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    return socket.socket(fileno=fds[0])


def test_a_monitor_of_somebody_else_gets_no_byte(has_range: bool) -> None:
    require(has_range, "this user owns no range of subordinate ids to be somebody else with")
    place = make_private_directory("p")
    try:
        place.chmod(0o711)
        place.parent.chmod(place.parent.stat().st_mode | 0o011)
        (place / "containers").mkdir()
        (place / "containers").chmod(0o777)
        path = place / "containers/x.sock"
        with listening_socket(path, in_place(place / "containers")) as listener:
            got = []

            def spoof() -> None:
                connection, _ = listener.accept()
                with connection:
                    got.append(connection.recv(100))

            spoofing = threading.Thread(target=spoof)
            spoofing.start()
            with pytest.raises(errors.InvalidState, match="belongs to another user"):
                attach_client.attach(str(path), attach_client.StreamOptions())
            spoofing.join()
            assert got == [b""]
    finally:
        remove_private_directory(place)


def in_place(directory: Path) -> Callable[[Callable[[], None]], None]:
    """As somebody who cannot walk to `directory` by its path: he is in it already."""

    def run(function: Callable[[], None]) -> None:
        here = os.open(directory, os.O_PATH | os.O_DIRECTORY)

        def inside() -> None:
            os.fchdir(here)
            function()

        as_somebody(inside)
        os.close(here)

    return run


def test_the_oci_runtime_believes_no_records_of_somebody_else(has_range: bool, tmp_path: Path) -> None:
    """They would say which process is signalled, which hooks run as us, and what is removed."""
    require(has_range, "this user owns no range of subordinate ids to be somebody else with")
    root = tmp_path / "oci"
    tmp_path.chmod(0o777)
    os.chdir(tmp_path)
    as_somebody(lambda: Path("oci/victim").mkdir(parents=True))
    as_somebody(lambda: Path("oci/victim/state.json").write_text('{"pid": 0}') and None)
    for verb in (["list"], ["state", "victim"], ["kill", "victim", "KILL"], ["delete", "--force", "victim"]):
        done = subprocess.run([*oci_command_path(), "--root", str(root), *verb], capture_output=True, text=True)
        assert (done.returncode, "is not private to you" in done.stderr) == (1, True), done
    as_root_of_range(lambda: subprocess.run(["rm", "-r", "oci"], check=True) and None)


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
@pytest.mark.parametrize("first", ["doctor", "images"])
def test_a_fresh_store_is_private_whatever_the_umask(store_root: Path, umask: int, first: str) -> None:
    root = store_root / "new" / "store"
    run = make_runner(root)
    old = os.umask(umask)
    try:
        run(first, check=False)
        run("images")
        if Path("/bin/busybox").exists():
            run("image", "bootstrap", "busybox")
            run("run", "-v", "v:/v", "busybox", "touch", "/v/x")
    finally:
        os.umask(old)
    assert _modes(store_root / "new", depth=2) == {0o700}


def _modes(directory: Path, depth: int) -> set[int]:
    """The modes of `directory` and the directories below it."""
    found = {stat.S_IMODE(directory.stat().st_mode)}
    if depth:
        for inner in directory.iterdir():
            if inner.is_dir():
                found |= _modes(inner, depth - 1)
    return found


@pytest.mark.parametrize("mode", [0o755, 0o775, 0o2775])
def test_a_store_that_an_earlier_version_made_is_closed(rootless: Runner, store_root: Path, mode: int) -> None:
    rootless("images")
    for name in ("cache/seccomp", "run"):
        (store_root / name).mkdir(parents=True, exist_ok=True)
    wide = [store_root, store_root / "cache"]
    for path in wide:
        path.chmod(mode)
    rootless("images")
    assert [stat.S_IMODE(path.stat().st_mode) for path in wide] == [0o700, 0o700]


def test_a_store_among_other_things_is_refused_while_others_can_write_it(rootless: Runner, store_root: Path) -> None:
    (store_root / "letters").mkdir()
    store_root.chmod(0o775)
    told = rootless("images", check=False)
    assert told.returncode == 1 and "is not private to you" in told.stderr
    store_root.chmod(0o755)
    rootless("images")
    assert stat.S_IMODE(store_root.stat().st_mode) == 0o755


def test_settings_that_others_could_write_are_closed(store_root: Path) -> None:
    """They name programs that are run as the caller."""
    config = store_root / "config/rootless"
    config.mkdir(parents=True)
    (config / "config.toml").write_text('network = "none"\n')
    config.chmod(0o775)
    run = make_runner(store_root / "store")
    assert run("info", "--format", "{{.Network}}", env={"XDG_CONFIG_HOME": str(config.parent)}).stdout == "none\n"
    assert stat.S_IMODE(config.stat().st_mode) == 0o700
