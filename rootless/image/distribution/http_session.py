"""HTTP with one registry: scheme, TLS, proxies, retries, redirects and authorization. It knows nothing of images.

Why urllib3: docs/decisions/http-client.md. A session may be used from several threads once one request has passed.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from rootless.errors import AuthenticationError, RegistryError
from rootless.image.distribution.answers import (
    after_colon,
    error_text,
    innermost_cause,
    proxy_for,
    reason_of,
    retry_after,
    speaks_no_tls,
)
from rootless.image.distribution.shortnames import host_name, is_loopback
from rootless.image.distribution.tls import make_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from urllib3 import BaseHTTPResponse, PoolManager

    from rootless.image.distribution.auth import Credentials, Secret
    from rootless.image.distribution.shortnames import Endpoint
    from rootless.image.distribution.token import Challenge

    Body = Callable[[], Iterable[bytes]] | bytes | None

HUB_HOST = "registry-1.docker.io"
ATTEMPTS = 5
MAX_REDIRECTS = 10
ERROR_LIMIT = 64 << 10  # bytes of a token server's answer that are read
_CONNECT_TIMEOUT = 15.0  # seconds
_READ_TIMEOUT = 60.0  # seconds without a byte
_KEPT = 4  # connections to one host that are kept for the next request
_BLOCK = 1 << 16  # bytes that are sent at a time
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0
_RETRIED = (408, 429, 500, 502, 503, 504)
_REDIRECTS = (301, 302, 303, 307, 308)
_SAME_METHOD = (307, 308)


class Access(NamedTuple):
    """What the user's flags say of a registry. verify: None = registries.conf decides whether TLS is checked.
    credentials: "user:password". authfile, certificates: paths that are read instead of the usual ones."""

    verify: bool | None = None
    authfile: str | None = None
    credentials: str | None = None
    certificates: str | None = None


class RegistrySession:
    """Requests to `https://HOST/v2/…` (or plain HTTP where that is allowed).

    actions: what tokens must allow ("pull", "pull,push"). warn: called once with each text of a Warning header. sleep:
    how a pause is made, replaced by tests.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        access: Access,
        *,
        actions: str = "pull",
        warn: Callable[[str], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.host = HUB_HOST if endpoint.host == "docker.io" else endpoint.host
        self._name = endpoint.host
        self._repository = endpoint.repository
        self._scopes = [f"repository:{endpoint.repository}:{actions}"] if endpoint.repository else []
        self._access = access
        self._unchecked = access.verify is False or (access.verify is None and endpoint.insecure)
        # --tls-verify=true forbids plain HTTP even on loopback
        self._may_be_plain = self._unchecked or (access.verify is None and is_loopback(self.host))
        self._scheme = ""
        self._warn = warn
        self._warned: set[str] = set()
        self.sleep = sleep
        self._authorization: Secret | None = None
        self._has_token = False
        self.stranger = ""  # the token server that may not see the registry's password, when there is one
        self._lock = threading.Lock()
        self._finding = threading.Lock()
        self._pools: dict[str, PoolManager] = {}  # by host[:port]; "" is the registry itself

    def get(self, path: str, *, headers: Mapping[str, str] | None = None, method: str = "GET") -> BaseHTTPResponse:
        """The answer of `/v2/PATH`, to be closed: status 200 or 206, or 404 or 416, for which the caller has the words.

        Raises AuthenticationError, RegistryError.
        """
        response, url = self._exchange(method, self.url_of(path), headers or {}, None)
        if response.status in (200, 206, 404, 416):
            return response
        if method == "HEAD":
            # Its answer has no body (RFC 9110, 9.3.2), and so not the registry's words: that of a GET has
            status = response.status
            error_text(response)
            response, url = self._exchange("GET", self.url_of(path), headers or {}, None)
            response.status = status
        raise self.refusal(response, url)

    def send(
        self, method: str, target: str, *, headers: Mapping[str, str] | None = None, body: Body = None
    ) -> BaseHTTPResponse:
        """The answer to a request to `/v2/TARGET`, or to a URL that `url_of` made: any status but 401; to be closed.

        body: the whole, or a callable that begins it anew for each try. Retried while the other side is busy or broken.
        """
        url = target if "://" in target else self.url_of(target)
        return self._exchange(method, url, headers or {}, body)[0]

    def _exchange(self, method: str, url: str, headers: Mapping[str, str], body: Body) -> tuple[BaseHTTPResponse, str]:
        """The answer, once authorization is settled, and the URL that gave it."""
        refused = 0
        while True:
            used = self._authorization
            response, last = self._follow(method, url, dict(headers), used, body)
            if response.status != 401:
                return response, last
            refused += 1
            # Only the registry itself may ask for its user's credentials, not where it redirects to
            self.authorize(response, used, final=urlsplit(last).netloc != self.host or refused > 2)

    def send_once(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: Body = None
    ) -> BaseHTTPResponse:
        """One try of a request that must not be repeated blindly; the caller deals with 401 and redirects itself.

        Raises urllib3's HTTPError when there is no answer.
        """
        sent = dict(headers or {})
        if self._authorization is not None and self._is_ours(url):
            sent["Authorization"] = self._authorization.reveal()
        response = self._send(method, url, sent, body)
        self._show_warnings(response)
        return response

    def url_of(self, path: str, *, base: str | None = None) -> str:
        """The absolute URL of `/v2/PATH`, or of a Location in the answer of `base`, which may raise RegistryError."""
        if base is not None:
            return self._check_redirect(base, path)
        with self._finding:  # threads that push layers begin at once
            if not self._scheme:
                self._scheme = self._find_scheme()
        return f"{self._scheme}://{self.host}/{path[1:] if path.startswith('/') else f'v2/{path}'}"

    @property
    def authorization(self) -> Secret | None:
        """The Authorization header that requests carry now: what `authorize` is told was refused."""
        return self._authorization

    def want(self, scope: str, *, wanted: bool = True) -> None:
        """Add a scope to those that tokens are asked for (a mount reads another repository), or remove it again."""
        with self._lock:
            if (scope in self._scopes) != wanted:
                self._scopes.append(scope) if wanted else self._scopes.remove(scope)
                if self._has_token:
                    self._authorization = None

    def authorize(self, response: BaseHTTPResponse, used: Secret | None, *, final: bool = False) -> None:
        """Get what a 401 demands. used: the header that was refused. Raises AuthenticationError, always if `final`."""
        demands = response.headers.getlist("WWW-Authenticate")
        text = error_text(response)
        if final:
            raise self._unauthorized(text)
        self._authorize(demands, used, text)

    def fetch_foreign(self, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """GET a layer from where its maker keeps it: https only, and no credentials of any kind."""
        if urlsplit(url).scheme != "https":
            raise RegistryError(f"the layer's address '{url[:200]}' is refused: it is not https")
        response, last = self._follow("GET", url, dict(headers), None)
        if response.status not in (200, 206):
            raise self.refusal(response, last)
        return response

    def close(self) -> None:
        """Close all connections to the registry."""
        for pool in self._pools.values():
            pool.clear()

    def _find_scheme(self) -> str:
        """Ping by https; by http only where plain HTTP is allowed and the other side does not speak TLS at all."""
        import ssl

        from urllib3.exceptions import HTTPError

        try:
            self._ping("https")
        except HTTPError as e:
            reason = innermost_cause(e)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise RegistryError(
                    f"cannot trust registry '{self._name}': {reason.verify_message}",
                    hint=f"put its authority's certificate into ~/.config/containers/certs.d/{self.host}/ca.crt, "
                    "or use --tls-verify=false",
                ) from e
            if not self._may_be_plain:
                hint = "is it a plain HTTP registry? then use --tls-verify=false" if speaks_no_tls(reason) else None
                raise RegistryError(f"cannot reach registry '{self._name}': {reason_of(reason)}", hint=hint) from e
            if not speaks_no_tls(reason):
                raise RegistryError(f"cannot reach registry '{self._name}': {reason_of(reason)}") from e
            try:
                self._ping("http")
            except HTTPError as plain:
                raise RegistryError(f"cannot reach registry '{self._name}': {reason_of(plain)}") from plain
            return "http"
        return "https"

    def _ping(self, scheme: str) -> None:
        """One request to learn whether the scheme is right; what it answers does not matter."""
        error_text(self._request("GET", f"{scheme}://{self.host}/v2/", {}, attempts=2))

    def _follow(
        self, method: str, url: str, headers: dict[str, str], authorization: Secret | None, body: Body = None
    ) -> tuple[BaseHTTPResponse, str]:
        """One request and its redirects. The Authorization header goes to the registry itself and nobody else."""
        from urllib3.exceptions import HTTPError

        for _ in range(MAX_REDIRECTS):
            parts = urlsplit(url)
            sent = dict(headers)
            if authorization is not None and self._is_ours(url):
                sent["Authorization"] = authorization.reveal()
            try:
                response = self._request(method, url, sent, body, attempts=ATTEMPTS)
            except HTTPError as e:
                raise RegistryError(f"cannot reach '{parts.netloc}': {reason_of(e)}") from e
            location = response.headers.get("Location")
            followed = _REDIRECTS if method in ("GET", "HEAD") else _SAME_METHOD
            if response.status not in followed or not location:
                self._show_warnings(response)
                return response, url
            error_text(response)
            url = self._check_redirect(url, location)
        raise RegistryError(f"registry '{self._name}' redirects more than {MAX_REDIRECTS} times")

    def _check_redirect(self, url: str, location: str) -> str:
        """Where a redirect leads. Raises RegistryError when that is no place for us to go."""
        from rootless.image.distribution.connection_guard import literal_objection

        try:
            url = urljoin(url, location)
            parts = urlsplit(url)
            host = parts.hostname
        except ValueError as e:
            raise RegistryError(f"registry '{self._name}' redirects to '{location[:200]}', which is no URL") from e
        why = ""
        if not host or parts.scheme not in ("https", "http"):
            why = "it is not an http URL"
        elif parts.scheme == "http" and self._scheme == "https" and not self._unchecked:
            why = "it leaves https"
        elif parts.username is not None:
            why = "it carries a user"
        else:
            why = literal_objection(host)
        if why:
            raise RegistryError(f"registry '{self._name}' redirects to '{url[:200]}': refused, {why}")
        return url

    def _is_ours(self, url: str) -> bool:
        """Whether `url` is the registry itself, which alone gets the Authorization header."""
        parts = urlsplit(url)
        return parts.netloc == self.host and parts.scheme == self._scheme

    def _request(
        self, method: str, url: str, headers: dict[str, str], body: Body = None, *, attempts: int
    ) -> BaseHTTPResponse:
        """One URL, tried again after a pause while the other side is busy, broken or out of reach."""
        import ssl

        from urllib3.exceptions import HTTPError

        pause = _FIRST_PAUSE
        for attempt in range(1, attempts + 1):
            try:
                response = self._send(method, url, headers, body)
            except HTTPError as e:
                reason = innermost_cause(e)
                if attempt == attempts or isinstance(reason, (ssl.SSLError, ConnectionRefusedError)):
                    raise
            else:
                if response.status not in _RETRIED or attempt == attempts:
                    return response
                pause = max(pause, retry_after(response.headers.get("Retry-After")))
                error_text(response)
            self.sleep(min(pause, _LONGEST_PAUSE))
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    def _send(self, method: str, url: str, headers: dict[str, str], body: Body = None) -> BaseHTTPResponse:
        """The answer to one request, without retries and redirects, whose body the caller reads."""
        from rootless import __version__

        sent = {"User-Agent": f"rootless/{__version__}", "Accept-Encoding": "identity", **headers}
        content = body() if callable(body) else body
        return self._pool_for(url).request(
            method, url, body=content, headers=sent, redirect=False, retries=False, preload_content=False
        )

    def _authorize(self, demands: list[str], refused: Secret | None, text: str) -> None:
        """Get a token, or the user's password, as a 401 demands. refused: the header that was sent with the request."""
        # What deals with credentials is loaded by a 401 only: many registries give their images to anyone
        from rootless.image.distribution.token import parse_challenges

        with self._lock:
            if self._authorization is not None and self._authorization is not refused:
                return  # another thread has just got a new one: the caller tries that
            challenges = {each.scheme: each for each in reversed(parse_challenges(demands))}
            if (bearer := challenges.get("bearer")) and bearer.parameters.get("realm"):
                self._authorization = self._get_token(bearer)
                self._has_token = True
            elif "basic" in challenges:
                credentials = self._credentials(self._name)
                if credentials is None or not credentials.user or refused is not None:
                    raise self._unauthorized(text, had_credentials=credentials is not None)
                self._authorization = credentials.basic()
            else:
                raise self._unauthorized(text)

    def _get_token(self, challenge: Challenge) -> Secret:
        from urllib3.exceptions import HTTPError

        from rootless.image.distribution.token import check_realm, is_trusted_realm, parse_token, scopes_of, token_url

        plain = self._scheme == "http"
        realm = check_realm(challenge.parameters["realm"], self.host, registry_is_plain=plain)
        trusted = is_trusted_realm(realm, self._name)
        # The user's own entry for the token server counts where the registry's password must not go
        credentials = self._credentials(self._name if trusted else urlsplit(realm).netloc, own=trusted)
        self.stranger = "" if trusted else urlsplit(realm).netloc
        scopes = scopes_of(challenge, self._scopes)
        url = token_url(challenge, scopes)
        try:
            if credentials is not None and not credentials.user:
                response = self._refresh(challenge, realm, credentials, scopes)
            else:
                headers = {"Authorization": credentials.basic().reveal()} if credentials else {}
                response = self._request("GET", url, headers, attempts=ATTEMPTS)
            status = response.status
            body = response.read(ERROR_LIMIT) if status == 200 else b""
            text = error_text(response) if status != 200 else ""
            response.close()
        except HTTPError as e:
            raise RegistryError(f"cannot reach the token server of '{self._name}': {reason_of(e)}") from e
        if status in (400, 401, 403):
            raise self._unauthorized(text, had_credentials=credentials is not None)
        if status != 200:
            raise RegistryError(f"the token server of registry '{self._name}' answers {status}{after_colon(text)}")
        return parse_token(body, self._name)

    def _refresh(
        self, challenge: Challenge, realm: str, credentials: Credentials, scopes: Sequence[str]
    ) -> BaseHTTPResponse:
        """The answer to a POST that exchanges an identity token for an access token (docker's OAuth2 extension)."""
        from rootless.image.distribution.token import refresh_form

        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._send("POST", realm, headers, refresh_form(challenge, scopes, credentials.secret))

    def _credentials(self, host: str, *, own: bool = True) -> Credentials | None:
        from rootless.image.distribution.auth import find_credentials, parse_credentials

        if own and self._access.credentials is not None:
            return parse_credentials(self._access.credentials)
        return find_credentials(host, self._repository if own else "", authfile=self._access.authfile)

    def _unauthorized(self, text: str, *, had_credentials: bool | None = None) -> AuthenticationError:
        if had_credentials is None:
            had_credentials = self._authorization is not None or self._access.credentials is not None
        about = f" for '{self._repository}'" if self._repository else ""
        if had_credentials and self._credentials(self._name) is not None:
            return AuthenticationError(
                f"registry '{self._name}' does not accept the credentials{about}{after_colon(text)}",
                hint="check user and password; is the repository's name right?" if about else None,
            )
        return AuthenticationError(
            f"registry '{self._name}' wants credentials{about}{after_colon(text)}",
            hint=f"log in with `rootless login {self._name}`, or the image does not exist",
        )

    def refusal(self, response: BaseHTTPResponse, url: str = "") -> RegistryError:
        """The error that an answer means. url: who gave it, when it was not the registry."""
        status = response.status
        netloc = urlsplit(url).netloc or self.host
        text = after_colon(error_text(response))
        host = netloc if self.host != netloc else self._name
        if status == 403:
            about = f" to '{self._repository}'" if self._repository else ""
            return AuthenticationError(f"registry '{host}' denies access{about}{text}")
        if status == 429:
            return RegistryError(f"registry '{host}' has too many requests from here{text}", hint="wait, or log in")
        hint = "is that the address of a registry?" if status < 400 else None
        return RegistryError(f"registry '{host}' answers {status}{text}", hint=hint)

    def _show_warnings(self, response: BaseHTTPResponse) -> None:
        """Pass on each Warning header (distribution-spec "Warnings") once; nothing is done about it."""
        for header in response.headers.getlist("Warning"):
            code, _, rest = header.partition(" ")
            text = rest.partition(" ")[2].strip().removeprefix('"').removesuffix('"').replace('\\"', '"')
            if code == "299" and text and text not in self._warned and len(self._warned) < 20:
                self._warned.add(text)
                if self._warn is not None:
                    self._warn(f"registry '{self._name}' says: {text[:500]}")

    def _pool_for(self, url: str) -> PoolManager:
        """Connections for `url`. What --tls-verify=false permits is for the registry, not for where it redirects to."""
        parts = urlsplit(url)
        if parts.netloc == self.host or (self._unchecked and host_name(parts.netloc) == host_name(self.host)):
            if "" not in self._pools:
                self._pools[""] = self._make_pool(self.host, verify=not self._unchecked)
            return self._pools[""]
        if parts.netloc not in self._pools:
            self._pools[parts.netloc] = self._make_pool(parts.netloc, verify=True)
        return self._pools[parts.netloc]

    def _make_pool(self, host: str, *, verify: bool) -> PoolManager:
        import urllib3

        ours = host == self.host
        context = make_context(host, verify=verify, directory=self._access.certificates if ours else None)
        timeout = urllib3.Timeout(connect=_CONNECT_TIMEOUT, read=_READ_TIMEOUT)
        hostname = None if verify else False  # None: the certificate must be for the host that is asked
        through = proxy_for(host)
        if through is None:
            pool = urllib3.PoolManager(
                ssl_context=context, timeout=timeout, maxsize=_KEPT, blocksize=_BLOCK, assert_hostname=hostname
            )
            # The registry itself is the user's word; where others send us is judged, except what a proxy resolves
            if ours:
                return pool
            from rootless.image.distribution.connection_guard import guard_pool

            return guard_pool(pool)
        user = urlsplit(through)
        headers = None
        if user.username:
            headers = urllib3.make_headers(proxy_basic_auth=f"{user.username}:{user.password or ''}")
        return urllib3.ProxyManager(
            through,
            proxy_headers=headers,
            ssl_context=context,
            timeout=timeout,
            maxsize=_KEPT,
            blocksize=_BLOCK,
            assert_hostname=hostname,
        )
