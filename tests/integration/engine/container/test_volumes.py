"""Volumes: seeding, sharing, lifetime, and the three classic uses of them."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from tests.conftest import Runner, require

NONE = "--network=none"


@pytest.fixture(autouse=True)
def no_volumes_left(busybox: Runner) -> None:
    names = busybox("ps", "-aq").stdout.split()
    if names:
        busybox("rm", "-f", "-v", *names)
    busybox("volume", "prune", "-af")


def inside(busybox: Runner, *arguments: str) -> str:
    return busybox("run", "--rm", NONE, *arguments).stdout


def test_a_new_volume_is_seeded_from_the_image_once(busybox: Runner) -> None:
    assert "passwd" in inside(busybox, "-v", "conf:/etc", "busybox", "ls", "/etc")
    inside(busybox, "-v", "conf:/etc", "busybox", "rm", "/etc/passwd")
    assert "passwd" not in inside(busybox, "-v", "conf:/etc", "busybox", "ls", "/etc").split()


@pytest.mark.parametrize("by", ["start", "cp"])
def test_a_running_container_sees_what_another_one_fills_its_volume_with(
    busybox: Runner, by: str, tmp_path: Path
) -> None:
    (tmp_path / "x").write_text("x")
    busybox("run", "-d", "--name", "a", "--network=none", "-v", "both:/v:nocopy", "busybox", "sleep", "1000")
    busybox("create", "--name", "b", "--network=none", "-v", "both:/etc", "busybox", "true")
    if by == "start":
        busybox("start", "-a", "b")
    else:
        busybox("cp", str(tmp_path / "x"), "b:/etc/x")
    busybox("exec", "a", "test", "-f", "/v/passwd")
    busybox("rm", "-f", "a", "b")
    busybox("volume", "rm", "both")


def test_nocopy_and_volumes_with_content_are_not_seeded(busybox: Runner) -> None:
    """CVE-2020-1726."""
    assert (
        "passwd"
        not in inside(
            busybox, "--mount", "type=volume,src=bare,dst=/etc,volume-nocopy", "busybox", "ls", "/etc"
        ).split()
    )
    inside(busybox, "-v", "full:/x", "busybox", "touch", "/x/mine")
    assert inside(busybox, "-v", "full:/etc", "busybox", "ls", "/etc").split() == ["mine"] or "mine" in inside(
        busybox, "-v", "full:/bin2", "busybox", "ls", "/bin2"
    )


def test_anonymous_volumes_go_with_rm_v(busybox: Runner) -> None:
    busybox("run", "--name", "a", "-v", "/anon", "-v", "named:/n", NONE, "busybox", "true")
    assert len(busybox("volume", "ls", "-q").stdout.split()) == 2
    busybox("rm", "-v", "a")
    assert busybox("volume", "ls", "-q").stdout.split() == ["named"]


def test_shared_volume_and_volumes_from(busybox: Runner) -> None:
    busybox("run", "-d", "--name", "owner", "--init", "-v", "shared:/s", NONE, "busybox", "sleep", "60")
    inside(busybox, "--volumes-from", "owner", "busybox", "touch", "/s/from-other")
    assert busybox("exec", "owner", "ls", "/s").stdout.split() == ["from-other"]
    read_only = busybox("run", "--rm", NONE, "--volumes-from", "owner:ro", "busybox", "touch", "/s/x", check=False)
    assert read_only.returncode == 1
    in_use = busybox("volume", "rm", "shared", check=False)
    assert in_use.returncode == 1
    assert "in use" in in_use.stderr
    busybox("rm", "-f", "owner")
    busybox("volume", "rm", "shared")


def test_bind_mounts(busybox: Runner, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("host\n")
    assert inside(busybox, "-v", f"{tmp_path}:/b", "busybox", "sh", "-c", "cat /b/f; echo new > /b/g") == "host\n"
    assert (tmp_path / "g").read_text() == "new\n"
    assert (tmp_path / "g").stat().st_uid == os.getuid()
    read_only = busybox("run", "--rm", NONE, "-v", f"{tmp_path}:/b:ro", "busybox", "touch", "/b/x", check=False)
    assert read_only.returncode == 1
    assert inside(busybox, "-v", f"{tmp_path}/f:/one", "busybox", "cat", "/one") == "host\n"
    inside(busybox, "-v", f"{tmp_path}/made:/m", "busybox", "true")
    assert (tmp_path / "made").is_dir()


def test_a_link_of_the_image_cannot_lead_a_mount_outside(busybox: Runner, tmp_path: Path) -> None:
    """CVE-2021-30465, CVE-2015-3629: the volume's target is a link into the host's tree."""
    (tmp_path / "victim").mkdir()
    busybox(
        "run", "--name", "trap", "-v", "evil:/evil", NONE, "busybox", "sh", "-c", f"ln -s {tmp_path}/victim /evil/link"
    )
    inside(busybox, "-v", "evil:/evil", "-v", "payload:/evil/link/x", "busybox", "touch", "/evil/link/x/file")
    assert not list((tmp_path / "victim").iterdir())


def test_the_container_users_files_by_option_u(busybox: Runner, has_range: bool) -> None:
    require(has_range, "one id: another owner needs a range")
    assert inside(
        busybox, "-v", "own:/o:U", "-u", "33", "busybox", "sh", "-c", "touch /o/x && stat -c %u /o /o/x"
    ).split() == ["33", "33"]


def test_image_mount(busybox: Runner) -> None:
    assert "busybox" in inside(busybox, "--mount", "type=image,src=busybox,dst=/img", "busybox", "ls", "/img/bin")
    written = busybox(
        "run", "--rm", NONE, "--mount", "type=image,src=busybox,dst=/img", "busybox", "touch", "/img/x", check=False
    )
    assert written.returncode == 1


def test_the_layers_of_a_mounted_image_stay_without_its_name(busybox: Runner, tmp_path: Path) -> None:
    """The container's record has only the layers of its own image; garbage collection takes none that is mounted."""
    for count, name in ((1, "one-layer"), (2, "two-layers")):
        copies = "".join(f"COPY f{number} /\n" for number in range(count))
        (tmp_path / "Dockerfile").write_text(f"FROM scratch\n{copies}")
        for number in range(count):
            (tmp_path / f"f{number}").write_text(f"{name} {number}")
        busybox("build", "-q", "--network=none", "--no-cache", "-t", name, str(tmp_path))
    mounts = [f"--mount=type=image,src={name},dst=/{name}" for name in ("one-layer", "two-layers")]
    read = "cat /one-layer/f0 /two-layers/f0 /two-layers/f1"
    busybox("run", "-d", NONE, "--name", "mounter", *mounts, "busybox", "sh", "-c", f"{read}; exec sleep 60")
    busybox("rmi", "one-layer", "two-layers")
    busybox("builder", "prune", "-af")
    busybox("system", "prune", "-af")
    assert busybox("exec", "mounter", "sh", "-c", read).stdout == "one-layer 0two-layers 0two-layers 1"
    busybox("stop", "-t", "0", "mounter")
    assert "mounter" not in busybox("system", "check").stdout
    busybox("start", "mounter")
    assert busybox("exec", "mounter", "sh", "-c", read).stdout == "one-layer 0two-layers 0two-layers 1"
    busybox("rm", "-f", "mounter")


