"""runtime.process.launch and runtime.process.join as the monitor uses them: with a root, volumes, a reaper."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rootless.errors import CommandNotFound, InvalidState, RuntimeFailure
from rootless.host.idmap import keep_id_map, nomap_map
from rootless.host.subid import default_id_map, subordinate_ids
from rootless.kernel import mounts, process, procfs
from rootless.kernel.namespaces import OpenNetwork
from rootless.network.helper import spawn_helper
from rootless.records.properties import Properties
from rootless.runtime.operations.base import Operation
from rootless.runtime.operations.seed import SeedVolume
from rootless.runtime.process.command import ProcessOptions, ProcessStreams, SeccompFilters
from rootless.runtime.process.join import Joining, exec_process
from rootless.runtime.process.launch import Launch, UserIds, create
from rootless.runtime.process.running import Process
from rootless.runtime.spec.oci_config import OciConfig
from rootless.runtime.spec.oci_state import Bundle as OciBundle
from rootless.runtime.spec.process_config import OciProcess
from tests.conftest import owns_range, require
from tests.integration.runtime.bundle import Bundle


def having(**attributes: object) -> Callable[[Launch], None]:
    """The change of a launch that gives these attributes another value."""

    def change(launch: Launch) -> None:
        for name, value in attributes.items():
            setattr(launch, name, value)

    return change


def launch_of(bundle: Bundle) -> Launch:
    """A launch of the bundle with the user's default id map."""
    return Launch(OciBundle(OciConfig.from_json(bundle.config), str(bundle.path)), UserIds(default_id_map()))


class Container:
    """A launch with its output in a pipe. change: what the launch has beside that."""

    def __init__(self, bundle: Bundle, script: str, change: Callable[[Launch], object] | None = None) -> None:
        bundle.config["process"]["args"] = ["sh", "-c", script]
        self.reader, writer = os.pipe()
        null = os.open("/dev/null", os.O_RDWR)
        self.warnings: list[str] = []
        launch = launch_of(bundle)
        launch.streams = ProcessStreams((null, writer, writer))
        launch.warn = self.warnings.append
        # a test that fails leaves nothing behind the test run
        launch.options = ProcessOptions(die_with_parent=True)
        if change is not None:
            change(launch)
        try:
            self.process: Process = create(launch)
        except BaseException:
            os.close(self.reader)
            raise
        finally:
            os.close(writer)
            os.close(null)

    def finish(self) -> tuple[int, str]:
        """Exit status and output."""
        if self.process._channel is not None:
            self.process.start()
        with open(self.reader) as file:
            text = file.read()
        status = self.process.wait()
        self.process.close()
        return status, text


def test_create_waits_at_the_gate(bundle: Bundle) -> None:
    container = Container(bundle, "echo ran; exit 4")
    os.set_blocking(container.reader, False)
    with pytest.raises(BlockingIOError):
        os.read(container.reader, 10)
    assert container.process.userns_fd is not None
    os.set_blocking(container.reader, True)
    assert container.finish() == (4, "ran\n")


def test_errors_leave_no_child(bundle: Bundle) -> None:
    before = procfs.child_pids(os.getpid())
    bundle.config["process"]["args"] = ["nope"]
    with pytest.raises(CommandNotFound):
        create(launch_of(bundle))
    fds = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(RuntimeFailure):
            Container(bundle, "true", having(extra=[Failing()]))
    assert procfs.child_pids(os.getpid()) == before
    assert len(os.listdir("/proc/self/fd")) == fds


class Failing(Operation):
    """An operation that fails as the kernel would."""

    def describe(self) -> str:
        return "make it fail on '/x'"

    def apply(self, context: object) -> None:
        raise PermissionError(1, "Operation not permitted")


def test_error_names_the_step(bundle: Bundle) -> None:
    with pytest.raises(RuntimeFailure, match="cannot make it fail on '/x': Operation not permitted"):
        Container(bundle, "true", having(extra=[Failing()]))


