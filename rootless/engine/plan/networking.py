"""--network, -p and the names files of a new container: which mode, which ports, what /etc/hosts and resolv.conf say.

It starts no helper program: the monitor does that, which outlives this process.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from rootless.errors import HostLimit, UsageError
from rootless.network.modes import (
    DEFAULT_NAMES,
    HELPERS,
    NAMED,
    UNCONNECTED,
    is_mode_name,
    parse_mode,
    recorded_mode,
)
from rootless.records.container_options import ContainerOptions
from rootless.units import whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from rootless.engine.context import Engine
    from rootless.network.mode import HelperProgram, Mode
    from rootless.records.membership import Attachment
    from rootless.records.port import Port


NAMES_FILES = ("hosts", "hostname", "resolv.conf")
"""In the directory of a container that has its own names, bound over those of its /etc."""


class Network(NamedTuple):
    """The network of a container that is planned.

    mode: the name of a mode in network.modes; ports: the published ones, with host ports that were free just now;
    warning: one line or ""; options: words for the mode's helper program; attachments: the networks with names that it
    is on.
    """

    mode: str
    ports: tuple[Port, ...] = ()
    warning: str = ""
    options: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()


def choose_network(engine: Engine, options: ContainerOptions, exposed: tuple[str, ...], *, starts: bool) -> Network:
    """The network mode of a new container, with its ports.

    exposed: ports of the image and of --expose; starts: the container is started next, so that its ports must be free
    now. Raises UsageError for unknown modes and conflicting options, NotFound for a network that is not there,
    HostLimit for a helper program that is not installed and for a port that is in use.
    """
    publishes = bool(options.publish or options.publish_all)
    ports = wanted_ports(options, exposed) if publishes else []
    if asks_for_names(options):
        from rootless.engine.plan import attachments

        if attachments.is_named(options):
            networks = attachments.choose_attachments(engine, options)
            return Network(NAMED.name, allocated(ports) if starts else (), attachments=networks)
    mode, helper_options, warning = _mode(engine, options.network, ports)
    if mode.joins_another:
        for flag, value in (
            ("--publish", publishes),
            ("--hostname", options.hostname),
            ("--add-host", options.add_host),
            ("--dns", options.dns or options.dns_search or options.dns_option),
        ):
            if value:
                raise UsageError(f"conflicting options: {flag} and the network mode '{mode.name}'")
    warning = mode.warning or warning
    if not mode.can_publish or not publishes:
        warning = mode.discards if options.publish and mode.discards else warning
        return Network(mode.name, (), warning, helper_options)
    # A container that is only made holds no port: `start` finds out which ones are free at that time
    return Network(mode.name, allocated(ports) if starts else (), warning, helper_options)


def asks_for_names(options: ContainerOptions) -> bool:
    """May the options ask for networks with names? Most containers do not, and need not load what looks closer."""
    text = options.network
    is_mode = text is None or is_mode_name(text.partition(":")[0])
    return not is_mode or bool(options.more_networks or options.network_alias or options.ip or options.mac_address)


def _mode(engine: Engine, asked: str | None, ports: list[Port]) -> tuple[Mode, tuple[str, ...], str]:
    """The mode that is asked for, else that of the settings, else the host's best; its helper's options; a warning.

    ports: those to publish.
    """
    text = engine.settings.network if asked is None or asked in DEFAULT_NAMES else asked
    cache = engine.directories.cache
    publishes_ipv6 = any(":" in port.host_ip for port in ports)
    if not text:
        from rootless.network import helper_choice

        best, flaw = helper_choice.choose(cache, publishes_ipv6=publishes_ipv6)
        if best is None:
            names = " nor ".join(helper.name for helper in HELPERS)
            package = HELPERS[0].package
            warning = f"neither {names} is installed: the container has no network (apt-get install {package})"
            return UNCONNECTED, (), warning
        warning = _flaw_warning(best, flaw, cache, publishes_ipv6=publishes_ipv6) if flaw else ""
        return recorded_mode(best.name), (), warning
    mode, options = parse_mode(text)
    if mode.helper is None:
        return mode, (), ""
    if mode.helper.path() is None:
        raise HostLimit(
            f"network mode '{mode.name}' needs the program '{mode.name}', which is not installed",
            hint=f"ask the administrator for: apt-get install {mode.helper.package}; or use --network=none or host",
        )
    from rootless.network import helper_choice

    flaw = helper_choice.KeptFindings(cache).find(mode.helper).flaw
    return mode, options, _flaw_warning(mode.helper, flaw, cache, publishes_ipv6=publishes_ipv6) if flaw else ""


def _flaw_warning(used: HelperProgram, flaw: str, cache: str, *, publishes_ipv6: bool) -> str:
    """The warning that the helper `used` has `flaw`, with what does better."""
    from rootless.network import helper_choice

    better, flaw_of_better = helper_choice.choose(cache, publishes_ipv6=publishes_ipv6)
    if better is not None and not flaw_of_better:
        return f"this {used.name} is flawed: {flaw}; --network={better.name} does better"
    others = (h for h in HELPERS if h.path() is None and (h.publishes_ipv6 or not publishes_ipv6))
    packages = ", or ".join([*(helper.package for helper in others), f"a newer {used.package}"])
    return f"this {used.name} is flawed: {flaw} (apt-get install {packages})"


def wanted_ports(options: ContainerOptions, exposed: tuple[str, ...]) -> list[Port]:
    """The ports of -p and -P as they were asked for; host port 0 stands for any free one. Raises UsageError."""
    from rootless.network.ports import parse_publish
    from rootless.records.port import Port

    ports = [port for text in options.publish for port in parse_publish(text)]
    if options.publish_all:
        taken = {(port.container_port, port.protocol) for port in ports}
        ports += [Port("", 0, n, protocol) for n, protocol in exposed_ports(exposed) if (n, protocol) not in taken]
    return ports


def allocated(ports: list[Port]) -> tuple[Port, ...]:
    """The same ports, each with a host port that is free now. Raises HostLimit for a port that is in use."""
    from rootless.network.ports import allocate_ports

    return tuple(allocate_ports(ports))


def exposed_ports(texts: tuple[str, ...]) -> list[tuple[int, str]]:
    """(port, protocol) of texts such as "80", "80/udp" and "8000-8010/tcp", in order, each once. Raises UsageError."""
    found = []
    for text in texts:
        numbers, _, protocol = text.partition("/")
        first_text, dash, last_text = numbers.partition("-")
        first, last = whole_number(first_text), whole_number(last_text if dash else first_text)
        if first is None or last is None or protocol not in ("", "tcp", "udp", "sctp"):
            raise UsageError(f"invalid port '{text}' (--expose)", hint="write PORT[-PORT][/PROTOCOL]")
        if not 0 < first <= last < 65536:
            raise UsageError(f"invalid port '{text}' (--expose): out of range 1 to 65535")
        found += [(number, protocol or "tcp") for number in range(first, last + 1)]
    return list(dict.fromkeys(found))


def write_names_files(
    directory: str, hostname: str, options: ContainerOptions, network: Network, only: Collection[str] = NAMES_FILES
) -> None:
    """Write /etc/hostname, hosts and resolv.conf into the container's directory; any user inside may read them.

    only: the names of those to write, which do not exist yet. Raises OSError.
    """
    from rootless.network import resolv

    mode = recorded_mode(network.mode)
    hosts = resolv.hosts_file(hostname=hostname, domainname=options.domainname or "", mode=mode, extra=options.add_host)
    name_server = next((one.gateway for one in network.attachments if one.names), "")
    if name_server:
        resolv_conf = resolv.resolv_conf_of_networks(
            mode, name_server, search=options.dns_search, options=options.dns_option
        )
    else:
        resolv_conf = resolv.resolv_conf(
            mode=mode, servers=options.dns, search=options.dns_search, options=options.dns_option
        )
    for name, content in (("hostname", f"{hostname}\n"), ("hosts", hosts), ("resolv.conf", resolv_conf)):
        if name in only:
            write_readable(f"{directory}/{name}", content)


def write_readable(path: str, content: str) -> None:
    """Make the file `path`, which every user of the container may read. Raises OSError, FileExistsError among them."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(fd, "w", encoding="utf-8") as file:
        os.fchmod(fd, 0o644)  # the umask may have taken bits away
        file.write(content)
