"""The rows of the security table that concern the runtime: hostile images, hostile commands, what must not leak."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rootless.host.interpreter import program_interpreter
from tests.conftest import REPOSITORY, oci_command_path, require
from tests.integration.runtime import bundle as bundle_module
from tests.integration.runtime.bundle import Bundle


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_proc_and_sys_must_be_real_directories(bundle: Bundle, name: str) -> None:
    """CVE-2019-19921, CVE-2023-27561: a link in place of /proc would leave the real one unmasked."""
    (bundle.root / name).symlink_to("tmp")
    done = bundle.run("true", check=False)
    assert done.returncode == 1 and f"'/{name}' is a symbolic link in the image" in done.stderr


@pytest.mark.parametrize("target", ["/", "/etc", "../../../outside", "{outside}"])
def test_dev_as_a_link_creates_nothing_outside(bundle: Bundle, tmp_path: Path, target: str) -> None:
    """CVE-2026-41579, CVE-2026-47766."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (bundle.root / "dev").symlink_to(target.format(outside=outside))
    bundle.run("true", check=False)
    assert list(outside.iterdir()) == []
    assert not (bundle.path.parent / "outside").exists()
    assert not Path("/full").exists() and not Path("/etc/full").exists()


def test_mountpoint_through_links_stays_inside(bundle: Bundle, tmp_path: Path) -> None:
    """CVE-2021-30465, CVE-2024-45310: parents and a dangling last name that point out of the root."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (bundle.root / "abs").symlink_to(outside)
    (bundle.root / "up").symlink_to("../" * 20 + str(outside).lstrip("/"))
    (bundle.root / "dangling").symlink_to(outside / "file")
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_text("secret")
    bundle.mount(source, "/abs/made")
    bundle.mount(source, "/up/made")
    bundle.mount(source / "f", "/dangling")
    bundle.run("true", check=False)
    assert list(outside.iterdir()) == []


def test_masked_null_device_is_the_hosts(bundle: Bundle) -> None:
    """CVE-2025-31133: the image's own /dev/null is never what masks."""
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")]
    (bundle.root / "dev").mkdir()
    (bundle.root / "dev/null").symlink_to("/bin/busybox")
    out = bundle.sh("cat /proc/timer_list | wc -c", check=False)
    assert out.stdout == "0\n" or "another file there" in out.stderr


def test_wrong_file_at_a_device_path(bundle: Bundle) -> None:
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")]
    (bundle.root / "dev").mkdir()
    (bundle.root / "dev/null").write_text("not a device")
    done = bundle.run("true", check=False)
    assert done.returncode == 1 and "cannot provide device '/dev/null'" in done.stderr


def test_no_fd_leaks_into_the_command(bundle: Bundle) -> None:
    """CVE-2024-21626: neither ours nor an inherited one, a directory of the host above all."""
    leaked = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        out = bundle.sh("ls -l /proc/self/fd", pass_fds=(leaked,)).stdout
    finally:
        os.close(leaked)
    numbers = {line.split()[-3] for line in out.splitlines() if "->" in line}
    assert numbers <= {"0", "1", "2"}, out


@pytest.mark.parametrize("number", [3, 5, 7, 9, 12])
def test_working_directory_by_a_leaked_fd(bundle: Bundle, number: int) -> None:
    """CVE-2024-21626: `process.cwd` = /proc/self/fd/N."""
    leaked = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    second = fcntl.fcntl(leaked, fcntl.F_DUPFD, 20)
    try:
        bundle.config["process"]["cwd"] = f"/proc/self/fd/{number}"
        done = bundle.sh("ls ../../..; pwd", check=False, pass_fds=(leaked, second))
    finally:
        os.close(leaked)
        os.close(second)
    assert done.returncode == 1 and done.stdout == "" and "working directory" in done.stderr


def test_working_directory_of_exec_by_a_leaked_fd(bundle: Bundle) -> None:
    """CVE-2024-21626 for exec, by a link in the image too."""
    bundle.up()
    (bundle.root / "link").symlink_to("/proc/self/fd/7")
    for cwd in ("/proc/self/fd/7", "/link", "/proc/1/cwd/../.."):
        done = bundle.oci("exec", "--cwd", cwd, "c", "pwd", check=False)
        assert done.returncode != 0 or done.stdout in ("/\n",), done.stdout


