"""One damaged file: it is told in a line, everything else goes on, and it can be repaired or removed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Runner, make_private_directory, make_runner, owns_range, remove_private_directory, require

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    require(Path("/bin/busybox").exists(), "no /bin/busybox on this host (apt-get install busybox-static)")
    root = make_private_directory("d")
    make_runner(root)("image", "bootstrap", "busybox")
    yield root
    remove_private_directory(root)


@pytest.fixture
def run(root: Path) -> Iterator[Runner]:
    """With a container `bad`, to be damaged, and `good`; both have run and are to be started after boot."""
    run = make_runner(root)
    for name in ("bad", "good"):
        words = ("run", "-d", "--name", name, "--restart=always", "--network=none", "-v", f"{name}:/v")
        run(*words, "busybox", "sh", "-c", "echo hello >/file; exec sleep 1000")
    run("stop", "-t", "0", "bad", "good")
    yield run
    run("rm", "-f", "bad", "good", check=False)
    run("volume", "rm", "-f", "bad", "good", check=False)
    run("system", "prune", "-f")


def directory(root: Path, name: str) -> Path:
    return root / "containers" / (root / "names" / name).read_text().strip()


def _names(run: Runner) -> set[str]:
    return set(run("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split())


CONTENTS = (b"", b"{", b"[]", bytes(300), b'{"name": 7}')
BYSTANDERS = (["images"], ["volume", "ls"], ["system", "df"], ["volume", "prune", "-af"], ["image", "prune", "-f"])


def look_past(run: Runner, root: Path, file: str) -> None:
    """What only looks, and what tidies up: it shows the other container and takes nothing of this one's."""
    listed = run("ps", "-a", "--format", "{{.Names}}")
    assert "good" in listed.stdout
    if file == "record.json":
        assert len(listed.stderr.splitlines()) == 1
        assert "is left out" in listed.stderr
        run("volume", "prune", "-af")
        assert (root / "volumes/bad/_data").is_dir()


@pytest.mark.parametrize("file", ["record.json", "state.json", "launch.json", "config.json"])
def test_a_damaged_file_of_a_container_stops_nothing_else(run: Runner, root: Path, file: str) -> None:
    container = directory(root, "bad")
    for content in CONTENTS:
        (container / file).write_bytes(content)
        look_past(run, root, file)
        if file != "state.json" or content[:2] != b'{"':
            checked = run("system", "check", check=False)
            assert checked.returncode, (content, checked.stdout)
    for words in BYSTANDERS:
        run(*words)
    assert (root / "volumes/bad/_data").is_dir()
    booted = run("start", "--after-boot", check=False)
    assert "good" in booted.stdout, booted.stderr
    # only the first of these containers has run; that rm reads anything of the others is the same for each content
    for content in CONTENTS if file == "record.json" else CONTENTS[::4]:
        (directory(root, "bad") / file).write_bytes(content)
        run("rm", "-f", "bad")
        assert run("ps", "-a", "--format", "{{.Names}}").stdout == "good\n"
        run("create", "--name=bad", "--network=none", "-v", "bad:/v", "busybox", "true")
    run("system", "check")


def test_repair_keeps_what_a_container_without_record_has_written(run: Runner, root: Path) -> None:
    container = directory(root, "bad")
    (container / "record.json").write_bytes(b"")
    (directory(root, "good") / "state.json").write_bytes(b"")
    repaired = run("system", "check", "--repair", check=False)
    assert "quarantine" in repaired.stdout, repaired.stdout
    assert (root / f"quarantine/container-{container.name}/upper/file").exists()
    run("image", "prune", "-f")
    assert (root / f"quarantine/container-{container.name}/upper/file").exists()
    run("system", "check")
    assert run("inspect", "good", "--format", "{{.State.ExitCode}}").stdout == "137\n"


def test_an_index_is_made_again_with_its_names(run: Runner, root: Path) -> None:
    run("tag", "busybox", "my/name:1")
    before = _names(run)
    for damage in (b"", b"{}", b'{"manifests": [{}]}'):
        (root / "index.json").write_bytes(damage)
        failed = run("images", check=False)
        assert "system check --repair" in failed.stderr
        run("ps", "-a")
        run("container", "prune", "-f", "--filter", "label=none")
        run("system", "check", "--repair", check=False)
        assert _names(run) == {"busybox:latest", "my/name:1"} & before
    run("rmi", "my/name:1")


def test_an_image_without_manifest_can_be_removed(run: Runner, root: Path) -> None:
    archive = shutil.make_archive(str(root / "small"), "tar", root / "names")
    image = run("import", archive, "small:1").stdout.strip()
    Path(archive).unlink()
    digest = next(
        blob.name for blob in (root / "blobs/sha256").iterdir() if image.encode() in blob.read_bytes()
    )  # its manifest names the config
    (root / "blobs/sha256" / digest).unlink()
    assert "damaged" in run("images").stderr
    run("rmi", f"sha256:{digest}")
    assert run("images").stderr == ""
    run("system", "check")


