"""A run of a plain host process, at the seam where the monitor launches containers: to test everything above it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from rootless.engine.container import attach_client
from rootless.host.idmap import single_map
from rootless.records.state import NetworkFacts


class FakeRun:
    """`argv` (from config.json's process.args) as a child of the monitor, with its pipes or a pty of the host."""

    group = None
    namespaces = None

    def __init__(self, spec: Any, stdio: tuple[int, int, int] | None) -> None:
        from rootless.errors import CommandNotFound

        self.spec = spec
        self.network = NetworkFacts("10.0.2.15")
        self.console_fd: int | None = None
        self.argv = list(spec.config.process.args)
        if self.argv[0] == "defect":
            raise ZeroDivisionError
        if self.argv[0] == "missing":
            raise CommandNotFound("exec: 'missing': executable file not found in $PATH", hint="use another command")
        slave = -1
        if stdio is None:
            self.console_fd, slave = os.openpty()
            os.set_inheritable(self.console_fd, False)
        gate_read, self.gate = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.gate)
            if stdio is None:
                os.login_tty(slave) if hasattr(os, "login_tty") else self._take_terminal(slave)
            else:
                for target, fd in enumerate(stdio):
                    os.dup2(fd, target)
            os.read(gate_read, 1)
            os.execvp(self.argv[0], self.argv)
        os.close(gate_read)
        if slave >= 0:
            os.close(slave)
        self.pidfd = os.pidfd_open(self.pid)
        os.set_inheritable(self.gate, False)

    @staticmethod
    def _take_terminal(slave: int) -> None:
        import fcntl
        import termios

        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for target in range(3):
            os.dup2(slave, target)

    def start(self) -> None:
        os.close(self.gate)

    def wait(self) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return code if code >= 0 else 128 - code

    def helpers(self) -> list[tuple[int, int]]:
        return []

    def hand_over(self) -> None:
        return None

    def forget(self, pid: int) -> None:
        """There are no helpers."""

    def use_helper(self, helper: object) -> None:
        """There are no helpers."""

    connection = -1

    def use_connection(self, fd: int) -> None:
        """There are no networks with names."""

    def close(self, *, remove: bool = False) -> None:
        import shutil

        os.close(self.pidfd)
        if remove:
            shutil.rmtree(self.spec.directory)


def container(root: Path, *args: str, **launch: Any) -> str:
    """A container directory below `root` whose command is `args`; its launch.json takes `launch` over the defaults."""
    directory = root / "containers" / "c0ffee"
    directory.mkdir(parents=True, exist_ok=True)
    process = {"args": list(args), "cwd": "/"}
    config = {"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": process, "linux": {"namespaces": []}}
    (directory / "config.json").write_text(json.dumps(config))
    settings: dict[str, Any] = {
        "id": "c0ffee",
        "name": "test",
        "bundle": str(directory),
        "rootfs": None,
        "id_map": single_map(0, 0).to_json(),
        "log": {"driver": "json-file", "path": str(directory / "log"), "max_size": 0, "max_file": 1},
        "stop_timeout": 2,
        "runtime_dir": str(root / "run"),
    }
    settings.update(launch)
    (directory / "launch.json").write_text(json.dumps(settings))
    return str(directory)


def monitor() -> socket.socket:
    """A monitor process that launches FakeRuns; our end of its fd 3."""
    ours, theirs = socket.socketpair()
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from tests.integration.monitor.fake_run import FakeRun\n"
        "from rootless.monitor import main\n"
        "main._Launcher = lambda prepared, holder: FakeRun\n"
        "main.ENGINE_FD = int(sys.argv[3])\n"
        "del sys.argv[1:]\n"
        "raise SystemExit(main.main())"
    )
    repository = str(Path(__file__).parents[3])
    argv = [sys.executable, "-I", "-S", "-c", code, repository, "", str(theirs.fileno())]
    process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    threading.Thread(target=process.wait, daemon=True).start()
    theirs.close()
    return ours


class Attached:
    """A client with pipes in a thread of the test; `.outcome()` waits for its end."""

    def __init__(
        self,
        target: str | tuple[socket.socket, str],
        *,
        given: bytes | None = b"",
        terminal: bool = False,
        detach_keys: str | None = None,
    ) -> None:
        """target: a socket path to attach to, or (connection, directory) to launch."""
        self.input_read, self.input_write = os.pipe()
        self.pipes = [os.pipe(), os.pipe()]
        self.output = [bytearray(), bytearray()]
        self.started = threading.Event()
        self.result: attach_client.Outcome | BaseException | None = None
        stdin = self.input_read if given is not None else None
        streams = attach_client.Streams(stdin, self.pipes[0][1], self.pipes[1][1])
        self.options = attach_client.StreamOptions(
            streams=streams, terminal=terminal, detach_keys=detach_keys, sig_proxy=False
        )
        self.target = target
        self.readers = [threading.Thread(target=self._read, args=(n,), daemon=True) for n in (0, 1)]
        self.thread = threading.Thread(target=self._run, daemon=True)
        for thread in (*self.readers, self.thread):
            thread.start()
        if given:
            os.write(self.input_write, given)
        if given == b"":
            self.close_input()

    def _read(self, number: int) -> None:
        while chunk := os.read(self.pipes[number][0], 65536):
            self.output[number] += chunk

    def _run(self) -> None:
        try:
            if isinstance(self.target, str):
                self.result = attach_client.attach(self.target, self.options, lambda _: self.started.set())
            else:
                self.result = attach_client.launch_attached(
                    self.target[0], self.target[1], self.options, lambda _: self.started.set()
                )
        except BaseException as e:
            self.result = e
        finally:
            for _, write in self.pipes:
                os.close(write)

    def close_input(self) -> None:
        os.close(self.input_write)

    def outcome(self) -> attach_client.Outcome:
        self.thread.join(60)
        for reader in self.readers:
            reader.join(60)
        if isinstance(self.result, BaseException):
            raise self.result
        assert self.result is not None, "the client still runs"
        return self.result
