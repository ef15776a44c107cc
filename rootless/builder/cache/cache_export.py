"""--cache-to: the records that a build used, as a cache image in a layout, in a registry, or in the image itself."""

from __future__ import annotations

from typing import NamedTuple

from rootless.builder.build_options import parse_fields, parse_truth
from rootless.builder.cache.cache_format import ABSENT_MEMBER, MEMBER, TAG, pack, pack_absent
from rootless.builder.session.build_state import BuildState, ImageSettings, store_state
from rootless.engine import verbs
from rootless.engine.image_types import PushOptions, SaveOptions
from rootless.errors import RootlessError, UsageError
from rootless.units import whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rootless.builder.session.build_session import BuildSession
    from rootless.image.platform import Platform
    from rootless.storage.store.step_records import CacheRecord, StepLayer

_FIELDS = {
    "type",
    "ref",
    "dest",
    "mode",
    "oci-mediatypes",
    "image-manifest",
    "compression",
    "compression-level",
    "force-compression",
    "ignore-error",
}
_COMPRESSIONS = {"uncompressed": "none", "gzip": "gzip", "zstd": "zstd"}


class CacheTarget(NamedTuple):
    """One --cache-to.

    kind: registry, local or inline; where: an image reference or a directory; is_small: only the steps that made the
    image's own layers are wanted; compression: of the layers, "none", "gzip" or "zstd", None for the usual one; level:
    that of the compression, None for its default; ignores_errors: a cache that cannot be written is no failure.
    """

    kind: str
    where: str
    is_small: bool = False
    compression: str | None = None
    level: int | None = None
    ignores_errors: bool = False


def check(texts: Iterable[str]) -> None:
    """Raise UsageError for texts of --cache-to that cannot be right, before anything is built."""
    for text in texts:
        _parse(text)


def _parse(text: str) -> CacheTarget:
    """The target that `text` means, docker's `type=KIND,...` or an image reference. Raises UsageError."""
    fields = parse_fields(text, "--cache-to", _FIELDS) if "=" in text else {"type": "registry", "ref": text}
    kind = fields.get("type", "registry")
    where = {"registry": fields.get("ref", ""), "local": fields.get("dest", ""), "inline": "here"}.get(kind, "")
    if not where:
        hint = "write type=registry,ref=REF, type=local,dest=DIRECTORY or type=inline"
        raise UsageError(f"--cache-to: '{text}' is not known", hint=hint)
    mode = fields.get("mode", "max")
    if mode not in ("min", "max"):
        raise UsageError(f"--cache-to: unknown mode '{mode}'", hint="use min (the image's own steps) or max (all)")
    for name in ("oci-mediatypes", "image-manifest"):
        if not parse_truth(fields, name, "--cache-to", default=True):
            hint = f"leave {name} away"
            raise UsageError(f"--cache-to: {name}=false: a cache is an image with OCI's media types", hint=hint)
    compression, level = _compression(fields)
    ignores_errors = parse_truth(fields, "ignore-error", "--cache-to", default=False)
    return CacheTarget(kind, where, mode == "min", compression, level, ignores_errors)


def _compression(fields: Mapping[str, str]) -> tuple[str | None, int | None]:
    """(compression, level) that the fields ask for; force-compression alone means gzip. Raises UsageError."""
    is_forced = parse_truth(fields, "force-compression", "--cache-to", default=False)
    text = fields.get("compression", "gzip" if is_forced else "")
    if text and text not in _COMPRESSIONS:
        raise UsageError(f"--cache-to: unknown compression '{text}'", hint=f"use {', '.join(_COMPRESSIONS)}")
    level = fields.get("compression-level")
    number = None if level is None else whole_number(level)
    if level is not None and (number is None or not text):
        raise UsageError(f"--cache-to: compression-level={level} is no level of a compression that is given")
    if text:
        from rootless.image.compress import parse_compression

        parse_compression(_COMPRESSIONS[text], number)
    return _COMPRESSIONS.get(text), number


