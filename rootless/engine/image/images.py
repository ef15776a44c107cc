"""The verbs of images: what the command line and the API call. Each verb's work is in its own engine.image_* module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rootless.engine.image_types import (
    HistoryEntry,
    ImageSummary,
    LoadedImage,
    PullEvent,
    RegistryOptions,
    RemovedImage,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import BinaryIO

    from rootless.engine.context import Engine
    from rootless.engine.image_types import Change, Copied, CopyOptions, Pushed, PushOptions, Tree
    from rootless.engine.types import PruneReport


class Images:
    """`engine.image.images`. References are what the user typed; results and errors carry the familiar form."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _note(self, action: str, id: str, name: str = "") -> None:
        """An event: `action` was done to the image."""
        from rootless.engine import events

        events.record(self._engine, "image", action, id, {"name": name} if name else None)

    def pull(
        self,
        reference: str,
        *,
        platform: str | None = None,
        policy: str = "always",
        progress: Callable[[PullEvent], None] | None = None,
        registry: RegistryOptions | None = None,
        all_platforms: bool = False,
    ) -> str:
        """Bring an image here; its id ("sha256:<hex>"), or with all_platforms the digest of the index.

        policy: always | missing | never | newer. progress is called from this thread only.
        Raises ImageNotFound, RegistryError, AuthenticationError, InvalidInput, HostLimit (disk full).
        """
        from rootless.engine.transfer.pull import pull

        pulled = pull(
            self._engine,
            reference,
            platform=platform,
            policy=policy,
            progress=progress,
            registry=registry,
            all_platforms=all_platforms,
        )
        self._note("pull", reference, reference)
        return pulled

    def push(
        self,
        name: str,
        target: str | None = None,
        *,
        options: PushOptions | None = None,
        registry: RegistryOptions | None = None,
        progress: Callable[[PullEvent], None] | None = None,
    ) -> Pushed:
        """Copy a local image into a registry: to `target`, or to where its name says.

        progress is called from this thread only. Raises ImageNotFound, RegistryError, AuthenticationError, UsageError.
        """
        from rootless.engine.image_types import PushOptions
        from rootless.engine.transfer.push import push

        wanted = options or PushOptions()
        pushed = push(self._engine, name, target, options=wanted, registry=registry, progress=progress)
        self._note("push", name, target or name)
        return pushed

    def copy(
        self,
        source: str,
        destination: str,
        *,
        options: CopyOptions | None = None,
        from_registry: RegistryOptions | None = None,
        to_registry: RegistryOptions | None = None,
        progress: Callable[[PullEvent], None] | None = None,
    ) -> Copied:
        """Copy an image between two places: docker://, oci:, oci-archive:, docker-archive:, dir: or the store.

        Bytes stay as they are (except into a docker-archive). progress is called from this thread only.
        """
        from rootless.engine.image_types import CopyOptions
        from rootless.engine.transfer.image_copy import copy

        return copy(
            self._engine,
            source,
            destination,
            options=options or CopyOptions(),
            from_registry=from_registry,
            to_registry=to_registry,
            progress=progress,
        )

    def tags_of(self, name: str) -> list[str]:
        """Every local name of the repository that `name` names. Raises ImageNotFound."""
        from rootless.engine.transfer.push import repository_tags

        return repository_tags(self._engine, name)

    def import_(
        self,
        source: str | BinaryIO,
        reference: str | None = None,
        *,
        changes: Sequence[str] = (),
        message: str = "",
        platform: str | None = None,
        progress: Callable[[PullEvent], None] | None = None,
    ) -> str:
        """Make an image of a root file system tar (path, "-" or an open binary stream; gz, zst, xz, bz2 or plain).

        changes: Dockerfile lines (CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, STOPSIGNAL, USER, VOLUME,
        WORKDIR). Returns the image id. Raises UsageError for a bad change, InvalidInput for a bad tar.
        """
        from rootless.engine.transfer.import_tar import import_root

        made = import_root(
            self._engine,
            source,
            reference,
            changes=changes,
            message=message,
            platform=platform,
            progress=progress,
        )
        self._note("import", made, reference or "")
        return made

    def load(
        self,
        source: str | BinaryIO,
        *,
        platform: str | None = None,
        progress: Callable[[PullEvent], None] | None = None,
    ) -> list[LoadedImage]:
        """Bring every image of an archive: docker-archive, oci-archive (path, "-" or stream) or OCI layout."""
        from rootless.engine.transfer.load import load

        loaded = load(self._engine, source, platform=platform, progress=progress)
        for image in loaded:
            self._note("load", image.id, next(iter(image.names), ""))
        return loaded

    def save(
        self,
        names: Sequence[str],
        output: str | BinaryIO,
        *,
        format: str = "docker-archive",
        compression: str | None = None,
        level: int | None = None,
    ) -> None:
        """Write images to `output` (path, "-" = standard output, or stream; a directory for oci-dir).

        format: docker-archive | oci-archive | oci-dir. compression: gzip, zstd or none, of the layers in OCI formats
        (None: as they were), of the whole docker-archive (None: not at all); level: of it.
        Raises ImageNotFound before anything is written.
        """
        from rootless.engine.transfer.save import save
        from rootless.image.compress import parse_compression

        chosen = parse_compression(compression, level) if compression else None
        save(self._engine, names, output, format=format, compression=chosen)
        for name in names:
            self._note("save", name, name)

    def ls(
        self, *, filters: Mapping[str, Sequence[str]] | None = None, all: bool = False, names: Sequence[str] = ()
    ) -> list[ImageSummary]:
        """Images, newest first.

        filters: dangling (true|false), label, reference (glob), before, since, until, as docker. names: only these
        repositories or repository:tag (`image ls debian`). all: accepted for docker's sake, there are no hidden images.
        """
        from rootless.engine.image.image_list import list_images

        return list_images(self._engine, filters=filters or {}, names=names)

    def inspect(self, name: str) -> dict[str, Any]:
        """One image in docker's shape. Raises ImageNotFound."""
        from rootless.engine.image.image_list import inspect

        return inspect(self._engine, name)

    def shell(self, name: str, command: Sequence[str] = ()) -> int:
        """Run a command of the host (default: the caller's shell) as root of his namespace in the image's tree; its
        exit status. Changes are dropped. The tree's path is in ROOTLESS_IMAGE_ROOT."""
        from rootless.engine.image.image_shell import shell

        return shell(self._engine, name, command)

    def diff(self, one: str, other: str | None = None) -> list[Change]:
        """What image `other` has changed in the files of `one` (without it: what the topmost layer of `one` has)."""
        from rootless.engine.files.snapshots import image_changes

        return image_changes(self._engine, one, other)

    def history(self, name: str) -> list[HistoryEntry]:
        """How the image was made, newest step first."""
        from rootless.engine.image.image_list import history

        return history(self._engine, name)

    def tree(self, names: Sequence[str] = ()) -> Tree:
        """The layers of all images (names: of these and those that share their base layer), each once."""
        from rootless.engine.image.image_tree import tree

        return tree(self._engine, names)

    def tag(self, source: str, target: str) -> None:
        """Give the image `source` the further name `target`, which may move there from another image, as docker."""
        from rootless.engine.image.image_remove import tag

        tag(self._engine, source, target)
        self._note("tag", source, target)

    def untag(self, name: str) -> RemovedImage:
        """Take one name away; the image stays, untagged when it was the last one."""
        from rootless.engine.image.image_remove import untag

        removed = untag(self._engine, name)
        self._note_removed(removed)
        return removed

    def rm(self, name: str, *, force: bool = False) -> RemovedImage:
        """Remove a name, and the image with its last name; by id: the image with its only name.

        Raises InvalidState when a container uses the image (force: stopped containers' image loses its names, nothing
        a container needs is deleted) or, by id, when several names point to it.
        """
        from rootless.engine.image.image_remove import remove

        removed = remove(self._engine, name, force=force)
        self._note_removed(removed)
        return removed

    def _note_removed(self, removed: RemovedImage) -> None:
        for name in removed.untagged:
            self._note("untag", name, name)
        for id in removed.deleted:
            self._note("delete", id)

    def prune(self, *, all: bool = False, filters: Mapping[str, Sequence[str]] | None = None) -> PruneReport:
        """Remove untagged images (all: every image that no container uses; filters: label, label!, until)."""
        from rootless.engine.image.image_remove import prune

        pruned = prune(self._engine, all=all, filters=filters or {})
        for id in pruned.images:
            self._note("delete", id)
        return pruned

    def bootstrap(
        self,
        what: str,
        *,
        tag: str | None = None,
        mirror: str | None = None,
        progress: Callable[[PullEvent], None] | None = None,
    ) -> str:
        """Make a base image with no registry: "busybox" or "debian[:suite]"; the image id.

        tag: name of the image (default: docker.io/library/busybox:latest, docker.io/library/debian:SUITE). mirror: for
        debian, the archive to use instead of the host's apt sources. Raises HostLimit with the remedy.
        """
        from rootless.engine.transfer.bootstrap import bootstrap

        made = bootstrap(self._engine, what, tag=tag, mirror=mirror, progress=progress)
        self._note("import", made, tag or what)
        return made
