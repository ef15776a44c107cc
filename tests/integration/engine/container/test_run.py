"""`run` and its flags, seen from inside a real container."""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import Runner, require

NONE = "--network=none"


def inside(busybox: Runner, *arguments: str, check: bool = True) -> str:
    """What a container prints that runs with `arguments` (flags, image, command)."""
    return busybox("run", "--rm", NONE, *arguments, check=check).stdout


def test_exit_codes_come_through(busybox: Runner) -> None:
    def code(*arguments: str) -> int:
        return busybox("run", "--rm", NONE, *arguments, check=False).returncode

    assert code("busybox", "true") == 0
    assert code("busybox", "sh", "-c", "exit 42") == 42
    assert code("busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?") == 137
    assert code("busybox", "nosuch") == 127
    assert code("busybox", "/etc/passwd") == 126
    assert code("--pull=never", "nosuchimage") == 125
    assert code("-w", "relative", "busybox", "true") == 125


def test_streams_are_apart_and_stdin_ends(busybox: Runner) -> None:
    result = busybox("run", "--rm", "-i", NONE, "busybox", "sh", "-c", "cat; echo err >&2", input="hello\n")
    assert result.stdout == "hello\n"
    assert "err\n" in result.stderr
    assert inside(busybox, "busybox", "cat") == ""  # without -i: /dev/null


def test_large_output_is_complete(busybox: Runner) -> None:
    assert len(inside(busybox, "busybox", "sh", "-c", "yes | head -c 3000000")) == 3_000_000


def test_nothing_is_left_after_rm(busybox: Runner, shared_root: Path) -> None:
    before = set(os.listdir(shared_root / "containers"))
    inside(busybox, "-v", "/anonymous", "busybox", "true")
    assert set(os.listdir(shared_root / "containers")) == before
    assert not busybox("volume", "ls", "-q").stdout
    assert not os.listdir(shared_root / "trash")


def test_a_failed_run_leaves_nothing(busybox: Runner, shared_root: Path) -> None:
    before = set(os.listdir(shared_root / "containers"))
    for flags in (["-u", "nobody-here"], ["--cap-add", "NOPE"], ["--mount", "type=bind,src=/nonexistent/x,dst=/x"]):
        failed = busybox("run", NONE, "-v", "/anon", *flags, "busybox", "true", check=False)
        assert failed.returncode == 125
        assert failed.stderr.count("\n") <= 2
    assert set(os.listdir(shared_root / "containers")) == before
    assert not busybox("volume", "ls", "-q").stdout


def test_isolation_is_dockers_default(busybox: Runner) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in inside(busybox, "busybox", "cat", "/proc/self/status").splitlines()
        if ":\t" in line
    )
    assert status["CapEff"] == status["CapBnd"] == "00000000a80425fb"
    assert status["CapInh"] == status["CapAmb"] == "0" * 16  # CVE-2022-27649
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "0"
    lines = inside(
        busybox, "busybox", "sh", "-c", "echo $$; ls /proc/self/fd; hostname; cat /proc/net/dev | wc -l"
    ).split()
    assert lines[0] == "1"
    assert set(lines[1:-2]) <= {"0", "1", "2", "3"}  # CVE-2024-21626: 3 is ls's own
    for space in ("user", "mnt", "pid", "ipc", "uts", "net", "cgroup"):
        assert inside(busybox, "busybox", "readlink", f"/proc/self/ns/{space}").strip() != os.readlink(
            f"/proc/self/ns/{space}"
        )


def test_environment_is_only_what_was_asked_for(busybox: Runner) -> None:
    def variables(*flags: str) -> dict[str, str]:
        text = busybox("run", "--rm", NONE, *flags, "busybox", "env", env={"SECRET": "x", "TAKEN": "y"}).stdout
        return dict(line.split("=", 1) for line in text.splitlines())

    found = variables("-e", "A=1", "-e", "TAKEN", "-e", "ABSENT")
    assert found["A"] == "1"
    assert found["TAKEN"] == "y"
    assert found["HOME"] == "/root"
    assert "SECRET" not in found
    assert "ABSENT" not in found
    assert set(found) - {"SHLVL", "PWD"} == {"PATH", "HOSTNAME", "HOME", "container", "A", "TAKEN"}


def test_masked_and_read_only_paths(busybox: Runner) -> None:
    script = (
        "cat /proc/keys | wc -c; ls /sys/firmware | wc -l; "
        "echo 1 > /proc/sys/kernel/panic || echo refused; touch /sys/x || echo ro"
    )
    assert inside(busybox, "busybox", "sh", "-c", script).split() == ["0", "0", "refused", "ro"]
    open_again = inside(
        busybox,
        "--security-opt",
        "systempaths=unconfined",
        "busybox",
        "sh",
        "-c",
        "mount | grep -c 'on /proc/'",
        check=False,
    )
    assert open_again.strip() == "0"
    hidden = inside(busybox, "--security-opt", "mask=/etc/passwd", "busybox", "cat", "/etc/passwd")
    assert hidden == ""


