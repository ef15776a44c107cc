"""The signature policy of containers-policy.json(5): which images may come in. No signature is verified here.

`insecureAcceptAnything` and `reject` are obeyed; a scope that demands a signature is refused, since taking the image
would claim a check that was not made. Without a policy file everything is accepted, as docker does.
"""

from __future__ import annotations

import os

from rootless.errors import InvalidInput, RootlessError
from rootless.image.fields import load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.image.fields import Fields

_LIMIT = 4 << 20
_UNVERIFIABLE = ("signedBy", "sigstoreSigned", "signedBaseLayer")


class PolicyError(RootlessError):
    """The policy does not let the image in."""

    exit_code = 125


def policy_file() -> str | None:
    """The path of the policy file that counts: the user's, else the system's; None when there is none."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    files = (f"{home}/containers/policy.json", "/etc/containers/policy.json")
    return next((path for path in files if os.path.exists(path)), None)


def check_policy(transport: str, identity: str) -> None:
    """Raise PolicyError unless the policy lets in the image `identity` from `transport` (docker, oci, dir, …).

    identity: a full reference for docker, else a path. Raises InvalidInput for a file that breaks its rules.
    """
    path = policy_file()
    if path is None:
        return
    try:
        with open(path, "rb") as file:
            document = load_json(file.read(_LIMIT), f"signature policy '{path}'")
    except OSError as e:
        raise InvalidInput(f"cannot read signature policy '{path}': {e.strerror}") from e
    scope, requirements = requirements_for(document, transport, identity)
    name = f"'{transport}:{'//' if transport == 'docker' else ''}{identity}'"
    where = f"by scope '{scope}' of '{path}'" if scope else f"by the default of '{path}'"
    if not isinstance(requirements, list) or not requirements:
        raise InvalidInput(f"signature policy '{path}' has no requirements for {name}")
    for requirement in requirements:
        kind = requirement.get("type") if isinstance(requirement, dict) else None
        if kind == "insecureAcceptAnything":
            continue
        if kind == "reject":
            raise PolicyError(
                f"image {name} is rejected {where}", hint="use another image, or ask who wrote the policy"
            )
        if kind in _UNVERIFIABLE:
            raise PolicyError(
                f"image {name} must be signed ({kind}) {where}, and signatures cannot be verified here",
                hint="verify and copy it with `skopeo copy`, then `rootless load` it",
            )
        raise InvalidInput(f"signature policy '{path}' has a requirement of unknown type '{str(kind)[:40]}'")


def requirements_for(document: Fields, transport: str, identity: str) -> tuple[str, object]:
    """The most specific scope of the policy that covers the image, and what it requires; "" = the policy's default."""
    transports = document.get("transports")
    scopes = transports.get(transport) if isinstance(transports, dict) else None
    if isinstance(scopes, dict):
        for scope in scopes_of(transport, identity):
            if scope in scopes:
                return f"{transport}:{scope}", scopes[scope]
    return "", document.get("default")


def scopes_of(transport: str, identity: str) -> list[str]:
    """The scopes that cover `identity`, the most specific first; "" = the whole transport."""
    if transport != "docker":
        parts = os.path.abspath(identity).split("/") if identity else []
        return ["/".join(parts[:length]) for length in range(len(parts), 1, -1)] + [""]
    name = identity.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    repository = head if colon and "/" not in tag else name
    parts = repository.split("/")
    found = [identity, name, *("/".join(parts[:length]) for length in range(len(parts), 0, -1))]
    labels = parts[0].partition(":")[0].split(".")
    found += [f"*.{'.'.join(labels[start:])}" for start in range(1, len(labels))]
    return [*dict.fromkeys(found), ""]
