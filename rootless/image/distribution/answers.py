"""What comes back from an HTTP exchange, in words: error bodies, causes of failures, Retry-After; and which proxy."""

from __future__ import annotations

import time

from rootless.errors import InvalidInput
from rootless.image.distribution.shortnames import is_loopback
from rootless.image.fields import as_mapping, as_sequence, load_json
from rootless.units import whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_LIMIT = 64 << 10  # bytes of an error's body that are read: a registry could send it for ever
WEB_PAGE = "a web page"
"""What `error_text` says of HTML: no registry answers with it, but proxies and login pages do."""


def proxy_for(host: str) -> str | None:
    """The proxy of the environment for `host`, if it is to be used (HTTPS_PROXY, HTTP_PROXY, NO_PROXY)."""
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    proxy = proxies.get("https") or proxies.get("all") or (proxies.get("http") if is_loopback(host) else None)
    if not proxy or proxy_bypass(host) or is_loopback(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def error_text(response: BaseHTTPResponse) -> str:
    """The registry's words for an error (JSON of distribution-spec "Error Codes", or a line of text), cut short.

    The response is used up: its connection is closed, or serves the next request when the body was read to its end.
    """
    from urllib3.exceptions import HTTPError

    try:
        raw = response.read(_LIMIT, decode_content=False)
    except HTTPError:
        raw = b""
    response.release_conn() if not response.closed and len(raw) < _LIMIT else response.close()
    try:
        errors = [as_mapping(each, "errors") for each in as_sequence(load_json(raw, "answer")["errors"], "errors")]
        texts = [str(each.get("message") or each.get("code") or "") for each in errors]
        details = [detail for each in errors if isinstance(detail := each.get("detail"), str)]
        return "; ".join(filter(None, texts + details))[:500]
    except (InvalidInput, KeyError):
        text = raw.decode("utf-8", "replace").strip()
        return WEB_PAGE if text.startswith("<") else text.partition("\n")[0][:200]


def after_colon(text: str) -> str:
    """`: text` for the end of a message; nothing when there is no text."""
    return f": {text}" if text else ""


def retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for (a number or a date, RFC 9110, 10.2.3); 0.0 for none or nonsense."""
    if not value:
        return 0.0
    seconds = whole_number(value.strip())
    if seconds is not None:
        return float(min(seconds, 999_999))
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0


def innermost_cause(error: BaseException) -> BaseException:
    """The innermost exception behind urllib3's: what the system or TLS said."""
    seen = 0
    while seen < 10:
        reason = getattr(error, "reason", None)
        inner = error.__cause__ or error.__context__ or (reason if isinstance(reason, BaseException) else None)
        if inner is None or isinstance(error, OSError):
            break
        error = inner
        seen += 1
    return error


def speaks_no_tls(cause: BaseException) -> bool:
    """Whether the other side answered the first bytes of TLS with something else, or closed the connection."""
    import http.client
    import ssl

    return isinstance(cause, (ssl.SSLError, ConnectionResetError, http.client.RemoteDisconnected, BrokenPipeError))


def reason_of(error: BaseException) -> str:
    """What is behind an error of the network, in few words for the end of a message."""
    cause = innermost_cause(error)
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    text = str(cause) or type(cause).__name__
    return text.rpartition(">: ")[2][:200] if ">: " in text else text[:200]


def next_link(header: str | None) -> str | None:
    """The address in `Link: <…>; rel="next"` (RFC 8288), None when there is no next page."""
    for part in (header or "").split(","):
        address, _, parameters = part.strip().partition(">")
        if address.startswith("<") and "rel" in parameters and "next" in parameters:
            return address[1:]
    return None