def test_idmapped_bind_is_carried_out_or_refused(busybox: Runner, tmp_path: Path) -> None:
    """Never silently a plain bind: an ordinary user may not idmap the host's file systems."""
    (tmp_path / "f").touch()
    tried = busybox(
        "run", "--rm", NONE, "-v", f"{tmp_path}:/b:idmap", "busybox", "stat", "-c", "%u", "/b/f", check=False
    )
    assert tried.returncode == 125


def test_use_one_a_shell_beside_a_super_minimal_container(busybox: Runner, tmp_path: Path) -> None:
    """The image has one static program and no shell; its data are seen through its volume from another container."""
    import tarfile

    archive = tmp_path / "tiny.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add("/bin/busybox", "busybox")
    busybox("import", "-c", 'ENTRYPOINT ["/busybox", "sleep"]', "-c", "VOLUME /state", str(archive), "tiny")
    busybox("run", "-d", "--name", "tiny", "--init", NONE, "tiny", "60")
    assert busybox("exec", "tiny", "sh", check=False).returncode == 127
    inside(busybox, "--volumes-from", "tiny", "busybox", "sh", "-c", "echo seen > /state/note")
    assert inside(busybox, "--volumes-from", "tiny:ro", "busybox", "cat", "/state/note") == "seen\n"
    assert "sleep" in inside(busybox, "--pid=container:tiny", "busybox", "ps")
    busybox("rm", "-f", "-v", "tiny")


