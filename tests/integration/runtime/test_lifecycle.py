"""create, start, kill, delete, hooks and exec by the rules of runtime.md; nothing left behind."""

from __future__ import annotations

import array
import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rootless import __version__
from rootless.host import cgroups
from rootless.kernel import procfs
from tests.conftest import oci_command_path, require
from tests.integration.runtime.bundle import Bundle


def eventually(fact: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if fact():
            return True
        time.sleep(0.01)
    return False


def state(bundle: Bundle) -> str:
    return str(json.loads(bundle.oci("state", "c").stdout)["status"])


def create(bundle: Bundle, script: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    bundle.config["process"]["args"] = ["sh", "-c", script]
    bundle.save()
    with (bundle.path / "out").open("wb") as out:
        return subprocess.run(
            [*oci_command_path(), "--root", str(bundle.records), "create", *options, "c"],
            cwd=bundle.path, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=check, timeout=60,
            env=bundle.environment,
        )  # fmt: skip


def test_verbs_want_their_states(bundle: Bundle) -> None:
    create(bundle, "echo started; sleep 60", "--pid-file", str(bundle.path / "pid"))
    pid = int((bundle.path / "pid").read_text())
    assert state(bundle) == "created" and (bundle.path / "out").read_text() == ""
    assert "it is created" in bundle.oci("delete", "c", check=False).stderr
    # a created container has everything but its own command
    inside = bundle.oci("exec", "c", "sh", "-c", "hostname; cat /proc/1/comm; echo x > /made").stdout.split()
    assert inside[0] == "rootless" and (bundle.root / "made").exists() and state(bundle) == "created"
    # edits of the bundle after create have no effect
    bundle.config["process"]["args"] = ["false"]
    bundle.save()
    bundle.oci("start", "c")
    assert state(bundle) == "running" and eventually(lambda: "started" in (bundle.path / "out").read_text())
    for verb in (["start", "c"], ["delete", "c"]):
        assert "it is running" in bundle.oci(*verb, check=False).stderr
    assert json.loads(bundle.oci("ps", "-f", "json", "c").stdout)[0] == pid
    bundle.oci("kill", "c", "KILL")
    assert eventually(lambda: state(bundle) == "stopped")
    for verb in (["start", "c"], ["kill", "c"], ["exec", "c", "true"]):
        assert "it is stopped" in bundle.oci(*verb, check=False).stderr
    assert bundle.oci("ps", "-f", "json", "c").stdout == "[]\n"
    assert bundle.oci("ps", "c").stdout.split()[:3] == ["UID", "PID", "PPID"]
    bundle.oci("delete", "c")
    for verb in (["state", "c"], ["start", "c"], ["kill", "c"], ["delete", "c"]):
        assert "does not exist" in bundle.oci(*verb, check=False).stderr
    bundle.oci("delete", "--force", "c")
    assert not list(bundle.records.iterdir())


def test_id_is_unique(bundle: Bundle) -> None:
    create(bundle, "true")
    done = bundle.oci("create", "c", check=False)
    assert done.returncode == 1 and "exists" in done.stderr
    assert state(bundle) == "created"


@pytest.mark.parametrize("word", ["TERM", "sigterm", "15"])
def test_signal_names(bundle: Bundle, word: str) -> None:
    bundle.up("trap 'echo got; exit 3' TERM; echo ready; while :; do usleep 10000; done")
    assert eventually(lambda: "ready" in (bundle.path / "out").read_text())
    bundle.oci("kill", "c", word)
    assert eventually(lambda: state(bundle) == "stopped") and "got" in (bundle.path / "out").read_text()


def test_unknown_signal(bundle: Bundle) -> None:
    bundle.up()
    for word in ("SIGNOPE", "99", "-1", "RTMIN+99"):
        assert "unknown signal" in bundle.oci("kill", "c", "--", word, check=False).stderr


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["nope"], 127, 'exec: "nope": executable file not found in $PATH'),
        (["/nope"], 127, 'exec: "/nope": stat /nope: no such file or directory'),
        (["/etc"], 126, 'exec: "/etc": is a directory: permission denied'),
        (["/etc/passwd"], 126, 'exec: "/etc/passwd": permission denied'),
        (["/broken"], 126, 'exec: "/broken": exec format error'),
        (["/orphan"], 127, 'exec: "/orphan": no such file or directory'),
        ([""], 127, "executable file not found"),
    ],
)
def test_commands_that_cannot_run(bundle: Bundle, arguments: list[str], status: int, text: str) -> None:
    (bundle.root / "broken").write_bytes(b"\x7fELF nonsense")
    (bundle.root / "orphan").write_text("#!/no/such/interpreter\n")
    for name in ("broken", "orphan"):
        (bundle.root / name).chmod(0o755)
    done = bundle.run(*arguments, check=False)
    assert done.returncode == status and text in done.stderr
    assert not list(bundle.records.iterdir()), "a failed run must leave nothing"
    bundle.up()
    done = bundle.oci("exec", "c", *arguments, check=False)
    assert done.returncode == status and text in done.stderr
    assert state(bundle) == "running"


