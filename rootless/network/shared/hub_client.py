"""The connection of a container's monitor to the process that serves networks, which is started when none is there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket

from rootless.errors import HostLimit, InvalidState, RootlessError
from rootless.host import interpreter
from rootless.host.answer import error_from_json
from rootless.kernel.procfs import start_time
from rootless.network.shared.member_paths import LOCK, SOCKET, leave, member_file, shared_directory
from rootless.paths import Lock, atomic_write, open_private
from rootless.records.fields import Fields, parse_json
from rootless.records.membership import MemberFile, Membership
from rootless.records.state import NetworkFacts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from rootless.records.id_map import IdMap
    from rootless.records.membership import Attachment

    class NetworkChange(Protocol):
        """What `change` is asked for: a new attachment, or the id of the network that the container leaves."""

        attach: Attachment | None
        detach: str


_MESSAGE = 1 << 18  # bytes
_PATIENCE = 30.0  # seconds for an answer: the process may have a queue of starts, and start a helper for each network
_ATTEMPTS = 5  # at a process that ends in the moment when somebody connects
_HUB_FD = 3
_MOST_FDS = 64
_PASSED_ON = ("HOME", "USER", "PATH", "XDG_RUNTIME_DIR", "TMPDIR")


class NetworkPlace:
    """A container that is on networks, as its monitor sees it.

    membership: with the addresses that it has; namespaces: those that were made for it, by the words of the OCI runtime
    specification, which are the caller's; warnings: lines for the user; held: descriptors that stay open as long as the
    container is on its networks. The first of them is the connection: it ends when the process at its other end does.
    """

    __slots__ = ("directory", "held", "membership", "namespaces", "warnings")

    def __init__(self, directory: str, membership: Membership) -> None:
        self.directory = directory
        self.membership = membership
        self.namespaces: dict[str, int] = {}
        self.held: list[int] = []
        self.warnings: list[str] = []

    def facts(self) -> NetworkFacts:
        """What state.json and `inspect` say."""
        return network_facts(self.membership)

    def leave(self) -> None:
        """Leave all networks that the container is on."""
        leave(member_file(self.directory, self.membership.container_id), self.held)
        self.held = []


def network_facts(membership: Membership) -> NetworkFacts:
    """What state.json and `inspect` say of a container on these networks; its addresses are those on the first."""
    facts = NetworkFacts(ports=list(membership.ports))
    for first in membership.attachments[:1]:
        facts = NetworkFacts(first.ip, first.prefix, first.gateway, first.mac, facts.ports)
    facts.attachments = list(membership.attachments)
    return facts


def join(runtime_dir: str, membership: Membership, id_map: IdMap, kinds: Sequence[str]) -> NetworkPlace:
    """Put a container that is to start on its networks.

    id_map: of the user namespace that is made for it; kinds: the types of namespaces that it wants. Raises
    RootlessError.
    """
    directory = shared_directory(runtime_dir)
    request = {"op": "join", "membership": membership.to_json(), "id_map": id_map.to_json(), "kinds": list(kinds)}
    connection, answer, fds = _ask(directory, request, ())
    try:
        fields = Fields(answer, "answer")
        made = fields.texts("kinds")
        member = NetworkPlace(directory, Membership.from_json(fields.require_member("membership")))
        member.warnings = fields.texts("warnings")
        member.namespaces = dict(zip(made, fds, strict=False))
        shared = fds[len(made) :]
        network_fd = os.dup(member.namespaces["network"])
        member.held = [connection.detach(), network_fd, *shared]
        _write_file(member, network_fd, shared)
    except BaseException:
        connection.close()
        for fd in fds:
            os.close(fd)
        raise
    return member


def _write_file(member: NetworkPlace, network_fd: int, shared: Sequence[int]) -> None:
    """Note by which descriptors of this process the container's namespaces are found."""
    pid = os.getpid()
    file = MemberFile(member.membership, (pid, start_time(pid)), network_fd)
    ids = [attachment.network_id for attachment in member.membership.attachments]
    file.shared_fds = dict(zip(ids, shared, strict=True))
    _write(member.directory, file)


def _write(directory: str, file: MemberFile) -> None:
    path = member_file(directory, file.membership.container_id)
    try:
        atomic_write(path, json.dumps(file.to_json()).encode(), durable=False)
    except OSError as e:
        raise HostLimit(f"cannot write '{path}': {e.strerror}") from e


def change(
    runtime_dir: str, container_id: str, held: list[int], request: NetworkChange
) -> tuple[Membership, list[str]]:
    """Put a container that runs on one more network, or let it leave one; its networks then, and lines for the user.

    held: the descriptors by which it is on its networks, among which that of the network comes or goes. Raises
    RootlessError, when nothing has changed: a file that cannot be written afterwards is a line for the user.
    """
    directory = shared_directory(runtime_dir)
    file = _read_file(member_file(directory, container_id))
    _write(directory, file)  # on a full disk nothing is changed
    if request.attach is not None:
        message: dict[str, object] = {"op": "attach", "attachment": request.attach.to_json()}
    else:
        message = {"op": "detach", "network_id": request.detach}
    try:
        with socket.socket(fileno=os.dup(held[0])) as connection:
            answer, given = _exchange(connection, json.dumps(message).encode(), (held[1],))
    except OSError as e:
        raise HostLimit(f"the process that serves networks does not answer: {e.strerror or e}") from e
    fields = Fields(answer, "answer")
    warnings = fields.texts("warnings")
    file.membership = Membership.from_json(fields.require_member("membership"))
    if request.attach is not None:
        file.shared_fds[request.attach.network_id] = given[0]
        held.append(given[0])
    else:
        gone = file.shared_fds.pop(request.detach, -1)
        if gone in held:
            held.remove(gone)
            os.close(gone)
    try:
        _write(directory, file)
    except HostLimit as e:
        warnings.append(e.message)
    return file.membership, warnings