def test_use_two_a_database_moves_between_two_containers(busybox: Runner, tmp_path: Path) -> None:
    """A real SQLite file: written here, carried by a volume through two containers, read again with all its rows."""
    source = tmp_path / "shop.db"
    with sqlite3.connect(source) as database:
        database.execute("create table t (n integer)")
        database.executemany("insert into t values (?)", [(n,) for n in range(10_000)])
    database.close()
    inside(busybox, "-v", f"{tmp_path}:/in:ro", "-v", "old:/var/db", "busybox", "cp", "/in/shop.db", "/var/db/")
    inside(busybox, "-v", "old:/from:ro", "-v", "new:/to", "busybox", "cp", "-a", "/from/.", "/to")
    out = tmp_path / "out"
    out.mkdir()
    inside(busybox, "-v", "new:/var/db:ro", "-v", f"{out}:/out", "busybox", "cp", "/var/db/shop.db", "/out/")
    copied = sqlite3.connect(out / "shop.db")
    assert copied.execute("select count(*), sum(n) from t").fetchone() == (10_000, 49_995_000)
    assert copied.execute("pragma integrity_check").fetchone() == ("ok",)
    copied.close()


def test_use_three_the_image_is_upgraded_and_the_data_stay(busybox: Runner, tmp_path: Path) -> None:
    """Version 2 of an image takes the place of version 1 on the same volume."""
    import tarfile

    for version in ("1", "2"):
        tree = tmp_path / version
        (tree / "bin").mkdir(parents=True)
        shutil.copy("/bin/busybox", tree / "bin/busybox")
        (tree / "bin/sh").symlink_to("busybox")
        (tree / "version").write_text(f"{version}\n")
        (tree / "data").mkdir()
        (tree / "data/schema").write_text(f"{version}\n")
        archive = tmp_path / f"{version}.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(tree, ".")
        busybox("import", "-c", "VOLUME /data", str(archive), f"app:{version}")
    script = "read v < /version; echo run-by-$v >> /data/journal"
    busybox("run", "--name", "app", "-v", "appdata:/data", NONE, "app:1", "sh", "-c", script)
    busybox("rm", "-v", "app")
    busybox("run", "--name", "app", "-v", "appdata:/data", NONE, "app:2", "sh", "-c", script)
    text = inside(busybox, "-v", "appdata:/data:ro", "busybox", "cat", "/data/journal", "/data/schema")
    assert text.split() == ["run-by-1", "run-by-2", "1"]
    busybox("rm", "-v", "app")
    assert busybox("volume", "ls", "-q").stdout.split() == ["appdata"]


