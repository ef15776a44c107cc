"""Tries a network helper on a network that is made for the trial, and says what it gets wrong. Nothing leaves the host.

The trial has a network namespace in the place of the host's, with an address that nobody else has, and in that one a
second namespace in the place of a container's, which the helper connects.
"""

from __future__ import annotations

import os
import select
import socket
import time

from rootless.errors import HostLimit
from rootless.kernel.namespaces import CLONE_NEWNET, OpenNetwork, switch_on_loopback, unshare
from rootless.kernel.process import end_with_parent
from rootless.network import addresses
from rootless.records.port import Port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from rootless.host.probes.result import Probe
    from rootless.network.mode import HelperModule, HelperProgram

# RFC 5737 keeps these for documentation
_HOST, _PREFIX, _GATEWAY = "198.51.100.2", 24, "198.51.100.1"
_INTERFACE = "trial0"
_SERVER_PORT, _BANNER_PORT = 7, 22
_GO, _LONGEST = b"+", 1024  # what the two processes of a trial send each other
_LINE = b"the end\n"
_CONNECTIONS = 3
_DELAY = 0.02  # seconds; what comes before the client has closed its side is passed on well by every version of pasta
_PATIENCE = 3.0  # seconds; a helper without the flaw needs 0.02

LOSES_ENDS = "it sends data twice, and never the end, to who has closed its own side of a connection"
LOSES_BANNERS = "clients beyond this host never hear a server that speaks first (ssh, MySQL)"
HIDES_LOOPBACK = "connections to published ports from this host's loopback seem to come from the container's own"


def try_helper(helper: HelperProgram, directory: str) -> Probe:
    """Connect this host's network with the helper, and find out in a network of the trial's own what it gets wrong.

    directory: where scratch files may lie. Never raises for what the host lacks.
    """
    from rootless.host.probes import TIMEOUT
    from rootless.host.probes.trial import attempt_probe

    return attempt_probe(helper.name, lambda _: _try_both(helper), directory, TIMEOUT)


def _try_both(helper: HelperProgram) -> Probe:
    from rootless.host.probes.result import Probe
    from rootless.host.remedies import package_remedy

    program = helper.path()
    if program is None:
        return Probe(helper.name, False, f"program '{helper.name}' is missing", package_remedy(helper.package))
    module = helper.load()
    found = module.connect_once(program)
    flaw = find_flaw(module, program) if found.works else ""
    if not flaw:
        return found
    remedy = f"ask the administrator for a newer version of the package {helper.package}"
    return Probe(helper.name, True, f"{program} connected a network namespace, but {flaw}", remedy, flaw=flaw)


def find_flaw(module: HelperModule, program: str) -> str:
    """What the helper at path `program` gets wrong, as a clause, "" for nothing.

    To be called in a child with one thread, which is in the namespaces of the trial afterwards. Raises HostLimit,
    OSError when the helper connects nothing.
    """
    from rootless.host import userns
    from rootless.host.idmap import single_map

    userns.enter_new_namespace(single_map(0, 0))
    unshare(CLONE_NEWNET)
    tap = _connect_host()
    _serve_lines()
    ours, theirs = socket.socketpair()
    container = os.fork()
    if container == 0:
        ours.close()
        _be_the_container(theirs)
    theirs.close()
    _expect(ours.recv(_LONGEST))
    target = OpenNetwork.of_process(container)
    helper = module.start(program, target, [Port("", 0, _BANNER_PORT, "tcp")])
    try:
        helper.ready()
        ours.send(_GO)
        return _expect(ours.recv(_LONGEST)) or _hear_banners(helper.ports[0].host_port)
    finally:
        helper.stop()
        target.close()
        ours.close()
        os.close(tap)


def _expect(answer: bytes) -> str:
    """The text that the inner process has sent behind _GO. Raises HostLimit with its error."""
    if not answer.startswith(_GO):
        raise HostLimit(answer.decode() or "the process in the trial's network has ended without a word")
    return answer.removeprefix(_GO).decode()


def _connect_host() -> int:
    """Give this network namespace an interface with an address and a default route; the fd on which that lives."""
    from rootless.kernel.netlink import Route, Routing, ipv4_address, open_tap

    switch_on_loopback()
    tap = open_tap(_INTERFACE)
    routing = Routing()
    try:
        index = routing.index(_INTERFACE)
        routing.add(index, ipv4_address(_HOST, _PREFIX))
        routing.up(index)
        routing.add_route(Route(bytes(4), 0, index=index, gateway=socket.inet_aton(_GATEWAY)))
    finally:
        routing.close()
    return tap


def _serve_lines() -> None:
    """Begin to answer connections to _HOST: a line, and then the end, as long as this process lives."""
    listener = socket.create_server((_HOST, _SERVER_PORT))
    parent = os.getpid()
    if os.fork() == 0:
        _serve(listener, parent, delay=_DELAY)
    listener.close()


def _be_the_container(caller: socket.socket) -> NoReturn:
    """In a child: make the inner namespace, serve the published port in it, and when told try the connections outwards.

    It ends, and its server with it, when the caller closes its socket.
    """
    try:
        unshare(CLONE_NEWNET)
        switch_on_loopback()
        listener = socket.create_server(("", _BANNER_PORT))
        parent = os.getpid()
        if os.fork() == 0:
            _serve(listener, parent)
        caller.send(_GO)
        if caller.recv(_LONGEST):
            caller.send(_GO + _hear_ends().encode())
            caller.recv(_LONGEST)
    except OSError as e:
        caller.send(f"no connection passes: {e.strerror or e}".encode())
    finally:
        os._exit(0)


def _serve(listener: socket.socket, parent: int, *, delay: float | None = None) -> NoReturn:
    """Answer every connection as long as `parent` lives: after `delay` seconds with _LINE, without a delay with the
    client's address."""
    try:
        # It has its parent's pipes and sockets, whose readers wait for their end
        end_with_parent(parent)
        while True:
            connection, (address, _) = listener.accept()
            if delay is not None:
                time.sleep(delay)
            connection.sendall(_LINE if delay is not None else str(address).encode())
            connection.close()
    finally:
        os._exit(0)


def _hear_ends() -> str:
    """LOSES_ENDS, or "" when the server's line and its close arrive at clients that have closed their own side."""
    heard: dict[socket.socket, bytes] = {}
    for _ in range(_CONNECTIONS):
        client = socket.create_connection((_HOST, _SERVER_PORT), timeout=_PATIENCE)
        client.shutdown(socket.SHUT_WR)
        heard[client] = b""
    deadline = time.monotonic() + _PATIENCE
    while heard:
        readable, _, _ = select.select(list(heard), [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            return LOSES_ENDS
        for client in readable:
            chunk = client.recv(4096)
            heard[client] += chunk
            if len(heard[client]) > len(_LINE):
                return LOSES_ENDS
            if not chunk:
                if heard.pop(client) != _LINE:
                    return LOSES_ENDS
                client.close()
    return ""


def _hear_banners(port: int) -> str:
    """LOSES_BANNERS, HIDES_LOOPBACK, or "" when clients of the published port hear a server that speaks first."""
    if not _banner(_HOST, port):
        return LOSES_BANNERS
    return HIDES_LOOPBACK if addresses.is_loopback(_banner("127.0.0.1", port)) else ""


def _banner(address: str, port: int) -> str:
    """The whole answer to a client at `address` of this host, who connects to that address; "" for none."""
    heard = b""
    try:
        with socket.create_connection((address, port), _PATIENCE, source_address=(address, 0)) as client:
            while chunk := client.recv(256):
                heard += chunk
    except TimeoutError:
        return ""
    return heard.decode()
