"""host.probes and host.doctor on the real kernel: true answers, remedies, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rootless.host import doctor, probes, subid
from rootless.host.facts import is_privileged
from rootless.host.probes.result import Probe
from rootless.kernel import procfs
from rootless.network.helper_choice import TriedHelper
from rootless.network.helper_trial import try_helper
from rootless.network.mode import HelperProgram
from rootless.network.modes import HELPERS
from rootless.storage import drivers as storage_drivers
from rootless.storage.drivers import all_drivers
from rootless.storage.drivers.choice import TriedDriver
from tests.conftest import REPOSITORY, Runner, require


def state() -> tuple[list[int], int]:
    return procfs.child_pids(os.getpid()), len(procfs.mountinfo())


def test_whole_report(store_root: Path, tmp_path: Path, has_range: bool) -> None:
    before = state()
    drivers = [TriedDriver(driver, subid.default_id_map(), str(tmp_path)) for driver in all_drivers()]
    sections = doctor.run_probes(str(store_root), [TriedHelper(one, str(tmp_path)) for one in HELPERS], drivers)
    assert state() == before
    assert os.listdir(store_root) == []
    found = {p.name: p for s in sections for p in s.probes}
    assert found["user_namespaces"].works
    assert all(s.is_usable for s in sections)
    if not is_privileged():
        assert found["id_ranges"].works == has_range
    for p in found.values():
        assert p.detail
        assert not p.detail.endswith(".")
        if not p.works and p.name != "keyring":
            assert p.remedy, f"{p.name} has no remedy"
    assert json.dumps([s.to_json() for s in sections])


def test_lack_of_a_range_names_the_line(has_range: bool, store_root: Path) -> None:
    found = probes.probe("id_ranges", str(store_root))
    assert found.works == has_range
    if not has_range:
        assert found.remedy
        assert "usermod --add-subuids" in found.remedy or "namespace" in found.remedy


@pytest.mark.parametrize("name", ["tun", "seccomp", "seccomp_listener", "keyring"])
def test_what_this_host_has_works(name: str, store_root: Path) -> None:
    found = probes.probe(name, str(store_root))
    require(found.works, f"{name}: {found.detail}")
    assert found.remedy is None


@pytest.mark.parametrize("driver", all_drivers(), ids=lambda driver: driver.name)
def test_storage_drivers_of_this_host_work(driver: storage_drivers.Driver, store_root: Path, tmp_path: Path) -> None:
    found = TriedDriver(driver, subid.default_id_map(), str(tmp_path)).probe(str(store_root))
    require(found.works, f"{driver.name}: {found.detail}")
    assert found.remedy is None
    assert os.listdir(store_root) == []


@pytest.mark.parametrize("helper", HELPERS, ids=[helper.name for helper in HELPERS])
def test_network_helpers_of_this_host_work(helper: HelperProgram, store_root: Path) -> None:
    found = try_helper(helper, str(store_root))
    require(found.works, f"{helper.name}: {found.detail}")
    assert bool(found.remedy) == bool(found.flaw)


def test_doctor_info_and_run_use_one_helper(busybox: Runner) -> None:
    """`doctor` named the first helper, and `run -p` took the one that forwarded ports well."""
    sections = json.loads(busybox("doctor", "--format", "json", check=False).stdout)
    verdict = next(section["verdict"] for section in sections if section["title"] == "network")
    require(" is used" in verdict, verdict)
    used = verdict.partition(" ")[0]
    assert busybox("info", "-f", "{{.Network}}").stdout.strip() == used
    for published in ((), ("-p", "127.0.0.1::80")):
        busybox("create", "--name", "chosen", *published, "busybox", "true")
        assert busybox("inspect", "-f", "{{.HostConfig.NetworkMode}}", "chosen").stdout.strip() == used
        busybox("rm", "chosen")


def test_a_listener_within_a_listener_is_none(tmp_path: Path) -> None:
    """The kernel allows one around a process: what a container inside an emulated root finds."""
    setup = (
        "import struct; from rootless.kernel import process; process.set_no_new_privs(); "
        "kept = process.load_filter(struct.pack('=HBBI', 6, 0, 0, 0x7fff0000), 8)"
    )
    found = inside_with(setup, "seccomp_listener", tmp_path)
    assert not found.works and "another listener" in found.detail and found.remedy


def inside_with(setup: str, name: str, directory: Path) -> Probe:
    """Probe `name` in a fresh interpreter, as root of a namespace with one id where `setup` broke something."""
    code = (
        "import json, os, sys\n"
        "from rootless.host import probes, subid, userns, idmap\n"
        "from rootless.kernel import mounts\n"
        "userns.enter_new_namespace(idmap.single_map(0, 0))\n"
        f"{setup}\n"
        "from rootless.network.helper_choice import TriedHelper\n"
        "from rootless.network.modes import HELPERS\n"
        "from rootless.storage.drivers import all_drivers\n"
        "from rootless.storage.drivers.choice import TriedDriver\n"
        "helpers = [TriedHelper(helper, '/proc') for helper in HELPERS]\n"
        "drivers = [TriedDriver(driver, subid.default_id_map(), '/proc') for driver in all_drivers()]\n"
        "helper = next((helper for helper in [*helpers, *drivers] if helper.name == sys.argv[1]), None)\n"
        "found = helper.probe(sys.argv[2]) if helper else probes.probe(sys.argv[1], sys.argv[2])\n"
        "print(json.dumps(found.to_json()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name, str(directory)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    return Probe(value["name"], value["works"], value["detail"], value["remedy"])


HIDE_DEVICES = "mounts.mount('tmpfs', '/dev', 'tmpfs', 0); open('/dev/null', 'w').close()"


@pytest.mark.parametrize(("name", "line"), [("fuse-overlayfs", "modprobe fuse"), ("tun", "modprobe tun")])
def test_device_absent(name: str, line: str, store_root: Path) -> None:
    found = inside_with(HIDE_DEVICES, name, store_root)
    assert not found.works
    assert found.remedy and line in found.remedy


def test_program_absent(store_root: Path) -> None:
    for name, package in (("pasta", "passt"), ("slirp4netns", "slirp4netns"), ("fuse-overlayfs", "fuse-overlayfs")):
        setup = "mounts.mount('tmpfs', '/usr/bin', 'tmpfs', 0)"
        found = inside_with(setup, name, store_root)
        assert not found.works
        assert found.remedy and package in found.remedy


def test_read_only_home(store_root: Path) -> None:
    setup = (
        "mounts.mount(sys.argv[2], sys.argv[2], None, mounts.MS_BIND)\n"
        "mounts.mount(None, sys.argv[2], None, mounts.MS_BIND | mounts.MS_REMOUNT | mounts.MS_RDONLY)"
    )
    found = inside_with(setup, "data_directory", store_root)
    assert not found.works
    assert "Read-only file system" in found.detail
    assert found.remedy and "ROOTLESS_ROOT" in found.remedy


def test_no_exec_home(store_root: Path) -> None:
    setup = "mounts.mount('tmpfs', sys.argv[2], 'tmpfs', mounts.MS_NOEXEC)"
    assert "noexec" in inside_with(setup, "data_directory", store_root).detail


def test_overlay_says_what_the_filesystem_lacks(store_root: Path) -> None:
    """An upper layer on overlayfs itself is refused by the kernel; the probe must not promise it."""
    setup = (
        "base = sys.argv[2]\n"
        "for n in ('l', 'u', 'w', 'm'): os.mkdir(f'{base}/{n}')\n"
        "o = f'lowerdir={base}/l,upperdir={base}/u,workdir={base}/w,userxattr'\n"
        "mounts.mount('overlay', f'{base}/m', 'overlay', 0, o)\n"
        "sys.argv[2] = f'{base}/m'"
    )
    found = inside_with(setup, "overlay", store_root)
    assert not found.works
    assert found.remedy


def test_runtime_directory_of_somebody_else(monkeypatch: pytest.MonkeyPatch, store_root: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/")
    found = probes.probe("runtime_directory", str(store_root))
    if os.stat("/").st_uid != os.geteuid():
        assert "not yours" in found.detail
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(store_root))
    store_root.chmod(0o777)
    found = probes.probe("runtime_directory", str(store_root))
    store_root.chmod(0o700)
    assert not found.works
    assert found.remedy == f"chmod 0700 {store_root}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"{store_root}/nothing")
    assert "No such file" in probes.probe("runtime_directory", str(store_root)).detail
