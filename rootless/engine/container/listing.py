"""`ps` and `port`: containers as rows, with docker's filters and words. It reads records and states, nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence

from rootless.engine.container.reconcile import readable_records, state_of, tell_damaged
from rootless.engine.filters import Filters
from rootless.engine.types import ContainerSummary, PortBinding
from rootless.errors import InvalidInput, NotFound, UsageError
from rootless.network.modes import recorded_mode
from rootless.units import human_duration, parse_timestamp, whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.records.container import ContainerRecord, RecordedNetwork
    from rootless.records.state import ContainerState

_KEYS = "ancestor before exited expose health id label name network publish since status volume is-task"
_STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")


def list_containers(
    engine: Engine,
    *,
    all: bool = False,
    filters: Mapping[str, Sequence[str]] | None = None,
    last: int = -1,
    size: bool = False,
) -> list[ContainerSummary]:
    """The running containers, newest first.

    all: those that do not run, too; filters: docker's (_KEYS); last: only so many of the newest, in any state (-1: no
    limit); size: the bytes that each has written, which reads their upper directories. A damaged container is left out
    with a warning. Raises UsageError for a bad filter, NotFound for a container that one names.
    """
    wanted = Filters(filters or {}, _KEYS.split())
    for status in wanted.get("status"):
        if status not in _STATES:
            raise UsageError(f"invalid filter 'status={status}'", hint=f"use one of {', '.join(_STATES)}")
    for code in wanted.get("exited"):
        if whole_number(code.removeprefix("-")) is None:
            raise UsageError(f"invalid filter 'exited={code}'", hint="write a number")
    show_all = all or last >= 0 or bool(wanted.get("status")) or bool(wanted.get("exited"))
    records = sorted(readable_records(engine), key=lambda record: -record.created)
    bounds = {key: _created(engine, wanted.get(key)) for key in ("before", "since")}
    ancestors = _ancestors(engine, wanted.get("ancestor"))
    found: list[tuple[ContainerRecord, ContainerState]] = []
    for record in records:
        if not _matches_record(record, wanted, bounds, ancestors):
            continue
        try:
            state = state_of(engine, record.id)
        except NotFound:
            continue
        except InvalidInput as e:
            tell_damaged(engine, record.id, e)
            continue
        if not show_all and state.status not in ("running", "paused", "restarting"):
            continue
        if not _matches_state(state, wanted):
            continue
        found.append((record, state))
        if 0 <= last <= len(found):
            break
    if last >= 0:
        found = found[:last]
    written = _written(engine, [record for record, _ in found]) if size else [None] * len(found)
    return [_summary(engine, *each, written=rw) for each, rw in zip(found, written, strict=True)]


def _written(engine: Engine, records: Sequence[ContainerRecord]) -> list[int | None]:
    """The bytes that each container has written, with directories that only one of its users may enter.

    Those are counted from within a user namespace, as the caller may not read them.
    """
    from rootless.storage.layers.tree_sizes import tree_sizes

    uppers = [engine.store.containers.path(record.id, "upper") for record in records]
    return [size.content for size in tree_sizes(uppers, engine.store.id_map)]


def _created(engine: Engine, names: Sequence[str]) -> list[float]:
    containers = engine.store.containers
    return [containers.read(containers.find(name)).created for name in names]


def _ancestors(engine: Engine, texts: Sequence[str]) -> set[str] | None:
    """The ids and names of the images that the filter `ancestor` names; None without that filter."""
    if not texts:
        return None
    from rootless.engine.image_in_use import find

    return {entry.config_digest for text in texts if (entry := find(engine, text)) is not None} | {*texts}


def _matches_record(
    record: ContainerRecord, wanted: Filters, bounds: dict[str, list[float]], ancestors: set[str] | None
) -> bool:
    if not wanted.has_labels(record.labels):
        return False
    if wanted.get("name") and not any(_is_in(text, record.name) for text in wanted.get("name")):
        return False
    if wanted.get("id") and not any(record.id.startswith(text) for text in wanted.get("id")):
        return False
    if ancestors is not None and not {record.image_id, record.image} & ancestors:
        return False
    if any(record.created >= bound for bound in bounds["before"]):
        return False
    if any(record.created <= bound for bound in bounds["since"]):
        return False
    if not wanted.any_of("network", *_network_names(record.network)):
        return False
    places = [place for m in record.mounts for place in (m.name, m.source, m.target) if place]
    if not wanted.any_of("volume", *places):
        return False
    published = [text for p in record.network.ports for text in _port_texts(str(p.container_port), p.protocol)]
    exposed = [text for e in record.exposed for text in _port_texts(*e.split("/", 1))]
    return wanted.any_of("publish", *published) and wanted.any_of("expose", *exposed, *published)


def _port_texts(port: str, protocol: str) -> tuple[str, ...]:
    return (f"{port}/{protocol}", port) if protocol == "tcp" else (f"{port}/{protocol}",)


def _is_in(text: str, name: str) -> bool:
    """Whether the name, with or without docker's leading slash, matches the regular expression `text`."""
    try:
        return any(re.search(text, form) is not None for form in (name, f"/{name}"))
    except re.error:
        return text in f"/{name}"


