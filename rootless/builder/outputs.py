"""The results of a build: --output and --tag, manifests, archives, directories, layers that are squashed to one."""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial
from typing import BinaryIO, NamedTuple

from rootless.builder.build_options import parse_fields, parse_truth
from rootless.builder.session.build_state import ImageSettings
from rootless.builder.session.build_state import store_state as store_state
from rootless.builder.worker.step_jobs import ExportJob, SquashJob
from rootless.engine import verbs
from rootless.engine.image_types import SaveOptions
from rootless.errors import UsageError
from rootless.image.manifest import DOCKER_LIST, OCI_INDEX, Descriptor, Index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rootless.builder.build_options import BuildOptions
    from rootless.builder.provenance import Provenance
    from rootless.builder.session.build_session import BuildSession
    from rootless.builder.session.build_state import BuildState
    from rootless.builder.worker.client import Worker
    from rootless.image.platform import Platform
    from rootless.storage.store.store import Store

_TYPES = ("image", "docker", "oci", "tar", "local", "cacheonly", "registry")


class Output(NamedTuple):
    """One --output.

    kind: one of the types but "registry", which is "image" with `push`; dest: a path, "" where the type has none, "-"
    for standard output; name: a further name of the image; compression: "none", "gzip" or "zstd" for the layers in an
    OCI archive or in the registry, None for what `push` and `save` choose; is_directory: an OCI layout and no archive;
    is_docker: the manifest has docker's media types; is_split: the files of each platform have a directory of their
    own, None where that depends on the number of platforms.
    """

    kind: str
    dest: str
    name: str
    push: bool
    compression: str | None = None
    is_directory: bool = False
    is_docker: bool = False
    is_split: bool | None = None


def parse_outputs(texts: Iterable[str]) -> list[Output]:
    """What the --output flags ask for, in their order. Raises UsageError."""
    found = []
    for text in texts:
        if "=" not in text:
            found.append(Output("tar", "-", "", False) if text == "-" else Output("local", text, "", False))
            continue
        known = {"type", "dest", "name", "push", "compression", "oci-mediatypes", "tar", "rewrite-timestamp"}
        known.add("platform-split")
        fields = parse_fields(text, "--output", known)
        kind = fields.get("type", "")
        if kind not in _TYPES:
            raise UsageError(f"--output: unknown type '{kind}'", hint=f"use {', '.join(_TYPES)}")
        dest = fields.get("dest", "")
        if kind in ("local",) and not dest:
            raise UsageError(f"--output type={kind} needs dest=DIRECTORY")
        if kind in ("tar", "oci") and not dest:
            dest = "-"
        push = parse_truth(fields, "push", "--output", default=False) or kind == "registry"
        compression = _compression(fields, kind)
        is_directory = not parse_truth(fields, "tar", "--output", default=True)
        if is_directory and (kind != "oci" or dest == "-"):
            raise UsageError("--output: tar=false is for type=oci with dest=DIRECTORY")
        is_docker = not parse_truth(fields, "oci-mediatypes", "--output", default=True)
        if is_docker and kind not in ("image", "registry", "docker"):
            raise UsageError(f"--output: type={kind} has OCI's media types or none", hint="leave oci-mediatypes away")
        if "rewrite-timestamp" in fields and not parse_truth(fields, "rewrite-timestamp", "--output", default=True):
            hint = "leave SOURCE_DATE_EPOCH away to keep later times"
            raise UsageError("--output: rewrite-timestamp=false is not known here", hint=hint)
        is_split = None
        if "platform-split" in fields:
            if kind not in ("local", "tar"):
                raise UsageError(f"--output: platform-split is not for type={kind}", hint="it is for local and tar")
            is_split = parse_truth(fields, "platform-split", "--output", default=True)
        kind = "image" if kind == "registry" else kind
        found.append(Output(kind, dest, fields.get("name", ""), push, compression, is_directory, is_docker, is_split))
    if sum(each.dest == "-" for each in found) > 1:
        raise UsageError("only one --output can go to standard output")
    if any(each.dest == "-" for each in found) and os.isatty(1):
        raise UsageError("a tar is not written to a terminal", hint="redirect the output, or give dest=FILE")
    return found


