"""What a build knows between two steps: a chain of layers and an image config, as an image and in keys of the cache."""

from __future__ import annotations

import copy
import hashlib
import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from rootless.image.manifest import OCI_CONFIG, OCI_MANIFEST, Descriptor
from rootless.units import whole_timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootless.engine.context import Engine
    from rootless.image.platform import Platform


class Layer(NamedTuple):
    """A layer as the manifest will name it; chain_id names the unpacked tree on its parents."""

    chain_id: str
    diff_id: str
    media_type: str
    digest: str
    size: int

    def to_json(self) -> dict[str, Any]:
        """For cache records."""
        return self._asdict()

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Layer:
        """From a cache record."""
        return cls(**{name: fields[name] for name in cls._fields})


class BuildState(NamedTuple):
    """The result of a step.

    config: docker's (Env, Cmd, WorkingDir, ...); history: of the image config; moment: the time, in seconds, that files
    without a time of their own have, and the image's `created`; triggers: ONBUILD of this image; has_cmd: CMD was
    given in this stage (an ENTRYPOINT after FROM takes an inherited CMD away).
    """

    platform: Platform
    layers: tuple[Layer, ...] = ()
    config: dict[str, Any] = {}
    history: tuple[dict[str, Any], ...] = ()
    moment: int = 0
    author: str = ""
    has_cmd: bool = False
    extra: dict[str, Any] = {}

    @property
    def chain_ids(self) -> list[str]:
        """Of the layers, bottom first."""
        return [layer.chain_id for layer in self.layers]

    @property
    def chain(self) -> str:
        """The topmost chain id; "" of an empty image."""
        return self.layers[-1].chain_id if self.layers else ""

    @property
    def env(self) -> list[str]:
        """The environment of the image."""
        return list(self.config.get("Env") or [])

    @property
    def workdir(self) -> str:
        """The working directory, absolute."""
        return self.config.get("WorkingDir") or "/"

    @property
    def shell(self) -> list[str]:
        """What the shell form is given to."""
        return list(self.config.get("Shell") or ["/bin/sh", "-c"])

    def changed(self, created_by: str, **settings: Any) -> BuildState:
        """A step that only changes the config; a setting of None is taken away."""
        config = copy.deepcopy(self.config)
        for name, value in settings.items():
            if value is None:
                config.pop(name, None)
            else:
                config[name] = value
        return self._replace(config=config, history=(*self.history, self._entry(created_by, self.moment, empty=True)))

    def grown(self, created_by: str, layer: Layer | None, moment: int) -> BuildState:
        """A step that may have made a layer."""
        entry = self._entry(created_by, moment, empty=layer is None)
        layers = self.layers if layer is None else (*self.layers, layer)
        return self._replace(layers=layers, moment=moment, history=(*self.history, entry))

    def _entry(self, created_by: str, moment: int, *, empty: bool) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "created": whole_timestamp(moment),
            "created_by": created_by,
            "comment": "buildkit.dockerfile.v0",
        }
        if empty:
            entry["empty_layer"] = True
        if self.author:
            entry["author"] = self.author
        return entry


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


_KEY_FORMAT = "rootless build cache 1"


def step_key(kind: str, chain: str, **facts: Any) -> str:
    """What a step's result depends on as one digest, 64 hexadecimal digits. kind: of the step; facts: JSON values.

    A key covers the whole chain of layers below (`chain`, "" for none: their content digests, so that FROM scratch
    cannot be poisoned, CVE-2024-24557), what of the image's config the step can see, the instruction's final words, and
    the content of every file that it takes. Times of files are in none.
    """
    document = json.dumps([_KEY_FORMAT, kind, chain, facts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(document.encode("utf-8", "surrogateescape")).hexdigest()