def keeps_all_layers(texts: Iterable[str]) -> bool:
    """Whether one of `texts`, those of --cache-to, wants the layers of all stages. Raises UsageError."""
    return any(target.kind != "inline" and not target.is_small for target in map(_parse, texts))


def export_caches(session: BuildSession, platform: Platform, state: BuildState) -> None:
    """Write the records that the build used, with their layers, to every target of --cache-to but the inline one.

    state: of the image, whose own steps are all that mode=min writes. Raises RegistryError, HostLimit, UsageError, but
    for targets with ignore-error=true, of which it warns.
    """
    targets = [target for target in map(_parse, session.options.cache_to) if target.kind != "inline"]
    for is_small in sorted({target.is_small for target in targets}):
        used = _own(session, state) if is_small else list(session.used.values())
        used = [each for each in used if session.has_layers(each[0].chains)]
        _export(session, platform, used, [target for target in targets if target.is_small == is_small])


def _own(session: BuildSession, state: BuildState) -> list[tuple[CacheRecord, tuple[StepLayer, ...]]]:
    """The records of the steps that made the layers of `state`: their chains are the beginning of its chain."""
    chains = state.chain_ids
    return [each for each in session.used.values() if list(each[0].chains) == chains[: len(each[0].chains)]]


def _export(
    session: BuildSession,
    platform: Platform,
    used: list[tuple[CacheRecord, tuple[StepLayer, ...]]],
    targets: list[CacheTarget],
) -> None:
    layers, records = pack(used)
    whole = BuildState(platform, layers=tuple(layers), moment=session.latest or 0)
    index = session.store.index
    extra = {MEMBER: [record.to_json() for record in records], **_others(session, used)}
    descriptor = store_state(session.engine, whole, ImageSettings(extra=extra))
    is_here = descriptor.digest in index.manifest_digests()
    index.add(descriptor)
    image_id = index.load(descriptor.digest).config_digest
    try:
        for target in targets:
            step = session.tracker.start(f"exporting cache to {target.where}")
            try:
                _write(session, target, image_id)
            except RootlessError as e:
                step.error(e.message)
                problem = f"--cache-to {target.where}: {e.message}"
                if not target.ignores_errors:
                    raise type(e)(problem, hint=e.hint) from e
                session.engine.warn(problem)
            else:
                step.done()
    finally:
        if not is_here:
            index.remove(descriptor.digest)


def _write(session: BuildSession, target: CacheTarget, image_id: str) -> None:
    if target.kind == "local":
        options = SaveOptions("oci-dir", target.compression, target.level, tag=TAG)
        verbs.save_images(session.engine, [image_id], target.where, options=options)
        return
    pushing = PushOptions(compression=target.compression, compression_level=target.level)
    verbs.push_image(session.engine, image_id, target.where, options=pushing)


def inline(session: BuildSession, state: BuildState) -> dict[str, object]:
    """The member of the config of the image of `state` that says which steps made its own layers.

    The records' positions are those of the image's layers, so that the image itself is the cache.
    """
    chains = state.chain_ids
    own = _own(session, state)
    layers, records = pack(own)
    places = {layer.chain_id: chains.index(layer.chain_id) for layer in layers}
    by_position = [places[layer.chain_id] for layer in layers]
    moved = [record._replace(positions=tuple(by_position[p] for p in record.positions)) for record in records]
    return {MEMBER: [record.to_json() for record in moved], **_others(session, own)}


def _others(session: BuildSession, written: Iterable[tuple[CacheRecord, tuple[StepLayer, ...]]]) -> dict[str, object]:
    """The member for the records that are not `written` with their layers; none where there are no such records."""
    keys = {record.key for record, _ in written}
    others = [each for each in session.used.values() if each[0].key not in keys]
    return {ABSENT_MEMBER: pack_absent(others)} if others else {}