def test_capabilities_and_no_new_privileges(busybox: Runner) -> None:
    flags = ["--cap-drop", "ALL", "--cap-add", "chown", "--security-opt", "no-new-privileges"]
    text = inside(busybox, *flags, "busybox", "grep", "-E", "CapBnd|NoNew", "/proc/self/status").split()
    assert text == ["CapBnd:", "0000000000000001", "NoNewPrivs:", "1"]
    privileged = inside(
        busybox,
        "--privileged",
        "busybox",
        "sh",
        "-c",
        "mount -t tmpfs x /tmp && echo mounted; grep Seccomp: /proc/self/status",
    )
    assert privileged.split() == ["mounted", "Seccomp:", "0"]


def test_files_flags(busybox: Runner) -> None:
    read_only = inside(
        busybox,
        "--read-only",
        "--tmpfs",
        "/run:size=1m",
        "busybox",
        "sh",
        "-c",
        "touch /x || touch /run/x && df /run | tail -1",
    )
    assert read_only.split()[1] == "1024"
    shm = inside(busybox, "--shm-size", "2m", "busybox", "df", "/dev/shm").split()
    assert "2048" in shm
    assert inside(busybox, "-w", "/new/deep", "busybox", "pwd").strip() == "/new/deep"
    assert inside(busybox, "--entrypoint", "echo", "busybox", "a", "b").strip() == "a b"
    limits = inside(busybox, "--ulimit", "nofile=100:200", "busybox", "sh", "-c", "ulimit -n; ulimit -Hn").split()
    assert limits == ["100", "200"]


def test_names_of_hosts(busybox: Runner) -> None:
    text = inside(
        busybox, "-h", "inner", "--add-host", "db:10.1.2.3", "--dns", "9.9.9.9", "busybox", "sh", "-c",
        "hostname; cat /etc/hostname; grep db /etc/hosts; grep nameserver /etc/resolv.conf",
    )  # fmt: skip
    assert text.split() == ["inner", "inner", "10.1.2.3", "db", "nameserver", "9.9.9.9"]


def test_loopback_is_up_without_a_network(busybox: Runner) -> None:
    assert "127.0.0.1/8" in inside(busybox, "busybox", "ip", "addr", "show", "lo")
    assert "UP" in inside(busybox, "busybox", "ip", "link", "show", "lo")


def test_sysctl_and_device(busybox: Runner) -> None:
    text = inside(busybox, "--sysctl", "net.ipv4.ip_forward=1", "busybox", "cat", "/proc/sys/net/ipv4/ip_forward")
    assert text.strip() == "1"
    refused = busybox("run", "--rm", NONE, "--sysctl", "kernel.panic=1", "busybox", "true", check=False)
    assert refused.returncode == 125
    assert (
        inside(
            busybox, "--device", "/dev/zero:/dev/nothing", "busybox", "sh", "-c", "head -c3 /dev/nothing | wc -c"
        ).strip()
        == "3"
    )


def test_init_reaps(busybox: Runner) -> None:
    first = inside(busybox, "--init", "busybox", "cat", "/proc/1/cmdline").rstrip("\0\n")
    assert first == "init" or "docker-init" in first
    orphan = "sh -c 'true & exec true'; sleep 0.5; grep -l '^State:.Z' /proc/[0-9]*/status; true"
    assert inside(busybox, "--init", "busybox", "sh", "-c", orphan) == ""


def test_cidfile_and_labels(busybox: Runner, tmp_path: Path) -> None:
    path = tmp_path / "cid"
    busybox("create", "--name", "cid", "--cidfile", str(path), "-l", "a=b", NONE, "busybox", "true")
    shown = json.loads(busybox("inspect", "cid").stdout)[0]
    assert shown["Id"] == path.read_text()
    assert shown["Config"]["Labels"]["a"] == "b"
    again = busybox("create", "--cidfile", str(path), NONE, "busybox", "true", check=False)
    assert again.returncode == 125
    assert "container ID file found" in again.stderr
    busybox("rm", "cid")


def test_users(busybox: Runner, has_range: bool) -> None:
    assert inside(busybox, "busybox", "id", "-u").strip() == "0"
    assert inside(busybox, "-u", "33:44", "busybox", "sh", "-c", "id -u; id -g").split() == ["33", "44"]
    assert inside(busybox, "--userns=keep-id", "busybox", "id", "-u").strip() == str(os.getuid())
    require(has_range, "one id: supplementary groups and chown need a range")
    assert inside(busybox, "--group-add", "77", "busybox", "id", "-G").split() == ["0", "77"]
    chowned = inside(busybox, "busybox", "sh", "-c", "touch /x; chown 1234 /x; stat -c %u /x")
    assert chowned.strip() == "1234"
    mapped = inside(busybox, "--uidmap", "0:0:1", "--uidmap", "1:1:999", "busybox", "cat", "/proc/self/uid_map").split()
    assert (mapped[:3], mapped[5]) == (["0", str(os.getuid()), "1"], "999")


