"""host.userns on the real kernel, as an ordinary user with or without a range, or inside `unshare -r`."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rootless.errors import CommandNotExecutable, CommandNotFound, HostLimit, NotFound
from rootless.host import interpreter, mapping, subid, userns
from rootless.host.answer import fork_and_read
from rootless.host.facts import is_privileged
from rootless.host.idmap import default_map, keep_id_map, single_map
from rootless.host.subid import subordinate_ids
from rootless.kernel.process import set_no_new_privs
from rootless.records.id_map import Extent, IdMap
from tests.conftest import REPOSITORY, require

UID, GID = os.geteuid(), os.getegid()


PR_GET_DUMPABLE = 3


def ids_inside() -> bytes:
    with open("/proc/self/uid_map") as f:
        lines = [" ".join(line.split()) for line in f]
    return f"{os.getresuid()} {os.getresgid()} {lines}".encode()


def test_default_map(has_range: bool) -> None:
    id_map = subid.default_id_map()
    text = userns.call_in_new_namespace(id_map, ids_inside).decode()
    assert text.startswith("(0, 0, 0) (0, 0, 0)")
    assert f"'0 {UID} 1'" in text
    if has_range and UID != 0:
        assert id_map.kind == "range"
        assert len(id_map.uids) > 1


def test_setgroups_only_denied_without_a_range(has_range: bool) -> None:
    """TRAPS 3.1, CVE-2014-8989: `deny` before a self-written gid map; with a range apt and su need setgroups."""

    def read() -> bytes:
        with open("/proc/self/setgroups") as f:
            return f.read().encode().strip()

    assert userns.call_in_new_namespace(single_map(0, 0), read) == b"deny"
    require(has_range, "no range: no subordinate ids for this user")

    def set_groups() -> bytes:
        os.setgroups([0, 5])
        return read()

    assert userns.call_in_new_namespace(subid.default_id_map(), set_groups) == b"allow"


def test_stays_dumpable_so_that_a_nested_map_can_be_written(has_range: bool) -> None:
    """TRAPS 3.1: a process that is not dumpable has its /proc/PID/uid_map owned by the real root."""

    def nested() -> bytes:
        assert ctypes.CDLL(None).prctl(PR_GET_DUMPABLE) == 1
        return userns.call_in_new_namespace(single_map(0, 0), ids_inside)

    assert b"(0, 0, 0)" in userns.call_in_new_namespace(subid.default_id_map(), nested)
    require(has_range, "no range: no subordinate ids for this user")
    assert b"(0, 0, 0)" in userns.call_in_new_namespace(keep_id_map(subordinate_ids(), UID, GID, UID, GID), nested)


def test_keep_id_becomes_root_and_owns_both(tmp_path: Path, has_range: bool) -> None:
    """TRAPS 3.2: with keep-id the caller is himself inside; set-up is done by root there, who reaches his files too."""
    require(has_range, "no range: no subordinate ids for this user")
    tmp_path.chmod(0o700)
    (tmp_path / "mine").write_text("x")

    def look() -> bytes:
        assert os.geteuid() == 0
        assert os.stat(tmp_path / "mine").st_uid == 1234
        (tmp_path / "roots").write_text("y")
        return b""

    id_map = keep_id_map(subordinate_ids(), UID, GID, 1234, 1234)
    userns.call_in_new_namespace(id_map, look)
    assert (tmp_path / "roots").stat().st_uid == id_map.to_host_uid(0) != UID
    userns.call_in_new_namespace(id_map, lambda: (tmp_path / "roots").unlink() or b"")


def test_single_map_may_be_any_id() -> None:
    text = userns.call_in_new_namespace(single_map(999, 998), ids_inside).decode()
    assert text.startswith("(999, 999, 999) (998, 998, 998)")


def test_caps_for_setup_whatever_the_id() -> None:
    from rootless.kernel import mounts

    def mount() -> bytes:
        mounts.mount("tmpfs", "/tmp", "tmpfs", 0)
        return os.listdir("/tmp").__repr__().encode()

    assert userns.call_in_new_namespace(single_map(999, 998), mount) == b"[]"


def test_no_mount_comes_back(tmp_path: Path) -> None:
    from rootless.kernel import mounts, procfs

    userns.call_in_new_namespace(single_map(0, 0), lambda: mounts.mount("tmpfs", str(tmp_path), "tmpfs", 0) or b"")
    assert not [m for m in procfs.mountinfo() if m.target == str(tmp_path)]


def test_nested_in_a_range(has_range: bool) -> None:
    """Root of a namespace with several ids hands all of them on: rootless in rootless."""
    require(has_range, "no range: no subordinate ids for this user")

    def nested() -> bytes:
        inner = subid.default_id_map()
        assert inner.kind == "identity"
        return str(sum(e.size for e in inner.uids)).encode() + b" " + userns.call_in_new_namespace(inner, ids_inside)

    assert userns.call_in_new_namespace(subid.default_id_map(), nested).startswith(b"65537 (0, 0, 0)")


def test_inside_unshare_r() -> None:
    code = (
        "from rootless.host import subid, userns; m = subid.default_id_map();"
        "print(m.kind, userns.call_in_new_namespace(m, lambda: str(__import__('os').getresuid()).encode()).decode())"
    )
    done = subprocess.run(
        ["unshare", "-r", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"]},
    )
    assert done.stdout == "single (0, 0, 0)\n"


def test_errors_come_back_as_they_were() -> None:
    def not_found() -> bytes:
        raise NotFound("no such thing", hint="look elsewhere")

    def refused() -> bytes:
        os.mkdir("/proc/x")
        return b""

    def bug() -> bytes:
        raise ValueError("a bug")

    with pytest.raises(NotFound) as caught:
        userns.call_in_new_namespace(single_map(0, 0), not_found)
    assert (caught.value.message, caught.value.hint) == ("no such thing", "look elsewhere")
    with pytest.raises(FileNotFoundError) as refusal:
        userns.call_in_new_namespace(single_map(0, 0), refused)
    assert refusal.value.filename == "/proc/x"
    with pytest.raises(Exception, match="ValueError: a bug"):
        userns.call_in_new_namespace(single_map(0, 0), bug)


def test_killed_child_is_an_error() -> None:
    with pytest.raises(HostLimit, match="killed"):
        userns.call_in_new_namespace(single_map(0, 0), lambda: os.kill(os.getpid(), 9) or b"")


def test_large_results() -> None:
    assert len(userns.call_in_new_namespace(single_map(0, 0), lambda: b"x" * 1_000_000)) == 1_000_000


def test_leaves_no_child_and_no_fd() -> None:
    """Asked in an interpreter of its own: this one is the reaper of what earlier tests have orphaned."""
    code = (
        f"import os, sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from rootless.host import subid, userns\n"
        "before = sorted(os.listdir('/proc/self/fd'))\n"
        "userns.call_in_new_namespace(subid.default_id_map(), lambda: b'')\n"
        "userns.run_in_new_namespace(subid.default_id_map(), ['true'])\n"
        "assert sorted(os.listdir('/proc/self/fd')) == before\n"
        "try:\n"
        "    print('left', os.waitpid(-1, os.WNOHANG))\n"
        "except ChildProcessError:\n"
        "    print('none')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "none\n", done.stderr + done.stdout


def test_threads_are_refused() -> None:
    code = (
        "import threading, time\n"
        "from rootless.host import subid, userns, idmap\n"
        "threading.Thread(target=time.sleep, args=(1,), daemon=True).start()\n"
        "try: userns.enter_new_namespace(idmap.single_map(0, 0))\n"
        "except RuntimeError as e: print(e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(REPOSITORY)}
    )
    assert "several threads" in done.stdout


def test_call_works_beside_threads() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert userns.call_in_new_namespace(single_map(0, 0), lambda: b"fine") == b"fine"
    finally:
        stop.set()
        thread.join()


class TestRun:
    """A host program in the namespace."""

    def test_exit_codes(self) -> None:
        id_map = subid.default_id_map()
        assert userns.run_in_new_namespace(id_map, ["sh", "-c", "exit 7"]) == 7
        assert userns.run_in_new_namespace(id_map, ["sh", "-c", "kill -9 $$"]) == 137

    def run(self, command: str, more: str = "") -> str:
        """What `command` of sh prints, as root of the namespace, started by an interpreter of its own."""
        call = f"userns.run_in_new_namespace(subid.default_id_map(), ['sh', '-c', sys.argv[1]]{more})"
        code = f"import sys; from rootless.host import subid, userns; sys.exit({call})"
        environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"}
        argv = [sys.executable, "-c", code, command]
        return subprocess.run(argv, capture_output=True, text=True, check=True, env=environment).stdout

    def test_streams_are_those_of_the_caller(self) -> None:
        assert self.run("id -u") == "0\n"

    def test_environment(self) -> None:
        assert self.run("echo $A", ", env={'A': 'b'}") == "b\n"

    def test_sigpipe_is_not_ignored(self) -> None:
        ignored = int(self.run("grep SigIgn /proc/self/status").split()[1], 16)
        assert not ignored & 1 << 12

    def test_command_errors(self, tmp_path: Path) -> None:
        (tmp_path / "plain").write_text("")
        with pytest.raises(CommandNotFound):
            userns.run_in_new_namespace(single_map(0, 0), ["no-such-program"])
        with pytest.raises(CommandNotFound):
            userns.run_in_new_namespace(single_map(0, 0), [f"{tmp_path}/nothing"])
        with pytest.raises(CommandNotExecutable):
            userns.run_in_new_namespace(single_map(0, 0), [f"{tmp_path}/plain"])

    def test_in_place(self) -> None:
        code = "from rootless.host import subid, userns; userns.run_in_place(subid.default_id_map(), ['id', '-u'])"
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
        )
        assert done.stdout == "0\n"


class TestJoin:
    """An existing namespace by fd."""

    @pytest.mark.parametrize("kind", ["single", "default", "keep"])
    def test_call_in(self, kind: str, tmp_path: Path, has_range: bool) -> None:
        """What removal needs: files of mapped ids deleted by root of the namespace that made them (TRAPS 3.13)."""
        if kind != "single":
            require(has_range, "no range: no subordinate ids for this user")
        id_map = {
            "single": single_map(0, 0),
            "default": subid.default_id_map(),
            "keep": keep_id_map(subordinate_ids(), UID, GID, 1234, 1234),
        }[kind]
        tmp_path.chmod(0o755)
        with held(id_map) as userns_fd:

            def make() -> bytes:
                os.mkdir(tmp_path / "d", 0o700)
                (tmp_path / "d/f").write_text("")
                if kind != "single":
                    os.chown(tmp_path / "d/f", 7, 7)
                    os.chown(tmp_path / "d", 7, 7)
                return ids_inside()

            def unmake() -> bytes:
                (tmp_path / "d/f").unlink()
                (tmp_path / "d").rmdir()
                return b""

            assert userns.call_in_namespace(userns_fd, make).startswith(b"(0, 0, 0) (0, 0, 0)")
            if kind != "single":
                with pytest.raises(PermissionError):
                    os.listdir(tmp_path / "d")
            userns.call_in_namespace(userns_fd, unmake)

    def test_not_a_namespace(self) -> None:
        with open(os.devnull) as null, pytest.raises(HostLimit, match="cannot join"):
            userns.call_in_namespace(null.fileno(), lambda: b"")


class held:
    """A user namespace kept alive by a child; its fd."""

    def __init__(self, id_map: IdMap) -> None:
        self.id_map = id_map

    def __enter__(self) -> int:
        ready_read, ready_write = os.pipe()
        go_read, self.go = os.pipe()
        self.child = os.fork()
        if self.child == 0:
            os.close(self.go)
            userns.enter_new_namespace(self.id_map)
            os.write(ready_write, b"+")
            os.read(go_read, 1)
            os._exit(0)
        os.close(ready_write)
        os.close(go_read)
        assert os.read(ready_read, 1) == b"+"
        os.close(ready_read)
        self.fd = os.open(f"/proc/{self.child}/ns/user", os.O_RDONLY)
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.go)
        os.close(self.fd)
        os.waitpid(self.child, 0)


class TestWorkerCommand:
    """A fresh isolated interpreter that finds this package."""

    WORKER = "tests.integration.host.worker"

    def start(self, argv: list[str], cwd: Path, env: dict[str, str] | None = None) -> dict[str, Any]:
        done = subprocess.run(argv, capture_output=True, text=True, cwd=cwd, env=env or {}, check=False)
        assert done.returncode == 0, done.stderr
        value: dict[str, Any] = json.loads(done.stdout)
        return value

    def test_hostile_directory_and_environment(self, tmp_path: Path) -> None:
        """TRAPS 1.3 (own to Python): a hostile cwd, PYTHONPATH or user site injects nothing."""
        for name in ("os.py", "json.py", "sitecustomize.py", "usercustomize.py", "rootless.py"):
            (tmp_path / name).write_text("raise SystemExit('injected')")
        argv = interpreter.worker_command(self.WORKER)
        value = self.start(
            argv, tmp_path, {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": "json.py", "PYTHONHOME": "/x"}
        )
        assert value["rootless"].startswith(str(REPOSITORY))
        assert str(tmp_path) not in value["json"]

    def test_arguments_and_paths(self, tmp_path: Path) -> None:
        argv = interpreter.worker_command(self.WORKER, "one", "-two", "a:b")
        assert argv[1:4] == ["-I", "-S", "-c"]
        assert self.start(argv, tmp_path)["arguments"] == ["one", "-two", "a:b"]

    def test_site_packages_on_request(self, tmp_path: Path) -> None:
        assert not self.start(interpreter.worker_command(self.WORKER), tmp_path)["pytest"]
        assert self.start(interpreter.worker_command(self.WORKER, site_packages=True), tmp_path)["pytest"]


class TestRefusals:
    """Every way in which the host says no ends in one sentence and a remedy."""

    def refused(self, function: Callable[[], bytes]) -> HostLimit:
        with pytest.raises(HostLimit) as caught:
            fork_and_read(function)
        assert caught.value.hint
        return caught.value

    def test_namespaces_set_to_none(self) -> None:
        """ENOSPC: user.max_user_namespaces, set in a namespace of our own."""

        def inside() -> bytes:
            with open("/proc/sys/user/max_user_namespaces", "w") as f:
                f.write("0")
            return userns.call_in_new_namespace(single_map(0, 0), lambda: b"")

        error = self.refused(lambda: userns.call_in_new_namespace(single_map(0, 0), inside))
        assert "user.max_user_namespaces is 0" in error.message
        assert "sysctl -w user.max_user_namespaces=65536" in str(error.hint)

    def test_unshare_filtered_as_in_docker(self) -> None:
        """EPERM by a seccomp filter: we are in a container that forbids namespaces."""

        def inside() -> bytes:
            from rootless.kernel import libseccomp
            from rootless.kernel.process import load_filter

            with libseccomp.Filter(libseccomp.ACT_ALLOW) as program:
                number = libseccomp.syscall_resolve("unshare")
                assert number is not None
                program.rule_add(libseccomp.act_errno(errno.EPERM), number)
                bpf = program.export_bpf()
            set_no_new_privs()
            load_filter(bpf)
            return userns.call_in_new_namespace(single_map(0, 0), lambda: b"")

        error = self.refused(inside)
        assert error.message == "cannot make a user namespace: Operation not permitted"

    def test_range_that_is_not_ours(self) -> None:
        require(not is_privileged(), "no range is refused to root of a namespace")
        foreign = IdMap(
            [Extent(0, UID, 1), Extent(1, 3_000_000, 10)], [Extent(0, GID, 1), Extent(1, 3_000_000, 10)], "range"
        )
        error = self.refused(lambda: userns.call_in_new_namespace(foreign, lambda: b""))
        assert "not allowed" in error.message
        assert "usermod --add-subuids" in str(error.hint)

    def test_helper_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        require(not is_privileged(), "no range needs a helper for root of a namespace")
        monkeypatch.setattr(mapping, "find_helper", lambda name: None)
        id_map = IdMap([Extent(0, UID, 1), Extent(1, 3_000_000, 10)], [Extent(0, GID, 1)], "range")
        error = self.refused(lambda: userns.call_in_new_namespace(id_map, lambda: b""))
        assert "'newuidmap' is missing" in error.message
        assert "apt install uidmap" in str(error.hint)

    def test_helper_missing_means_one_id(self, monkeypatch: pytest.MonkeyPatch) -> None:
        require(not is_privileged(), "no range needs a helper for root of a namespace")
        monkeypatch.setattr(subid, "find_helper", lambda name: None)
        assert subid.default_id_map().kind == "single"

    def test_no_new_privileges(self, has_range: bool) -> None:
        require(has_range, "no range: no subordinate ids for this user")
        require(not is_privileged(), "no range needs a helper for root of a namespace")

        def inside() -> bytes:
            set_no_new_privs()
            return userns.call_in_new_namespace(default_map(subordinate_ids(), UID, GID), lambda: b"")

        error = self.refused(inside)
        assert "no_new_privs" in error.message
