"""Issue 8, A.8: nothing that an image, an archive or a container says keeps us busy, or fills the disk, without end."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.monitor import protocol
from tests.conftest import Runner
from tests.integration.builder.conftest import build as build
from tests.integration.builder.conftest import context as context


@pytest.fixture(autouse=True)
def nothing_left(busybox: Runner) -> Iterator[None]:
    yield
    busybox("rm", "-f", "c", check=False)


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
    "nested": protocol.frame(protocol.ATTACH, NESTED),
    "nested object": protocol.frame(protocol.ATTACH, b'{"stdin":' * 100_000),
    "number": protocol.frame(protocol.ATTACH, b'{"stdin": true, "rows": ' + b"9" * 100_000 + b"}"),
    "surrogate": protocol.frame(protocol.ATTACH, b'{"stdin": "\\ud800"}'),
    "bytes": protocol.frame(protocol.ATTACH, b"\xff\xfe{}"),
    "signal": protocol.frame(protocol.SIGNAL, b"\xff"),
    "size": protocol.frame(protocol.RESIZE, b"\x00"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_ends_no_container(busybox: Runner, name: str) -> None:
    """A client is dropped for what it says; the container goes on."""
    busybox("run", "-d", "--name", "c", "--network", "none", "busybox", "sleep", "1000")
    runtime = busybox("info", "--format", "{{.RuntimeDir}}").stdout.strip()
    identity = busybox("inspect", "--format", "{{.Id}}", "c").stdout.strip()
    with socket.socket(socket.AF_UNIX) as connection:
        place = os.open(f"{runtime}/containers", os.O_PATH)
        connection.connect(f"/proc/self/fd/{place}/{identity}.sock")
        os.close(place)
        connection.sendall(FRAMES[name])
        time.sleep(0.5)
    time.sleep(0.5)
    assert busybox("inspect", "--format", "{{.State.Status}}", "c").stdout == "running\n"
