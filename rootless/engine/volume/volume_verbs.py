"""The verbs of volumes: names, use and filters. Files are touched by storage.store.volumes alone."""

from __future__ import annotations

from rootless.engine.filters import Filters
from rootless.engine.types import PruneReport, VolumeSummary
from rootless.errors import InvalidInput, InvalidState, NotFound, RootlessError
from rootless.units import parse_timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rootless.engine.context import Engine
    from rootless.storage.store.volumes import VolumeRecord


def create_volume(
    engine: Engine,
    name: str | None = None,
    *,
    driver: str = "local",
    labels: Sequence[str] = (),
    options: Sequence[str] = (),
) -> str:
    """Make a volume, and return its name.

    name: None for a random one; driver: `local` is the only one; labels: KEY=VALUE; options: type=…, o=…, device=… of
    that driver. As with docker, a volume that exists stays as it is. Raises UsageError, HostLimit.
    """
    from rootless.engine.plan.environment import parse_labels
    from rootless.engine.plan.volume_backing import parse_backing

    wanted = parse_labels(labels)
    pairs = dict(text.partition("=")[::2] for text in options)
    parse_backing(pairs)
    volumes = engine.store.volumes
    if name is not None:
        try:
            return volumes.get(name).name
        except NotFound:
            pass
    made = volumes.create(name, labels=wanted, driver=driver, options=pairs).name
    _note(engine, "create", made)
    return made


def _note(engine: Engine, action: str, name: str) -> None:
    from rootless.engine import events

    events.record_event(engine, "volume", action, name, {"driver": "local"})


def list_volumes(
    engine: Engine, *, filters: Mapping[str, Sequence[str]] | None = None, size: bool = False
) -> list[VolumeSummary]:
    """The volumes in the order of names.

    filters: docker's name, label, label!, dangling, driver; size: the bytes in each, which reads all its directories.
    Raises UsageError.
    """
    wanted = Filters(filters or {}, ("name", "label", "label!", "dangling", "driver"))
    dangling = wanted.boolean("dangling")
    volumes = engine.store.volumes
    users = volumes.users() if dangling is not None else {}
    found = []
    for volume in volumes.list():
        if wanted.get("name") and not any(text in volume.name for text in wanted.get("name")):
            continue
        if not wanted.has_labels(volume.labels) or not wanted.any_of("driver", "local"):
            continue
        if dangling is not None and dangling == bool(users.get(volume.name)):
            continue
        found.append(volume)
    if not size:
        return [_summary(volume) for volume in found]
    from rootless.storage.layers.tree_sizes import tree_sizes

    sizes = tree_sizes([volume.path for volume in found], engine.store.id_map)
    return [_summary(volume, size.content) for volume, size in zip(found, sizes, strict=True)]


def inspect_volume(engine: Engine, name: str) -> dict[str, object]:
    """One volume in the shape of docker's `volume inspect`. Raises NotFound."""
    volume = engine.store.volumes.get(name)
    return {
        "CreatedAt": volume.created_at,
        "Driver": "local",
        "Labels": dict(volume.labels),
        "Mountpoint": volume.path,
        "Name": volume.name,
        "Options": dict(volume.options),
        "Scope": "local",
        "Anonymous": volume.anonymous,
    }


def volume_exists(engine: Engine, name: str) -> bool:
    """Whether there is a volume of that name. Raises InvalidInput when its record is damaged."""
    try:
        engine.store.volumes.get(name)
    except NotFound:
        return False
    return True


def remove_volume(engine: Engine, name: str, *, force: bool = False) -> None:
    """Remove a volume with its files. force: one that does not exist is no error.

    Raises NotFound, InvalidState when a container uses it, HostLimit.
    """
    try:
        engine.store.volumes.remove(name)
    except NotFound:
        if not force:
            raise
    else:
        _note(engine, "destroy", name)


def prune_volumes(
    engine: Engine, *, all: bool = False, filters: Mapping[str, Sequence[str]] | None = None
) -> PruneReport:
    """Remove the anonymous volumes that no container uses. all: those with a name, too.

    filters: docker's label, label!, until and all. Where a container's record is damaged nobody knows which volumes it
    uses, and all stay with a warning. Raises UsageError.
    """
    from rootless.storage.layers.tree_sizes import tree_sizes

    given = dict(filters or {})
    wanted = Filters(given, ("label", "label!", "until", "all"))
    everything = all or bool(wanted.boolean("all"))
    store = engine.store
    removed, reclaimed = [], 0
    # The exclusive lock waits for every `create`, which may have made a volume that no record names yet
    with store.exclusive():
        try:
            users = store.volumes.users()
        except InvalidInput as e:
            engine.warn(f"all volumes stay, for nobody knows which of them are used: {e.message}")
            return PruneReport()
        for volume in store.volumes.list():
            if users.get(volume.name) or not (everything or volume.anonymous):
                continue
            if not wanted.has_labels(volume.labels) or not wanted.is_before(parse_timestamp(volume.created_at)):
                continue
            try:
                (size,) = tree_sizes([volume.path], store.id_map)
                store.volumes.remove(volume.name)
            except (InvalidState, NotFound):
                continue
            except RootlessError as e:
                engine.warn(f"volume {volume.name} stays: {e.message}")
                continue
            removed.append(volume.name)
            reclaimed += size.content
            _note(engine, "destroy", volume.name)
    return PruneReport(volumes=tuple(removed), reclaimed=reclaimed)


def _summary(volume: VolumeRecord, size: int | None = None) -> VolumeSummary:
    return VolumeSummary(
        name=volume.name,
        driver="local",
        mountpoint=volume.path,
        created=parse_timestamp(volume.created_at),
        labels=dict(volume.labels),
        options=dict(volume.options),
        anonymous=volume.anonymous,
        size=size,
    )
