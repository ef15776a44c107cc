"""commit, diff, export and image diff: a container's changes as an image, a list, an archive."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Runner, command_path, make_private_directory, remove_private_directory, require
from tests.tree_compare import Description, differences

NONE = "--network=none"
DRIVERS = ("overlay", "fuse-overlayfs", "copy")
CHANGE = """
set -e; umask 022
echo new > /new; ln /new /linked; ln -s target /link; mkfifo /pipe; mkdir -p /d/e
echo changed > /etc/group; rm /etc/nsswitch.conf; chmod 4711 /new
mkdir /home/x; echo 'a b' > '/home/x/odd name'
rm -r /usr/sbin; mkdir /usr/sbin; echo s > /usr/sbin/only
dd if=/dev/zero of=/sparse bs=1 count=1 seek=20971520 2>/dev/null
"""


@pytest.fixture(autouse=True)
def nothing_left(busybox: Runner) -> None:
    names = busybox("ps", "-aq").stdout.split()
    if names:
        busybox("rm", "-f", "-v", *names)


def tree(busybox: Runner, image: str) -> Description:
    """The files of an image as its root sees them."""
    script = str(REPOSITORY / "tests" / "tree_compare.py")
    found: Description = json.loads(busybox("image", "shell", image, sys.executable, script, ".").stdout)
    found["."]["mtime"] = 0  # no layer has that of the top
    return found


def is_usable(busybox: Runner, driver: str) -> None:
    tried = busybox("--storage-driver", driver, "create", "--name", "probe", NONE, "busybox", check=False)
    require(tried.returncode == 0, f"driver {driver}: {tried.stderr}")
    busybox("rm", "-f", "probe")


@pytest.mark.parametrize("driver", DRIVERS)
def test_commit_and_run_again(busybox: Runner, driver: str) -> None:
    is_usable(busybox, driver)
    busybox("--storage-driver", driver, "run", "--name", "c", NONE, "-v", "/vol", "busybox", "sh", "-c",
            CHANGE + "echo v > /vol/data")  # fmt: skip
    image = busybox("commit", "c", f"made:{driver}").stdout.strip()
    assert image.startswith("sha256:")
    look = "cat /new /etc/group; readlink /link; ls /usr/sbin /vol; stat -c %a%h /new; test -p /pipe"
    inside = busybox("run", "--rm", NONE, f"made:{driver}", "sh", "-c", look)
    assert inside.stdout.split() == ["new", "changed", "target", "/usr/sbin:", "only", "47112"]
    changed = dict(
        reversed(line.split(" ", 1))
        for line in busybox("image", "diff", "busybox", f"made:{driver}").stdout.splitlines()
    )
    assert changed["/etc/nsswitch.conf"] == "D"
    assert changed["/etc/group"] == changed["/usr/sbin"] == "C"
    assert changed["/home/x/odd name"] == changed["/sparse"] == "A"
    assert not {"/etc/resolv.conf", "/etc/hosts", "/vol", "/dev/pts", "/proc"} & changed.keys()


def test_diff_lists_changes_in_order(busybox: Runner) -> None:
    busybox("run", "--name", "c", NONE, "-v", "vol:/mounted/here", "busybox", "sh", "-c",
            "touch /a; echo x >> /etc/group; rm /etc/shadow; mkdir /tmp/d; echo x > /mounted/here/x")  # fmt: skip
    lines = busybox("diff", "c").stdout.splitlines()
    assert lines == ["A /a", "C /etc", "C /etc/group", "D /etc/shadow", "C /tmp", "A /tmp/d"]
    document = json.loads(busybox("diff", "--format", "json", "c").stdout)
    assert document == {
        "added": ["/a", "/tmp/d"], "changed": ["/etc", "/etc/group", "/tmp"], "deleted": ["/etc/shadow"]
    }  # fmt: skip
    busybox("volume", "rm", "-f", "vol", check=False)


def test_config_is_the_containers(busybox: Runner) -> None:
    """As docker merges it: what `run` was given, then --change; nothing that only belongs to the one container."""
    busybox("run", "--name", "c", NONE, "-e", "A=1", "-e", "B=2", "-l", "mine=yes", "-w", "/tmp", "-u", "0:0",
            "--expose", "81", "--health-cmd", "true", "--stop-signal", "INT", "-v", "/anonymous", "-h", "name",
            "busybox", "sh", "-c", "true")  # fmt: skip
    busybox("commit", "-a", "Me <me@here>", "-m", "words", "-c", "ENV B=3 C=4", "-c", 'CMD ["x"]', "-c", "EXPOSE 82",
            "--change", "ENTRYPOINT ls", "c", "configured")  # fmt: skip
    shown = json.loads(busybox("image", "inspect", "configured").stdout)[0]
    config = shown["Config"]
    env = dict(entry.split("=", 1) for entry in config["Env"])
    assert {key: env.get(key) for key in ("A", "B", "C", "HOSTNAME", "HOME", "TERM")} == {
        "A": "1", "B": "3", "C": "4", "HOSTNAME": None, "HOME": None, "TERM": None
    }  # fmt: skip
    assert config["Labels"]["mine"] == "yes"
    assert (config["WorkingDir"], config["User"]) == ("/tmp", "0:0")
    assert (config["Cmd"], config["Entrypoint"]) == (["x"], ["/bin/sh", "-c", "ls"])
    assert set(config["ExposedPorts"]) == {"81/tcp", "82/tcp"}
    assert not config["Volumes"]
    assert (shown["Author"], shown["Comment"]) == ("Me <me@here>", "words")
    history = busybox("history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Comment}}", "configured").stdout
    assert history.splitlines()[0] == "sh -c true|words"


def test_running_container_is_frozen_and_goes_on(busybox: Runner) -> None:
    busybox("run", "-d", "--name", "c", NONE, "busybox", "sh", "-c", "echo x > /made; sleep 1000")
    busybox("exec", "c", "sh", "-c", "until test -e /made; do sleep 0.05; done")
    busybox("commit", "-q", "c", "running")
    busybox("commit", "--pause=false", "c", "running:2")
    assert json.loads(busybox("inspect", "c").stdout)[0]["State"]["Status"] == "running"
    assert busybox("run", "--rm", NONE, "running", "cat", "/made").stdout == "x\n"
    assert busybox("exec", "c", "echo", "alive").stdout == "alive\n"


def test_nothing_changed_adds_no_layer(busybox: Runner, tmp_path: Path) -> None:
    busybox("create", "--name", "c", NONE, "busybox", "true")
    written = tmp_path / "id"
    image = busybox("commit", "--iidfile", str(written), "c").stdout.strip()
    assert written.read_text() == image
    base, made = (json.loads(busybox("image", "inspect", name).stdout)[0]["RootFS"]["Layers"]
                  for name in ("busybox", image))  # fmt: skip
    assert base == made


def test_squash_is_one_layer_with_the_same_tree(busybox: Runner) -> None:
    busybox("run", "--name", "c", NONE, "busybox", "sh", "-c", CHANGE)
    busybox("commit", "c", "squashed:no")
    busybox("commit", "--squash", "--format", "docker", "c", "squashed:yes")
    shown = json.loads(busybox("image", "inspect", "squashed:yes").stdout)[0]
    assert len(shown["RootFS"]["Layers"]) == 1
    assert "docker" in shown["Descriptor"]["mediaType"]
    assert differences(tree(busybox, "squashed:no"), tree(busybox, "squashed:yes")) == []


def test_refusals(busybox: Runner) -> None:
    busybox("create", "--name", "c", NONE, "busybox", "true")
    assert "no such container" in busybox("commit", "absent", check=False).stderr
    assert "invalid change" in busybox("commit", "-c", "RUN x", "c", "n", check=False).stderr
    assert busybox("commit", "c", "UPPER CASE", check=False).returncode != 0
    assert "image shell" in busybox("image", "mount", "busybox", check=False).stderr


@pytest.mark.parametrize("state", ["stopped", "running"])
def test_export_is_the_whole_tree(busybox: Runner, state: str, tmp_path: Path) -> None:
    busybox("run", "-d", "--name", "c", NONE, "-v", "/vol", "busybox", "sh", "-c",
            CHANGE + "echo v > /vol/data; touch /done; sleep 1000")  # fmt: skip
    busybox("exec", "c", "sh", "-c", "until test -e /done; do sleep 0.05; done")
    if state == "stopped":
        busybox("stop", "-t", "0", "c")
    target = tmp_path / "root.tar"
    busybox("export", "-o", str(target), "c")
    with tarfile.open(target) as tar:
        members = {member.name: member for member in tar}
        assert members["new"].mode == 0o4711
        content = tar.extractfile("new")
        assert content is not None
        assert content.read() == b"new\n"
    assert target.stat().st_size < 20 << 20, "holes stay holes"
    assert members["sparse"].size == 20971521
    assert {"vol", "proc", "dev", "etc/hosts"} <= members.keys()
    assert not [name for name in members if name.startswith(("vol/", "proc/", "sys/", "dev/"))]
    assert members["etc/hosts"].size == 0
    assert "etc/nsswitch.conf" not in members
    # and it can be made an image again
    busybox("commit", "c", "exported:commit")
    busybox("import", str(target), "exported:import")
    one, other = tree(busybox, "exported:commit"), tree(busybox, "exported:import")
    marks = (".dockerenv", "run/.containerenv", "run")
    for path in ("etc/hosts", "etc/hostname", "etc/resolv.conf", "vol", "etc", *marks):
        one.pop(path, None)
        other.pop(path, None)
    # the pipe and the socket-like rest are there too: nothing else differs
    assert differences(one, other) == []


def test_export_to_a_reader_that_ends(shared_root: Path, busybox: Runner) -> None:
    busybox("create", "--name", "c", NONE, "busybox", "true")
    environment = {**os.environ, "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "ROOTLESS_ROOT": str(shared_root)}
    with subprocess.Popen(
        [*command_path(), "export", "c"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(process.stdout.read(512)) == 512
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
        process.wait(60)


def test_podman_and_umoci_see_the_same_tree(busybox: Runner, tmp_path: Path, has_range: bool) -> None:
    """Interoperation: owner, mode, time, hard links, extended attributes and content."""
    require(has_range, "only a user who has a range can have files of others")
    for program in ("podman", "skopeo", "umoci"):
        require(shutil.which(program), f"{program} is not installed")
    busybox("run", "--name", "c", NONE, "busybox", "sh", "-c",
            CHANGE + "chown 33:44 /new; chown -h 5:6 /link; chown 7 /pipe /home/x")  # fmt: skip
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("with-xattr")
        member.pax_headers = {
            "SCHILY.xattr.user.note": "hello",
            "SCHILY.xattr.security.capability": "\x01\0\0\x02\0\x04" + "\0" * 14,
        }
        tar.addfile(member)
    busybox("cp", "-", "c:/", input=archive.getvalue())
    busybox("commit", "c", "interop:1")
    ours = tree(busybox, "interop:1")
    assert ours["with-xattr"]["xattrs"].keys() == {"user.note", "security.capability"}
    saved = tmp_path / "image.tar"
    busybox("save", "--format", "oci-archive", "-o", str(saved), "interop:1")

    home = make_private_directory("p")  # podman wants short paths
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(home)}
    podman = ["podman", "--root", str(home / "store"), "--runroot", str(home / "run")]

    def run_podman(*words: str) -> str:
        done = subprocess.run([*podman, *words], env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    script = REPOSITORY / "tests" / "tree_compare.py"
    try:
        loaded = run_podman("load", "-q", "-i", str(saved)).split()[-1]
        look = f"{sys.executable} {script} $({' '.join(podman)} image mount {loaded})"
        theirs = json.loads(run_podman("unshare", "sh", "-c", look))
    finally:
        run_podman("image", "umount", "-a")
        run_podman("system", "migrate")  # ends its pause process
        remove_private_directory(home)
    # The top is in no layer here: each tool has its own idea of it
    del ours["."], theirs["."]
    assert differences(ours, theirs) == []

    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    subprocess.run(["skopeo", "copy", f"oci-archive:{saved}", f"oci:{layout}:1"], check=True, timeout=60)
    subprocess.run(["umoci", "unpack", "--rootless", "--image", f"{layout}:1", str(bundle)], check=True, timeout=60)
    done = subprocess.run([sys.executable, script, bundle / "rootfs"], capture_output=True, text=True, check=True)
    unpacked = json.loads(done.stdout)
    del unpacked["."]
    # umoci notes owners in an attribute of its own, and cannot set capabilities
    assert differences(ours, unpacked, ignore=("owner", "xattrs")) == []


def test_noted_owners_go_all_ways(busybox: Runner, has_range: bool) -> None:
    """One id and an emulated root: what chown and mknod asked for is in every archive, and in copies of it."""
    require(not has_range, "a user who has a range needs no notes")
    script = "mkdir /d; echo x > /d/f; chown 33:44 /d/f; chmod 4711 /d/f; ln -s f /d/l; chown -h 5:6 /d/l; " \
             "mknod /d/null c 1 3; mkfifo /d/p; chown 7:8 /d/p; chown 9:9 /d"  # fmt: skip
    busybox("run", "--root-emulation", "on", "--name", "c", NONE, "busybox", "sh", "-c", script)
    wanted = {
        "": (9, 9, "0o755", "0:0"), "/f": (33, 44, "0o4711", "0:0"), "/l": (5, 6, "0o777", "0:0"),
        "/null": (0, 0, "0o644", "1:3"), "/p": (7, 8, "0o644", "0:0"),
    }  # fmt: skip

    def owners(archive: str, top: str) -> dict[str, tuple[int, int, str, str]]:
        found = {}
        with tarfile.open(fileobj=io.BytesIO(archive.encode("utf-8", "surrogateescape"))) as tar:
            for member in tar:
                if member.name == top or member.name.startswith(f"{top}/"):
                    key = member.name.removeprefix(top)
                    device = f"{member.devmajor}:{member.devminor}"
                    found[key] = (member.uid, member.gid, oct(member.mode), device)
        return found

    assert owners(busybox("export", "c").stdout, "d") == wanted
    assert owners(busybox("cp", "c:/d", "-").stdout, "d") == wanted
    busybox("commit", "c", "noted:1")
    busybox("commit", "--squash", "c", "noted:2")
    for name in ("noted:1", "noted:2"):
        busybox("create", "--name", "made", NONE, name, "true")
        assert owners(busybox("export", "made").stdout, "d") == wanted
        busybox("create", "--name", "other", NONE, "busybox", "true")
        busybox("cp", "made:/d", "other:/copied")
        assert owners(busybox("cp", "other:/copied", "-").stdout, "copied") == wanted
        busybox("rm", "made", "other")
