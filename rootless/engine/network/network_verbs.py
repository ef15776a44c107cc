"""The verbs of networks with names: their options, names and filters. Records are touched by storage.store.networks."""

from __future__ import annotations

from typing import NamedTuple

from rootless.engine.filters import Filters
from rootless.engine.types import NetworkSummary, PruneReport
from rootless.errors import InvalidInput, InvalidState, NotFound, RootlessError, UsageError
from rootless.network.subnets import MTU_OPTIONS
from rootless.units import parse_timestamp, whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rootless.engine.context import Engine
    from rootless.records.container import ContainerRecord
    from rootless.records.membership import Attachment
    from rootless.records.network_record import NetworkRecord

PREDEFINED = {"bridge": "bridge", "host": "host", "none": "null"}
"""Networks that docker has from the start, and the driver of each. Here they are modes, and have no record."""
_DRIVER = "bridge"
_NO_LINK_LAYER = (
    "it gives containers addresses on an interface of the host, for which the kernel wants CAP_NET_ADMIN on the host"
)
_OTHER_DRIVERS = {
    "macvlan": _NO_LINK_LAYER,
    "ipvlan": _NO_LINK_LAYER,
    "overlay": "rootless runs on one host, as a node without a swarm",
    "host": "only one instance of 'host' network is allowed; use --network=host",
    "none": "only one instance of 'null' network is allowed; use --network=none",
    "null": "only one instance of 'null' network is allowed; use --network=none",
}
_OPTIONS = (*MTU_OPTIONS, "com.docker.network.bridge.name", "com.docker.network.bridge.enable_icc")
_KINDS = {"builtin": True, "custom": False}


class NetworkOptions(NamedTuple):
    """The flags of `network create`, one field for each; texts as the user gave them."""

    driver: str = _DRIVER
    subnet: tuple[str, ...] = ()
    gateway: tuple[str, ...] = ()
    ip_range: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    opt: tuple[str, ...] = ()
    internal: bool = False
    disable_dns: bool = False
    ipv6: bool = False


def create_network(engine: Engine, name: str, options: NetworkOptions) -> str:
    """Make a network, and return its id.

    Raises UsageError for options that cannot be right, InvalidState for a subnet that overlaps with another one,
    AlreadyExists, HostLimit.
    """
    from rootless.engine.plan.environment import parse_labels
    from rootless.network.modes import is_mode_name

    _check_driver(options.driver)
    if name in PREDEFINED or is_mode_name(name):
        raise UsageError(f"operation is not permitted on predefined {name} network")
    if options.ipv6:
        raise UsageError("networks with names have no IPv6 yet (--ipv6)", hint="leave --ipv6 out")
    for flag, values in (
        ("--subnet", options.subnet),
        ("--gateway", options.gateway),
        ("--ip-range", options.ip_range),
    ):
        if len(values) > 1:
            raise UsageError(f"a network has one IPv4 subnet here: {flag} may be given once")
    labels, driver_options = parse_labels(options.label), parse_driver_options(options.opt)

    def describe(others: list[NetworkRecord]) -> NetworkRecord:
        record = _described(name, options, others)
        record.labels, record.options = labels, driver_options
        return record

    record = engine.store.networks.create(name, describe)
    _note(engine, "create", record)
    return record.id


def _described(name: str, options: NetworkOptions, others: list[NetworkRecord]) -> NetworkRecord:
    """The record of a network that is to be made beside `others`, without its id."""
    from rootless.network import subnets
    from rootless.records.network_record import NetworkRecord

    taken = [subnets.parse_subnet(other.subnet) for other in others]
    gateway, ip_range = next(iter(options.gateway), ""), next(iter(options.ip_range), "")
    if options.subnet:
        subnet = subnets.parse_subnet(options.subnet[0])
        subnets.refuse_overlap(subnet, taken)
    elif gateway or ip_range:
        what = f"gateway {gateway}" if gateway else f"ip-range {ip_range}"
        raise UsageError(f"no matching subnet for {what}", hint="give the subnet by --subnet")
    else:
        subnet = subnets.free_subnet([*taken, *subnets.host_subnets()])
    record = NetworkRecord(name, "", subnet=str(subnet), gateway=subnets.parse_gateway(gateway, subnet))
    record.ip_range = subnets.parse_range(ip_range, subnet)
    record.internal = options.internal
    record.names = not options.disable_dns
    return record


