"""The verbs `login` and `logout`: credentials are tried with the registry, then kept where docker and podman look."""

from __future__ import annotations

import os

from rootless.engine.image.image_names import registries
from rootless.engine.image_types import LoggedIn, RegistryOptions
from rootless.errors import AuthenticationError, NotFound, RegistryError, UsageError
from rootless.image.distribution.auth import Credentials, Secret, auth_files, find_credentials
from rootless.image.reference import DEFAULT_REGISTRY, parse_reference
from rootless.paths import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine


def registry_key(text: str | None) -> str:
    """`host[:port][/namespace]` of the text that the user typed, docker.io when there was none. Raises UsageError."""
    bare = (text or DEFAULT_REGISTRY).removeprefix("https://").removeprefix("http://").rstrip("/")
    if bare in ("index.docker.io", "index.docker.io/v1", "registry-1.docker.io"):
        return DEFAULT_REGISTRY
    host, slash, path = bare.partition("/")
    try:
        reference = parse_reference(f"{host}/{path or 'x'}", default_tag=None)
    except UsageError:
        reference = None
    if reference is None or reference.registry != host or reference.tag or reference.digest:
        raise UsageError(f"'{text}' is not a registry", hint="write HOST[:PORT], for example registry.example.org:5000")
    return f"{host}{slash}{path}"


def login(engine: Engine, registry: str | None, user: str, password: Secret, options: RegistryOptions) -> LoggedIn:
    """Try user and password with the registry, and keep them where it accepts them.

    Raises UsageError, AuthenticationError, RegistryError, HostLimit.
    """
    from rootless.image.distribution.auth_write import file_to_write, store_credentials

    key = registry_key(registry)
    if not user or ":" in user:
        raise UsageError("a user name is not empty and has no ':'")
    credentials = Credentials(user, password)
    _check(engine, key, credentials, options)
    path = file_to_write(options.authfile)
    with Lock(engine.store.path("locks", "credentials")):
        program = store_credentials(path, key, credentials)
    return LoggedIn(key, path, program or "")


def _check(engine: Engine, key: str, credentials: Credentials, options: RegistryOptions) -> None:
    """Ask the registry's `/v2/` with these credentials (distribution-spec, "Determining Support").

    Raises AuthenticationError when they are refused; RegistryError when it is no registry.
    """
    from rootless.image.distribution.answers import WEB_PAGE, error_text
    from rootless.image.distribution.http_session import Access, RegistrySession

    host, _, path = key.partition("/")
    reference = parse_reference(f"{host}/{path or 'x'}")
    endpoint = registries(engine).endpoints(reference)[-1]._replace(repository="")
    pair = f"{credentials.user}:{credentials.secret.reveal()}"
    session = RegistrySession(
        endpoint, Access(options.tls_verify, os.devnull, pair, options.certificates), warn=engine.warn
    )
    try:
        response = session.get("")
        answer = error_text(response)
    finally:
        session.close()
    if response.status == 200 and answer == WEB_PAGE:
        raise RegistryError(
            f"'{host}' is no registry: it answers with a web page to /v2/",
            hint="a proxy or a login page may answer in the registry's place",
        )
    if response.status != 200:
        raise RegistryError(f"'{host}' is no registry: it answers {response.status} to /v2/")
    if session.stranger:
        raise AuthenticationError(
            f"registry '{host}' sends us to '{session.stranger}' for a token, which must not see its password",
            hint=f"log in to '{session.stranger}' itself, if you have an account there",
        )


def logged_in_user(registry: str | None, options: RegistryOptions) -> str:
    """The user in the stored credentials for a registry. Raises UsageError, NotFound."""
    key = registry_key(registry)
    host, _, path = key.partition("/")
    found = find_credentials(host, path, authfile=options.authfile)
    if found is None:
        raise NotFound(f"not logged in to '{key}'", hint=f"rootless login {key}")
    return found.user or "<token>"


def logout(engine: Engine, registry: str | None, *, all: bool = False, authfile: str | None = None) -> list[str]:
    """Erase the credentials of a registry, or of all, in every file that `login` and `pull` read.

    authfile: this file alone, None for the usual ones. Returns the keys that were erased. Raises UsageError, and
    NotFound when a registry was named that had none.
    """
    from rootless.image.distribution.auth_write import erase_credentials

    key = None if all else registry_key(registry)
    gone: list[str] = []
    with Lock(engine.store.path("locks", "credentials")):
        for path in auth_files(authfile):
            gone += erase_credentials(path, key)
    if not gone and key is not None:
        raise NotFound(f"not logged in to '{key}'")
    return gone
