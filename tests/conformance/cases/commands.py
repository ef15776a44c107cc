"""What the specification leaves open and podman, containerd and Slurm count on: exec, ps, list, run, spec, logs."""

from __future__ import annotations

import array
import json
import os
import socket
from pathlib import Path
from typing import Any

from tests.conformance.harness import Box, Done, NotApplicable, case, own_range

COMMANDS = "the command line of runc"
AFFINITY = "config.md#linux-process (execCPUAffinity)"


def _exec(box: Box, *words: str) -> Done:
    return box.call("exec", *words)


def _exec_probe(box: Box, *options: str, paths: tuple[str, ...] = ()) -> dict[str, Any]:
    done = _exec(box, *options, box.id, "/bin/probe", *paths)
    assert not done.failed, done.err.strip()[-400:]
    answer: dict[str, Any] = json.loads(done.out)
    return answer


@case(COMMANDS, "EXTRA")
def exec_joins_all_namespaces(box: Box) -> None:
    """exec runs in every namespace of the container, and ends with the status of its process"""
    pid = box.up()
    seen = _exec_probe(box)["namespaces"]
    for name, link in seen.items():
        assert link == os.readlink(f"/proc/{pid}/ns/{name}"), name
    assert _exec(box, box.id, "/bin/sh", "-c", "exit 9").status == 9


@case(COMMANDS, "EXTRA")
def exec_is_the_containers_process(box: Box) -> None:
    """exec has the environment, directory, capabilities and no_new_privs of the configuration"""
    box.process["env"].append("OWN=1")
    box.process["cwd"] = "/data"
    box.up()
    seen = _exec_probe(box)
    assert "OWN=1" in seen["env"] and seen["cwd"] == "/data" and seen["no_new_privs"] == 1
    assert seen["cap_bounding"] == _exec_probe(box)["cap_permitted"] and seen["fds"] == [0, 1, 2]


@case(COMMANDS, "EXTRA")
def exec_flags(box: Box) -> None:
    """exec --cwd and --env change the process"""
    box.up()
    seen = _exec_probe(box, "--cwd", "/data/sub", "--env", "MORE=x y")
    assert seen["cwd"] == "/data/sub" and "MORE=x y" in seen["env"]


@case(COMMANDS, "EXTRA")
def exec_user(box: Box) -> None:
    """exec --user UID:GID runs as that user"""
    if not own_range():
        raise NotApplicable("this user has one id only")
    box.up()
    seen = _exec_probe(box, "--user", "7:8")
    assert seen["uids"] == [7] * 3 and seen["gids"] == [8] * 3


@case(COMMANDS, "EXTRA")
def exec_capability(box: Box) -> None:
    """exec --cap adds a capability, and none to the inheritable and ambient sets (CVE-2022-29162)"""
    for names in box.process["capabilities"].values():
        names[:] = ["CAP_CHOWN"]
    box.up()
    seen = _exec_probe(box, "--cap", "CAP_KILL")
    assert seen["cap_effective"] == 1 | 1 << 5 and seen["cap_inheritable"] == seen["cap_ambient"] == 0


@case(COMMANDS, "EXTRA")
def exec_process_file(box: Box) -> None:
    """exec --process takes an OCI process object, as a whole"""
    box.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    box.up()
    process = {**box.process, "args": ["/bin/probe"], "cwd": "/tmp", "env": ["ONLY=1"], "noNewPrivileges": False}
    process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 128, "hard": 128}]
    process["user"] = {"uid": 0, "gid": 0, "umask": 0o77}
    (box.path / "process.json").write_text(json.dumps(process))
    done = _exec(box, "--process", "process.json", box.id)
    assert not done.failed, done.err
    seen = json.loads(done.out)
    assert [e for e in seen["env"] if not e.startswith("HOME=")] == ["ONLY=1"] and seen["cwd"] == "/tmp"
    assert seen["rlimits"]["RLIMIT_NOFILE"] == [128, 128] and seen["no_new_privs"] == 0
    assert seen["umask"] == 0o77


@case(COMMANDS, "EXTRA")
def exec_in_the_background(box: Box) -> None:
    """exec --detach --pid-file returns while the process runs"""
    box.up()
    done = box.background("exec", "--detach", "--pid-file", str(box.path / "pid"), box.id, "/bin/sh", "-c",
                          "touch /tmp/in; sleep 100")  # fmt: skip
    assert not done.failed, done.err
    box.until((box.root / "tmp/in").exists, "the process")
    assert Path(f"/proc/{int((box.path / 'pid').read_text())}").exists()


@case(COMMANDS, "EXTRA")
def exec_terminal(box: Box) -> None:
    """exec --tty --console-socket: a pty of the container, whose master goes to the socket"""
    box.up()
    path = str(box.directory / "tty")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(60)
        done = box.background("exec", "--tty", "--detach", "--console-socket", path, box.id, "/bin/sh", "-c",
                              "tty; cat")  # fmt: skip
        assert not done.failed, done.err
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(60)
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
    master = array.array("i", ancillary[0][2])[0]
    seen = b""
    while b"/dev/pts/" not in seen:
        seen += os.read(master, 1000)
    os.close(master)