def test_a_killed_first_process_is_reported(bundle: Bundle) -> None:
    container = Container(bundle, "true")
    os.kill(container.process.pid, signal.SIGKILL)
    with pytest.raises(RuntimeFailure):
        container.process.start()
    os.close(container.reader)


def test_mounted_root_and_callbacks(bundle: Bundle, tmp_path: Path) -> None:
    """The engine's overlay: mounted inside but not in the pid namespace; the helper finds our namespaces."""
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    seen: list[tuple[str, bool]] = []
    lower = bundle.root.rename(bundle.path / "lower")
    (bundle.path / "rootfs").mkdir()

    def overlay(target: str) -> None:
        data = f"lowerdir={lower},upperdir={upper},workdir={work},userxattr"
        mounts.mount("overlay", target, "overlay", 0, data)

    def network(opened: OpenNetwork) -> None:
        own = os.stat("/proc/self/ns/net").st_ino
        seen.append(("net", os.fstat(opened.network).st_ino != own))

    try:
        container = Container(bundle, "echo new > /file", having(root_mount=overlay, on_namespaces=network))
    except RuntimeFailure as e:
        require("overlay" not in str(e) and "root file system" not in str(e), f"no overlay for users here: {e}")
        raise
    assert container.finish()[0] == 0
    assert (upper / "file").read_text() == "new\n" and seen == [("net", True)]
    assert not (lower / "file").exists()


def _with_keep_id() -> UserIds:
    return UserIds(keep_id_map(subordinate_ids(), os.geteuid(), os.getegid(), 1000, 1000))


def _without_own_ids() -> UserIds:
    return UserIds(nomap_map(subordinate_ids(), os.geteuid(), os.getegid()), default_id_map())


@pytest.mark.parametrize("ids", [_with_keep_id, _without_own_ids, None], ids=["keep-id", "nomap", "join"])
def test_network_of_a_process_that_changes_its_ids(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, ids: Callable[[], UserIds] | None
) -> None:
    """The helper reaches the namespaces while the first child has other ids and is not dumpable yet (ptrace(2)).

    The child is held in just that moment, until the helper has said where it is. ids: None joins the user namespace of
    a container with keep-id.
    """
    require(owns_range(), "with one id nothing is changed")
    other = Container(bundle, "true", having(ids=_with_keep_id())) if ids is None else None
    if other is not None:
        for namespace in bundle.config["linux"]["namespaces"]:
            if namespace["type"] == "user":
                namespace["path"] = f"/proc/self/fd/{other.process.userns_fd}"
    told, tell = os.pipe()
    go_on, let_go = os.pipe()
    really = process.set_dumpable

    def held(value: bool) -> None:
        # not dumpable: its files are those of the host's root (proc(5)), its directory is not
        if value and os.stat("/proc/self/status").st_uid != os.geteuid():
            os.close(let_go)
            os.write(tell, b"!")
            os.read(go_on, 1)
        really(value)

    def is_hidden(pid: int) -> bool:
        try:
            os.close(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY))
        except PermissionError:
            return True
        except FileNotFoundError:  # a child of an earlier test that has ended
            pass
        return False

    seen: list[str] = []

    def network(opened: OpenNetwork) -> None:
        os.close(tell)
        assert os.read(told, 1) == b"!"
        assert any(map(is_hidden, procfs.child_pids(os.getpid()))), "this is not the moment that the test is about"
        script = "readlink /proc/self/fd/0 /proc/self/ns/user"
        started = spawn_helper(["/bin/sh", "-c", script], opened, is_ready_on_stdout=True)
        assert os.waitpid(started.pid, 0)[1] == 0, os.read(started.errors, 1000)
        seen.append(os.read(started.ready, 1000).decode())
        assert seen == [f"net:[{os.fstat(opened.network).st_ino}]\nuser:[{os.fstat(opened.user).st_ino}]\n"]
        for fd in (started.ready, started.errors, let_go):
            os.close(fd)

    monkeypatch.setattr(process, "set_dumpable", held)
    changes = having(ids=UserIds(None) if ids is None else ids(), on_namespaces=network)
    assert Container(bundle, "true", changes).finish()[0] == 0
    assert seen
    os.close(told)
    os.close(go_on)
    if other is not None:
        assert other.finish()[0] == 0


