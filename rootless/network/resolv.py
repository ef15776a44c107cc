"""Contents of a container's /etc/hosts and /etc/resolv.conf, from options and the host's files. It writes nothing."""

from __future__ import annotations

import os
import stat

from rootless.errors import HostLimit, UsageError
from rootless.network import addresses
from rootless.paths import overwrite_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.network.mode import Mode
    from rootless.records.membership import Attachment

HOST_RESOLV = "/etc/resolv.conf"
SYSTEMD_RESOLV = "/run/systemd/resolve/resolv.conf"  # the servers behind systemd-resolved's stub on 127.0.0.53
HOST_HOSTS = "/etc/hosts"
_MAX_FILE = 1 << 18  # bytes; a hosts file with a block list can be large, not endless
_MAX_SERVERS = 3  # the C libraries ask no more (MAXNS)
_STUBS = ("127.0.0.53", "127.0.0.54")
_LOOPBACK_HOSTS = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


class HostResolver:
    """What the host's resolv.conf says; servers as numeric addresses without scope."""

    __slots__ = ("options", "search", "servers")

    def __init__(self, servers: list[str], search: list[str], options: list[str]) -> None:
        self.servers = servers
        self.search = search
        self.options = options

    def reachable(self) -> list[str]:
        """The servers that another network namespace can ask by their own address."""
        return [s for s in self.servers if not addresses.is_loopback(s)]

    def forwarded(self) -> str | None:
        """The server on the host's loopback that a helper is to ask for the container; None when others are reachable.

        A loopback address means the container itself inside of its network namespace.
        """
        if self.reachable():
            return None
        return next((s for s in self.servers if ":" not in s), None)


def read_text(path: str) -> str:
    """A small text file of the host, "" when it is absent, unreadable or not a regular file (a FIFO would hang us)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return ""
    with open(fd, "rb") as f:
        return f.read(_MAX_FILE).decode("utf-8", "replace")


def parse_resolv_conf(text: str) -> HostResolver:
    """The settings in the text of a resolv.conf(5).

    The last `search` or `domain` counts; unknown lines and wrong addresses are left out.
    """
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            try:
                addresses.address_family(words[1])
            except ValueError:
                continue  # an address with a scope (fe80::1%eth0) is left out too: the container has no such interface
            if words[1] not in servers:
                servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = [w for w in words[1:] if w != "."]
        elif words[0] == "options":
            options += words[1:]
    return HostResolver(servers, search, options)


def host_resolver(path: str = HOST_RESOLV, systemd_path: str = SYSTEMD_RESOLV) -> HostResolver:
    """The host's resolver settings, with systemd-resolved's stub replaced by the servers behind it."""
    found = parse_resolv_conf(read_text(path))
    if found.servers and all(s in _STUBS for s in found.servers):
        behind = parse_resolv_conf(read_text(systemd_path))
        if behind.servers:
            found = HostResolver(behind.servers, behind.search or found.search, found.options)
    return found


def resolv_conf(
    *,
    mode: Mode,
    servers: Iterable[str] = (),
    search: Iterable[str] = (),
    options: Iterable[str] = (),
    host: HostResolver | None = None,
) -> str:
    """The container's resolv.conf for network `mode`; servers, search, options: --dns, --dns-search, --dns-option.

    What an option says replaces the host's value, as docker does; `--dns-search .` means none. Raises UsageError.
    """
    asked = tuple(servers)
    for server in asked:
        try:
            addresses.address_family(server)
        except ValueError:
            raise UsageError(f'invalid IP address: "{server}" (--dns)') from None
    asked_search, asked_options = tuple(search), tuple(options)
    for word in (*asked_search, *asked_options):
        if not word.isprintable() or word.split() != [word]:
            raise UsageError(f'invalid value "{word}" (--dns-search or --dns-option)')
    if host is None and mode.uses_host_names and not (asked or asked_search or asked_options):
        return read_text(HOST_RESOLV)
    found = host_resolver() if host is None else host
    chosen = list(asked) if asked else _servers(mode, found)
    chosen_search = [w for w in asked_search if w != "."] if asked_search else found.search
    lines = [f"nameserver {server}" for server in chosen]
    if chosen_search:
        lines.append(f"search {' '.join(chosen_search)}")
    if asked_options or found.options:
        lines.append(f"options {' '.join(asked_options or found.options)}")
    return "".join(f"{line}\n" for line in lines)


def resolv_conf_of_networks(mode: Mode, name_server: str, *, search: Iterable[str], options: Iterable[str]) -> str:
    """The same for a container on networks with names, whose name server it asks for all names. Raises UsageError."""
    chosen = list(options) or host_resolver().options
    if not any(option.startswith("ndots:") for option in options):
        # A name without a dot is a container's: with more dots the domains of `search` would be tried first, and a
        # domain that answers every name would take the place of the container
        chosen = [*(option for option in chosen if not option.startswith("ndots:")), "ndots:0"]
    return resolv_conf(mode=mode, servers=(name_server,), search=search, options=chosen)


def _servers(mode: Mode, host: HostResolver) -> list[str]:
    if mode.uses_host_names:
        return host.servers
    if mode.helper is not None and host.forwarded() is not None:
        return [addresses.DNS]
    return host.reachable()[:_MAX_SERVERS]


def hosts_file(
    *, hostname: str, domainname: str = "", mode: Mode, extra: Iterable[str] = (), gateway: str | None = None
) -> str:
    """The container's /etc/hosts. extra: --add-host values `NAME:IP` or `NAME=IP`, IP may be `host-gateway`.

    gateway: the host's address as the container reaches it, found out when None. Raises UsageError for a wrong value,
    HostLimit for a host-gateway that does not exist.
    """
    text = _LOOPBACK_HOSTS
    names = host_names(hostname, domainname)
    if mode.uses_host_names:
        text = read_text(HOST_HOSTS) or _LOOPBACK_HOSTS
        if not text.endswith("\n"):
            text += "\n"
        if hostname and not _has_name(text, hostname):
            # Debian's address for the own name of a host without a fixed address. Programs look their own name up, and
            # with --hostname it is one that the host's file does not have.
            text += f"127.0.1.1\t{names}\n"
    elif mode.is_connected:
        gateway = gateway or addresses.host_address()
        if gateway:
            text += f"{gateway}\thost.docker.internal host.containers.internal\n"
    if hostname and not mode.uses_host_names:
        own = addresses.CONTAINER if mode.helper is not None else "127.0.0.1"
        text += f"{own}\t{names}\n"
    added = [add_host(value) for value in extra]
    for name, address in added:
        text += f"{_host_gateway(mode, gateway) if address == 'host-gateway' else address}\t{name}\n"
    return text


def _has_name(hosts: str, name: str) -> bool:
    """Whether a line of a hosts file gives `name` an address."""
    return any(name in line.partition("#")[0].split()[1:] for line in hosts.splitlines())


def host_names(hostname: str, domainname: str) -> str:
    """The names in the container's own line of /etc/hosts."""
    return f"{hostname}.{domainname} {hostname}" if domainname else hostname


