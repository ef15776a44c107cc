"""The networks with names that a container is on: the grammar of --network NAME…, --network-alias, --ip, --mac-address.

It reads records of networks. Addresses that nobody asks for are chosen when the container starts.
"""

from __future__ import annotations

import ipaddress

from rootless.errors import NotFound, UsageError
from rootless.network.modes import is_mode_name, list_choices
from rootless.network.subnets import MTU_OPTIONS
from rootless.records.membership import Attachment
from rootless.storage.store.containers import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.records.container_options import ContainerOptions
    from rootless.records.network_record import NetworkRecord

_KNOWN = ("alias", "ip", "mac", "mac-address", "mac_address")
_MIXED = "conflicting options: cannot attach both user-defined and non-user-defined network-modes"


def is_named(options: ContainerOptions) -> bool:
    """Do the options ask for networks with names? Raises UsageError where they ask for other networks beside them."""
    texts = (*((options.network,) if options.network else ()), *options.more_networks)
    modes = [is_mode_name(_split(text)[0]) for text in texts]
    if len(texts) > 1 and any(modes):
        raise UsageError(_MIXED)
    if texts and not modes[0]:
        return True
    for flag, value in (("aliases", options.network_alias), ("IP address", options.ip), ("MAC", options.mac_address)):
        if value:
            raise UsageError(
                f"invalid config for network {options.network or 'bridge'}: invalid endpoint settings: user specified "
                f"{flag} is supported on user defined networks only",
                hint="rootless network create NET, and --network NET",
            )
    return False


def choose_attachments(engine: Engine, options: ContainerOptions) -> tuple[Attachment, ...]:
    """The networks that the options ask for, in their order. Raises NotFound for a network that is not there, and
    UsageError."""
    texts = [text for text in (options.network, *options.more_networks) if text]
    found: list[Attachment] = []
    for number, text in enumerate(texts):
        name, settings = _split(text)
        try:
            record = engine.store.networks.get(name)
        except NotFound as e:
            raise NotFound(e.message, hint=f"rootless network create {name}; or use {list_choices()}") from None
        attachment = attach(record)
        aliases = [value for key, value in settings if key == "alias"]
        attachment.aliases = [_alias(alias) for alias in dict.fromkeys((*aliases, *options.network_alias))]
        _set_addresses(attachment, settings, options if number == 0 else None)
        if any(one.network_id == record.id for one in found):
            raise UsageError(f'network "{record.name}" is specified multiple times')
        found.append(attachment)
    for server in options.dns:
        try:
            ipaddress.ip_address(server)
        except ValueError:
            raise UsageError(f'invalid IP address: "{server}" (--dns)') from None
    return tuple(found)


def without(engine: Engine, options: ContainerOptions, record: NetworkRecord) -> ContainerOptions:
    """The options of a container that is not on this network any more; --ip and --mac-address go with the first one."""
    networks = engine.store.networks
    texts = [text for text in (options.network, *options.more_networks) if text]
    kept = []
    for text in texts:
        name = _split(text)[0]
        try:
            is_same = networks.get(name).id == record.id
        except NotFound:
            is_same = name == record.name
        if not is_same:
            kept.append(text)
    if kept[:1] != texts[:1]:
        options = options._replace(ip=None, mac_address=None)
    return options._replace(network=next(iter(kept), None), more_networks=tuple(kept[1:]))


def _set_addresses(attachment: Attachment, settings: list[tuple[str, str]], options: ContainerOptions | None) -> None:
    """Note the addresses that are asked for; those of --ip and --mac-address are for the first network."""
    chosen = dict(settings)
    ip = chosen.get("ip") or (options.ip if options else None) or ""
    mac = next((chosen[key] for key in _KNOWN[2:] if key in chosen), None) or (options.mac_address if options else None)
    if ip:
        attachment.ip = _address(ip, attachment)
    if mac:
        attachment.mac = _mac(mac)


def attach(record: NetworkRecord) -> Attachment:
    """How a container is attached to a network that it asks nothing further of."""
    attachment = Attachment(record.name, record.id, record.subnet, record.gateway)
    attachment.ip_range = record.ip_range
    mtu = next((record.options[key] for key in MTU_OPTIONS if key in record.options), "0")
    attachment.mtu = int(mtu) if mtu.isascii() and mtu.isdigit() and len(mtu) < 6 else 0
    attachment.internal = record.internal
    attachment.names = record.names
    return attachment


def _split(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The network in a text of --network, and what it says of the container there.

    podman writes `NAME:alias=web,ip=…`, docker `name=NAME,alias=web,ip=…`. What stands behind the colon of a mode is
    the mode's. Raises UsageError.
    """
    name, colon, rest = text.partition(":")
    if "=" in name and name.partition("=")[0] in ("name", *_KNOWN):
        pairs = _pairs(text, text)
        names = [value for key, value in pairs if key == "name"]
        if len(names) != 1:
            raise UsageError(f"invalid network '{text}' (--network): the name of the network is missing")
        return names[0], [(key, value) for key, value in pairs if key != "name"]
    if not colon or is_mode_name(name):
        return name, []
    pairs = _pairs(rest, text)
    if any(key == "name" for key, _ in pairs):
        raise UsageError(f"invalid network '{text}' (--network): it has two names")
    return name, pairs


def _pairs(part: str, text: str) -> list[tuple[str, str]]:
    pairs = []
    for word in part.split(","):
        key, equals, value = word.partition("=")
        if not equals or not value or key not in ("name", *_KNOWN):
            raise UsageError(
                f"invalid field '{word}' in network '{text}' (--network)", hint="known are alias=, ip= and mac="
            )
        pairs.append((key, value))
    return pairs


def _alias(text: str) -> str:
    return check_name(text, what="network alias")


def _address(text: str, attachment: Attachment) -> str:
    """An IPv4 address of the subnet that a container can have. Raises UsageError."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        raise UsageError(f"invalid IPv4 address: {text} (--ip)") from None
    subnet = ipaddress.IPv4Network(attachment.subnet)
    if address not in subnet or address in (subnet.network_address, subnet.broadcast_address):
        raise UsageError(
            f"invalid config for network {attachment.name}: invalid endpoint settings: no configured subnet contains "
            f"IP address {text}"
        )
    if text == attachment.gateway:
        raise UsageError("Address already in use")
    return str(address)


def _mac(text: str) -> str:
    """An address of the link layer that one interface can have. Raises UsageError."""
    parts = text.replace("-", ":").lower().split(":")
    if len(parts) != 6 or not all(len(part) == 2 and set(part) <= set("0123456789abcdef") for part in parts):
        raise UsageError(f"{text} is not a valid mac address")
    if int(parts[0], 16) & 1 or parts == ["00"] * 6:
        raise UsageError(f"{text} is not a valid mac address: it is no address of one interface")
    return ":".join(parts)
