"""Issue 8, A.8: nothing that an image, an archive or a container says keeps us busy, or fills the disk, without end."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.monitor import protocol
from tests.conftest import Runner, command_path
from tests.integration.builder.conftest import build as build
from tests.integration.builder.conftest import context as context

pytestmark = pytest.mark.once

PATIENCE = 30  # seconds; what is tried here takes one or two


@pytest.fixture(autouse=True)
def nothing_left(busybox: Runner) -> Iterator[None]:
    yield
    busybox("rm", "-f", "c", check=False)


def run_bounded(busybox: Runner, *words: str, **how: object) -> subprocess.CompletedProcess[str]:
    """Run a command that may fail but must end; its children are ended with it when it does not."""
    try:
        return busybox(*words, check=False, timeout=PATIENCE, **how)
    except subprocess.TimeoutExpired:
        for pid in workers(busybox):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        raise


def workers(busybox: Runner, module: bytes = b"worker") -> list[int]:
    """Workers of ours that were started for the store of this module's tests."""
    found = []
    for directory in Path("/proc").iterdir():
        try:
            if not directory.name.isdigit() or directory.stat().st_uid != os.geteuid():
                continue
            words = (directory / "cmdline").read_bytes().split(b"\0")
            if any(b"rootless." in word and module in word for word in words):
                found.append(int(directory.name))
        except OSError:
            continue
    return found


# cp


@pytest.mark.parametrize("state", ["stopped", "running"])
@pytest.mark.parametrize("source", ["directory", "stream"])
def test_cp_ends_when_the_container_refuses_early(busybox: Runner, tmp_path: Path, state: str, source: str) -> None:
    """A directory over a file, with more in it than a pipe holds (64 KiB)."""
    script = "mkdir /d; touch /d/there; sleep 1000"
    busybox("run", "-d", "--name", "c", "--network", "none", "busybox", "sh", "-c", script)
    time.sleep(0.5)
    if state == "stopped":
        busybox("stop", "-t", "0", "c")
    (tmp_path / "there").mkdir()
    (tmp_path / "there/big").write_bytes(bytes(1 << 20))
    if source == "directory":
        told = run_bounded(busybox, "cp", f"{tmp_path}/there", "c:/d")
    else:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(tmp_path / "there", "there")
        told = run_bounded(busybox, "cp", "-", "c:/d", input=archive.getvalue())
    assert told.returncode != 0 and "there" in told.stderr


def test_cp_ends_when_there_is_no_room(busybox: Runner, tmp_path: Path) -> None:
    busybox("run", "-d", "--name", "c", "--network", "none", "--tmpfs", "/t:size=1m", "busybox", "sleep", "1000")
    (tmp_path / "big").write_bytes(bytes(8 << 20))
    told = run_bounded(busybox, "cp", f"{tmp_path}/big", "c:/t")
    assert told.returncode != 0 and "No space left" in told.stderr


# archives


