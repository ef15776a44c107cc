"""The registry's demand for credentials and the token it sends us for: parsing, and whom the user's password may reach.

No network here: the session asks; this module says what to ask, and refuses realms that a registry has no right to.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from rootless.errors import InvalidInput, RegistryError
from rootless.image.distribution.auth import Secret
from rootless.image.distribution.connection_guard import connection_objection, resolve_addresses
from rootless.image.distribution.shortnames import host_name, is_loopback
from rootless.image.fields import load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PARAMETER = re.compile(r'([a-zA-Z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9_-]*)(?=\s+[a-zA-Z0-9_-]+\s*=|\s*(?:,|$))")


class Challenge(NamedTuple):
    """One demand of a WWW-Authenticate header. scheme: lower case ("bearer", "basic")."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(headers: Sequence[str]) -> list[Challenge]:
    """All demands of the WWW-Authenticate headers (RFC 9110, 11.6.1); several may share one header."""
    found: list[Challenge] = []
    for header in headers:
        position = 0
        while position < len(header):
            rest = header[position:]
            stripped = rest.lstrip(" ,\t")
            position += len(rest) - len(stripped)
            if (parameter := _PARAMETER.match(header, position)) and found:
                quoted = parameter[2]
                value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else parameter[3]
                found[-1].parameters.setdefault(parameter[1].lower(), value)
                position = parameter.end()
            elif scheme := _SCHEME.match(header, position):
                found.append(Challenge(scheme[1].lower(), {}))
                position = scheme.end()
            else:
                break
    return found


def check_realm(realm: str, registry_host: str, *, registry_is_plain: bool) -> str:
    """`realm` when a token may be asked there; else RegistryError (CVE-2020-15157 and its kin).

    https, or http when the registry itself speaks only that; no user in it; never a link-local address, where clouds
    keep their machines' credentials.
    """
    try:
        parts = urlsplit(realm)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = None
    why = ""
    if parts is None or not host or any(ord(c) <= 32 or ord(c) == 127 for c in realm):
        why = "it is not a URL"
    elif parts.scheme != "https" and not (parts.scheme == "http" and registry_is_plain):
        why = "it is not https"
    elif parts.username is not None or parts.password is not None:
        why = "it carries a user"
    elif objected := _objection(host, port or (443 if parts.scheme == "https" else 80)):
        why = objected
    elif is_loopback(host) and not is_loopback(registry_host):
        why = "it is on this machine and the registry is not"
    if why:
        raise RegistryError(f"registry '{registry_host}' asks for a token from '{realm[:200]}': refused, {why}")
    return realm


def is_trusted_realm(realm: str, registry_host: str) -> bool:
    """Whether the password for the registry may go to `realm`: the same host, or a host of the same domain."""
    ours, theirs = host_name(registry_host), (urlsplit(realm).hostname or "").lower()
    if ours == theirs or (is_loopback(ours) and is_loopback(theirs)):
        return True
    return _domain(ours) is not None and _domain(ours) == _domain(theirs)


def scopes_of(challenge: Challenge, own: Sequence[str]) -> list[str]:
    """The scopes to ask a token for: those that the challenge names and those of `own`, one for each resource."""
    actions: dict[str, dict[str, None]] = {}
    for scope in [*(challenge.parameters.get("scope") or "").split(" "), *own]:
        resource, colon, wanted = scope.rpartition(":")
        if colon:
            actions.setdefault(resource, {}).update(dict.fromkeys(wanted.split(",")))
    return [f"{resource}:{','.join(wanted)}" for resource, wanted in actions.items()]


def token_url(challenge: Challenge, scopes: Sequence[str]) -> str:
    """The URL whose GET gives a token (docker's token authentication): the realm with service and scopes as query."""
    realm = challenge.parameters["realm"]
    query = [("service", challenge.parameters["service"])] if challenge.parameters.get("service") else []
    query += [("scope", each) for each in scopes]
    return realm + ("&" if urlsplit(realm).query else "?") + urlencode(query) if query else realm


def refresh_form(challenge: Challenge, scopes: Sequence[str], token: Secret) -> bytes:
    """The form that is sent to the realm to exchange an identity token for an access token (docker's OAuth2)."""
    form = {
        "grant_type": "refresh_token",
        "service": challenge.parameters.get("service", ""),
        "client_id": "rootless",
        "scope": " ".join(scopes),
        "refresh_token": token.reveal(),
    }
    return urlencode(form).encode()


def parse_token(raw: bytes, host: str) -> Secret:
    """The value of the Authorization header for the token in a token server's answer. Raises RegistryError.

    A token with a line end in it would add headers of the server's choice to our requests: only visible ASCII passes.
    """
    try:
        document = load_json(raw, "token")
        token = document.get("token") or document.get("access_token")
    except InvalidInput:
        token = None
    if not isinstance(token, str) or not token or any(not 32 < ord(c) < 127 for c in token):
        raise RegistryError(f"the token server of registry '{host}' gave no token")
    return Secret(f"Bearer {token}")


def _domain(host: str) -> str | None:
    """The part of a name that one owner has: the last two labels, or three under a second level such as co.uk.

    None for addresses and for names without a dot, which share no domain with another host.
    """
    try:
        ipaddress.ip_address(host)
        return None
    except ValueError:
        pass
    labels = host.split(".")
    if len(labels) < 2:
        return None
    count = 3 if len(labels[-1]) == 2 and len(labels[-2]) <= 3 else 2
    return ".".join(labels[-count:]) if len(labels) >= count else None


def _objection(host: str, port: int) -> str:
    try:
        found = [host, *resolve_addresses(host, port)]
    except OSError:
        found = [host]  # behind a proxy names need not resolve here: the proxy resolves them
    return next(filter(None, map(connection_objection, found)), "")
