"""Which paths of a container's files follow its store, and which are somebody else's."""

from __future__ import annotations

import pytest

from rootless.records.container import ContainerRecord, RecordedMount
from rootless.records.id_map import IdMap
from rootless.records.launch import EventsPlan, LaunchPlan, LogPlan, RemovePlan, VolumeSeed
from rootless.records.rootfs import RootfsPlan
from rootless.storage.store import moved_paths

OLD, NEW = "/old/store", "/new/place"
DIRECTORY = f"{OLD}/containers/c0ffee"
MOVE = moved_paths.move_from(OLD, NEW)
NO_IDS = IdMap([], [], "single")


@pytest.mark.parametrize("path", ["/old/store2/x", "/elsewhere", "", "/old", "old/store/x"])
def test_other_paths_stay(path: str) -> None:
    assert MOVE(path) == path


@pytest.mark.parametrize(
    ("directory", "root"),
    [(DIRECTORY, OLD), ("/containers/x", ""), ("", ""), ("x", ""), ("/old/store/x/y", ""), ("/a/containers/", "")],
)
def test_the_old_root_is_found_or_it_is_not(directory: str, root: str) -> None:
    launch, record = LaunchPlan("c0ffee", NO_IDS), ContainerRecord("c0ffee", "c", NO_IDS)
    launch.log = LogPlan("json-file", f"{directory}/log" if directory else "")
    record.names_directory = directory
    assert moved_paths.old_root_of_launch(launch) == moved_paths.old_root_of_record(record) == root


def test_nothing_of_a_launch_leads_to_the_old_place() -> None:
    launch = LaunchPlan("c0ffee", NO_IDS)
    launch.bundle = DIRECTORY
    launch.log = LogPlan("json-file", f"{DIRECTORY}/log")
    launch.rootfs = RootfsPlan("overlay", DIRECTORY, [f"{OLD}/layers/a/diff", f"{OLD}/layers/b/diff"])
    launch.rootfs.work = f"{DIRECTORY}/work"
    launch.rootfs.content = f"{OLD}/layers"
    launch.seed_volumes = [VolumeSeed(f"{OLD}/volumes/v/_data", "/v")]
    launch.events = EventsPlan(f"{OLD}/events.log", {"label": f"{OLD}/of the user"})
    launch.remove = RemovePlan(f"{OLD}/names/c", DIRECTORY, [f"{OLD}/volumes/v"])
    moved_paths.move_launch(launch, MOVE)
    text = str(launch.to_json())
    assert text.count(OLD) == 1 and f"{OLD}/of the user" in text
    assert launch.rootfs.lowerdirs == [f"{NEW}/layers/a/diff", f"{NEW}/layers/b/diff"]


def test_sources_of_mounts_follow_and_what_the_user_mounts_does_not() -> None:
    record = ContainerRecord("c0ffee", "c", NO_IDS)
    record.mounts = [
        RecordedMount("volume", f"{OLD}/volumes/v/_data", "/v", name="v", read_only=False),
        RecordedMount("bind", "/home/me", "/me", name="", read_only=False),
    ]
    moved_paths.move_record(record, MOVE)
    assert [mount.source for mount in record.mounts] == [f"{NEW}/volumes/v/_data", "/home/me"]
    config: dict[str, object] = {
        "process": {"args": [f"{OLD}/x"]},
        "mounts": [
            {"destination": "/etc/hosts", "source": f"{DIRECTORY}/hosts", "options": ["rbind"]},
            {"destination": "/i", "source": "overlay", "options": [f"lowerdir+={OLD}/layers/a/diff", "ro"]},
            {"destination": "/me", "source": "/home/me"},
        ],
    }
    moved_paths.move_config(config, MOVE)
    assert config == {
        "process": {"args": [f"{OLD}/x"]},
        "mounts": [
            {"destination": "/etc/hosts", "source": f"{NEW}/containers/c0ffee/hosts", "options": ["rbind"]},
            {"destination": "/i", "source": "overlay", "options": [f"lowerdir+={NEW}/layers/a/diff", "ro"]},
            {"destination": "/me", "source": "/home/me"},
        ],
    }
