"""Issue 8, A.6: processes of a container that no pid namespace and no cgroup holds end with it all the same."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.host import cgroups
from rootless.kernel.procfs import read_stat
from tests.conftest import Runner, make_private_directory, remove_private_directory, require
from tests.integration.runtime.bundle import BUSYBOX, Bundle


class Sleepers:
    """Processes that are found again by how long they sleep."""

    def __init__(self) -> None:
        self.seconds = str(90000 + time.monotonic_ns() % 9000)

    def pids(self) -> list[int]:
        found = []
        for directory in Path("/proc").iterdir():
            try:
                words = (directory / "cmdline").read_bytes().split(b"\0") if directory.name.isdigit() else []
                if self.seconds.encode() in words and b"sleep" in words:
                    found.append(int(directory.name))
            except OSError:
                continue
        return found

    def wait(self) -> None:
        deadline = time.monotonic() + 10
        while not self.pids():
            assert time.monotonic() < deadline, "the container has started no process"
            time.sleep(0.05)

    def are_gone(self) -> bool:
        deadline = time.monotonic() + 3
        while self.pids() and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.pids()


@pytest.fixture
def sleepers() -> Iterator[Sleepers]:
    made = Sleepers()
    yield made
    for pid in made.pids():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(autouse=True)
def nothing_left(busybox: Runner) -> Iterator[None]:
    yield
    busybox("rm", "-f", "b", "a", check=False)


WITHOUT_CGROUP = ("--network", "none", "--cgroups=disabled")
CHROOTED = "mkdir -p /c/bin; cp /bin/busybox /c/bin; setsid chroot /c /bin/busybox sleep {} & sleep 1000"
UNSHARED = "setsid unshare -m sh -c 'sleep {}' & sleep 1000"


@pytest.mark.parametrize("verb", ["rm", "kill", "stop"])
@pytest.mark.parametrize("script", [CHROOTED, UNSHARED], ids=["chroot", "unshare"])
def test_what_chroots_in_the_hosts_pid_namespace_ends_with_the_container(
    busybox: Runner, sleepers: Sleepers, script: str, verb: str
) -> None:
    command = ("sh", "-c", script.replace("{}", sleepers.seconds))
    capability = ("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined") if "unshare" in script else ()
    busybox("run", "-d", "--name", "a", "--pid=host", *WITHOUT_CGROUP, *capability, "busybox", *command)
    sleepers.wait()
    busybox(verb, *{"rm": ["-f"], "kill": [], "stop": ["-t", "0"]}[verb], "a")
    assert sleepers.are_gone()


@pytest.mark.parametrize("verb", ["rm", "kill"])
def test_what_shares_another_containers_pid_namespace_ends_with_its_own(
    busybox: Runner, sleepers: Sleepers, verb: str
) -> None:
    busybox("run", "-d", "--name", "a", *WITHOUT_CGROUP, "busybox", "sleep", "1000")
    script = CHROOTED.replace("{}", sleepers.seconds)
    busybox("run", "-d", "--name", "b", "--pid=container:a", *WITHOUT_CGROUP, "busybox", "sh", "-c", script)
    sleepers.wait()
    busybox(verb, *(["-f"] if verb == "rm" else []), "b")
    assert sleepers.are_gone()
    assert busybox("exec", "a", "echo", "lives").stdout == "lives\n"


@pytest.mark.parametrize("numbers", ["unique", "inodes"])
@pytest.mark.parametrize("script", [CHROOTED, UNSHARED], ids=["chroot", "unshare"])
def test_what_outlives_a_killed_monitor_ends_with_the_next_command(
    busybox: Runner, sleepers: Sleepers, script: str, numbers: str
) -> None:
    """inodes: as on kernels before 6.11, where the numbers of namespaces are given again to others."""
    script = script.replace("{}", sleepers.seconds)
    capability = ("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined") if "unshare" in script else ()
    busybox("run", "-d", "--name", "a", "--pid=host", *WITHOUT_CGROUP, *capability, "busybox", "sh", "-c", script)
    sleepers.wait()
    container_id = busybox("inspect", "-f", "{{.Id}}", "a").stdout.strip()
    found = next(
        Path(busybox("info", "-f", "{{.RootDir}}").stdout.strip()).glob(f"containers/{container_id}/state.json")
    )
    state = json.loads(found.read_text())
    if numbers == "inodes":
        time.sleep(2)  # the monitor has settled by now, and writes its state no more
        for name in ("mount", "user"):
            state["namespaces"][name][0][1] = 0
        found.write_text(json.dumps(state))
    os.kill(state["monitor_pid"], signal.SIGKILL)
    time.sleep(0.2)
    busybox("rm", "-f", "a")
    if (numbers, script.count("unshare")) != ("inodes", 1):
        assert sleepers.are_gone()


def test_nobody_is_killed_for_a_number_that_was_given_again(busybox: Runner, sleepers: Sleepers) -> None:
    """The namespaces noted for an ended container have the inodes of a living one, as it may happen by itself."""
    script = f"sleep {sleepers.seconds}"
    busybox("run", "-d", "--name", "a", "--pid=host", *WITHOUT_CGROUP, "busybox", "sleep", "1000")
    busybox("run", "-d", "--name", "b", "--pid=host", *WITHOUT_CGROUP, "busybox", "sh", "-c", f"{script}; true")
    sleepers.wait()
    store = Path(busybox("info", "-f", "{{.RootDir}}").stdout.strip())
    ids = [busybox("inspect", "-f", "{{.Id}}", name).stdout.strip() for name in ("a", "b")]
    first, second = (json.loads((store / "containers" / each / "state.json").read_text()) for each in ids)
    time.sleep(2)
    os.kill(first["monitor_pid"], signal.SIGKILL)
    time.sleep(0.2)
    first["namespaces"] = second["namespaces"]
    for name in ("mount", "user"):
        first["namespaces"][name][0][1] = 0
    (store / "containers" / ids[0] / "state.json").write_text(json.dumps(first))
    busybox("rm", "-f", "a")
    assert len(sleepers.pids()) == 1


@pytest.fixture
def bundles() -> Iterator[list[Bundle]]:
    require(BUSYBOX.exists(), "no static busybox (apt-get install busybox-static)")
    directories = [make_private_directory("r") for _ in range(2)]
    made = [Bundle(directory) for directory in directories]
    yield made
    for bundle in made:
        bundle.close()
    for directory in directories:
        remove_private_directory(directory)


@pytest.mark.parametrize("words", [("kill", "--all", "c", "KILL"), ("delete", "--force", "c")], ids=["kill", "delete"])
def test_the_runtime_ends_all_of_a_container_in_a_shared_pid_namespace(
    bundles: list[Bundle], sleepers: Sleepers, words: tuple[str, ...]
) -> None:
    """A pod: the namespaces are those of the first container, and nobody gave the second one a cgroup."""
    require(cgroups.find_delegation().kind == "none", "this host has delegated cgroups: each container has its own")
    first, second = bundles
    pid = first.up()["pid"]
    for namespace in second.config["linux"]["namespaces"]:
        if namespace["type"] in ("user", "pid", "ipc", "network"):
            namespace["path"] = f"/proc/{pid}/ns/{'net' if namespace['type'] == 'network' else namespace['type']}"
    for key in ("uidMappings", "gidMappings"):
        del second.config["linux"][key]
    second.up(CHROOTED.replace("{}", sleepers.seconds))
    sleepers.wait()
    second.oci(*words)
    assert sleepers.are_gone()
    assert first.oci("state", "c").stdout.count('"running"') == 1


@pytest.mark.parametrize("shared", ["host", "container:a"])
def test_pause_and_top_are_about_one_container_in_a_shared_pid_namespace(
    busybox: Runner, sleepers: Sleepers, shared: str
) -> None:
    """All of its processes, also what has left its parent, and none of the container whose namespace it is."""
    busybox("run", "-d", "--name", "a", *WITHOUT_CGROUP, "busybox", "sleep", "1234")
    script = f"(setsid sleep {sleepers.seconds} &); exec sleep 1235"
    busybox("run", "-d", "--name", "b", f"--pid={shared}", *WITHOUT_CGROUP, "busybox", "sh", "-c", script)
    sleepers.wait()
    first, other = (int(busybox("inspect", "--format", "{{.State.Pid}}", name).stdout) for name in ("b", "a"))
    shown = busybox("top", "b").stdout
    assert f"sleep {sleepers.seconds}" in shown and "sleep 1235" in shown and "sleep 1234" not in shown
    busybox("pause", "b")
    assert (state_of(sleepers.pids()[0]), state_of(first), state_of(other)) == ("T", "T", "S")
    busybox("unpause", "b")
    assert (state_of(sleepers.pids()[0]), state_of(first), state_of(other)) == ("S", "S", "S")


def state_of(pid: int) -> str:
    """The letter of a process's state, once it is no longer on its way to another."""
    deadline = time.monotonic() + 2
    while (letter := read_stat(pid).state) not in ("S", "T") and time.monotonic() < deadline:
        time.sleep(0.02)
    return letter
