"""slirp4netns: its arguments and its socket for port forwarding. The rung below pasta; same addresses."""

from __future__ import annotations

import errno
import json
import os
import socket
import time

from rootless.errors import HostLimit
from rootless.host.facts import find_helper
from rootless.network import addresses, pasta, ports
from rootless.network.helper import NETWORK_NAMESPACE, READY_FD, Helper, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.network.ports import Port

PROGRAM = "slirp4netns"
_MAX_ANSWER = 65536  # bytes
_ANSWER_TIMEOUT = 10.0  # seconds


def start(pid: int, network: dict[str, Any]) -> Helper:
    """As pasta.start. IPv6 host addresses cannot be published: HostLimit."""
    program = find_helper(PROGRAM)
    if program is None:
        raise pasta.missing_helper(PROGRAM, PROGRAM)
    pasta.require_tun()
    published = ports.allocate(ports.Port.from_json(p) for p in network.get("ports") or ())
    for port in published:
        if ":" in port.host_ip:
            raise HostLimit(f"cannot publish {port}: slirp4netns forwards no IPv6 address", hint="use --network=pasta")
    api = _socket_path(network.get("runtime_dir")) if published else None
    child, ready, errors = spawn(arguments(program, api, is_sandboxed=_is_root_inside(pid)), pid)

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
        child,
        (ready, errors),
        published,
        pasta.facts(published),
        explain=lambda words: pasta.tun_error(words) if "/dev/net/tun" in words else None,
        on_ready=forward if api else None,
    )


def arguments(program: str, api: str | None, *, is_sandboxed: bool = True) -> list[str]:
    """The command line; the process is in the container's user namespace already.

    is_sandboxed: it gives up the file system first (against bugs of its TCP/IP stack), which needs to be root there.
    """
    argv = [
        program,
        "--configure",
        f"--mtu={addresses.MTU}",
        "--disable-host-loopback",  # the gateway's address would be the host's loopback
        f"--cidr={addresses.NETWORK}/{addresses.PREFIX}",
        f"--ready-fd={READY_FD}",
        "--netns-type=path",
        "--enable-seccomp",
    ]
    if is_sandboxed:
        argv.append("--enable-sandbox")
    if addresses.host_address(socket.AF_INET6) is not None:
        argv.append("--enable-ipv6")
    if api is not None:
        argv.append(f"--api-socket={api}")
    return [*argv, NETWORK_NAMESPACE, addresses.INTERFACE]


def _is_root_inside(pid: int) -> bool:
    """Are we uid 0 of the user namespace of `pid`? (Not with keep-id.)"""
    try:
        with open(f"/proc/{pid}/uid_map") as f:
            extents = [tuple(map(int, line.split())) for line in f]
    except OSError:
        return False
    return any(inside == 0 and outside == os.geteuid() for inside, outside, _ in extents)


def _await_socket(path: str) -> None:
    """It says that it is ready a moment before it binds its socket; add_forward reports one that never comes."""
    deadline = time.monotonic() + _ANSWER_TIMEOUT
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.001)


def add_forward(api: str, port: Port) -> None:
    """Forward one port through the helper's socket. Raises HostLimit with its words."""
    request = {
        "execute": "add_hostfwd",
        "arguments": {
            "proto": port.protocol,
            "host_addr": port.host_ip or "0.0.0.0",  # noqa: S104 - docker's default
            "host_port": port.host_port,
            "guest_addr": addresses.CONTAINER,
            "guest_port": port.container_port,
        },
    }
    try:
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
        said = json.loads(answer)
    except (OSError, ValueError) as e:
        raise HostLimit(f"cannot publish {port}: slirp4netns does not answer: {e}") from e
    if "error" in said:
        words = str(said["error"].get("desc", said["error"])) if isinstance(said["error"], dict) else str(said["error"])
        if "hostfwd" in words:  # the bind failed after our own test of the port
            raise ports.refused(port.host_ip, port.host_port, OSError(errno.EADDRINUSE, words))
        raise HostLimit(f"cannot publish {port}: slirp4netns: {words}")


def _socket_path(directory: str | None) -> str:
    """A path in a new private directory, short enough for a socket address."""
    for parent in (directory, os.environ.get("XDG_RUNTIME_DIR"), "/tmp"):  # noqa: S108 - made 0700 under a random name
        if not parent or len(parent) > 60:
            continue
        private = f"{parent}/slirp-{os.urandom(6).hex()}"
        try:
            os.mkdir(private, 0o700)
        except OSError:
            continue
        return f"{private}/api"
    raise HostLimit("slirp4netns: no directory for its control socket", hint="set XDG_RUNTIME_DIR")


def _remove_socket(path: str) -> None:
    for remove, name in ((os.unlink, path), (os.rmdir, os.path.dirname(path))):
        try:
            remove(name)
        except OSError:
            pass
