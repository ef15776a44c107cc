"""Credentials written where docker and podman keep them: the file's own text, or the helper that the file names.

The file has mode 0600 and is replaced as a whole. No secret is on a command line, in the environment or in a message.
"""

from __future__ import annotations

import base64
import json
import os

from rootless.errors import AuthenticationError, HostLimit
from rootless.image.distribution.auth import (
    HUB_KEYS,
    auth_files,
    helper_program,
    normal_key,
    read_auth_file,
    run_helper,
)
from rootless.image.fields import as_mapping
from rootless.image.reference import DEFAULT_REGISTRY
from rootless.paths import atomic_write, make_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.image.distribution.auth import Credentials
    from rootless.image.fields import Fields


def file_to_write(explicit: str | None = None) -> str:
    """The file that new credentials go to.

    It is the first file that exists, as that one is asked first when they are read; when none exists, podman's
    auth.json in the configuration directory: the runtime directory is removed when the user's last session ends.
    """
    files = auth_files(explicit)
    if len(files) == 1:
        return files[0]
    return next((path for path in files if os.path.exists(path)), files[-2])


def store_credentials(path: str, key: str, credentials: Credentials) -> str | None:
    """Keep the credentials for `key` (`host[:port][/namespace]`).

    Returns the program that keeps them, None when they lie in clear in the file. Raises AuthenticationError, HostLimit.
    """
    document = read_auth_file(path, required=False) or {}
    name = _key_in(path, key)
    helper = _helper_for(document, name, key)
    entries = _entries(document)
    for old in [each for each in entries if normal_key(each) == normal_key(name)]:
        del entries[old]
    if helper is not None:
        program = helper_program(helper, key)
        asked = {"ServerURL": name, "Username": credentials.user, "Secret": credentials.secret.reveal()}
        run_helper(program, "store", json.dumps(asked), key)
        if document.get("credsStore") == helper:
            entries[name] = {}  # as docker does, which lists here for which registries its store has credentials
        _write(path, document)
        return program
    packed = base64.b64encode(f"{credentials.user}:{credentials.secret.reveal()}".encode()).decode("ascii")
    entries[name] = {"auth": packed}
    _write(path, document)
    return None


def erase_credentials(path: str, key: str | None) -> list[str]:
    """Forget the credentials for `key`, or all (None), in this file and its helpers; return the keys that were there.

    Raises AuthenticationError for a helper that fails, InvalidInput, HostLimit.
    """
    document = read_auth_file(path, required=False)
    if document is None:
        return []
    entries = _entries(document)
    helpers = document.get("credHelpers") if isinstance(document.get("credHelpers"), dict) else {}
    assert isinstance(helpers, dict)
    wanted = None if key is None else {normal_key(each) for each in _names(key)}
    gone = []
    for name in [*entries, *(each for each in helpers if each not in entries)]:
        if wanted is not None and normal_key(name) not in wanted:
            continue
        had = name in entries
        helper = _helper_for(document, name, normal_key(name))
        if helper is not None:
            try:
                run_helper(helper_program(helper, name), "erase", name, name)
                had = True
            except AuthenticationError as e:
                if "not found" not in e.message.lower():
                    raise
        if had:
            gone.append(name)
        entries.pop(name, None)
    if gone:
        _write(path, document)
    return gone


def _names(key: str) -> tuple[str, ...]:
    return HUB_KEYS if key == DEFAULT_REGISTRY else (key,)


def _key_in(path: str, key: str) -> str:
    """How the program that the file belongs to calls the registry: docker's config.json calls its hub by a URL."""
    return HUB_KEYS[0] if key == DEFAULT_REGISTRY and os.path.basename(path) == "config.json" else key


def _helper_for(document: Fields, name: str, key: str) -> str | None:
    helpers = document.get("credHelpers")
    if isinstance(helpers, dict):
        for each in (name, key, key.partition("/")[0]):
            if isinstance(helpers.get(each), str):
                return str(helpers[each])
    chosen = document.get("credsStore")
    return chosen if isinstance(chosen, str) and chosen else None


def _entries(document: Fields) -> Fields:
    if not isinstance(document.get("auths"), dict):
        document["auths"] = {}
    return as_mapping(document["auths"], "auths")


def _write(path: str, document: Fields) -> None:
    # The rename of the new file would replace a link, and the user's dotfiles that it led to would not be written
    target = os.path.realpath(path)
    try:
        make_private(os.path.dirname(target) or ".")
        atomic_write(target, json.dumps(document, indent="\t").encode() + b"\n", mode=0o600)
    except OSError as e:
        raise HostLimit(f"cannot write the file of credentials '{path}': {e.strerror}") from e
