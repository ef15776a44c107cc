"""CDI: what a specification may say, which files are refused, which devices a name means, what a config.json gets."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rootless.engine.devices.cdi_files import Devices, list_files, read_spec, spec_directories
from rootless.engine.devices.cdi_spec import CdiSpec, is_kind, is_name
from rootless.engine.devices.device_requests import edits_of_devices
from rootless.engine.plan.device_edits import BEFORE, DeviceEdits, GpuRequest, parse_gpus, take_back
from rootless.engine.plan.security import is_cdi_name, wants_cdi
from rootless.errors import HostLimit, InvalidInput, UsageError
from rootless.host.idmap import default_map
from rootless.records.container_options import ContainerOptions
from tests.conftest import REPOSITORY, require

SPEC: dict[str, Any] = {
    "cdiVersion": "0.7.0",
    "kind": "made.example/thing",
    "annotations": {"a": "b"},
    "containerEdits": {"env": ["COMMON=1"], "additionalGids": [0, 7, 60000], "intelRdt": {"closID": "x"}},
    "devices": [
        {
            "name": "one",
            "containerEdits": {
                "deviceNodes": [
                    {"path": "/dev/made/one", "hostPath": "/dev/null", "type": "c", "permissions": "r", "uid": 0},
                    {"path": "/dev/absent-of-cdi"},
                ],
                "mounts": [
                    {"hostPath": "/etc", "containerPath": "/opt/deep/etc", "options": ["ro", "nosuid"]},
                    {"hostPath": "tmpfs", "containerPath": "/opt", "type": "tmpfs", "options": ["size=1m"]},
                ],
                "hooks": [{"hookName": "createContainer", "path": "/bin/true", "timeout": 3}],
                "env": ["COMMON=2"],
            },
        },
        {"name": "0"},
    ],
}


def write(directory: Path, spec: object, name: str = "made.json") -> Path:
    directory.mkdir(mode=0o755, exist_ok=True)
    path = directory / name
    path.write_text(spec if isinstance(spec, str) else json.dumps(spec))
    path.chmod(0o644)
    return path


def edits(directory: Path, *names: str, gpus: tuple[str, ...] = (), **options: Any) -> DeviceEdits:
    engine: Any = SimpleNamespace(settings=SimpleNamespace(cdi_spec_dirs=str(directory)))
    chosen = ContainerOptions(device=names, gpus=gpus, **options)
    return edits_of_devices(engine, chosen, default_map(None, 1000, 1000))


def changed(change: Callable[[Any], object]) -> dict[str, Any]:
    spec = copy.deepcopy(SPEC)
    change(spec)
    return spec


def test_names() -> None:
    assert is_kind("vendor.com/foo") and is_kind("foo.bar.baz/foo-bar123.B_az")
    for wrong in ("foo", "vendor.com/foo/", "vendor.com/foo/bar", "/x", "1/x", "v/-", "v/" + "x" * 64, "vé/x"):
        assert not is_kind(wrong), wrong
    assert is_name("0") and is_name("GPU-1a2b") and is_name("mig1:0") and not is_name("") and not is_name("a=b")
    assert is_cdi_name("v/c=n") and not is_cdi_name("/dev/a=b") and not is_cdi_name("/dev/null:/dev/x")
    assert not wants_cdi(ContainerOptions(device=("/dev/null",)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(cdiVersion="0.2.0"), "'cdiVersion' must be from 0.3.0 to 1.0.0, not '0.2.0'"),
        (lambda s: s.update(cdiVersion="1.2.0"), "'cdiVersion' must be from 0.3.0"),
        (lambda s: s.update(cdiVersion="99999999999.0.0"), "'cdiVersion' must be"),
        (lambda s: s.update(kind="thing"), "'kind' must be VENDOR/CLASS"),
        (lambda s: s.update(devices=[]), "'devices' must have at least one device"),
        (lambda s: s.update(containerEdit={}), "'containerEdit' is unknown"),
        (lambda s: s["devices"].append({"name": "one"}), "is 'one' a second time"),
        (lambda s: s["devices"].append({"name": "a/b"}), "'devices[2].name' cannot be 'a/b'"),
        (lambda s: s["containerEdits"].update(env=["=x"]), "which is not NAME=VALUE"),
        (lambda s: s["containerEdits"].update(env=["A\0=x"]), "must not contain NUL"),
        (lambda s: s["containerEdits"].update(env=["A=x"] * 5000), "must have from 0 to 4096 entries"),
        (lambda s: s["containerEdits"].update(additionalGids=[-1]), "must be from 0 to"),
        (lambda s: s["containerEdits"].update(netDevices=[]), "'containerEdits.netDevices' is unknown"),
        (lambda s: s["containerEdits"].update(deviceNodes=[{"path": "/a/../b"}]), "inside the container"),
        (lambda s: s["containerEdits"].update(deviceNodes=[{"path": "/a", "permissions": "x"}]), "letters of 'rwm'"),
        (
            lambda s: s["containerEdits"].update(mounts=[{"hostPath": "/a", "containerPath": "/"}]),
            "must be the path of a file inside",
        ),
        (
            lambda s: s["containerEdits"].update(mounts=[{"hostPath": "/a", "containerPath": "/b", "type": "ext4"}]),
            "mounts[0].type' must be one of",
        ),
        (
            lambda s: s["containerEdits"].update(
                mounts=[{"hostPath": "/a", "containerPath": "/b", "options": ["idmap"]}]
            ),
            "cannot be given to a bind mount",
        ),
        (
            lambda s: s["containerEdits"].update(hooks=[{"hookName": "whenever", "path": "/x"}]),
            "hookName' must be one of",
        ),
        (lambda s: s["containerEdits"].update(hooks=[{"hookName": "poststop", "path": "x"}]), "an absolute path"),
    ],
)
def test_a_wrong_specification_names_file_and_property(change: Callable[[Any], object], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        CdiSpec.from_json("/x/made.json", changed(change))
    assert caught.value.message.startswith("CDI specification '/x/made.json': property '")
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.chmod(0o646), "others may write"),
        (lambda path: path.chmod(0o664), "others may write"),
        (lambda path: path.write_text("{"), "is not JSON"),
        (lambda path: path.write_text("[" * 100_000), "nested too deeply"),
        (lambda path: path.write_text("[]"), "must be an object"),
        (lambda path: path.write_bytes(b" " * (5 << 20)), "larger than 4 MiB"),
        (lambda path: [path.unlink(), subprocess.run(["mkfifo", path], check=True)], "is not a file"),
        (lambda path: path.unlink(), "cannot read the CDI specification"),
    ],
)
def test_a_hostile_file_is_refused_by_name(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    path = write(tmp_path / "cdi", SPEC)
    damage(path)
    with pytest.raises((InvalidInput, HostLimit), match=message) as caught:
        read_spec(str(path))
    assert str(path) in str(caught.value)


def test_a_directory_is_refused_that_others_may_write_or_that_is_too_full(tmp_path: Path) -> None:
    directory = tmp_path / "cdi"
    write(directory, SPEC)
    directory.chmod(0o777)
    with pytest.raises(HostLimit, match="others may write"):
        list_files(str(directory))
    directory.chmod(0o755)
    for number in range(1000):
        (directory / f"{number}.json").touch()
    with pytest.raises(InvalidInput, match="has 1001 CDI specifications"):
        list_files(str(directory))
    assert list_files(str(tmp_path / "absent")) == []


def test_a_later_directory_wins_and_a_device_described_twice_is_none(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write(first, SPEC)
    path = write(second, changed(lambda s: s.update(devices=[{"name": "one"}])))
    devices = Devices([str(first), str(second)])
    assert devices.by_name["made.example/thing=one"].spec.path == str(path)
    assert devices.by_name["made.example/thing=0"].spec.path == str(first / "made.json")
    write(first, SPEC, "again.json")
    devices = Devices([str(first), str(second)])
    assert list(devices.by_name) == ["made.example/thing=one"]
    assert {str(conflict).count("both describe") for conflict in devices.conflicts} == {1}
    (first / "broken.json").write_text("{")
    assert [problem.message for problem in Devices([str(first)]).problems if "broken.json" in problem.message]


def test_the_usual_directories_and_those_of_the_setting() -> None:
    engine: Any = SimpleNamespace(
        settings=SimpleNamespace(cdi_spec_dirs=""), directories=SimpleNamespace(config="/h/.config/rootless")
    )
    assert spec_directories(engine) == ["/etc/cdi", "/var/run/cdi", "/h/.config/cdi"]
    engine.settings.cdi_spec_dirs = "/a:/b"
    assert spec_directories(engine) == ["/a", "/b"]
    engine.settings.cdi_spec_dirs = "a"
    with pytest.raises(UsageError, match="not an absolute path"):
        spec_directories(engine)


def config() -> dict[str, object]:
    return {
        "process": {"env": ["PATH=/bin", "COMMON=0"], "user": {"uid": 0, "gid": 0, "additionalGids": [5]}},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": []}],
    }


def test_edits_are_made_in_a_configuration_and_taken_back(tmp_path: Path) -> None:
    write(tmp_path / "cdi", SPEC)
    found = edits(tmp_path / "cdi", "made.example/thing=one", "made.example/thing=0")
    made: Any = config()
    found.apply(made)
    assert made["process"]["env"] == ["PATH=/bin", "COMMON=2"]
    bound = ["bind", "rprivate", "nosuid", "noexec", "ro"]
    assert made["mounts"][1:] == [
        {"destination": "/opt", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
        {"destination": "/dev/made/one", "type": "bind", "source": "/dev/null", "options": bound},
        {"destination": "/opt/deep/etc", "type": "bind", "source": "/etc", "options": ["rbind", "ro", "nosuid"]},
    ]
    # env is there and empty: a runtime would give a hook without it its own environment
    assert made["hooks"] == {"createContainer": [{"path": "/bin/true", "args": [], "env": [], "timeout": 3}]}
    warned = "\n".join(found.warnings)
    for text in (
        "intelRdt of the CDI specification",
        "the groups 7, 60000 of a CDI specification are left out as the id map lacks them",
        "left out, as this host lacks them: /dev/absent-of-cdi",
        "the permissions 'r' cannot be enforced",
        "/dev/made/one: the owner and mode are those of the host",
    ):
        assert warned.count(text) == 1, text
    own = edits(tmp_path / "cdi", "made.example/thing=0", group_add=("keep-groups",)).warnings
    assert any("are left out beside those of keep-groups" in warning for warning in own)
    assert BEFORE in made
    take_back(made)
    assert made == config()
    take_back(made)
    assert made == config()


def test_names_that_no_specification_has(tmp_path: Path) -> None:
    write(tmp_path / "cdi", SPEC)
    with pytest.raises(HostLimit, match=r"unresolvable CDI devices made.example/thing=two \(there are .*=one"):
        edits(tmp_path / "cdi", "made.example/thing=two")
    with pytest.raises(HostLimit, match=r"unresolvable CDI devices other.example/thing=all"):
        edits(tmp_path / "cdi", "other.example/thing=all")
    (tmp_path / "cdi/broken.json").write_text("{")
    with pytest.raises(HostLimit, match=r"devices made.example/thing=two \(there are "):
        edits(tmp_path / "cdi", "made.example/thing=two")
    with pytest.raises(HostLimit, match=r"devices other.example/thing=x \(the CDI specification .*broken.json"):
        edits(tmp_path / "cdi", "other.example/thing=x")
    with pytest.raises(HostLimit, match=r'driver "" with capabilities: \[\[gpu\]\] \(the CDI .*broken.json'):
        edits(tmp_path / "cdi", gpus=("all",))
    write(tmp_path / "cdi", SPEC, "twice.json")
    with pytest.raises(HostLimit, match=r"devices made.example/thing=one \('.*both describe .*: remove one"):
        edits(tmp_path / "cdi", "made.example/thing=one")
    (tmp_path / "cdi/twice.json").unlink()
    with pytest.raises(UsageError, match="invalid --device 'made/thing=a b'"):
        edits(tmp_path / "cdi", "made/thing=a b")
    write(tmp_path / "cdi", changed(lambda s: s["containerEdits"].update(deviceNodes=[{"path": "/etc/passwd"}])))
    with pytest.raises(InvalidInput, match=r"'/etc/passwd', which .*made.json' names, is not a device"):
        edits(tmp_path / "cdi", "made.example/thing=one")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("all", GpuRequest(-1)),
        ("-1", GpuRequest(-1)),
        ("3", GpuRequest(3)),
        ("count=2", GpuRequest(2)),
        ("device=0", GpuRequest(0, ("0",))),
        ("device=0,GPU-12", GpuRequest(0, ("0", "GPU-12"))),
        ('"device=0,1"', GpuRequest(0, ("0", "1"))),
        ("all,capabilities=gpu,driver=nvidia", GpuRequest(-1)),
    ],
)
def test_gpus(text: str, meant: GpuRequest) -> None:
    assert parse_gpus(text) == meant


@pytest.mark.parametrize(
    "text", ["", "0", "x", "device=", "device=0,,1", "1,2", "count=1,device=0", "a=b", '"', "all,all"]
)
def test_wrong_gpus(text: str) -> None:
    with pytest.raises(UsageError, match="--gpus"):
        parse_gpus(text)


def test_capabilities_of_gpus_are_refused() -> None:
    with pytest.raises(UsageError, match="--gpus cannot choose capabilities 'utility'"):
        parse_gpus("all,capabilities=utility")


YAML = """---
cdiVersion: 0.5.0
kind: made.example/thing
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/made
      hostPath: /dev/null
containerEdits: {}
"""


def test_yaml_needs_a_library_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "cdi", YAML, "made.yaml")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(InvalidInput, match=r"is YAML, which needs PyYAML \(pip install 'rootless\[yaml\]'"):
        read_spec(str(path))


def test_yaml(tmp_path: Path) -> None:
    require(find_spec("yaml"), "no PyYAML here (pip install .[test])")
    assert list(read_spec(str(write(tmp_path / "cdi", YAML, "made.yaml"))).devices) == ["0"]
    for text, message in (
        ("a: &x [1]\nb: *x\n", "has an alias"),
        ("[" * 1000, "nested too deeply"),
        ("a: [", "is not YAML"),
        ("!!python/object/apply:os.getpid []", "is not YAML"),
    ):
        with pytest.raises(InvalidInput, match=message):
            read_spec(str(write(tmp_path / "cdi", text, "made.yaml")))


def test_who_asks_for_no_device_loads_nothing_of_it() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r});"
        "import rootless.engine.container.create, rootless.engine.container.start, rootless.cli.container.run;"
        "print(*[name for name in sys.modules if 'device' in name or 'cdi' in name])"
    )
    printed = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert "rootless" not in printed
