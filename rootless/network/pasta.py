"""pasta (passt): its arguments for a container's network. Nothing of the host's loopback is open unless asked.

Works with what all versions since Debian 12's (March 2023) understand; `is_reliable_for_ports` says what that one
cannot.
"""

from __future__ import annotations

import os

from rootless.errors import HostLimit
from rootless.host.facts import find_helper
from rootless.network import addresses, ports, resolv
from rootless.network.helper import NETWORK_NAMESPACE, Helper, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless.network.ports import Port

PROGRAM = "pasta"


def start(pid: int, network: dict[str, Any]) -> Helper:
    """Connect the network namespace of process `pid`; returns at once, `ready()` of the result waits.

    network: launch.json's; its `ports` are allocated here. Raises HostLimit: no helper, no /dev/net/tun, a busy port.
    """
    program = find_helper(PROGRAM)
    if program is None:
        raise missing_helper(PROGRAM, "passt")
    require_tun()
    published = ports.allocate(ports.Port.from_json(p) for p in network.get("ports") or ())
    argv = arguments(program, published, resolv.host_resolver().forwarded())
    child, ready, errors = spawn(argv, pid, is_ready_on_stdout=True)
    return Helper(PROGRAM, child, (ready, errors), published, facts(published), explain=lambda words: explain(words))


def arguments(program: str, published: Sequence[Port], resolver: str | None) -> list[str]:
    """The command line. resolver: one on the host's loopback that the container is to reach at addresses.DNS.

    Debian 12's pasta asks 0.0.0.0, this host, whatever `--dns` says; so it gets these options only for such a resolver.
    """
    argv = [
        program,
        "--foreground",
        "--quiet",
        "--config-net",
        "--no-map-gw",  # the gateway's address would be the host's loopback
        "--no-dhcp",
        "--no-dhcpv6",
        "--no-ra",
        "--mtu",
        str(addresses.MTU),
        "--ns-ifname",
        addresses.INTERFACE,
        "--address",
        addresses.CONTAINER,
        "--netmask",
        str(addresses.PREFIX),
        "--gateway",
        addresses.GATEWAY,
        "--tcp-ns",
        "none",
        "--udp-ns",
        "none",
    ]
    if resolver is not None:
        argv += ["--dns-forward", addresses.DNS, "--dns", resolver]
    for flag, protocol in (("--tcp-ports", "tcp"), ("--udp-ports", "udp")):
        specifications = port_specifications(p for p in published if p.protocol == protocol)
        for specification in specifications or ["none"]:
            argv += [flag, specification]
    # stdout is the ready pipe: the pid file is written when everything is set up, in every version
    return [*argv, "--pid", "/proc/self/fd/1", "--netns-only", "--netns", NETWORK_NAMESPACE]


def port_specifications(published: Any) -> list[str]:
    """pasta's form of ports, neighbours joined: `127.0.0.1/8080-8089:80-89`."""
    runs: list[tuple[str, int, int, int]] = []  # host address, first host port, first container port, length
    for port in sorted(published, key=lambda p: (p.host_ip, p.host_port)):
        if runs:
            host_ip, host, container, length = runs[-1]
            if host_ip == port.host_ip and (port.host_port, port.container_port) == (host + length, container + length):
                runs[-1] = (host_ip, host, container, length + 1)
                continue
        runs.append((port.host_ip, port.host_port, port.container_port, 1))
    return [
        f"{host_ip}/{_span(host, length)}:{_span(container, length)}"
        if host_ip
        else f"{_span(host, length)}:{_span(container, length)}"
        for host_ip, host, container, length in runs
    ]


def _span(first: int, length: int) -> str:
    return str(first) if length == 1 else f"{first}-{first + length - 1}"


def explain(words: str) -> HostLimit | None:
    """A failure of pasta that has a known remedy."""
    if "/dev/net/tun" in words or "tun device" in words:
        return tun_error(words)
    if "routable" in words or "default route" in words:
        return HostLimit(
            f"pasta found no route to take over from the host: {words}",
            hint="connect the host, or use --network=slirp4netns, host or none",
        )
    if "ddress already in use" in words or "Failed to bind" in words or "bind any port" in words:
        return HostLimit(
            f"driver failed programming external connectivity on endpoint: port is already allocated: {words}",
            hint="choose another host port, or find its owner: ss -lntup",
        )
    return None


def is_reliable_for_ports(program: str) -> bool:
    """Does this pasta forward ports well? Costs one exec (3 ms).

    Debian 12's (March 2023) does not: a server that speaks first (ssh, MySQL, SMTP) is never heard by a client beyond
    the loopback, answers over UDP to the host's loopback are lost, and loopback clients appear from 127.0.0.1
    (CVE-2021-20199). Debian 13's (May 2025) does all of it right. The question is whether it
    knows an option of August 2024: its version text is lost when stdout is a pipe, and says "unknown" in Debian 12.
    """
    null = "/dev/null"
    actions = [(os.POSIX_SPAWN_OPEN, fd, null, os.O_RDWR, 0) for fd in (0, 1, 2)]
    try:
        argv = [program, "--map-host-loopback", "none", "--version"]
        child = os.posix_spawn(program, argv, {"LC_ALL": "C"}, file_actions=actions)
    except OSError:
        return False
    return os.waitpid(child, 0)[1] == 0


def facts(published: Sequence[Port]) -> dict[str, Any]:
    """What inspect shows of a container's network."""
    return {
        "ip": addresses.CONTAINER,
        "prefix": addresses.PREFIX,
        "gateway": addresses.GATEWAY,
        "ports": [p.to_json() for p in published],
    }


def missing_helper(program: str, package: str) -> HostLimit:
    """The helper is not installed."""
    return HostLimit(
        f'the network helper "{program}" is not installed',
        hint=f"as root: apt install {package} (dnf install {package}); or use --network=host or --network=none",
    )


def require_tun() -> None:
    """Raises HostLimit when /dev/net/tun is not there for us."""
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        why = "may not be opened" if os.path.exists("/dev/net/tun") else "does not exist"
        raise tun_error(f"it {why}")


def tun_error(words: str) -> HostLimit:
    """No /dev/net/tun: every helper needs one."""
    return HostLimit(
        f'the network helper needs "/dev/net/tun": {words}',
        hint="as root: modprobe tun && chmod 666 /dev/net/tun; or use --network=host or --network=none",
    )
