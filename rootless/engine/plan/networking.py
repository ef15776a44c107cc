"""--network, -p and the names files of a new container: which mode, which ports, what /etc/hosts and resolv.conf say.

It starts no helper; that is the monitor's part.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from rootless.engine.types import ContainerOptions
from rootless.errors import HostLimit, UsageError

if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.network.ports import Port

HELPERS = ("pasta", "slirp4netns")
_WEAK_PASTA = (
    "this pasta is older than August 2024: clients beyond this host never hear a server that speaks first (ssh, MySQL)"
)


class Network(NamedTuple):
    """mode: pasta, slirp4netns, none, host or container. ports: as launch.json lists them. warning: "" or one line."""

    mode: str
    ports: tuple[dict[str, Any], ...] = ()
    warning: str = ""


def choose_network(engine: Engine, options: ContainerOptions, exposed: tuple[str, ...], *, starts: bool) -> Network:
    """starts: the container is started next, so that its ports must be free.

    Raises UsageError for unknown networks and conflicting options, HostLimit for a helper that is not installed.
    """
    publishes = bool(options.publish or options.publish_all)
    mode, warning = _mode(engine, options.network, publishes=publishes)
    if mode == "container":
        for flag, value in (
            ("--publish", publishes),
            ("--hostname", options.hostname),
            ("--add-host", options.add_host),
            ("--dns", options.dns or options.dns_search or options.dns_option),
        ):
            if value:
                raise UsageError(f"conflicting options: {flag} and the network mode 'container'")
    if mode == "host":
        warning = "--network=host: abstract sockets of your session (X, D-Bus, ...) can be reached from the container"
    if mode in ("none", "host", "container") or not publishes:
        if options.publish and mode == "host":
            warning = "published ports are discarded when using host network mode"
        return Network(mode, (), warning)
    ports = wanted_ports(options, exposed)
    # a container that is only made holds no port: `start` finds out which are free then
    return Network(mode, allocated(ports) if starts else (), warning)


def _mode(engine: Engine, asked: str | None, *, publishes: bool) -> tuple[str, str]:
    mode = asked if asked not in (None, "", "default", "bridge", "private") else engine.settings.network
    if mode and mode.startswith("container:"):
        return "container", ""
    name = (mode or "").partition(":")[0]
    if name not in ("", *HELPERS, "none", "host"):
        raise UsageError(
            f"network '{mode}' not found", hint="use pasta, slirp4netns, none, host or container:NAME (--network)"
        )
    if name in ("none", "host"):
        return name, ""
    from rootless.host.facts import find_helper

    if name:
        if find_helper(name) is None:
            package = "passt" if name == "pasta" else name
            raise HostLimit(
                f"network mode '{name}' needs the program '{name}', which is not installed",
                hint=f"ask the administrator for: apt-get install {package}; or use --network=none or host",
            )
        weak = name == "pasta" and publishes and not _forwards_well("pasta")
        return name, f"{_WEAK_PASTA}; --network=slirp4netns does better" if weak else ""
    for helper in HELPERS:
        if find_helper(helper) is None:
            continue
        if helper == "pasta" and publishes and not _forwards_well(helper):
            other = find_helper("slirp4netns")
            return ("slirp4netns", "") if other else (helper, f"{_WEAK_PASTA} (apt-get install slirp4netns)")
        return helper, ""
    return "none", "neither pasta nor slirp4netns is installed: the container has no network (apt-get install passt)"


def _forwards_well(name: str) -> bool:
    from rootless.host.facts import find_helper
    from rootless.network.pasta import is_reliable_for_ports

    program = find_helper(name)
    return program is not None and is_reliable_for_ports(program)


def wanted_ports(options: ContainerOptions, exposed: tuple[str, ...]) -> list[Port]:
    """The ports of -p and -P as they were asked for; host port 0: any free one. Raises UsageError."""
    from rootless.network.ports import Port, parse_publish

    ports = [port for text in options.publish for port in parse_publish(text)]
    if options.publish_all:
        taken = {(port.container_port, port.protocol) for port in ports}
        ports += [Port("", 0, n, protocol) for n, protocol in exposed_ports(exposed) if (n, protocol) not in taken]
    return ports


def allocated(ports: list[Port]) -> tuple[dict[str, Any], ...]:
    """The ports with host ports that are free now, as launch.json lists them. Raises HostLimit for a busy one."""
    from rootless.network.ports import allocate

    return tuple(
        {
            "host_ip": port.host_ip,
            "host_port": port.host_port,
            "container_port": port.container_port,
            "protocol": port.protocol,
        }
        for port in allocate(ports)
    )


def exposed_ports(texts: tuple[str, ...]) -> list[tuple[int, str]]:
    """(port, protocol) of "80", "80/udp", "8000-8010/tcp" in order. Raises UsageError."""
    found = []
    for text in texts:
        numbers, _, protocol = text.partition("/")
        first, dash, last = numbers.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or protocol not in ("", "tcp", "udp", "sctp"):
            raise UsageError(f"invalid port '{text}' (--expose)", hint="write PORT[-PORT][/PROTOCOL]")
        if not 0 < int(first) <= int(last or first) < 65536:
            raise UsageError(f"invalid port '{text}' (--expose): out of range 1 to 65535")
        found += [(number, protocol or "tcp") for number in range(int(first), int(last or first) + 1)]
    return list(dict.fromkeys(found))


def write_names_files(directory: str, hostname: str, options: ContainerOptions, network: Network) -> None:
    """Write /etc/hostname, hosts and resolv.conf into the container's directory; any user inside may read them."""
    from rootless.network import resolv

    hosts = resolv.hosts(
        hostname=hostname, domainname=options.domainname or "", mode=network.mode, extra=options.add_host
    )
    resolv_conf = resolv.resolv_conf(
        mode=network.mode, servers=options.dns, search=options.dns_search, options=options.dns_option
    )
    for name, content in (("hostname", f"{hostname}\n"), ("hosts", hosts), ("resolv.conf", resolv_conf)):
        path = f"{directory}/{name}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with open(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, 0o644)
            file.write(content)