def _read_file(path: str) -> MemberFile:
    """A member's file. Raises InvalidState when it cannot be read."""
    try:
        with open(path, "rb") as content:
            return MemberFile.from_json(parse_json(content.read(_MESSAGE)), path)
    except (OSError, ValueError) as e:
        raise InvalidState(f"cannot find what the container has on its networks: {e}") from e


def resume(runtime_dir: str, container_id: str) -> int:
    """Connect again after the process at the other end has ended; returns the new connection. Raises RootlessError.

    The member's file says what the container has, by numbers of this process's descriptors.
    """
    directory = shared_directory(runtime_dir)
    file = _read_file(member_file(directory, container_id))
    request = {
        "op": "resume", "membership": file.membership.to_json(), "networks": list(file.shared_fds),
    }  # fmt: skip
    connection, _, _ = _ask(directory, request, (file.network_fd, *file.shared_fds.values()))
    return connection.detach()


def rename(runtime_dir: str, container_id: str, name: str) -> None:
    """Let a container that may be on networks be found by another name. Nothing happens where none is."""
    directory = shared_directory(runtime_dir)
    path = member_file(directory, container_id)
    try:
        with open(path, "rb") as content:
            file = MemberFile.from_json(parse_json(content.read(_MESSAGE)), path)
        file.membership.name = name
        atomic_write(path, json.dumps(file.to_json()).encode(), durable=False)
        connection, _, _ = _ask(directory, {"op": "rename", "container_id": container_id, "name": name}, ())
        connection.close()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as e:
        raise InvalidState(f"the networks still know the container by its old name: {e}") from e


def _ask(directory: str, request: Mapping[str, object], fds: Sequence[int]) -> tuple[socket.socket, object, list[int]]:
    """Send a request; the connection, the answer and the descriptors that came with it. Raises RootlessError."""
    content = json.dumps(request).encode()
    failure: OSError | None = None
    for _ in range(_ATTEMPTS):
        try:
            connection = _connect(directory)
        except OSError as e:
            raise HostLimit(f"cannot reach the process that serves networks: {e.strerror}") from e
        try:
            answer, given = _exchange(connection, content, fds)
        except OSError as e:  # it has ended since, and another one is started
            connection.close()
            failure = e
            continue
        except RootlessError:
            connection.close()
            raise
        return connection, answer, given
    raise HostLimit(f"the process that serves networks ends again and again{f': {failure}' if failure else ''}")


def _exchange(connection: socket.socket, content: bytes, fds: Sequence[int]) -> tuple[object, list[int]]:
    """Send a request, and return the answer and the descriptors that came with it.

    Raises OSError when the connection has ended, and the error that the answer is.
    """
    connection.settimeout(_PATIENCE)
    socket.send_fds(connection, [content], list(fds))
    said, given, _, _ = socket.recv_fds(connection, _MESSAGE, _MOST_FDS)
    if not said:
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    connection.setblocking(True)
    for fd in given:
        os.set_inheritable(fd, False)
    answer = parse_json(said)
    if isinstance(answer, dict) and "error" in answer:
        raise _as_ours(error_from_json(answer["error"]))
    return answer, given


def _as_ours(error: RootlessError | OSError) -> RootlessError:
    if isinstance(error, RootlessError):
        return error
    hint = None
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and (error.filename or "").startswith("/proc/sys"):
        hint = "a network with a name wants to write there; inside another container: run that one with --privileged"
    where = f" ('{error.filename}')" if error.filename else ""
    return HostLimit(f"cannot connect the container with its networks: {error.strerror}{where}", hint=hint)


def _connect(directory: str) -> socket.socket:
    """A connection to the process that serves the networks, which is started when none is there. Raises OSError."""
    here = open_private(directory)
    path = f"/proc/self/fd/{here}/{SOCKET}"  # a socket's address has 107 bytes at most, and a home may be longer
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        try:
            connection.connect(path)
            return connection
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        with Lock(f"{directory}/{LOCK}"):
            try:
                connection.connect(path)
                return connection
            except FileNotFoundError:
                pass
            except ConnectionRefusedError:
                os.unlink(path)  # of a process that was killed
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as listener:
                listener.bind(path)
                listener.listen(128)
                _spawn(listener, directory)
            connection.connect(path)
        return connection
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(here)


def _spawn(listener: socket.socket, directory: str) -> None:
    """Start the process that serves networks. It keeps none of our descriptors but the socket, at which it listens."""
    argv = interpreter.worker_command("rootless.network.shared.hub", directory)
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    moved = fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD_CLOEXEC, 10)
    log = os.open(f"{directory}/log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    null = "/dev/null"
    try:
        os.posix_spawn(
            argv[0],
            argv,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, moved, _HUB_FD),
                (os.POSIX_SPAWN_OPEN, 0, null, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, null, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
            setsid=True,
        )
    finally:
        os.close(moved)
        os.close(log)