def test_a_volume_that_is_a_directory_of_the_host(busybox: Runner, tmp_path: Path) -> None:
    """`driver_opts: {type: none, o: bind, device: …}`, as compose files have it."""
    given = tmp_path / "given"
    given.mkdir()
    busybox("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={given}", "bound")
    inside(busybox, "-v", "bound:/v", "busybox", "sh", "-c", "echo text > /v/f")
    assert (given / "f").read_text() == "text\n"
    assert busybox("volume", "inspect", "-f", "{{.Options.device}}", "bound").stdout.strip() == str(given)
    busybox("create", "--name", "holder", NONE, "-v", "bound:/v", "busybox", "true")
    assert busybox("inspect", "-f", "{{(index .Mounts 0).Type}} {{(index .Mounts 0).Name}}", "holder").stdout == (
        "volume bound\n"
    )
    assert inside(busybox, "--volumes-from", "holder:ro", "busybox", "cat", "/v/f") == "text\n"
    assert "in use" in busybox("volume", "rm", "bound", check=False).stderr
    busybox("rm", "holder")
    busybox("volume", "rm", "bound")
    assert (given / "f").exists(), "what is behind the volume is not its own to remove"
    shutil.rmtree(given)
    busybox("volume", "create", "-o", "type=none", "-o", "o=bind,ro", "-o", f"device={given}", "bound")
    missing = busybox("run", "--rm", NONE, "-v", "bound:/v", "busybox", "true", check=False)
    assert missing.returncode == 125 and f"volume 'bound': cannot use its directory '{given}'" in missing.stderr
    given.mkdir()
    refused = busybox("run", "--rm", NONE, "-v", "bound:/v", "busybox", "touch", "/v/x", check=False)
    assert refused.returncode == 1 and "Read-only file system" in refused.stderr


def test_a_volume_that_is_a_tmpfs(busybox: Runner) -> None:
    busybox("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,mode=0750", "quick")
    shown = inside(busybox, "-v", "quick:/v", "busybox", "sh", "-c", "grep ' /v ' /proc/mounts; stat -c %a /v")
    assert "tmpfs" in shown and "size=1024k" in shown and shown.endswith("750\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["type=nfs", "o=addr=1.2.3.4", "device=:/x"], "a volume of type 'nfs' cannot be made"),
        (["size=1g"], "invalid volume option 'size'"),
        (["type=none", "o=bind", "device=x"], "needs the absolute path of a directory"),
        (["type=none", "o=bind,wrong", "device=/tmp"], "invalid option 'wrong'"),
        (["type=tmpfs", "o=wrong"], "invalid tmpfs option 'wrong'"),
    ],
)
def test_options_that_no_volume_can_have(busybox: Runner, options: list[str], message: str) -> None:
    words = [word for option in options for word in ("-o", option)]
    done = busybox("volume", "create", *words, "wrong", check=False)
    assert done.returncode == 125 and message in done.stderr


@pytest.fixture
def seeded(busybox: Runner) -> str:
    """An image with a file in /seed."""
    busybox("run", "--name", "s", NONE, "busybox", "sh", "-c", "mkdir /seed; echo x >/seed/file")
    busybox("commit", "-q", "s", "seeded")
    busybox("rm", "s")
    return "seeded"


def test_an_emptied_volume_is_not_filled_again(busybox: Runner, seeded: str, tmp_path: Path) -> None:
    """Neither by `cp` nor by a restart: what a container takes out of its volume is gone."""
    tmp_path.chmod(0o777)
    script = "ls /seed >>/out/list; rm -f /seed/*; exit 1"
    busybox("run", "--name", "e", "--restart=on-failure:1", NONE, "-v", "emptied:/seed", "-v", f"{tmp_path}:/out",
            seeded, "sh", "-c", script, check=False)  # fmt: skip
    deadline = time.monotonic() + 30
    while busybox("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "e").stdout != "exited 1\n":
        assert time.monotonic() < deadline, "it does not end"
        time.sleep(0.05)
    assert (tmp_path / "list").read_text() == "file\n"
    data = Path(busybox("volume", "inspect", "-f", "{{.Mountpoint}}", "emptied").stdout.strip())
    assert os.listdir(data) == []
    busybox("cp", str(tmp_path / "list"), "e:/tmp/list")
    assert os.listdir(data) == []
