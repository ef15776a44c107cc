"""config.md, process: who the program is, what it may, and what it finds open."""

from __future__ import annotations

import array
import os
import socket
from typing import Any

from tests.conformance.harness import Box, NotApplicable, case, own_range

PROCESS = "config.md#process"
LINUX_PROCESS = "config.md#linux-process"
POSIX_USER = "config.md#posix-platform-user"
CHOWN, KILL, NET_BIND, NET_RAW = 1 << 0, 1 << 5, 1 << 10, 1 << 13


@case(PROCESS)
def arguments_are_exact(box: Box) -> None:
    """args reach the program unchanged: spaces, quotes, nothing, bytes beyond ASCII"""
    words = ["/bin/probe", "arguments", "a b", "", "'\"\\$HOME", "ä\u2028"]
    import json

    answer = json.loads(box.must_run(*words).out)["argv"]
    assert [w.encode("latin-1").decode() for w in answer] == words


@case(PROCESS)
def environment_is_exact(box: Box) -> None:
    """env is the whole environment; nothing of the runtime's own comes in"""
    box.process["env"] = ["PATH=/bin", "A=1=2", "EMPTY=", "SPACE=a b"]
    seen = set(box.probe(env={"LEAK": "1"})["env"])
    assert {"PATH=/bin", "A=1=2", "EMPTY=", "SPACE=a b"} <= seen
    assert not [entry for entry in seen if entry.startswith(("LEAK=", "XDG_"))]


@case(PROCESS)
def working_directory(box: Box) -> None:
    """cwd is the working directory"""
    box.process["cwd"] = "/data/sub"
    assert box.probe()["cwd"] == "/data/sub"


@case(PROCESS)
def relative_working_directory_is_an_error(box: Box) -> None:
    """cwd has to be absolute"""
    box.process["cwd"] = "data"
    box.must_fail()


@case(PROCESS)
def working_directory_cannot_leave_the_root(box: Box) -> None:
    """a cwd below /proc/self/fd does not lead out of the container (CVE-2024-21626)"""
    (box.root / "way").symlink_to("/proc/self/fd/7/../../..")
    for cwd in ("/proc/self/fd/7", "/proc/self/fd/8", "/way"):
        box.process["cwd"] = cwd
        done = box.run("/bin/probe")
        assert done.failed or not os.path.exists("/" + done.out) or '"cwd": "/' in done.out
        assert "of the host" not in box.sh("cat ../../../../../../data/file").out


@case(PROCESS)
def empty_arguments_are_an_error(box: Box) -> None:
    """args needs at least one entry"""
    box.process["args"] = []
    box.must_fail()


@case(POSIX_USER)
def user_and_group(box: Box) -> None:
    """uid and gid are real, effective and saved ids"""
    if not own_range():
        raise NotApplicable("this user has one id only")
    box.process["user"] = {"uid": 11, "gid": 12}
    seen = box.probe()
    assert seen["uids"] == [11] * 3 and seen["gids"] == [12] * 3


@case(POSIX_USER)
def additional_groups(box: Box) -> None:
    """additionalGids are the supplementary groups"""
    if not own_range():
        raise NotApplicable("this user has one id only")
    box.process["user"] = {"uid": 0, "gid": 5, "additionalGids": [7, 9]}
    assert {7, 9} <= set(box.probe()["groups"]) <= {5, 7, 9}


@case(POSIX_USER)
def umask(box: Box) -> None:
    """user.umask is the program's umask"""
    box.process["user"]["umask"] = 0o27
    assert box.probe()["umask"] == 0o27


@case(POSIX_USER)
def unmapped_user_is_an_error(box: Box) -> None:
    """a uid without a mapping is an error: create or run says so"""
    box.process["user"] = {"uid": 4_000_000, "gid": 0}
    assert box.run("/bin/true").failed


@case(POSIX_USER)
def impossible_ids_are_errors(box: Box) -> None:
    """ids that are no numbers of 32 bits are an error"""
    for user in ({"uid": -1, "gid": 0}, {"uid": 1 << 32, "gid": 0}, {"uid": 0, "gid": "root"}):
        box.process["user"] = user
        box.must_fail()