def _check_driver(driver: str) -> None:
    if driver == _DRIVER:
        return
    from rootless.network.modes import HELPERS

    helpers = {helper.name: f"it connects one container; use --network={helper.name}" for helper in HELPERS}
    why = _OTHER_DRIVERS.get(driver) or helpers.get(driver)
    if why is not None:
        raise UsageError(f"network driver '{driver}' cannot be used: {why}")
    raise UsageError(f'could not find plugin {driver} in v1 plugin registry: plugin "{driver}" not found')


def parse_driver_options(texts: Sequence[str]) -> dict[str, str]:
    """The options of `-o KEY=VALUE`. Raises UsageError for one that would have no effect, and for a wrong value."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in _OPTIONS:
            raise UsageError(
                f"network option '{text}' is not supported (--opt)", hint=f"options are {', '.join(_OPTIONS)}"
            )
        if key in MTU_OPTIONS:
            number = whole_number(value)
            if number is None or not 576 <= number <= 65520:
                raise UsageError(f"invalid MTU '{value}' (--opt {key})", hint="write a number from 576 to 65520")
        if key == "com.docker.network.bridge.enable_icc" and value.lower() not in ("true", "1"):
            raise UsageError(
                f"network option '{text}' is not supported (--opt): containers of one network reach each other"
            )
        found[key] = value
    return found


def list_networks(engine: Engine, *, filters: Mapping[str, Sequence[str]] | None = None) -> list[NetworkSummary]:
    """The networks in the order of names, with docker's predefined ones.

    filters: docker's driver, id, label, name, scope, type, and until. Raises UsageError.
    """
    wanted = Filters(filters or {}, ("driver", "id", "label", "label!", "name", "scope", "type", "until"))
    for kind in wanted.get("type"):
        if kind not in _KINDS:
            raise UsageError(f"invalid filter 'type={kind}'", hint="write custom or builtin")
    found = []
    for summary in sorted(_summaries(engine), key=lambda each: each.name):
        if wanted.get("name") and not any(text in summary.name for text in wanted.get("name")):
            continue
        if wanted.get("id") and not any(text in summary.id for text in wanted.get("id")):
            continue
        if not (wanted.any_of("driver", summary.driver) and wanted.any_of("scope", "local")):
            continue
        kinds = [_KINDS[kind] for kind in wanted.get("type")]
        if (kinds and summary.predefined not in kinds) or not wanted.has_labels(summary.labels):
            continue
        if not wanted.is_before(summary.created):
            continue
        found.append(summary)
    return found


def _summaries(engine: Engine) -> list[NetworkSummary]:
    own = [
        NetworkSummary(
            name=record.name,
            id=record.id,
            driver=_DRIVER,
            created=parse_timestamp(record.created_at),
            internal=record.internal,
            labels=dict(record.labels),
        )
        for record in engine.store.networks.list()
    ]
    fixed = [
        NetworkSummary(name, _predefined_id(name), driver, 0.0, internal=False, labels={}, predefined=True)
        for name, driver in PREDEFINED.items()
    ]
    return own + fixed


def _predefined_id(name: str) -> str:
    """An id for a predefined network, which is the same in every store."""
    from hashlib import sha256

    return sha256(f"rootless network {name}".encode()).hexdigest()


def inspect_network(engine: Engine, name: str) -> dict[str, object]:
    """One network in the shape of docker's `network inspect`. Raises NotFound, InvalidInput."""
    from hashlib import sha256

    try:
        record = engine.store.networks.get(name)
    except NotFound:
        for fixed, driver in PREDEFINED.items():
            if name == fixed or (len(name) > 3 and _predefined_id(fixed).startswith(name)):
                return _inspection(fixed, _predefined_id(fixed), "1970-01-01T00:00:00Z", driver)
        raise
    shown = _inspection(record.name, record.id, record.created_at, _DRIVER)
    shown["Containers"] = {
        container.id: {
            "Name": container.name,
            "EndpointID": sha256(f"{container.id} {record.id}".encode()).hexdigest(),
            "MacAddress": attachment.mac,
            "IPv4Address": f"{attachment.ip}/{attachment.prefix}",
            "IPv6Address": "",
        }
        for container, attachment in _members(engine, record)
    }
    config = {"Subnet": record.subnet, "Gateway": record.gateway}
    if record.ip_range:
        config["IPRange"] = record.ip_range
    shown["IPAM"] = {"Driver": "default", "Options": {}, "Config": [config]}
    shown["Internal"] = record.internal
    shown["Options"] = dict(record.options)
    shown["Labels"] = dict(record.labels)
    return shown


