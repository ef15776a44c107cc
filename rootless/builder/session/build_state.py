"""What a build knows between two steps: a chain of layers and an image config.

It becomes an image, or part of a key.
"""

from __future__ import annotations

import copy
import hashlib
import json
from types import MappingProxyType
from typing import NamedTuple

from rootless.image import fields
from rootless.image.convert import in_form
from rootless.image.manifest import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_CONFIG, OCI_MANIFEST, Descriptor
from rootless.units import whole_timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootless.engine.context import Engine
    from rootless.image.fields import Fields
    from rootless.image.platform import Platform
    from rootless.storage.store.step_records import StepLayer


class BuildState(NamedTuple):
    """The result of a step.

    layers: bottom first; config: docker's (Env, Cmd, WorkingDir, ...); history: of the image config; moment: the time,
    in seconds, that files without a time of their own get, and the image's `created`; has_cmd: CMD was given in this
    stage (an ENTRYPOINT after FROM takes an inherited CMD away); extra: further members of the image config's document;
    arguments: what ARG has declared by the end of a stage, for the stages that stand on it, and for no image; declared:
    the names of its ARGs, also of those without a value.
    """

    platform: Platform
    layers: tuple[StepLayer, ...] = ()
    config: Fields = {}
    history: tuple[Fields, ...] = ()
    moment: int = 0
    author: str = ""
    has_cmd: bool = False
    extra: Fields = {}
    arguments: Mapping[str, str] = MappingProxyType({})
    declared: frozenset[str] = frozenset()

    @property
    def chain_ids(self) -> list[str]:
        """The chain ids of the layers (OCI image specification, config.md, "Layer ChainID"), bottom first."""
        return [layer.chain_id for layer in self.layers]

    @property
    def chain(self) -> str:
        """The chain id of the topmost layer, which names all layers together; "" for an image without layers."""
        return self.layers[-1].chain_id if self.layers else ""

    @property
    def env(self) -> list[str]:
        """The environment of the image, as `NAME=value` entries."""
        return fields.texts_member(self.config, "Env") or []

    @property
    def user(self) -> str:
        """The USER in force as the image has it, a name or a number and perhaps a group; "" for root."""
        return fields.text_member(self.config, "User")

    @property
    def workdir(self) -> str:
        """The working directory of the image, an absolute path; "/" without one."""
        return fields.text_member(self.config, "WorkingDir") or "/"

    @property
    def shell(self) -> list[str]:
        """The words of SHELL, to which an instruction in the shell form appends its text."""
        return fields.texts_member(self.config, "Shell") or ["/bin/sh", "-c"]

    def changed(self, created_by: str, **settings: object) -> BuildState:
        """The state after a step that only changes the config.

        created_by: the step's line in the history; settings: members of the config by name, None takes one away.
        """
        config = copy.deepcopy(self.config)
        for name, value in settings.items():
            if value is None:
                config.pop(name, None)
            else:
                config[name] = value
        return self._replace(config=config, history=(*self.history, self._entry(created_by, self.moment, empty=True)))

    def grown(self, created_by: str, layer: StepLayer | None, moment: int) -> BuildState:
        """The state after a step that may have made a layer.

        created_by: the step's line in the history; layer: None where nothing changed; moment: the time of the step, in
        seconds.
        """
        entry = self._entry(created_by, moment, empty=layer is None)
        layers = self.layers if layer is None else (*self.layers, layer)
        return self._replace(layers=layers, moment=moment, history=(*self.history, entry))

    def _entry(self, created_by: str, moment: int, *, empty: bool) -> Fields:
        entry: Fields = {
            "created": whole_timestamp(moment),
            "created_by": created_by,
            "comment": "buildkit.dockerfile.v0",
        }
        if empty:
            entry["empty_layer"] = True
        if self.author:
            entry["author"] = self.author
        return entry


class ImageSettings(NamedTuple):
    """What an image gets beside its state.

    labels, annotations: of the image and of the manifest; extra: further members of the config's document; form: "oci",
    or "v2s2" for docker's media types, whose manifest has no annotations.
    """

    labels: Mapping[str, str] = MappingProxyType({})
    annotations: Mapping[str, str] = MappingProxyType({})
    extra: Mapping[str, object] = MappingProxyType({})
    form: str = "oci"


def store_state(engine: Engine, state: BuildState, settings: ImageSettings | None = None) -> Descriptor:
    """Write config and manifest of a state into the store; return the manifest's descriptor, which has no name yet.

    Raises UsageError for a layer that has no media type in the format, as one that is compressed with zstd in docker's.
    """
    labels, annotations, extra, form = settings or ImageSettings()
    blobs = engine.store.blobs
    raw = json.dumps({**_config(state, labels), **extra}, separators=(",", ":"), sort_keys=True).encode()
    media_type, config_type = (OCI_MANIFEST, OCI_CONFIG) if form == "oci" else (DOCKER_MANIFEST, DOCKER_CONFIG)
    manifest: Fields = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": config_type, "digest": blobs.put(raw), "size": len(raw)},
        "layers": [
            # Layers of a base in the other format get the media types of this one: tools refuse a mixture
            {"mediaType": in_form(each, form).media_type, "digest": each.digest, "size": each.size}
            for each in (Descriptor(layer.media_type, layer.digest, layer.size) for layer in state.layers)
        ],
    }
    if annotations:
        manifest["annotations"] = dict(annotations)
    raw_manifest = json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode()
    return Descriptor(media_type, blobs.put(raw_manifest), len(raw_manifest), state.platform)


def _config(state: BuildState, labels: Mapping[str, str]) -> Fields:
    config = dict(state.config)
    if labels:
        config["Labels"] = {**fields.as_mapping(config.get("Labels"), "Labels"), **labels}
    document: Fields = {
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


def step_key(kind: str, chain: str, **facts: object) -> str:
    """One digest, 64 hexadecimal digits, of all that a step's result depends on. kind: of the step; facts: JSON values.

    A key covers the whole chain of layers below (`chain`, "" for none: their content digests, so that FROM scratch
    cannot be poisoned, CVE-2024-24557), what of the image's config the step can see, the instruction's final words, and
    the content of every file that it takes. Times of files are in none.
    """
    document = json.dumps([_KEY_FORMAT, kind, chain, facts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(document.encode("utf-8", "surrogateescape")).hexdigest()
