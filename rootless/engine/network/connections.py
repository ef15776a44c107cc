"""`network connect` and `disconnect`: the networks of a container that exists, and that may run."""

from __future__ import annotations

from contextlib import contextmanager

from rootless.engine.network.network_verbs import PREDEFINED
from rootless.errors import InvalidState, RootlessError, UsageError
from rootless.network.modes import NAMED
from rootless.paths import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rootless.engine.context import Engine
    from rootless.monitor.protocol import NetworkRequest
    from rootless.records.container import ContainerRecord
    from rootless.records.container_options import ContainerOptions
    from rootless.records.membership import Attachment
    from rootless.records.network_record import NetworkRecord


def connect_network(engine: Engine, network: str, container: str, settings: Sequence[str] = ()) -> None:
    """Put a container on one more network.

    settings: as behind the colon of --network: alias=…, ip=…, mac=…. Raises NotFound, UsageError; InvalidState for a
    container that is on that network, or whose network has no name; RuntimeFailure where a running one cannot join.
    """
    from rootless.engine.plan.attachments import choose_attachments
    from rootless.monitor.protocol import NetworkRequest

    with engine.store.using(), _take_turn(engine, network, container):
        joined, record = _find(engine, network, container)
        if joined.name in record.network.networks:
            raise InvalidState(f"endpoint with name {record.name} already exists in network {joined.name}")
        text = f"{joined.name}:{','.join(settings)}" if settings else joined.name
        options = record.options
        if options.network and record.network.networks:
            options = options._replace(more_networks=(*options.more_networks, text))
        else:
            options = options._replace(network=text)
        attachments = choose_attachments(engine, options)
        _ask_monitor(engine, record, NetworkRequest(attachments[-1]))
        _keep(engine, record, options, attachments)


def disconnect_network(engine: Engine, network: str, container: str, *, force: bool = False) -> None:
    """Let a container leave a network. force: the records forget it even if a running container cannot leave it now.

    Raises NotFound; InvalidState for a container that is not on the network; RuntimeFailure.
    """
    from rootless.engine.plan.attachments import choose_attachments, without
    from rootless.monitor.protocol import NetworkRequest

    with engine.store.using(), _take_turn(engine, network, container):
        left, record = _find(engine, network, container)
        if left.name not in record.network.networks:
            raise InvalidState(f"container {record.name} is not connected to the network {left.name}")
        options = without(engine, record.options, left)
        # Before the container leaves: an error here must not part the records from what is
        attachments = choose_attachments(engine, options) if options.network else ()
        try:
            _ask_monitor(engine, record, NetworkRequest(None, left.id))
        except RootlessError as e:
            if not force:
                raise
            engine.warn(f"the container stays on network {left.name} until it ends: {e.message}")
        _keep(engine, record, options, attachments)


@contextmanager
def _take_turn(engine: Engine, network: str, container: str) -> Iterator[None]:
    """Have the container's files to oneself, beside its starts and other changes of its networks.

    Raises what `_find` raises.

    Each change reads the records and writes them back after the monitor has made it: two at once, and the records would
    forget a network that the container is on.
    """
    containers = engine.store.containers
    _, record = _find(engine, network, container)
    turn = Lock(containers.path(record.id, "start.lock"))
    try:
        turn.acquire()
    except OSError:
        pass  # the disk is full, and nothing can be written in any case
    try:
        yield
    finally:
        turn.release()


def _find(engine: Engine, network: str, container: str) -> tuple[NetworkRecord, ContainerRecord]:
    """The records of both. Raises UsageError and InvalidState for those that cannot be connected."""
    if network in PREDEFINED:
        raise UsageError(
            f"container cannot be connected to, nor disconnected from, network {network} after it was made",
            hint="make the container again with another --network",
        )
    found = engine.store.networks.get(network)
    record = engine.store.containers.read(engine.store.containers.find(container))
    if record.network.mode != NAMED.name:
        raise InvalidState(
            f"container {record.name} was made without a network with a name, and cannot join one",
            hint=f"make it again with --network {found.name}",
        )
    return found, record


def _ask_monitor(engine: Engine, record: ContainerRecord, request: NetworkRequest) -> None:
    """Have a container that runs join or leave now; one that does not will be as its records say at its next start."""
    from rootless.engine.container import attach_client, reconcile

    if reconcile.state_of(engine, record.id).is_running:
        attach_client.change_network(reconcile.socket_path(engine, record.id), request, engine.warn)


def _keep(
    engine: Engine, record: ContainerRecord, options: ContainerOptions, attachments: Sequence[Attachment]
) -> None:
    """Write the container's networks into its files, from which restarts and later starts take them."""
    containers = engine.store.containers
    record.options = options
    record.network.networks = [attachment.name for attachment in attachments]
    containers.update(record)
    launch = containers.read_launch(record.id)
    launch.network.attachments = list(attachments)
    containers.write_launch(record.id, launch)
