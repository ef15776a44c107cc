"""The verbs of `manifest`: indexes of several platforms, kept in the store under a name and edited there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rootless.engine.image.image_names import find, qualify
from rootless.engine.image_types import EntryOptions, ListOptions, PullEvent, RegistryOptions
from rootless.engine.transfer.bring_index import bring_all, bring_packed
from rootless.engine.transfer.copy_ends import StoreSource, open_source
from rootless.errors import AlreadyExists, InvalidInput, NotFound, UsageError
from rootless.image.distribution.policy import check_policy
from rootless.image.manifest import OCI_INDEX, Descriptor, ImageConfig, Index, Manifest, parse_manifest
from rootless.image.places import REGISTRY, STORE, parse_place
from rootless.image.platform import host_platform, parse_platform
from rootless.paths import Lock
from rootless.storage.store.index import is_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.engine.context import Engine
    from rootless.engine.image_types import EntryDetails, Pushed, PushOptions

_FIELDS = ("os", "architecture", "variant", "os.version", "os.features", "features")


def create_manifest(
    engine: Engine,
    name: str,
    images: Sequence[str] = (),
    options: ListOptions | None = None,
    *,
    progress: Callable[[PullEvent], None] | None = None,
) -> str:
    """Make a list, with images in it; its digest. Raises AlreadyExists."""
    options = options or ListOptions()
    full = _full(engine, name)
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    with engine.store.using(), _lock(engine):
        index = engine.store.index
        there = index.find_index(full)
        if there is None and index.resolve(full) is not None:
            raise AlreadyExists(f"'{name}' is an image, not a list", hint="give the list another name")
        if there is not None:
            if not options.amend:
                raise AlreadyExists(f"list '{name}' exists", hint="use --amend to add to it, or `manifest rm` first")
            document = json.loads(there.raw)
        for image in images:
            _add(engine, document, image, options.entries, progress)
        if options.annotations:
            document["annotations"] = {**(document.get("annotations") or {}), **options.annotations}
        return _keep(engine, full, document)


def add_to_manifest(
    engine: Engine,
    name: str,
    image: str,
    options: EntryOptions | None = None,
    *,
    progress: Callable[[PullEvent], None] | None = None,
) -> str:
    """Add an image of the store, of a registry or of an archive to a list; the list's digest now."""
    full = _full(engine, name)
    with engine.store.using(), _lock(engine):
        document = json.loads(_require(engine, name).raw)
        _add(engine, document, image, options or EntryOptions(), progress)
        return _keep(engine, full, document)


def annotate_manifest(engine: Engine, name: str, what: str, details: EntryDetails, *, whole: bool = False) -> str:
    """Change what a list says of one entry (a digest, or an image of the store); whole: of itself."""
    full = _full(engine, name)
    with engine.store.using(), _lock(engine):
        document = json.loads(_require(engine, name).raw)
        if whole:
            document["annotations"] = {**(document.get("annotations") or {}), **dict(details.annotations)}
        else:
            _describe(_entry(engine, document, what, name), details)
        return _keep(engine, full, document)


def remove_from_manifest(engine: Engine, name: str, what: str) -> str:
    """Take one entry out of a list."""
    full = _full(engine, name)
    with engine.store.using(), _lock(engine):
        document = json.loads(_require(engine, name).raw)
        document["manifests"].remove(_entry(engine, document, what, name))
        return _keep(engine, full, document)


def inspect_manifest(engine: Engine, name: str, registry: RegistryOptions | None = None) -> dict[str, Any]:
    """The list or manifest `name`: of the store, else of its registry. Raises ImageNotFound, RegistryError."""
    place = parse_place(name)
    if place.transport == STORE:
        here = engine.store.index.find_index(_full(engine, place.name))
        entry = None if here is not None else find(engine, place.name)
        if here is not None or entry is not None:
            raw = here.raw if here is not None else entry.manifest.raw if entry is not None else b""
            shown: dict[str, Any] = json.loads(raw)
            return shown
        place = place._replace(transport=REGISTRY, name=_full(engine, place.name))
    source = open_source(engine, place, registry or RegistryOptions())
    try:
        raw, media_type = source.top()
        parse_manifest(raw, media_type)
        found: dict[str, Any] = json.loads(raw)
        return found
    finally:
        source.close()


def manifest_exists(engine: Engine, name: str) -> bool:
    """Whether a list of that name is in the store."""
    return engine.store.index.find_index(_full(engine, name)) is not None


