"""Issue 8, A.9: small doors, each of its kind: addresses as text, digits, tags, placeholders, calls, files, words."""

from __future__ import annotations

import errno
import io
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Runner, command_path, require

NONE = ("--network", "none")


@pytest.fixture(autouse=True)
def nothing_left(busybox: Runner) -> Iterator[None]:
    yield
    busybox("rm", "-f", "c", check=False)


# addresses

# Inside of a network namespace without any route: nothing of this leaves the host, whatever we would do
REGISTRY = """
import http.server, os, subprocess, sys, threading
where = sys.argv[1]
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if where.startswith("realm "):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Bearer realm="%s",service="x"' % where[6:])
        elif self.path.rstrip("/") == "/v2":
            self.send_response(200)
        else:
            self.send_response(307)
            self.send_header("Location", where)
        self.send_header("Content-Length", "0")
        self.end_headers()
    do_HEAD = do_GET
    def log_message(self, *words): pass
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
threading.Thread(target=server.serve_forever, daemon=True).start()
done = subprocess.run([*sys.argv[3:], "--root", sys.argv[2], "pull", "--tls-verify=false",
                       "127.0.0.1:%d/x/y:latest" % server.server_port], capture_output=True, text=True, timeout=60)
sys.stderr.write(done.stderr)
sys.exit(done.returncode)
"""
SPELLINGS = (
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.16689662",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[fe80::1]",
    "[feb0::1]",
    "[64:ff9b::a9fe:a9fe]",
)


@pytest.mark.once
@pytest.mark.parametrize("kind", ["", "realm "])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_of_a_link_local_address_is_reached(tmp_path: Path, kind: str, spelling: str) -> None:
    """Where clouds tell their secrets (169.254.169.254): judged is the address that would be connected to."""
    probe = subprocess.run(["unshare", "-rn", "ip", "link", "set", "lo", "up"], capture_output=True)
    require(probe.returncode == 0, "no network namespace, or no ip(8), for an own registry")
    argv = ["unshare", "-rn", sys.executable, "-c", REGISTRY, f"{kind}http://{spelling}/latest", str(tmp_path / "s")]
    done = subprocess.run([*argv, *command_path()], capture_output=True, text=True, timeout=90)
    assert done.returncode == 1, done.stderr
    assert "link-local" in done.stderr, done.stderr


# digits


@pytest.mark.once
@pytest.mark.parametrize("digits", ["²", "٣", "9" * 5000, "1_0"])
def test_digits_of_the_image_are_ascii(busybox: Runner, digits: str, tmp_path: Path) -> None:
    users = f"uid:x:{digits}:7::/:/bin/sh\ngid:x:7:{digits}::/:/bin/sh\nmember:x:8:8::/:/bin/sh\n"
    (tmp_path / "passwd").write_text(f"root:x:0:0::/:/bin/sh\n{users}")
    (tmp_path / "group").write_text(f"named:x:{digits}:member\n")
    busybox("create", "--name", "c", *NONE, "busybox", "id")
    for name in ("passwd", "group"):
        busybox("cp", f"{tmp_path}/{name}", f"c:/etc/{name}")
    busybox("commit", "c", "digits")
    asked = ("uid", "gid", "member", "7", "7:named")
    told = [busybox("run", "--rm", *NONE, "-u", user, "digits", "true", check=False) for user in asked]
    busybox("rm", "-f", "c")
    busybox("rmi", "-f", "digits")
    assert [each.stderr for each in told if "bug" in each.stderr] == []


# tags