@case(PROCESS)
def rlimits(box: Box) -> None:
    """rlimits are set, soft and hard"""
    box.process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 300, "hard": 400},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_STACK", "soft": 4 << 20, "hard": 16 << 20},
    ]
    seen = box.probe()["rlimits"]
    assert seen["RLIMIT_NOFILE"] == [300, 400] and seen["RLIMIT_CORE"] == [0, 0]
    assert seen["RLIMIT_STACK"] == [4 << 20, 16 << 20]


@case(PROCESS)
def unknown_rlimit_is_an_error(box: Box) -> None:
    """an rlimit that does not exist is an error"""
    box.process["rlimits"] = [{"type": "RLIMIT_MOON", "soft": 1, "hard": 1}]
    box.must_fail()


@case(PROCESS)
def duplicate_rlimit_is_an_error(box: Box) -> None:
    """two entries for one rlimit are an error"""
    box.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}] * 2
    box.must_fail()


@case(PROCESS)
def rlimit_beyond_the_hard_one_is_an_error(box: Box) -> None:
    """an rlimit that this user cannot have is an error"""
    import resource

    if os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 1 << 20:
        raise NotApplicable("this user has no hard limit below the kernel's own")
    box.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 1 << 20, "hard": 1 << 20}]
    assert box.run("/bin/true").failed


@case(LINUX_PROCESS)
def five_capability_sets(box: Box) -> None:
    """each of the five capability sets is what is asked for"""
    box.process["capabilities"] = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "effective": ["CAP_CHOWN"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_CHOWN"],
        "ambient": ["CAP_CHOWN"],
    }
    # not root: exec gives root all of the bounding set
    if not own_range():
        raise NotApplicable("this user has one id only")
    box.process["user"] = {"uid": 3, "gid": 3}
    seen = box.probe()
    assert seen["cap_bounding"] == CHOWN | KILL | NET_RAW
    assert seen["cap_inheritable"] == CHOWN and seen["cap_ambient"] == CHOWN
    assert seen["cap_effective"] == CHOWN and seen["cap_permitted"] == CHOWN


@case(LINUX_PROCESS)
def bounding_set_bounds_root(box: Box) -> None:
    """root in the container has the bounding set and no more; inheritable and ambient stay empty"""
    names = ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]
    box.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), names)
    seen = box.probe()
    assert seen["cap_bounding"] == seen["cap_effective"] == seen["cap_permitted"] == CHOWN | NET_BIND
    assert seen["cap_inheritable"] == seen["cap_ambient"] == 0


@case(LINUX_PROCESS)
def no_capabilities(box: Box) -> None:
    """empty sets are empty"""
    box.process["capabilities"] = {key: [] for key in ("bounding", "effective", "permitted", "inheritable", "ambient")}
    seen = box.probe()
    assert not seen["cap_bounding"] | seen["cap_effective"] | seen["cap_permitted"] | seen["cap_ambient"]


@case(LINUX_PROCESS, "SHOULD")
def unknown_capability_is_a_warning(box: Box) -> None:
    """a capability that cannot be granted does not fail the container"""
    for names in box.process["capabilities"].values():
        names.append("CAP_MOON_LANDING")
    box.must_run("/bin/true")


@case(LINUX_PROCESS)
def no_new_privileges(box: Box) -> None:
    """noNewPrivileges true sets no_new_privs, false does not"""
    for wanted in (True, False):
        box.process["noNewPrivileges"] = wanted
        assert box.probe()["no_new_privs"] == int(wanted)


@case(LINUX_PROCESS)
def oom_score(box: Box) -> None:
    """oomScoreAdj is set, and left alone when unset"""
    with open("/proc/self/oom_score_adj") as file:
        ours = int(file.read())
    assert int(box.probe()["oom_score_adj"]) == ours
    box.process["oomScoreAdj"] = min(1000, ours + 77)
    assert int(box.probe()["oom_score_adj"]) == min(1000, ours + 77)


@case(LINUX_PROCESS)
def scheduler(box: Box) -> None:
    """scheduler sets policy and nice value"""
    box.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    seen = box.probe()
    assert (seen["sched_policy"], seen["nice"]) == (3, 7)