def check(options: BuildOptions, wanted: Iterable[Output]) -> None:
    """Raise UsageError for what the result cannot have: a malformed label or annotation, a push without a name, a file
    of --iidfile or --metadata-file in a directory that is not there."""
    for text in options.label:
        _pair(text)
    for text in options.annotation:
        _annotation(text)
    is_named = options.tag or any(each.name for each in wanted)
    if (options.push or any(each.push for each in wanted)) and not is_named:
        raise UsageError("an image without a name cannot be pushed", hint="give it one with --tag")
    for flag, path in (("--iidfile", options.iidfile), ("--metadata-file", options.metadata_file)):
        directory = os.path.dirname(os.path.abspath(path))
        if path and not os.path.isdir(directory):
            raise UsageError(f"{flag}: there is no directory '{directory}'", hint="make it, or name another file")


def _compression(fields: Mapping[str, str], kind: str) -> str | None:
    text = fields.get("compression")
    if text is None:
        return None
    known = {"uncompressed": "none", "gzip": "gzip", "zstd": "zstd"}
    if text not in known:
        raise UsageError(f"--output: unknown compression '{text}'", hint=f"use {', '.join(known)}")
    if kind not in ("image", "registry", "oci") and text != "uncompressed":
        raise UsageError(f"--output: type={kind} is never compressed")
    return known[text]


def store_image(session: BuildSession, state: BuildState) -> Descriptor:
    """Write config and manifest of `state`, with --label and --annotation, into the store.

    Returns the manifest's descriptor, which has no name yet. An inline cache goes into the config.
    """
    labels = dict(_pair(text) for text in session.options.label)
    annotations = dict(_annotation(text) for text in session.options.annotation)
    extra = {}
    asked = "BUILDKIT_INLINE_CACHE=1" in session.options.build_arg
    if asked or any(each.startswith("type=inline") for each in session.options.cache_to):
        from rootless.builder.cache.cache_export import inline

        extra = inline(session, state)
    form = "v2s2" if session.options.format == "docker" else "oci"
    return store_state(session.engine, state, ImageSettings(labels, annotations, extra, form))


class BuiltImage(NamedTuple):
    """What was built for one platform. provenance: None where none is wanted."""

    platform: Platform
    state: BuildState
    provenance: Provenance | None = None


def store_index(
    session: BuildSession, images: Sequence[tuple[BuiltImage, Descriptor]], names: Sequence[str]
) -> Descriptor:
    """Write the index of the images, with their provenance, into the store; return its descriptor.

    It has no name yet. names: those that it will get, which a provenance states.
    """
    media_type = DOCKER_LIST if session.options.format == "docker" else OCI_INDEX
    entries: list[object] = [
        {
            "mediaType": each.media_type,
            "digest": each.digest,
            "size": each.size,
            "platform": {
                "architecture": built.platform.architecture,
                "os": built.platform.os,
                **({"variant": built.platform.variant} if built.platform.variant else {}),
            },
        }
        for built, each in images
    ]
    for built, each in images:
        if built.provenance is not None:
            from rootless.image.attestation import index_entry

            made = built.provenance.attestation(each, built.platform, names)
            for content in (made.statement, made.config, made.manifest):
                session.store.blobs.put(content)
            entries.append(index_entry(made.descriptor, each.digest))
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
    raw = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    return Descriptor(media_type, session.store.blobs.put(raw), len(raw))


def name_in(store: Store, descriptor: Descriptor, names: Sequence[str]) -> None:
    """Let `names` mean the image. Without names the image is in the index all the same, so that it is not garbage.

    The index notes the present time, because the image's own `created` is that of its base (ImageEntry.created_time).
    """
    now = time.time()
    if not names:
        store.index.add(descriptor, made=now)
    for name in names:
        store.index.tag(name, descriptor, made=now)


