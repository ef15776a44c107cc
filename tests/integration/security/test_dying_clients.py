"""Issue 8, A.8: a worker ends with the client that it works for, wherever it is in its work: here it is stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootless.host import idmap, interpreter, subid
from rootless.kernel import procfs
from tests.conftest import Runner, command_path, owns_range, runs

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(shared_root: Path) -> Iterator[Start]:
    """Starts a `rootless` whose input is a pipe that stays open; ended afterwards with all its children."""
    clients: list[subprocess.Popen[bytes]] = []
    environment = {**os.environ, "ROOTLESS_ROOT": str(shared_root)}

    def begin(*words: str) -> subprocess.Popen[bytes]:
        client = subprocess.Popen(
            [*command_path(), *words],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        clients.append(client)
        return client

    yield begin
    for client in clients:
        client.kill()
        client.wait()
        assert client.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            client.stdin.close()


def worker_of(client: subprocess.Popen[bytes], word: bytes) -> int:
    """The child of `client` that has `word` in its command line, once it is in its own user namespace."""
    deadline = time.monotonic() + 20
    own = os.stat("/proc/self/ns/user").st_ino
    while client.poll() is None and time.monotonic() < deadline:
        for pid in procfs.child_pids(client.pid):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                if word in words and os.stat(f"/proc/{pid}/ns/user").st_ino != own:
                    time.sleep(0.3)  # until the kernel has been asked, which follows the change of ids
                    return pid
        time.sleep(0.02)
    raise AssertionError("no worker has begun")


def ends_with(client: subprocess.Popen[bytes], worker: int) -> bool:
    os.kill(worker, signal.SIGSTOP)
    client.kill()
    client.wait()
    deadline = time.monotonic() + 3
    try:
        while runs(worker) and time.monotonic() < deadline:
            time.sleep(0.02)
        return not runs(worker)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


def test_a_worker_on_a_layer_ends_with_its_client(busybox: Runner, start: Start) -> None:
    client = start("import", "-", "never")
    assert client.stdin is not None
    client.stdin.write(bytes(1024))
    client.stdin.flush()
    assert ends_with(client, worker_of(client, b"unpack_worker"))


@pytest.mark.parametrize("is_running", [False, True])
def test_a_worker_of_cp_ends_with_its_client(busybox: Runner, start: Start, is_running: bool) -> None:
    verb = ("run", "-d") if is_running else ("create",)
    busybox(*verb, "--name", "c", "--network", "none", "busybox", "sleep", "1000")
    try:
        client = start("cp", "-", "c:/tmp")
        assert ends_with(client, worker_of(client, b"transfer_worker"))
    finally:
        busybox("rm", "-f", "c")


def test_mmdebstrap_ends_with_its_client(tmp_path: Path) -> None:
    ids = subid.subordinate_ids() if owns_range() else None
    id_map = json.dumps(idmap.default_map(ids, os.getuid(), os.getgid()).to_json())
    argv = interpreter.worker_command("rootless.engine.transfer.bootstrap_worker", id_map, "sleep", "1000")
    script = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    client = subprocess.Popen([sys.executable, "-c", script, *argv])
    try:
        worker = worker_of(client, b"sleep")
        client.kill()
        client.wait()
        deadline = time.monotonic() + 3
        while runs(worker) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not runs(worker)
    finally:
        client.kill()
        client.wait()


@pytest.mark.parametrize("name", ["passwd", "group"])
def test_a_fifo_in_the_place_of_an_account_file_does_not_hold_exec(busybox: Runner, name: str) -> None:
    """The names of a running container's users are read from a file that the container may change."""
    busybox("run", "-d", "--name", "c", "--network", "none", "busybox", "sleep", "1000")
    try:
        busybox("exec", "c", "sh", "-c", f"rm -f /etc/{name}; mkfifo /etc/{name}")
        done = busybox("exec", "-u", "root:root", "c", "true", check=False, timeout=20)
        assert done.returncode != 0 and f"'etc/{name}' of the image is not a regular file" in done.stderr
    finally:
        busybox("rm", "-f", "c")
