"""registries.conf: aliases, search registries, prefixes, mirrors, and the cache of its parsed form."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootless.errors import InvalidInput, RegistryError, UsageError
from rootless.image.distribution.shortnames import Endpoint, Registries, is_loopback, load_registries
from rootless.image.reference import parse_reference


def conf(tmp_path: Path, *texts: str) -> Registries:
    files = []
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}.conf"
        path.write_text(text)
        files.append(str(path))
    return load_registries(None, files)


def test_docker_io_when_nothing_is_configured(tmp_path: Path) -> None:
    reference, why = conf(tmp_path).qualify("debian:12")
    assert str(reference) == "docker.io/library/debian:12" and why is None


def test_an_alias_keeps_tag_and_says_so(tmp_path: Path) -> None:
    registries = conf(tmp_path, '[aliases]\n"fedora" = "registry.fedoraproject.org/fedora"\n"me/x" = "q.io/x"')
    reference, why = registries.qualify("fedora:40")
    assert str(reference) == "registry.fedoraproject.org/fedora:40" and why and "alias" in why
    assert str(registries.qualify("me/x")[0]) == "q.io/x:latest"
    assert str(registries.qualify("docker.io/library/fedora")[0]) == "docker.io/library/fedora:latest"


def test_search_registries(tmp_path: Path) -> None:
    one = conf(tmp_path, 'unqualified-search-registries = ["a.io"]')
    reference, why = one.qualify("x:1")
    assert str(reference) == "a.io/x:1" and why and "search" in why
    both = conf(tmp_path, 'unqualified-search-registries = ["a.io", "docker.io"]')
    reference, why = both.qualify("x")
    assert str(reference) == "docker.io/library/x:latest" and why and "docker.io" in why


def test_cve_2021_32635_no_guess_among_several(tmp_path: Path) -> None:
    registries = conf(tmp_path, 'unqualified-search-registries = ["a.io", "b.io"]')
    with pytest.raises(UsageError) as caught:
        registries.qualify("x")
    assert "a.io/x" in str(caught.value.hint) and "b.io/x" in str(caught.value.hint)


def test_drop_ins_are_merged(tmp_path: Path) -> None:
    registries = conf(
        tmp_path,
        'unqualified-search-registries = ["a.io"]\n[[registry]]\nlocation = "x.io"\ninsecure = true',
        'unqualified-search-registries = ["b.io"]\n[[registry]]\nlocation = "x.io"\n[aliases]\n"y" = "z.io/y"',
    )
    assert str(registries.qualify("x")[0]) == "b.io/x:latest"
    assert registries.endpoints(parse_reference("x.io/y")) == [Endpoint("x.io", "y", False, False)]


MIRRORS = """
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "m.io/hub"
insecure = true
[[registry.mirror]]
location = "d.io"
pull-from-mirror = "digest-only"
[[registry]]
prefix = "x.io/team"
location = "y.io/other"
insecure = true
[[registry]]
prefix = "*.corp.example"
[[registry.mirror]]
location = "mirror.corp.example/all"
[[registry]]
location = "bad.io"
blocked = true
"""


def test_mirrors_and_locations(tmp_path: Path) -> None:
    registries = conf(tmp_path, MIRRORS)
    assert registries.endpoints(parse_reference("debian")) == [
        Endpoint("m.io", "hub/library/debian", True, True),
        Endpoint("docker.io", "library/debian", False, False),
    ]
    digest = "@sha256:" + "a" * 64
    assert [each.host for each in registries.endpoints(parse_reference("debian" + digest))] == [
        "m.io",
        "d.io",
        "docker.io",
    ]
    assert registries.endpoints(parse_reference("x.io/team/a")) == [Endpoint("y.io", "other/a", True, False)]
    assert registries.endpoints(parse_reference("a.corp.example/q")) == [
        Endpoint("mirror.corp.example", "all/q", False, True),
        Endpoint("a.corp.example", "q", False, False),
    ]
    with pytest.raises(RegistryError, match="blocked"):
        registries.endpoints(parse_reference("bad.io/x"))


def test_cve_2026_48785_prefixes_compare_components(tmp_path: Path) -> None:
    registries = conf(tmp_path, MIRRORS)
    assert registries.endpoints(parse_reference("x.io/team2/a")) == [Endpoint("x.io", "team2/a", False, False)]
    assert registries.endpoints(parse_reference("bad.io.evil/x"))[0].host == "bad.io.evil"


@pytest.mark.parametrize(
    "text",
    [
        "x = [",
        'unqualified-search-registries = "a"',
        "[aliases]\na = 5",
        "registry = 5",
        "[[registry]]\ninsecure = true",
        '[[registry]]\nlocation = "a"\n[[registry.mirror]]\ninsecure = true',
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput, match=r"0\.conf"):
        conf(tmp_path, text)


def test_the_cache_follows_the_files(tmp_path: Path) -> None:
    path = tmp_path / "r.conf"
    path.write_text('[aliases]\n"x" = "a.io/x"')
    cache = str(tmp_path / "cache")
    assert str(load_registries(cache, [str(path)]).qualify("x")[0]) == "a.io/x:latest"
    assert (tmp_path / "cache" / "registries.json").exists()
    assert str(load_registries(cache, [str(path)]).qualify("x")[0]) == "a.io/x:latest"
    path.write_text('[aliases]\n"x" = "bb.io/x"')
    assert str(load_registries(cache, [str(path)]).qualify("x")[0]) == "bb.io/x:latest"
    (tmp_path / "cache" / "registries.json").write_text("rubbish")
    assert str(load_registries(cache, [str(path)]).qualify("x")[0]) == "bb.io/x:latest"


def test_loopback() -> None:
    for host in ("localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:80", "[::1]:5000"):
        assert is_loopback(host)
    for host in ("localhost.evil.com", "127.0.0.1.evil.com", "10.0.0.1", "[::2]", "example.com:5000"):
        assert not is_loopback(host)
