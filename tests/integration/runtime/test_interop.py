"""Bundles of others run by us, and ours run by runc."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from tests.conftest import require
from tests.integration.runtime.bundle import Bundle


def program(name: str) -> str:
    path = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
    require(path, f"{name} is not installed (apt-get install {name})")
    assert path
    return path


def nested() -> bool:
    return Path("/proc/self/uid_map").read_text().split()[2] == "1"


def test_bundle_of_runc_spec(bundle: Bundle) -> None:
    subprocess.run([program("runc"), "spec", "--rootless"], cwd=bundle.path, check=True, timeout=60)
    bundle.config = json.loads((bundle.path / "config.json").read_text())
    bundle.config["process"]["terminal"] = False
    done = bundle.sh("id -u; touch /x || exit 3", check=False)
    assert done.stdout == "0\n" and done.returncode == 3


def test_our_bundle_under_runc(bundle: Bundle, tmp_path: Path) -> None:
    require(not nested() and os.geteuid() != 0, "runc wants a plain user here")
    bundle.config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    bundle.config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    # runc of Debian 12 cannot mount a cgroup tree for a user on a hybrid host
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] not in ("cgroup",)]
    bundle.config["process"]["args"] = ["sh", "-c", "hostname; exit 4"]
    bundle.save()
    done = subprocess.run(
        [program("runc"), "--root", str(tmp_path / "runc"), "run", f"x{os.getpid()}"],
        cwd=bundle.path, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (4, "rootless\n"), done.stderr


def test_bundle_of_umoci(bundle: Bundle) -> None:
    umoci = program("umoci")
    require(os.geteuid() != 0, "umoci --rootless wants a user")

    def run(*words: str) -> None:
        subprocess.run([umoci, *words], cwd=bundle.path, check=True, capture_output=True, timeout=120)

    run("init", "--layout", "image")
    run("new", "--image", "image:one")
    run("unpack", "--rootless", "--image", "image:one", "unpacked")
    target = bundle.path / "unpacked/rootfs"
    shutil.copytree(bundle.root, target, dirs_exist_ok=True, symlinks=True)
    config = json.loads((bundle.path / "unpacked/config.json").read_text())
    config["process"]["terminal"] = False
    config["process"]["args"] = ["/bin/sh", "-c", "echo $$; exit 6"]
    (bundle.path / "unpacked/config.json").write_text(json.dumps(config))
    done = bundle.oci("run", "--bundle", "unpacked", "c", check=False)
    assert (done.returncode, done.stdout) == (6, "1\n"), done.stderr


def test_features_are_well_formed(bundle: Bundle) -> None:
    features = json.loads(bundle.oci("features").stdout)
    assert {"rro", "rbind", "nosymfollow"} <= set(features["mountOptions"])
    assert features["hooks"][0] == "prestart" and "time" in features["linux"]["namespaces"]
    assert features["linux"]["cgroup"]["v2"] is True


def test_spec_is_not_overwritten(bundle: Bundle) -> None:
    bundle.oci("spec")
    assert json.loads((bundle.path / "config.json").read_text())["root"] == {"path": "rootfs", "readonly": True}
    done = bundle.oci("spec", check=False)
    assert done.returncode == 1 and "exists" in done.stderr
