"""Where a container's cgroup is: below a delegated cgroup directly, below a named slice, split from the current one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from rootless.host import cgroups, scope
from rootless.host.facts import find_helper
from tests.conftest import Runner, command_path, require
from tests.integration.engine.test_events import environment
from tests.integration.runtime.cgroups.conftest import SECONDS, delegated

InScope = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def in_scope(busybox: Runner) -> InScope:
    """Run a shell script in a delegated scope of its own, where `$R` is rootless on the module's store."""
    require(delegated().kind == "scope", "this host has no user manager of systemd to ask for a scope")
    require(find_helper("systemd-run"), "this host has no systemd-run")

    def run(script: str) -> subprocess.CompletedProcess[str]:
        command = " ".join(f"'{word}'" for word in command_path()[:-1])
        boot = command_path()[-1].replace("'", "'\\''")
        prefix = f"R() {{ {command} '{boot}' \"$@\"; }}; "
        flags = ("--user", "--scope", "--quiet", "--collect", "-p", "Delegate=yes")
        done = subprocess.run(
            ["systemd-run", *flags, "sh", "-c", prefix + script],
            env={**os.environ, **environment(busybox)},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done

    return run


def test_below_a_delegated_scope_cgroups_are_made_directly(in_scope: InScope) -> None:
    """Once we have made room in it (--cgroups=split says that it is ours), later containers are beside."""
    out = in_scope(
        "R run --rm --cgroups=split --network=none busybox true; "
        "R run -d --name=direct --network=none --memory=64m busybox sleep 1000 >/dev/null; "
        "R inspect -f '{{.State.CgroupPath}}' direct; cat /proc/self/cgroup; R exec direct true; "
        "R rm -f direct >/dev/null; cat /proc/self/cgroup; "
        "ls /sys/fs/cgroup$(sed 's/0:://; s,/rootless-inner,,' /proc/self/cgroup)"
    ).stdout.splitlines()
    path, own, again, *left = out
    assert f"/{cgroups.PREFIX}" in path and "/container" not in path
    assert own == again and own.endswith(f".scope/{cgroups.LEAF}"), "made room for controllers, once"
    assert os.path.dirname(path).endswith(os.path.dirname(own.removeprefix("0::")))
    assert not [name for name in left if name.startswith(cgroups.PREFIX) and name != cgroups.LEAF]


def test_split_stays_in_the_current_cgroup(in_scope: InScope) -> None:
    script = (
        "R run --rm --cgroups=split --cgroupns=host --network=none busybox cat /proc/self/cgroup; cat /proc/self/cgroup"
    )
    inside, own = in_scope(script).stdout.splitlines()
    assert os.path.dirname(inside) == os.path.dirname(own)


def test_stale_cgroups_are_pruned(in_scope: InScope) -> None:
    name = cgroups.PREFIX + "0" * 64
    here = "G=/sys/fs/cgroup$(sed 's/0:://' /proc/self/cgroup)"
    out = in_scope(f"{here}; mkdir $G/{name}; R system prune -f >/dev/null; ls -d $G/{name}").stdout
    assert name in out, "one that is young may belong to a container that just starts"


def test_a_named_slice(busybox: Runner) -> None:
    require(delegated().kind == "scope", "this host has no user manager of systemd to ask for a scope")
    flags = ("--rm", "--network=none", "--cgroupns=host", "--cgroup-parent=jobs.slice")
    out = busybox("run", *flags, "busybox", "cat", "/proc/self/cgroup").stdout
    assert "/jobs.slice/rootless-" in out and out.endswith(".scope/container\n")
    refused = busybox("run", *flags[:-1], "--cgroup-parent=/system.slice", "busybox", "true", check=False)
    assert refused.returncode == 125 and "not yours to write" in refused.stderr


def test_both_ways_to_systemd_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own socket and the bus: each makes a scope around a child."""
    require(delegated().kind == "scope", "this host has no user manager of systemd to ask for a scope")
    for one in cgroups.manager_sockets():
        child = subprocess.Popen(["sleep", "1000"])
        monkeypatch.setattr(cgroups, "manager_sockets", lambda host=None, one=one: [one])
        try:
            path = scope.ask_for_scope(pid=child.pid).finish()
            assert f"/{scope.SLICE}/" in path and cgroups.is_ours(path)
        finally:
            child.kill()
            child.wait()


def test_a_scope_that_cannot_be_is_told_in_systemds_words() -> None:
    require(delegated().kind == "scope", "this host has no user manager of systemd to ask for a scope")
    from rootless.errors import HostLimit

    with pytest.raises(HostLimit, match="systemd made no scope"):
        scope.ask_for_scope(unit="not a unit name", pid=os.getpid()).finish()