def test_container_dies_with_its_launcher(bundle: Bundle) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            container = Container(bundle, "sleep 60")
            container.process.start()
            os.write(writer, str(container.process.pid).encode())
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.close(writer)
    pid = int(os.read(reader, 20))
    os.close(reader)
    os.waitpid(child, 0)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and procfs.read_stat(pid).state != "Z":
        assert time.monotonic() < deadline, "the container outlived its launcher"
        time.sleep(0.01)


def test_reaper(bundle: Bundle) -> None:
    """`--init`: orphans are reaped, signals arrive, the status is the command's."""
    script = "(sleep 0.1 &) ; trap 'exit 8' TERM; echo $$; while :; do usleep 10000; done"
    container = Container(bundle, script, having(init=True))
    container.process.start()
    assert os.read(container.reader, 10) == b"2\n"
    first = container.process.pid
    deadline = time.monotonic() + 60
    # the shell alone: the orphan has ended and nothing of it is left
    while len(procfs.child_pids(first)) > 1:
        assert time.monotonic() < deadline, "the orphan was not reaped"
        time.sleep(0.02)
    # CVE-2019-5736: this pid 1 is an interpreter, so nobody inside may look at its executable
    assert joined(container, bundle, "readlink /proc/1/exe || echo closed")[1] == "closed\n"
    os.kill(first, signal.SIGTERM)
    assert container.finish()[0] == 8


def test_reaper_reports_a_command_that_fails(bundle: Bundle) -> None:
    (bundle.root / "orphan").write_text("#!/no/such\n")
    (bundle.root / "orphan").chmod(0o755)
    bundle.config["process"]["args"] = ["/orphan"]
    launch = launch_of(bundle)
    launch.init = True
    process = create(launch)
    with pytest.raises(CommandNotFound):
        process.start()


def seeded(bundle: Bundle, volume: Path, script: str) -> str:
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] != "/srv/data"]
    bundle.mount(volume, "/srv/data")
    status, text = Container(bundle, script, having(extra=[SeedVolume(str(volume), "/srv/data")])).finish()
    assert status == 0
    return text


