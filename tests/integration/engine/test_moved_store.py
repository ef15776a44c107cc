"""A store that was moved, or whose home has another mount path: everything in it goes on working."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Runner, make_private_directory, make_runner, remove_private_directory, require

NONE = "--network=none"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory for the homes, in each of which the store lies where it lies without --root."""
    require(Path("/bin/busybox").exists(), "no /bin/busybox on this host (apt-get install busybox-static)")
    directory = make_private_directory("v")
    yield directory
    for home in directory.iterdir():
        run = at_home(home)
        if names := run("ps", "-aq", check=False).stdout.split():
            run("rm", "-f", *names, check=False)
    remove_private_directory(directory)


def at_home(home: Path) -> Runner:
    """Run `rootless ARGS...` for a user whose home is `home`."""
    run = make_runner(home)

    def at(*arguments: str, check: bool = True) -> object:
        return run(*arguments, check=check, env={"HOME": str(home), "ROOTLESS_ROOT": ""})

    return at


@pytest.mark.parametrize("old_place", ["empty", "another store"])
def test_a_moved_home(place: Path, old_place: str) -> None:
    before, after = place / "before", place / "after"
    before.mkdir(mode=0o700)
    run = at_home(before)
    run("image", "bootstrap", "busybox")
    count = "echo one >> /data/count; cat /data/count; ls /kept; echo x >> /kept/file; : > /own"
    run("run", "--name", "counts", NONE, "-v", "data:/data", "-v", "/kept", "busybox", "sh", "-c", count)
    run("run", "-d", "--name", "up", "--init", NONE, "busybox", "sh", "-c", "echo up; exec sleep 300")
    run("create", "--rm", "--name", "short", NONE, "-v", "/gone", "busybox", "echo", "short")
    run("create", "--name", "joins", "--network=container:up", "busybox", "cat", "/etc/hostname")
    run("create", "--name", "images", NONE, "--mount", "type=image,source=busybox,target=/i", "busybox", "ls", "/i/bin")
    context = place.parent / f"{place.name}-context"
    context.mkdir(exist_ok=True)
    try:
        (context / "Dockerfile").write_text("FROM busybox\nRUN echo built > /built\n")
        run("build", "-t", "built", "--network=none", str(context))
        run("stop", "-t", "1", "up")
        before.rename(after)
        if old_place == "another store":
            before.mkdir(mode=0o700)
            at_home(before)("ps")
        run = at_home(after)
        run("system", "check")
        assert run("logs", "counts").stdout == "one\n"
        assert run("logs", "up").stdout == "up\n"
        for name, mounts in (("counts", 2), ("up", 0)):
            shown = json.loads(run("inspect", name).stdout)[0]
            paths = [shown["LogPath"], shown["HostsPath"], *(mount["Source"] for mount in shown["Mounts"])]
            assert len(paths) == 2 + mounts and all(path.startswith(str(after)) for path in paths), paths
            assert all(os.path.exists(path) for path in paths)
        run("rename", "counts", "again")
        run("rename", "again", "counts")
        run("update", "--restart", "on-failure:1", "images")
        run("volume", "prune", "-af")
        assert len(run("volume", "ls", "-q").stdout.split()) == 3
        assert run("diff", "counts").stdout == "A /own\n"
        run("cp", "counts:/data/count", str(context / "copied"))
        assert (context / "copied").read_text() == "one\n"
        assert run("start", "-a", "counts").stdout == "one\none\nfile\n"
        assert run("logs", "counts").stdout == "one\none\none\nfile\n"
        run("start", "up")
        assert run("exec", "up", "echo", "in").stdout == "in\n"
        assert run("start", "-a", "joins").stdout == run("exec", "up", "hostname").stdout
        assert "busybox" in run("start", "-a", "images").stdout
        assert run("start", "-a", "short").stdout == "short\n"
        assert "short" not in run("ps", "-a").stdout
        assert len(run("volume", "ls", "-q").stdout.split()) == 2
        again = run("build", "-t", "built", "--network=none", str(context))
        assert again.stderr.count(" CACHED\n") == 1
        run("system", "check")
        run("restart", "-t", "0", "up")
        data = after / ".local/share/rootless"
        run("rm", "-f", "counts", "up", "joins", "images")
        assert not os.listdir(data / "containers") and not os.listdir(data / "names")
        if old_place == "empty":
            assert not before.exists(), "something was written to the old place"
        assert str(before) not in run("events", "--since", "1h", "--until", "0s").stdout
    finally:
        remove_private_directory(context)
