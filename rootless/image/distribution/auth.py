"""Credentials of registries, read from the files and helpers of docker and podman. Nothing is written or printed.

Writing them: rootless.image.distribution.auth_write.
"""

from __future__ import annotations

import base64
import binascii
import os
import re

from rootless.errors import AuthenticationError, InvalidInput, UsageError
from rootless.image.fields import load_json
from rootless.image.reference import DEFAULT_REGISTRY
from rootless.paths import runtime_base
from rootless.records.fields import parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.image.fields import Fields

# A name becomes a part of the name of a program: one with a slash would let the file start any program
_HELPER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", re.ASCII)
# What docker, podman and their old versions call docker's hub in files of credentials
HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io", "docker.io")
_FILE_LIMIT = 4 << 20  # bytes
_HELPER_TIMEOUT = 30  # seconds; a helper may have to ask the user's keyring


class Secret:
    """Text that must not be shown: its repr and str are dots."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, which must go into no message and no log."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__


class Credentials:
    """User and password, or an identity token (OAuth2 refresh token) when `user` is empty."""

    __slots__ = ("secret", "user")

    def __init__(self, user: str, secret: Secret) -> None:
        self.user = user
        self.secret = secret

    def basic(self) -> Secret:
        """The value of an Authorization header with these credentials (RFC 7617)."""
        pair = f"{self.user}:{self.secret.reveal()}".encode()
        return Secret("Basic " + base64.b64encode(pair).decode("ascii"))

    def __repr__(self) -> str:
        return f"Credentials({self.user!r}, …)"


def parse_credentials(text: str) -> Credentials:
    """`user:password` of a flag. Raises UsageError, which does not repeat the text."""
    user, colon, password = text.partition(":")
    if not user or not colon:
        raise UsageError("credentials must be USER:PASSWORD")
    return Credentials(user, Secret(password))


def auth_files(explicit: str | None = None) -> list[str]:
    """The files that are asked for credentials, in order: `explicit` or REGISTRY_AUTH_FILE alone, else podman's, then
    docker's (containers-auth.json(5))."""
    if explicit:
        return [explicit]
    chosen = os.environ.get("REGISTRY_AUTH_FILE")
    if chosen:
        return [chosen]
    home = os.path.expanduser("~")
    files = []
    if os.environ.get("XDG_RUNTIME_DIR") and (runtime := runtime_base()) is not None:
        files.append(f"{runtime}/containers/auth.json")
    files.append(f"{os.environ.get('XDG_CONFIG_HOME') or f'{home}/.config'}/containers/auth.json")
    files.append(f"{os.environ.get('DOCKER_CONFIG') or f'{home}/.docker'}/config.json")
    return files


def find_credentials(host: str, repository: str, *, authfile: str | None = None) -> Credentials | None:
    """The credentials for `host/repository`; None when there are none.

    Keys with a path (`host/namespace`) win over the bare host, the longest first; a port is part of the host.
    Raises InvalidInput for a malformed file, AuthenticationError for a helper that fails.
    """
    for path in auth_files(authfile):
        document = read_auth_file(path, required=path == authfile)
        if document is None:
            continue
        found = _lookup(document, host, repository, path)
        if found is not None:
            return found
    return None


def read_auth_file(path: str, *, required: bool) -> Fields | None:
    """The file's document; None when there is no file. Raises InvalidInput; UsageError for one that is required."""
    try:
        with open(path, "rb") as file:
            raw = file.read(_FILE_LIMIT + 1)
    except OSError as e:
        if required:
            raise UsageError(f"cannot read the file of credentials '{path}': {e.strerror}") from e
        return None
    try:
        document = parse_json(raw or b"{}")
    except ValueError as e:
        # The text of the error could quote a password
        raise InvalidInput(f"the file of credentials '{path}' is not JSON", hint="correct or remove it") from e
    if len(raw) > _FILE_LIMIT or not isinstance(document, dict):
        raise InvalidInput(f"the file of credentials '{path}' is not a JSON object", hint="correct or remove it")
    return document


