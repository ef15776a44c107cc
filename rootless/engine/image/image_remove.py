"""The verbs that change names of images and remove them: `tag`, `untag`, `rm`, `prune`. docker's rules and words."""

from __future__ import annotations

from rootless.engine import events
from rootless.engine.image.image_list import has_label, matches, users_by_image
from rootless.engine.image.image_names import (
    familiar,
    find_index,
    is_digest_name,
    qualify,
    repo_digests,
    require,
    require_platform,
    tags,
)
from rootless.engine.image_types import RemovedImage
from rootless.engine.types import PruneReport
from rootless.errors import ImageNotFound, InvalidInput, InvalidState, NotFound, RootlessError, UsageError
from rootless.image.manifest import Descriptor, chain_ids
from rootless.image.reference import parse_reference
from rootless.records.state import LIVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rootless.engine.context import Engine
    from rootless.storage.store.index import ImageEntry

_PRUNE_FILTERS = ("dangling", "label", "label!", "until")


def tag_image(engine: Engine, source: str, target: str) -> None:
    """Give the image `source` the further name `target`. As with docker, an image that had the name loses it.

    Raises ImageNotFound, UsageError.
    """
    reference, _ = qualify(engine, target)
    if reference.digest:
        raise UsageError(f"an image cannot be given the name '{target}'", hint="leave out the digest")
    with engine.store.using():
        engine.store.index.tag(str(reference), named_descriptor(engine, source))
        tagged = engine.store.index.resolve(str(reference))
    if tagged is not None:
        events.record_image(engine, "tag", tagged.config_digest, reference.familiar())


def named_descriptor(engine: Engine, text: str) -> Descriptor:
    """The descriptor for a further name of what `text` names: that of the index if it is one, else of the manifest."""
    index = find_index(engine, text)
    if index is not None:
        return index.descriptor
    entry = require(engine, text)
    return entry.manifest.descriptor


def untag_image(engine: Engine, name: str) -> RemovedImage:
    """Take one name away from an image, which stays, without a name if it was the last. Raises ImageNotFound."""
    entry = require(engine, name)
    full = _name_of(engine, entry, name)
    if full is None:
        raise ImageNotFound(f"'{name}' is not a name of an image", hint="`rootless images` lists the names")
    engine.store.index.untag(full)
    return _noted(engine, entry, RemovedImage((familiar(full),), ()))


def remove_image(engine: Engine, name: str, *, force: bool = False, platform: str | None = None) -> RemovedImage:
    """Remove a name of an image, and with its last name the image. By an id the image goes with its name.

    Raises ImageNotFound; InvalidState when a container uses the image, or when an id is given and several repositories
    have the image. force: the names go all the same unless a container runs; the layers that a container needs stay.
    platform: the image must be for it, and must not be one of several of an index, which go together.
    """
    if platform is not None:
        require_platform(engine, name, platform)
        index = find_index(engine, name)
        if index is not None and len(index.manifests) > 1:
            raise InvalidState(
                f"'{name}' is an index of {len(index.manifests)} images, of which none can be removed alone",
                hint="`rootless manifest remove` makes a list without one of them",
            )
    try:
        entry = require(engine, name)
    except (NotFound, InvalidInput):
        broken = _broken(engine, name)
        if broken is None:
            raise
        engine.store.index.remove(broken)  # Its files cannot be read, and say nothing of its names and layers
        _collect(engine, [])
        return RemovedImage((), (broken,))
    full = _name_of(engine, entry, name)
    named = tags(entry)
    if full is not None:
        others = [each for each in entry.names if each != full]
        stays = bool([each for each in others if not is_digest_name(each)]) or (is_digest_name(full) and bool(named))
        if stays:
            return _noted(engine, entry, _untag_one(engine, entry, full))
    elif len({parse_reference(each).name for each in named}) > 1 and not force:
        short = entry.config_digest.partition(":")[2][:12]
        raise InvalidState(
            f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories",
            hint="remove its names one by one, or use --force",
        )
    _check_users(engine, entry, name, by_name=full is not None, force=force)
    engine.store.index.remove(entry.named_digest)
    return _noted(engine, entry, RemovedImage(_shown_names(entry), _collect(engine, [entry])[0]))


def _broken(engine: Engine, text: str) -> str | None:
    """The digest of the damaged image that `text` (a name, a digest or its first digits) means; None for no such one.

    Damaged are those whose manifest or config cannot be read: they have no id by which they could be found.
    """
    names = engine.store.index.names()
    try:
        full = str(qualify(engine, text)[0])
    except UsageError:
        full = text
    broken = [digest for digest, _ in engine.store.index.broken()]
    found = [digest for digest in broken if full in names[digest] or text == digest]
    digits = text.removeprefix("sha256:")
    found = found or [digest for digest in broken if len(digits) >= 4 and digest[7:].startswith(digits)]
    return found[0] if len(found) == 1 else None


def _shown_names(entry: ImageEntry) -> tuple[str, ...]:
    """Every name of the image as docker shows it: tags, then where it was pulled from."""
    return tuple(familiar(name) for name in [*tags(entry), *repo_digests(entry)])


def _noted(engine: Engine, entry: ImageEntry, removed: RemovedImage) -> RemovedImage:
    """Return `removed` after writing the events for it.

    As docker's, each event has the image's id; its name is the one that was removed, or the id again when the image was
    deleted. Layers that were deleted with it are no images and have no events.
    """
    image_id = entry.config_digest
    for name in removed.untagged:
        events.record_image(engine, "untag", image_id, name)
    if image_id in removed.deleted:
        events.record_image(engine, "delete", image_id, image_id)
    return removed


