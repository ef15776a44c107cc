"""Words that podman and later versions of docker have beside docker's first ones: `exists`, --all, --noheading, ..."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.conftest import Runner, require


@pytest.mark.once
def test_exists_tells_by_its_code(busybox: Runner) -> None:
    number = busybox("create", "--name", "there", "--network=none", "-v", "kept:/x", "busybox").stdout.strip()
    image = busybox("images", "-q", "busybox:latest").stdout.strip()
    for words in (
        *(("container", name) for name in ("there", number, number[:10])),
        *(("image", name) for name in ("busybox", "busybox:latest", image)),
        ("volume", "kept"),
    ):
        assert (words, busybox(words[0], "exists", words[1]).stdout) == (words, "")
    for noun in ("container", "image", "volume", "network", "manifest"):
        done = busybox(noun, "exists", "elsewhere", check=False)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    busybox("rm", "there")
    busybox("volume", "rm", "kept")


@pytest.mark.once
def test_a_question_that_fails_is_no_answer(busybox: Runner, tmp_path_factory: pytest.TempPathFactory) -> None:
    """`exists || create` must not create because the store cannot be read."""
    for noun in ("container", "image", "volume", "network", "manifest"):
        done = busybox("--root", "/proc/version/x", noun, "exists", "x", check=False)
        assert done.returncode == 125, (noun, done.stderr)


@pytest.mark.once
def test_names_of_images(busybox: Runner) -> None:
    before = busybox("images", "-q").stdout.split()
    busybox("tag", "busybox", "more:1", "more:2", "other")
    names = busybox("images", "--noheading", "--format", "table {{.Repository}}:{{.Tag}}").stdout.split()
    assert {"busybox:latest", "more:1", "more:2", "other:latest"} <= set(names)
    assert len(busybox("images", "-n").stdout.splitlines()) == len(names) == len(before) + 3
    assert busybox("inspect", "-t", "image", "-f", "{{len .RepoTags}}", "more:1").stdout == f"{len(names)}\n"
    assert busybox("inspect", "-t", "container", "more:1", check=False).returncode == 1
    assert "exclude" in busybox("rmi", "-a", "more:1", check=False).stderr
    assert "Deleted: sha256:" in busybox("rmi", "--all").stdout
    assert busybox("images", "-q").stdout == busybox("rmi", "-a").stdout == ""
    busybox("image", "bootstrap", "busybox")


def test_all_containers(busybox: Runner) -> None:
    """--all takes those that the command can be about, and leaves the others alone."""
    for name in ("one", "two"):
        busybox("run", "-d", "--name", name, "--network=none", "busybox", "sleep", "1000")
    ids = sorted(busybox("ps", "-aq", "--no-trunc").stdout.split())
    fresh = busybox("create", "--network=none", "busybox", "sleep", "1000").stdout.strip()
    assert sorted(busybox("pause", "-a").stdout.split()) == ids
    assert sorted(busybox("unpause", "--all").stdout.split()) == ids
    assert len(busybox("ps", "--noheading").stdout.splitlines()) == 2
    assert sorted(busybox("kill", "-a", "-s", "WINCH").stdout.split()) == ids
    assert sorted(busybox("stop", "-a", "-t", "0").stdout.split()) == ids
    assert busybox("stop", "-a").stdout == busybox("kill", "-a").stdout == busybox("pause", "-a").stdout == ""
    assert sorted(busybox("start", "--all").stdout.split()) == sorted([*ids, fresh])
    refused = busybox("rm", "-a", check=False)
    assert (refused.returncode, refused.stdout, refused.stderr.count("cannot remove")) == (1, "", 3)
    assert "--all and the name of a container exclude each other" in busybox("rm", "-a", "one", check=False).stderr
    assert sorted(busybox("rm", "-af").stdout.split()) == sorted([*ids, fresh])
    assert busybox("rm", "-a").stdout == busybox("ps", "-aq").stdout == ""
    assert busybox("rm", check=False).returncode == 125


@pytest.mark.once
def test_lists_without_headings(busybox: Runner) -> None:
    busybox("volume", "create", "lonely")
    assert busybox("volume", "ls", "-n").stdout.split() == ["local", "lonely"]
    assert busybox("volume", "ls").stdout.split()[0] == "DRIVER"
    assert "NETWORK" not in busybox("network", "ls", "--noheading").stdout
    busybox("volume", "rm", "lonely")


@pytest.mark.once
def test_umask_is_that_of_run_and_exec(busybox: Runner) -> None:
    asked = busybox("run", "--rm", "--network=none", "--umask", "027", "busybox", "sh", "-c", "umask")
    assert asked.stdout == "0027\n"
    busybox("run", "-d", "--name", "masked", "--network=none", "--umask=0", "busybox", "sleep", "1000")
    for words in ((), ("-u", "0")):
        assert busybox("exec", *words, "masked", "sh", "-c", "umask").stdout == "0000\n"
    busybox("rm", "-f", "masked")
    for wrong in ("9", "8888", "01777", "rwx", ""):
        done = busybox("run", "--rm", "--network=none", "--umask", wrong, "busybox", "true", check=False)
        assert (done.returncode, f"invalid --umask '{wrong}'" in done.stderr) == (125, True)


@pytest.mark.once
def test_time_zones(busybox: Runner) -> None:
    require(Path("/usr/share/zoneinfo/Asia/Tokyo").exists(), "no tzdata on this host")
    for zone, shown in (("Asia/Tokyo", "+0900"), ("Etc/GMT+5", "-0500")):
        done = busybox("run", "--rm", "--network=none", "--tz", zone, "busybox", "date", "+%z")
        assert done.stdout == f"{shown}\n"
    here = busybox("run", "--rm", "--network=none", "--tz=local", "busybox", "sh", "-c", "cat /etc/localtime | wc -c")
    assert int(here.stdout) == Path("/etc/localtime").stat().st_size
    for wrong in ("Nowhere/At_all", "../../../etc/passwd", "/etc/passwd", "Asia"):
        done = busybox("run", "--rm", "--network=none", "--tz", wrong, "busybox", "true", check=False)
        assert (done.returncode, "does not know the time zone" in done.stderr) == (125, True), wrong


def test_replace(busybox: Runner) -> None:
    """The old container goes, running or not, but not for options that are wrong; nor one whose id begins so."""
    run = ("run", "-d", "--replace", "--network=none", "--name", "again")
    first = busybox(*run, "busybox", "sleep", "1000").stdout.strip()
    second = busybox(*run, "busybox", "sleep", "1000").stdout.strip()
    ids = busybox("ps", "-aq", "--no-trunc").stdout.split()
    assert first not in ids and second in ids
    assert busybox(*run, "--umask", "9", "busybox", "true", check=False).returncode == 125
    assert busybox(*run, "busybox-is-not-here:1", "true", "--pull=never", check=False).returncode == 125
    assert busybox("inspect", "-f", "{{.Id}} {{.State.Running}}", "again").stdout == f"{second} true\n"
    short = second[:8]
    third = busybox("create", "--replace", "--name", short, "--network=none", "busybox").stdout.strip()
    assert {second, third} <= set(busybox("ps", "-aq", "--no-trunc").stdout.split())
    done = busybox("run", "--rm", "--replace", "--network=none", "busybox", "true", check=False)
    assert (done.returncode, "--replace needs the name" in done.stderr) == (125, True)
    busybox("rm", "-f", second, third)


@pytest.mark.once
def test_volumes_as_archives(busybox: Runner, tmp_path: Path) -> None:
    """What is exported comes back with its modes, links and times; what was there stays; no link leads out."""
    fill = (
        "cd /d; mkdir -p a/b; echo one >a/b/f; chmod 640 a/b/f; ln -s b a/l; ln a/b/f hard; touch -d @1000000000 hard"
    )
    busybox("run", "--rm", "--network=none", "-v", "from:/d", "busybox", "sh", "-c", fill)
    archive = tmp_path / "from.tar"
    busybox("volume", "export", "--output", str(archive), "from")
    assert archive.stat().st_mode & 0o777 == 0o600
    assert busybox("import", str(archive), "as-image").returncode == 0
    assert busybox("volume", "import", "to", str(archive), check=False).returncode == 1
    busybox("volume", "create", "to")
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    outside.chmod(0o777)
    plant = f"echo old >/d/old; mkdir /d/a; ln -s {outside} /d/a/b; echo x >/d/hard"
    busybox("run", "--rm", "--network=none", "-v", "to:/d", "busybox", "sh", "-c", plant)
    busybox("volume", "import", "to", str(archive))
    look = "cd /d; find . | sort; stat -c '%a %Y %h' hard; cat a/l/f old"
    shown = busybox("run", "--rm", "--network=none", "-v", "to:/d", "busybox", "sh", "-c", look).stdout
    assert shown.split() == [
        *(".", "./a", "./a/b", "./a/b/f", "./a/l", "./hard", "./old"),
        *("640", "1000000000", "2", "one", "old"),
    ]
    assert list(outside.iterdir()) == []
    for words in (("export", "nowhere"), ("import", "nowhere", str(archive)), ("import", "to", str(tmp_path / "no"))):
        done = busybox("volume", *words, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    refused = busybox("volume", "import", "to", input=b"this is no archive" * 100, check=False)
    assert refused.returncode == 1 and "cannot import standard input into volume 'to'" in refused.stderr
    assert busybox("volume", "import", "to", "-", input=b"\0" * 1024).returncode == 0
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/nowhere"
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("link/file"))
    failed = busybox("volume", "import", "to", input=packed.getvalue(), check=False).stderr
    assert failed == "rootless: cannot import into volume 'to': 'link': No such file or directory\n"
    busybox("rmi", "as-image")
    busybox("volume", "rm", "from", "to")


@pytest.mark.once
def test_wait_for_a_state(busybox: Runner) -> None:
    """One state of several is enough; -1 is printed for a container that has not ended, as podman does."""
    script = "until test -e /end; do sleep 0.1; done; exit 7"
    made = busybox("create", "--name", "awaited", "--network=none", "busybox", "sh", "-c", script)
    assert busybox("wait", "--condition", "created", "awaited").stdout == "-1\n"
    busybox("start", "awaited")
    assert busybox("wait", "--condition=paused", "--condition=running", made.stdout.strip()).stdout == "-1\n"
    busybox("exec", "awaited", "touch", "/end")
    assert busybox("wait", "--condition=exited", "awaited").stdout == "7\n"
    assert busybox("wait", "--condition=stopped", "--condition=healthy", "awaited").stdout == "7\n"
    mixed = busybox("wait", "--condition=removed", "--condition=running", "awaited", check=False)
    assert (mixed.returncode, "exclude each other" in mixed.stderr) == (125, True)
    busybox("run", "-d", "--rm", "--name", "brief", "--network=none", "busybox", "sh", "-c", "sleep 4; exit 4")
    assert busybox("wait", "--condition=exited", "brief").stdout == "4\n"
    busybox("rm", "awaited")


@pytest.mark.once
def test_one_platform_of_an_index(busybox: Runner, tmp_path: Path) -> None:
    archive = tmp_path / "empty.tar"
    archive.write_bytes(bytes(1024))
    for architecture in ("amd64", "arm64"):
        busybox("import", "--platform", f"linux/{architecture}", str(archive), f"part:{architecture}")
    busybox("manifest", "create", "both", "part:amd64", "part:arm64")
    for form in ("docker-archive", "oci-archive"):
        saved = str(tmp_path / form)
        busybox("save", "--platform", "linux/arm64", "--format", form, "-o", saved, "both")
        shown = busybox("--root", str(tmp_path / f"store-{form}"), "load", "-q", "-i", saved)
        assert shown.stdout == "Loaded image: both:latest\n"
        words = ("inspect", "-f", "{{.Architecture}}", "both")
        assert busybox("--root", str(tmp_path / f"store-{form}"), *words).stdout == "arm64\n"
    for wrong, name in (("linux/s390x", "both"), ("linux/arm64", "part:amd64")):
        for verb in (("save", "-o", str(tmp_path / "none")), ("rmi",), ("push",)):
            done = busybox(*verb, "--platform", wrong, name, check=False)
            assert (done.returncode, "platform" in done.stderr, done.stderr.count("\n")) == (1, True, 1)
    assert "none can be removed alone" in busybox("rmi", "--platform", "linux/arm64", "both", check=False).stderr
    assert busybox("rmi", "--platform", "linux/arm64", "part:arm64").stdout.startswith("Untagged: part:arm64")
    busybox("rmi", "both", "part:amd64")
