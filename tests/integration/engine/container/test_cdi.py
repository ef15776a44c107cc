"""Devices by CDI, from a specification that was made up: --device VENDOR/CLASS=NAME, --gpus, `cdi list`, `validate`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Runner, make_private_directory, remove_private_directory, require

NONE = "--network=none"
Spec = dict[str, object]


class Site:
    """A directory of specifications, and `rootless ARGS...` with the setting that names it."""

    def __init__(self, runner: Runner, directory: Path) -> None:
        self.runner = runner
        self.directory = directory / "cdi"
        self.directory.mkdir(mode=0o700)
        self.library = directory / "libmade.so"
        self.library.write_text("made up\n")
        self.seen = directory / "seen"
        self.hook = directory / "hook"
        seen = f"{self.seen}.$1"
        self.hook.write_text(f"#!/bin/sh\n/bin/cat >{seen}.state\n/usr/bin/env >{seen}.env\n/bin/pwd >{seen}.cwd\n")
        self.hook.chmod(0o700)

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        env = {"ROOTLESS_CDI_SPEC_DIRS": str(self.directory), "SECRET": "of the caller"}
        return self.runner(*arguments, check=check, env=env)

    def write(self, spec: Spec, name: str = "made.json") -> Path:
        path = self.directory / name
        path.write_text(json.dumps(spec))
        path.chmod(0o600)
        return path

    def spec(self) -> Spec:
        return {
            "cdiVersion": "0.7.0",
            "kind": "made.example/thing",
            "containerEdits": {
                "env": ["MADE=common", "HOME=/made"],
                "mounts": [
                    {
                        "hostPath": str(self.library),
                        "containerPath": "/opt/made/lib.so",
                        "options": ["ro", "nosuid", "nodev", "bind"],
                    }
                ],
                "hooks": [
                    *(
                        {"hookName": stage, "path": str(self.hook), "args": ["hook", stage], "env": ["GIVEN=yes"]}
                        for stage in ("createRuntime", "createContainer")
                    ),
                    {"hookName": "startContainer", "path": "/bin/mkdir", "args": ["mkdir", "/by-hook"]},
                ],
            },
            "devices": [
                {
                    "name": "one",
                    "containerEdits": {
                        "deviceNodes": [
                            {"path": "/dev/made/one", "hostPath": "/dev/zero"},
                            {"path": "/dev/absent-of-cdi"},
                        ],
                        "env": ["ONE=1"],
                    },
                },
                {
                    "name": "two",
                    "containerEdits": {"deviceNodes": [{"path": "/dev/made/two", "hostPath": "/dev/null"}]},
                },
            ],
        }


@pytest.fixture
def site(busybox: Runner) -> Iterator[Site]:
    directory = make_private_directory("c")
    yield Site(busybox, directory)
    remove_private_directory(directory)


def test_nodes_files_variables_and_hooks_of_a_device(site: Site) -> None:
    site.write(site.spec())
    script = (
        "head -c 3 /dev/made/one | wc -c; cat /opt/made/lib.so; echo $MADE $ONE $HOME; test -d /by-hook && echo hooked;"
        "test -e /dev/made/two || echo one only; touch /opt/made/lib.so 2>/dev/null || echo sealed"
    )
    done = site(
        "run",
        "--rm",
        NONE,
        "-e",
        "MADE=mine",
        "-e",
        "LD_PRELOAD=/evil.so",
        "--device",
        "made.example/thing=one",
        "busybox",
        "sh",
        "-c",
        script,
    )
    assert done.stdout.split("\n")[:-1] == ["3", "made up", "common 1 /made", "hooked", "one only", "sealed"]
    warned = [line for line in done.stderr.splitlines() if "absent" in line]
    assert len(warned) == 1 and "left out, as this host lacks them: /dev/absent-of-cdi" in warned[0]
    assert "made.json" in warned[0]
    for stage in ("createRuntime", "createContainer"):
        # CVE-2025-23266: an image's LD_PRELOAD, or its files below the working directory, must not reach programs that
        # run with the host's files. The environment is the specification's alone, but for what the shell sets
        names = {line.partition("=")[0] for line in Path(f"{site.seen}.{stage}.env").read_text().splitlines()}
        assert "GIVEN" in names and names <= {"GIVEN", "PWD", "SHLVL", "_", "OLDPWD"}, stage
        assert not Path(f"{site.seen}.{stage}.cwd").read_text().rstrip().endswith("/rootfs"), stage
        assert json.loads(Path(f"{site.seen}.{stage}.state").read_text())["status"] in ("creating", "created")


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_another_runtime_gets_the_same(site: Site, runtime: str) -> None:
    require(shutil.which(runtime, path="/usr/bin:/usr/sbin:/usr/local/bin"), f"no {runtime} on this host")
    site.write(site.spec())
    script = "head -c 3 /dev/made/one | wc -c; cat /opt/made/lib.so; echo $MADE; test -d /by-hook && echo hooked"
    arguments = ("--runtime", runtime, "--device", "made.example/thing=one", "busybox", "sh", "-c", script)
    assert site("run", "--rm", NONE, *arguments).stdout.split("\n")[:-1] == ["3", "made up", "common", "hooked"]
    assert Path(f"{site.seen}.createRuntime.state").exists()


def test_all_devices_of_a_kind_and_beside_a_plain_node(site: Site) -> None:
    site.write(site.spec())
    arguments = ("--device", "made.example/thing=all", "--device", "/dev/zero:/dev/plain", "busybox", "ls", "/dev/made")
    assert site("run", "--rm", NONE, *arguments).stdout.split() == ["one", "two"]


def test_a_start_reads_the_specification_again(site: Site) -> None:
    """As after a reboot: the driver is another one, and the container gets what its specification says now."""
    spec = site.spec()
    site.write(spec)
    script = "echo $MADE $ONE; ls /dev/made /opt/made"
    site("create", "--name", "again", NONE, "--device", "made.example/thing=one", "busybox", "sh", "-c", script)
    assert site("start", "-a", "again").stdout.split() == ["common", "1", "/dev/made:", "one", "/opt/made:", "lib.so"]
    devices = [
        {
            "name": "one",
            "containerEdits": {"env": ["ONE=new"], "deviceNodes": [{"path": "/dev/made/new", "hostPath": "/dev/null"}]},
        }
    ]
    site.write({**spec, "containerEdits": {}, "devices": devices})
    # /opt/made/lib.so is left as the empty file on which the library was mounted
    assert site("start", "-a", "again").stdout.split() == ["new", "/dev/made:", "new", "/opt/made:", "lib.so"]
    shown = json.loads(site("inspect", "again").stdout)[0]
    assert shown["HostConfig"]["DeviceRequests"][0]["DeviceIDs"] == ["made.example/thing=one"]
    assert "ONE=new" in shown["Config"]["Env"] and "MADE=common" not in shown["Config"]["Env"]
    # what the devices set is the host's, and no part of an image that is made of the container
    site("commit", "again", "committed")
    env = json.loads(site("image", "inspect", "committed").stdout)[0]["Config"]["Env"]
    assert not any(entry.startswith(("ONE=", "MADE=")) for entry in env)
    (site.directory / "made.json").unlink()
    lost = site("start", "again", check=False)
    assert lost.returncode != 0 and "unresolvable CDI devices made.example/thing=one" in lost.stderr
    site("rm", "again")


def test_gpus(site: Site) -> None:
    refused = site("run", "--rm", NONE, "--gpus", "all", "busybox", "true", check=False)
    assert refused.returncode == 125
    assert 'could not select device driver "" with capabilities: [[gpu]]' in refused.stderr
    assert "nvidia-ctk cdi generate" in refused.stderr
    node = {"hostPath": "/dev/null"}
    devices = [
        {"name": name, "containerEdits": {"deviceNodes": [{**node, "path": f"/dev/gpu{name}"}]}} for name in "120"
    ]
    site.write({"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices})

    def given(value: str) -> list[str]:
        listed = site("run", "--rm", NONE, "--gpus", value, "busybox", "sh", "-c", "ls /dev | grep gpu")
        return listed.stdout.split()

    assert given("all") == ["gpu0", "gpu1", "gpu2"]
    assert given("2") == ["gpu0", "gpu1"]
    assert given('"device=1,2"') == ["gpu1", "gpu2"]
    many = site("run", "--rm", NONE, "--gpus", "4", "busybox", "true", check=False)
    assert many.returncode == 125 and "this host has 3 devices nvidia.com/gpu" in many.stderr


def test_a_file_that_others_may_write_is_refused_by_name(site: Site) -> None:
    """Its hooks would let them run programs as the caller. Other hostile files: tests/unit/engine/test_cdi.py."""
    path = site.write(site.spec())
    path.chmod(0o666)
    done = site("run", "--rm", NONE, "--device", "made.example/thing=one", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "unresolvable CDI devices made.example/thing=one" in done.stderr
    assert f"others may write '{path}'" in done.stderr
    checked = site("cdi", "validate", check=False)
    assert checked.returncode == 1 and f"others may write '{path}'" in checked.stderr


def test_list_and_validate(site: Site) -> None:
    path = site.write(site.spec())
    assert site("cdi", "list", "-q").stdout.split() == ["made.example/thing=one", "made.example/thing=two"]
    assert site("cdi", "list").stdout.split()[:2] == ["DEVICE", "FILE"]
    assert site("cdi", "validate").stdout == f"{path}: 2 devices made.example/thing\n"
    site.write(site.spec(), "second.json")
    assert site("cdi", "list", "-q").stdout == ""
    twice = site("cdi", "validate", check=False)
    assert twice.returncode == 1 and "both describe the device 'made.example/thing=one'" in twice.stderr


def test_a_missing_file_is_an_error(site: Site) -> None:
    site.write(site.spec())
    site.library.unlink()
    done = site("create", "--device", "made.example/thing=one", "busybox", "true", check=False)
    assert done.returncode == 125 and f"mounts '{site.library}', which this host does not have" in done.stderr
