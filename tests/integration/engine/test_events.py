"""The stream of events: a whole life of a container, of an image and of a volume, as docker tells it; and following."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Runner, command_path

pytestmark = pytest.mark.once


def actions(busybox: Runner, *filters: str) -> list[str]:
    words = [word for text in filters for word in ("--filter", text)]
    return busybox("events", "--since=1h", "--stream=false", *words, "--format={{.Action}}").stdout.splitlines()


def test_the_life_of_a_container(busybox: Runner) -> None:
    busybox("run", "-d", "--name=life", "--network=none", "--label=tier=a", "busybox", "sleep", "1000")
    busybox("exec", "life", "true")
    busybox("pause", "life")
    busybox("unpause", "life")
    busybox("rename", "life", "lives")
    busybox("stop", "-t0", "lives")
    busybox("start", "lives")
    busybox("kill", "lives")
    busybox("rm", "lives")
    found = [action.partition(":")[0] for action in actions(busybox, "label=tier=a", "type=container")]
    # who stops a container and its monitor both note the end: their order is nobody's promise
    assert found[:7] == ["create", "start", "exec_create", "exec_start", "exec_die", "pause", "unpause"]
    assert found[7] == "rename" and sorted(found[8:10]) == ["die", "stop"]
    assert found[10:] == ["start", "kill", "die", "destroy"]


def test_an_end_has_its_exit_code_and_rm_is_told_by_the_monitor(busybox: Runner) -> None:
    busybox("run", "--rm", "--name=seven", "--network=none", "busybox", "sh", "-c", "exit 7", check=False)
    told = busybox("events", "--since=1h", "--stream=false", "--filter=container=seven", "--format=json").stdout
    events = [json.loads(line) for line in told.splitlines()]
    assert [event["Action"] for event in events] == ["create", "start", "die", "destroy"]
    died = events[2]
    assert died["Actor"]["Attributes"]["exitCode"] == "7" and died["Actor"]["Attributes"]["image"] == "busybox"
    assert died["status"] == "die" and died["id"] == events[0]["id"] and died["timeNano"] // 10**9 == died["time"]


def test_health_is_told_when_it_changes(busybox: Runner) -> None:
    flags = ("--health-cmd=true", "--health-interval=100ms", "--network=none", "--name=well")
    follower = subprocess.Popen(
        [*command_path(), "events", "--since=1h", "--filter=event=health_status", "--format={{.Action}} {{.Name}}"],
        env=environment(busybox), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        busybox("run", "-d", *flags, "busybox", "sleep", "1000")
        assert follower.stdout is not None
        assert follower.stdout.readline() == "health_status: healthy well\n"
    finally:
        follower.kill()
        follower.wait()
        busybox("rm", "-f", "well")


def environment(busybox: Runner) -> dict[str, str]:
    """The variables that the runner gives its commands."""
    import inspect

    found: dict[str, str] = inspect.getclosurevars(busybox).nonlocals["environment"]
    return found


def test_images_and_volumes(busybox: Runner, tmp_path: Path) -> None:
    busybox("tag", "busybox", "events/other:1")
    busybox("save", "-o", str(tmp_path / "i.tar"), "events/other:1")
    busybox("rmi", "events/other:1")
    busybox("volume", "create", "evented")
    busybox("volume", "rm", "evented")
    found = actions(busybox, "type=image")
    assert [a for a in found if a in ("import", "tag", "save", "untag")] == ["import", "tag", "save", "untag"]
    assert actions(busybox, "type=volume", "volume=evented") == ["create", "destroy"]


def test_an_image_event_has_the_images_id_and_name(busybox: Runner) -> None:
    """As docker's: Actor.ID is the image's id, the name is the one that came or went; layers have no events."""
    busybox("run", "--name=left", "--network=none", "busybox", "touch", "/new")
    image_id = busybox("commit", "-q", "-c", "LABEL events=pruned", "left", "events/pruned:1").stdout.strip()
    busybox("rm", "left")
    busybox("tag", "events/pruned:1", "events/second:1")
    busybox("image", "prune", "-af", "--filter=label=events=pruned")
    told = busybox("events", "--since=1h", "--stream=false", "--filter=type=image", "--format=json").stdout
    found = [json.loads(line) for line in told.splitlines()]
    seen = [
        (event["Action"], event["Actor"]["ID"], event["Actor"]["Attributes"].get("name"))
        for event in found
        if event["Action"] in ("tag", "untag", "delete")
    ]
    assert sorted(entry for entry in seen if entry[1] == image_id) == [
        ("delete", image_id, image_id),
        ("tag", image_id, "events/second:1"),
        ("untag", image_id, "events/pruned:1"),
        ("untag", image_id, "events/second:1"),
    ]
    assert all(entry[1].startswith("sha256:") for entry in seen)


def test_the_past_has_an_end(busybox: Runner) -> None:
    assert busybox("events", "--since=1h", "--until=59m").stdout == ""
    line = busybox("events", "--since=1h", "--until=0s", "--filter=type=image").stdout.splitlines()[0]
    moment, kind, action, *_ = line.split()
    assert (kind, action) == ("image", "import") and "T" in moment and "." in moment
    assert busybox("events", "--filter=nothing=1", check=False).returncode == 125
