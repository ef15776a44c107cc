"""Credentials and tokens: where they are found, whom they reach, and that nothing shows them."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import AuthenticationError, InvalidInput, RegistryError, UsageError
from rootless.image.distribution.auth import Credentials, Secret, auth_files, find_credentials, parse_credentials
from rootless.image.distribution.token import (
    Challenge,
    check_realm,
    is_trusted_realm,
    parse_challenges,
    parse_token,
    token_url,
)


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def found(tmp_path: Path, document: object, host: str, repository: str = "a/b") -> str | None:
    path = tmp_path / "auth.json"
    path.write_text(json.dumps(document))
    credentials = find_credentials(host, repository, authfile=str(path))
    return credentials and f"{credentials.user}:{credentials.secret.reveal()}"


def test_secrets_are_not_shown() -> None:
    secret = Secret("hunter2")
    credentials = Credentials("me", secret)
    assert "hunter2" not in f"{secret} {secret!r} {credentials!r} {credentials.basic()}"
    with pytest.raises(UsageError) as caught:
        parse_credentials("hunter2")
    assert "hunter2" not in str(caught.value)


def test_keys_are_full_hosts_with_ports_and_paths(tmp_path: Path) -> None:
    document = {"auths": {"x.io": auth("host", "1"), "x.io:5000": auth("port", "2"), "x.io/a": auth("path", "3")}}
    assert found(tmp_path, document, "x.io", "z") == "host:1"
    assert found(tmp_path, document, "x.io", "a/b") == "path:3"
    assert found(tmp_path, document, "x.io", "ab") == "host:1"
    assert found(tmp_path, document, "x.io:5000", "a/b") == "port:2"
    assert found(tmp_path, document, "y.io") is None
    assert found(tmp_path, document, "evil-x.io") is None


def test_old_keys_of_docker_hub(tmp_path: Path) -> None:
    document = {"auths": {"https://index.docker.io/v1/": auth("me", "p:w")}}
    assert found(tmp_path, document, "docker.io") == "me:p:w"
    assert found(tmp_path, document, "x.io") is None


def test_identity_tokens(tmp_path: Path) -> None:
    assert found(tmp_path, {"auths": {"x.io": {"identitytoken": "t"}}}, "x.io") == ":t"


@pytest.mark.parametrize("entry", [{"auth": "!!"}, {"auth": base64.b64encode(b"nocolon").decode()}])
def test_malformed_entries_do_not_quote_the_secret(tmp_path: Path, entry: dict[str, str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        found(tmp_path, {"auths": {"x.io": entry}}, "x.io")
    assert entry["auth"] not in str(caught.value) and "nocolon" not in str(caught.value)


def test_a_file_that_is_no_json_is_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "auth.json"
    path.write_text('{"auths": hunter2')
    with pytest.raises(InvalidInput) as caught:
        find_credentials("x.io", "a", authfile=str(path))
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_counts_only_when_it_was_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        find_credentials("x.io", "a", authfile=str(tmp_path / "none"))


def test_the_order_of_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert auth_files() == [
        f"{tmp_path}/containers/auth.json",
        "/h/.config/containers/auth.json",
        "/h/.docker/config.json",
    ]
    tmp_path.chmod(0o777)  # as the directory of another user: what lies in it is not our credentials
    assert auth_files() == ["/h/.config/containers/auth.json", "/h/.docker/config.json"]
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/x")
    assert auth_files() == ["/x"] and auth_files("/y") == ["/y"]


HELPER = """#!/bin/sh
read host
case "$host" in
  x.io) echo '{"Username": "me", "Secret": "s3"}' ;;
  t.io) echo '{"Username": "<token>", "Secret": "tok"}' ;;
  n.io) echo 'credentials not found in native keychain'; exit 1 ;;
  *) echo 'it broke' >&2; exit 2 ;;
esac
"""


def test_credential_helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    hosts = ("x.io", "t.io", "n.io", "b.io")
    document = {"credHelpers": dict.fromkeys(hosts, "test")}
    assert found(tmp_path, document, "x.io") == "me:s3"
    assert found(tmp_path, document, "t.io") == ":tok"
    assert found(tmp_path, document, "n.io") is None
    assert found(tmp_path, {"credsStore": "test"}, "x.io") == "me:s3"
    with pytest.raises(AuthenticationError, match="it broke"):
        found(tmp_path, document, "b.io")
    with pytest.raises(InvalidInput):
        found(tmp_path, {"credsStore": "../../bin/sh"}, "x.io")
    with pytest.raises(AuthenticationError, match="not installed"):
        found(tmp_path, {"credsStore": "absent"}, "x.io")


def test_challenges() -> None:
    header = 'Bearer realm="https://a.io/t?x=1,2",service="a b",scope="repository:x:pull,push", Basic realm=x'
    assert parse_challenges([header]) == [
        Challenge("bearer", {"realm": "https://a.io/t?x=1,2", "service": "a b", "scope": "repository:x:pull,push"}),
        Challenge("basic", {"realm": "x"}),
    ]
    assert parse_challenges(["Negotiate", 'Basic realm="a \\"b\\""'])[1].parameters == {"realm": 'a "b"'}
    assert parse_challenges([]) == []


@given(st.text(max_size=100))
def test_any_challenge_header_is_read_without_a_crash(header: str) -> None:
    parse_challenges([header])


@pytest.mark.parametrize(
    ("realm", "plain", "why"),
    [
        ("http://a.io/t", False, "not https"),
        ("https://user:p@a.io/t", False, "user"),
        ("http://169.254.169.254/latest", True, "link-local"),
        ("https://[fe80::1]/t", False, "link-local"),
        ("https://127.0.0.1/t", False, "this machine"),
        ("file:///etc/passwd", False, "not a URL"),
        ("ftp://a.io/x", True, "not https"),
        ("https://a.io/\nx", False, "not a URL"),
        ("https://[bad/t", False, "not a URL"),
        ("", False, "not a URL"),
    ],
)
def test_cve_2020_15157_realms_that_are_refused(realm: str, plain: bool, why: str) -> None:
    with pytest.raises(RegistryError, match=why):
        check_realm(realm, "a.io", registry_is_plain=plain)


def test_realms_that_may_have_the_password() -> None:
    assert is_trusted_realm("https://auth.docker.io/token", "docker.io")
    assert is_trusted_realm("https://gitlab.com/jwt/auth", "registry.gitlab.com")
    assert is_trusted_realm("https://x.io/t", "x.io:5000")
    assert is_trusted_realm("http://localhost:5001/t", "127.0.0.1:5000")
    assert not is_trusted_realm("https://evil.com/t", "x.io")
    assert not is_trusted_realm("https://evil.co.uk/t", "good.co.uk")
    assert not is_trusted_realm("https://10.0.0.2/t", "10.0.0.1")
    assert not is_trusted_realm("https://x.io.evil.com/t", "x.io")


def test_token_urls_and_answers() -> None:
    challenge = Challenge("bearer", {"realm": "https://a.io/t?k=v", "service": "s s"})
    assert token_url(challenge, ["repository:x:pull"]) == "https://a.io/t?k=v&service=s+s&scope=repository%3Ax%3Apull"
    assert parse_token(b'{"access_token": "abc"}', "x").reveal() == "Bearer abc"
    for raw in (b"", b"[]", b"{}", b'{"token": 5}', b'{"token": "a\\nb"}', b'{"token": ""}'):
        with pytest.raises(RegistryError):
            parse_token(raw, "x")
