"""-v, --mount, --tmpfs, --volumes-from, and which mount wins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.engine.plan.mount_flags import (
    MountSpec,
    parse_mount,
    parse_tmpfs,
    parse_volume,
    parse_volumes_from,
    plan_mounts,
)
from rootless.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data", MountSpec("volume", "", "/data")),
        ("v:/data", MountSpec("volume", "v", "/data")),
        ("v:/data:ro,nocopy", MountSpec("volume", "v", "/data", read_only=True, nocopy=True)),
        ("/h:/data//x/../y/", MountSpec("bind", "/h", "/data/y", make_source=True)),
        ("./h:/d:rw,U,z", MountSpec("bind", "/cwd/h", "/d", chown=True, relabel=True, make_source=True)),
        (
            "/h:/d:rslave,noexec",
            MountSpec("bind", "/h", "/d", propagation="rslave", options=("noexec",), make_source=True),
        ),
        ("/h:/d:bind,idmap,cached", MountSpec("bind", "/h", "/d", recursive=False, idmap=True, make_source=True)),
    ],
)
def test_volume_flag(text: str, expected: MountSpec) -> None:
    assert parse_volume(text, "/cwd") == expected


@pytest.mark.parametrize(
    "text", ["", ":/d", "v:", "v:rel", "/h:/", "/h:/d:bogus", "/h:/d:ro:x", "a/b:/d", "v:/d:rshared", "/h:/d:nocopy"]
)
def test_bad_volumes(text: str) -> None:
    with pytest.raises(UsageError):
        parse_volume(text, "/cwd")


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ("ro,rw", "'ro' and 'rw' exclude each other"),
        ("rw,ro", "'rw' and 'ro' exclude each other"),
        ("ro,ro", "'ro' is given twice"),
        ("z,ro,Z", "'z' and 'Z' exclude each other"),
        ("rslave,rprivate", "'rslave' and 'rprivate' exclude each other"),
        ("bind,rbind", "'bind' and 'rbind' exclude each other"),
        ("exec,noexec", "'exec' and 'noexec' exclude each other"),
        ("cached,delegated", "'cached' and 'delegated' exclude each other"),
        ("U,U", "'U' is given twice"),
    ],
)
def test_options_of_a_volume_that_contradict(options: str, hint: str) -> None:
    """docker's words: its linuxValidMountMode counts each group."""
    with pytest.raises(UsageError, match=rf"^invalid mode: {options} ") as raised:
        parse_volume(f"/x:/y:{options}", "/")
    assert raised.value.hint == hint
    with pytest.raises(UsageError, match=r"^invalid mode: nocopy,copy "):
        parse_volume("v:/y:nocopy,copy", "/")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("ro,rw", "'readonly' and 'readwrite' exclude each other"),
        ("readonly,ro=false", "'readonly' is given twice"),
        ("src=/a", "'source' is given twice"),
        ("target=/z", "'target' is given twice"),
        ("suid,nosuid", "'suid' and 'nosuid' exclude each other"),
        ("bind-nonrecursive,bind-recursive=enabled", "exclude each other"),
    ],
)
def test_fields_of_a_mount_that_contradict(fields: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_mount(f"type=bind,source=/x,dst=/y,{fields}", "/")


def test_mount_flag() -> None:
    assert parse_mount("type=bind,src=h,dst=/d,ro", "/cwd") == MountSpec("bind", "/cwd/h", "/d", read_only=True)
    assert parse_mount("type=volume,source=v,target=/d,volume-nocopy", "/") == MountSpec(
        "volume", "v", "/d", nocopy=True
    )
    assert parse_mount("type=volume,target=/d,readonly=false", "/") == MountSpec("volume", "", "/d")
    assert parse_mount("dst=/d", "/").kind == "volume"
    tmpfs = parse_mount("type=tmpfs,dst=/d,tmpfs-size=1m,tmpfs-mode=0700,exec", "/")
    assert tmpfs.options == ("nosuid", "nodev", "size=1048576", "mode=0700", "exec")
    assert parse_mount("type=image,src=busybox,dst=/i", "/") == MountSpec("image", "busybox", "/i")
    quoted = parse_mount('type=bind,"src=/a,b",dst=/d,bind-propagation=rshared', "/")
    assert (quoted.source, quoted.propagation) == ("/a,b", "rshared")


@pytest.mark.parametrize(
    "text",
    [
        "type=bogus,dst=/d",
        "type=bind,dst=/d",
        "type=bind,src=/h",
        "type=tmpfs,src=/x,dst=/d",
        "type=bind,src=/h,dst=/d,bogus=1",
        "type=bind,src=/h,dst=/d,ro=perhaps",
        "type=tmpfs,dst=/d,tmpfs-mode=9",
        "type=image,dst=/d",
        "type=bind,src=/h,dst=/d,volume-nocopy",
    ],
)
def test_bad_mounts(text: str) -> None:
    with pytest.raises(UsageError):
        parse_mount(text, "/cwd")


def test_tmpfs_flag() -> None:
    assert parse_tmpfs("/run").options == ("noexec", "nosuid", "nodev")
    assert parse_tmpfs("/run:exec,size=64k,mode=700").options == ("nosuid", "nodev", "exec", "size=65536", "mode=700")
    with pytest.raises(UsageError):
        parse_tmpfs("/run:upperdir=/etc")


def test_volumes_from() -> None:
    assert parse_volumes_from("c") == ("c", None)
    assert parse_volumes_from("c:ro") == ("c", True)
    for text in ("", ":ro", "c:x"):
        with pytest.raises(UsageError):
            parse_volumes_from(text)


def test_the_users_own_mounts_win_and_parents_come_first() -> None:
    own = [MountSpec("bind", "/h", "/a/b"), MountSpec("volume", "v", "/z")]
    inherited = [MountSpec("volume", "x", "/a"), MountSpec("volume", "x", "/z")]
    planned = plan_mounts(own, inherited, ["/z", "data", "/a/b"])
    assert [(m.target, m.source) for m in planned] == [("/a", "x"), ("/data", ""), ("/z", "v"), ("/a/b", "/h")]
    assert planned[1].from_image
    with pytest.raises(UsageError, match="duplicate mount point"):
        plan_mounts([own[0], own[0]], [], [])


def test_an_images_volume_cannot_leave_the_root() -> None:
    """CVE-2022-23648: `..` in VOLUME is resolved before anything looks at a path."""
    assert plan_mounts([], [], ["/../../etc"])[0].target == "/etc"
    with pytest.raises(UsageError):
        plan_mounts([], [], ["/.."])


@pytest.mark.parametrize("target", ["/proc", "/proc/sys", "/proc/sys/kernel", "/sys/../proc/self"])
def test_nothing_that_a_container_can_write_lies_in_proc(target: str) -> None:
    for asked, inherited, volumes in (
        ([parse_volume(f"v:{target}", "/")], [], []),
        ([parse_mount(f"type=volume,source=v,target={target}", "/")], [], []),
        ([parse_tmpfs(target)], [], []),
        ([], [parse_volume(f"v:{target}", "/")], []),
        ([], [], [target]),
    ):
        with pytest.raises(UsageError, match="inside /proc"):
            plan_mounts(asked, inherited, volumes)


def test_what_only_begins_like_proc_can_be_mounted_on() -> None:
    assert [spec.target for spec in plan_mounts([parse_tmpfs("/process")], [], ["/var/proc"])] == [
        "/process",
        "/var/proc",
    ]


@given(st.text(max_size=40))
def test_the_parsers_raise_nothing_else(text: str) -> None:
    for parse in (lambda t: parse_volume(t, "/"), lambda t: parse_mount(t, "/"), parse_tmpfs):
        try:
            parse(text)
        except UsageError:
            pass


def test_overlay_volumes_and_parts_of_volumes_are_refused_with_a_reason() -> None:
    for text in ("/src:/dst:O", "data:/dst:O,upperdir=/up"):
        with pytest.raises(UsageError, match="there are no overlay volumes"):
            parse_volume(text, "/")
    for field in ("volume-subpath", "subpath"):
        with pytest.raises(UsageError, match="cannot mount 'a/b' of 'data' alone"):
            parse_mount(f"type=volume,source=data,target=/dst,{field}=a/b", "/")