def test_preserved_fds_and_no_others(bundle: Bundle) -> None:
    bundle.config["process"]["args"] = ["sh", "-c", "echo through >&3; ls /proc/self/fd"]
    bundle.save()
    # a shell opens them: 3 and 4 of this process may be pytest's own
    script = 'exec 3>through 4</etc/hostname; exec "$@"'
    command = [*oci_command_path(), "--root", str(bundle.records), "run", "--preserve-fds", "1", "c"]
    done = subprocess.run(
        ["sh", "-c", script, "-", *command],
        cwd=bundle.path, env=bundle.environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (bundle.path / "through").read_text() == "through\n", done.stderr
    # 4 is the directory that ls itself has open, and the host's file is not among them
    assert done.stdout.split() == ["0", "1", "2", "3", "4"]


def test_missing_preserved_fd_is_an_error(bundle: Bundle) -> None:
    done = bundle.run("true", check=False, options=["--preserve-fds", "2"])
    assert done.returncode == 1 and "cannot preserve fd" in done.stderr


def test_command_may_not_be_our_own_executable(bundle: Bundle) -> None:
    """CVE-2019-5736: the entry point /proc/self/exe would start this interpreter inside."""
    (bundle.root / "bin/evil").symlink_to("/proc/self/exe")
    for name, interpreter in (("script", "/proc/self/exe"), ("again", "/bin/script"), ("linked", "/bin/evil -c")):
        (bundle.root / "bin" / name).write_text(f"#!{interpreter}\nprint('python inside')\n")
        (bundle.root / "bin" / name).chmod(0o755)
    elf = bytearray(Path(sys.executable).resolve().read_bytes())
    at = elf.index(b"/ld-linux") if b"/ld-linux" in elf else elf.index(b"/ld-musl")
    at = elf.rindex(b"\0", 0, at) + 1
    elf[at : at + 15] = b"/proc/self/exe\0"
    (bundle.root / "bin/elf").write_bytes(elf)
    (bundle.root / "bin/elf").chmod(0o755)
    for command in ("/proc/self/exe", "/bin/evil", "evil", "/proc/1/exe", "script", "/bin/again", "linked", "elf"):
        done = bundle.run(command, "-c", "print('python inside')", check=False)
        assert done.returncode == 126 and "python inside" not in done.stdout, command


@pytest.mark.parametrize("own_loader", [False, True])
@pytest.mark.parametrize("linked", [False, True])
def test_an_interpreter_of_the_user_is_not_executed(bundle: Bundle, linked: bool, own_loader: bool) -> None:
    """CVE-2019-5736: a Python in the user's home could be written from inside: the loader is executed in its place, and
    where that is the user's too, a sealed copy of it. The program keeps its name and what is found beside it."""
    (bundle.path / "bin").mkdir()
    program = bundle.path / "bin/python"
    content = Path(sys.executable).resolve().read_bytes()
    with tempfile.TemporaryDirectory(prefix="l", dir="/tmp") as directory:  # a path short enough for its place
        if own_loader:
            with open(Path(sys.executable).resolve(), "rb") as file:
                loader = program_interpreter(file.fileno())
            require(
                loader is not None and len(loader) > len(directory) + 1, "no loader with a name that is long enough"
            )
            shutil.copy(str(loader), f"{directory}/l")
            content = content.replace(
                f"{loader}\0".encode(), f"{directory}/l".encode().ljust(len(str(loader)) + 1, b"\0"), 1
            )
        program.write_bytes(content)
        program.chmod(0o700)
        if linked:
            (bundle.path / "venv/bin").mkdir(parents=True)
            (bundle.path / "venv/bin/python").symlink_to(program)
            (bundle.path / "venv/pyvenv.cfg").write_text(f"home = {program.parent}\n")
            program = bundle.path / "venv/bin/python"
        boot = (
            f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from rootless.host import interpreter;"
            " import os, subprocess; interpreter.restart_by_loader();"
            " exe = os.readlink('/proc/self/exe').split()[0];"
            " print(exe, os.environ.get('LD_LIBRARY_PATH'), sys.executable, sys.prefix);"
            " worker = interpreter.worker_command('rootless')[:-3];"
            " script = 'import os; print(os.readlink(\"/proc/self/exe\"))';"
            " print(subprocess.run([*worker, '-c', script], capture_output=True, text=True))"
        )
        done = subprocess.run([program, "-c", boot], capture_output=True, text=True, timeout=60, env={})
        exe, library, name, prefix, *worker = done.stdout.split()
        assert library == "None" and name == str(program), done
        assert (prefix == str(bundle.path / "venv")) == linked
        for seen in (exe, " ".join(worker)):
            assert ("/memfd:rootless-loader" in seen) == own_loader and "returncode=1" not in seen, done
            assert own_loader or "/ld" in seen, done


def test_the_runtime_starts_nothing_from_a_file_of_the_user(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2019-5736: what `/proc/self/exe` starts inside is the loader, for `run`, for `create` and for `exec`."""
    python = bundle.path / "python"
    shutil.copy(Path(sys.executable).resolve(), python)
    packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    boot = (
        f"import sys; sys.path += {[*packages, str(REPOSITORY)]!r}; from rootless.runtime.oci.main import main; main()"
    )
    monkeypatch.setattr(bundle_module, "oci_command_path", lambda: [str(python), "-I", "-c", boot])
    (bundle.root / "show").write_text("#!/proc/self/exe --version\n")
    (bundle.root / "show").chmod(0o755)
    done = bundle.run("/show", check=False)
    said = [done.stdout + done.stderr]
    bundle.up("sleep 1000")
    done = bundle.oci("exec", "c", "/show", check=False)
    said.append(done.stdout + done.stderr)
    for text in said:
        assert "Python" not in text and ("ld.so" in text or "musl" in text), said


def test_joining_process_cannot_be_reached_from_inside(bundle: Bundle) -> None:
    """CVE-2016-9962, CVE-2019-5736: while exec joins, its files and executable are closed to the container's root."""
    script = (
        "while :; do for p in /proc/[0-9]*; do n=${p#/proc/}; [ $n = 1 ] && continue;"
        " l=$(readlink $p/exe) && case $l in *python*) echo REACHED $l; exit;; esac; done; done"
    )
    bundle.up(script)
    for _ in range(8):
        bundle.oci("exec", "c", "true")
    assert "REACHED" not in (bundle.path / "out").read_text()


def test_no_tiocsti_without_an_own_terminal(bundle: Bundle) -> None:
    """CVE-2017-5226: always a session of its own, so the caller's terminal is not the container's controlling one."""
    out = bundle.sh("cat /proc/self/stat").stdout
    fields = out.rsplit(")", 1)[1].split()
    assert fields[3] == "1" and fields[4] == "0", out


def test_caller_environment_and_keys_stay_outside(bundle: Bundle) -> None:
    done = bundle.sh("env; cat /proc/self/environ", env={"SECRET_TOKEN": "hunter2"})
    assert "hunter2" not in done.stdout


def test_session_keyring_is_new(bundle: Bundle) -> None:
    """runc#582: keys of the login session are invisible."""
    bundle.config["linux"]["maskedPaths"] = []
    require(Path("/proc/keys").exists(), "a kernel without keys")
    # before: a keyring of an ended container is collected a little later
    outside = {line.split()[0] for line in Path("/proc/keys").read_text().splitlines() if "_ses" in line}
    inside = {line.split()[0] for line in bundle.sh("cat /proc/keys").stdout.splitlines() if "_ses" in line}
    assert inside - outside, "no keyring that the caller does not have"


def test_bind_inside_proc_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    bundle.mount(tmp_path, "/proc/self/attr")
    done = bundle.run("true", check=False)
    assert done.returncode == 1 and "it is inside /proc" in done.stderr


@pytest.mark.parametrize("user", ["-1", "4294967295", "4294967296", "0x0", "1:2:3", "1:", "", "1 ", "root", "٣"])
def test_exec_user_is_parsed_strictly(bundle: Bundle, user: str) -> None:
    """CVE-2026-30892, CVE-2024-40635: an error, never root."""
    bundle.up()
    done = bundle.oci("exec", f"--user={user}", "c", "id", check=False)
    assert done.returncode == 1 and "invalid user" in done.stderr and done.stdout == ""


def test_exec_capabilities_are_not_inheritable(bundle: Bundle) -> None:
    """CVE-2022-29162."""
    bundle.up()
    out = bundle.oci("exec", "--cap", "CAP_NET_ADMIN", "c", "grep", "Cap", "/proc/self/status").stdout
    fields = dict(line.split(":\t") for line in out.splitlines())
    assert int(fields["CapEff"], 16) & 1 << 12
    assert int(fields["CapInh"], 16) == int(fields["CapAmb"], 16) == 0
    done = bundle.oci("exec", "--cap", "CAP_FLY", "c", "true")
    assert "capabilities not known to this kernel: CAP_FLY" in done.stderr


def test_exec_raises_ambient_capabilities_that_are_inheritable_by_the_configuration(bundle: Bundle) -> None:
    """As runc's test of it says; more than the configuration allows is not inherited (CVE-2022-29162)."""
    sets = bundle.config["process"]["capabilities"]
    sets["inheritable"] = ["CAP_SYSLOG"]
    sets["bounding"].append("CAP_SYSLOG")
    bundle.up()
    out = bundle.oci("exec", "--cap", "CAP_SYSLOG", "--cap", "CAP_NET_ADMIN", "c", "cat", "/proc/self/status").stdout
    fields = dict(line.split(":\t") for line in out.splitlines() if line.startswith("Cap"))
    assert int(fields["CapInh"], 16) == int(fields["CapAmb"], 16) == 1 << 34
    assert int(fields["CapEff"], 16) & (1 << 34 | 1 << 12) == 1 << 34 | 1 << 12


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "a\nb", "ä", "x" * 2000])
def test_container_ids_are_names_only(bundle: Bundle, name: str) -> None:
    bundle.save()
    done = bundle.oci("create", "--", name, check=False)
    assert done.returncode == 1 and "invalid container id" in done.stderr


