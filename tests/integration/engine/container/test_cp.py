"""cp: docker's rules, volumes and mounts, owners, and containers that try to lead it out of their root."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.conftest import Runner, require

NONE = "--network=none"


@pytest.fixture(autouse=True)
def nothing_left(busybox: Runner) -> None:
    names = busybox("ps", "-aq").stdout.split()
    if names:
        busybox("rm", "-f", "-v", *names)
    busybox("volume", "prune", "-af")


@pytest.fixture(params=["stopped", "running"])
def container(request: pytest.FixtureRequest, busybox: Runner) -> str:
    """A container with a volume, a bind mount and a read-only one."""
    host = request.getfixturevalue("tmp_path") / "bound"
    host.mkdir()
    (host / "file").write_text("bound\n")
    busybox("create", "--name", "c", NONE, "-v", "vol:/vol", "-v", f"{host}:/bound", "-v", f"{host}:/ro:ro",
            "busybox", "sleep", "1000")  # fmt: skip
    if request.param == "running":
        busybox("start", "c")
    return str(request.param)


def inside(busybox: Runner, state: str, script: str) -> str:
    """What a shell in the container says; a stopped one is started for it, and stopped again."""
    if state == "stopped":
        busybox("start", "c")
    out = busybox("exec", "c", "sh", "-c", script).stdout
    if state == "stopped":
        busybox("stop", "-t", "0", "c")
    return out


def make_tree(base: Path) -> Path:
    source = base / "src"
    (source / "sub").mkdir(parents=True)
    (source / "a").write_text("a\n")
    os.link(source / "a", source / "b")
    (source / "l").symlink_to("a")
    (source / "sub" / "odd name\n").write_text("x\n")
    (source / "a").chmod(0o640)
    os.utime(source / "a", (1_500_000_000, 1_500_000_000))
    return source


def test_in_and_out_again(busybox: Runner, container: str, tmp_path: Path) -> None:
    source = make_tree(tmp_path)
    for target in ("/tmp", "/vol", "/bound"):
        busybox("cp", str(source), f"c:{target}")
    busybox("cp", f"{source}/.", "c:/vol")
    busybox("cp", str(source), "c:/renamed")
    busybox("cp", str(source / "a"), "c:/vol/single")
    seen = inside(
        busybox, container, "stat -c '%u:%g %a %h %Y' /tmp/src/a /renamed/a; readlink /vol/l; cat /vol/single; ls /vol"
    )
    assert seen.split()[:6] == ["0:0", "640", "2", "1500000000", "0:0", "640"]
    assert seen.split()[-8:] == ["a", "a", "a", "b", "l", "single", "src", "sub"]
    assert (tmp_path / "bound" / "src" / "a").read_text() == "a\n"
    for path in ("/tmp/src", "/vol/src", "/bound/src", "/renamed"):
        out = tmp_path / "out"
        busybox("cp", f"c:{path}", str(out))
        assert (out / "a").read_text() == "a\n"
        assert (out / "a").stat().st_ino == (out / "b").stat().st_ino
        assert (out / "a").stat().st_mtime == 1_500_000_000
        assert oct((out / "a").stat().st_mode) == "0o100640"
        assert (out / "sub" / "odd name\n").read_text() == "x\n"
        assert os.readlink(out / "l") == "a"
        assert out.stat().st_uid == os.getuid()
        subprocess.run(["rm", "-r", out], check=True)


def test_rules_of_docker(busybox: Runner, container: str, tmp_path: Path) -> None:
    source = make_tree(tmp_path)

    def refused(*words: str) -> str:
        done = busybox("cp", *words, check=False)
        assert done.returncode != 0
        return done.stderr

    assert "no such directory" in refused(f"{source}/a", "c:/absent/")
    assert "could not find the directory '/absent'" in refused(f"{source}/a", "c:/absent/a")
    assert "cannot copy a directory" in refused(str(source), "c:/etc/passwd")
    assert "could not find the file" in refused("c:/absent", str(tmp_path))
    assert "no such file" in refused(f"{tmp_path}/absent", "c:/")
    assert "must specify" in refused("a", "b")
    assert "cannot copy a directory" in refused("c:/etc", f"{source}/a")
    assert "no such directory" in refused("c:/etc/passwd", f"{tmp_path}/absent/")
    assert "Read-only" in refused(f"{source}/a", "c:/ro/x")
    assert "Not a directory" in refused(f"{source}/a", "c:/etc/passwd/")
    # a directory in the place of a file, and the reverse
    (tmp_path / "dir" / "passwd").mkdir(parents=True)
    (tmp_path / "tmp").write_text("file")
    assert "cannot overwrite non-directory" in refused(f"{tmp_path}/dir/.", "c:/etc")
    assert "cannot overwrite directory" in refused(f"{tmp_path}/tmp", "c:/")
    busybox("cp", "--overwrite", f"{tmp_path}/dir/.", "c:/etc")
    assert inside(busybox, container, "test -d /etc/passwd && echo yes") == "yes\n"
    # a link as the source is itself copied, unless it is followed
    busybox("cp", f"{source}/l", "c:/tmp/l1")
    busybox("cp", "-L", f"{source}/l", "c:/tmp/l2")
    assert inside(busybox, container, "readlink /tmp/l1; cat /tmp/l2") == "a\na\n"
    busybox("cp", "c:/tmp/l1", str(tmp_path / "out1"))
    assert os.readlink(tmp_path / "out1") == "a"
    busybox("cp", f"{source}/a", "c:/tmp/a")
    busybox("cp", "-L", "c:/tmp/l1", str(tmp_path / "out2"))
    assert (tmp_path / "out2").read_text() == "a\n"
    # a file over a file, and into a directory that exists
    busybox("cp", f"{source}/a", "c:/etc/group")
    busybox("cp", f"{source}/a", "c:/home")
    assert inside(busybox, container, "cat /etc/group /home/a") == "a\na\n"


def test_a_link_of_the_host_as_destination(busybox: Runner, container: str, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "again").symlink_to(tmp_path / "link")
    for number, destination in enumerate(("link", "link/", "link/.", "again", "again/", "again/.", "link/../again/.")):
        busybox("cp", "c:/etc/passwd", f"{tmp_path}/{destination}")
        busybox("cp", "c:/etc/passwd", f"{tmp_path}/link/{number}")
        assert sorted(path.name for path in (tmp_path / "real").iterdir()) == sorted(("passwd", str(number)))
        for path in (tmp_path / "real").iterdir():
            path.unlink()
    assert (tmp_path / "link").is_symlink()


def test_tar_streams(busybox: Runner, container: str, tmp_path: Path) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, uid in (("d", 0), ("d/f", 12)):
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if name == "d" else tarfile.REGTYPE
            member.mode, member.uid, member.gid, member.mtime = 0o751, uid, uid, 1_400_000_000
            tar.addfile(member)
    busybox("cp", "-", "c:/home", input=archive.getvalue())
    out = busybox("cp", "c:/home/d", "-").stdout.encode("utf-8", "surrogateescape")
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        members = {member.name: member for member in tar}
    assert members.keys() == {"d", "d/f"}
    assert (members["d/f"].uid, members["d/f"].mode, members["d/f"].mtime) == (12, 0o751, 1_400_000_000)
    assert "must be a directory" in busybox("cp", "-", "c:/etc/passwd", input=b"", check=False).stderr


def test_owners_are_kept_with_archive(busybox: Runner, container: str, has_range: bool, tmp_path: Path) -> None:
    require(has_range, "only a user who has a range can have files of others")
    source = make_tree(tmp_path)
    inside(busybox, container, "echo x > /tmp/x; chown 33:44 /tmp/x")
    busybox("create", "--name", "other", NONE, "busybox")
    busybox("cp", "c:/tmp/x", "other:/tmp")
    with tarfile.open(fileobj=io.BytesIO(busybox("cp", "other:/tmp/x", "-").stdout.encode())) as tar:
        assert (tar.getmembers()[0].uid, tar.getmembers()[0].gid) == (33, 44)
    # the caller is root in the container: his files are root's there, with -a and without
    busybox("cp", "-a", str(source), "c:/kept")
    assert inside(busybox, container, "stat -c %u /kept/a") == "0\n"


def test_mounted_names_files_are_written_in_place(busybox: Runner, tmp_path: Path) -> None:
    busybox("run", "-d", "--name", "c", NONE, "busybox", "sleep", "1000")
    (tmp_path / "hosts").write_text("127.0.0.1 mine\n")
    busybox("cp", f"{tmp_path}/hosts", "c:/etc/hosts")
    assert busybox("exec", "c", "cat", "/etc/hosts").stdout == "127.0.0.1 mine\n"


def test_a_new_volume_is_seeded_before_something_is_copied_into_it(busybox: Runner, tmp_path: Path) -> None:
    busybox("create", "--name", "c", NONE, "-v", "fresh:/etc", "busybox", "ls", "/etc")
    (tmp_path / "mine").write_text("x")
    busybox("cp", f"{tmp_path}/mine", "c:/etc")
    assert {"mine", "passwd"} <= set(busybox("start", "-a", "c").stdout.split())


def test_read_only_root(busybox: Runner, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    busybox("create", "--name", "c", "--read-only", NONE, "-v", "vol:/vol", "busybox", "sleep", "1000")
    assert "Read-only" in busybox("cp", f"{tmp_path}/f", "c:/f", check=False).stderr
    busybox("cp", f"{tmp_path}/f", "c:/vol/f")
    busybox("start", "c")
    assert "Read-only" in busybox("cp", f"{tmp_path}/f", "c:/f", check=False).stderr
    assert busybox("exec", "c", "cat", "/vol/f").stdout == "x"


@pytest.mark.parametrize("state", ["stopped", "running"])
def test_links_never_lead_out_of_the_container(busybox: Runner, state: str, tmp_path: Path) -> None:
    """CVE-2018-15664, CVE-2019-10152, CVE-2026-41568: as source, as destination, on the way, by `..` and by /proc."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("host key")
    links = f"ln -s {secret} /dir; ln -s {secret}/key /file; ln -s /proc/self/root{secret} /magic; " \
            f"ln -s ../../../../../../../../..{secret} /up; mkdir /real; ln -s {secret} /real/inner; " \
            "ln -s /proc/1/root /one; touch /done"  # fmt: skip
    busybox("run", "-d", "--name", "c", NONE, "busybox", "sh", "-c", f"{links}; sleep 1000")
    busybox("exec", "c", "sh", "-c", "until test -e /done; do sleep 0.05; done")
    if state == "stopped":
        busybox("stop", "-t", "0", "c")
    (tmp_path / "evil").write_text("evil")
    for path in ("/dir/key", "/dir/.", "/magic/key", "/up/key", f"/one{secret}/key", "/real/inner/key"):
        busybox("cp", f"c:{path}", str(tmp_path / "out"), check=False)
    for path in ("/file", "/up"):
        busybox("cp", "-L", f"c:{path}", str(tmp_path / "out"), check=False)
    busybox("cp", "c:/real", str(tmp_path / "out"), check=False)
    found = [p for p in (tmp_path / "out").rglob("*") if p.is_file() and not p.is_symlink()]
    assert "host key" not in [p.read_text() for p in found], found
    for path in ("/dir/key", "/dir", "/file", "/magic/", "/up/x", "/real/inner/x", f"/one{secret}/x"):
        busybox("cp", f"{tmp_path}/evil", f"c:{path}", check=False)
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "inner").mkdir()
    (tmp_path / "real" / "inner" / "key").write_text("evil")
    busybox("cp", str(tmp_path / "real"), "c:/", check=False)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("real/inner/key"))
    busybox("cp", "-", "c:/", input=archive.getvalue(), check=False)
    assert sorted(p.name for p in secret.iterdir()) == ["key"]
    assert (secret / "key").read_text() == "host key"


