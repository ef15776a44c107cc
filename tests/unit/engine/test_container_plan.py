"""The plan of a container, from facts alone: no store, no host, no disk."""

from __future__ import annotations

from typing import Any

import pytest

from rootless.engine.plan.bundle import NamespaceChoice, ResolvedMount
from rootless.engine.plan.container_plan import (
    ContainerFacts,
    ContainerPlan,
    ImageFacts,
    Joins,
    Mounts,
    NewVolume,
    Places,
    ProcessFacts,
    plan,
)
from rootless.engine.plan.identity import Identity
from rootless.engine.plan.networking import Network
from rootless.engine.plan.users import Account
from rootless.engine.settings import Settings
from rootless.engine.types import ImageDefaults
from rootless.errors import HostLimit, UsageError
from rootless.host.cgroups import Delegation
from rootless.host.idmap import SubordinateIds, default_map
from rootless.records.container_options import ContainerOptions
from rootless.records.launch import RootEmulation
from rootless.records.port import Port
from rootless.records.rootfs import RootfsPlan
from rootless.runtime.seccomp.seccomp_profile import SeccompProfile, SeccompRule

ID = "c0ffee" + "0" * 58
DIRECTORY = f"/no/store/containers/{ID}"
ID_MAP = default_map(SubordinateIds([(100000, 65536)], [(100000, 65536)]), 1001, 1001)
IMAGE = ImageFacts("busybox", "sha256:c", "sha256:m", ("sha256:1", "sha256:2"), ImageDefaults(cmd=("sh",)))
PROFILE = SeccompProfile("SCMP_ACT_ERRNO")


def facts(**changes: Any) -> ContainerFacts:
    known: dict[str, Any] = {
        "container_id": ID,
        "name": "calm_maple",
        "nodename": "host",
        "now": 1796016319.5,
        "places": Places(DIRECTORY, "/no/store/names", "/no/store/events.log", "/no/run"),
        "identity": Identity(ID_MAP, Account(0, 0, (0,), "/root", "root")),
        "outer_map": None,
        "joins": Joins(NamespaceChoice()),
        "network": Network("none"),
        "mounts": Mounts(),
        "rootfs": RootfsPlan("overlay", DIRECTORY, ["/no/store/layers/2/diff", "/no/store/layers/1/diff"]),
        "process": ProcessFacts(profile=PROFILE, filter_path="/no/cache/f.bpf"),
        **changes,
    }
    return ContainerFacts(**known)


def planned(_facts: ContainerFacts | None = None, image: ImageFacts = IMAGE, **options: Any) -> ContainerPlan:
    return plan(ContainerOptions("busybox", **options), image, _facts or facts(), Settings())


def test_the_three_files_say_the_same() -> None:
    made = planned(stop_timeout=3, label=("a=b",))
    record, launch = made.record, made.launch
    assert (record.id, record.name, launch.id, launch.name) == (ID, "calm_maple", ID, "calm_maple")
    assert made.config.process.arguments == record.command == ["sh"]
    assert made.config.hostname == record.hostname == made.hostname == ID[:12]
    assert (record.stop.timeout, launch.stop_timeout) == (3, 3)
    assert (record.layers, record.driver) == (["sha256:1", "sha256:2"], "overlay")
    assert (launch.bundle, launch.seccomp_bpf, launch.remove) == (DIRECTORY, "/no/cache/f.bpf", None)
    assert (made.has_own_names, made.has_apt_file, made.warnings) == (True, False, [])


def test_a_new_name_is_everywhere() -> None:
    made = planned(rm=True)
    made.rename("brave_otter")
    assert made.launch.remove is not None and made.launch.events is not None
    assert made.record.name == made.launch.name == made.launch.events.attributes["name"] == "brave_otter"
    assert made.launch.remove.name_file == "/no/store/names/brave_otter"


def test_anonymous_volumes_go_with_the_container() -> None:
    mounts = Mounts(
        resolved=(ResolvedMount("bind", "/no/v/a/_data", "/a"),),
        volumes=("a", "kept"),
        new_volumes=(NewVolume("a", "/no/v/a", anonymous=True), NewVolume("kept", "/no/v/kept", anonymous=False)),
        warnings=("a label",),
    )
    made = planned(facts(mounts=mounts), rm=True)
    assert made.launch.remove is not None
    assert made.launch.remove.volumes == ["/no/v/a"]
    assert made.record.volumes == ["a", "kept"]
    assert made.warnings == ["a label"]
    assert any(mount.target == "/a" for mount in made.config.mounts)


def test_another_runtime_gets_the_profile_and_ours_its_filter() -> None:
    foreign = planned(facts(process=ProcessFacts(profile=PROFILE, runtime="/usr/bin/crun")))
    assert foreign.config.seccomp == PROFILE.to_json()
    assert (foreign.launch.seccomp_bpf, foreign.launch.runtime, foreign.record.runtime) == (
        None,
        "/usr/bin/crun",
        "/usr/bin/crun",
    )
    ours = planned()
    assert ours.config.seccomp is None and ours.launch.runtime is None


def test_a_shared_network_lends_its_names() -> None:
    joins = Joins(NamespaceChoice(user="/proc/1/ns/user", network="/proc/1/ns/net"), True, "beef", "/no/beef", "other")
    made = planned(facts(joins=joins, network=Network("container")))
    assert not made.has_own_names
    assert (made.record.hostname, made.record.names_directory) == ("other", "/no/beef")
    assert (made.record.network.container, made.launch.joined_user) == ("beef", True)
    assert any(mount.source == "/no/beef/hosts" for mount in made.config.mounts)


def test_ports_are_in_both_files() -> None:
    ports = (Port("", 8080, 80),)
    made = planned(facts(network=Network("pasta", ports, "a weakness")), expose=("80", "53/udp"))
    assert made.record.network.ports == made.launch.network.ports == list(ports)
    assert made.record.exposed == ["80/tcp", "53/udp"]
    assert made.warnings == ["a weakness"]


def test_an_emulated_root_reads_our_apt_file() -> None:
    emulation = RootEmulation("/no/f", "/no/p", {"x86_64:92": "chown"})
    made = planned(facts(process=ProcessFacts(emulation=emulation)))
    assert made.has_apt_file and made.launch.root_emulation is emulation
    listener = SeccompProfile("SCMP_ACT_ALLOW")
    listener.rules = [SeccompRule(["chown"], "SCMP_ACT_NOTIFY")]
    with pytest.raises(UsageError, match="exclude each other"):
        planned(facts(process=ProcessFacts(emulation=emulation, profile=listener)))


def test_a_cgroup_that_was_asked_for_must_be_there() -> None:
    none = Delegation("none", reason="cgroup version 1")
    with pytest.raises(HostLimit, match="cgroup version 1"):
        planned(facts(cgroup=none), cgroup_parent="/x")
    assert "--memory" in planned(facts(cgroup=none), memory="10m").warnings[0]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"hostname": "a b"}, "--hostname"),
        ({"hostname": "a", "uts": "host"}, "UTS mode"),
        ({"rm": True, "restart": "always"}, "--restart and --rm"),
        ({"log_driver": "syslog"}, "log driver"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        planned(**options)