def test_a_lost_directory_is_made_again(run: Runner, root: Path) -> None:
    parts = ("trash", "incoming", "locks", "names")
    for words in (["ps", "-a"], ["run", "--rm", "--network=none", "busybox", "true"], ["rm", "-f", "bad"]):
        for part in parts:
            shutil.rmtree(root / part)
        run(*words)
        assert all((root / part).is_dir() for part in parts)
    assert run("ps", "-a", "--format", "{{.Names}}").stdout == "good\n"
    run("system", "prune", "-f")
    run("system", "check")


def test_an_empty_version_is_damage(root: Path) -> None:
    for content in (b"", b"\0\0"):
        (root / "version").write_bytes(content)
        assert "busybox" in make_runner(root)("images").stdout
        assert (root / "version").read_bytes() == b"1\n"


OPTIONS = {
    "first": ("-e", "K=v", "-v", "named:/n", "-v", "/anonymous", "--label=a=b", "--hostname=hh", "--cap-drop=all",
              "--restart=on-failure:2", "--health-cmd=true", "--network=none", "--add-host=far:10.0.0.1"),
    "second": ("--read-only", "--tmpfs=/t", "--user=0", "--network=host", "-v", "/tmp:/host:ro", "--log-driver=none"),
    "third": ("-p", "18080:80", "--ulimit=nofile=64:64", "--stop-timeout=3", "-i", "--init", "--storage-driver=copy"),
    "fourth": ("--userns=keep-id", "--network=none", "--volumes-from=good"),
}  # fmt: skip
FILES = ("config.json", "launch.json", "hosts", "hostname", "resolv.conf")


def _contents(container: Path) -> list[Any]:
    return [json.loads((container / name).read_text()) if name.endswith(".json") else (container / name).read_text()
            for name in FILES]  # fmt: skip


def test_damaged_files_are_made_again_from_the_record_as_they_were(run: Runner, root: Path) -> None:
    names = [name for name in OPTIONS if name != "fourth" or owns_range()]
    for name in names:
        run("create", "--name", name, *OPTIONS[name], "busybox", "echo", "alive")
    run("rename", "first", "renamed")
    run("update", "--restart=no", "renamed")
    names[0] = "renamed"
    before = {name: _contents(directory(root, name)) for name in names}
    for name in names:
        for file in FILES:
            (directory(root, name) / file).write_bytes(b"")
    (directory(root, "second") / "launch.json").unlink()
    (directory(root, "third") / "resolv.conf").unlink()
    assert run("system", "check", check=False).returncode == 1
    repaired = run("system", "check", "--repair").stdout
    assert "made again from its record" in repaired
    # when the layers were copied is not known any more: what the container has changed is found by comparing all
    del before["third"][1]["rootfs"]["copied"]
    assert {name: _contents(directory(root, name)) for name in names} == before
    assert run("start", "-a", "renamed").stdout == "alive\n"
    run("system", "check")
    run("rm", "-f", *names)
    run("volume", "rm", "named")


def test_a_file_that_would_not_be_what_it_was_is_not_made(run: Runner, root: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    words = ("--network=none", "-e", "GIVEN", "-v", f"{source}:/s", "busybox", "true")
    run("create", "--name=lost", *words, env={"GIVEN": "before"})
    container = directory(root, "lost")
    config = (container / "config.json").read_bytes()
    (container / "config.json").write_bytes(b"{")
    source.rmdir()
    told = run("system", "check", "--repair", check=False)
    assert told.returncode == 1
    assert f"mkdir -p {source}" in told.stdout
    assert f"{container}/upper" in told.stdout
    source.mkdir()
    assert "GIVEN=… rootless system check --repair" in run("system", "check", "--repair", check=False).stdout
    assert (container / "config.json").read_bytes() == b"{"
    (container / "launch.json").write_bytes(b"")  # this one needs no environment, and the other one still does
    run("system", "check", "--repair", check=False)
    assert "GIVEN of your environment" in run("system", "check", "--repair", env={"GIVEN": "before"}).stdout
    assert json.loads((container / "config.json").read_bytes()) == json.loads(config)
    run("rm", "lost")


def test_a_damaged_seccomp_filter_is_made_again(run: Runner, root: Path) -> None:
    """The cache is not synced: a power cut after the first `create` of a host leaves empty files in it."""
    for path in (root / "cache/seccomp").iterdir():
        path.write_bytes(b"")
    assert run("start", "good").stdout == "good\n"
    run("stop", "-t", "0", "good")


def test_reset_understands_nothing(store_root: Path) -> None:
    run = make_runner(store_root)
    run("volume", "create", "v")
    run("image", "bootstrap", "busybox")
    run("create", "--name", "c", "busybox", "true")
    for file in store_root.rglob("*"):
        if file.is_file() and not file.is_symlink() and "diff" not in file.parts:
            file.chmod(0o600)
            file.write_bytes(b"\0damaged")
    run("system", "reset", "-f")
    assert not store_root.exists() or not list(store_root.iterdir())
    store_root.mkdir(exist_ok=True)
