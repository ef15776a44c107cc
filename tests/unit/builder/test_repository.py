"""Addresses of git repositories, and the files of the commits that they mean."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rootless.builder.context.repository import Repository, clone
from rootless.errors import DigestMismatch, RegistryError, UsageError
from tests.conftest import require

URL = "https://host.test/a/b.git"


@pytest.mark.parametrize(
    ("tail", "wanted"),
    [
        ("", {}),
        ("#v1", {"reference": "v1"}),
        ("#:sub/dir", {"subdirectory": "sub/dir"}),
        ("?ref=v1&subdir=sub", {"reference": "v1", "subdirectory": "sub"}),
        ("?tag=v1", {"reference": "refs/tags/v1"}),
        ("?tag=refs/tags/v1", {"reference": "refs/tags/v1"}),
        ("?branch=a/b%26c", {"reference": "refs/heads/a/b&c"}),
        ("?commit=abc1234", {"reference": "abc1234", "checksum": "abc1234"}),
        ("?branch=main&checksum=abc1234", {"reference": "refs/heads/main", "checksum": "abc1234"}),
        ("?ref=v1#v1:sub", {"reference": "v1", "subdirectory": "sub"}),
        ("?keep-git-dir", {"keeps_git_dir": True}),
        ("?keep-git-dir=0&submodules=false", {"keeps_git_dir": False, "has_submodules": False}),
    ],
)
def test_what_an_address_asks_for(tail: str, wanted: dict[str, object]) -> None:
    found = Repository.parse(URL + tail)
    assert found == Repository(URL + tail, URL)._replace(**wanted)
    scp = Repository.parse(f"git@host.test:a/b.git{tail}")
    assert scp == Repository(f"git@host.test:a/b.git{tail}", "git@host.test:a/b.git")._replace(**wanted)


@pytest.mark.parametrize(
    ("tail", "problem"),
    [
        ("?reff=v1", r"unknown key 'reff' \(did you mean ref\?\)"),
        ("?ref=a&ref=b", "'ref' is given twice"),
        ("?ref=", "'ref' has no value"),
        ("?ref=a#b", "more than one reference: 'b' and 'a'"),
        ("?tag=a&branch=a", "more than one reference"),
        ("?subdir=a#:b", "more than one directory"),
        ("?commit=aaaaaaa&checksum=bbbbbbb", "more than one commit"),
        ("?keep-git-dir=perhaps", "'keep-git-dir' is true or false"),
        ("?ref=-x", "cannot be a git reference"),
    ],
)
def test_addresses_that_contradict_themselves(tail: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        Repository.parse(URL + tail)


def test_flags_of_add_and_the_address_agree() -> None:
    plain, kept = Repository.parse(URL), Repository.parse(f"{URL}?keep-git-dir=1&commit=abcdef0")
    assert plain.with_flags("abcdef0", True)[4:6] == kept.with_flags("", None)[4:6] == ("abcdef0", True)
    assert plain.with_flags("", None).keeps_git_dir is None
    with pytest.raises(UsageError, match="contradict"):
        kept.with_flags("", False)
    with pytest.raises(UsageError, match="more than one commit"):
        kept.with_flags("1234567", None)


@pytest.fixture(params=["sha1", "sha256"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, str]]:
    """(URL, object ids by name) of a repository whose files hold the name of their commit: a tag v1, one commit after
    it on `main`, and a branch that is named like the tag."""
    require(shutil.which("git"), "no git on this host (apt-get install git)")
    work = tmp_path / "work"
    work.mkdir()
    (work / "sub").mkdir()
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*arguments: str) -> str:
        options = ["-c", "user.name=n", "-c", "user.email=e@example.test"]
        done = subprocess.run(["git", *options, *arguments], cwd=work, env=environment, check=True, capture_output=True)
        return done.stdout.decode().strip()

    git("init", "-q", "-b", "main", f"--object-format={request.param}")
    ids = {}
    for name in ("one", "two", "other"):
        if name == "other":
            git("checkout", "-q", "-b", "v1", ids["one"])
        (work / "sub/file").write_text(name)
        git("add", ".")
        git("commit", "-q", "-m", name)
        ids[name] = git("rev-parse", "HEAD")
        if name == "one":
            git("tag", "-a", "-m", "tagged", "v1")
            ids["tag"] = git("rev-parse", "refs/tags/v1")
    git("checkout", "-q", "main")
    return f"file://{work}", ids


def fetched(url: str, directory: Path, tail: str) -> str:
    """What the file of the fetched commit holds, and whether .git came too."""
    source = Repository.parse(f"{URL}{tail}")._replace(url=url)
    directory.mkdir()
    found = clone(source, str(directory), lambda _: None)
    file = directory / ("file" if source.subdirectory else "sub/file")
    assert (directory / ".git").is_dir() == bool(source.keeps_git_dir)
    assert found.newest == int(file.stat().st_mtime) > 0
    return file.read_text()


@pytest.mark.parametrize(
    ("tail", "wanted"),
    [
        ("", "two"),
        ("#main:sub", "two"),
        ("?tag=v1&keep-git-dir=true", "one"),
        ("?branch=v1&subdir=sub", "other"),
        ("?commit={one}", "one"),
        ("?commit={one:.9}", "one"),
        ("?tag=v1&commit={tag:.9}&submodules=0", "one"),
    ],
)
def test_files_of_the_commit_that_is_meant(
    repository: tuple[str, dict[str, str]], tmp_path: Path, tail: str, wanted: str
) -> None:
    url, ids = repository
    assert fetched(url, tmp_path / "files", tail.format(**ids)) == wanted


def test_another_commit_than_is_asked_for(repository: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    url, ids = repository
    with pytest.raises(DigestMismatch, match=f"at commit {ids['two']}"):
        fetched(url, tmp_path / "files", f"?branch=main&commit={ids['one']}")
    with pytest.raises(RegistryError, match="none"):
        fetched(url, tmp_path / "more", "#none")
    with pytest.raises(RegistryError, match="no branch or tag has the commit '0000000'"):
        fetched(url, tmp_path / "digits", "?commit=0000000")