def remove_manifest(engine: Engine, name: str) -> str:
    """Forget a list; its images stay when they have names of their own. Returns its digest."""
    from rootless.storage.store.gc import collect_garbage

    index = _require(engine, name)
    engine.store.index.untag(_full(engine, name))
    _forget_nameless(engine, index.digest)  # where it was pushed to is no name that a user gave
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
    """Push a list with its images (options.all False: this host's image only)."""
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


def _keep(engine: Engine, full: str, document: dict[str, Any]) -> str:
    """Store the list and let the name mean it; the older version is garbage when nothing else names it."""
    raw = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    store = engine.store
    parse_manifest(raw)
    digest = store.blobs.put(raw)
    previous = store.index.tag(full, Descriptor(document["mediaType"], digest, len(raw)))
    if previous is not None:
        _forget_nameless(engine, previous)
    return digest


def _forget_nameless(engine: Engine, digest: str) -> None:
    index = engine.store.index
    if index.find_index(digest) is not None and not any(
        "@" not in name for each in index.indexes() if each.document.digest == digest for name in each.names
    ):
        index.remove(digest)


def _entry(engine: Engine, document: dict[str, Any], what: str, name: str) -> dict[str, Any]:
    """The entry that a digest, or an image of the store, means."""
    digests = {what}
    if not what.startswith("sha256:"):
        image = find(engine, what)
        if image is not None:
            digests = {image.manifest_digest, image.index_digest}
            digests |= {each.rpartition("@")[2] for each in image.names if "@" in each}
    entries: list[dict[str, Any]] = document["manifests"]
    for entry in entries:
        if entry["digest"] in digests:
            return entry
    raise NotFound(f"list '{name}' has no entry '{what}'", hint=f"`rootless manifest inspect {name}` shows them")


def _add(
    engine: Engine,
    document: dict[str, Any],
    text: str,
    options: EntryOptions,
    progress: Callable[[PullEvent], None] | None,
) -> None:
    """Bring the image here, when it is not, and append its descriptor (or those of all its platforms)."""
    say = progress or (lambda event: None)
    place = parse_place(text)
    is_local = place.transport == STORE and (
        find(engine, place.name) is not None or engine.store.index.find_index(_full(engine, place.name)) is not None
    )
    if place.transport == STORE and not is_local:
        place = place._replace(transport=REGISTRY, name=str(qualify(engine, place.name)[0]))
    if place.transport != STORE:
        check_policy(place.transport, place.scope)
    source = StoreSource(engine, place.name) if is_local else open_source(engine, place, options.registry)
    details = options.details
    wanted = host_platform()
    if details.architecture:
        wanted = parse_platform("/".join(filter(None, (details.os or "linux", details.architecture, details.variant))))
    try:
        raw, media_type = source.top()
        top = parse_manifest(raw, media_type)
        if isinstance(top, Index) and options.all:
            if not is_local:
                bring_all(engine, source, say)
            for child in json.loads(top.raw)["manifests"]:
                _append(document, child, details)
            return
        manifest = source.manifest(wanted) if isinstance(top, Index) else top
        if not is_local:
            bring_packed(engine.store, source, manifest, say)
    finally:
        source.close()
    _append(document, _described(engine, manifest), details)


def _described(engine: Engine, manifest: Manifest) -> dict[str, Any]:
    """The descriptor of an image with the platform that its config says."""
    found: dict[str, Any] = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": len(manifest.raw)}
    if is_image(manifest):
        config = ImageConfig(engine.store.blobs.read(manifest.config.digest, manifest.config.size))
        platform = {"architecture": config.architecture, "os": config.os or "linux", "variant": config.variant}
        found["platform"] = {key: value for key, value in platform.items() if value}
        for key in ("os.version", "os.features"):
            if config.document.get(key):
                found["platform"][key] = config.document[key]
    return found


def _append(document: dict[str, Any], entry: dict[str, Any], details: EntryDetails) -> None:
    entry = json.loads(json.dumps(entry))
    _describe(entry, details)
    entries = document["manifests"]
    document["manifests"] = [each for each in entries if each["digest"] != entry["digest"]] + [entry]


def _describe(entry: dict[str, Any], details: EntryDetails) -> None:
    """Write the details that are given into an entry."""
    values = (
        details.os,
        details.architecture,
        details.variant,
        details.os_version,
        list(details.os_features),
        list(details.features),
    )
    platform = dict(entry.get("platform") or {})
    platform |= {key: value for key, value in zip(_FIELDS, values, strict=True) if value}
    if platform:
        if not platform.get("architecture") or not platform.get("os"):
            raise InvalidInput("a platform needs an operating system and an architecture", hint="give --os and --arch")
        entry["platform"] = platform
    if details.annotations:
        entry["annotations"] = {**(entry.get("annotations") or {}), **dict(details.annotations)}
