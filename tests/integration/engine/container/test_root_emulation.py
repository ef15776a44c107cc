"""--root-emulation: owners and devices that the id map has not are noted for the layer, programs go on.

The ids here are beyond every range of a test user, so that one with a range and one without see the same.
"""

from __future__ import annotations

import json
import os
import tarfile
import time
from pathlib import Path

import pytest

from rootless.kernel import procfs
from rootless.storage.owners import overrides
from rootless.storage.owners.overrides import Override
from tests.conftest import Runner, owns_range, require

ONE, TWO = 3_000_001, 3_000_002


class Upper:
    """What a container has written, with what is noted of it."""

    def __init__(self, root: Path, run: Runner, name: str) -> None:
        self.directory = root / "containers" / run("inspect", "--format", "{{.Id}}", name).stdout.strip()
        self.upper = Path(json.loads((self.directory / "launch.json").read_text())["rootfs"]["upper"])

    def noted(self, name: str) -> str:
        path = self.upper / name
        status = path.lstat()
        if path.is_symlink() or path.is_fifo():
            target = os.fsencode(path.readlink()) if path.is_symlink() else b""
            found = overrides.open_table(str(self.directory)).find(name.encode(), status, target)
        else:
            found = overrides.read_override(str(path))
        return "" if found is None else bytes(found).decode()


