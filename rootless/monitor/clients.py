"""The monitor's clients: accepts them, sends them output within bounds, hands what they say to one receiver.

Nothing here blocks or reads the container. A client that breaks the protocol or closes its connection is dropped, which
is a detach: the container runs on.
"""

from __future__ import annotations

import _socket as socket  # `socket` itself loads enum and selectors, 1 MB in each idle monitor
import errno
import os
import struct

from rootless.errors import InvalidInput
from rootless.monitor import protocol
from rootless.monitor.loop import READ, WRITE, Loop
from rootless.monitor.protocol import peer_uid
from rootless.paths import open_private

_PAUSE = 1.0  # seconds without new clients after one that no descriptor was left for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Receiver(Protocol):
        """The receiver of what clients say: the supervisor of the container."""

        def on_launch(self, client: Client, request: protocol.LaunchRequest) -> None: ...
        def on_attached(self, client: Client) -> None: ...
        def on_stdin(self, typed: bytes) -> None: ...
        def on_stdin_end(self, client: Client, *, has_left: bool) -> None: ...
        def on_resize(self, rows: int, cols: int) -> None: ...
        def on_kill(self, number: int) -> None: ...
        def on_network(self, client: Client, request: protocol.NetworkRequest) -> None: ...
        def on_drained(self) -> None: ...


MAX_UNSENT = 1 << 20  # bytes; beyond it the container's stream is not read until the client has caught up


class Client:
    """One connection, the streams that it is attached to, and the bytes that it has not read yet."""

    __slots__ = ("connection", "decoder", "fd", "streams", "unsent", "wants_stdin")

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.fd = connection.fileno()
        self.decoder = protocol.Decoder()
        self.unsent = bytearray()
        self.streams: tuple[int, ...] = ()  # STDOUT, STDERR, both or neither
        self.wants_stdin = False


