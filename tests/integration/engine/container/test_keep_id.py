"""--userns=keep-id and --uidmap: owners of the image's files, without a copy of the image where it can be, and with
copies that `system df` counts and `system prune -a` removes."""

from __future__ import annotations

import io
import json
import os
import pwd
import tarfile
import time
from pathlib import Path

import pytest

from tests.conftest import Runner, owns_range, require


def wait_for_log(busybox: Runner, name: str) -> str:
    for _ in range(100):
        log = busybox("logs", name).stdout
        if log.endswith("end\n"):
            return log
        time.sleep(0.1)
    return log


FUSE = ("--storage-driver", "fuse-overlayfs")
KEEP = ("--userns=keep-id:uid=1234,gid=1235", "--network=none")


@pytest.fixture
def ranged() -> None:
    require(owns_range(), "this user has no range of ids, so that there is no other map (a test has a range)")


@pytest.fixture
def fuse(busybox: Runner, ranged: None) -> None:
    done = busybox("run", "--rm", *FUSE, "--network=none", "busybox", "true", check=False)
    require("does not work in" not in done.stderr, f"fuse-overlayfs: {done.stderr}")


@pytest.fixture
def image(busybox: Runner, tmp_path: Path) -> str:
    """An image on busybox with files of several owners, one of them readable by its owner alone."""
    name = "owners"
    if not busybox("images", "-q", name).stdout:
        (tmp_path / "Dockerfile").write_text(
            "FROM busybox\nRUN mkdir /d; for n in 0 1 33 1234 1235 2000; do echo $n >/d/$n; chown $n:$n /d/$n; "
            "chmod 600 /d/$n; done; cp /bin/busybox /d/su; chmod 4755 /d/su; mkdir /h; echo one >/h/a; ln /h/a /h/b\n"
        )
        busybox("build", "-q", "--network=none", "-t", name, str(tmp_path))
        (tmp_path / "large").write_bytes(bytes(33 << 20))
        # a name of a file with two names means another file in a layer above
        (tmp_path / "Dockerfile").write_text(f"FROM {name}\nCOPY large /\nRUN rm /h/a; echo two >/h/a\n")
        busybox("build", "-q", "--network=none", "-t", f"{name}-large", str(tmp_path))
    return name


def copies(root: Path) -> list[str]:
    """The names of copies and of views, the latter with the directory before them."""
    views = [f"views/{name}" for name in os.listdir(root / "views")] if (root / "views").exists() else []
    return sorted([name for name in os.listdir(root / "layers") if "+" in name] + views)


def layers_of_copies(root: Path) -> set[str]:
    return {name.removeprefix("views/")[:64] for name in copies(root)}


LOOK = """
    cd /d; stat -c %n=%u:%g,%a *; cat * >/dev/null || [ $? = 1 ]; stat -c %u:%g /d /
    echo more >>33; mv 1 moved; rm 2000; touch new; chown 5:1234 new; stat -c %n=%u:%g new 33 moved
    chmod 644 1235; chmod 600 1235; cat /h/b
"""
SEEN = [
    *(f"{n}={n}:{n},600" for n in (0, 1, 1234, 1235, 2000, 33)),
    "su=0:0,4755",
    "0:0",
    "0:0",
    "new=5:1234",
    "33=33:33",
    "moved=1:1",
    "one",
]


