"""TLS of registries: which authorities are trusted, which client certificate is shown. No connection is made here."""

from __future__ import annotations

import os

from rootless.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl


def certificate_directories(host: str) -> list[str]:
    """Where a registry's own certificates may lie, strongest first (containers-certs.d(5), docker's too)."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return [
        f"{directory}/{host}"
        for directory in (f"{home}/containers/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d")
    ]


def make_context(host: str, *, verify: bool, directory: str | None = None) -> ssl.SSLContext:
    """The TLS context for `host[:port]`: the system's authorities and those of certs.d.

    directory: *.crt (authorities), *.cert with *.key (client certificate) instead of certs.d. verify: False accepts any
    certificate. Raises InvalidInput for a file that is no certificate.
    """
    import ssl

    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for place in [directory] if directory else certificate_directories(host):
        try:
            names = sorted(os.listdir(place))
        except OSError as e:
            if directory:
                raise InvalidInput(f"cannot read the certificates in '{place}': {e.strerror}") from e
            continue
        _load(context, place, names)
        break  # the strongest directory alone counts: an administrator's authority is not added to the user's
    return context


def _load(context: ssl.SSLContext, place: str, names: list[str]) -> None:
    import ssl

    for name in names:
        path = f"{place}/{name}"
        try:
            if name.endswith(".crt"):
                context.load_verify_locations(path)
            elif name.endswith(".cert"):
                key = f"{path[:-5]}.key"
                if not os.path.exists(key):
                    raise InvalidInput(f"certificate '{path}' has no key '{key}'")
                context.load_cert_chain(path, key)
        except (ssl.SSLError, OSError) as e:
            raise InvalidInput(f"cannot use certificate '{path}': {e}") from e