def _lookup(document: Fields, host: str, repository: str, path: str) -> Credentials | None:
    hosts = HUB_KEYS if host in (DEFAULT_REGISTRY, "registry-1.docker.io") else (host,)
    helpers = document.get("credHelpers")
    if isinstance(helpers, dict):
        for key in hosts:
            if isinstance(helpers.get(key), str):
                return _ask_helper(helpers[key], key)
    auths = document.get("auths")
    if isinstance(auths, dict):
        normal = {normal_key(key): entry for key, entry in auths.items() if isinstance(entry, dict)}
        for key in _keys(hosts, repository):
            if key in normal and (found := _decode(normal[key], key, path)) is not None:
                return found
    store = document.get("credsStore")
    if isinstance(store, str):
        for key in hosts:
            if (found := _ask_helper(store, key)) is not None:
                return found
    return None


def _keys(hosts: Sequence[str], repository: str) -> list[str]:
    # An entry may be for a part of a registry (containers-auth.json(5)): of those that cover the repository the one
    # with the longest path wins
    parts = repository.split("/")
    paths = ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return [f"{normal_key(host)}/{path}" for host in hosts for path in paths] + [normal_key(host) for host in hosts]


def normal_key(key: str) -> str:
    """A key of `auths` without what old docker versions put around the host: scheme, /v1/ and /v2/."""
    bare = key.removeprefix("https://").removeprefix("http://").rstrip("/")
    return bare.removesuffix("/v1").removesuffix("/v2")


def _decode(entry: Fields, key: str, path: str) -> Credentials | None:
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credentials("", Secret(token))
    user, password = entry.get("username"), entry.get("password")
    if isinstance(user, str) and isinstance(password, str) and user:
        return Credentials(user, Secret(password))
    packed = entry.get("auth")
    if not isinstance(packed, str) or not packed:
        return None
    try:
        user, colon, password = base64.b64decode(packed, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise InvalidInput(f"the credentials for '{key}' in '{path}' are malformed", hint="log in again") from None
    assert isinstance(user, str) and isinstance(password, str)
    return Credentials(user, Secret(password.rstrip("\0")))  # docker removes zero bytes at the end too


def helper_program(name: str, host: str) -> str:
    """The path of `docker-credential-NAME`. Raises InvalidInput, AuthenticationError."""
    import shutil

    if not _HELPER.fullmatch(name):
        raise InvalidInput(f"'{name[:100]}' is not the name of a credential helper")
    program = shutil.which(f"docker-credential-{name}")
    if program is None:
        raise AuthenticationError(
            f"credential helper 'docker-credential-{name}' for '{host}' is not installed",
            hint="install it, or remove it from the file of credentials",
        )
    return program


def run_helper(program: str, verb: str, text: str, host: str) -> bytes:
    """What the helper answers to `get`, `store` or `erase` (docker-credential-helpers). Raises AuthenticationError.

    text: the helper's standard input; a secret goes there, since every user can read a command line in /proc.
    """
    import subprocess

    try:
        answer = subprocess.run([program, verb], input=text.encode(), capture_output=True, timeout=_HELPER_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise AuthenticationError(f"credential helper '{program}' failed for '{host}': {type(e).__name__}") from e
    if answer.returncode:
        words = (answer.stdout + answer.stderr).decode("utf-8", "replace").strip()[:200]
        raise AuthenticationError(f"credential helper '{program}' failed for '{host}': {words}")
    return answer.stdout


def _ask_helper(name: str, host: str) -> Credentials | None:
    """The credentials that `docker-credential-NAME get` gives; None when the helper has none for the host."""
    program = helper_program(name, host)
    try:
        answer = run_helper(program, "get", host, host)
    except AuthenticationError as e:
        if "not found" in e.message.lower():
            return None
        raise
    try:
        document = load_json(answer, "its answer")
        user, secret = document["Username"], document["Secret"]
    except (InvalidInput, KeyError) as e:
        raise AuthenticationError(f"credential helper '{program}' gave no credentials for '{host}'") from e
    return Credentials("" if user == "<token>" else str(user), Secret(str(secret)))