def test_failed_create_leaves_no_process_and_no_record(bundle: Bundle) -> None:
    """runtime.md: on error as if create had never been attempted."""
    before = set(procfs.child_pids(os.getpid()))
    bundle.mount("/nonexistent", "/data")
    assert create(bundle, "true", check=False).returncode == 1
    assert not list(bundle.records.iterdir())
    assert set(procfs.child_pids(os.getpid())) == before


def test_kill_of_the_creator_leaves_nothing_waiting(bundle: Bundle) -> None:
    """Between create and its record nobody could ever start the container: it ends with its launcher."""
    hook = bundle.path / "hook"
    hook.write_text("#!/bin/sh\nkill -9 $PPID\n")
    hook.chmod(0o755)
    bundle.config["hooks"] = {"createRuntime": [{"path": str(hook)}]}
    marker = f"marker-{os.getpid()}"
    bundle.config["process"]["env"].append(f"X={marker}")
    assert create(bundle, "sleep 60", check=False).returncode == -signal.SIGKILL
    assert state(bundle) == "creating"
    bundle.oci("delete", "--force", "c")
    assert not list(bundle.records.iterdir())


def test_hooks_run_in_order_and_place(bundle: Bundle) -> None:
    log = bundle.path / "log"
    hook = bundle.path / "hook"
    hook.write_text(f'#!/bin/sh\necho "$1 $(readlink /proc/self/ns/mnt) $(cat)" >> {log}\n')
    hook.chmod(0o755)
    (bundle.root / "hook").write_text('#!/bin/sh\necho "$1 $(readlink /proc/self/ns/mnt) $(cat)" >> /started\n')
    (bundle.root / "hook").chmod(0o755)
    outside = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    bundle.config["hooks"] = {name: [{"path": str(hook), "args": ["hook", name]}] for name in outside}
    bundle.config["hooks"]["startContainer"] = [
        {"path": "/hook", "args": ["hook", "startContainer"], "env": ["PATH=/bin"]}
    ]
    for name in outside:
        bundle.config["hooks"][name][0]["env"] = ["PATH=/bin:/usr/bin"]
    bundle.sh("cat /started")
    lines = log.read_text().splitlines()
    assert [line.split()[0] for line in lines] == list(outside)
    here = os.readlink("/proc/self/ns/mnt")
    assert [line.split()[1] == here for line in lines] == [True, True, False, True, True]
    states = [json.loads(line.split(" ", 2)[2]) for line in lines]
    assert [s["status"] for s in states] == ["creating", "creating", "creating", "running", "stopped"]
    assert {s["id"] for s in states} == {"c"} and states[0]["bundle"] == str(bundle.path)
    assert states[0]["pid"] > 1


@pytest.mark.parametrize("name", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"])
def test_failing_hook_stops_the_container(bundle: Bundle, name: str) -> None:
    """config.md, and 1.3 for poststart."""
    path = "/bin/false" if name == "startContainer" else "/usr/bin/false"
    bundle.config["hooks"] = {name: [{"path": path}]}
    bundle.config["process"]["args"] = ["sleep", "60"]
    done = bundle.run("sleep", "60", check=False)
    assert done.returncode == 1 and f"{name} hook '{path}' failed with exit status 1" in done.stderr
    assert not list(bundle.records.iterdir())


def test_hook_timeout(bundle: Bundle) -> None:
    bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "30"], "timeout": 1}]}
    assert "longer than its 1 seconds" in bundle.run("true", check=False).stderr


