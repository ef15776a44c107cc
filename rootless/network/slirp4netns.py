"""slirp4netns: its arguments and its socket for port forwarding. The rung below pasta; same addresses."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import stat
import time

from rootless.errors import HostLimit, UsageError
from rootless.network import addresses
from rootless.network.helper import (
    NETWORK_NAMESPACE,
    READY_FD,
    Helper,
    connection_facts,
    require_tun,
    spawn_helper,
    tun_error,
)
from rootless.paths import runtime_base
from rootless.records.fields import parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rootless.host.probes.result import Probe
    from rootless.kernel.namespaces import OpenNetwork
    from rootless.records.port import Port

PROGRAM = "slirp4netns"
_SANDBOX = ("--enable-sandbox",)
"""slirp4netns gives up its view of the file system, so that a packet which takes over its TCP/IP stack finds no files.
Only root of its user namespace can do that."""
_PREFIX, _API = "slirp-", "api"  # the directory of a helper's socket, and the socket
_MAX_ANSWER = 65536  # bytes
_ANSWER_TIMEOUT = 10.0  # seconds
_PROBE_TIMEOUT = 10.0  # seconds


def check_options(options: Sequence[str]) -> None:
    """Raise UsageError: slirp4netns is always called with the same options."""
    raise UsageError(
        f"network mode '{PROGRAM}' takes no options: '{','.join(options)}'", hint=f"use --network={PROGRAM}"
    )


def start(program: str, target: OpenNetwork, ports: Iterable[Port], options: Sequence[str] = ()) -> Helper:
    """Connect the network namespace `target` as pasta.start does; `options` is empty.

    Raises HostLimit also for a published IPv6 address of the host, which slirp4netns cannot forward.
    """
    require_tun()
    published = list(ports)
    if published:
        from rootless.network.ports import allocate_ports

        published = allocate_ports(published)
    for port in published:
        _refuse_ipv6(port)
    api = _socket_path() if published else None
    started = spawn_helper(build_arguments(program, api), target, as_root=_SANDBOX)

    def forward() -> None:
        assert api is not None
        try:
            _await_socket(api)
            for port in published:
                add_forward(api, port)
        finally:
            _remove_socket(api)

    return Helper(
        PROGRAM,
        started,
        connection_facts(published),
        explain=lambda words: tun_error(words) if "/dev/net/tun" in words else None,
        on_ready=forward if api else None,
    )


class SharedHelper:
    """slirp4netns for a network that containers share: their ports are added and removed while it runs.

    Its interface is INTERFACE of the network's namespace, with the address addresses.CONTAINER. Packets from containers
    reach it by routing, and it finds them by ARP, which the namespace answers.
    """

    __slots__ = ("_api", "helper")

    def __init__(self, program: str, target: OpenNetwork, owner: str) -> None:
        """Start the program at this path, and wait until it has configured the network. Raises HostLimit.

        owner: the caller's word, by which `remove_sockets` finds the socket when the caller was killed.
        """
        require_tun()
        self._api = _socket_path(owner)
        *options, namespace, _ = build_arguments(program, self._api)
        arguments = [*options, "--disable-dns", namespace, addresses.SHARED_INTERFACE]
        self.helper = Helper(
            PROGRAM,
            spawn_helper(arguments, target, as_root=_SANDBOX),
            connection_facts(()),
            explain=lambda words: tun_error(words) if "/dev/net/tun" in words else None,
            on_ready=lambda: _await_socket(self._api),
        )
        try:
            self.helper.ready()
        except BaseException:
            _remove_socket(self._api)
            raise

    def publish(self, port: Port, guest: str) -> int:
        """Forward a port of the host to the container at address `guest`; returns the number for `withdraw`.

        Raises HostLimit in docker's words.
        """
        _refuse_ipv6(port)
        return add_forward(self._api, port, guest)

    def withdraw(self, number: int) -> None:
        """End the forwarding of a port; harmless when the helper has ended."""
        try:
            _request(self._api, {"execute": "remove_hostfwd", "arguments": {"id": number}})
        except (OSError, ValueError):
            pass

    def stop(self) -> None:
        """End the helper, and with it all its ports."""
        _remove_socket(self._api)
        self.helper.stop()


def _refuse_ipv6(port: Port) -> None:
    if ":" in port.host_ip:
        raise HostLimit(f"cannot publish {port}: slirp4netns forwards no IPv6 address", hint="use --network=pasta")


def build_arguments(program: str, api: str | None) -> list[str]:
    """The command line, but for _SANDBOX; the process is in the container's user namespace already."""
    argv = [
        program,
        "--configure",
        f"--mtu={addresses.MTU}",
        # Without it the gateway's address is the host's loopback: a container would reach every service that the host
        # offers to itself only
        "--disable-host-loopback",
        f"--cidr={addresses.NETWORK}/{addresses.PREFIX}",
        f"--ready-fd={READY_FD}",
        "--netns-type=path",
        "--enable-seccomp",
    ]
    if addresses.host_address(socket.AF_INET6) is not None:
        argv.append("--enable-ipv6")
    if api is not None:
        argv.append(f"--api-socket={api}")
    return [*argv, NETWORK_NAMESPACE, addresses.INTERFACE]


def _await_socket(path: str) -> None:
    """Wait until the helper has bound its socket, which it does a moment after it has said that it is ready.

    A socket that never comes is no error here: add_forward reports it.
    """
    deadline = time.monotonic() + _ANSWER_TIMEOUT
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.001)


