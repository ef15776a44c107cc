"""pasta (passt): its arguments for a container's network. The host's loopback is closed unless an option opens it.

The arguments are those that all versions since Debian 12's (March 2023) understand; `network.trial` finds out what that
version gets wrong.
"""

from __future__ import annotations

from rootless.errors import HostLimit, UsageError
from rootless.network import addresses, resolv
from rootless.network.helper import NETWORK_NAMESPACE, Helper, connection_facts, require_tun, spawn_helper, tun_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rootless.host.probes.result import Probe
    from rootless.kernel.namespaces import OpenNetwork
    from rootless.records.port import Port

PROGRAM = "pasta"
# Options that a user may give. Left out: what the monitor sets to find the process and the namespace (--netns, --pid,
# --foreground, ...), and addresses and names, which the container's hosts and resolv.conf say
_SWITCHES = {
    "-4": "--ipv4-only",
    "-6": "--ipv6-only",
    "--map-gw": "--map-gw",
    "--no-icmp": "--no-icmp",
    "--no-map-gw": "--no-map-gw",
    "--no-tcp": "--no-tcp",
    "--no-udp": "--no-udp",
}
_WITH_VALUE = {
    "-i": "--interface",
    "-m": "--mtu",
    "-o": "--outbound",
    "-t": "--tcp-ports",
    "-T": "--tcp-ns",
    "-u": "--udp-ports",
    "-U": "--udp-ns",
    "--map-guest-addr": "--map-guest-addr",
    "--map-host-loopback": "--map-host-loopback",
    "--outbound-if4": "--outbound-if4",
    "--outbound-if6": "--outbound-if6",
}


def check_options(options: Sequence[str]) -> None:
    """Raise UsageError, saying what is accepted, unless pasta may be called with these words of a user."""
    parse_options(options)


def parse_options(options: Sequence[str]) -> list[tuple[str, str | None]]:
    """The options in words as podman takes them (`--map-gw`, `-T`, `5432`, `--mtu=1400`): long name and value, or None.

    Raises UsageError, saying what is accepted, for every other word.
    """
    switches = {**_SWITCHES, **{name: name for name in _SWITCHES.values()}}
    with_value = {**_WITH_VALUE, **{name: name for name in _WITH_VALUE.values()}}
    found: list[tuple[str, str | None]] = []
    words = list(options)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if word in switches:
            found.append((switches[word], None))
        elif name in with_value and (equals or words):
            found.append((with_value[name], value if equals else words.pop(0)))
        elif word in with_value:
            raise UsageError(f"pasta option '{word}' needs a value (--network=pasta:)", hint=f"write {word},VALUE")
        else:
            accepted = ", ".join(sorted({*_SWITCHES, *_WITH_VALUE}, key=lambda text: (text.lstrip("-").lower(), text)))
            raise UsageError(f"pasta option '{word}' is not accepted (--network=pasta:)", hint=f"use of {accepted}")
    return found


def start(program: str, target: OpenNetwork, ports: Iterable[Port], options: Sequence[str] = ()) -> Helper:
    """Connect the network namespace `target` with the pasta at path `program`; returns at once, `ready()` of the result
    waits.

    Host ports that `ports` leaves open are allocated here. Raises HostLimit: no /dev/net/tun, a busy port.
    """
    require_tun()
    published = list(ports)
    if published:
        from rootless.network.ports import allocate_ports

        published = allocate_ports(published)
    argv = build_arguments(program, published, resolv.host_resolver().forwarded(), options)
    started = spawn_helper(argv, target, is_ready_on_stdout=True)
    return Helper(PROGRAM, started, connection_facts(published), explain=explain_failure)


def build_arguments(
    program: str, published: Sequence[Port], resolver: str | None, options: Sequence[str] = ()
) -> list[str]:
    """The command line. resolver: one on the host's loopback that the container is to reach at addresses.DNS.

    options: those of the user, each in place of ours of the same name; ports are added to the published ones.

    Debian 12's pasta asks the resolver at 0.0.0.0, which is this host, whatever `--dns` says. So pasta gets `--dns` and
    `--dns-forward` only where the resolver is on the host's loopback, where all versions do the same.
    """
    asked = parse_options(options)
    names = {name for name, _ in asked}
    argv = [program, "--foreground", "--quiet", "--config-net", "--no-dhcp", "--no-dhcpv6", "--no-ra"]
    if not names & {"--map-gw", "--no-map-gw"}:
        # By default pasta maps the gateway's address to the host's loopback: a container would reach every service that
        # the user's host offers to itself only
        argv.append("--no-map-gw")
    for name, value in (
        ("--mtu", str(addresses.MTU)),
        ("--ns-ifname", addresses.INTERFACE),
        ("--address", addresses.CONTAINER),
        ("--netmask", str(addresses.PREFIX)),
        ("--gateway", addresses.GATEWAY),
        ("--tcp-ns", "none"),
        ("--udp-ns", "none"),
    ):
        if name not in names:
            argv += [name, value]
    if resolver is not None:
        argv += ["--dns-forward", addresses.DNS, "--dns", resolver]
    for flag, protocol in (("--tcp-ports", "tcp"), ("--udp-ports", "udp")):
        specifications = port_specifications(p for p in published if p.protocol == protocol)
        for specification in specifications or ([] if flag in names else ["none"]):
            argv += [flag, specification]
    for name, asked_value in asked:
        if name != "--map-gw":  # podman's word for "without --no-map-gw": pasta itself has no such option
            argv += [name] if asked_value is None else [name, asked_value]
    # pasta has no option to say that it is ready. It writes its pid file when all is set up, in every version, so the
    # ready pipe, which is its stdout, is given to it as that file.
    return [*argv, "--pid", "/proc/self/fd/1", "--netns-only", "--netns", NETWORK_NAMESPACE]


def port_specifications(published: Iterable[Port]) -> list[str]:
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


def explain_failure(words: str) -> HostLimit | None:
    """The error that pasta's last `words` stand for, with its remedy; None for words that we do not know."""
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


def connect_once(program: str) -> Probe:
    """Run pasta once around a command in a network namespace of its own, and say whether that worked."""
    from rootless.host.probes.network import tun_remedy
    from rootless.host.probes.result import Probe
    from rootless.host.probes.trial import run_program

    argv = [program, "--quiet", "--config-net", "-t", "none", "-u", "none", "-T", "none", "-U", "none"]
    code, words = run_program([*argv, "--", "/bin/true"], timeout=5.0)
    if code != 0:
        return Probe(PROGRAM, False, f"'{program}' ended with status {code}: {words}", tun_remedy())
    return Probe(PROGRAM, True, f"{program} connected a network namespace")