def test_failing_poststop_only_warns(bundle: Bundle) -> None:
    bundle.config["hooks"] = {"poststop": [{"path": "/usr/bin/false"}]}
    done = bundle.run("true")
    assert "poststop hook" in done.stderr and not list(bundle.records.iterdir())


def test_exec_sees_the_container(bundle: Bundle) -> None:
    bundle.config["process"]["env"].append("BASE=1")
    bundle.up("echo > /made; sleep 60")
    script = "hostname; ls /made; echo $BASE $MORE; pwd; test -d /proc/1; exit 5"
    done = bundle.oci("exec", "-e", "MORE=2", "--cwd", "/tmp", "c", "sh", "-c", script, check=False)
    assert (done.returncode, done.stdout) == (5, "rootless\n/made\n1 2\n/tmp\n")
    done = bundle.oci("exec", "--cwd", "/missing", "c", "true", check=False)
    assert done.returncode == 127
    assert 'chdir to cwd ("/missing") set in config.json failed: no such file or directory' in done.stderr
    spaces = "for n in /proc/self/ns/* /proc/1/ns/*; do readlink $n; done | sort | uniq -u 2>/dev/null | wc -l"
    assert bundle.oci("exec", "c", "busybox", "sh", "-c", spaces).stdout.strip() == "0"


def test_exec_of_a_process_file_and_in_the_background(bundle: Bundle) -> None:
    bundle.up()
    process = {
        **bundle.config["process"],
        "args": ["sh", "-c", "echo $Q > /tmp/q; sleep 60"],
        "env": ["Q=x", "PATH=/bin"],
    }
    (bundle.path / "process.json").write_text(json.dumps(process))
    with open(os.devnull, "wb") as null:
        subprocess.run(
            [*oci_command_path(), "--root", str(bundle.records), "exec", "-d", "--pid-file", "pid",
             "-p", "process.json", "c"],
            cwd=bundle.path, check=True, stdin=subprocess.DEVNULL, stdout=null, stderr=null, timeout=60,
        )  # fmt: skip
    pid = int((bundle.path / "pid").read_text())
    assert procfs.status_field(pid, "NSpid").split()[-1] != "1"
    assert eventually(lambda: (bundle.root / "tmp/q").exists() and (bundle.root / "tmp/q").read_text() == "x\n")
    assert pid in json.loads(bundle.oci("ps", "-f", "json", "c").stdout)


def test_exec_of_a_process_from_a_pipe(bundle: Bundle) -> None:
    bundle.up()
    process = {**bundle.config["process"], "args": ["sh", "-c", "echo $Q; cat"], "env": ["Q=x", "PATH=/bin"]}
    assert bundle.oci("exec", "-p", "/dev/stdin", "c", input=json.dumps(process)).stdout == "x\n"
    reader, writer = os.pipe()
    os.write(writer, json.dumps(process).encode())
    os.close(writer)
    done = bundle.oci("exec", "--process", f"/dev/fd/{reader}", "c", pass_fds=(reader,), input="in")
    os.close(reader)
    assert done.stdout == "x\nin"


def test_ps_takes_the_options_of_the_hosts(bundle: Bundle) -> None:
    pid = bundle.up()["pid"]
    head, *lines = bundle.oci("ps", "c", "-e", "-o", "pid,args").stdout.splitlines()
    assert head.split() == ["PID", "COMMAND"] and str(pid) in [line.split()[0] for line in lines] and len(lines) <= 2
    assert any(line.split()[1] == str(pid) for line in bundle.oci("ps", "c").stdout.splitlines())
    done = bundle.oci("ps", "c", "-o", "args", check=False)
    assert done.returncode == 1 and "its output has no column PID" in done.stderr