def test_hook_environment_is_clean(bundle: Bundle) -> None:
    """NVIDIA's CVE-2024-0132, CVE-2025-23266: the image's LD_PRELOAD never reaches a program of the host. What the hook
    gets where it names no environment is the runtime's, as with runc and crun."""
    report = bundle.path / "report"
    hook = bundle.path / "hook"
    hook.write_text(f"#!/bin/sh\nenv > {report}; pwd >> {report}; cat >> {report}\n")
    hook.chmod(0o755)
    bundle.config["process"]["env"].append("LD_PRELOAD=/evil.so")
    bundle.config["hooks"] = {"createContainer": [{"path": str(hook)}]}
    bundle.run("true", env={"OF_THE_CALLER": "1"})
    text = report.read_text()
    assert "LD_PRELOAD" not in text and "OF_THE_CALLER=1" in text and '"id": "c"' in text
    bundle.config["hooks"]["createContainer"][0]["env"] = ["OWN=2"]
    bundle.run("true", env={"OF_THE_CALLER": "1"})
    text = report.read_text()
    assert "LD_PRELOAD" not in text and "OF_THE_CALLER" not in text and "OWN=2" in text


def test_gate_is_the_users_only(bundle: Bundle) -> None:
    bundle.config["process"]["args"] = ["true"]
    bundle.save()
    with (bundle.path / "out").open("wb") as out:
        subprocess.run(
            [*oci_command_path(), "--root", str(bundle.records), "create", "c"],
            cwd=bundle.path, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True, timeout=60,
        )  # fmt: skip
    directory = bundle.records / "c"
    assert directory.stat().st_mode & 0o777 == 0o700
    # a visitor that says nothing does not start it
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as visitor:
        here = os.open(directory, os.O_PATH)
        visitor.connect(f"/proc/self/fd/{here}/start.sock")
        os.close(here)
    assert '"created"' in bundle.oci("state", "c").stdout
    bundle.oci("start", "c")
