"""What a command has reported as done is there after a power cut, and no name leads to half a thing before."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rootless.errors import InvalidInput, NotFound
from rootless.host.idmap import single_map
from rootless.paths import user_directories
from rootless.records.container import ContainerRecord
from rootless.records.container_options import ContainerOptions
from rootless.storage.store.gc import collect_garbage, quarantined_containers
from rootless.storage.store.store import Store
from tests.unit.storage.power_cut import PowerCut
from tests.unit.storage.test_records import add_image, make_record

States = Callable[[], list[Store]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Path(Store(user_directories(str(tmp_path / "store"))).root)


@pytest.fixture
def store(root: Path) -> Store:
    return Store(user_directories(str(root)))


@pytest.fixture
def cut(root: Path, monkeypatch: pytest.MonkeyPatch) -> PowerCut:
    return PowerCut(root, monkeypatch)


@pytest.fixture
def states(cut: PowerCut, tmp_path: Path) -> States:
    """The stores that a power cut now could leave."""
    count = iter(range(1000))

    def after() -> list[Store]:
        made = [cut.settled(tmp_path / f"settled{next(count)}"), cut.lost(tmp_path / f"lost{next(count)}")]
        return [Store(user_directories(str(each))) for each in made]

    return after


def make(store: Store, name: str, *, rm: bool = False) -> str:
    """A container as `create` makes it."""
    record = make_record(store.containers.new_id(), name)
    record.options = ContainerOptions(rm=rm)
    directory = Path(store.containers.create(record))
    (directory / "config.json").write_text("{}")
    (directory / "hosts").write_text("127.0.0.1 localhost\n")
    (directory / "upper").mkdir()
    store.containers.publish(record.id, durable=not rm)
    return record.id


def assert_whole(store: Store, name: str, container_id: str) -> None:
    assert store.containers.find(name) == container_id
    assert store.containers.read(container_id).name == name
    assert json.loads(Path(store.containers.path(container_id, "config.json")).read_bytes()) == {}
    assert "localhost" in Path(store.containers.path(container_id, "hosts")).read_text()


def test_a_created_container_survives(store: Store, states: States) -> None:
    container_id = make(store, "web")
    for after in states():
        assert_whole(after, "web", container_id)


def test_a_renamed_container_survives_under_its_new_name(store: Store, states: States) -> None:
    container_id = make(store, "old")
    store.containers.rename(container_id, "new")
    for after in states():
        assert_whole(after, "new", container_id)


def test_a_changed_record_survives(store: Store, states: States) -> None:
    container_id = make(store, "web")
    record = store.containers.read(container_id)
    record.labels = {"changed": "yes"}
    store.containers.update(record)
    for after in states():
        assert after.containers.read(container_id).labels == {"changed": "yes"}


def test_no_name_leads_to_half_a_container_at_any_time(store: Store, cut: PowerCut, states: States) -> None:
    steps = []

    def look() -> None:
        steps.append(1)
        for after in states():
            for container_id in after.containers.list():
                assert_whole(after, after.containers.read(container_id).name, container_id)

    cut.at_each_step(look)
    store.containers.rename(make(store, "old"), "new")
    assert len(steps) > 4


def test_a_tag_survives(store: Store, states: States) -> None:
    descriptor = add_image(store, "one")
    store.index.tag("docker.io/library/one:1", descriptor)
    store.index.tag("docker.io/library/two:2", descriptor)
    for after in states():
        found = after.index.resolve("docker.io/library/two:2")
        assert found is not None
        assert found.names == ("docker.io/library/one:1", "docker.io/library/two:2")


def test_a_volume_survives(store: Store, states: States) -> None:
    store.volumes.create("data", labels={"a": "b"})
    for after in states():
        assert after.volumes.get("data").labels == {"a": "b"}
        assert os.path.isdir(after.volumes.get("data").path)


def test_a_container_that_removes_itself_costs_no_sync(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(fd: int) -> None:
        raise AssertionError("fsync")

    monkeypatch.setattr(os, "fsync", forbidden)
    make(store, "gone", rm=True)


@pytest.mark.parametrize("damage", ["empty", "missing"])
def test_a_lost_name_comes_back_from_the_record(store: Store, damage: str) -> None:
    container_id = make(store, "web")
    name = Path(store.containers.names, "web")
    name.unlink()
    if damage == "empty":
        name.touch()
    assert store.containers.list() == [container_id]
    assert name.read_text().strip() == container_id
    name.unlink()
    assert store.containers.find("web") == container_id
    name.unlink()
    assert collect_garbage(store).containers == []
    assert os.path.isdir(store.containers.path(container_id, "upper"))


def test_a_lost_name_that_another_container_has_taken(store: Store) -> None:
    container_id = make(store, "web")
    Path(store.containers.names, "web").unlink()
    shutil.move(store.containers.path(container_id), f"{store.root}/aside")
    other = make(store, "web")
    shutil.move(f"{store.root}/aside", store.containers.path(container_id))
    assert sorted(store.containers.list()) == sorted([container_id, other])
    assert store.containers.find("web") == other
    assert store.containers.find(f"web-{container_id[:12]}") == container_id


def test_what_never_had_a_name_or_removes_itself_is_garbage(store: Store) -> None:
    half = store.containers.new_id()
    store.containers.create(make_record(half, "half"))
    gone = make(store, "gone", rm=True)
    Path(store.containers.names, "gone").unlink()
    assert store.containers.list() == []
    assert sorted(collect_garbage(store).containers) == sorted([half, gone])


def test_what_was_written_is_never_deleted_silently(store: Store) -> None:
    container_id = make(store, "web")
    Path(store.containers.path(container_id, "upper", "work")).write_text("mine")
    Path(store.containers.path(container_id, "record.json")).write_bytes(b"")
    Path(store.containers.names, "web").unlink()
    found = collect_garbage(store)
    assert (found.containers, found.quarantined) == ([], [container_id])
    collect_garbage(store)
    [place] = quarantined_containers(store)
    assert Path(place, "upper/work").read_text() == "mine"


def test_removal_is_one_step(store: Store, cut: PowerCut) -> None:
    container_id = make(store, "web")
    found: list[list[str]] = []
    cut.at_each_step(lambda: found.append(store.containers.list()))
    store.containers.remove(container_id, single_map(os.getuid(), os.getgid()))
    assert found == [[]]
    with pytest.raises(NotFound):
        store.containers.find("web")
    assert os.listdir(store.containers.names) == os.listdir(store.path("trash")) == []


def test_a_damaged_record_can_be_removed(store: Store) -> None:
    container_id, other = make(store, "web"), make(store, "other")
    Path(store.containers.path(container_id, "record.json")).write_bytes(b"")
    assert sorted(store.containers.list()) == sorted([container_id, other])
    for text in ("web", container_id, container_id[:12]):
        assert store.containers.find(text) == container_id
    with pytest.raises(InvalidInput):
        store.containers.read(container_id)
    store.containers.remove(container_id, single_map(os.getuid(), os.getgid()))
    assert store.containers.list() == [other]
    assert os.listdir(store.containers.names) == ["other"]


def test_a_record_of_an_earlier_version_has_no_mark(store: Store) -> None:
    """Made and started by a version that left no mark: the state shows that the container has existed."""
    container_id = make(store, "web")
    Path(store.containers.path(container_id, "name")).unlink()
    Path(store.containers.path(container_id, "state.json")).write_text("{}")
    Path(store.containers.names, "web").write_bytes(b"")
    assert store.containers.list() == [container_id]
    assert isinstance(store.containers.read(container_id), ContainerRecord)