@case(COMMANDS, "EXTRA")
def exec_cannot_leave_by_its_directory(box: Box) -> None:
    """exec --cwd /proc/self/fd/N does not lead out of the container (CVE-2024-21626)"""
    box.up()
    for number in range(3, 12):
        done = _exec(box, "--cwd", f"/proc/self/fd/{number}", box.id, "/bin/ls", "../../../../../../usr/lib")
        assert done.failed, f"fd {number}"


@case(COMMANDS, "EXTRA")
def exec_wants_a_running_container(box: Box) -> None:
    """exec in a stopped container is an error"""
    box.up("/bin/true")
    box.until_status("stopped")
    assert _exec(box, box.id, "/bin/true").failed


@case(COMMANDS, "EXTRA")
def exec_missing_program(box: Box) -> None:
    """exec of what does not exist is an error, and the container goes on"""
    box.up()
    assert _exec(box, box.id, "/bin/nope").failed and box.status() == "running"


@case(COMMANDS, "EXTRA")
def exec_has_the_filter(box: Box) -> None:
    """exec is under the seccomp filter of the configuration"""
    box.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW",
                            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}  # fmt: skip
    box.up()
    assert "not permitted" in _exec(box, box.id, "/bin/mkdir", "/tmp/x").err


@case(AFFINITY, "SHOULD")
def exec_cpu_affinity(box: Box) -> None:
    """execCPUAffinity.final is the set of processors of an exec, and not of the first process"""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise NotApplicable("this host has one processor")
    box.process["execCPUAffinity"] = {"initial": str(allowed[0]), "final": str(allowed[-1])}
    pid = box.up()
    assert _exec_probe(box)["cpus"] == [allowed[-1]]
    assert sorted(os.sched_getaffinity(pid)) == allowed


@case(AFFINITY)
def broken_cpu_affinity_is_an_error(box: Box) -> None:
    """an execCPUAffinity that is no list of processors is an error"""
    box.process["execCPUAffinity"] = {"initial": "moon"}
    if not box.run("/bin/true").failed:
        box.up()
        assert _exec(box, box.id, "/bin/true").failed


@case(COMMANDS, "EXTRA")
def list_and_ps(box: Box) -> None:
    """list --format json has id, pid, status and bundle; ps --format json the pids"""
    pid = box.up("/bin/sh", "-c", "sleep 100 & touch /tmp/ready; wait")
    box.until((box.root / "tmp/ready").exists, "the child")
    rows = json.loads(box.call("list", "--format", "json").out)
    assert [(r["id"], r["pid"], r["status"], r["bundle"]) for r in rows] == [(box.id, pid, "running", str(box.path))]
    done = box.call("ps", "--format", "json", box.id)
    assert not done.failed and pid in json.loads(done.out) and len(json.loads(done.out)) == 2, done.err


@case(COMMANDS, "EXTRA")
def run_in_the_background(box: Box) -> None:
    """run --detach returns while the container runs"""
    box.process["args"] = ["/bin/sleep", "100"]
    box.save()
    assert not box.background("run", "--detach", box.id).failed
    assert box.status() == "running"


@case(COMMANDS, "EXTRA")
def run_deletes_its_container(box: Box) -> None:
    """run forgets the container at its end"""
    box.must_run("/bin/true")
    assert box.call("state", box.id).failed


@case(COMMANDS, "EXTRA")
def bundle_flag(box: Box) -> None:
    """--bundle before or after the id"""
    box.process["args"] = ["/bin/echo", "x"]
    box.save()
    assert box.call("run", "--bundle", str(box.path), box.id).out == "x\n"
    assert box.call("run", "-b", str(box.path), box.id).out == "x\n"


@case(COMMANDS, "EXTRA")
def specification_that_runs(box: Box) -> None:
    """spec --rootless writes a configuration that this user can run"""
    assert not box.call("spec", "--rootless", "--bundle", str(box.path)).failed
    config = json.loads((box.path / "config.json").read_text())
    config["process"]["terminal"] = False
    config["process"]["args"] = ["/bin/echo", "good"]
    # a cgroup mount that crun and runc write is refused to ordinary users on hybrid hosts
    config["mounts"] = [
        m for m in config["mounts"] if m["type"] not in ("cgroup", "cgroup2") and "cgroup" not in m["destination"]
    ]
    (box.path / "config.json").write_text(json.dumps(config))
    done = box.call("run", box.id)
    assert done.out == "good\n", done.err


@case(COMMANDS, "EXTRA")
def json_log(box: Box) -> None:
    """--log FILE --log-format json has the error as JSON"""
    log = box.directory / "log"
    done = box.call("--log", str(log), "--log-format", "json", "start", "no-such-container")
    assert done.failed
    last = json.loads(log.read_text().splitlines()[-1])
    assert last["level"] == "error" and last["msg"]


@case(COMMANDS, "EXTRA")
def pause_and_resume(box: Box) -> None:
    """pause stops all processes, state says paused, resume lets them go on; or pause is refused with an error"""
    box.up("/bin/sh", "-c", "while :; do touch /tmp/tick; usleep 20000; done")
    done = box.call("pause", box.id)
    if done.failed:
        assert box.status() == "running" and done.err.strip()
        return
    assert box.status() == "paused"
    assert not box.call("resume", box.id).failed and box.status() == "running"
