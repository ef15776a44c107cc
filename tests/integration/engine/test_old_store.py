"""A store that the version before the typed records made: every verb goes on working with it.

old_stores/0.1.0.tar.zst was written by a user with uid 1001 and the range 100000:65536; paths and id maps in its
records are replaced by this user's own, which is what that version would have written here.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from rootless.host import idmap, subid
from tests.conftest import Runner, owns_range, require

ARCHIVE = Path(__file__).parent / "old_stores/0.1.0.tar.zst"
OLD_ROOT = "/home/rootless-test/base/store"


@pytest.fixture(params=["in its place"])
def old(rootless: Runner, store_root: Path, request: pytest.FixtureRequest) -> Runner:
    """Run `rootless ARGS...` on the old store, of which a test may want that it was moved since it was made."""
    require(platform.machine() == "x86_64", "the stored image has a program for x86_64")
    require(owns_range(), "this user has no subordinate ids, and the old store's containers have a range")
    require(shutil.which("zstd"), "no zstd on this host (apt-get install zstd)")
    require(shutil.which("pasta"), "no pasta on this host (apt-get install passt)")
    require(os.access("/dev/net/tun", os.R_OK | os.W_OK), "/dev/net/tun may not be opened")
    tar = subprocess.run(["zstd", "-dc", ARCHIVE], check=True, capture_output=True).stdout
    arguments = ["--extract", "--strip-components=1", "--same-permissions", "--no-same-owner"]
    subprocess.run(["tar", "-C", store_root, *arguments], input=tar, check=True)
    id_map = idmap.default_map(subid.subordinate_ids(), os.getuid(), os.getgid()).to_json()
    for path in store_root.glob("containers/*/*.json"):
        text = path.read_text()
        value = json.loads(text if request.param == "moved" else text.replace(OLD_ROOT, str(store_root)))
        if "id_map" in value:
            value["id_map"] = id_map
        if path.name == "config.json":
            for key, kind in (("uidMappings", "uids"), ("gidMappings", "gids")):
                value["linux"][key] = [
                    {"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in id_map[kind]
                ]
        path.write_text(json.dumps(value))
    return rootless


def test_what_it_has_is_seen(old: Runner) -> None:
    names = old("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    assert {"base:1", "old:2", "second:name", "snap:3"} <= {name.removeprefix("localhost/") for name in names}
    rows = old("ps", "-a", "--format", "{{.Names}} {{.Status}}").stdout.splitlines()
    shown = {row.split()[0]: " ".join(row.split()[1:3]) for row in rows}
    assert shown["waiting"] == "Created" and shown["ended"] == "Exited (0)" and shown["failed"] == "Exited (7)"
    assert old("logs", "ended").stdout == "one\nrun\n"
    inspected = json.loads(old("inspect", "failed").stdout)[0]
    assert inspected["State"]["ExitCode"] == 7 and inspected["State"]["Health"]["Status"] == "starting"
    assert inspected["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 1}
    assert inspected["NetworkSettings"]["IPPrefixLen"] == 24
    assert json.loads(old("volume", "inspect", "kept").stdout)[0]["Name"] == "kept"
    old("system", "check")


@pytest.mark.parametrize("old", ["in its place", "moved"], indirect=True)
def test_its_containers_start(old: Runner, store_root: Path) -> None:
    count = store_root / "volumes/kept/_data/count"
    before = count.read_text()
    waiting = json.loads(old("inspect", "waiting").stdout)[0]
    assert old("start", "-a", "waiting").stdout.split() == waiting["Args"]
    assert old("start", "-a", "ended").stdout == "one\nrun\n"
    assert len(count.read_text()) > len(before)
    assert json.loads(old("inspect", "ended").stdout)[0]["State"]["ExitCode"] == 0
    state = json.loads((store_root / "containers" / waiting["Id"] / "state.json").read_text())
    assert state["version"] == 1  # its monitor is ours: what it writes has a version
    old("system", "check")


def test_its_images_run_and_its_containers_go(old: Runner) -> None:
    assert old("run", "--rm", "old:2", "hello", "you").stdout.split()[-2:] == ["hello", "you"]
    old("commit", "ended", "committed:1")
    assert old("run", "--rm", "committed:1", "again").stdout.split()[-1] == "again"
    old("rename", "failed", "renamed")
    old("update", "--restart", "no", "renamed")
    old("rm", "renamed", "waiting", "ended")
    assert old("ps", "-aq").stdout == ""
    old("system", "check")