@pytest.mark.parametrize("form", ["volume", "mount"])
def test_the_callers_own_number_as_user_is_the_caller(busybox: Runner, tmp_path: Path, form: str) -> None:
    """`-u $(id -u):$(id -g) -v "$PWD:/w"`, as many scripts run docker: what is written there belongs to the caller."""
    me = f"{os.getuid()}:{os.getgid()}"
    bound = ("-v", f"{tmp_path}:/w") if form == "volume" else ("--mount", f"type=bind,source={tmp_path},target=/w")
    assert inside(busybox, "-u", me, *bound, "busybox", "sh", "-c", "id -u; echo x > /w/f").strip() == str(os.getuid())
    assert (tmp_path / "f").stat().st_uid == os.getuid()


def test_one_id_says_what_is_lost_in_one_line(busybox: Runner, has_range: bool) -> None:
    require(not has_range, "has a range: nothing is lost")
    warning = busybox("run", "--rm", NONE, "busybox", "true").stderr
    assert warning.count("\n") == 1
    assert "one id only" in warning


def test_namespaces_of_another_container_and_of_the_host(busybox: Runner) -> None:
    busybox("run", "-d", "--name", "first", NONE, "busybox", "sleep", "60")
    try:
        joined = busybox(
            "run", "--rm", "--network=container:first", "--pid=container:first", "busybox", "sh", "-c", "hostname; ps"
        )
        assert "sleep 60" in joined.stdout
        first = busybox("inspect", "-f", "{{.State.Pid}}", "first").stdout.strip()
        net = busybox(
            "run", "--rm", "--network=container:first", "busybox", "readlink", "/proc/self/ns/net"
        ).stdout.strip()
        assert net == os.readlink(f"/proc/{first}/ns/net")
        conflict = busybox("run", "--rm", "--network=container:first", "-h", "x", "busybox", "true", check=False)
        assert conflict.returncode == 125
    finally:
        busybox("rm", "-f", "first")
    stopped = busybox("run", "--rm", "--pid=container:first", NONE, "busybox", "true", check=False)
    assert stopped.returncode == 125
    host = busybox("run", "--rm", "--network=host", "--uts=host", "busybox", "hostname")
    assert host.stdout.strip() == os.uname().nodename


def test_settings_file_with_an_unknown_key_names_it(busybox: Runner, tmp_path: Path) -> None:
    (tmp_path / "rootless").mkdir()
    (tmp_path / "rootless/config.toml").write_text("bogus = 1\n")
    failed = busybox("run", "--rm", NONE, "busybox", "true", check=False, env={"XDG_CONFIG_HOME": str(tmp_path)})
    assert failed.returncode == 125
    assert "bogus" in failed.stderr


@pytest.mark.parametrize("flag", ["apparmor=docker-default", "bogus", "label=type:x"])
def test_a_security_option_that_cannot_be_applied_is_an_error(busybox: Runner, flag: str) -> None:
    """CVE-2025-65105."""
    failed = busybox("run", "--rm", NONE, "--security-opt", flag, "busybox", "true", check=False)
    assert failed.returncode == 125


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_another_oci_runtime(busybox: Runner, runtime: str) -> None:
    require(shutil.which(runtime), f"{runtime} is not installed")
    assert inside(
        busybox, "--runtime", runtime, "busybox", "sh", "-c", "id -u; grep Seccomp: /proc/self/status"
    ).split() == [
        "0",
        "Seccomp:",
        "2",
    ]


@pytest.mark.parametrize("runtime", ["crun", "runc"])
@pytest.mark.parametrize(
    "flags",
    [("--pid=host",), ("--ipc=host", NONE), ("--network=host",), ("--network=host", "--privileged")],
    ids=" ".join,
)
def test_another_oci_runtime_shows_the_host_s_proc_sys_and_queues(
    busybox: Runner, runtime: str, flags: tuple[str, ...]
) -> None:
    """A new procfs, sysfs or mqueue of a namespace of the host is refused by the kernel, so its own are bound."""
    require(shutil.which(runtime), f"{runtime} is not installed")
    script = "cat /proc/self/comm; ls -d /sys/class"
    shown = busybox("run", "--rm", "--runtime", runtime, *flags, "busybox", "sh", "-c", script).stdout
    assert shown.split() == ["cat", "/sys/class"]


