"""Which files a COPY takes, what their digest is of, where WORKDIR and --chmod lead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rootless.builder.context.context_files import clean_path, matches, skip_nothing, walk
from rootless.builder.context.contexts import Context, is_git, is_url
from rootless.builder.context.digests import Known
from rootless.builder.context.ignore import Exclusions, all_matches
from rootless.builder.dockerfile.instructions import Add, Copy
from rootless.builder.dockerfile.modes import parse_chmod
from rootless.builder.dockerfile.parser import parse
from rootless.builder.steps.taking import check_flags
from rootless.errors import InvalidInput, NotFound, UsageError


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("ADD --checksum=sha256:00 file /", "--checksum is for one source, which is a URL or a git repository"),
        ("ADD --checksum=sha256:00 http://a/b http://a/c /d/", "--checksum is for one source"),
        ("ADD --checksum=sha256:00 <<E /\nE", "--checksum is for one source"),
        ("ADD --keep-git-dir http://a/b file /", "--keep-git-dir is for git repositories"),
        ("ADD --unpack http://a/b.git /", "--unpack is for files and URLs"),
        ("ADD --exclude=a <<E /\nE", "--exclude has no meaning for a heredoc"),
        ("COPY --from=a <<E /\nE", "--from has no meaning for a heredoc"),
        ("COPY --parents <<E /\nE", "--parents has no meaning for a heredoc"),
    ],
)
def test_flags_that_no_source_could_obey_are_refused(line: str, problem: str) -> None:
    (instruction,) = parse(f"FROM a\n{line}\n").stages[0].instructions
    assert isinstance(instruction, Copy | Add)
    with pytest.raises(UsageError, match=problem):
        check_flags(instruction)


@pytest.mark.parametrize(
    "line",
    [
        "ADD --checksum=sha256:00 http://a/b /",
        "ADD --checksum=00 --keep-git-dir http://a/b.git /",
        "ADD --unpack --exclude=a http://a/b.git file /d/",
        "ADD --keep-git-dir=false --unpack=false file /",
        "COPY --from=a --parents --exclude=b c <<E /\nE",
    ],
)
def test_flags_that_a_source_obeys_are_taken(line: str) -> None:
    (instruction,) = parse(f"FROM a\n{line}\n").stages[0].instructions
    assert isinstance(instruction, Copy | Add)
    check_flags(instruction)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.txt", "b.txt", "c.md", "dir/x.txt", "dir/sub/y.txt", "other/sub/z.txt"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "root/link").symlink_to("dir")
    (tmp_path / "root/out").symlink_to("/etc")
    (tmp_path / "root/up").symlink_to("../../../../etc/passwd")
    (tmp_path / "outside").write_text("x")
    return tmp_path / "root"


def found(tree: Path, *sources: str, ignore: str = "", exclude: tuple[str, ...] = ()) -> list[tuple[str, str, bool]]:
    root = os.open(tree, os.O_RDONLY)
    try:
        return [(m.path, m.name, m.is_directory) for m in all_matches(root, sources, Exclusions(ignore, exclude))]
    finally:
        os.close(root)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [("/a//b/./c/", "a/b/c"), ("../../x", "x"), ("a/../../b", "b"), (".", ""), ("/", ""), ("a/..", "")],
)
def test_clean_never_leaves_the_root(path: str, wanted: str) -> None:
    assert clean_path(path) == wanted


def test_plain_sources_and_links_are_resolved_inside(tree: Path) -> None:
    """TRAPS CVE-2024-1753: a link of the context to a path of the host is looked up inside of the context."""
    assert found(tree, "a.txt") == [("a.txt", "a.txt", False)]
    assert found(tree, "link") == [("dir", "link", True)]
    assert found(tree, "link/sub") == [("dir/sub", "sub", True)]
    assert found(tree, "../a.txt") == [("a.txt", "a.txt", False)]
    assert found(tree, ".") == [("", "", True)]
    for source in ("out", "out/passwd", "up", "../outside", "none"):
        with pytest.raises(NotFound):
            found(tree, source)


def test_wildcards_as_go_has_them(tree: Path) -> None:
    def names(source: str) -> list[str]:
        return [path for path, _, _ in found(tree, source)]

    assert names("*.txt") == ["a.txt", "b.txt"]
    assert names("[a-b].txt") == ["a.txt", "b.txt"]
    assert names("[^a].txt") == ["b.txt"]
    assert names("?.md") == ["c.md"]
    assert names("*/sub/*") == ["dir/sub/y.txt", "dir/sub/y.txt", "other/sub/z.txt"]  # dir, and link to it
    assert names("d\\ir/x.txt") == ["dir/x.txt"]
    assert names("*.none") == names("dir/*.none") == names("**/none/*") == []
    for missing in ("none/*.txt", "dir/none/*"):
        with pytest.raises(NotFound, match="none': no such file"):
            names(missing)
    with pytest.raises(NotFound, match="leaves it out"):
        found(tree, "dir/*.txt", ignore="dir")
    assert found(tree, "dir/*.txt", ignore="dir\n!dir/x.txt") == [("dir/x.txt", "x.txt", False)]
    assert [path for path, _, _ in found(tree, "a.txt", "*.none")] == ["a.txt"]
    for bad in ("[a", "a\\"):
        with pytest.raises(InvalidInput):
            names(bad)


def test_the_part_that_parents_keeps(tree: Path) -> None:
    root = os.open(tree, os.O_RDONLY)
    try:

        def under(source: str) -> list[str]:
            return [match.under for match in matches(root, source, skip_nothing)]

        assert under("dir/sub/y.txt") == ["dir/sub/y.txt"]
        assert under("dir/./sub/y.txt") == ["sub/y.txt"]
        assert under("./dir/sub") == ["dir/sub"]
        assert under("*/./sub/*.txt")[-1] == "sub/z.txt"
    finally:
        os.close(root)


def test_what_is_left_out(tree: Path) -> None:
    with pytest.raises(NotFound, match="dockerignore"):
        found(tree, "c.md", ignore="*.md\n")
    with pytest.raises(NotFound):
        found(tree, "c.md", exclude=("*.md",))
    root = os.open(tree, os.O_RDONLY)
    try:
        exclusions = Exclusions("dir\n!dir/sub\n", ("b.txt",))
        (match,) = all_matches(root, ["."], exclusions)
        skip, may_hold = exclusions.below(match)
        seen = [(node.path, node.is_implied) for node in walk(root, match.path, skip, may_hold=may_hold)]
    finally:
        os.close(root)
    assert ("dir", True) in seen and ("dir/sub/y.txt", False) in seen
    assert not {"dir/x.txt", "b.txt"} & {path for path, _ in seen}


def digest(tree: Path, known: Known | None = None) -> str:
    return Context(str(tree)).digest(["."], (), known or Known(None), wildcards=True).hexdigest


def test_a_digest_is_of_content_and_mode_and_not_of_times(tree: Path) -> None:
    first = digest(tree)
    os.utime(tree / "a.txt", (1, 1))
    assert digest(tree) == first
    (tree / "a.txt").chmod(0o600)
    changed = digest(tree)
    assert changed != first
    (tree / "a.txt").write_text("other")
    assert digest(tree) != changed
    other = digest(tree)
    (tree / "a.txt").rename(tree / "aa.txt")
    assert digest(tree) != other


def test_known_contents_are_not_read_again_unless_they_may_have_changed(tree: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "known.json")
    old = os.stat(tree / "a.txt").st_ctime_ns
    first = digest(tree, Known(path))
    known = Known(path)
    assert digest(tree, known) == first
    known.save()
    # same size and times as before, but the ctime tells
    (tree / "a.txt").write_text("A.TXT")
    os.utime(tree / "a.txt", ns=(old, old))
    assert digest(tree, Known(path)) != first


@pytest.mark.parametrize(
    ("text", "mode", "directory", "wanted"),
    [
        ("755", 0o600, False, 0o755),
        ("0644", 0o777, True, 0o644),
        ("4755", 0, False, 0o4755),
        ("u+x", 0o644, False, 0o744),
        ("go-w,a+X", 0o666, True, 0o755),
        ("a+X", 0o644, False, 0o644),
        ("u=rwX,go=", 0o777, False, 0o700),
        ("g=u", 0o740, False, 0o770),
        ("+t", 0o755, True, 0o1755),
        ("u+s", 0o755, False, 0o4755),
        ("=r", 0o777, False, 0o444),
    ],
)
def test_chmod(text: str, mode: int, directory: bool, wanted: int) -> None:
    assert oct(parse_chmod(text)(mode, directory)) == oct(wanted)


@pytest.mark.parametrize("text", ["", "8", "99999", "u", "x+w", "u+q", "rwx"])
def test_bad_modes(text: str) -> None:
    with pytest.raises(UsageError):
        parse_chmod(text)


def test_urls() -> None:
    for text in ("https://h/x.git", "https://h/x.git#main:sub", "git@h:x", "git://h/x", "ssh://h/x", "http://h/x.git/"):
        assert is_git(text) and not is_url(text), text
    for text in ("https://h/x.tar", "http://h/x.github/y", "https://h/a?b=x.git"):
        assert is_url(text) and not is_git(text), text
    for text in ("x.git", "./x", "/x", "file"):
        assert not is_git(text) and not is_url(text), text
