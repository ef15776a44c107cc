"""Golden files: what config.json each option gives. REGENERATE=1 writes them anew; review the diff as code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rootless.engine.plan.bundle import BundleFacts, NamespaceChoice, ResolvedMount, make_config
from rootless.engine.plan.users import Account
from rootless.engine.types import ImageDefaults
from rootless.errors import UsageError
from rootless.host.idmap import SubordinateIds, default_map, keep_id_map, single_map
from rootless.records.container_options import ContainerOptions

GOLDEN = Path(__file__).parent / "golden"
IDS = SubordinateIds([(100000, 65536)], [(100000, 65536)])
RANGE = default_map(IDS, 1001, 1001)
ROOT = Account(0, 0, (0,), "/root", "root")
IMAGE = ImageDefaults(env=("PATH=/usr/bin:/bin", "LANG=C"), cmd=("sh",), labels={"a": "b"})
JOIN = "/proc/4242/ns/"


def facts(**changes: Any) -> BundleFacts:
    base: dict[str, Any] = {
        "directory": "/store/containers/c1",
        "mark": "/store/containers/c1/containerenv",
        "hostname": "c1",
        "id_map": RANGE,
        "account": ROOT,
        "namespaces": NamespaceChoice(),
        **changes,
    }
    return BundleFacts(**base)


MOST_HOST = NamespaceChoice(pid="host", ipc="host", uts="host", network="host", cgroup="host")
JOINED = NamespaceChoice(user=f"{JOIN}user", network=f"{JOIN}net", pid=f"{JOIN}pid")
ONE = {"id_map": single_map(33, 33, 1002, 1002), "account": Account(33, 33, (33, 27), "/")}
KEPT = {"id_map": keep_id_map(IDS, 1001, 1001, 1001, 1001), "account": Account(1001, 1001, (1001,), "/")}
SECURE = ("no-new-privileges", "mask=/a:/b", "unmask=/proc/k*:/proc/acpi")

CASES: dict[str, tuple[dict[str, Any], ImageDefaults, dict[str, Any]]] = {
    "default": ({}, IMAGE, {}),
    "terminal": ({"tty": True, "interactive": True}, IMAGE, {}),
    "entrypoint-clears-cmd": ({"entrypoint": "/bin/echo"}, IMAGE._replace(entrypoint=("/old",)), {}),
    "entrypoint-and-command": ({"command": ("x", "y")}, IMAGE._replace(entrypoint=("/e",)), {}),
    "user": ({}, IMAGE, {"account": Account(1000, 1000, (1000, 27), "/home/web", "web")}),
    "single-id": ({"group_add": ("27",)}, IMAGE, ONE),
    "keep-id": ({"userns": "keep-id"}, IMAGE, KEPT),
    "keep-groups": ({"group_add": ("keep-groups",)}, IMAGE, {}),
    "environment": ({}, IMAGE, {"env": (("FOO", "1"), ("LANG", "de"), ("GONE", None), ("HOME", "/h"))}),
    "workdir": ({"workdir": "/w"}, IMAGE._replace(working_dir="/image"), {}),
    "read-only": ({"read_only": True}, IMAGE, {}),
    "shm-size": ({"shm_size": "1g"}, IMAGE, {}),
    "capabilities": ({"cap_drop": ("ALL",), "cap_add": ("chown", "CAP_NET_ADMIN")}, IMAGE, {}),
    "privileged": ({"privileged": True}, IMAGE, {"devices": (("/dev/fuse", "/dev/fuse", "rwm"),)}),
    "device": ({}, IMAGE, {"devices": (("/dev/fuse", "/dev/other", "r"),)}),
    "security-options": ({"security_opt": SECURE}, IMAGE, {}),
    "systempaths": ({"security_opt": ("systempaths=unconfined",)}, IMAGE, {}),
    "sysctl": ({"sysctl": ("net.core.somaxconn=10", "kernel.msgmax=100")}, IMAGE, {}),
    "ulimit": ({"ulimit": ("nofile=10:20", "core=-1")}, IMAGE, {}),
    "init": ({"init": True}, IMAGE, {"init": "/usr/bin/tini-static"}),
    "host-namespaces": ({}, IMAGE, {"namespaces": MOST_HOST}),
    "foreign-host-namespaces": ({}, IMAGE, {"namespaces": MOST_HOST, "foreign": True, "has_queues": True}),
    "foreign-privileged": (
        {"privileged": True},
        IMAGE,
        {"namespaces": NamespaceChoice(network="host", ipc="host"), "foreign": True},
    ),
    "join": ({}, IMAGE, {"hostname": "", "namespaces": JOINED}),
    "domainname": ({"hostname": "h", "domainname": "example.org"}, IMAGE, {"hostname": "h"}),
    "annotation": ({"annotation": ("a=b",)}, IMAGE, {}),
    "oom-score-adj": ({"oom_score_adj": 500}, IMAGE, {}),
    "mounts": (
        {},
        IMAGE,
        {
            "mounts": (
                ResolvedMount("bind", "/h", "/b", ("rbind", "rslave", "rro")),
                ResolvedMount("tmpfs", "", "/t", ("noexec", "mode=1777", "rw")),
                ResolvedMount("bind", "/store/volumes/v/_data", "/etc/hosts", ("rbind", "rprivate", "rw")),
                ResolvedMount("overlay", "/l2\0/l1", "/img", ("ro",)),
                ResolvedMount("tmpfs", "", "/dev/shm", ("rw",)),
            )
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    options, image, changes = CASES[name]
    config, warnings = make_config(ContainerOptions("img", **options), image, facts(**changes))
    text = json.dumps({"config": config.to_json(), "warnings": warnings}, indent=1, sort_keys=True) + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("REGENERATE"):
        path.write_text(text)
    assert text == path.read_text()


def test_every_golden_file_has_its_case() -> None:
    assert {p.stem for p in GOLDEN.glob("*.json")} == set(CASES)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workdir": "rel"}, "absolute path"),
        ({"sysctl": ("kernel.panic=1",)}, "not allowed"),
        ({"ulimit": ("nofile=5000",)}, "above your own hard limit"),
        ({"ulimit": ("bogus=1",)}, "invalid --ulimit"),
        ({"security_opt": ("apparmor=x",)}, "cannot be applied"),
        ({"security_opt": ("bogus",)}, "invalid --security-opt"),
        ({"shm_size": "-1"}, "not a size"),
        ({"cap_add": ("NOPE",)}, "unknown capability"),
        ({"oom_score_adj": 2000}, "out of range"),
    ],
)
def test_what_cannot_be_applied_is_an_error(options: dict[str, Any], words: str) -> None:
    """CVE-2025-65105: a requested option is never silently ignored."""
    with pytest.raises(UsageError, match=words):
        make_config(ContainerOptions("img", **options), IMAGE, facts(hard_limits={"nofile": 4096}))


def test_no_command_is_an_error() -> None:
    with pytest.raises(UsageError, match="no command specified"):
        make_config(ContainerOptions("img"), ImageDefaults(), facts())


def test_an_empty_entrypoint_clears_the_images_command_too() -> None:
    with pytest.raises(UsageError, match="no command specified"):
        make_config(ContainerOptions("img", entrypoint=""), IMAGE, facts())
    config, _ = make_config(ContainerOptions("img", entrypoint="", command=("ls",)), IMAGE, facts())
    assert config.process.arguments == ["ls"]


def test_a_user_outside_the_map_is_an_error() -> None:
    with pytest.raises(UsageError, match="not in the container's id map"):
        make_config(ContainerOptions("img"), IMAGE, facts(account=Account(70000, 0, (0,), "/")))


def test_nothing_of_the_images_annotations_or_labels_reaches_the_configuration() -> None:
    """podman release notes: an image must not set run.oci.* annotations."""
    image = IMAGE._replace(labels={"run.oci.keep_original_groups": "1"})
    config, _ = make_config(ContainerOptions("img"), image, facts())
    assert "annotations" not in config.to_json()


def test_inheritable_and_ambient_capabilities_are_empty() -> None:
    """CVE-2022-27649, CVE-2022-29162."""
    config, _ = make_config(ContainerOptions("img"), IMAGE, facts())
    assert config.process.capabilities.inheritable == config.process.capabilities.ambient == 0


def test_a_container_can_be_told_from_a_host() -> None:
    """/.dockerenv, /run/.containerenv and $container, as the image and the user allow; a step of a build has none."""
    made, _ = make_config(ContainerOptions("img"), IMAGE, facts())
    assert {"/.dockerenv", "/run/.containerenv"} < {mount.target for mount in made.mounts}
    assert made.process.env[-1] == "container=oci"
    own, _ = make_config(ContainerOptions("img"), IMAGE._replace(env=("container=mine",)), facts())
    assert [entry for entry in own.process.env if entry.startswith("container=")] == ["container=mine"]
    covering = (ResolvedMount("bind", "/h", "/run", ("rbind",)), ResolvedMount("bind", "/h", "/.dockerenv", ("rbind",)))
    covered, _ = make_config(ContainerOptions("img"), IMAGE, facts(mounts=covering))
    assert [m.target for m in covered.mounts if "env" in m.target] == ["/.dockerenv"]
    step, _ = make_config(ContainerOptions("img"), IMAGE, facts(mark=""))
    assert not {"/.dockerenv", "/run/.containerenv"} & {mount.target for mount in step.mounts}
    assert not any(entry.startswith("container=") for entry in step.process.env)


def test_what_is_without_selinux_needs_no_warning() -> None:
    """No label is ever set, which is what label=disable asks for: editors and devcontainers pass it everywhere."""
    assert make_config(ContainerOptions("img", security_opt=("label=disable",)), IMAGE, facts())[1] == []
