"""config-linux.md, devices: what is always there, what is asked for, and what must not be reached."""

from __future__ import annotations

import stat

from tests.conformance.harness import Box, NotApplicable, case

DEFAULT = "config-linux.md#default-devices"
DEVICES = "config-linux.md#devices"
NODES = {"/dev/null": (1, 3), "/dev/zero": (1, 5), "/dev/full": (1, 7), "/dev/random": (1, 8), "/dev/urandom": (1, 9),
         "/dev/tty": (5, 0)}  # fmt: skip


@case(DEFAULT)
def default_devices(box: Box) -> None:
    """null, zero, full, random, urandom and tty are there, whatever the configuration lists"""
    seen = box.probe(*NODES)["paths"]
    for path, numbers in NODES.items():
        assert seen[path] and seen[path]["kind"] == "char", path
        assert (seen[path]["major"], seen[path]["minor"]) == numbers, path


@case(DEFAULT)
def default_devices_work(box: Box) -> None:
    """null reads as empty, zero and urandom give bytes, full cannot be written"""
    seen = box.probe(*NODES)["paths"]
    assert seen["/dev/null"]["read"] == 0 and seen["/dev/null"]["write_errno"] == 0
    assert seen["/dev/zero"]["read"] == seen["/dev/urandom"]["read"] == 16
    assert "No space left" in box.sh("echo x > /dev/full").err


@case(DEFAULT)
def ptmx(box: Box) -> None:
    """/dev/ptmx leads to the container's own devpts"""
    seen = box.probe("/dev/ptmx", "/dev/pts/ptmx")["paths"]
    assert seen["/dev/ptmx"]["kind"] == "link" and seen["/dev/ptmx"]["target"].endswith("pts/ptmx")
    assert seen["/dev/pts/ptmx"]["kind"] == "char"


@case("runtime-linux.md#dev-symbolic-links")
def links(box: Box) -> None:
    """/dev/fd, stdin, stdout and stderr are links into /proc/self/fd"""
    wanted = {"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1",
              "/dev/stderr": "/proc/self/fd/2"}  # fmt: skip
    seen = box.probe(*wanted)["paths"]
    assert {path: entry["target"] for path, entry in seen.items()} == wanted


@case(DEVICES)
def listed_device(box: Box) -> None:
    """a device of linux.devices that the host has is in the container"""
    try:
        numbers = _numbers("/dev/fuse")
    except OSError:
        raise NotApplicable("this host has no /dev/fuse") from None
    box.linux["devices"] = [{"path": "/dev/fuse", "type": "c", "major": numbers[0], "minor": numbers[1]}]
    seen = box.probe("/dev/fuse")["paths"]["/dev/fuse"]
    assert (seen["kind"], seen["major"], seen["minor"]) == ("char", *numbers)


@case(DEVICES)
def fifo(box: Box) -> None:
    """a fifo is made with its mode and owner"""
    box.linux["devices"] = [{"path": "/dev/pipe", "type": "p", "fileMode": 0o620, "uid": 0, "gid": 0}]
    seen = box.probe("/dev/pipe")["paths"]["/dev/pipe"]
    assert seen["kind"] == "fifo" and seen["mode"] == 0o620


@case(DEVICES)
def device_that_nobody_has_is_an_error(box: Box) -> None:
    """a device that cannot be provided is an error"""
    box.linux["devices"] = [{"path": "/dev/moon", "type": "c", "major": 4001, "minor": 7}]
    box.must_fail()


@case(DEVICES)
def wrong_file_in_place_of_a_device_is_an_error(box: Box) -> None:
    """a file of another kind at a device's path is an error, or is covered by the right device"""
    box.config["mounts"] = [m for m in box.config["mounts"] if not m["destination"].startswith("/dev")]
    (box.root / "dev").mkdir(exist_ok=True)
    (box.root / "dev/zero").write_text("nonsense")
    done = box.run("/bin/probe", "/dev/zero")
    if not done.failed:
        import json

        assert json.loads(done.out)["paths"]["/dev/zero"]["kind"] == "char"


@case(DEVICES)
def no_other_devices(box: Box) -> None:
    """no device of the host but the listed ones is in /dev"""
    names = set(box.must_run("/bin/ls", "/dev").out.split())
    allowed = {"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts", "shm", "mqueue", "fd",
               "stdin", "stdout", "stderr", "core"}  # fmt: skip
    assert names <= allowed, names - allowed


@case(DEVICES)
def device_nodes_cannot_be_made(box: Box) -> None:
    """the program cannot make a node of a block device"""
    assert box.sh("mknod /tmp/disk b 8 0").failed


def _numbers(path: str) -> tuple[int, int]:
    import os

    status = os.stat(path)
    assert stat.S_ISCHR(status.st_mode)
    return os.major(status.st_rdev), os.minor(status.st_rdev)