@pytest.mark.parametrize("driver", ["overlay", "overlay-large", "fuse-overlayfs", "copy"])
def test_owners_are_the_images_whatever_the_map(
    busybox: Runner, image: str, ranged: None, shared_root: Path, driver: str
) -> None:
    driver, is_large, _ = driver.partition("-large")
    image = f"{image}-large" if is_large else image
    words = ("--storage-driver", driver, "--name", "o", "-u", "0", *KEEP)
    before = copies(shared_root)
    done = busybox("run", *words, image, "sh", "-ec", LOOK, check=False)
    require("does not work in" not in done.stderr, f"driver {driver}: {done.stderr}")
    assert done.stdout.split() == SEEN, done.stderr
    if driver == "fuse-overlayfs":
        assert copies(shared_root) == before  # nothing was copied
    # the container is started again, looked at while it does not run, and made into an image
    changes = busybox("diff", "o").stdout.splitlines()
    assert changes == ["C /d", "D /d/1", "D /d/2000", "C /d/33", "A /d/moved", "A /d/new"]
    with tarfile.open(fileobj=io.BytesIO(busybox("cp", "-a", "o:/d/moved", "-").stdout.encode())) as taken:
        assert [(member.uid, member.gid) for member in taken] == [(1, 1)]
    busybox("commit", "-q", "o", "committed")
    shown = busybox("run", "--rm", "--network=none", "committed", "sh", "-c", "cd /d; stat -c %n=%u:%g,%a *").stdout
    assert shown.split() == ["0=0:0,600", "1234=1234:1234,600", "1235=1235:1235,600", "33=33:33,600", "moved=1:1,600",
                             "new=5:1234,644", "su=0:0,4755"]  # fmt: skip
    busybox("commit", "-q", "--squash", "o", "flat")
    script = "cat /d/33 /h/*; wc -c </d/su; stat -c %u:%g /d/33; [ ! -e /large ] || wc -c </large"
    flat = busybox("run", "--rm", "--network=none", "flat", "sh", "-c", script).stdout.split()
    size = os.stat("/bin/busybox").st_size
    second = ["two", "one"] if is_large else ["one", "one"]
    assert flat == ["33", "more", *second, str(size), "33:33", *([str(33 << 20)] if is_large else [])]
    busybox("rm", "o")
    busybox("rmi", "committed", "flat")