@pytest.mark.once
def test_import_tells_whose_tag_it_takes(busybox: Runner, tmp_path: Path) -> None:
    """As load does: what had the name before has none now, and the next run of that name is another image."""
    with tarfile.open(tmp_path / "root.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("f"), io.BytesIO())
    busybox("tag", "busybox", "taken")
    told = busybox("import", str(tmp_path / "root.tar"), "taken")
    busybox("rmi", "-f", "taken")
    assert "taken" in told.stderr


# placeholders


def test_an_emulated_device_leaves_nothing_in_a_directory_of_the_host(busybox: Runner, tmp_path: Path) -> None:
    """A bind mount has no layer in which a device could be noted: the call is refused, as without emulation."""
    (tmp_path / "shared").mkdir()
    words = ("--root-emulation", "on", "-v", f"{tmp_path}/shared:/shared")
    script = "mknod /shared/n c 1 3; mknod /shared/b b 8 0; cd /shared && mknod m c 1 3; mknod /own c 1 3 && echo own"
    done = busybox("run", "--rm", *NONE, *words, "busybox", "sh", "-c", script, check=False)
    require("does not work in" not in done.stderr, f"driver: {done.stderr}")
    assert "own" in done.stdout
    assert list((tmp_path / "shared").iterdir()) == []


# calls


def socketcall_program(family: int) -> bytes:
    """A static i386 program: exit(-socketcall(SYS_SOCKET, {family, SOCK_STREAM, 0}))."""
    base, header = 0x08048000, 52 + 32
    code = (
        b"\xb8\x66\x00\x00\x00"  # mov eax, 102: socketcall
        b"\xbb\x01\x00\x00\x00"  # mov ebx, SYS_SOCKET
        b"\xb9" + struct.pack("<I", base + header + 28)  # mov ecx, the three words below
        + b"\xcd\x80\x89\xc3\xf7\xdb"  # int 0x80; mov ebx, eax; neg ebx
        b"\xb8\x01\x00\x00\x00\xcd\x80"  # mov eax, 1: exit; int 0x80
    )  # fmt: skip
    assert len(code) == 28
    content = code + struct.pack("<III", family, 1, 0)
    size = header + len(content)
    identity = b"\x7fELF\x01\x01\x01" + bytes(9)
    elf = identity + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + header, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    return elf + struct.pack("<IIIIIIII", 1, 0, base, base, size, size, 5, 0x1000) + content


def exit_code_of_socketcall(busybox: Runner, tmp_path: Path, family: int) -> int:
    program = tmp_path / f"call{family}"
    program.write_bytes(socketcall_program(family))
    program.chmod(0o755)
    try:
        subprocess.run([program], check=False)
    except OSError as e:
        require(False, f"no 32-bit programs on this kernel: {e.strerror}")
    script = ("run", "--rm", *NONE, "-v", f"{program}:/call:ro", "busybox", "/call")
    return busybox(*script, check=False).returncode


def test_a_32_bit_socketcall_reaches_no_vsock(busybox: Runner, tmp_path: Path) -> None:
    """AF_VSOCK leads to the hypervisor and out of every network namespace; the filter refuses socket(2) of it.

    The arguments of socketcall(2) are in memory, where no filter sees them: the call as such is to be refused.
    """
    assert exit_code_of_socketcall(busybox, tmp_path, 40) == errno.ENOSYS


# files


@pytest.mark.parametrize("name", ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/new"])
def test_read_only_means_the_written_files_too(busybox: Runner, name: str) -> None:
    script = f"echo x >> {name}"
    done = busybox("run", "--rm", "--network", "none", "--read-only", "busybox", "sh", "-c", script, check=False)
    assert (done.returncode, "Read-only" in done.stderr) == (1, True), done


def test_with_a_writable_root_the_written_files_are_writable(busybox: Runner) -> None:
    busybox("run", "--rm", *NONE, "busybox", "sh", "-c", "echo x >> /etc/hosts && echo x >> /etc/hostname")


# words


def test_the_first_process_of_init_shows_no_path_of_the_host(busybox: Runner, shared_root: Path) -> None:
    script = "tr '\\0' ' ' < /proc/1/cmdline; cat /proc/1/environ; cat /proc/1/comm"
    shown = busybox("run", "--rm", *NONE, "--init", "busybox", "sh", "-c", script, check=False).stdout
    for path in (sys.executable, str(REPOSITORY), str(shared_root), str(Path.home()), "rootless."):
        assert path not in shown, shown


@pytest.mark.parametrize("options", [(), ("--init",)], ids=["plain", "init"])
def test_a_joined_process_shows_no_path_of_the_host(busybox: Runner, options: tuple[str, ...]) -> None:
    """Between its join and its execve, too: the container looks all the time."""
    look = (
        "while :; do for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done; done 2>/dev/null | "
        "grep -m1 root[l]ess > /seen"
    )
    busybox("run", "-d", "--name", "c", *NONE, *options, "busybox", "sh", "-c", f"{look}; sleep 1000")
    for _ in range(10):
        busybox("exec", "c", "true")
    assert busybox("exec", "c", "cat", "/seen").stdout == ""