@pytest.mark.parametrize("driver", ["overlay", "fuse-overlayfs", "copy"])
def test_storage_drivers(busybox: Runner, driver: str) -> None:
    assert inside(
        busybox, "--storage-driver", driver, "busybox", "sh", "-c", "echo x > /x; cat /x; ls /bin/sh"
    ).split() == ["x", "/bin/sh"]


def test_published_ports(busybox: Runner) -> None:
    require(shutil.which("pasta") or shutil.which("slirp4netns"), "no network helper installed")
    script = "mkdir /www; echo hello > /www/index.html; exec httpd -f -h /www"
    busybox("run", "-d", "--name", "web", "-P", "--expose", "80", "busybox", "sh", "-c", script)
    try:
        port = int(busybox("port", "web", "80").stdout.rpartition(":")[2])
        deadline = time.monotonic() + 60
        while True:
            try:
                answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=20).read()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert answer == b"hello\n"
        busy = busybox("run", "--rm", "-p", f"{port}:80", "busybox", "true", check=False)
        assert busy.returncode == 125
        assert "port is already allocated" in busy.stderr
    finally:
        busybox("rm", "-f", "web")


def test_inspect_has_ports_as_docker_has_them(busybox: Runner) -> None:
    """Before the first start too: what is to be published; exposed ports have no binding, and published ones count."""
    busybox(
        "create", "--name", "ports", "-p", "127.0.0.1::80", "-p", "18080:81/udp", "--expose", "82", "busybox", "true"
    )
    shown = json.loads(busybox("inspect", "ports").stdout)[0]
    assert shown["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}],
        "81/udp": [{"HostIp": "", "HostPort": "18080"}],
    }
    assert shown["Config"]["ExposedPorts"] == {"82/tcp": {}, "80/tcp": {}, "81/udp": {}}
    assert busybox("inspect", "-f", "{{.HostConfig.Binds}} {{len .Config.Volumes}} {{.ID}}", "ports").stdout == (
        f"[] 0 {shown['Id']}\n"
    )
    busybox("rm", "ports")
    busybox("run", "-d", "--name", "ports", "-p", "127.0.0.1::80", "--expose", "82", "busybox", "sleep", "60")
    try:
        ports = json.loads(busybox("inspect", "-f", "{{json .NetworkSettings.Ports}}", "ports").stdout)
        assert ports["82/tcp"] is None and int(ports["80/tcp"][0]["HostPort"]) > 0
    finally:
        busybox("rm", "-f", "ports")


def test_programs_find_out_that_they_are_in_a_container(busybox: Runner) -> None:
    """What systemd-detect-virt, is-docker, apt and toolbox look at; no part of `diff`."""
    script = "test -f /.dockerenv && test -f /run/.containerenv && echo $container; cat /run/.containerenv"
    shown = busybox("run", "--name", "marked", NONE, "busybox", "sh", "-c", script).stdout
    assert shown == "oci\n"
    assert busybox("diff", "marked").stdout == ""
    busybox("rm", "marked")
    shown = busybox(
        "run", "--rm", "--name", "marked", NONE, "--privileged", "busybox", "cat", "/run/.containerenv"
    ).stdout
    assert 'name="marked"\n' in shown and 'image="busybox"\n' in shown and "rootless=1\n" in shown


def test_selinux_s_flags_are_silent_where_there_is_none(busybox: Runner, tmp_path: Path) -> None:
    require(not os.path.exists("/sys/fs/selinux/enforce"), "this host has SELinux")
    flags = ("-v", f"{tmp_path}:/a:Z", "-v", f"{tmp_path}:/b:z,ro", "--security-opt", "label=disable")
    said = busybox("run", "--rm", NONE, *flags, "busybox", "true").stderr
    assert not [line for line in said.splitlines() if "you have one id only" not in line]


def test_inspect_says_which_command_is_in_force(busybox: Runner, tmp_path: Path) -> None:
    """Config.Cmd and Config.Entrypoint were those of the command line, and null where the image has them."""
    (tmp_path / "Dockerfile").write_text('FROM busybox\nENTRYPOINT ["echo", "a"]\nCMD ["b", "c"]\n')
    busybox("build", "-q", "-t", "words", str(tmp_path))
    form = "{{json .Config.Entrypoint}} {{json .Config.Cmd}}"
    for words, shown in (
        (("words",), '["echo","a"] ["b","c"]'),
        (("words", "d"), '["echo","a"] ["d"]'),
        (("--entrypoint", "ls", "words", "d"), '["ls"] ["d"]'),
        (("--entrypoint", "ls", "words"), '["ls"] null'),
        (("--entrypoint", "", "words", "ls"), 'null ["ls"]'),
        (("busybox", "ls", "/"), 'null ["ls","/"]'),
    ):
        busybox("create", "--name", "words", *words)
        assert busybox("inspect", "-f", form, "words").stdout.strip() == shown, words
        busybox("rm", "words")
    busybox("rmi", "words")
