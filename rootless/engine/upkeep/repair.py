"""What `system check --repair` does: damaged objects go into quarantine, and are made again from whole ones.

A layer is made from its own recipe (when only owners, modes and the like were changed), from another layer with the
same archive, from a blob, or from a registry's. One that was made on this host and is nowhere else cannot be made
again, which the finding says then.
"""

from __future__ import annotations

import os

from rootless.engine.container.reconcile import state_of
from rootless.engine.report_types import BLOB, CONTAINER, IMAGE, INDEX, LAYER, NAME, VOLUME, StoreFinding
from rootless.engine.transfer.layer_bytes import recovered_tar
from rootless.engine.upkeep.remake import damages, remake
from rootless.errors import HostLimit, InvalidInput, NewerFormat, RootlessError
from rootless.image.manifest import CONFIG_LIMIT, MANIFEST_LIMIT, Manifest, chain_ids, parse_manifest
from rootless.monitor import reap
from rootless.paths import ensure_private
from rootless.records.json_file import random_name, write_record
from rootless.storage.store.gc import CONTAINER_PREFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootless.engine.context import Engine
    from rootless.image.manifest import Descriptor
    from rootless.storage.store.index import ImageEntry


def repair(engine: Engine, findings: list[StoreFinding], damaged: Mapping[str, bool]) -> list[StoreFinding]:
    """Repair what can be, and return the findings with what was done.

    damaged: the chain ids of damaged layers → whether the content of their files is whole.
    """
    work = _Repair(engine, damaged)
    # The index and blobs come first: they are needed to know what the layers should be
    order = {INDEX: -1, BLOB: 0, IMAGE: 1, LAYER: 2}
    return [work.one(each) for each in sorted(findings, key=lambda each: order.get(each.kind, 3))]