def sparse_archive(size: int) -> bytes:
    """A tar (GNU 1.0 in pax headers) of 2 KiB with a file of `size` bytes, all of it a hole."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("GNUSparseFile.0/huge")
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "huge",
                              "GNU.sparse.realsize": str(size)}  # fmt: skip
        table = f"1\n{size}\n0\n".encode().ljust(512, b"\0")
        member.size = len(table)
        tar.addfile(member, io.BytesIO(table))
    return content.getvalue()


def allocated(directory: Path) -> int:
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
    return total


def test_a_hole_stays_a_hole(busybox: Runner, build: object, context: Path, shared_root: Path) -> None:
    before = allocated(shared_root)
    (context / "sparse.tar").write_bytes(sparse_archive(1 << 30))
    (context / "Dockerfile").write_text("FROM busybox\nADD sparse.tar /\n")
    assert len((context / "sparse.tar").read_bytes()) <= 10240
    run_bounded(busybox, "build", "-t", "holes", str(context))
    used = allocated(shared_root) - before
    busybox("rmi", "-f", "holes", check=False)
    busybox("builder", "prune", "-af", check=False)
    busybox("system", "prune", "-f", check=False)
    assert used < 64 << 20


def test_a_worker_does_not_outlive_its_client(busybox: Runner, context: Path, shared_root: Path) -> None:
    (context / "sparse.tar").write_bytes(sparse_archive(64 << 30))
    (context / "Dockerfile").write_text("FROM busybox\nADD sparse.tar /\n")
    before = set(workers(busybox))
    environment = {**os.environ, "ROOTLESS_ROOT": str(shared_root)}
    client = subprocess.Popen([*command_path(), "build", str(context)], env=environment, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)  # fmt: skip
    left: set[int] = set()
    try:
        deadline = time.monotonic() + 10
        while not set(workers(busybox)) - before and client.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(1)
        client.kill()
        client.wait()
        deadline = time.monotonic() + 3
        while (left := set(workers(busybox)) - before) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        busybox("system", "prune", "-f", check=False)
    assert not left


def test_nested_directories_of_a_context_are_read_in_bounded_time(busybox: Runner) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as tar:
        dockerfile = b"FROM busybox\nCOPY Dockerfile /\n"
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(dockerfile)
        tar.addfile(member, io.BytesIO(dockerfile))
        for depth in range(1, 1501):
            member = tarfile.TarInfo("/".join(["d"] * depth))
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
    run_bounded(busybox, "build", "-", input=content.getvalue())


@pytest.mark.parametrize("way", ["import", "cp", "ADD"])
def test_chained_pax_headers_are_refused_in_words(busybox: Runner, context: Path, way: str) -> None:
    """pax, POSIX.1: one extended header belongs to one file; a chain of them is not recursed into."""
    record = b"20 comment=01234567\n"
    header = tarfile.TarInfo("x")
    header.type, header.size = b"x", len(record)
    block = header.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0")
    entry = tarfile.TarInfo("f").tobuf(tarfile.USTAR_FORMAT)
    archive = block * 3000 + entry + bytes(1024)
    (context / "chain.tar").write_bytes(archive)
    if way == "import":
        told = run_bounded(busybox, "import", str(context / "chain.tar"), "chained")
    elif way == "cp":
        busybox("create", "--name", "c", "--network", "none", "busybox", "true")
        told = run_bounded(busybox, "cp", "-", "c:/", input=archive)
    else:
        (context / "Dockerfile").write_text("FROM busybox\nADD chain.tar /\n")
        told = run_bounded(busybox, "build", "-t", "chained", str(context))
    busybox("rmi", "-f", "chained", check=False)
    assert "was killed" not in told.stderr and "bug" not in told.stderr, told.stderr
    assert told.returncode in (0, 1)


def test_a_layer_of_many_pax_headers_is_refused_in_words(busybox: Runner, tmp_path: Path) -> None:
    record = b"20 comment=01234567\n"
    header = tarfile.TarInfo("x")
    header.type, header.size = b"x", len(record)
    block = header.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0")
    (tmp_path / "chain.tar.gz").write_bytes(gzip.compress(block * 100_000 + bytes(1024)))
    told = run_bounded(busybox, "import", str(tmp_path / "chain.tar.gz"), "chained")
    assert "was killed" not in told.stderr and "bug" not in told.stderr


# the monitor


def health_image(busybox: Runner, tmp_path: Path, interval: int) -> str:
    """An image whose configuration says `interval` (nanoseconds), as a registry may hand it out."""
    busybox("save", "-o", str(tmp_path / "a.tar"), "busybox")
    with tarfile.open(tmp_path / "a.tar") as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}
    manifest = json.loads(members["manifest.json"])
    config = json.loads(members[manifest[0]["Config"]])
    config["config"]["Healthcheck"] = {"Test": ["CMD-SHELL", "echo x >> /probes"], "Interval": interval}
    members[manifest[0]["Config"]] = json.dumps(config).encode()
    manifest[0]["RepoTags"] = ["probed:latest"]
    members["manifest.json"] = json.dumps(manifest).encode()
    wanted = {"manifest.json", manifest[0]["Config"], *manifest[0]["Layers"]}
    if "blobs/sha256/" in manifest[0]["Config"]:
        import hashlib

        name = "blobs/sha256/" + hashlib.sha256(members[manifest[0]["Config"]]).hexdigest()
        members[name] = members.pop(manifest[0]["Config"])
        wanted = wanted - {manifest[0]["Config"]} | {name}
        manifest[0]["Config"] = name
        members["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        for name in sorted(wanted):
            member = tarfile.TarInfo(name)
            member.size = len(members[name])
            tar.addfile(member, io.BytesIO(members[name]))
    busybox("load", "-i", str(tmp_path / "b.tar"))
    return "probed"


@pytest.mark.parametrize("source", ["image", "flag"])
def test_a_tiny_interval_of_health_checks_is_refused_or_raised(busybox: Runner, tmp_path: Path, source: str) -> None:
    """docker: `Interval in Healthcheck cannot be less than 1ms`."""
    words: tuple[str, ...]
    if source == "flag":
        words = ("--health-cmd", "echo x >> /probes", "--health-interval", "1ns", "busybox")
    else:
        words = (health_image(busybox, tmp_path, 1),)
    started = busybox("run", "-d", "--name", "c", "--network", "none", *words, "sleep", "1000", check=False)
    if started.returncode:
        assert "nterval" in started.stderr
        return
    time.sleep(3)
    busybox("stop", "-t", "0", "c")
    busybox("cp", "c:/probes", str(tmp_path / "probes"), check=False)
    probes = (tmp_path / "probes").read_text().count("x") if (tmp_path / "probes").exists() else 0
    assert probes <= 6, f"{probes} probes in 3 seconds"


@pytest.mark.parametrize("source", ["image", "flag"])
def test_a_huge_interval_of_health_checks_ends_no_container(busybox: Runner, tmp_path: Path, source: str) -> None:
    words: tuple[str, ...]
    if source == "flag":
        words = ("--health-cmd", "true", "--health-interval", "2562047h", "busybox")
    else:
        words = (health_image(busybox, tmp_path, (1 << 63) - 1),)
    started = busybox("run", "-d", "--name", "c", "--network", "none", *words, "sleep", "1000", check=False)
    if started.returncode:
        assert "nterval" in started.stderr
        return
    time.sleep(2)
    assert busybox("inspect", "--format", "{{.State.Status}}", "c").stdout == "running\n"


NESTED = b"[" * 200_000
FRAMES = {
    "nested": protocol.encode_frame(protocol.ATTACH, NESTED),
    "nested object": protocol.encode_frame(protocol.ATTACH, b'{"stdin":' * 100_000),
    "number": protocol.encode_frame(protocol.ATTACH, b'{"stdin": true, "rows": ' + b"9" * 100_000 + b"}"),
    "surrogate": protocol.encode_frame(protocol.ATTACH, b'{"stdin": "\\ud800"}'),
    "bytes": protocol.encode_frame(protocol.ATTACH, b"\xff\xfe{}"),
    "signal": protocol.encode_frame(protocol.SIGNAL, b"\xff"),
    "size": protocol.encode_frame(protocol.RESIZE, b"\x00"),
}


def test_a_frame_ends_no_container(busybox: Runner) -> None:
    """A client is dropped for what it says; the container goes on."""
    busybox("run", "-d", "--name", "c", "--network", "none", "busybox", "sleep", "1000")
    runtime = busybox("info", "--format", "{{.RuntimeDir}}").stdout.strip()
    identity = busybox("inspect", "--format", "{{.Id}}", "c").stdout.strip()
    place = os.open(f"{runtime}/containers", os.O_PATH)
    for name, frame in FRAMES.items():
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"/proc/self/fd/{place}/{identity}.sock")
            connection.settimeout(0.5)  # those that are no reason to drop a client are answered by nothing
            connection.sendall(frame)
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                while connection.recv(1 << 16):
                    pass
        assert busybox("inspect", "--format", "{{.State.Status}}", "c").stdout == "running\n", name
    os.close(place)