def add_forward(api: str, port: Port, guest: str = addresses.CONTAINER) -> int:
    """Forward one port to the address `guest` by a request to the helper's socket; returns the forwarding's number.

    Raises HostLimit with the helper's words.
    """
    request = {
        "execute": "add_hostfwd",
        "arguments": {
            "proto": port.protocol,
            "host_addr": port.host_ip or "0.0.0.0",  # noqa: S104 - docker's default
            "host_port": port.host_port,
            "guest_addr": guest,
            "guest_port": port.container_port,
        },
    }
    try:
        said = _request(api, request)
    except (OSError, ValueError) as e:
        raise HostLimit(f"cannot publish {port}: slirp4netns does not answer: {e}") from e
    match said:
        case {"return": {"id": int(number)}}:
            return number
        case {"error": {"desc": error}} | {"error": error}:
            words = str(error)
        case _:
            words = "it answers what is no answer"
    if "hostfwd" in words:  # another process has taken the port since we found it free
        from rootless.network.ports import bind_error

        raise bind_error(port.host_ip, port.host_port, OSError(errno.EADDRINUSE, words))
    raise HostLimit(f"cannot publish {port}: slirp4netns: {words}")


def _request(api: str, request: Mapping[str, object]) -> object:
    """Send a request to the helper's socket, and return its answer. Raises OSError, ValueError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as s:
        s.settimeout(_ANSWER_TIMEOUT)
        s.connect(api)
        s.sendall(json.dumps(request).encode())
        s.shutdown(socket.SHUT_WR)
        answer = b""
        while len(answer) < _MAX_ANSWER:
            chunk = s.recv(4096)
            if not chunk:
                break
            answer += chunk
    return parse_json(answer)


def _parents() -> list[str]:
    """Where the directory of a socket can be, the best place first."""
    return [parent for parent in (runtime_base(), "/tmp") if parent and len(parent) <= 60]  # noqa: S108 - see below


def _prefix(owner: str) -> str:
    """How the names of the directories begin that `_socket_path` makes for this owner."""
    from zlib import crc32

    return f"{_PREFIX}{crc32(owner.encode()):08x}-" if owner else _PREFIX


def _socket_path(owner: str = "") -> str:
    """A path in a new private directory, short enough for a socket address (108 bytes, unix(7)). Raises HostLimit.

    The directory is for its owner alone: whoever may connect to the socket can forward ports into the container.
    """
    for parent in _parents():  # in /tmp too it is made 0700, under a random name
        private = f"{parent}/{_prefix(owner)}{os.urandom(6).hex()}"
        try:
            os.mkdir(private, 0o700)
        except OSError:
            continue
        return f"{private}/{_API}"
    raise HostLimit("slirp4netns: no directory for its control socket", hint="set XDG_RUNTIME_DIR")


def remove_sockets(owner: str) -> None:
    """Remove the sockets of this owner's helpers, which have all ended."""
    for parent in _parents():
        try:
            entries = [entry for entry in os.listdir(parent) if entry.startswith(_prefix(owner))]
        except OSError:
            continue
        for entry in entries:
            private = f"{parent}/{entry}"
            try:
                status = os.lstat(private)
            except OSError:
                continue
            # Anybody may put a link of that name into /tmp; what is ours there nobody else can replace
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
                _remove_socket(f"{private}/{_API}")


def _remove_socket(path: str) -> None:
    for remove, name in ((os.unlink, path), (os.rmdir, os.path.dirname(path))):
        try:
            remove(name)
        except OSError:
            pass


def connect_once(program: str) -> Probe:
    """Attach slirp4netns once to a network namespace, and say whether that worked."""
    from rootless.host.probes.network import tun_remedy
    from rootless.host.probes.result import Probe

    release_read, release_write = os.pipe()
    made_read, made_write = os.pipe()
    target = os.fork()
    if target == 0:
        try:
            from rootless.host import userns
            from rootless.host.idmap import single_map
            from rootless.kernel.namespaces import CLONE_NEWNET, unshare

            os.close(release_write)
            userns.enter_new_namespace(single_map(0, 0))
            unshare(CLONE_NEWNET)
            os.write(made_write, b"+")
            os.read(release_read, 1)
        finally:
            os._exit(0)
    os.close(made_write)
    try:
        if not os.read(made_read, 1):
            raise HostLimit("cannot make a network namespace")
        words = _attach_slirp(program, target)
    finally:
        os.close(release_write)
        os.waitpid(target, 0)
    if words is not None:
        return Probe(PROGRAM, False, f"'{program}' failed: {words}", tun_remedy())
    return Probe(PROGRAM, True, f"{program} connected a network namespace")


def _attach_slirp(program: str, target: int) -> str | None:
    """Attach slirp4netns to the network of process `target`; None once it says that it is ready, else what it said."""
    ready_read, ready_write = os.pipe()
    error_read, error_write = os.pipe()
    above = os.dup(ready_write)  # dup2 of fd 3 to itself would leave it close-on-exec
    child = os.posix_spawn(
        program,
        [program, "--configure", "--mtu=65520", "--disable-host-loopback", "--ready-fd=3", str(target), "tap0"],
        {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, error_write, 2),
            (os.POSIX_SPAWN_DUP2, error_write, 1),
            (os.POSIX_SPAWN_DUP2, above, 3),
        ],
        setsigdef=(signal.SIGPIPE,),
    )
    os.close(above)
    os.close(ready_write)
    os.close(error_write)
    try:
        if select.select([ready_read], [], [], _PROBE_TIMEOUT)[0] and os.read(ready_read, 1):
            return None
        os.kill(child, signal.SIGTERM)
        lines = os.read(error_read, 4096).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"not ready within {_PROBE_TIMEOUT:.0f} s"
    finally:
        try:
            os.kill(child, signal.SIGTERM)
        except ProcessLookupError:
            pass
        os.waitpid(child, 0)
