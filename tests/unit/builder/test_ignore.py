"""`.dockerignore`: docker's documented examples, and a slow reference made of one regular expression per pattern."""

from __future__ import annotations

import posixpath
import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rootless.builder.context import wildcard
from rootless.builder.context.contexts import choose_file
from rootless.builder.context.ignore import MAX_PATTERNS, Ignore
from rootless.builder.context.wildcard import Wildcard, has_wildcard
from rootless.builder.dockerfile.problems import DockerfileError, Place

PLACE = Place("Dockerfile", 1, 1, "COPY --exclude")


@pytest.mark.parametrize(
    ("patterns", "left_out", "kept"),
    [
        # the reference's own examples
        ("*/temp*", ["somedir/temporary.txt", "somedir/temp", "somedir/temp/x"], ["temp", "a/b/temp"]),
        ("*/*/temp*", ["a/b/temporary.txt"], ["a/temp", "a/b/c/temp"]),
        ("temp?", ["tempa", "tempb/x"], ["temp", "tempab", "a/tempa"]),
        ("*.md\n!README.md", ["a.md"], ["README.md", "x/a.md"]),
        ("*.md\n!README*.md\nREADME-secret.md", ["a.md", "README-secret.md"], ["README.md", "README-x.md"]),
        ("*.md\nREADME-secret.md\n!README*.md", ["a.md"], ["README.md", "README-secret.md"]),
        ("**/*.go", ["a.go", "x/y/a.go"], ["a.c"]),
        ("*", ["a", ".git", "a/b"], []),
        ("**", ["a", "a/b/c"], []),
        ("foo/bar", ["foo/bar", "foo/bar/x"], ["foo", "foo/barx", "bar"]),
        ("/foo/bar/", ["foo/bar", "foo/bar/x"], ["foo"]),
        ("./foo/../bar", ["bar"], ["foo"]),
        ("/", [], ["a"]),
        (".", [], ["a"]),
        ("foo/**", ["foo/a", "foo/a/b"], ["foo", "foob"]),
        ("foo**", ["foo", "foob", "foo/a"], ["afoo"]),
        ("**/foo", ["foo", "a/foo", "a/b/foo/c"], ["afoo"]),
        ("**foo", ["foo", "afoo", "a/bfoo"], ["foob"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb"]),
        ("**/node_modules/**", ["node_modules/x", "a/node_modules/b/c"], ["node_modules", "a"]),
        ("[a-c]x", ["ax", "bx"], ["dx", "x"]),
        ("[^a]x", ["bx"], ["ax"]),
        ("a\\*b", ["a*b"], ["axb"]),
        ("\\!a", ["!a"], ["a"]),
        ("\\#a", ["#a"], ["a"]),
        ("#a\n  b  \n\n", ["b"], ["#a", "a"]),
        ("A", ["A"], ["a"]),
        ("a.b", ["a.b"], ["axb"]),
        ("dir\n!dir/keep", ["dir", "dir/x"], ["dir/keep", "dir/keep/x"]),
        ("dir\n!dir/keep\ndir", ["dir/keep"], []),
        ("!a\na", ["a"], []),
        ("\ufeffa\r\nb\r\n", ["a", "b"], []),
    ],
)
def test_what_is_left_out(patterns: str, left_out: list[str], kept: list[str]) -> None:
    ignore = Ignore.parse(patterns)
    assert [path for path in left_out if not ignore.excludes(path)] == []
    assert [path for path in kept if ignore.excludes(path)] == []


def test_the_context_itself_is_never_left_out() -> None:
    assert not Ignore.parse("*\n**\n.").excludes(".") and not Ignore.parse("**").excludes("")


def test_bytes_that_are_no_text_compare_as_file_names_do() -> None:
    assert Ignore.parse(b"caf\xe9\n").excludes(b"caf\xe9".decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize(
    ("text", "why"),
    [("a\n[b", "'[' without ']'"), ("a\nb\\", "ends with a backslash"), ("a\n!", "takes nothing back in"),
     ("a\n[]b]", "stands alone"), ("a\n[a-]", "stands alone"), ("a\n" + "b" * 5000, "longer than")],
)  # fmt: skip
def test_malformed_patterns_are_errors_with_their_line(text: str, why: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        Ignore.parse(text)
    assert str(caught.value).startswith(".dockerignore:2: ") and why in str(caught.value)


def test_sizes_are_bounded() -> None:
    with pytest.raises(DockerfileError, match="larger than"):
        Ignore.parse(b"#" * (2 << 20))
    with pytest.raises(DockerfileError, match="more than"):
        Ignore.parse("a\n" * (MAX_PATTERNS + 1))


def test_hostile_patterns_end() -> None:
    """A backtracking search would not come back."""
    ignore = Ignore.parse("*a" * 300 + "b\n" + "**/a" * 300 + "\n!x")
    assert not ignore.excludes("a" * 250) and not ignore.excludes("b/" + "a" * 250)


def test_what_need_not_be_walked() -> None:
    ignore = Ignore.parse("node_modules\ndist\n!dist/keep/**\n!*/x\n")
    assert ignore.may_hold("dist") and ignore.may_hold("dist/keep/deep") and ignore.may_hold("node_modules")
    assert not ignore.may_hold("node_modules/a")
    assert not Ignore.parse("node_modules").may_hold("node_modules")


def test_exclude_flags() -> None:
    ignore = Ignore.of(["*.o", "/a/", "!keep.o"], PLACE)
    assert ignore.excludes("x.o") and ignore.excludes("a/b") and not ignore.excludes("keep.o")
    with pytest.raises(DockerfileError, match="Dockerfile:1"):
        Ignore.of(["["], PLACE)
    assert not Ignore.of([], PLACE)


def test_the_file_beside_the_dockerfile_goes_first() -> None:
    there = {"sub/app.Dockerfile.dockerignore", "ctx/.dockerignore"}
    assert choose_file("sub/app.Dockerfile", "ctx", there.__contains__) == "sub/app.Dockerfile.dockerignore"
    assert choose_file("sub/other", "ctx", there.__contains__) == "ctx/.dockerignore"
    assert choose_file("-", "ctx", there.__contains__) == "ctx/.dockerignore"
    assert choose_file("", "none", there.__contains__) is None


_NAMES = st.sampled_from(["a", "b", "ab", "a.b", "foo"])
_PATHS = st.lists(_NAMES, min_size=1, max_size=4).map("/".join)
_PATTERN = st.tuples(
    st.sampled_from(["", "", "", "!"]),
    st.lists(st.sampled_from(["a", "b", "*", "?", "**", "a*", "*b", "a.b", "[ab]", "[^b]", "f?o", "foo"]), min_size=1,
             max_size=4).map("/".join),
).map("".join)  # fmt: skip


def slow(patterns: list[str], path: str) -> bool:
    """The documented rule: the last pattern that matches the path or a directory above it decides."""
    result = False
    parts = path.split("/")
    prefixes = ["/".join(parts[: at + 1]) for at in range(len(parts))]
    for pattern in patterns:
        bare = posixpath.normpath(pattern.removeprefix("!"))
        source, at = "", 0
        while at < len(bare):
            if bare.startswith("**", at):
                at += 3 if bare.startswith("/", at + 2) else 2
                source += "(.*/)?" if at < len(bare) else ".*"
            elif bare[at] == "[":
                end = bare.index("]", at)
                source += bare[at : end + 1]
                at = end + 1
            else:
                source += {"*": "[^/]*", "?": "[^/]"}.get(bare[at], re.escape(bare[at]))
                at += 1
        if any(re.fullmatch(source, prefix) for prefix in prefixes):
            result = not pattern.startswith("!")
    return result


@given(st.lists(_PATTERN, max_size=6), st.lists(_PATHS, min_size=1, max_size=8))
@example(["a", "!a/b", "a"], ["a/b"])
@example(["**", "!a/**/b"], ["a/b", "a/a/b", "a"])
def test_as_the_slow_reference(patterns: list[str], paths: list[str]) -> None:
    ignore = Ignore.parse("\n".join(patterns))
    for path in paths:
        excluded = slow(patterns, path)
        assert ignore.excludes(path) == excluded, path
        above = posixpath.dirname(path)
        if above and not excluded and slow(patterns, above):
            assert ignore.may_hold(above)  # else a walk would never come to the path


@given(st.lists(_PATTERN, max_size=6), st.lists(_PATHS, min_size=1, max_size=8))
def test_the_order_of_questions_does_not_matter(patterns: list[str], paths: list[str]) -> None:
    ignore = Ignore.parse("\n".join(patterns))
    first = {path: ignore.excludes(path) for path in paths}
    assert {path: Ignore.parse("\n".join(patterns)).excludes(path) for path in reversed(paths)} == first


@given(st.text("ab*?/", max_size=10), st.text("ab/", max_size=10), st.booleans())
@example("**?", "aa", True)
def test_states_and_regular_expression_agree(pattern: str, name: str, is_docker: bool) -> None:
    """Patterns with many stars take another way; both must say the same."""
    plain = Wildcard(pattern, is_docker=is_docker)
    states = wildcard._States(wildcard.split(pattern, is_docker=is_docker))
    assert states.fullmatch(name) == plain.fullmatch(name)


@pytest.mark.parametrize(
    ("pattern", "name", "is_match"),
    [
        ("*", "a/b", False), ("a*", "abc", True), ("a*/b", "abc/b", True), ("a*b?c*x", "abxbbxdbxebxczzx", True),
        ("[-]", "-", None), ("[\\-]", "-", True), ("[\\-x]", "x", True), ("[a-b-c]", "a", None), ("[", "a", None),
        ("[^a-c]", "d", True), ("[]", "]", None), ("[\\]a]", "]", True), ("a\\", "a", None), ("a[", "x", None),
        ("***", "abc", True), ("[x-]", "x", None), ("[b-a]", "a", False), ("[^b-a]", "a", True), ("\\a", "a", True),
        ("?", "/", False), ("[[]", "[", True), ("[a&&b]", "&", True), ("[~|]", "|", True), ("ä?", "äö", True),
    ],
)  # fmt: skip
def test_gos_filepath_match(pattern: str, name: str, is_match: bool | None) -> None:
    if is_match is None:
        with pytest.raises(ValueError):
            Wildcard(pattern)
    else:
        assert Wildcard(pattern).fullmatch(name) is is_match


@given(st.text(max_size=30), st.text(max_size=30))
def test_arbitrary_text_matches_or_is_malformed(pattern: str, name: str) -> None:
    for is_docker in (False, True):
        try:
            found = Wildcard(pattern, is_docker=is_docker).fullmatch(name)
        except ValueError:
            continue
        if not has_wildcard(pattern):
            assert found == (pattern == name)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_rules_or_the_typed_error(content: bytes) -> None:
    try:
        ignore = Ignore.parse(content)
    except DockerfileError:
        return
    assert ignore.excludes("a/b") in (True, False)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("**/a**/a**/x", "a/" * 300 + "y"),
        ("*a*a*b", "a" * 255),
        ("**/*a*b", "/".join(["a" * 200] * 20)),
        ("**/*/x", "a/" * 300 + "y"),
        ("*a*" * 30 + "b", "a" * 255),
        ("**/*ac" * 9, "a/" * 300 + "b"),
    ],
)
def test_no_pattern_takes_more_than_a_moment(pattern: str, path: str) -> None:
    """Both come from a context that may be hostile; an expression that backtracks took minutes for the first."""
    began = time.process_time()
    for rules in (pattern, f"{pattern}\n!other"):
        assert not Ignore.parse(rules).excludes(path)
    assert time.process_time() - began < 2