def test_a_container_that_swaps_links_meanwhile(busybox: Runner, tmp_path: Path) -> None:
    """CVE-2018-15664: a directory and a link to the host's take turns while files go in and out."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("host key")
    swap = (
        f"mkdir /a; echo inside > /a/key; ln -s {secret} /b; while :; do mv /a /c; mv /b /a; mv /a /b; mv /c /a; done"
    )
    busybox("run", "-d", "--name", "c", NONE, "busybox", "sh", "-c", swap)
    (tmp_path / "evil").write_text("evil")
    for turn in range(6):
        out = tmp_path / f"out{turn}"
        busybox("cp", "c:/a/key", str(out), check=False)
        assert not out.exists() or out.read_text() == "inside\n" or out.read_text() == "evil"
        busybox("cp", f"{tmp_path}/evil", "c:/a/key", check=False)
        busybox("cp", f"{tmp_path}/evil", "c:/a/new", check=False)
    assert [p.name for p in secret.iterdir()] == ["key"]
    assert (secret / "key").read_text() == "host key"


def test_the_hosts_files_are_safe(busybox: Runner, tmp_path: Path) -> None:
    """GO-2024-2913 (CVE-2021-41089), CVE-2026-42306: links in the target directory are replaced or refused, never
    followed, and nothing that exists changes its mode."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    (outside / "file").chmod(0o600)
    work = tmp_path / "work"
    (work / "etc").mkdir(parents=True)
    (work / "etc").chmod(0o700)
    (work / "etc" / "passwd").symlink_to(outside / "file")
    (work / "etc" / "shadow").symlink_to(tmp_path / "not-made")
    busybox("create", "--name", "c", NONE, "busybox")
    busybox("cp", "c:/etc", str(work))
    assert not (work / "etc" / "passwd").is_symlink()
    assert (outside / "file").read_text() == "mine"
    assert oct((outside / "file").stat().st_mode) == "0o100600"
    assert not (tmp_path / "not-made").exists()
    assert oct((work / "etc").stat().st_mode) == "0o40700"
    subprocess.run(["rm", "-r", work / "etc"], check=True)
    (work / "etc").symlink_to(outside)
    assert "cannot overwrite non-directory" in busybox("cp", "c:/etc", str(work), check=False).stderr
    assert [p.name for p in outside.iterdir()] == ["file"]
    # as the destination itself a link is followed, as docker does
    (work / "link").symlink_to(outside / "file")
    busybox("cp", "c:/etc/group", str(work / "link"))
    assert "root" in (outside / "file").read_text()


