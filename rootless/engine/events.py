"""The stream of events: what commands and monitors have written to the store's log of events, filtered and followed.

Each command that changes something calls `record_event`: it costs one short append, and never fails, as no command may
fail for its event. There is no daemon that could send events, so that followers look at the log again and again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from rootless.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.records.container import ContainerRecord
    from rootless.storage.store.eventlog import EventEntry

_POLL = 0.1  # seconds between looks at the log
_FILTERS = ("container", "image", "volume", "network", "type", "event", "label")


def log_path(engine: Engine) -> str:
    """The path of this store's log of events."""
    return f"{engine.store.root}/events.log"


def record_event(engine: Engine, kind: str, action: str, id: str, attributes: Mapping[str, str] | None = None) -> None:
    """Note that `action` (docker's word) was done to the object `id` of `kind` (container, image, volume, ...)."""
    from rootless.storage.store import eventlog

    eventlog.append_event(log_path(engine), eventlog.EventEntry(kind, action, id, dict(attributes or {})))


def container_attributes(record: ContainerRecord) -> dict[str, str]:
    """The attributes that every event of a container has beside its id, as docker's have: labels, image and name."""
    return {**record.labels, "image": record.image, "name": record.name}


def record_image(engine: Engine, action: str, id: str, name: str = "") -> None:
    """Note that `action` was done to an image. name: the one by which it was done, "" for none."""
    record_event(engine, "image", action, id, {"name": name} if name else None)


def record_container(engine: Engine, record: ContainerRecord, action: str, **attributes: str) -> None:
    """Note that `action` was done to the container of `record`."""
    record_event(engine, "container", action, record.id, {**container_attributes(record), **attributes})


def stream_events(
    engine: Engine,
    *,
    since: str | None = None,
    until: str | None = None,
    filters: Mapping[str, Sequence[str]] | None = None,
    follow: bool = True,
) -> Iterator[EventEntry]:
    """The events that pass the filters, oldest first; then new ones until the time `until`, or for ever.

    Without `since` only events from now on are given. With `until` in the past the stream ends after the old ones.
    follow: False ends it there, too. Raises UsageError for unknown filters and times.
    """
    from rootless.storage.store.eventlog import EventReader
    from rootless.units import parse_moment_ns

    for key in filters or {}:
        if key not in _FILTERS:
            raise UsageError(f"invalid filter '{key}'", hint=f"known are {', '.join(_FILTERS)}")
    began = time.time_ns()
    first = began if since is None else parse_moment_ns(since, "--since")
    last = None if until is None else _until_ns(until)
    reader = EventReader(log_path(engine))
    try:
        while True:
            now = time.time_ns()
            for entry in reader.entries(older=since is not None):
                in_time = entry.nanoseconds >= first and (last is None or entry.nanoseconds <= last)
                if in_time and passes(entry, filters or {}):
                    yield entry
            if not follow or (last is not None and now > last):
                return
            time.sleep(_POLL)
    finally:
        reader.close()


def _until_ns(text: str) -> int:
    """The moment of --until in nanoseconds since the epoch.

    As with docker a duration means the past: `10m` is ten minutes ago. With a sign it means the future: `+10m`.
    """
    from rootless.units import parse_duration, parse_moment_ns

    if text.startswith("+"):
        return int((time.time() + parse_duration(text[1:], "--until")) * 1e9)
    return parse_moment_ns(text, "--until")


def passes(entry: EventEntry, filters: Mapping[str, Sequence[str]]) -> bool:
    """Whether the event matches, of each filter's key, at least one value."""
    return all(any(_matches(entry, key, value) for value in values) for key, values in filters.items())


def _matches(entry: EventEntry, key: str, value: str) -> bool:
    if key == "type":
        return entry.kind == value
    if key == "event":
        return entry.action == value or entry.action.partition(":")[0] == value
    if key == "label":
        name, equals, wanted = value.partition("=")
        return name in entry.attributes and (not equals or entry.attributes[name] == wanted)
    if key == "image" and entry.kind == "container":
        return _names(entry.attributes.get("image", ""), value)
    if entry.kind != key:
        return False
    named = entry.attributes.get("name", "")
    return entry.id == value or named == value or _names(named, value) or (len(value) > 3 and _begins(entry.id, value))


def _begins(id: str, value: str) -> bool:
    return id.removeprefix("sha256:").startswith(value.removeprefix("sha256:"))


def _names(full: str, value: str) -> bool:
    """Whether `value` means the image name `full`, with or without its registry, `library/` and tag."""
    if not full:
        return False
    short = full.removeprefix("docker.io/").removeprefix("library/")
    return value in (full, short, short.rpartition(":")[0] or short, full.rpartition(":")[0])