class _Repair:
    __slots__ = ("_damaged", "_engine", "_remade", "_store")

    def __init__(self, engine: Engine, damaged: Mapping[str, bool]) -> None:
        self._engine = engine
        self._store = engine.store
        self._damaged = dict(damaged)
        self._remade: dict[str, str] = {}

    def one(self, finding: StoreFinding) -> StoreFinding:
        """Try one repair. The finding is returned with what was done, or with the reason why it cannot be repaired."""
        try:
            done = _WAYS[finding.kind](self, finding) if finding.kind in _WAYS else ""
        except RootlessError as e:
            hint = f" ({e.hint})" if e.hint else ""
            return finding._replace(text=f"{finding.text}; it cannot be repaired: {e.message}{hint}")
        return finding._replace(repaired=done)

    def _blob(self, finding: StoreFinding) -> str:
        digest = finding.id
        owner = self._image_with_layer(digest)
        self._quarantine(self._store.blobs.path(digest))
        if owner is not None:
            # Containers use the layer's tree, which has a finding of its own if it is damaged
            chain = self._chain_of(owner, digest)
            if chain is not None and self._store.layers.has(chain):
                return "put into quarantine; its layer's tree is not concerned"
        self._bring_small(digest)
        return "fetched again"

    def _image(self, finding: StoreFinding) -> str:
        """Bring the missing blobs and layers of an image, as a pull would."""
        digest = finding.id
        if not self._store.blobs.has(digest):
            self._bring_small(digest)
        entry = self._load(digest)
        parents: list[str | None] = [None, *chain_ids(entry.config.diff_ids)]
        done = 0
        for chain, parent, diff_id in zip(
            chain_ids(entry.config.diff_ids), parents, entry.config.diff_ids, strict=False
        ):
            if not self._store.layers.has(chain):
                self._layer_again(chain, parent, diff_id)
                done += 1
        return f"{done} layers brought again" if done else "brought again"

    def _load(self, digest: str) -> ImageEntry:
        try:
            return self._store.index.load(digest)
        except RootlessError:
            manifest = parse_manifest(self._store.blobs.read(digest, MANIFEST_LIMIT))
            if not isinstance(manifest, Manifest):
                raise
            self._bring_small(manifest.config.digest)
            return self._store.index.load(digest)

    def _bring_small(self, digest: str) -> None:
        """Fetch a manifest or config again from where its image was pulled. Raises HostLimit when none has it."""
        content = self._fetched(digest)
        if content is None:
            raise HostLimit(
                f"blob '{digest}' is in no registry that is known", hint="remove the image, and pull or load it again"
            )
        with self._store.blobs.writer(digest, len(content)) as writer:
            writer.write(content)
            writer.commit()

    def _layer(self, finding: StoreFinding) -> str:
        chain = finding.id
        for entry in self._store.index.entries():
            chains = chain_ids(entry.config.diff_ids)
            if chain in chains:
                at = chains.index(chain)
                return self._layer_again(chain, chains[at - 1] if at else None, entry.config.diff_ids[at])
        # No image has this layer: it is of a container whose image is gone, or of the build cache. Its record says what
        # it should be
        record = self._store.layers.record(chain)
        return self._layer_again(chain, record.parent, record.content.diff_id)

    def _layer_again(self, chain: str, parent: str | None, diff_id: str) -> str:
        bad = {each for each, whole in self._damaged.items() if not whole}
        tar = recovered_tar(self._engine, diff_id, chain, bad)
        try:
            self._store.layers.replace(chain, parent, diff_id, tar)
        finally:
            tar.close()
        self._damaged.pop(chain, None)
        return "unpacked anew; the old tree is in quarantine"

    def _name(self, finding: StoreFinding) -> str:
        self._store.containers.drop_stale(finding.id)
        return "removed"

    def _index(self, finding: StoreFinding) -> str:
        from rootless.engine.upkeep.lost_names import image_names

        self._quarantine(self._store.index.path)
        count = self._store.index.rebuild(image_names(self._engine))
        return f"made again from the manifests of {count} images, with the names that events and containers tell"

    def _container(self, finding: StoreFinding) -> str:
        containers, container_id = self._store.containers, finding.id
        try:
            record = containers.read(container_id)
        except NewerFormat:
            raise
        except InvalidInput:
            return self._set_aside(container_id)
        try:
            containers.read_state(container_id)
        except NewerFormat:
            raise
        except InvalidInput:
            state = state_of(self._engine, container_id)
            if state.status != "exited":
                raise HostLimit("its monitor lives and writes it again", hint="stop the container") from None
            write_record(containers.path(container_id, "state.json"), state.to_json())
            return "it counts as cut off"
        if container_id in self._remade:
            return self._remade[container_id]
        if damaged := damages(self._engine, record):
            self._remade[container_id] = remake(self._engine, record, damaged, self._quarantine)
            return self._remade[container_id]
        if finding.details and all(self._store.layers.has(chain) for chain in finding.details):
            return "its layers are there again"
        raise HostLimit("what it had written cannot be made again", hint=f"rootless rm -f {finding.id[:12]}")

    def _set_aside(self, container_id: str) -> str:
        """Move a container whose record cannot be read into quarantine, with all that it has written."""
        if reap.is_supervised(self._store.containers.path(container_id)):
            raise HostLimit("it runs", hint=f"rootless rm -f {container_id[:12]}")
        directory = ensure_private(self._store.path("quarantine"))
        place = f"{directory}/{CONTAINER_PREFIX}{container_id}"
        try:
            self._store.containers.discard(container_id, place)
        except OSError as e:
            raise HostLimit(f"cannot move it into quarantine: {e.strerror}") from e
        return f"put into quarantine; what it had written is in '{place}/upper' until the next `rootless system prune`"

    def _volume(self, finding: StoreFinding) -> str:
        if self._store.volumes.restore(finding.id):
            return "its record was made again, without labels"
        raise HostLimit("only you know what it held", hint=f"rootless volume rm -f {finding.id}")

    def _image_with_layer(self, digest: str) -> ImageEntry | None:
        return next(
            (e for e in self._store.index.entries() if any(layer.digest == digest for layer in e.manifest.layers)), None
        )

    @staticmethod
    def _chain_of(entry: ImageEntry, digest: str) -> str | None:
        chains = chain_ids(entry.config.diff_ids)
        position = next(i for i, layer in enumerate(entry.manifest.layers) if layer.digest == digest)
        return chains[position] if position < len(chains) else None

    def _quarantine(self, path: str) -> None:
        directory = ensure_private(self._store.path("quarantine"))
        try:
            os.rename(path, f"{directory}/{os.path.basename(path)}-{random_name()}")
        except FileNotFoundError:
            pass
        except OSError as e:
            raise HostLimit(f"cannot move '{path}' into quarantine: {e.strerror}") from e

    def _fetched(self, digest: str) -> bytes | None:
        from rootless.engine.image.image_names import registries
        from rootless.image.distribution.http_session import Access
        from rootless.image.distribution.registry import open_repository
        from rootless.image.reference import parse_reference
        from rootless.image.source import read_verified

        config = self._config(digest)
        for repository in self._repositories(digest):
            source = None
            try:
                reference = parse_reference(f"{repository}@{digest}")
                source = open_repository(reference, registries(self._engine), Access(), warn=self._engine.warn)
                if config is not None:
                    return read_verified(source.open_blob(config), config, CONFIG_LIMIT)
                return source.top()[0]
            except RootlessError:
                continue  # the next repository may have it
            finally:
                if source is not None:
                    source.close()
        return None

    def _config(self, digest: str) -> Descriptor | None:
        """The descriptor of the config `digest` in a manifest; None when no manifest names it, as it is one itself."""
        for manifest_digest in self._store.index.manifest_digests():
            try:
                document = self._store.index.document(manifest_digest)
            except RootlessError:
                continue
            if isinstance(document, Manifest) and document.config.digest == digest:
                return document.config
        return None

    def _repositories(self, digest: str) -> list[str]:
        """The repositories from which images were pulled; first those of the manifest `digest`."""
        names = self._store.index.names()
        ordered = [*names.get(digest, ()), *(name for each in names.values() for name in each)]
        return list(dict.fromkeys(name.partition("@")[0] for name in ordered if "@" in name))


_WAYS = {
    INDEX: _Repair._index,
    BLOB: _Repair._blob,
    IMAGE: _Repair._image,
    LAYER: _Repair._layer,
    NAME: _Repair._name,
    CONTAINER: _Repair._container,
    VOLUME: _Repair._volume,
}