def test_terminal_onto_a_pipe_has_no_carriage_returns(bundle: Bundle) -> None:
    bundle.config["process"]["terminal"] = True
    bundle.config["process"]["args"] = ["sh", "-c", "tty; echo two"]
    bundle.save()

    def raw(*words: str) -> bytes:
        return subprocess.run(
            [*oci_command_path(), "--root", str(bundle.records), *words],
            cwd=bundle.path, env=bundle.environment, input=b"", capture_output=True, check=True, timeout=60,
        ).stdout  # fmt: skip

    assert raw("run", "c") == b"/dev/pts/0\ntwo\n"
    bundle.config["process"]["terminal"] = False
    bundle.up()
    assert raw("exec", "-t", "c", "sh", "-c", "tty; echo two") == b"/dev/pts/0\ntwo\n"


def test_log_is_written_by_every_command(bundle: Bundle) -> None:
    bundle.save()
    log = bundle.path / "log"
    for number, words in enumerate((("list",), ("features",), ("run", "c"), ("state", "c"), ("delete", "c"))):
        done = bundle.oci(*words, flags=("--log", str(log), "--debug"), check=False)
        assert "debug" not in done.stderr
        text = log.read_text()
        assert (
            text.count(f"debug: rootless-oci {__version__}: {words[0]} ") == 1 and text.count("debug: r") == number + 1
        )
    done = bundle.oci("list", flags=("--log", "/nonexistent/log"), check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert "cannot open log '/nonexistent/log': No such file or directory" in done.stderr


def test_list_of_a_missing_root(bundle: Bundle) -> None:
    """As runc: a directory that was named and is not there is an error, and the default one has no containers yet."""
    done = bundle.oci("list", check=False)
    assert done.returncode == 1 and "no containers are recorded" in done.stderr
    away = {**bundle.environment, "XDG_RUNTIME_DIR": str(bundle.path)}
    done = subprocess.run([*oci_command_path(), "list"], capture_output=True, text=True, env=away, timeout=60)
    assert done.returncode == 0 and done.stdout.split()[0] == "ID"


def test_delete_by_a_regular_expression(bundle: Bundle) -> None:
    bundle.up()
    assert bundle.oci("delete", "--force", "--regex", "d.*").returncode == 0 and state(bundle) == "running"
    assert "invalid regular expression" in bundle.oci("delete", "--regex", "(", check=False).stderr
    bundle.oci("delete", "--force", "--regex", "^c$")
    assert not list(bundle.records.iterdir())


def test_user_namespace_without_mappings_has_what_the_caller_may_map(bundle: Bundle) -> None:
    given = bundle.config["linux"]
    bundle.config["linux"] = {key: value for key, value in given.items() if not key.endswith("Mappings")}
    mapped = sum(extent["size"] for extent in given["uidMappings"])
    counts = bundle.run("sed", "s/.* //", "/proc/self/uid_map").stdout.split()
    assert sum(map(int, counts)) == mapped
    bundle.config["linux"]["uidMappings"] = given["uidMappings"]
    assert "'linux.gidMappings' is missing" in bundle.run("true", check=False).stderr


def test_sockets_of_systemd_are_named_to_the_command(bundle: Bundle) -> None:
    """sd_listen_fds(3): the variables count for the process alone whose pid they tell."""
    bundle.config["process"]["args"] = [
        "sh",
        "-c",
        "echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; readlink /proc/self/fd/3",
    ]
    bundle.save()
    runtime = shlex.join([*oci_command_path(), "--root", str(bundle.records), "run", "c"])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bundle.path / "s.sock"))
        listener.listen(1)
        script = f"exec 3<&{listener.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; exec {runtime}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=bundle.path, env=bundle.environment, capture_output=True, text=True, timeout=60,
            pass_fds=(listener.fileno(),), stdin=subprocess.DEVNULL,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    named, target = done.stdout.splitlines()
    assert named == "1 1 web" and target.startswith("socket:")