def drop_replaced(store: Store, descriptor: Descriptor, images: Iterable[Descriptor]) -> None:
    """Take those out of the index that the new index `descriptor` of the same images has left without a name.

    The statement of a provenance has its time, so that the index of each build is another one, although the images are
    the same: each build would leave an index without a name behind.
    """
    ours = {each.digest for each in images}
    for entry in store.index.entries():
        if entry.names or entry.named_digest == descriptor.digest or entry.manifest_digest not in ours:
            continue
        document = store.index.document(entry.named_digest)
        if isinstance(document, Index):
            others = {each.digest for each in document.manifests if not each.is_attestation}
            if others != ours:
                continue
        store.index.remove(entry.named_digest)


def full_names(session: BuildSession, tags: Iterable[str]) -> list[str]:
    """The full references that the texts of --tag mean, each once. Raises UsageError."""
    from rootless.engine.image.image_names import qualify

    names = []
    for text in tags:
        reference, _ = qualify(session.engine, text)
        if reference.digest:
            raise UsageError(f"an image cannot be given the name '{text}'", hint="leave out the digest")
        names.append(str(reference))
    return list(dict.fromkeys(names))


class LentNames:
    """Names that an image has only while an archive of it is written: the archive holds them, the store keeps none.

    previous: what each name meant before, None for nothing; is_new: the image was not in the index before.
    """

    def __init__(
        self, store: Store, descriptor: Descriptor, previous: dict[str, Descriptor | None], *, is_new: bool
    ) -> None:
        self._store = store
        self._descriptor = descriptor
        self._previous = previous
        self._is_new = is_new

    def give_back(self) -> None:
        """Take the names away again. A name that meant another image means that one again."""
        index = self._store.index
        for name, previous in self._previous.items():
            if previous is not None:
                index.tag(name, previous)
            else:
                index.untag(name)
        if self._is_new:
            index.remove(self._descriptor.digest)


def lend_names(store: Store, descriptor: Descriptor, names: Sequence[str]) -> LentNames:
    """Let `names` mean the image until `Lent.give_back`, which the caller has to call."""
    is_new = descriptor.digest not in store.index.manifest_digests()
    previous: dict[str, Descriptor | None] = {}
    for name in names:
        found = store.index.resolve(name)
        if found is None:
            previous[name] = None
        else:
            document = store.index.document(found.named_digest)
            previous[name] = Descriptor(document.media_type, document.digest, len(document.raw))
    name_in(store, descriptor, names)
    return LentNames(store, descriptor, previous, is_new=is_new)


def write_archive(session: BuildSession, output: Output, images: Sequence[str]) -> None:
    """Write an image as a docker archive, an OCI archive or an OCI layout, as `output` asks. Raises HostLimit.

    images: its names, or its id where it has none.
    """
    form = "docker-archive" if output.kind == "docker" else "oci-archive"
    destination: str | BinaryIO = output.dest
    if output.dest == "-":
        destination = sys.stdout.buffer
    elif output.is_directory or (os.path.isdir(output.dest) and output.kind == "oci"):
        form = "oci-dir"
    compression = output.compression if output.kind == "oci" else None
    verbs.save_images(session.engine, list(images), destination, options=SaveOptions(form, compression))


def write_index_archive(session: BuildSession, output: Output, digest: str, names: Sequence[str]) -> None:
    """Write the index `digest` with its images as an OCI archive or an OCI layout, as `output` asks.

    names: those that it gets there. Raises HostLimit, UsageError.
    """
    is_layout = output.is_directory or os.path.isdir(output.dest)
    destination: str | BinaryIO = sys.stdout.buffer if output.dest == "-" else output.dest
    options = SaveOptions("oci-dir" if is_layout else "oci-archive", output.compression)
    verbs.save_index(session.engine, digest, names, destination, options=options)


