"""Plans as text, beside golden files; regenerate them with UPDATE_GOLDEN=1."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rootless.errors import InvalidInput
from rootless.kernel import mounts
from rootless.runtime import mount_options, plan
from rootless.runtime.oci.template import default_config
from rootless.runtime.operations.base import Operation
from rootless.runtime.operations.seed import SeedVolume
from rootless.runtime.plan import RootFacts, describe
from rootless.runtime.process import namespace_steps
from rootless.runtime.spec.oci_config import OciConfig

GOLDEN = Path(__file__).parent / "golden"


def operations(config: dict[str, Any], known: RootFacts, extra: Sequence[Operation] = ()) -> list[Operation]:
    return plan.operations(OciConfig.from_json(config), known, extra)


def root_propagation(config: dict[str, Any]) -> int:
    return plan.root_propagation(OciConfig.from_json(config))


def wanted(config: dict[str, Any]) -> namespace_steps.NamespaceSet:
    return namespace_steps.wanted_namespaces(OciConfig.from_json(config).linux)


def facts(*, mapped: bool = True, mounted: bool = False) -> RootFacts:
    return RootFacts("/bundle", lambda gid: mapped, root_is_mounted=mounted)


def without(config: dict[str, Any], *types: str) -> dict[str, Any]:
    config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] not in types]
    return config


def plain() -> tuple[dict[str, Any], RootFacts]:
    return default_config(1000, 1000), facts()


def host_everything() -> tuple[dict[str, Any], RootFacts]:
    config = without(default_config(1000, 1000), "pid", "network", "ipc", "uts", "cgroup")
    del config["hostname"]
    return config, facts(mapped=False)


def volumes() -> tuple[dict[str, Any], RootFacts]:
    config = default_config(1000, 1000)
    config["process"]["terminal"] = False
    config["mounts"] += [
        {"destination": "/data", "type": "bind", "source": "/home/u/v/_data", "options": ["rbind", "ro", "rprivate"]},
        {"destination": "relative/x", "source": "file", "options": ["bind", "rro", "noatime"]},
        {"destination": "/a/../run", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "tmpcopyup"]},
    ]
    config["linux"]["devices"] = [{"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229}]
    config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    return config, facts(mounted=True)


@pytest.mark.parametrize("case", [plain, host_everything, volumes], ids=lambda c: c.__name__)
def test_golden(case: Any) -> None:
    config, known = case()
    extra = [SeedVolume("/v", "/data")] if case is volumes else []
    text = "\n".join(describe(operations(config, known, extra))) + "\n"
    path = GOLDEN / f"{case.__name__}.txt"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_options_of_a_cgroup_mount_are_checked() -> None:
    config = default_config(0, 0)
    entry = next(mount for mount in config["mounts"] if mount["type"] == "cgroup")
    entry["options"] += ["nsdelegate"]
    operations(config, facts())
    entry["options"] += ["size=64k"]
    with pytest.raises(InvalidInput, match="mount '/sys/fs/cgroup': unknown option 'size=64k' for a cgroup"):
        operations(config, facts())


@pytest.mark.parametrize(
    ("key", "needed"),
    [("net.core.somaxconn", "network"), ("kernel.shmmax", "ipc"), ("fs.mqueue.msg_max", "ipc"), ("user.max_x", "user")],
)
def test_sysctls_need_their_namespace(key: str, needed: str) -> None:
    config = default_config(0, 0)
    config["linux"]["sysctl"] = {key: "1"}
    operations(config, facts())
    with pytest.raises(InvalidInput, match=f"needs an own {needed} namespace"):
        operations(without(config, needed), facts())


def test_sysctls_of_the_whole_host_are_refused() -> None:
    config = default_config(0, 0)
    for key in ("kernel.panic", "vm.swappiness", "kernel/core_pattern"):
        config["linux"]["sysctl"] = {key: "1"}
        with pytest.raises(InvalidInput, match="whole host"):
            operations(config, facts())


def test_contradictions() -> None:
    with pytest.raises(InvalidInput, match="hostname"):
        operations(without(default_config(0, 0), "uts"), facts())
    with pytest.raises(InvalidInput, match="mount namespace"):
        wanted(without(default_config(0, 0), "mount"))
    config = default_config(0, 0)
    config["mounts"][0]["type"] = "tmpfs"
    with pytest.raises(InvalidInput, match="/proc"):
        operations(config, facts())
    config["mounts"] = [{"destination": "/x", "type": "bind", "source": "/y", "options": ["size=1", "readonly"]}]
    with pytest.raises(InvalidInput, match="unknown option 'readonly'"):
        operations(config, facts())


def test_user_namespace_is_joined_first() -> None:
    config = default_config(0, 0)
    config["linux"]["namespaces"] = [
        {"type": "network", "path": "/n"}, {"type": "mount"}, {"type": "user", "path": "/u"},
    ]  # fmt: skip
    assert [kind for kind, _ in wanted(config).joined] == ["user", "network"]


def test_propagation_of_the_old_tree_never_reaches_the_host() -> None:
    config = default_config(0, 0)
    for word in (None, "shared", "rslave", "private", "rprivate", "unbindable"):
        config["linux"]["rootfsPropagation"] = word
        assert root_propagation(config) in (mounts.MS_SLAVE | mounts.MS_REC, mounts.MS_PRIVATE | mounts.MS_REC)


def test_options() -> None:
    parsed = mount_options.parse_mount_options(
        ["rbind", "ro", "rw", "nosuid", "rnoexec", "noatime", "rslave", "sync", "size=5", "rro"]
    )
    assert parsed.bind and parsed.recursive
    assert parsed.set == mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NOATIME
    assert parsed.clear == mounts.MOUNT_ATTR_RDONLY | mounts.MOUNT_ATTR__ATIME
    assert parsed.recursive_set == mounts.MOUNT_ATTR_NOEXEC | mounts.MOUNT_ATTR_RDONLY
    assert parsed.propagation == [mounts.MS_SLAVE | mounts.MS_REC]
    assert (parsed.superblock, parsed.filesystem) == (["sync"], ["size=5"])


def test_a_later_access_time_choice_wins() -> None:
    assert mount_options.parse_mount_options(["noatime", "strictatime"]).set == mounts.MOUNT_ATTR_STRICTATIME
    assert mount_options.parse_mount_options(["strictatime", "relatime"]).set == 0


@pytest.mark.parametrize("word", mount_options.KNOWN)
def test_every_option_of_the_table_is_known(word: str) -> None:
    parsed = mount_options.parse_mount_options([word])
    assert parsed.filesystem == []
