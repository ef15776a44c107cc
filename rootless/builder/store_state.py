"""The state of a build as an image of the store: config and manifest. It names nothing and writes no archive."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rootless.image.manifest import OCI_CONFIG, OCI_MANIFEST, Descriptor
from rootless.units import whole_timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootless.builder.build_state import BuildState
    from rootless.engine.context import Engine


def store_state(
    engine: Engine,
    state: BuildState,
    *,
    labels: Mapping[str, str] = MappingProxyType({}),
    annotations: Mapping[str, str] = MappingProxyType({}),
    extra: Mapping[str, Any] = MappingProxyType({}),
) -> Descriptor:
    """Write config and manifest of a state. extra: further members of the config."""
    blobs = engine.store.blobs
    raw = json.dumps({**_config(state, labels), **extra}, separators=(",", ":"), sort_keys=True).encode()
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": blobs.put(raw), "size": len(raw)},
        "layers": [
            {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size} for layer in state.layers
        ],
    }
    if annotations:
        manifest["annotations"] = dict(annotations)
    raw_manifest = json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode()
    return Descriptor(OCI_MANIFEST, blobs.put(raw_manifest), len(raw_manifest), state.platform)


def _config(state: BuildState, labels: Mapping[str, str]) -> dict[str, Any]:
    config = dict(state.config)
    if labels:
        config["Labels"] = {**(config.get("Labels") or {}), **labels}
    document: dict[str, Any] = {
        **state.extra,
        "created": whole_timestamp(state.moment),
        "architecture": state.platform.architecture,
        "os": state.platform.os,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in state.layers]},
        "history": list(state.history),
    }
    if state.platform.variant:
        document["variant"] = state.platform.variant
    if state.author:
        document["author"] = state.author
    return document
