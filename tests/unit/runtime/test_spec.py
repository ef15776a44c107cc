"""Validation of configurations: hostile input, errors that name the property."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import InvalidInput, RootlessError
from rootless.runtime import plan
from rootless.runtime.oci.template import default_config
from rootless.runtime.spec import oci_config
from rootless.runtime.spec.oci_config import OciConfig, load_config
from rootless.runtime.spec.process_config import parse_numbers

GOOD = default_config(1000, 1000)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The default configuration with one property replaced; numbers in `path` index arrays."""
    config: Any = copy.deepcopy(GOOD)
    inner = config
    *parents, last = [int(w) if w.isdigit() else w for w in path.split(".")]
    for word in parents:
        inner = inner[word] if isinstance(word, int) else inner.setdefault(word, {})
    inner[last] = value
    result: dict[str, Any] = config
    return result


def test_the_default_is_valid() -> None:
    OciConfig.from_json(copy.deepcopy(GOOD))


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("ociVersion", "2.0.0", "ociVersion"),
        ("ociVersion", None, "ociVersion"),
        ("root", None, "root"),
        ("root.path", "", "root.path"),
        ("root.path", 3, "root.path"),
        ("process.cwd", "relative", "process.cwd"),
        ("process.args", [], "process.args"),
        ("process.args", ["a\0b"], "process.args[0]"),
        ("process.args", "sh", "process.args"),
        ("process.env", [1], "process.env[0]"),
        ("process.terminal", "yes", "process.terminal"),
        ("process.user.uid", -1, "process.user.uid"),
        ("process.user.uid", 0xFFFFFFFF, "process.user.uid"),
        ("process.user.uid", True, "process.user.uid"),
        ("process.user.uid", "0", "process.user.uid"),
        ("process.user.gid", 1 << 32, "process.user.gid"),
        ("process.user.additionalGids", [1, -2], "process.user.additionalGids[1]"),
        ("process.oomScoreAdj", 1001, "process.oomScoreAdj"),
        ("process.rlimits", [{"type": "RLIMIT_FLY", "soft": 1, "hard": 1}], "process.rlimits[0].type"),
        ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}], "process.rlimits[0]"),
        ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2, "process.rlimits"),
        ("process.capabilities.bounding", "ALL", "process.capabilities.bounding"),
        ("process.scheduler", {"policy": "SCHED_FAST"}, "process.scheduler.policy"),
        ("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 8}, "process.ioPriority.priority"),
        ("mounts.0.destination", "", "mounts[0].destination"),
        ("mounts.0.options", "ro", "mounts[0].options"),
        ("mounts.0.options", ["idmap"], "mounts[0]"),
        ("linux.namespaces", [{"type": "moon"}], "linux.namespaces[0].type"),
        ("linux.namespaces", [{"type": "pid"}, {"type": "pid"}], "linux.namespaces"),
        ("linux.namespaces", [{"type": "pid", "path": "proc"}], "linux.namespaces[0].path"),
        ("linux.uidMappings", [{"containerID": 0, "hostID": 0}], "linux.uidMappings[0].size"),
        ("linux.maskedPaths", ["proc/kcore"], "linux.maskedPaths[0]"),
        ("linux.readonlyPaths", ["sys"], "linux.readonlyPaths[0]"),
        ("linux.devices", [{"type": "x", "path": "/dev/x"}], "linux.devices[0].type"),
        ("linux.sysctl", {"a": 1}, "linux.sysctl.a"),
        ("linux.rootfsPropagation", "sideways", "linux.rootfsPropagation"),
        ("linux.personality", {"domain": "BSD"}, "linux.personality.domain"),
        ("linux.personality", {"domain": "LINUX", "flags": ["X"]}, "linux.personality.flags"),
        ("linux.memoryPolicy", {"mode": "MPOL_X"}, "linux.memoryPolicy.mode"),
        ("linux.memoryPolicy", {"mode": "MPOL_BIND", "nodes": "3-1"}, "linux.memoryPolicy.nodes"),
        ("process.execCPUAffinity", {"initial": "moon"}, "process.execCPUAffinity.initial"),
        ("process.execCPUAffinity", {"final": "0,,1"}, "process.execCPUAffinity.final"),
        ("linux.timeOffsets", {"boottime": {"secs": 1}}, "linux.timeOffsets"),
        ("linux.intelRdt", {"closID": "x"}, "linux.intelRdt"),
        ("linux.netDevices", {"eth0": {"name": "a/b"}}, "linux.netDevices.eth0.name"),
        ("linux.netDevices", {"eth0": {"name": "x" * 16}}, "linux.netDevices.eth0.name"),
        ("mounts.0.uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}], "mounts[0]"),
        ("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "x"}, "linux.seccomp.listenerPath"),
        ("hooks", {"prestart": [{"path": "relative"}]}, "hooks.prestart[0].path"),
        ("hooks", {"poststop": [{"path": "/x", "timeout": 0}]}, "hooks.poststop[0].timeout"),
        ("annotations", {"": "x"}, "annotations"),
    ],
)
def test_errors_name_the_property(path: str, value: Any, named: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        OciConfig.from_json(changed(path, value))
    assert f"config property '{named}'" in raised.value.message


@pytest.mark.parametrize("value", [None, [], "x", 3, True, {}])
def test_roots_that_are_no_configuration(value: Any) -> None:
    with pytest.raises(InvalidInput):
        OciConfig.from_json(value)


def test_unknown_properties_and_null_are_fine() -> None:
    """config.md, extensibility: and minor versions are not judged (crun 1.14.2)."""
    config = changed("linux.future", {"x": 1})
    config["hooks"] = None
    config["linux"]["devices"] = None
    config["ociVersion"] = "1.99.0-rc.1"
    OciConfig.from_json(config)


def test_an_empty_path_of_a_namespace_is_none() -> None:
    config = copy.deepcopy(GOOD)
    config["linux"]["namespaces"].append({"type": "time", "path": ""})
    assert OciConfig.from_json(config).linux.makes("time")


def test_unlimited_rlimits() -> None:
    for value in (-1, (1 << 64) - 1):
        OciConfig.from_json(changed("process.rlimits", [{"type": "RLIMIT_CORE", "soft": value, "hard": value}]))


def test_lists_of_numbers() -> None:
    assert parse_numbers("0-3, 7") == {0, 1, 2, 3, 7} and parse_numbers("") == set()
    for text in ("-1", "1-", "a", "1024", "0-99999", "²"):
        with pytest.raises(ValueError):
            parse_numbers(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _paths(value: Any, prefix: str = "") -> list[str]:
    found = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        path = f"{prefix}.{name}" if prefix else str(name)
        found += [path, *_paths(inner, path)]
    return found


@given(path=st.sampled_from(_paths(GOOD)), value=JSON)
def test_what_passes_can_be_planned(path: str, value: Any) -> None:
    """A configuration is refused with a named property, or the plan takes it: never another exception."""
    try:
        config = changed(path, value)
        plan.operations(OciConfig.from_json(config), plan.RootFacts("/bundle", lambda gid: True))
    except RootlessError as e:
        assert e.message


def test_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        load_config(f"{tmp_path}/config.json")
    path = tmp_path / "config.json"
    for content in (b"", b"{", b"[" * 100_000, b"\xff\xfe", b'{"a": NaN', b" " * (oci_config.MAXIMUM + 1)):
        path.write_bytes(content)
        with pytest.raises(InvalidInput):
            load_config(f"{tmp_path}/config.json")
    path.write_text(json.dumps(GOOD))
    assert load_config(f"{tmp_path}/config.json").first_process().args == GOOD["process"]["args"]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InvalidInput, match="no regular file"):
        load_config(f"{tmp_path}/config.json")