def _matches_state(state: ContainerState, wanted: Filters) -> bool:
    health = state.health.status if state.health is not None else "none"
    if not wanted.any_of("status", state.status) or not wanted.any_of("health", health):
        return False
    codes = wanted.get("exited")
    return not codes or (state.status == "exited" and str(state.exit_code) in codes)


def _network_names(network: RecordedNetwork) -> tuple[str, ...]:
    """What a container's network can be called: the networks that it is on, else its mode, and docker's word for it."""
    if network.networks:
        return tuple(network.networks)
    return network.mode, "bridge" if recorded_mode(network.mode).helper is not None else network.mode


def _summary(
    engine: Engine, record: ContainerRecord, state: ContainerState, *, written: int | None
) -> ContainerSummary:
    """The row of `ps` for one container. written: the bytes that it has written, None where nobody asked for sizes."""
    root = None
    if written is not None:
        layers = engine.store.layers
        root = written + sum(layers.size(chain) for chain in record.layers if layers.has(chain))
    return ContainerSummary(
        id=record.id,
        name=record.name,
        image=record.image,
        image_id=record.image_id,
        command=tuple(record.command),
        created=record.created,
        started=parse_timestamp(state.started_at),
        finished=parse_timestamp(state.finished_at),
        state=state.status,
        status=status_text(state),
        exit_code=state.exit_code,
        health=state.health.status if state.health is not None else "",
        ports=bindings(record) if state.status in ("running", "paused") else (),
        exposed=tuple(e for e in record.exposed if e not in _published(record))
        if state.status in ("running", "paused")
        else (),
        labels=record.labels,
        mounts=tuple(m.name or m.source for m in record.mounts if m.name or m.source),
        networks=tuple(record.network.networks) or (record.network.mode,),
        size_rw=written,
        size_root=root,
    )


def status_text(state: ContainerState, now: float | None = None) -> str:
    """A state in docker's words: "Up 3 minutes (healthy)", "Exited (0) 2 hours ago", "Created".

    now: seconds since the epoch, None for the present.
    """
    moment = time.time() if now is None else now
    status = state.status
    remote = f" on {state.remote}" if state.remote else ""
    if status in ("running", "paused"):
        text = f"Up {human_duration(moment - parse_timestamp(state.started_at))}"
        if status == "paused":
            return f"{text} (Paused)"
        if state.network.problem:
            text += " (no network)"
        health = state.health.status if state.health is not None else "none"
        if health == "starting":
            text += " (health: starting)"
        elif health != "none":
            text += f" ({health})"
        return text + remote
    if status == "created":
        return "Created"
    if status == "dead":
        return "Dead"
    ago = human_duration(moment - parse_timestamp(state.finished_at))
    word = "Restarting" if status == "restarting" else "Exited"
    return f"{word} ({state.exit_code}) {ago} ago{remote}"


def bindings(record: ContainerRecord) -> tuple[PortBinding, ...]:
    """The published ports of a container."""
    return tuple(
        PortBinding(p.host_ip or "0.0.0.0", p.host_port, p.container_port, p.protocol)  # noqa: S104
        for p in record.network.ports
    )


def _published(record: ContainerRecord) -> set[str]:
    return {f"{p.container_port}/{p.protocol}" for p in record.network.ports}


def container_exists(engine: Engine, container: str) -> bool:
    """Whether there is a container of that name or id. Raises UsageError when several ids begin so."""
    try:
        engine.store.containers.find(container)
    except NotFound:
        return False
    return True


def container_ports(engine: Engine, container: str, private_port: str | None = None) -> list[PortBinding]:
    """The published ports of a running container. private_port: those alone that lead to this port ("80", "80/udp").

    Raises NotFound; UsageError for a text that is no port; InvalidInput when that port is not published.
    """
    containers = engine.store.containers
    container_id = containers.find(container)
    record = containers.read(container_id)
    running = state_of(engine, container_id).status in ("running", "paused")
    found = list(bindings(record)) if running else []
    if private_port is None:
        return found
    text, _, protocol = private_port.partition("/")
    number = whole_number(text)
    if number is None or protocol not in ("", "tcp", "udp", "sctp"):
        raise UsageError(f"invalid port '{private_port}'", hint="write PORT[/PROTOCOL]")
    matching = [b for b in found if b.container_port == number and b.protocol == (protocol or "tcp")]
    if not matching:
        raise InvalidInput(f"no public port '{number}/{protocol or 'tcp'}' published for {container}")
    return matching