@pytest.fixture
def emulated(shared_root: Path, busybox: Runner, request: pytest.FixtureRequest) -> Upper:
    """A container in which every script of this module has run."""
    script, *flags = request.param
    busybox("rm", "-f", "e", check=False)
    words = (
        "run",
        "--name",
        "e",
        "--network",
        "none",
        "--root-emulation",
        "on",
        *flags,
        "busybox",
        "sh",
        "-ec",
        script,
    )
    done = busybox(*words, check=False)
    require("does not work in" not in done.stderr, f"driver: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return Upper(shared_root, busybox, "e")


CHOWN = f"""
touch /a; chown {ONE}:{TWO} /a
mkdir /d; chmod 2755 /d; chown {ONE} /d
ln -s nowhere /l; chown -h {ONE}:{TWO} /l
mkfifo /p; chown {ONE} /p
chown {TWO} /etc/passwd
cd /d; touch inner; chown {ONE} inner ../d/./inner
ln -s /etc /link; chown {TWO}:{TWO} /link/group
touch /old; chown {TWO}:{ONE} /old; echo n > /new; chmod 640 /new; chown 0:0 /new; mv /new /old
touch /kept; chown {ONE} /kept; touch /other; chown {TWO} /other; mv /other /kept
echo a > /d/sed; chown {ONE}:{TWO} /d/sed; sed -i s/a/b/ /d/sed; grep -q b /d/sed
mv /d/sed /elsewhere; mv -T /none /a 2>&1 | grep -q 'No such file'
touch /back; chown {ONE} /back; chown 0:0 /back
echo x > /s; chmod 6755 /s; chown {ONE} /s; chmod 4711 /s
chown {ONE} /dev/stdout /proc/self/fd/1
test -e /a -a "$(stat -c %u /a)" = 0
! chown {ONE} /none
"""
DRIVERS = [(CHOWN,), (CHOWN, "--storage-driver", "copy"), (CHOWN, "--storage-driver", "fuse-overlayfs")]


@pytest.mark.parametrize("emulated", DRIVERS, indirect=True, ids=["default", "copy", "fuse"])
def test_owners_are_noted(emulated: Upper) -> None:
    assert emulated.noted("a") == f"{ONE}:{TWO}:0644:file"
    assert emulated.noted("d") == f"{ONE}:0:2755:dir"
    assert emulated.noted("l") == f"{ONE}:{TWO}:0777:symlink"
    assert emulated.noted("p") == f"{ONE}:0:0644:pipe"
    assert emulated.noted("etc/passwd") == f"{TWO}:0:0644:file", "brought up from the image"
    assert emulated.noted("d/inner") == f"{ONE}:0:0644:file"
    assert emulated.noted("etc/group") == f"{TWO}:{TWO}:0644:file"
    assert emulated.noted("old") == f"{TWO}:{ONE}:0640:file", "the owner that stat could not tell"
    assert emulated.noted("kept") == f"{TWO}:0:0644:file", "said by the program itself"
    assert emulated.noted("elsewhere") == f"{ONE}:{TWO}:0644:file"
    assert emulated.noted("back") == ""
    assert emulated.noted("s") == f"{ONE}:0:0755:file", "chown takes set-id bits away"
    status = (emulated.upper / "s").stat()
    assert Override(ONE, 0, 0o755).mode_now(status.st_mode) == 0o4711, "chmod needs no emulation"


DEVICES = """
umask 027; mknod /null c 1 3; mknod /disk b 253 1048575; mknod /pipe p
! mknod /gone c 0 0
! mknod /null c 1 5
"""


@pytest.mark.parametrize("emulated", [(DEVICES,)], indirect=True)
def test_devices_are_placeholders(emulated: Upper) -> None:
    """Overlay row of the traps: nobody plants a character device 0:0, overlayfs' mark of a deleted name."""
    assert emulated.noted("null") == "0:0:0640:char-1-3"
    assert emulated.noted("disk") == "0:0:0640:block-253-1048575"
    assert (emulated.upper / "null").is_file() and (emulated.upper / "pipe").is_fifo()
    assert not (emulated.upper / "gone").exists()


def test_exec_and_other_roots(shared_root: Path, busybox: Runner) -> None:
    """Each exec has a filter and a supervisor of its own; paths are those of the caller's root and directory."""
    busybox("rm", "-f", "x", check=False)
    busybox("run", "-d", "--name", "x", "--network", "none", "--root-emulation", "on", "busybox", "sleep", "600")
    script = f"""
        mkdir -p /inner/bin /inner/sub; cp /bin/busybox /inner/bin/chown; touch /f /inner/f /inner/sub/f
        chroot /inner /bin/chown {ONE} /f
        chown {TWO} /f
        cd /inner/sub; chroot /inner /bin/chown {TWO} sub/f
        test "$(ls -d /proc/[0-9]* | wc -l)" -lt 12
    """
    busybox("exec", "x", "sh", "-ec", script)
    upper = Upper(shared_root, busybox, "x")
    assert upper.noted("f").startswith(f"{TWO}:")
    assert upper.noted("inner/f").startswith(f"{ONE}:")
    assert upper.noted("inner/sub/f").startswith(f"{TWO}:")
    busybox("rm", "-f", "x")


def test_nobody_gains_rights(busybox: Runner) -> None:
    """The supervisor acts for root of the container only: who has dropped the capability is refused by the kernel."""
    words = ("run", "--rm", "--network", "none", "--root-emulation", "on")
    for drop in ("CHOWN", "ALL"):
        done = busybox(*words, "--cap-drop", drop, "busybox", "chown", str(ONE), "/etc/passwd", check=False)
        assert done.returncode == 1 and "chown: /etc/passwd: " in done.stderr
    done = busybox(*words, "--cap-drop", "MKNOD", "busybox", "mknod", "/x", "c", "1", "3", check=False)
    assert done.returncode == 1 and "Operation not permitted" in done.stderr
    if owns_range():
        done = busybox(*words, "--user", "1000", "busybox", "chown", "1000", "/etc/passwd", check=False)
        assert done.returncode == 1 and "Operation not permitted" in done.stderr


def test_the_supervisor_cannot_be_reached(shared_root: Path, busybox: Runner) -> None:
    """CVE-2016-9962, CVE-2019-5736: it has more capabilities than the container, and its executable is the user's."""
    busybox("rm", "-f", "s", check=False)
    words = ("--pid", "host", "--privileged", "--network", "none", "--root-emulation", "on")
    busybox("run", "-d", "--name", "s", *words, "busybox", "sleep", "600")
    directory = Upper(shared_root, busybox, "s").directory
    state = json.loads((directory / "state.json").read_text())
    supervisors = [pid for pid in procfs.child_pids(state["monitor_pid"]) if pid != state["pid"]]
    assert supervisors
    for pid in supervisors:
        for name in ("fd/3", "root", "cwd", "mem", "environ"):
            done = busybox(
                "exec",
                "--privileged",
                "s",
                "sh",
                "-c",
                f"ls /proc/{pid}/{name}/ || cat /proc/{pid}/{name}",
                check=False,
            )
            assert done.returncode == 1 and "ermi" in done.stderr, (name, done)
        assert busybox("exec", "s", "readlink", f"/proc/{pid}/exe", check=False).stdout == ""
    busybox("rm", "-f", "s")
    assert wait_for_end(supervisors)


def wait_for_end(pids: list[int]) -> bool:
    """The supervisor ends with the last process that it answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not any(is_alive(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def is_alive(pid: int) -> bool:
    try:
        return procfs.read_stat(pid).state not in "ZX"
    except OSError:
        return False


def test_a_volume_gets_no_notes(busybox: Runner, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    words = ("run", "--rm", "--network", "none", "--root-emulation", "on", "-v", f"{tmp_path}:/v")
    busybox(*words, "busybox", "chown", str(ONE), "/v/mine")
    assert os.listxattr(tmp_path / "mine") == []


def test_programs_that_change_their_ids_go_on(busybox: Runner) -> None:
    """Set-up scripts use su, and apt verifies that it has become somebody else: it is told not to."""
    words = ("run", "--rm", "--network", "none", "--root-emulation", "on", "busybox", "sh", "-ec")
    done = busybox(*words, "su daemon -s /bin/sh -c 'echo went on'; cat $APT_CONFIG; test ! -s /etc/apt.conf")
    assert done.stdout.startswith("went on\n") and 'APT::Sandbox::User "root"' in done.stdout
    kept = ("run", "--rm", "--network", "none", "--root-emulation", "on", "-e", "APT_CONFIG=/x", "busybox", "env")
    assert "APT_CONFIG=/x" in busybox(*kept).stdout


def test_auto_is_for_one_id(busybox: Runner) -> None:
    words = (
        "run",
        "--rm",
        "--network",
        "none",
        "--root-emulation",
        "auto",
        "busybox",
        "chown",
        str(ONE),
        "/etc/passwd",
    )
    done = busybox(*words, check=False)
    assert (done.returncode == 0) == (not owns_range())


def test_explain_knows_what_the_calls_mean(busybox: Runner) -> None:
    """The plan is the one that `create` writes, whether the filters have been compiled before or not."""
    words = ("--network", "none", "--root-emulation", "on", "busybox", "true")
    for _ in range(2):
        planned = json.loads(busybox("explain", "--json", *words).stdout)["launch"]["root_emulation"]
        assert {"chown", "mknod"} <= set(planned["calls"].values())
        busybox("run", "--rm", *words)


def test_restart_after_the_cache_was_cleared(shared_root: Path, busybox: Runner) -> None:
    busybox("rm", "-f", "r", check=False)
    busybox(
        "create", "--name", "r", "--network", "none", "--root-emulation", "on", "busybox", "chown", f"{ONE}", "/etc"
    )
    directory = Upper(shared_root, busybox, "r").directory
    for kind in ("filter", "plain"):
        Path(json.loads((directory / "launch.json").read_text())["root_emulation"][kind]).unlink()
    assert busybox("start", "-a", "r").returncode == 0
    assert Upper(shared_root, busybox, "r").noted("etc").startswith(f"{ONE}:")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--root-emulation", "on", "--userns", "nomap"), "nomap"),
        (("--root-emulation", "on", "--runtime", "/bin/true"), "own runtime"),
        (("--root-emulation", "maybe"), "maybe"),
    ],
)
def test_where_it_cannot_be(busybox: Runner, flags: tuple[str, ...], text: str) -> None:
    done = busybox("create", *flags, "busybox", check=False)
    assert done.returncode == 125 and text in done.stderr


def test_owners_survive_load_run_commit_and_save(busybox: Runner, tmp_path: Path) -> None:
    """The whole way of an image through the store of one who has one id."""
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in.tar", "w") as tar:
        for name, kind in (("brought", tarfile.REGTYPE), ("changed", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.uid, member.gid, member.linkname = kind, ONE, TWO, "x" if name == "link" else ""
            tar.addfile(member)
        for name in ("bin/busybox", "bin/sh"):
            tar.add("/bin/busybox", name)
    busybox("import", str(tmp_path / "in.tar"), "far")
    script = f"""
        b() {{ /bin/busybox "$@"; }}
        echo more >> /changed; echo m > /made; b chown {TWO} /made; b ln -s y /new; b chown -h {ONE} /new
        b mknod /n c 1 3
    """
    busybox("rm", "-f", "far", check=False)
    busybox("run", "--name", "far", "--network", "none", "--root-emulation", "on", "far", "/bin/sh", "-ec", script)
    busybox("commit", "far", "far2")
    busybox("save", "--format", "oci-archive", "-o", str(tmp_path / "out.tar"), "far2")
    found = {}
    with tarfile.open(tmp_path / "out.tar") as archive:
        for blob in archive:
            if blob.isfile() and blob.size > 512:
                try:
                    layer = tarfile.open(fileobj=archive.extractfile(blob))
                except tarfile.ReadError:
                    continue
                found.update({m.name.removeprefix("./"): m for m in layer})
    owners = {name: (found[name].uid, found[name].gid) for name in ("brought", "changed", "link", "made", "new", "n")}
    assert owners == {
        "brought": (ONE, TWO),
        "changed": (ONE, TWO),
        "link": (ONE, TWO),
        "made": (TWO, 0),
        "new": (ONE, 0),
        "n": (0, 0),
    }
    assert found["n"].ischr() and (found["n"].devmajor, found["n"].devminor) == (1, 3)
