"""A front before Debian's docker-registry that misbehaves on demand, and a token server that plays tricks.

A fault is a function that sees each request: it answers in its own way and returns True, or False to pass it on.
"""

from __future__ import annotations

import base64
import http.client
import http.server
import json
import socket
import threading
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

Fault = Callable[["Handler"], bool]
PIECE = 1 << 16


class Seen(NamedTuple):
    """One request. body: bytes that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: int


class Handler(http.server.BaseHTTPRequestHandler):
    """Passes requests on to the real registry."""

    protocol_version = "HTTP/1.1"
    server: Server

    def handle_any(self) -> None:
        self.body = 0
        front = self.server.front
        try:
            if not any(fault(self) for fault in list(front.faults)):
                self.forward()
        except (ConnectionError, http.client.HTTPException):
            self.close_connection = True
        front.seen.append(Seen(self.command, self.path, dict(self.headers), self.body))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def pieces(self, most: int | None = None) -> Any:
        """The body as it comes; most: stop after that many bytes."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline().strip() or b"0", 16):
                piece = self.rfile.read(size)
                self.rfile.readline()
                self.body += len(piece)
                yield piece
                if most is not None and self.body >= most:
                    return
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read(min(left, PIECE))
            if not piece:
                raise ConnectionError
            left -= len(piece)
            self.body += len(piece)
            yield piece
            if most is not None and self.body >= most:
                return

    def forward(self, *, path: str | None = None, edit: Callable[[dict[str, str]], None] | None = None) -> None:
        """Ask the registry and give its answer. edit: changes the answer's headers."""
        body = b"".join(self.pieces())
        status, headers, answer = self.server.front.ask(self.command, path or self.path, dict(self.headers), body)
        if edit is not None:
            edit(headers)
        self.answer(status, answer, headers)

    def answer(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, length: int | None = None
    ) -> None:
        """Send an answer. length: what Content-Length says, when it is not the truth."""
        self.send_response(status)
        for key, value in (headers or {}).items():
            if key.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(key, value)
        told = (headers or {}).get("Content-Length", str(len(body))) if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", told if length is None else str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        if length is not None and length != len(body):
            self.reset()

    def reset(self) -> None:
        """Break the connection."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()

    def refuse_body(self) -> None:
        """Read what is still to come, so that the next request on the connection is not mistaken for it."""
        for _ in self.pieces():
            pass

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    front: Front
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # broken connections are what it is for


class Front:
    """`address` is what tests push to and pull from; `seen` are its requests; `faults` are asked first."""

    def __init__(self, registry: str = "") -> None:
        self.registry = registry
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.front = self
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        """One request to the real registry, whose own address is replaced by ours."""
        connection = http.client.HTTPConnection(self.registry, timeout=30)
        try:
            kept = {key: value for key, value in headers.items() if key.lower() not in ("transfer-encoding", "host")}
            kept["Host"] = self.address
            if body or method in ("POST", "PUT", "PATCH"):
                kept["Content-Length"] = str(len(body))
            connection.request(method, path, body, kept)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def count(self, method: str, part: str = "") -> int:
        """How many requests of that kind came."""
        return sum(1 for each in self.seen if each.method == method and part in each.path)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def times(count: int, matches: Callable[[Handler], bool], act: Callable[[Handler], None]) -> Fault:
    """A fault for the first `count` requests that match."""
    lock = threading.Lock()
    left = count

    def fault(handler: Handler) -> bool:
        nonlocal left
        if not matches(handler):
            return False
        with lock:
            if not left:
                return False
            left -= 1
        act(handler)
        return True

    return fault


def is_request(method: str, part: str) -> Callable[[Handler], bool]:
    """Matches a method and a part of the path."""
    return lambda handler: handler.command == method and part in handler.path


class Tokens:
    """Bearer tokens as docker's token server gives them. user, password: demanded for a token that may push.

    scopes: what was asked for. lifetime: requests that a token is good for.
    """

    def __init__(self, user: str = "me", password: str = "secret", lifetime: int = 1 << 30) -> None:
        self.user, self.password = user, password
        self.lifetime = lifetime
        self.scopes: list[list[str]] = []
        self.refused_scopes: tuple[str, ...] = ()
        self.uses: dict[str, int] = {}
        self._lock = threading.Lock()

    def fault(self, front: Front) -> Fault:
        """What guards the registry behind `front`."""

        def guard(handler: Handler) -> bool:
            if handler.path.startswith("/token"):
                self._give(handler)
                return True
            token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
            with self._lock:
                left = self.uses.get(token, 0)
                if left > 0:
                    self.uses[token] = left - 1
                    return False
            handler.refuse_body()
            challenge = f'Bearer realm="http://{front.address}/token",service="test"'
            handler.answer(401, b"{}", {"WWW-Authenticate": challenge})
            return True

        return guard

    def _give(self, handler: Handler) -> None:
        asked = parse_qs(urlsplit(handler.path).query).get("scope", [])
        expected = "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        if handler.headers.get("Authorization") != expected:
            handler.answer(401, b'{"errors": [{"message": "wrong password"}]}')
            return
        if any(part in scope for part in self.refused_scopes for scope in asked):
            handler.answer(403, b'{"errors": [{"message": "not for you"}]}')
            return
        with self._lock:
            self.scopes.append(asked)
            token = f"token-{len(self.scopes)}"
            self.uses[token] = self.lifetime
        handler.answer(200, json.dumps({"token": token}).encode())
