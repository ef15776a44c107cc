"""The verbs of `manifest`: lists (indexes) of images for several platforms, kept in the store under a name and edited.

An index never changes, as its digest is its identity: each edit stores a new one and moves the name to it.
"""

from __future__ import annotations

import json

from rootless.engine.image.image_names import find, qualify
from rootless.engine.image_types import EntryOptions, ListOptions, PullEvent, RegistryOptions
from rootless.engine.transfer.bring_index import bring_all, bring_packed
from rootless.engine.transfer.copy_ends import open_source
from rootless.errors import AlreadyExists, InvalidInput, NotFound, UsageError
from rootless.image.distribution.policy import check_policy
from rootless.image.fields import as_mapping, as_sequence, load_json
from rootless.image.manifest import OCI_INDEX, ImageConfig, Index, Manifest, parse_manifest
from rootless.image.places import REGISTRY, STORE, parse_place
from rootless.image.platform import host_platform, parse_platform
from rootless.paths import Lock
from rootless.storage.store.index import is_image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rootless.engine.context import Engine
    from rootless.engine.image_types import EntryDetails, Pushed, PushOptions
    from rootless.image.fields import Fields


class _EditedList:
    """An index (image-spec image-index.md) while it is edited. Members that this program does not know are kept."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self.entries = [as_mapping(each, "manifests") for each in as_sequence(fields.get("manifests"), "manifests")]

    @classmethod
    def of_index(cls, index: Index) -> _EditedList:
        """An edited list that begins with an index of the store."""
        return cls(load_json(index.raw, "index"))

    def annotate(self, annotations: Mapping[str, str]) -> None:
        """Add annotations of the list itself."""
        if annotations:
            self._fields["annotations"] = {**as_mapping(self._fields.get("annotations"), "annotations"), **annotations}

    def append(self, entry: Fields, details: EntryDetails) -> None:
        """Put an entry last; one with the same digest is removed. Raises InvalidInput for an incomplete platform."""
        described = dict(entry)
        _describe(described, details)
        self.entries = [each for each in self.entries if each["digest"] != described["digest"]] + [described]

    def encode(self) -> bytes:
        """The JSON of the index."""
        document = {**self._fields, "manifests": self.entries}
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def create_manifest(
    engine: Engine,
    name: str,
    images: Sequence[str] = (),
    options: ListOptions | None = None,
    *,
    progress: Callable[[PullEvent], None] | None = None,
) -> str:
    """Make a list with images in it, and return its digest.

    progress is called from this thread only. Raises UsageError, AlreadyExists (unless options.amend), and the errors of
    `add_to_manifest` for an image.
    """
    options = options or ListOptions()
    full = _full(engine, name)
    edited = _EditedList({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})
    with engine.store.using(), _lock(engine):
        index = engine.store.index
        there = index.find_index(full)
        if there is None and index.resolve(full) is not None:
            raise AlreadyExists(f"'{name}' is an image, not a list", hint="give the list another name")
        if there is not None:
            if not options.amend:
                raise AlreadyExists(f"list '{name}' exists", hint="use --amend to add to it, or `manifest rm` first")
            edited = _EditedList.of_index(there)
        for image in images:
            _add(engine, edited, image, options.entries, progress)
        edited.annotate(options.annotations)
        return _keep(engine, full, edited)


def add_to_manifest(
    engine: Engine,
    name: str,
    image: str,
    options: EntryOptions | None = None,
    *,
    progress: Callable[[PullEvent], None] | None = None,
) -> str:
    """Add an image of the store, a registry or an archive to a list, and return the list's new digest.

    progress is called from this thread only. Raises NotFound for the list; ImageNotFound, InvalidInput, RegistryError
    for the image.
    """
    full = _full(engine, name)
    with engine.store.using(), _lock(engine):
        edited = _EditedList.of_index(_require(engine, name))
        _add(engine, edited, image, options or EntryOptions(), progress)
        return _keep(engine, full, edited)


def annotate_manifest(engine: Engine, name: str, what: str, details: EntryDetails, *, whole: bool = False) -> str:
    """Change the details of one entry of a list (a digest, or an image of the store), and return the list's new digest.

    whole: the annotations of the list itself are changed instead. Raises UsageError, NotFound, InvalidInput.
    """
    full = _full(engine, name)
    with engine.store.using(), _lock(engine):
        edited = _EditedList.of_index(_require(engine, name))
        if whole:
            edited.annotate(dict(details.annotations))
        else:
            _describe(_entry(engine, edited, what, name), details)
        return _keep(engine, full, edited)


def remove_from_manifest(engine: Engine, name: str, what: str) -> str:
    """Take one entry (a digest, or an image of the store) out of a list, and return the list's new digest.

    Raises UsageError, NotFound.
    """
    full = _full(engine, name)
    with engine.store.using(), _lock(engine):
        edited = _EditedList.of_index(_require(engine, name))
        edited.entries.remove(_entry(engine, edited, what, name))
        return _keep(engine, full, edited)


def inspect_manifest(engine: Engine, name: str, registry: RegistryOptions | None = None) -> Fields:
    """The list or manifest `name` of the store, or if it has none, of its registry.

    Raises UsageError, ImageNotFound, InvalidInput, RegistryError.
    """
    place = parse_place(name)
    if place.transport == STORE:
        index = engine.store.index.find_index(_full(engine, place.name))
        if index is not None:
            return load_json(index.raw, "index")
        entry = find(engine, place.name)
        if entry is not None:
            return load_json(entry.manifest.raw, "manifest")
        place = place._replace(transport=REGISTRY, name=_full(engine, place.name))
    with open_source(engine, place, registry or RegistryOptions()) as source:
        raw, media_type = source.top()
        parse_manifest(raw, media_type)
        return load_json(raw, "manifest")


def manifest_exists(engine: Engine, name: str) -> bool:
    """Whether a list of that name is in the store. Raises UsageError."""
    return engine.store.index.find_index(_full(engine, name)) is not None


def remove_manifest(engine: Engine, name: str) -> str:
    """Remove a list and return its digest. Its images stay if they have names of their own.

    Raises UsageError, NotFound.
    """
    from rootless.storage.store.gc import collect_garbage

    index = _require(engine, name)
    engine.store.index.untag(_full(engine, name))
    # It may still have `repository@digest` names from pushes, which no user gave it and which would keep it
    _forget_nameless(engine, index.digest)
    collect_garbage(engine.store)
    return index.digest


def push_manifest(
    engine: Engine,
    name: str,
    target: str | None,
    options: PushOptions,
    *,
    progress: Callable[[PullEvent], None] | None = None,
) -> Pushed:
    """Push a list with its images; with options.all False the image for this host alone.

    target, progress: as of `push_image`. Raises NotFound for the list, and the errors of `push_image`.
    """
    from rootless.engine.transfer.push import push_image

    _require(engine, name)
    target = target.removeprefix("docker://") if target else None
    return push_image(engine, name, target, options, progress=progress)


def _full(engine: Engine, name: str) -> str:
    reference, _ = qualify(engine, name)
    if reference.digest:
        raise UsageError(f"a list cannot have the name '{name}'", hint="leave out the digest")
    return str(reference)


def _lock(engine: Engine) -> Lock:
    return Lock(engine.store.path("locks", "manifests"))


def _require(engine: Engine, name: str) -> Index:
    index = engine.store.index.find_index(_full(engine, name))
    if index is None:
        raise NotFound(f"no list '{name}' is here", hint=f"rootless manifest create {name}")
    return index


def _keep(engine: Engine, full: str, edited: _EditedList) -> str:
    """Store the list under the name `full`, and return its digest. Its older version goes if it has no other name."""
    index = parse_manifest(edited.encode())
    engine.store.blobs.put(index.raw)
    previous = engine.store.index.tag(full, index.descriptor)
    if previous is not None:
        _forget_nameless(engine, previous)
    return index.digest


def _forget_nameless(engine: Engine, digest: str) -> None:
    index = engine.store.index
    if index.find_index(digest) is not None and not any(
        "@" not in name for each in index.indexes() if each.document.digest == digest for name in each.names
    ):
        index.remove(digest)


def _entry(engine: Engine, edited: _EditedList, what: str, name: str) -> Fields:
    """The entry of the list that `what`, a digest or an image of the store, means. Raises NotFound."""
    digests = {what}
    if not what.startswith("sha256:"):
        image = find(engine, what)
        if image is not None:
            digests = {image.manifest_digest, image.index_digest}
            digests |= {each.rpartition("@")[2] for each in image.names if "@" in each}
    for entry in edited.entries:
        if entry["digest"] in digests:
            return entry
    raise NotFound(f"list '{name}' has no entry '{what}'", hint=f"`rootless manifest inspect {name}` shows them")


def _add(
    engine: Engine,
    edited: _EditedList,
    name: str,
    options: EntryOptions,
    progress: Callable[[PullEvent], None] | None,
) -> None:
    """Bring an image into the store and append its descriptor to the list (options.all: those of all its platforms)."""
    say = progress or (lambda event: None)
    place = parse_place(name)
    is_local = place.transport == STORE and (
        find(engine, place.name) is not None or engine.store.index.find_index(_full(engine, place.name)) is not None
    )
    if place.transport == STORE and not is_local:
        place = place._replace(transport=REGISTRY, name=str(qualify(engine, place.name)[0]))
    if place.transport != STORE:
        check_policy(place.transport, place.scope)
    details = options.details
    wanted = host_platform()
    if details.architecture:
        wanted = parse_platform("/".join(filter(None, (details.os or "linux", details.architecture, details.variant))))
    with open_source(engine, place, options.registry) as source:
        top = parse_manifest(*source.top())
        if isinstance(top, Index) and options.all:
            if not is_local:
                bring_all(engine, source, say)
            for child in _EditedList.of_index(top).entries:
                edited.append(child, details)
            return
        manifest = source.manifest(wanted) if isinstance(top, Index) else top
        if not is_local:
            bring_packed(engine.store, source, manifest, say)
    edited.append(_described(engine, manifest), details)


def _described(engine: Engine, manifest: Manifest) -> Fields:
    """The descriptor of an image, with the platform that its config names."""
    found: Fields = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": len(manifest.raw)}
    if is_image(manifest):
        config = ImageConfig(engine.store.blobs.read(manifest.config.digest, manifest.config.size))
        platform: Fields = {"architecture": config.architecture, "os": config.os or "linux", "variant": config.variant}
        platform |= {key: config.document.get(key) for key in ("os.version", "os.features")}
        found["platform"] = {key: value for key, value in platform.items() if value}
    return found


def _describe(entry: Fields, details: EntryDetails) -> None:
    """Write the details that are given into an entry. Raises InvalidInput for a platform without os or architecture."""
    values = {
        "os": details.os,
        "architecture": details.architecture,
        "variant": details.variant,
        "os.version": details.os_version,
        "os.features": list(details.os_features),
        "features": list(details.features),
    }
    platform = as_mapping(entry.get("platform"), "platform") | {key: value for key, value in values.items() if value}
    if platform:
        if not platform.get("architecture") or not platform.get("os"):
            raise InvalidInput("a platform needs an operating system and an architecture", hint="give --os and --arch")
        entry["platform"] = platform
    if details.annotations:
        entry["annotations"] = {**as_mapping(entry.get("annotations"), "annotations"), **dict(details.annotations)}