def _inspection(name: str, id: str, created: str, driver: str) -> dict[str, object]:
    return {
        "Name": name,
        "Id": id,
        "Created": created,
        "Scope": "local",
        "Driver": driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": {}, "Config": []},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {},
        "Labels": {},
    }


def _members(engine: Engine, record: NetworkRecord) -> Iterator[tuple[ContainerRecord, Attachment]]:
    """The containers that are on a network now, and how. Those that cannot be read are left out.

    Of a network without an id, whose record is damaged, only the name counts.
    """
    from rootless.engine.container import reconcile

    containers = engine.store.containers
    for container_id in containers.list():
        try:
            container = containers.read(container_id)
            if record.name not in container.network.networks:
                continue
            state = reconcile.state_of(engine, container_id)
        except RootlessError:
            continue
        if state.is_running:
            for one in state.network.attachments:
                if one.network_id == record.id or (not record.id and one.name == record.name):
                    yield container, one


def _users(engine: Engine) -> set[str]:
    """The names of the networks that containers use, also those that do not run. Raises InvalidInput for a container
    whose record is damaged."""
    containers = engine.store.containers
    used: set[str] = set()
    for container_id in containers.list():
        try:
            used.update(containers.read(container_id).network.networks)
        except NotFound:
            continue  # it has just been removed
    return used


def network_exists(engine: Engine, name: str) -> bool:
    """Whether there is a network of that name or id, predefined ones included."""
    try:
        inspect_network(engine, name)
    except NotFound:
        return False
    return True


def remove_network(engine: Engine, name: str, *, force: bool = False) -> None:
    """Remove a network. force: one that does not exist is no error.

    Raises NotFound; InvalidState for a predefined one, and while a running container uses it; HostLimit.
    """
    if name in PREDEFINED:
        raise InvalidState(f"{name} is a pre-defined network and cannot be removed")
    from rootless.records.network_record import NetworkRecord

    networks = engine.store.networks
    try:
        try:
            record = networks.get(name)
        except InvalidInput:  # its record is damaged: only its name is known
            record = NetworkRecord(name, "", subnet="", gateway="")
        for container, _ in _members(engine, record):
            raise InvalidState(
                f"error while removing network: network {name} has active endpoints "
                f'(name:"{container.name}" id:"{container.id[:12]}")',
                hint="stop the container first",
            )
        networks.remove(record.name)
    except NotFound:
        if not force:
            raise
    else:
        _note(engine, "destroy", record)


def prune_networks(engine: Engine, *, filters: Mapping[str, Sequence[str]] | None = None) -> PruneReport:
    """Remove the networks that no container uses. filters: docker's label, label!, until. Raises UsageError."""
    wanted = Filters(filters or {}, ("label", "label!", "until"))
    removed = []
    # The exclusive lock waits for every `create`, which may have read a network that no record names yet
    with engine.store.exclusive():
        try:
            used = _users(engine)
        except InvalidInput as e:
            engine.warn(f"all networks stay, for nobody knows which of them are used: {e.message}")
            return PruneReport()
        for record in engine.store.networks.list():
            if (
                record.name in used
                or not wanted.has_labels(record.labels)
                or not wanted.is_before(parse_timestamp(record.created_at))
            ):
                continue
            try:
                remove_network(engine, record.name)
            except (InvalidState, NotFound):
                continue
            except RootlessError as e:
                engine.warn(f"network {record.name} stays: {e.message}")
                continue
            removed.append(record.name)
    return PruneReport(networks=tuple(removed))


def _note(engine: Engine, action: str, record: NetworkRecord) -> None:
    from rootless.engine import events

    events.record_event(engine, "network", action, record.id, {"name": record.name, "type": _DRIVER})