@case(LINUX_PROCESS)
def io_priority(box: Box) -> None:
    """ioPriority sets class and level"""
    box.process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    assert box.probe()["ioprio"] == 2 << 13 | 6


@case(LINUX_PROCESS)
def refused_scheduler_is_an_error(box: Box) -> None:
    """a real-time scheduler that this user cannot have is an error"""
    import resource

    if os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_RTPRIO)[1] != 0:
        raise NotApplicable("this user may have a real-time priority")
    box.process["scheduler"] = {"policy": "SCHED_FIFO", "priority": 10}
    assert box.run("/bin/true").failed


@case(PROCESS)
def terminal(box: Box) -> None:
    """terminal: a pty of the container is stdin and stdout; its master goes to the console socket"""
    box.process["terminal"] = True
    box.process["consoleSize"] = {"height": 33, "width": 77}
    master = _with_console(box, "/bin/sh", "-c", "tty; probe /dev/console > /tmp/report; cat")
    os.write(master, b"hello\n")
    seen = b""
    while b"hello" not in seen or b"/dev/pts/0" not in seen:
        seen += os.read(master, 1000)
    os.close(master)
    box.call("kill", box.id, "KILL")


@case(PROCESS)
def console_size(box: Box) -> None:
    """consoleSize is the size of the pty; /dev/console is there; the pty is the controlling terminal"""
    box.process["terminal"] = True
    box.process["consoleSize"] = {"height": 33, "width": 77}
    master = _with_console(box, "/bin/probe", "/dev/console")
    seen = b""
    try:
        while block := os.read(master, 1 << 16):
            seen += block
    except OSError:
        pass  # the end of a pty
    os.close(master)
    import json

    report: dict[str, Any] = json.loads(seen)
    assert report["winsize"] == [33, 77] and report["isatty"] == 1 and report["controlling_terminal"] == 1
    assert report["paths"]["/dev/console"]["kind"] == "char" and report["sid"] == report["pid"]


def _with_console(box: Box, *arguments: str) -> int:
    """Create and start with a console socket; the master's fd."""
    path = str(box.directory / "tty")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(60)
        box.create(*arguments, options=("--console-socket", path))
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(60)
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
    master = array.array("i", ancillary[0][2])[0]
    box.start()
    return master


@case(PROCESS)
def no_terminal(box: Box) -> None:
    """without terminal stdin is no tty, and there is no controlling terminal"""
    seen = box.probe()
    assert seen["isatty"] == 0 and seen["controlling_terminal"] == 0


@case(PROCESS, "EXTRA")
def no_descriptors_leak(box: Box) -> None:
    """the program finds fds 0, 1 and 2 open and no other, whatever the caller has open"""
    with open("/etc/passwd") as file:
        assert box.probe(pass_fds=(file.fileno(),))["fds"] == [0, 1, 2]


@case(PROCESS, "EXTRA")
def preserved_descriptors(box: Box) -> None:
    """--preserve-fds 1 passes fd 3 on"""
    reader, writer = os.pipe()
    box.process["args"] = ["/bin/sh", "-c", "echo through >&3"]
    box.save()
    done = box.call_with_fd_3(writer, "run", "--preserve-fds", "1", box.id)
    os.close(writer)
    with open(reader, "rb") as file:
        assert file.read() == b"through\n", done.err


@case(PROCESS, "EXTRA")
def notify_socket(box: Box) -> None:
    """NOTIFY_SOCKET of systemd: READY=1 of the container arrives at the caller's socket"""
    path = str(box.directory / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(60)
        environment = {"NOTIFY_SOCKET": path}
        box.create("/bin/sh", "-c", "probe notify READY=1; sleep 100", env=environment)
        box.start(env=environment)
        seen = ""
        while "READY=1" not in seen:
            seen += listener.recv(4096).decode() + "\n"


@case(PROCESS, "EXTRA")
def first_process(box: Box) -> None:
    """the program is process 1 of its own session"""
    seen = box.probe()
    assert seen["pid"] == 1 and seen["sid"] == 1