def test_set_id_bits_stay_in_the_container(busybox: Runner, tmp_path: Path) -> None:
    """A program of a hostile image must not become one that others run as the caller."""
    busybox("run", "--name", "c", NONE, "busybox", "sh", "-c", "cp /bin/busybox /suid; chmod 6755 /suid")
    busybox("cp", "c:/suid", str(tmp_path / "plain"))
    busybox("cp", "-a", "c:/suid", str(tmp_path / "kept"))
    assert oct((tmp_path / "plain").stat().st_mode) == "0o100755"
    assert oct((tmp_path / "kept").stat().st_mode) == "0o106755"


def test_hostile_archives_from_standard_input(busybox: Runner, tmp_path: Path) -> None:
    """CVE-2007-4559 and its family: `..`, absolute names, hard links that leave."""
    busybox("create", "--name", "c", NONE, "busybox")
    for name, kind, link in (
        ("../../../../../../tmp/escaped", tarfile.REGTYPE, ""),
        ("x", tarfile.LNKTYPE, "../../../../../../etc/passwd"),
        ("d/../../y", tarfile.REGTYPE, ""),
    ):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            tar.addfile(member)
        assert "'..'" in busybox("cp", "-", "c:/home", input=archive.getvalue(), check=False).stderr
    assert busybox("diff", "c").stdout == ""


def test_directories_that_are_closed_are_copied_both_ways(container: str, busybox: Runner, tmp_path: Path) -> None:
    """A directory gets its mode of 555 or 000 when all is in it; a read-only one in a container takes files."""
    inside(busybox, container, "mkdir -p /ro555/in /none/in; echo x | tee /ro555/in/f >/none/in/f; chmod 555 /ro555 "
           "/ro555/in; chmod 000 /none/in /none; mkdir -m 555 /target")  # fmt: skip
    for name, mode in (("ro555", 0o555), ("none", 0)):
        out = tmp_path / name
        busybox("cp", f"c:/{name}", str(out))
        for directory in (out, out / "in"):
            assert directory.lstat().st_mode & 0o7777 == mode
            directory.chmod(0o700)
        assert (out / "in/f").read_text() == "x\n"
        for directory in (out / "in", out):
            directory.chmod(0o555)
        busybox("cp", str(out), f"c:/target/{name}")
    found = inside(busybox, container, "stat -c '%a %n' /target/ro555 /target/none/in; cat /target/none/in/f")
    assert found.splitlines() == ["555 /target/ro555", "555 /target/none/in", "x"]
