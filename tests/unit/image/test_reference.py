"""References: docker's grammar, and that no text whatever breaks the parser in another way than UsageError."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import UsageError
from rootless.image.reference import Reference, is_short, parse_reference

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("debian", "docker.io/library/debian:latest", "debian:latest"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("docker.io/my.org/x", "docker.io/my.org/x:latest", "docker.io/my.org/x:latest"),
        ("index.docker.io/library/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("library/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/a/b:v1", "localhost:5000/a/b:v1", "localhost:5000/a/b:v1"),
        ("ghcr.io/a/b__c/d-e.f:T_1.x-y", "ghcr.io/a/b__c/d-e.f:T_1.x-y", "ghcr.io/a/b__c/d-e.f:T_1.x-y"),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
        (f"debian@{DIGEST}", f"docker.io/library/debian@{DIGEST}", f"debian@{DIGEST}"),
        (f"debian:12@{DIGEST}", f"docker.io/library/debian:12@{DIGEST}", f"debian:12@{DIGEST}"),
    ],
)
def test_names_as_docker_reads_them(text: str, full: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert (str(reference), reference.familiar()) == (full, familiar)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "@",
        "/",
        "a//b",
        "-a",
        "a..b",
        "a___b",
        "Upper",
        "a:",
        "a:-tag",
        "a:" + "t" * 129,
        "a@sha256:short",
        "a@" + DIGEST.upper(),
        "a@md5",
        "a b",
        "a\n",
        "a\0",
        "../x",
        "x/../y",
        "é",
        "docker.io/" + "a" * 250,
        "a" * 64,
        "http://x/y",
    ],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(UsageError):
        parse_reference(text)


def test_short_names() -> None:
    assert is_short("debian") and is_short("me/app:1")
    assert not is_short("localhost/x") and not is_short("a.b/c") and not is_short("a:5000/c")


@given(st.text(max_size=80))
def test_any_text_is_a_reference_or_a_usage_error(text: str) -> None:
    try:
        reference = parse_reference(text)
    except UsageError:
        return
    assert parse_reference(str(reference)) == reference
    assert parse_reference(reference.familiar()) == reference


_component = st.from_regex(r"\A[a-z0-9]+([._-][a-z0-9]+){0,2}\Z")


@given(
    st.sampled_from(["docker.io", "localhost", "ghcr.io", "a.b:5000", "127.0.0.1:80"]),
    st.lists(_component, min_size=1, max_size=3),
    st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}\Z"),
)
def test_what_is_built_from_the_grammar_comes_back(registry: str, parts: list[str], tag: str) -> None:
    repository = "/".join(parts)
    reference = parse_reference(f"{registry}/{repository}:{tag}")
    assert (reference.registry, reference.tag) == (registry, tag)
    assert reference.repository.removeprefix("library/") == repository.removeprefix("library/")
    assert reference == Reference(reference.registry, reference.repository, tag, None)