def prune_images(
    engine: Engine, *, all: bool = False, filters: Mapping[str, Sequence[str]] | None = None
) -> PruneReport:
    """Remove the images without a name that no container uses. all: those with a name, too.

    filters: docker's label, label!, until and dangling. Where a damaged image makes the list of images incomplete, all
    stay, with a warning. Raises UsageError.
    """
    filters = filters or {}
    unknown = set(filters) - set(_PRUNE_FILTERS)
    if unknown:
        raise UsageError(f"invalid filter '{min(unknown)}'", hint=f"use one of: {', '.join(_PRUNE_FILTERS)}")
    only_dangling = not all
    for value in filters.get("dangling", ()):
        only_dangling = value.lower() in ("true", "1")
    store = engine.store
    users = users_by_image(store)
    wanted = {key: values for key, values in filters.items() if key in ("label", "until")}
    gone = []
    try:
        entries = store.index.entries()
    except InvalidInput as e:
        engine.warn(f"all images stay: {e.message}; {e.hint}")
        return PruneReport()
    for entry in entries:
        if (only_dangling and tags(entry)) or users.get(entry.config_digest):
            continue
        if not matches(engine, entry, wanted):
            continue
        if any(has_label(entry.config.labels, value) for value in filters.get("label!", ())):
            continue
        store.index.remove(entry.named_digest)
        gone.append(entry)
    deleted, freed = _collect(engine, gone)
    lines = []
    for entry in gone:
        removed = _noted(engine, entry, RemovedImage(_shown_names(entry), deleted))
        lines += [f"untagged: {name}" for name in removed.untagged]
    return PruneReport(images=(*lines, *(f"deleted: {each}" for each in deleted)), reclaimed=freed)


def _name_of(engine: Engine, entry: ImageEntry, text: str) -> str | None:
    """The full name of `entry` that `text` means; None when `text` is an id."""
    if text.startswith("sha256:"):
        return None
    try:
        full = str(qualify(engine, text)[0])
    except UsageError:
        return None
    return full if full in entry.names else None


def _untag_one(engine: Engine, entry: ImageEntry, full: str) -> RemovedImage:
    """Take away one of several names, and with the last tag of a repository also its `repository@digest` names."""
    going = [full]
    repository = parse_reference(full).name
    left = [each for each in tags(entry) if each != full]
    if not is_digest_name(full) and repository not in {parse_reference(each).name for each in left}:
        going += [each for each in repo_digests(entry) if parse_reference(each).name == repository]
    for name in going:
        try:
            engine.store.index.untag(name)
        except NotFound:
            continue  # another command has removed the name already
    return RemovedImage(tuple(familiar(name) for name in going), ())


def _check_users(engine: Engine, entry: ImageEntry, text: str, *, by_name: bool, force: bool) -> None:
    """Raise InvalidState, with docker's text, when a container forbids the removal.

    by_name: a name is removed, and not an id; text: what the user typed.
    """
    store = engine.store
    short = entry.config_digest.partition(":")[2][:12]
    for container_id in store.containers.list():
        try:
            record = store.containers.read(container_id)
            state = store.containers.read_state(container_id)
        except RootlessError:
            continue
        if record.image_id != entry.config_digest:
            continue
        is_running = state is not None and state.status in LIVE
        if force and not is_running:
            continue
        if is_running and not by_name:
            raise InvalidState(
                f"conflict: unable to delete {short} (cannot be forced)"
                f" - image is being used by running container {container_id[:12]}",
                hint=f"rootless rm -f {container_id[:12]}",
            )
        if by_name and force:
            continue  # Only the name goes: the container's record names the layers, and garbage collection keeps those
        what = (
            f'unable to remove repository reference "{text}" (must force) - container {container_id[:12]}'
            f" is using its referenced image {short}"
            if by_name
            else f"unable to delete {short} (must be forced) - image is being used by stopped container"
            f" {container_id[:12]}"
        )
        raise InvalidState(f"conflict: {what}", hint=f"rootless rm {container_id[:12]}, or use --force")


def _collect(engine: Engine, removed: Sequence[ImageEntry]) -> tuple[tuple[str, ...], int]:
    """Collect garbage. Returns what is really gone (ids of images, chain ids of their layers) and the bytes freed."""
    from rootless.storage.store.gc import collect_garbage

    collected = collect_garbage(engine.store, keep_layer_blobs=engine.settings.keep_layer_blobs)
    if collected.quarantined:
        tell_quarantined(engine, collected.quarantined)
    if collected.busy and removed:
        engine.warn("other commands are using the store: what was removed is freed by the next prune")
    gone = []
    layers = set(collected.layers)
    blobs = set(collected.blobs)
    for entry in removed:
        if entry.config_digest in blobs or collected.busy:
            gone.append(entry.config_digest)
        gone += [each for each in reversed(chain_ids(entry.config.diff_ids)) if each in layers and each not in gone]
    return tuple(gone), collected.freed


def tell_quarantined(engine: Engine, container_ids: Sequence[str]) -> None:
    """Warn where the files of containers are that have lost their name and record."""
    for container_id in container_ids:
        place = engine.store.path("quarantine", f"container-{container_id}")
        engine.warn(
            f"container {container_id[:12]} has lost its name and its record: what it had written is in"
            f" '{place}/upper' until the next `rootless system prune`"
        )