def test_console_socket(bundle: Bundle) -> None:
    """CVE-2025-52565: /dev/console is the pty, and the master arrives at the socket."""
    bundle.config["process"]["terminal"] = True
    bundle.config["process"]["consoleSize"] = {"height": 33, "width": 77}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bundle.path / "tty.sock"))
        listener.listen(1)
        script = "tty; stat -c %t /dev/console; stty size; read x; echo got $x; sleep 60"
        create(bundle, script, "--console-socket", str(bundle.path / "tty.sock"))
        connection, _ = listener.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(100, socket.CMSG_SPACE(4))
    master = array.array("i", ancillary[0][2])[0]
    bundle.oci("start", "c")
    seen = b""
    while b"77" not in seen:  # what is typed before that would be echoed in between
        seen += os.read(master, 1000)
    os.write(master, b"hello\n")
    while b"got hello" not in seen:
        seen += os.read(master, 1000)
    os.close(master)
    assert seen.split()[:3] == [b"/dev/pts/0", b"88", b"33"]


def test_terminal_without_a_taker_is_refused(bundle: Bundle) -> None:
    bundle.config["process"]["terminal"] = True
    assert create(bundle, "true", check=False).returncode == 1
    assert "give --console-socket" in (bundle.path / "out").read_text()


def test_run_relays_a_terminal(bundle: Bundle) -> None:
    bundle.config["process"]["terminal"] = True
    done = bundle.sh("tty; test -t 1 && echo is; stty -echo; read x; echo $x", input="typed\n")
    # the echo of what is typed may come at any place
    assert {"/dev/pts/0", "is", "typed"} <= set(done.stdout.split())


def test_signals_are_forwarded_by_run(bundle: Bundle) -> None:
    bundle.config["process"]["args"] = ["sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do usleep 10000; done"]
    bundle.save()
    process = subprocess.Popen(
        [*oci_command_path(), "--root", str(bundle.records), "run", "c"],
        cwd=bundle.path, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.wait(60) == 9


def test_json_log(bundle: Bundle, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = bundle.oci("state", "nope", check=False, flags=("--log", str(log), "--log-format", "json"))
    entry = json.loads(log.read_text())
    assert entry["level"] == "error" and entry["msg"] in done.stderr


def test_a_limit_that_cannot_be_enforced_is_an_error_unless_told_otherwise(bundle: Bundle) -> None:
    require("memory" not in cgroups.find_delegation().controllers, "this host has delegated the memory controller")
    bundle.config["linux"]["resources"] = {"memory": {"limit": 1 << 30}, "devices": [{"allow": False}]}
    refused = bundle.run("true", check=False)
    assert refused.returncode == 1 and "linux.resources.memory.limit cannot be enforced" in refused.stderr
    assert not list(bundle.records.iterdir()), "an error leaves no record"
    for flags, env in ((("--limits", "warn"), {}), ((), {"ROOTLESS_OCI_LIMITS": "warn"})):
        told = bundle.run("true", flags=flags, env=env)
        assert "warning: linux.resources.memory.limit cannot be enforced" in told.stderr
    assert "limits are not applied" in bundle.run("true", flags=("--cgroup-manager", "disabled")).stderr


def test_device_rules_alone_ask_for_no_cgroup(bundle: Bundle) -> None:
    bundle.config["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}], "pids": {"limit": -1}}
    assert bundle.run("true").stderr == ""


def test_verbs_of_cgroups_say_when_there_is_none(bundle: Bundle) -> None:
    require(
        cgroups.find_delegation().kind not in ("directory", "v1"), "this host has delegated a cgroup to each container"
    )
    bundle.up()
    for words in (("pause",), ("update", "--memory", "1000000"), ("events", "--stats")):
        refused = bundle.oci(words[0], *words[1:], "c", check=False)
        assert refused.returncode == 1 and "no cgroup of its own" in refused.stderr, words


def test_many_at_once_leave_nothing(bundle: Bundle) -> None:
    bundle.config["process"]["args"] = ["true"]
    bundle.save()
    running = [
        subprocess.Popen(
            [*oci_command_path(), "--root", str(bundle.records), "run", f"c{i}"],
            cwd=bundle.path, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for i in range(10)
    ]  # fmt: skip
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert not list(bundle.records.iterdir())