def write_trees(session: BuildSession, output: Output, built: Sequence[BuiltImage]) -> None:
    """Write the files of the images into the directory of `output`, or as one tar. Raises HostLimit, OSError.

    Where there are several, or platform-split=true asks for it, each is in a directory that is named after its
    platform, as `linux_arm64`. A provenance is written beside them. Raises UsageError where a file has its name.
    """
    is_split = len(built) > 1 if output.is_split is None else output.is_split
    trees = [(str(each.platform).replace("/", "_") if is_split else "", each) for each in built]
    if output.kind == "local":
        for name, each in trees:
            export_files(session, each, f"{output.dest}/{name}" if name else output.dest)
        return
    if output.dest == "-":
        sys.stdout.flush()
        export_tar(session, trees, 1)
        return
    fd = os.open(output.dest, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        export_tar(session, trees, fd)
    finally:
        os.close(fd)


def squash(session: BuildSession, base: int, state: BuildState) -> BuildState:
    """The state in which the layers of `state` above the first `base` ones are one layer. Raises HostLimit."""
    new = state.layers[base:]
    if len(new) < 2:
        return state
    directory = session.make_directory("rootfs")
    below = session.store.layers.lowerdirs([layer.chain_id for layer in state.layers[:base]], session.id_map)
    rootfs = session.plan_of(below, directory)
    layers = session.lowerdirs(state)[: len(new)]
    job = SquashJob(session.id_map, layers[::-1], rootfs.upper)
    session.on_worker(lambda worker: worker.call(job))
    made = session.commit(rootfs)
    kept = state.layers[:base]
    first = _history_of(state, base)
    history = [
        {**entry, "empty_layer": True} if position >= first else entry for position, entry in enumerate(state.history)
    ]
    if made is None:
        return state._replace(layers=kept, history=tuple(history))
    history.append({"created": history[-1]["created"], "comment": f"merge {len(new)} layers"})
    return state._replace(layers=(*kept, made[0]), history=tuple(history))


def _history_of(state: BuildState, layers: int) -> int:
    """The number of entries of the history that belong to the first `layers` layers."""
    seen = 0
    for position, entry in enumerate(state.history):
        if seen == layers:
            return position
        seen += not entry.get("empty_layer")
    return len(state.history)


def export_files(session: BuildSession, built: BuiltImage, directory: str) -> None:
    """Write the files of the image into `directory`. They all belong to the calling user. Raises HostLimit, OSError."""
    os.makedirs(directory, exist_ok=True)
    job = _export_job(session, built, os.path.realpath(directory))
    session.on_worker(lambda worker: worker.call(job))


def _export_job(session: BuildSession, built: BuiltImage, directory: str = "") -> ExportJob:
    job = ExportJob(session.id_map, session.tree(session.lowerdirs(built.state)), directory)
    if built.provenance is not None and not built.provenance.wanted.is_inline_only:
        job.statement = built.provenance.exported(session.latest)
    return job


def export_tar(session: BuildSession, trees: Sequence[tuple[str, BuiltImage]], fd: int) -> None:
    """Write the files of images as one tar to `fd`, with the owners that they have in the images. Raises HostLimit.

    trees: (directory of the tar for the files, "" for none, and image).
    """
    for position, (prefix, built) in enumerate(trees, 1):
        job = _export_job(session, built)
        job.prefix, job.is_last = prefix, position == len(trees)
        session.on_worker(partial(_call, job, fd))


def _call(job: ExportJob, fd: int, worker: Worker) -> None:
    worker.call(job, [fd])


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name:
        raise UsageError(f"invalid label '{text}' (--label)", hint="write KEY=VALUE")
    return name, value


def _annotation(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    for prefix in ("manifest:", "index:"):
        name = name.removeprefix(prefix)
    if not name or not equals:
        raise UsageError(f"invalid annotation '{text}' (--annotation)", hint="write KEY=VALUE")
    return name, value
