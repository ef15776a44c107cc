"""States, keys, texts and flags of a build: what has no process and no store."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from rootless.builder.cache import cache_export, cache_format
from rootless.builder.dockerfile import texts
from rootless.builder.dockerfile.expand import Scope
from rootless.builder.dockerfile.parser import parse
from rootless.builder.outputs import parse_outputs
from rootless.builder.session.build_state import BuildState, step_key
from rootless.builder.steps import config_steps
from rootless.builder.steps.cache_mounts import CacheIdentity, claim_mount
from rootless.builder.steps.secret_sources import secret
from rootless.builder.worker import mountpoints
from rootless.errors import UsageError
from rootless.image.platform import Platform
from rootless.paths import Lock
from rootless.storage.store.step_records import BuildCache, CacheRecord, StepLayer, expired_records

PLATFORM = Platform("linux", "amd64")


def state_of(text: str, state: BuildState | None = None) -> BuildState:
    """The state after config instructions."""
    dockerfile = parse(f"FROM scratch\n{text}")
    state = state or BuildState(PLATFORM)
    scope = Scope(escape="\\", environment={}, global_args={}, build_args={"GIVEN": "s3cret"})
    for written in dockerfile.stages[0].instructions:
        final = scope.expand(written)
        state = config_steps.apply(state, final, texts.created_by(written, final, state.shell))
        scope.enter(final)
    return state


def test_an_entrypoint_takes_an_inherited_cmd_away() -> None:
    inherited = BuildState(PLATFORM, config={"Cmd": ["old"], "Entrypoint": ["e"]})
    assert "Cmd" not in state_of('ENTRYPOINT ["new"]', inherited).config
    assert state_of('CMD ["own"]\nENTRYPOINT ["new"]', inherited).config["Cmd"] == ["own"]
    assert inherited.config["Cmd"] == ["old"]  # states are values


def test_env_keeps_places_and_history_tells() -> None:
    state = state_of("ENV A=1 B=2\nENV A=3")
    assert state.env == ["A=3", "B=2"]
    assert [entry["created_by"] for entry in state.history] == ["ENV A=1 B=2", "ENV A=3"]
    assert all(entry["empty_layer"] for entry in state.history)


def test_values_of_build_arguments_are_in_no_history() -> None:
    """TRAPS CVE-2020-14370: only what an instruction itself writes is recorded."""
    state = state_of('ARG GIVEN=default\nARG OTHER\nSHELL ["/bin/bash", "-c"]')
    assert [entry["created_by"] for entry in state.history] == [
        "ARG GIVEN=default",
        "ARG OTHER",
        "SHELL [/bin/bash -c]",
    ]
    dockerfile = parse("FROM scratch\nARG GIVEN\nCOPY $GIVEN /to/\nRUN echo $GIVEN\n")
    scope = Scope(escape="\\", environment={}, global_args={}, build_args={"GIVEN": "s3cret"})
    for written in dockerfile.stages[0].instructions:
        final = scope.expand(written)
        scope.enter(final)
        assert "s3cret" not in texts.created_by(written, final, ["/bin/sh", "-c"])
        assert "s3cret" not in texts.step_title("", 1, 1, written)


@pytest.mark.parametrize(
    ("before", "path", "wanted"),
    [("", "x", "/x"), ("/a", "b/../c", "/a/c"), ("/a", "/b/", "/b"), ("/a", "../../..", "/"), ("/", "//x", "/x")],
)
def test_working_directories(before: str, path: str, wanted: str) -> None:
    assert config_steps.working_directory(BuildState(PLATFORM, config={"WorkingDir": before}), path) == wanted


def test_keys_differ_by_everything() -> None:
    """TRAPS GO-2024-2512: another parent is another key."""
    keys = {
        step_key("run", "", command=["a"]),
        step_key("run", "sha256:x", command=["a"]),
        step_key("copy", "", command=["a"]),
        step_key("run", "", command=["b"]),
        step_key("run", "", command=["a"], env=[]),
    }
    assert len(keys) == 5
    assert step_key("run", "", a=1, b=2) == step_key("run", "", b=2, a=1)


def record(name: str, *chains: str, size: int = 1, used: float = 0) -> CacheRecord:
    layer = StepLayer(chains[-1], chains[-1], "t", chains[-1], size) if chains else None
    return CacheRecord(name * 64, layer, chains, 7, size, "text", 1.0, used)


def test_records(tmp_path: Path) -> None:
    cache = BuildCache(str(tmp_path))
    assert cache.records() == [] and cache.find("a" * 64) is None
    cache.put(record("a", "sha256:1", "sha256:2"))
    found = cache.find("a" * 64)
    assert found is not None and found.chains == ("sha256:1", "sha256:2") and found.moment == 7
    assert found.layer == StepLayer("sha256:2", "sha256:2", "t", "sha256:2", 1)
    path = tmp_path / "build-cache" / f"{'a' * 64}.json"
    written = path.read_text()
    path.write_text(written.replace('"size": 1', '"size": "1"').replace('"size":1', '"size":"1"'))
    assert cache.find("a" * 64) is None, "a field of the wrong type: the step is done again"
    path.write_text(written)
    assert cache.chains() == {"sha256:1", "sha256:2"}
    (tmp_path / "build-cache" / f"{'b' * 64}.json").write_text('{"format": 1}')
    assert cache.find("b" * 64) is None
    cache.remove("a" * 64)
    assert cache.find("a" * 64) is None


def test_which_records_expire() -> None:
    records = [record(name, "c" + name, size=10, used=used) for name, used in (("a", 1), ("b", 2), ("c", 3))]
    assert [r.key[0] for r in expired_records(records, keep=20, older=None)] == ["a"]
    assert [r.key[0] for r in expired_records(records, keep=0, older=None)] == ["a", "b", "c"]
    assert expired_records(records, keep=30, older=None) == []
    assert len(expired_records(records, keep=None, older=1)) == 3


def test_a_cache_that_travels() -> None:
    first, second = StepLayer("c1", "d1", "t", "d1", 1), StepLayer("c2", "d2", "t", "d2", 1)
    layers, records = cache_format.pack([(record("a", "c1"), [first]), (record("b", "c1", "c2"), [first, second])])
    assert layers == [first, second]
    values = [each.to_json() for each in records]
    assert set(values[0]) == {"key", "layers", "has_layer", "moment", "size", "description"}
    wrong = [{"key": "c"}, 5, {**values[0], "key": "d", "layers": ["0"]}, {**values[0], "key": "e", "moment": -1}]
    found = cache_format.unpack({cache_format.MEMBER: [*values, *wrong]}, 2)
    assert found["b" * 64].positions == (0, 1) and len(found) == 2
    assert cache_format.unpack({cache_format.MEMBER: values}, 1).keys() == {"a" * 64}
    assert cache_format.unpack({cache_format.MEMBER: "no list"}, 1) == {}


def test_outputs() -> None:
    assert parse_outputs(["out"])[0][:2] == ("local", "out")
    assert parse_outputs(["type=oci,dest=x.tar"])[0][:2] == ("oci", "x.tar")
    assert parse_outputs(["type=image,push=true"])[0].push
    assert parse_outputs(["type=oci,dest=x,tar=false,compression=zstd"])[0][4:6] == ("zstd", True)
    assert parse_outputs(["type=image,oci-mediatypes=false"])[0].is_docker
    assert parse_outputs(["type=registry,compression=uncompressed,oci-mediatypes=true"])[0][3:5] == (True, "none")
    for bad in (
        "type=none",
        "type=local",
        "kind=x",
        "type=image,push=perhaps",
        "type=docker,dest=x,compression=gzip",
        "type=oci,dest=x,compression=estargz",
        "type=oci,tar=false",
        "type=docker,dest=x,tar=false",
        "type=oci,oci-mediatypes=false",
        "type=image,rewrite-timestamp=false",
    ):
        with pytest.raises(UsageError):
            parse_outputs([bad])
    with pytest.raises(UsageError):
        parse_outputs(["-", "type=oci,dest=-"])


def test_records_of_layers_that_no_image_has() -> None:
    first, second = (StepLayer(f"c{n}", f"sha256:{str(n) * 64}", "media", f"d{n}", n) for n in (1, 2))
    made = CacheRecord("b" * 64, second, ("c1", "c2"), 3, 4, "RUN curl -u user:password", 0.0, 0.0)
    member = cache_format.pack_absent([(made, [first, second])])
    assert "password" not in str(member)
    found = cache_format.unpack_absent({cache_format.ABSENT_MEMBER: member})
    assert found == {"b" * 64: ((first.diff_id, second.diff_id), True, 3, 4)}
    for wrong in (None, [], {"records": []}, {**member, "diff_ids": ["../etc", "x"]}, {**member, "diff_ids": [7, 8]}):
        assert cache_format.unpack_absent({cache_format.ABSENT_MEMBER: wrong}) == {}
    # A position that no layer has
    assert cache_format.unpack_absent({cache_format.ABSENT_MEMBER: {**member, "diff_ids": [first.diff_id]}}) == {}


def test_caches_elsewhere() -> None:
    cache_export.check(["type=local,dest=d,mode=min", "type=registry,ref=r,mode=max", "type=inline", "name"])
    for bad in ("type=local,dest=d,mode=most", "type=local", "type=else,dest=d"):
        with pytest.raises(UsageError):
            cache_export.check([bad])


def test_records_of_a_cache_that_cannot_be_are_left_out() -> None:
    entry = {"key": "k", "layers": [0], "has_layer": True, "moment": 1, "size": 1, "description": "d"}

    def known(**changes: object) -> bool:
        return "k" in cache_format.unpack({cache_format.MEMBER: [{**entry, **changes}]}, 1)

    assert known()
    assert not known(moment=10**30) and not known(moment=-1) and not known(size=-1) and not known(layers=[1])


def test_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("from a file")
    monkeypatch.setenv("VARIABLE", "from the environment")
    assert secret([f"id=a,src={file}"], "a") == b"from a file"
    assert secret([f"src={file}"], "file") == b"from a file"
    assert secret(["id=b,env=VARIABLE"], "b") == b"from the environment"
    assert secret(["type=env,id=VARIABLE"], "VARIABLE") == b"from the environment"
    assert secret([f"id=a,src={file}"], "b") is None
    for bad in ("id=a,src=/no/such", "id=a,env=NOT_SET_HERE", "id=a,what=1", "type=x,id=a"):
        with pytest.raises(UsageError):
            secret([bad], "a")


def test_missing_mount_points_are_found_and_taken_away(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for directory in (lower / "etc", lower / "real", upper):
        directory.mkdir(parents=True)
    (lower / "etc/there").write_text("x")
    (lower / "etc/dangling").symlink_to("../run/target")
    (lower / "link").symlink_to("real")
    root = os.open(lower, os.O_PATH)
    try:
        notes = mountpoints.missing_targets(root, ["/etc/there", "/etc/new", "/a/b/c", "/etc/dangling", "/link/x"])
    finally:
        os.close(root)
    assert notes == [("/etc", ["new"]), ("/", ["a", "b", "c"]), ("/", ["run", "target"]), ("/real", ["x"])]
    (upper / "etc").mkdir()
    (upper / "etc/new").touch()
    (upper / "a/b/c").mkdir(parents=True)
    (upper / "run").mkdir()
    (upper / "run/target").touch()
    (upper / "run/other").write_text("of the step")
    (upper / "real").mkdir()
    (upper / "real/x").write_text("written by the step itself")
    mountpoints.remove_targets(str(upper), [str(lower)], notes)
    left = sorted(str(path.relative_to(upper)) for path in upper.rglob("*"))
    assert left == ["real", "real/x", "run", "run/other"]


def test_tidying_follows_no_link(tmp_path: Path) -> None:
    """A step may put a link in the place of a directory that it was given to mount on."""
    victim, upper = tmp_path / "victim", tmp_path / "upper"
    victim.mkdir()
    upper.mkdir()
    (victim / "empty").touch()
    (upper / "etc").symlink_to(victim)
    mountpoints.remove_targets(str(upper), [], [("/etc", ["empty"])])
    assert (victim / "empty").exists()


def test_new_times_are_settled_and_old_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "upper/dir").mkdir(parents=True)
    (tmp_path / "upper/dir/old").touch()
    os.utime(tmp_path / "upper/dir/old", (5, 5))
    (tmp_path / "upper/dir/new").touch()
    (tmp_path / "upper/link").symlink_to("nowhere")
    mountpoints.settle_times(str(tmp_path / "upper"), 10**18, 1000)
    times = {path.name: path.lstat().st_mtime for path in (tmp_path / "upper").rglob("*")}
    assert times == {"dir": 1000, "old": 5, "new": 1000, "link": 1000}


def test_a_time_that_the_layers_below_have_is_no_time_of_this_step(tmp_path: Path) -> None:
    """A driver that copies the whole tree has what an earlier step wrote a moment ago there too."""
    upper, lower, lowest = (tmp_path / name for name in ("upper", "lower", "lowest"))
    young = 10**18 + 5
    for layer in (upper, lower, lowest):
        layer.mkdir()
        for name in ("kept", "written"):
            (layer / name).touch()
            os.utime(layer / name, ns=(young, young))
    os.utime(upper / "written", ns=(young + 1, young + 1))
    os.utime(lowest / "kept", ns=(7, 7))  # hidden by the layer above it
    mountpoints.settle_times(str(upper), 10**18, 1000, [str(lower), str(lowest)])
    assert (upper / "kept").stat().st_mtime_ns == young and (upper / "written").stat().st_mtime == 1000


def test_a_cache_that_was_pruned_meanwhile_is_claimed_anew(tmp_path: Path) -> None:
    """The lock of a file that was removed keeps nobody out: two steps had a `locked` cache at once."""
    identity = CacheIdentity("id", "")
    directory, held, _ = claim_mount(str(tmp_path), identity, "locked")
    claimed: list[tuple[str, Lock, bool]] = []
    waiter = threading.Thread(target=lambda: claimed.append(claim_mount(str(tmp_path), identity, "locked")))
    waiter.start()
    time.sleep(0.1)
    os.rename(directory, tmp_path / "trash")
    held.release()
    waiter.join(10)
    _, lock, is_new = claimed[0]
    assert is_new and lock.is_current()
    assert not Lock(f"{directory}/lock").acquire(blocking=False)
    lock.release()
