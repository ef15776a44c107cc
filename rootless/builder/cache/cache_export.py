"""--cache-to: the records that a build used, as a cache image in a layout, in a registry, or in the image itself."""

from __future__ import annotations

from rootless.builder.build_options import parse_fields
from rootless.builder.cache.cache_format import MEMBER, pack
from rootless.builder.session.build_state import BuildState, ImageSettings, store_state
from rootless.engine import verbs
from rootless.engine.image_types import SaveOptions
from rootless.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.builder.session.build_session import BuildSession
    from rootless.image.platform import Platform
    from rootless.storage.store.step_records import CacheRecord, StepLayer

_FIELDS = {"type", "ref", "dest", "mode"}


def check(texts: Iterable[str]) -> None:
    """Raise UsageError for texts of --cache-to that cannot be right, before anything is built."""
    for text in texts:
        _parse(text)


def _parse(text: str) -> tuple[str, str, bool]:
    """(kind, where, whether only the steps that made the image's own layers are wanted) of a --cache-to.

    kind: registry, local or inline; where: an image reference or a directory. Raises UsageError.
    """
    fields = parse_fields(text, "--cache-to", _FIELDS) if "=" in text else {"type": "registry", "ref": text}
    kind = fields.get("type", "registry")
    where = {"registry": fields.get("ref", ""), "local": fields.get("dest", ""), "inline": "here"}.get(kind, "")
    if not where:
        hint = "write type=registry,ref=REF, type=local,dest=DIRECTORY or type=inline"
        raise UsageError(f"--cache-to: '{text}' is not known", hint=hint)
    mode = fields.get("mode", "max")
    if mode not in ("min", "max"):
        raise UsageError(f"--cache-to: unknown mode '{mode}'", hint="use min (the image's own steps) or max (all)")
    return kind, where, mode == "min"


def export_caches(session: BuildSession, platform: Platform, state: BuildState) -> None:
    """Write the records that the build used, with their layers, to every target of --cache-to but the inline one.

    state: of the image, whose own steps are all that mode=min writes. Raises RegistryError, HostLimit, UsageError.
    """
    targets = [target for target in map(_parse, session.options.cache_to) if target[0] != "inline"]
    if not targets:
        return
    for is_small in sorted({target[2] for target in targets}):
        used = _own(session, state) if is_small else list(session.used.values())
        places = [(kind, where) for kind, where, small in targets if small == is_small]
        _export(session, platform, used, places)


def _own(session: BuildSession, state: BuildState) -> list[tuple[CacheRecord, tuple[StepLayer, ...]]]:
    """The records of the steps that made the layers of `state`: their chains are the beginning of its chain."""
    chains = state.chain_ids
    return [each for each in session.used.values() if list(each[0].chains) == chains[: len(each[0].chains)]]


def _export(
    session: BuildSession,
    platform: Platform,
    used: list[tuple[CacheRecord, tuple[StepLayer, ...]]],
    targets: list[tuple[str, str]],
) -> None:
    layers, records = pack(used)
    whole = BuildState(platform, layers=tuple(layers), moment=session.latest or 0)
    index = session.store.index
    extra = {MEMBER: [record.to_json() for record in records]}
    descriptor = store_state(session.engine, whole, ImageSettings(extra=extra))
    is_here = descriptor.digest in index.manifest_digests()
    index.add(descriptor)
    image_id = index.load(descriptor.digest).config_digest
    try:
        for kind, where in targets:
            step = session.tracker.start(f"exporting cache to {where}")
            if kind == "local":
                verbs.save_images(session.engine, [image_id], where, options=SaveOptions("oci-dir"))
            else:
                verbs.push_image(session.engine, image_id, where)
            step.done()
    finally:
        if not is_here:
            index.remove(descriptor.digest)


def inline(session: BuildSession, state: BuildState) -> dict[str, object]:
    """The member of the config of the image of `state` that says which steps made its own layers.

    The records' positions are those of the image's layers, so that the image itself is the cache.
    """
    chains = state.chain_ids
    layers, records = pack(_own(session, state))
    places = {layer.chain_id: chains.index(layer.chain_id) for layer in layers}
    by_position = [places[layer.chain_id] for layer in layers]
    moved = [record._replace(positions=tuple(by_position[p] for p in record.positions)) for record in records]
    return {MEMBER: [record.to_json() for record in moved]}