class Clients:
    """All connections, and the socket at which new ones arrive."""

    __slots__ = ("_all", "_listener", "_loop", "_path", "_receiver", "_stdin_paused")

    def __init__(self, loop: Loop, receiver: Receiver) -> None:
        self._loop = loop
        self._receiver = receiver
        self._all: dict[int, Client] = {}
        self._listener: socket.socket | None = None
        self._path = ""
        self._stdin_paused = False

    def adopt_listener(self, path: str, fd: int) -> None:
        """Go on accepting clients at `path`, whose listening socket an earlier image of this process left in `fd`."""
        self._listener, self._path = socket.socket(fileno=fd), path
        self._loop.watch(fd, READ, self._accept)

    @property
    def listener_fd(self) -> int:
        """The descriptor of the listening socket; -1 when there is none."""
        return -1 if self._listener is None else self._listener.fileno()

    def listen(self, path: str) -> None:
        """Accept clients at the socket `path` (mode 0600), whose directory is made private to us; a dead monitor's
        socket is replaced. Raises HostLimit when the directory is another user's, who would get our clients."""
        directory = open_private(os.path.dirname(path))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            # sun_path holds 107 bytes and a home may be longer, so the path goes through the directory's descriptor.
            # The socket is in the very directory whose owner and mode were checked, whatever its name means by now
            try:
                os.unlink(os.path.basename(path), dir_fd=directory)
            except FileNotFoundError:
                pass
            listener.bind(f"/proc/self/fd/{directory}/{os.path.basename(path)}")  # the monitor's umask makes it 0600
            listener.listen(16)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
        finally:
            os.close(directory)
        self._listener, self._path = listener, path
        self._loop.watch(listener.fileno(), READ, self._accept)

    def stop_listening(self) -> None:
        """Remove the socket, so that no further clients come; those that are connected stay."""
        listener, self._listener = self._listener, None
        if listener is not None:
            self._loop.forget(listener.fileno())
            listener.close()
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                pass

    def add(self, connection: socket.socket) -> Client:
        """Serve what is said at `connection` from now on."""
        client = Client(connection)
        self._all[client.fd] = client
        self._watch(client)
        return client

    def __len__(self) -> int:
        return len(self._all)

    def attach(self, client: Client, request: protocol.AttachRequest) -> None:
        """Give `client` the streams that it asks for, and the container's terminal the size of the client's."""
        pairs = ((protocol.STDOUT, request.stdout), (protocol.STDERR, request.stderr))
        client.streams = tuple(kind for kind, is_wanted in pairs if is_wanted)
        client.wants_stdin = request.stdin
        rows, cols = request.size
        if 0 < rows < 1 << 16 and 0 < cols < 1 << 16:
            self._receiver.on_resize(rows, cols)
        self._watch(client)

    def output(self, kind: int, chunk: bytes) -> None:
        """Send a chunk of stream `kind` (STDOUT or STDERR) to the clients that are attached to that stream."""
        if self._all:
            sent = protocol.encode_frame(kind, chunk)
            for client in list(self._all.values()):
                if kind in client.streams:
                    self.send(client, sent)

    def is_behind(self, kind: int) -> bool:
        """Whether a client of stream `kind` has left more than MAX_UNSENT bytes unread."""
        return any(kind in c.streams and len(c.unsent) > MAX_UNSENT for c in self._all.values())

    def are_behind(self) -> bool:
        """Whether bytes are still held here for any client."""
        return any(client.unsent for client in self._all.values())

    def tell_all(self, frame: bytes) -> None:
        """Send a frame to every client."""
        for client in list(self._all.values()):
            self.send(client, frame)

    def send(self, client: Client, frame: bytes) -> None:
        """Send a frame. What a client's socket does not take is kept until the client reads."""
        if client.unsent:
            client.unsent += frame
            return
        sent = 0
        try:
            sent = client.connection.send(frame)
        except BlockingIOError:
            pass
        except OSError:
            self.drop(client)
            return
        if sent < len(frame):
            client.unsent += memoryview(frame)[sent:]
            self._watch(client)

    def pause_stdin(self, *, paused: bool) -> None:
        """Stop, or go on, reading the clients that send stdin. They block then, as a writer to a full pipe does."""
        if paused != self._stdin_paused:
            self._stdin_paused = paused
            for client in self._all.values():
                if client.wants_stdin:
                    self._watch(client)

    def drop(self, client: Client) -> None:
        """Close the connection of `client`, which is detached then; harmless when that has happened before."""
        if self._all.pop(client.fd, None) is None:
            return
        self._loop.forget(client.fd)
        client.connection.close()
        if client.wants_stdin:
            self._receiver.on_stdin_end(client, has_left=True)
        self._receiver.on_drained()

    def _watch(self, client: Client) -> None:
        events = WRITE if client.unsent else 0
        if not (self._stdin_paused and client.wants_stdin):
            events |= READ
        self._loop.watch(client.fd, events, lambda ready: self._serve(client, ready))

    def _accept(self, _events: int) -> None:
        if self._listener is None:
            return
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]
            connection = socket.socket(fileno=fd)
            os.set_inheritable(fd, False)
        except OSError as e:
            if e.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                # The connection stays in the queue, so that the loop would spin on it: the client waits until others
                # have gone. An error here would end the monitor, and the container with it
                self._loop.forget(self.listener_fd)
                self._loop.later(_PAUSE, self._accept_again)
            return  # the client has given up: accept(2) passes on what is wrong with the connection
        if peer_uid(connection) != os.geteuid():
            # A client can have signals sent to the container and read its output. The socket's mode 0600 keeps other
            # users out as well; the kernel's word holds also where the directory's mode was changed by hand
            connection.close()
            return
        self.add(connection)

    def _accept_again(self) -> None:
        if self._listener is not None:
            self._loop.watch(self.listener_fd, READ, self._accept)

    def _serve(self, client: Client, ready: int) -> None:
        if ready & WRITE and client.unsent:
            try:
                del client.unsent[: client.connection.send(client.unsent)]
            except BlockingIOError:
                pass
            except OSError:
                self.drop(client)
                return
            if not client.unsent:
                self._watch(client)
                self._receiver.on_drained()
        if ready & ~WRITE:
            self._read(client)

    def _read(self, client: Client) -> None:
        try:
            received = client.connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self.drop(client)
            return
        try:
            for kind, payload in client.decoder.feed(received):
                self._take(client, kind, payload)
        except (InvalidInput, ValueError, struct.error):
            self.drop(client)

    def _take(self, client: Client, kind: int, payload: bytes) -> None:
        receiver = self._receiver
        if kind == protocol.STDIN:
            if client.wants_stdin:
                receiver.on_stdin(payload)
        elif kind == protocol.STDIN_EOF:
            if client.wants_stdin:
                receiver.on_stdin_end(client, has_left=False)
        elif kind == protocol.RESIZE:
            receiver.on_resize(*protocol.SIZE.unpack(payload))
        elif kind == protocol.SIGNAL:
            receiver.on_kill(payload[0] if payload else 0)
        elif kind == protocol.ATTACH:
            self.attach(client, protocol.AttachRequest.from_json(protocol.read_payload(payload)))
            receiver.on_attached(client)
        elif kind == protocol.NETWORK:
            receiver.on_network(client, protocol.NetworkRequest.from_json(protocol.read_payload(payload)))
        elif kind == protocol.LAUNCH:
            receiver.on_launch(client, protocol.LaunchRequest.from_json(protocol.read_payload(payload)))
        else:
            raise InvalidInput(f"frame type {kind} from a client")
