"""The verb `import`: the tar of a root file system becomes an image of one layer."""

from __future__ import annotations

import json
import os
import stat
import sys
import time

from rootless.engine import events
from rootless.engine.image.config_changes import apply_changes
from rootless.engine.image.image_names import qualify
from rootless.engine.image_types import ImportOptions, PullEvent
from rootless.engine.transfer.load import open_input, warn_of_lost_name
from rootless.errors import UsageError
from rootless.image.decompress import PlainBytes, read_head
from rootless.image.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor
from rootless.image.platform import host_platform, parse_platform
from rootless.storage.layers.layer_store import LayerArchive
from rootless.units import whole_timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import BinaryIO

    from rootless.engine.context import Engine
    from rootless.image.decompress import ByteSource
    from rootless.image.fields import Fields
    from rootless.image.platform import Platform
    from rootless.storage.store.store import Store

_STEP = 4 << 20


def import_image(
    engine: Engine,
    source: str | BinaryIO,
    reference: str | None = None,
    options: ImportOptions | None = None,
    *,
    progress: Callable[[PullEvent], None] | None = None,
) -> str:
    """Make an image of the tar of a root file system, and return the image's id.

    source: a path, "-" for standard input, or an open binary stream; plain or compressed (gz, zst, xz, bz2). reference:
    the image's name; another image that has it loses it, with a warning. progress is called from this thread only.
    Raises UsageError for a bad change or name, InvalidInput for a bad tar, HostLimit (no space).
    """
    options = options or ImportOptions()
    target = parse_platform(options.platform) if options.platform else host_platform()
    config = apply_changes({}, options.changes)
    name = None if reference is None else _name(engine, reference)
    store = engine.store
    is_path = isinstance(source, str) and source != "-"
    stream = _open(source)
    origin = os.path.basename(source) if isinstance(source, str) else "-"
    comment = options.message or f"Imported from {origin}"
    history: list[Fields] = [{"created": whole_timestamp(time.time()), "created_by": "", "comment": comment}]
    with store.using():
        try:
            _check_room(store, stream)
            layer = store_layer(store, _plain(stream), progress)
        finally:
            if is_path:
                stream.close()
        previous = None if name is None else store.index.resolve(name)
        image_id = make_image(store, layer, image_config(target, config, [layer.digest], history), name)
    if name is not None and previous is not None and previous.config_digest != image_id:
        warn_of_lost_name(engine, name, previous.config_digest)
    events.record_image(engine, "import", image_id, reference or "")
    return image_id


def _open(source: str | BinaryIO) -> BinaryIO:
    if isinstance(source, str):
        return sys.stdin.buffer if source == "-" else open_input(source)
    return source


def _check_room(store: Store, stream: BinaryIO) -> None:
    """Raise HostLimit when there is no room for the archive, if it is a file, whose size is known before."""
    from rootless.engine.transfer.space import check_archive

    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return  # a stream in memory, which has no descriptor
    if stat.S_ISREG(status.st_mode):
        check_archive(store, status.st_size)


def _name(engine: Engine, reference: str) -> str:
    found, _ = qualify(engine, reference)
    if found.digest:
        raise UsageError(f"an image cannot be given the name '{reference}'", hint="leave out the digest")
    return str(found)


def _plain(stream: BinaryIO) -> PlainBytes:
    return PlainBytes(read_head(stream), stream)


def store_layer(
    store: Store, reader: ByteSource, progress: Callable[[PullEvent], None] | None, *, parent: str | None = None
) -> Descriptor:
    """Unpack an uncompressed layer tar on the layer with chain id `parent`, and return the tar's descriptor.

    Its digest is the layer's diff_id. The tar is not kept: `engine.transfer.layer_bytes` makes it again from the tree.
    Raises InvalidInput, HostLimit.
    """
    count = shown = 0

    def step(size: int) -> None:
        nonlocal count, shown
        count += size
        if progress is not None and count - shown >= _STEP:
            shown = count
            progress(PullEvent("import", "Extracting", count))

    chain_id = store.layers.unpack_new(LayerArchive(parent, None, reader, step))
    diff_id = store.layers.record(chain_id).content.diff_id
    if progress is not None:
        progress(PullEvent(diff_id.partition(":")[2][:12], "Pull complete"))
    return Descriptor(OCI_LAYER, diff_id, count)


def image_config(platform: Platform, config: Fields, diff_ids: Sequence[str], history: Sequence[Fields]) -> Fields:
    """The document of an image config (image-spec config.md). history: its steps, the last of which gives the time."""
    document: Fields = {
        "created": history[-1]["created"],
        "architecture": platform.architecture,
        "os": platform.os,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": list(history),
    }
    if platform.variant:
        document["variant"] = platform.variant
    return document


def make_image(store: Store, layer: Descriptor, config: Fields, name: str | None) -> str:
    """Store the config and manifest of an image of one layer, name it, and return its id. name: None for no name."""
    raw = json.dumps(config, separators=(",", ":"), sort_keys=True).encode()
    config_digest = store.blobs.put(raw)
    publish_manifest(store, OCI_MANIFEST, [Descriptor(OCI_CONFIG, config_digest, len(raw)), layer], name)
    return config_digest


def publish_manifest(store: Store, media_type: str, content: Sequence[Descriptor], name: str | None) -> None:
    """Store a manifest, and write its image's name, or none, into the index: the last step of making an image.

    content: the config, then the layers from the lowest on.
    """
    config, *layers = ({"mediaType": each.media_type, "digest": each.digest, "size": each.size} for each in content)
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers}
    raw = json.dumps(manifest, separators=(",", ":")).encode()
    descriptor = Descriptor(media_type, store.blobs.put(raw), len(raw))
    if name is None:
        store.index.add(descriptor, made=time.time())
    else:
        store.index.tag(name, descriptor, made=time.time())