def with_own_addresses(hosts: str, own: Iterable[str], names: str) -> str:
    """The text of an /etc/hosts with a line for each address of `own`, in the place of those that end with `names`."""
    lines = [line for line in hosts.splitlines(True) if line.partition("\t")[2].rstrip("\n") != names]
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return "".join((*lines, *(f"{address}\t{names}\n" for address in own)))


def change_names_files(directory: str, before: Iterable[Attachment], now: Iterable[Attachment], names: str) -> None:
    """Let hosts and resolv.conf of a container that runs follow its networks. names: as in `with_own_addresses`.

    The files are written over in their place, since they are bound into the container. Raises OSError.
    """
    after = list(now)
    old = {f"nameserver {one.gateway}" for one in before}
    server = next((f"nameserver {one.gateway}" for one in after if one.names), "")
    lines = read_text(f"{directory}/resolv.conf").splitlines(True)
    if server:
        lines = [f"{server}\n" if line.strip() in old else line for line in lines]
    hosts = with_own_addresses(read_text(f"{directory}/hosts"), [one.ip for one in after], names)
    overwrite_file(f"{directory}/resolv.conf", "".join(lines).encode())
    overwrite_file(f"{directory}/hosts", hosts.encode())


def add_host(value: str) -> tuple[str, str]:
    """The name and the address, or the word "host-gateway", in a value of --add-host. Raises UsageError.

    A name with white space, a line end or `#` would write further lines into /etc/hosts, or make a comment of the rest.
    """
    equals, colon = value.find("="), value.find(":")
    separator = equals if equals >= 0 and (colon < 0 or equals < colon) else colon
    if separator <= 0:
        raise UsageError(f'bad format for add-host: "{value}"', hint="write --add-host NAME:IP")
    name, address = value[:separator], value[separator + 1 :]
    if not name.isprintable() or name.split() != [name] or "#" in name:
        raise UsageError(f'bad format for add-host: "{value}": the name has characters that no host name has')
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address != "host-gateway":
        try:
            addresses.address_family(address)
        except ValueError:
            raise UsageError(f'invalid IP address in add-host: "{address}"') from None
    return name, address


def _host_gateway(mode: Mode, gateway: str | None) -> str:
    if mode.uses_host_names:
        return "127.0.0.1"
    if mode.is_connected and gateway:
        return gateway
    if mode.is_connected:
        raise HostLimit("host-gateway: this host has no route and so no address for a container to reach it by")
    raise UsageError(f'host-gateway needs a network, and the container has none ("--network={mode.name}")')