@pytest.fixture
def volume(bundle: Bundle) -> Path:
    data = bundle.root / "srv/data"
    (data / "sub").mkdir(parents=True)
    (data / "file").write_text("from the image\n")
    (data / "file").chmod(0o640)
    os.link(data / "file", data / "sub/hard")
    (data / "link").symlink_to("/etc/passwd")
    with open(data / "sparse", "wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    os.setxattr(data / "file", "user.note", b"kept")
    data.chmod(0o1770)
    path = bundle.path / "volume"
    path.mkdir()
    return path


def test_volume_is_seeded_once(bundle: Bundle, volume: Path) -> None:
    text = seeded(
        bundle, volume, "cat /srv/data/file; readlink /srv/data/link; stat -c %a /srv/data; echo mine > /srv/data/file"
    )
    assert text == "from the image\n/etc/passwd\n1770\n"
    assert (volume / "file").stat().st_ino == (volume / "sub/hard").stat().st_ino
    assert (volume / "file").stat().st_mode & 0o777 == 0o640
    assert os.getxattr(volume / "file", "user.note") == b"kept"
    assert (volume / "sparse").stat().st_size == (1 << 20) + 3
    assert (volume / "sparse").stat().st_blocks < 100
    # CVE-2020-1726: what is there is not overwritten
    assert seeded(bundle, volume, "cat /srv/data/file") == "mine\n"


def test_interrupted_seeding_starts_over(bundle: Bundle, volume: Path) -> None:
    (volume / "half").mkdir()
    (volume / "half/written").write_text("x")
    (bundle.path / "volume.seeding").write_text("seeding\n")
    assert seeded(bundle, volume, "cat /srv/data/file; ls -d /srv/data/half 2>/dev/null; true") == "from the image\n"
    assert not (bundle.path / "volume.seeding").exists()


def test_volume_path_that_leaves_the_root(bundle: Bundle, volume: Path, tmp_path: Path) -> None:
    """CVE-2022-23648: the image's VOLUME cannot be seeded from the host."""
    (tmp_path / "secret").write_text("host")
    (bundle.root / "escape").symlink_to(tmp_path)
    bundle.mount(volume, "/escape")
    for target in ("/escape", "/../../.." + str(tmp_path)):
        Container(bundle, "true", having(extra=[SeedVolume(str(volume), target)])).finish()
    assert not (volume / "secret").exists()


def test_owner_of_seeded_files(bundle: Bundle, volume: Path) -> None:
    require(owns_range(), "this user has no range of subordinate ids")
    container = Container(bundle, "touch /srv/data/by33; busybox chown 33:33 /srv/data/by33 /srv/data")
    assert container.finish()[0] == 0
    assert seeded(bundle, volume, "stat -c %u:%g /srv/data/by33 /srv/data") == "33:33\n33:33\n"


def joining_of(container: Container, bundle: Bundle, process: dict[str, Any]) -> Joining:
    """One more process for the container, with these properties beside those of its first one."""
    described = {**bundle.config["process"], **process}
    oci_process = OciProcess.from_json(Properties(described, "process"))
    return Joining(container.process.pid, oci_process, OciConfig.from_json(bundle.config))


def joined(container: Container, bundle: Bundle, script: str, start_time: int | None = None) -> tuple[int, str]:
    reader, writer = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    joining = joining_of(container, bundle, {"args": ["sh", "-c", script]})
    joining.streams = ProcessStreams((null, writer, null))
    joining.start_time = start_time
    made = exec_process(joining)
    os.close(writer)
    os.close(null)
    with open(reader) as file:
        text = file.read()
    return made.wait(), text


def test_join(bundle: Bundle) -> None:
    container = Container(bundle, "read x < /tmp/none; sleep 60")
    container.process.start()
    assert joined(container, bundle, "echo $$; exit 3")[0] == 3
    start = procfs.start_time(container.process.pid)
    assert joined(container, bundle, "true", start_time=start)[0] == 0
    with pytest.raises(InvalidState):
        joined(container, bundle, "true", start_time=start + 1)
    container.process.kill()
    assert container.process.wait() == 137
    with pytest.raises(InvalidState):
        joined(container, bundle, "true")
    container.process.close()
    os.close(container.reader)


def test_join_terminal(bundle: Bundle) -> None:
    container = Container(bundle, "sleep 60")
    container.process.start()
    process = {
        "args": ["sh", "-c", "tty; stty size; cat /proc/self/stat"],
        "terminal": True,
        "consoleSize": {"height": 11, "width": 22},
    }
    made = exec_process(joining_of(container, bundle, process))
    assert made.console_fd is not None
    seen = b""
    try:
        while block := os.read(made.console_fd, 1000):
            seen += block
    except OSError:
        pass
    assert made.wait() == 0 and seen.split()[:3] == [b"/dev/pts/0", b"11", b"22"]
    container.process.kill()
    os.close(container.reader)


def test_no_new_privileges_is_needed_by_no_filter(bundle: Bundle) -> None:
    """TRAPS 3.14: without no_new_privs the filter is loaded while CAP_SYS_ADMIN is still there."""
    from rootless.runtime.seccomp.filter_cache import compile_profile
    from rootless.runtime.seccomp.seccomp_profile import resolve

    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99}
    program = compile_profile(resolve({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    for value in (True, False):
        bundle.config["process"]["noNewPrivileges"] = value
        container = Container(
            bundle, "mkdir /tmp/x; grep -E 'Seccomp:|NoNew' /proc/self/status", having(filters=SeccompFilters(program))
        )
        _, text = container.finish()
        assert "mkdir: can't create directory" in text and "Seccomp:\t2" in text
        assert f"NoNewPrivs:\t{int(value)}" in text