def test_the_caller_owns_his_files_and_set_user_id_programs_work(
    busybox: Runner, image: str, fuse: None, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    words = ("run", "--rm", *FUSE, *KEEP, "-v", f"{tmp_path}:/w", image)
    script = "id -u; id -g; touch /w/mine; stat -c %u /w/mine; cat /d/1234; cat /d/0; /d/su -c true </dev/null"
    done = busybox(*words, "sh", "-c", script, check=False)
    assert "Permission denied" in done.stderr
    # `su` asks for the password only when it is root; else it says that it must be suid
    assert done.stdout.split() == ["1234", "1235", "1234", "1234", "Password:"], done.stderr
    assert (tmp_path / "mine").stat().st_uid == os.getuid()


def test_what_is_large_is_not_copied(busybox: Runner, image: str, ranged: None, shared_root: Path) -> None:
    """Each map made a copy of the whole image: 186 MB and 4.4 s for Debian."""
    large, script = f"{image}-large", "grep ' / ' /proc/mounts | cut -d' ' -f3; stat -c %u:%g /large; wc -c </large"
    words = ("run", "--rm", "--network=none", "--userns=keep-id:uid=555,gid=555")

    def bytes_of_copies() -> int:
        listed = json.loads(busybox("system", "df", "-v", "--format", "json").stdout)
        return sum(each["Size"] for each in listed["IdMapCopies"])

    before = bytes_of_copies()
    done = busybox(*words, large, "sh", "-c", script)
    kind, *rest = done.stdout.split()
    assert rest == ["0:0", str(33 << 20)] and bytes_of_copies() - before < 4 << 20
    kept = shared_root / "cache/layer-views.json"
    has_views = kept.exists() and json.loads(kept.read_text())["works"]
    require(has_views or kind != "overlay" or before, "no views in this kernel, and no FUSE")
    if has_views:
        assert kind == "overlay"
        known = json.loads(kept.read_text())
        kept.write_text(json.dumps({**known, "works": False}))
    # where the kernel has no views, fuse-overlayfs shows the owners
    fuse = busybox("run", "--rm", *FUSE, "--network=none", "busybox", "true", check=False)
    require("does not work in" not in fuse.stderr, f"fuse-overlayfs: {fuse.stderr}")
    done = busybox(*words, large, "sh", "-c", script)
    assert done.stdout.split() == ["fuse.fuse-overlayfs", "0:0", str(33 << 20)]
    assert bytes_of_copies() - before < 4 << 20
    # a user who asks for overlayfs gets it, and copies that are there, such as those of earlier versions, are used
    for options in (("--storage-driver=overlay",), ()):
        chosen = busybox(*words, *options, large, "sh", "-c", script, check=False)
        require("does not work in" not in chosen.stderr, f"overlay: {chosen.stderr}")
        assert chosen.stdout.split() == ["overlay", "0:0", str(33 << 20)]
    assert bytes_of_copies() - before > 33 << 20
    if has_views:
        kept.unlink()
    busybox("rmi", large)
    assert layers_of_copies(shared_root) <= set(os.listdir(shared_root / "layers"))


def test_the_caller_has_a_name_and_a_home(busybox: Runner, tmp_path: Path) -> None:
    """Programs fail that find no entry for their uid: git, ssh, pip, Java. The files are not mounted over: useradd
    replaces them by rename(2)."""
    options = ("--userns=keep-id",) if owns_range() else ("-u", "4321:4321")  # without a range there is one id
    tmp_path.chmod(0o755)
    words = ("run", "--network=none", *options, "-v", f"{tmp_path}:/work", "-w", "/work")
    script = 'id -un; id -gn; echo $HOME; awk -F: -v u=$(id -u) "\\$3 == u" /etc/passwd; touch ~/x; echo end'
    uid = os.getuid() if options[0] != "-u" else 4321
    own = pwd.getpwuid(os.getuid()).pw_name
    own = f"user{uid}" if own == "root" else own  # the image has another user of that name
    expected = [own, own, "/work", f"{own}:x:{uid}:{os.getgid() if options[0] != '-u' else 4321}::/work:/bin/sh", "end"]
    busybox(*words, "--name", "named", "-d", "busybox", "sh", "-c", f"{script}; sleep 600")
    try:
        for _ in range(2):  # started again, it is not written twice
            assert wait_for_log(busybox, "named").splitlines()[-5:] == expected
            busybox("restart", "-t", "0", "named")
        assert busybox("exec", "-u", own, "named", "sh", "-c", "echo $HOME").stdout == "/work\n"
    finally:
        busybox("rm", "-f", "named")
    assert (tmp_path / "x").exists()
    # HOME of the image or of the options stays, and a root without the files, or read-only, starts
    assert busybox(*words, "--rm", "-e", "HOME=/h", "busybox", "sh", "-c", "echo $HOME").stdout == "/h\n"
    assert busybox(*words, "--rm", "--read-only", "busybox", "id", "-un").stdout == f"{own}\n"
    # a user whom the image knows keeps his home
    named = busybox(
        "run",
        "--rm",
        "--network=none",
        *(options[:1] if options[0] != "-u" else ()),
        "-u",
        "0",
        "busybox",
        "sh",
        "-c",
        "echo $HOME",
    )
    assert named.stdout == "/root\n"


@pytest.mark.parametrize(
    "map_options", [(), ("--userns=keep-id",), ("--userns=nomap",)], ids=["default", "keep-id", "nomap"]
)
def test_users_of_exec_are_looked_up_in_the_container(
    busybox: Runner, fuse: None, map_options: tuple[str, ...]
) -> None:
    """Outside of the container's user namespace FUSE lets nobody read its files: `exec -u` failed on fuse-overlayfs."""
    busybox("run", "-d", "--name", "looks", *FUSE, *map_options, "--network=none", "busybox", "sleep", "600")
    try:
        assert busybox("exec", "-u", "daemon", "looks", "id", "-u").stdout == "1\n"
        assert busybox("exec", "-u", "0", "looks", "sh", "-c", "touch /made; stat -c %u /made").stdout == "0\n"
        # a file that the caller may not read
        busybox("exec", "-u", "0", "looks", "chmod", "600", "/etc/passwd")
        assert busybox("exec", "-u", "daemon", "looks", "id", "-u").stdout == "1\n"
        missing = busybox("exec", "-u", "missing", "looks", "true", check=False)
        assert "unable to find user 'missing'" in missing.stderr
        assert "made" in busybox("diff", "looks").stdout
        assert busybox("top", "looks").stdout.count("sleep") == 1
    finally:
        busybox("rm", "-f", "looks")


def test_a_name_on_the_hosts_network(busybox: Runner) -> None:
    words = ("run", "--rm", "--network=host", "--hostname", "box")
    found = busybox(*words, "busybox", "sh", "-c", "hostname; grep -w box /etc/hosts").stdout.split()
    assert found == ["box", "127.0.1.1", "box"]


def rows(busybox: Runner) -> dict[str, dict[str, str]]:
    lines = busybox("system", "df", "--format", "json").stdout.splitlines()
    return {row["Type"]: row for row in map(json.loads, lines)}


def test_copies_are_counted_and_pruned(busybox: Runner, ranged: None, shared_root: Path) -> None:
    busybox("run", "-d", "--name", "keeps", "--network=none", "busybox", "sleep", "600")
    busybox("system", "prune", "-af")
    assert copies(shared_root) == []
    keep = ("--network=none", "--storage-driver=overlay", "--userns")
    done = busybox("create", "--name", "uses", *keep, "keep-id:uid=77,gid=77", "busybox", "true", check=False)
    require("does not work in" not in done.stderr, f"overlay: {done.stderr}")
    (used,) = copies(shared_root)
    busybox("run", "--rm", *keep, "keep-id:uid=78,gid=78", "busybox", "true")
    assert len(copies(shared_root)) == 2
    listed = json.loads(busybox("system", "df", "-v", "--format", "json").stdout)
    assert sorted(each["InUse"] for each in listed["IdMapCopies"]) == [False, True]
    assert all(each["Size"] > 500_000 for each in listed["IdMapCopies"])
    real = sum(each["Size"] for each in listed["IdMapCopies"])
    assert listed["Total"] > real + listed["ImagesSize"]
    row = rows(busybox)["Id Map Copies"]
    assert (row["TotalCount"], row["Active"]) == ("2", "1")
    assert "ID MAP" in busybox("system", "df", "-v").stdout
    # without -a, or with a filter, copies stay: they have no time and no label
    for words in (("image", "prune", "-f"), ("system", "prune", "-af", "--filter", "until=1h")):
        busybox(*words)
        assert len(copies(shared_root)) == 2
    # the rest of a layer whose removal was cut off goes with any collection
    orphan = shared_root / "layers" / f"{'0' * 64}+{used[65:]}"
    (orphan / "diff").mkdir(parents=True)
    busybox("image", "prune", "-f")
    assert not orphan.exists() and len(copies(shared_root)) == 2
    # the copy that a container mounts stays while it is there
    busybox("start", "uses")
    with_container = ("run", "-d", "--name", "runs", *keep, "keep-id:uid=77,gid=77", "busybox", "sleep", "600")
    busybox(*with_container)
    freed = busybox("system", "prune", "-af").stdout
    assert copies(shared_root) == [used] and "Total reclaimed space: 0B" not in freed
    assert busybox("exec", "runs", "id", "-u").stdout == "77\n"
    busybox("stop", "-t", "0", "runs")
    busybox("start", "runs")
    busybox("rm", "-f", "runs")
    # what is pruned is made again
    busybox("system", "prune", "-af")
    assert copies(shared_root) == [] and "Id Map Copies" not in rows(busybox)
    assert busybox("run", "--rm", *keep, "keep-id:uid=77,gid=77", "busybox", "id", "-u").stdout == "77\n"
    busybox("rm", "-f", "keeps")
    assert busybox("system", "check").stdout.endswith("everything is whole\n")
