"""What runtime-spec 1.1 to 1.3 added: idmapped mounts, interfaces that move in; notify; what is refused by name."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess

from tests.conftest import oci_command_path, require
from tests.integration.runtime.bundle import Bundle


def test_idmapped_tmpfs(bundle: Bundle, has_range: bool) -> None:
    require(has_range, "one id cannot be mapped to another")
    of_host = next(e for e in bundle.config["linux"]["uidMappings"] if e["size"] > 10)
    fifth = of_host["hostID"] + 5 - of_host["containerID"]
    ids = [{"containerID": 0, "hostID": fifth, "size": 1}]
    bundle.config["mounts"].append(
        {"destination": "/m", "type": "tmpfs", "options": ["idmap", "mode=755"], "uidMappings": ids, "gidMappings": ids}
    )
    done = bundle.sh("stat -c %u:%g /m", check=False)
    require("knows no idmapped mounts" not in done.stderr, "this host's kernel has no idmapped tmpfs (Linux 6.3)")
    assert done.stdout == "5:5\n", done.stderr


def test_idmapped_directory_of_the_host_is_refused_by_name(bundle: Bundle) -> None:
    own = bundle.config["linux"]["uidMappings"][0]["hostID"]
    ids = [{"containerID": 0, "hostID": own, "size": 1}]
    bundle.mount("/usr", "/m")
    bundle.config["mounts"][-1] |= {"uidMappings": ids, "gidMappings": ids}
    done = bundle.run("true", check=False)
    assert done.returncode == 1 and f"mounts[{len(bundle.config['mounts']) - 1}]" in done.stderr
    bundle.config["mounts"][-1]["uidMappings"] = [{"containerID": 0, "hostID": 4_000_000_000, "size": 1}]
    assert "are not among the container's" in bundle.run("true", check=False).stderr


def test_interface_of_an_own_network_moves_in(bundle: Bundle) -> None:
    """linux.netDevices: name, global addresses and state, from a network namespace that is the caller's."""
    ip = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin")
    require(ip, "ip is not installed (apt-get install iproute2)")
    bundle.config["linux"]["netDevices"] = {"outer0": {"name": "inner0"}}
    # inside `unshare --map-root-user` there is one id, 0
    for key in ("uidMappings", "gidMappings"):
        bundle.config["linux"][key] = [{"containerID": 0, "hostID": 0, "size": 1}]
    script = "ls /sys/class/net; cat /sys/class/net/inner0/flags; ip addr show inner0"
    (bundle.root / "bin/ip").symlink_to("busybox")
    bundle.config["process"]["args"] = ["sh", "-c", script]
    bundle.save()
    command = shlex.join([*oci_command_path(), "--root", str(bundle.records), "run", "c"])
    inside = f"{ip} tuntap add dev outer0 mode tap && {ip} addr add 10.9.8.7/24 dev outer0 && echo made && {command}"
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-c", inside],
        cwd=bundle.path, capture_output=True, text=True, timeout=60, env=bundle.environment, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    require("made" in done.stdout, f"this host has no tap interfaces: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "inner0" in done.stdout.split() and "inet 10.9.8.7/24" in done.stdout
    flags = next(word for word in done.stdout.split() if word.startswith("0x"))
    assert int(flags, 16) & 1, "the interface is down"


def test_interface_that_is_not_ours_is_refused_by_name(bundle: Bundle) -> None:
    bundle.config["linux"]["netDevices"] = {"lo": {"name": "x"}}
    done = bundle.run("true", check=False)
    assert done.returncode == 1 and "linux.netDevices.lo" in done.stderr
    assert not list(bundle.records.iterdir())


def test_mode_of_a_device_that_is_not_the_hosts_is_said(bundle: Bundle) -> None:
    bundle.config["linux"]["devices"] = [
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 0, "gid": 0}
    ]
    assert "device '/dev/null' has mode 0666" in bundle.run("true").stderr
    bundle.config["linux"]["devices"][0]["fileMode"] = 0o20666
    assert "device" not in bundle.run("true").stderr


def test_notify_socket_of_run(bundle: Bundle) -> None:
    """Only READY=1 is passed on, with our pid for it: not a MAINPID of the container's choice."""
    import socket

    (bundle.root / "say").write_text("#!/bin/sh\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = bundle.path / "manager"
        manager.bind(str(address))
        manager.settimeout(60)
        # what could not be deleted again cannot be planted beside the socket either
        script = "mkdir -p /run/notify/planted/deep 2>/dev/null; ls -d $NOTIFY_SOCKET; sleep 1000"
        bundle.config["process"]["args"] = ["sh", "-c", script]
        bundle.save()
        process = subprocess.Popen(
            [*oci_command_path(), "--root", str(bundle.records), "run", "c"], cwd=bundle.path,
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env={**bundle.environment, "NOTIFY_SOCKET": str(address)},
        )  # fmt: skip
        assert process.stdout
        with process.stdout:
            assert process.stdout.readline() == b"/run/notify/notify.sock\n"
            assert os.listdir(bundle.records / "c/notify") == ["notify.sock"]
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as container:
                container.sendto(b"STATUS=x\nMAINPID=1", str(bundle.records / "c/notify/notify.sock"))
                container.sendto(b"MAINPID=1\nREADY=1", str(bundle.records / "c/notify/notify.sock"))
            pid = json.loads(bundle.oci("state", "c").stdout)["pid"]
            assert manager.recv(1000).decode() == f"READY=1\nMAINPID={pid}"
            bundle.oci("kill", "c", "KILL")
            assert process.wait(60) == 137
    assert not list(bundle.records.iterdir())


def test_checkpoint_and_restore_say_why_not(bundle: Bundle) -> None:
    bundle.up()
    for verb in ("checkpoint", "restore"):
        done = bundle.oci(verb, "--image-path", "/tmp/x", "c", check=False)
        assert done.returncode == 1 and "CAP_CHECKPOINT_RESTORE" in done.stderr, done.stderr
    assert json.loads(bundle.oci("state", "c").stdout)["status"] == "running"
    assert "does not exist" in bundle.oci("checkpoint", "nope", check=False).stderr
    assert os.path.exists(bundle.path)
