"""Words that podman and later versions of docker have beside docker's first ones: `exists`, --all, --noheading, ..."""

from __future__ import annotations

import pytest

from tests.conftest import Runner


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
