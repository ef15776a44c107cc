"""--cache-from: records of caches elsewhere, whose layers are fetched when a step wants them.

Whoever may write such a cache decides what the steps' results are, so a user must trust it as a base image. The layers
that it names are verified by their diff_id.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from rootless.builder.build_options import parse_fields
from rootless.builder.cache.cache_export import keeps_all_layers
from rootless.builder.cache.cache_format import TAG, AbsentRecord, SharedRecord, unpack, unpack_absent
from rootless.errors import InvalidInput, RootlessError, UsageError
from rootless.image.manifest import OCI_LAYER, ImageConfig, Manifest, chain_ids
from rootless.image.platform import host_platform
from rootless.storage.layers.layer_store import LayerArchive
from rootless.storage.store.step_records import CacheRecord, StepLayer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.builder.session.build_session import BuildSession
    from rootless.builder.session.build_state import BuildState
    from rootless.builder.session.tracker import Step


class ImportedCaches:
    """All caches of one build's --cache-from. As by docker, a cache that cannot be read is warned of and left out.

    Raises UsageError for a text that is malformed.
    """

    def __init__(self, session: BuildSession, texts: Iterable[str]) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._keeps_all = keeps_all_layers(session.options.cache_to)
        self._sources: list[_Source] = []
        for text in texts:
            step = session.tracker.start(f"importing cache manifest from {text}")
            try:
                self._sources.append(_Source(session, *_parse(text)))
                step.done()
            except UsageError:
                raise
            except RootlessError as e:
                step.error(e.message)
                session.engine.warn(f"--cache-from {text}: {e.message}")

    def find(self, key: str, state: BuildState, step: Step, *, may_be_absent: bool) -> CacheRecord | None:
        """The record of the step with `key`, once its layers are in the store; None when no cache has it.

        state: the one before the step; may_be_absent: its layers need not be in the store, because perhaps nobody will
        read them. A cache that fails is reported to `step`, and the step is carried out. Raises LayersMissing.
        """
        for source in self._sources:
            shared = source.records.get(key)
            if may_be_absent and (shared is None or not self._keeps_all):
                record = source.recall(key, state)
                if record is not None:
                    return record
            if shared is None:
                continue
            with self._lock:
                try:
                    return source.bring(self._session, shared, state)
                except RootlessError as e:
                    step.log(f"the cache cannot be used: {e.message}")
        return None

    def has(self, key: str) -> bool:
        """Whether a cache has a record of the step with `key`."""
        return any(key in source.records or key in source.absent for source in self._sources)


def _parse(text: str) -> tuple[str, str]:
    """(kind, where) of a --cache-from: "registry" and an image reference, or "local" and an OCI layout's directory.

    Raises UsageError.
    """
    if "=" not in text:
        return "registry", text
    fields = parse_fields(text, "--cache-from", {"type", "ref", "src"})
    kind = fields.get("type", "registry")
    where = fields.get("ref" if kind == "registry" else "src", "")
    if kind not in ("registry", "local") or not where:
        raise UsageError(
            f"--cache-from: '{text}' is not known", hint="write type=registry,ref=REF or type=local,src=DIRECTORY"
        )
    return kind, where


class _Source:
    def __init__(self, session: BuildSession, kind: str, where: str) -> None:
        self._source: Any = None
        if kind == "local":
            from rootless.image.file_sets import DirectoryFiles
            from rootless.image.layout import layout_sources

            sources = layout_sources(DirectoryFiles(where))
            # Caches that earlier versions wrote have no tag
            self._source = next((each for each in sources if TAG in each.labels), sources[0])
            manifest, config = self._open()
        else:
            manifest, config = self._local(session, where) or self._remote(session, where)
        if len(manifest.layers) != len(config.diff_ids):
            raise InvalidInput(f"the manifest and the config of '{where}' do not belong together")
        self._manifest: Manifest = manifest
        self._config: ImageConfig = config
        self.records = unpack(config.document, len(config.diff_ids))
        self.absent = unpack_absent(config.document)

    def _local(self, session: BuildSession, where: str) -> tuple[Manifest, ImageConfig] | None:
        from rootless.engine.image_in_use import find

        entry = find(session.engine, where)
        return (entry.manifest, entry.config) if entry is not None else None

    def _remote(self, session: BuildSession, where: str) -> tuple[Manifest, ImageConfig]:
        from rootless.engine.image.image_names import qualify, registries
        from rootless.image.distribution.http_session import Access
        from rootless.image.distribution.registry import open_registry

        reference, _ = qualify(session.engine, where)
        self._source = open_registry(reference, registries(session.engine), Access(), warn=session.engine.warn)
        return self._open()

    def _open(self) -> tuple[Manifest, ImageConfig]:
        manifest = self._source.manifest(host_platform())
        return manifest, ImageConfig(self._source.config(manifest))

    def recall(self, key: str, state: BuildState) -> CacheRecord | None:
        """What the cache says of the step with `key`. Nothing is fetched, and the store's cache gets no record.

        None where it knows no such step, or not on the layers of `state`.
        """
        shared, absent = self.records.get(key), self.absent.get(key)
        if shared is not None:
            diff_ids = tuple(self._config.diff_ids[position] for position in shared.positions)
            absent = AbsentRecord(diff_ids, shared.has_layer, shared.moment, shared.size)
        if absent is None:
            return None
        chains = chain_ids(list(absent.diff_ids))
        if (chains[:-1] if absent.has_layer else chains) != state.chain_ids:
            return None
        layer: StepLayer | None = None
        if absent.has_layer:
            diff_id = absent.diff_ids[-1]
            layer = StepLayer(chains[-1], diff_id, OCI_LAYER, diff_id, absent.size)
        now = time.time()
        return CacheRecord(key, layer, tuple(chains), absent.moment, absent.size, "", now, now)

    def bring(self, session: BuildSession, shared: SharedRecord, state: BuildState) -> CacheRecord | None:
        """Fetch and unpack the record's own layer, and write the record into the store's cache.

        None where the record's other layers are not those of `state`, or no source has the layer. Raises RootlessError.
        """
        diff_ids = [self._config.diff_ids[position] for position in shared.positions]
        chains = chain_ids(diff_ids)
        below = chains[:-1] if shared.has_layer else chains
        if below != state.chain_ids:
            return None  # a key covers the chain below, so a record with another chain is malformed or forged
        layer: StepLayer | None = None
        if shared.has_layer:
            descriptor = self._manifest.layers[shared.positions[-1]]
            layer = StepLayer(chains[-1], diff_ids[-1], descriptor.media_type, descriptor.digest, descriptor.size)
            if not session.store.layers.has(chains[-1]):
                if self._source is None:
                    return None
                session.require_layers(state)
                reader = self._source.open_blob(descriptor)
                try:
                    parent = below[-1] if below else None
                    archive = LayerArchive(parent, diff_ids[-1], reader)
                    session.store.layers.unpack(chains[-1], archive)
                finally:
                    reader.close()
        now = time.time()
        record = CacheRecord(shared.key, layer, tuple(chains), shared.moment, shared.size, shared.description, now, now)
        session.cache.put(record)
        return record
