"""The real command on a real store: what docker's users type, and what they get back."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import time
from pathlib import Path

import pytest

from rootless import __version__
from rootless.runtime import SPECIFICATION_VERSION
from tests.conftest import Runner, command_path, owns_range, require


def told(done: subprocess.CompletedProcess[str]) -> str:
    """Standard error without the one line that a user without an id range is told."""
    return "".join(
        line for line in done.stderr.splitlines(True) if not line.startswith("warning: you have one id only")
    )


@pytest.fixture
def container(busybox: Runner) -> str:
    """The name of a container that has run and ended."""
    name = f"c{time.monotonic_ns()}"
    busybox(
        "run",
        "--name",
        name,
        "--network=none",
        "-l",
        "com.example.my-key=v",
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 3",
        check=False,
    )
    return name


def test_run_passes_output_and_exit_code(busybox: Runner) -> None:
    done = busybox(
        "run", "--rm", "--network=none", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False
    )
    assert (done.returncode, done.stdout, told(done)) == (7, "out\n", "err\n")


def test_run_reads_standard_input(busybox: Runner) -> None:
    assert busybox("run", "--rm", "-i", "--network=none", "busybox", "cat", input="hello").stdout == "hello"


@pytest.mark.once
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "--rm", "--network=none", "busybox", "/nosuch"], 127, "/nosuch"),
        (["run", "--rm", "--network=none", "busybox", "/etc"], 126, "/etc"),
        (["run", "--pull=never", "nosuch"], 125, "no such image: 'nosuch'"),
        (["run", "--privilged", "busybox"], 125, "did you mean '--privileged'"),
        (["run", "--ulimit", "nofile=x", "busybox"], 125, "nofile"),
        (["run", "--link", "db", "busybox"], 125, "no such option '--link'"),
        (["run", "--memory", "1x", "busybox"], 125, "'1x' is not a size (--memory)"),
        (["update", "--memory", "1g", "nosuch"], 1, "no such container: 'nosuch'"),
        (["stats", "--no-stream", "nosuch"], 1, "no such container: 'nosuch'"),
        (["exec", "nosuch", "true"], 125, "no such container: 'nosuch'"),
        (["start", "nosuch"], 125, "no such container: 'nosuch'"),
        (["rm", "nosuch"], 1, "no such container: 'nosuch'"),
        (["inspect", "nosuch"], 1, "no such object: 'nosuch'"),
        (["image", "inspect", "nosuch"], 1, "no such image: 'nosuch'"),
        (["volume", "inspect", "nosuch"], 1, "nosuch"),
        (["ps", "--format", "{{.Nmaes}}", "-a"], 1, "did you mean '.Names'"),
        (["ps", "--format", "{{", "-a"], 1, "template parsing error: template: 1:1: unclosed action"),
        (["ps", "--filter", "colour=red"], 125, "colour"),
        (["rnu"], 125, "did you mean 'run'"),
    ],
)
def test_errors_are_one_line_with_docker_s_code(
    busybox: Runner, container: str, words: list[str], code: int, message: str
) -> None:
    done = busybox(*words, check=False)
    assert done.returncode == code, done.stderr
    assert message in told(done)
    assert told(done).startswith("rootless: ")
    assert told(done).count("\n") == 1
    assert done.stdout in ("", "[]\n")


@pytest.mark.once
def test_ps_inspect_logs_and_rm(busybox: Runner, container: str) -> None:
    assert container not in busybox("ps").stdout
    heading, *rows = busybox("ps", "-a", "--filter", f"name={container}").stdout.splitlines()
    assert heading.split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    (row,) = rows
    assert "busybox" in row and "Exited (3) " in row and row.endswith(container)
    number = busybox("ps", "-aq", "--no-trunc", "--filter", f"name={container}").stdout.strip()
    assert len(number) == 64
    template = '{{.ID}} {{.Label "com.example.my-key"}} {{.State}}'
    assert (
        busybox("ps", "-a", "--filter", f"name={container}", "--format", template).stdout == f"{number[:12]} v exited\n"
    )
    fields = json.loads(busybox("ps", "-a", "--filter", f"name={container}", "--format", "json").stdout)
    assert fields["Names"] == container
    (found,) = json.loads(busybox("inspect", container).stdout)
    assert found["Id"] == number
    state = busybox("inspect", "-f", '{{.State.ExitCode}} {{index .Config.Labels "com.example.my-key"}}', number[:8])
    assert state.stdout == "3 v\n"
    logs = busybox("logs", container)
    assert (logs.stdout, logs.stderr) == ("out\n", "err\n")
    assert busybox("logs", "-n", "0", container).stdout == ""
    assert busybox("logs", "-t", container).stdout.split()[0].startswith("20")
    assert busybox("rm", container).stdout == f"{container}\n"
    assert busybox("rm", "-f", container).returncode == 0


def test_a_detached_container_from_start_to_end(busybox: Runner) -> None:
    number = busybox("run", "-d", "--name", "long", "--network=none", "busybox", "sleep", "1000").stdout.strip()
    assert len(number) == 64
    assert busybox("exec", "long", "sh", "-c", "echo $0; exit 4", "word", check=False).stdout == "word\n"
    assert busybox("exec", "long", "sh", "-c", "exit 4", check=False).returncode == 4
    assert "sleep" in busybox("top", "long").stdout
    assert busybox("rename", "long", "longer").returncode == 0
    assert busybox("pause", "longer").stdout == "longer\n"
    assert "(Paused)" in busybox("ps").stdout
    assert busybox("unpause", "longer").stdout == "longer\n"
    assert busybox("stop", "-t", "0", "longer").stdout == "longer\n"
    assert busybox("wait", "longer").stdout == "137\n"
    assert busybox("start", "longer").stdout == "longer\n"
    assert busybox("kill", "longer").stdout == "longer\n"
    assert busybox("rm", "-f", "longer").stdout == "longer\n"


@pytest.mark.once
def test_images_and_volumes(busybox: Runner, tmp_path: Path) -> None:
    row = busybox("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.splitlines()
    assert "busybox:latest" in row
    busybox("tag", "busybox", "mine:1")
    assert busybox("images", "-q", "mine").stdout == busybox("images", "-q", "busybox:latest").stdout
    assert busybox("rmi", "mine:1").stdout == "Untagged: mine:1\n"
    assert busybox("history", "busybox").stdout.startswith("IMAGE ")
    archive = tmp_path / "image.tar"
    busybox("save", "-o", str(archive), "busybox")
    assert busybox("load", "-i", str(archive)).stdout.splitlines()[-1] == "Loaded image: busybox:latest"
    assert busybox("volume", "create", "vol").stdout == "vol\n"
    assert busybox("volume", "ls", "-q").stdout.splitlines() == ["vol"]
    assert busybox("volume", "inspect", "-f", "{{.Name}}", "vol").stdout == "vol\n"
    assert busybox("volume", "rm", "vol").stdout == "vol\n"


def contents(root: Path) -> dict[str, object]:
    """Every entry below `root` with its attributes, and what is in the files that this user may read."""
    found: dict[str, object] = {}
    for parent, _, names in os.walk(root):
        for path in (parent, *(os.path.join(parent, name) for name in names)):
            status = os.lstat(path)
            content = None
            if stat.S_ISREG(status.st_mode) and os.access(path, os.R_OK):
                content = Path(path).read_bytes()
            found[path] = status.st_ino, status.st_mode, status.st_uid, status.st_mtime_ns, content
    return found


@pytest.mark.once
@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--rm", "--read-only", "-v", "explained:/data", "-v", "/anonymous"),
        ("--storage-driver", "copy", "--security-opt", "no-new-privileges", "--cap-drop", "ALL"),
        ("--root-emulation", "auto", "--name", "planned", "--init"),
    ],
)
def test_explain_leaves_the_store_as_it_is(busybox: Runner, shared_root: Path, flags: tuple[str, ...]) -> None:
    busybox("explain", *flags, "busybox", "true")  # what the host can do is tried, and kept in the cache
    before = contents(shared_root)
    steps = busybox("explain", *flags, "busybox", "echo", "x").stdout
    assert "execute" in steps and "echo x" in steps
    assert contents(shared_root) == before
    assert ("/data" in steps) == ("explained:/data" in flags)


@pytest.mark.once
def test_explain_makes_no_layers_for_another_map(busybox: Runner, shared_root: Path, tmp_path: Path) -> None:
    require(owns_range(), "this user has no subordinate ids")
    flags = (
        "--userns",
        "keep-id:uid=44,gid=44",
        "-v",
        f"{tmp_path}/new:/new:U",
        "--mount",
        "type=image,src=busybox,dst=/i",
    )
    busybox("explain", *flags, "busybox", "true")
    before = contents(shared_root)
    found = json.loads(busybox("explain", "--json", *flags, "busybox", "true").stdout)
    assert contents(shared_root) == before
    assert not (tmp_path / "new").exists()
    assert all("+" in directory for directory in found["launch"]["rootfs"]["lowerdirs"])
    assert busybox("run", "--rm", "--network=none", *flags, "busybox", "stat", "-c", "%u", "/new").stdout == "44\n"


def test_the_whole(busybox: Runner) -> None:
    assert busybox("version", "--format", "{{.Client.Version}}").stdout == f"{__version__}\n"
    assert busybox("version", "--format", "{{.Client.OCIVersion}}").stdout == f"{SPECIFICATION_VERSION}\n"
    assert json.loads(busybox("info", "--format", "json").stdout)
    assert "user namespaces" in busybox("doctor", check=False).stdout
    assert busybox("unshare", "sh", "-c", "id -u; exit 5", check=False).returncode == 5
    assert busybox("system", "df").stdout.splitlines()[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]


def test_a_terminal_gets_escapes_and_a_file_gets_bytes(busybox: Runner, shared_root: Path) -> None:
    """TRAPS: terminal injection by labels, names and messages from outside."""
    evil = "\x1b]0;owned\x07"
    busybox("create", "--name", "evil", "--network=none", "-l", f"a={evil}", "busybox")
    words = ["ps", "-a", "--filter", "name=evil", "--format", "{{.Labels}}"]
    try:
        assert evil in busybox(*words).stdout
        assert busybox(*words, env={}).stdout.strip() == f"a={evil}"
        leader, follower = pty.openpty()
        subprocess.run(
            [*command_path(), *words],
            stdout=follower,
            env={**os.environ, "ROOTLESS_ROOT": str(shared_root)},
            check=True,
        )
        shown = os.read(leader, 4096).decode()
        os.close(leader)
        os.close(follower)
        assert shown.strip() == "a=\\x1b]0;owned\\a"
    finally:
        busybox("rm", "evil")


def test_nobody_reads(busybox: Runner, shared_root: Path) -> None:
    command = subprocess.Popen(
        [*command_path(), "images", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "ROOTLESS_ROOT": str(shared_root)},
    )
    assert command.stdout is not None and command.stderr is not None
    command.stdout.close()
    assert command.stderr.read() == b""
    assert command.wait() == 141


def test_closed_streams_are_no_trouble(shared_root: Path) -> None:
    script = 'exec "$@" <&- >&- 2>&-'
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *command_path(), "images"],
        env={**os.environ, "ROOTLESS_ROOT": str(shared_root)},
    )
    assert done.returncode == 0


@pytest.mark.once
def test_bash_completes_names(busybox: Runner, shared_root: Path, tmp_path: Path) -> None:
    repository = Path(__file__).resolve().parents[3]
    program = tmp_path / "rootless"
    script = (
        f"source {repository}/contrib/completions/bash/rootless\n"
        'COMP_WORDS=(rootless run busy); COMP_CWORD=2; _rootless_completion "$1"; echo "${COMPREPLY[@]}"'
    )
    quoted = command_path()
    program.write_text(
        "#!/usr/bin/env python3\nimport os, sys\n" + f"os.execv({quoted[0]!r}, {quoted!r} + sys.argv[1:])\n"
    )
    program.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(program)],
        capture_output=True,
        text=True,
        env={**os.environ, "ROOTLESS_ROOT": str(shared_root)},
    )
    assert "busybox" in done.stdout.split(), done.stderr
