"""What stages stand on: images of the store, which are pulled when they are missing, scratch, named contexts."""

from __future__ import annotations

import os
from typing import NamedTuple

from rootless.builder.session.build_session import StepRun
from rootless.builder.session.build_state import BuildState
from rootless.builder.session.materials import image_uri, layout_uri
from rootless.errors import DigestMismatch, UsageError
from rootless.image.digest import digest_of, is_digest
from rootless.image.platform import host_platform
from rootless.image.reference import DEFAULT_REGISTRY, Reference
from rootless.storage.store.step_records import StepLayer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.builder.context.contexts import Context
    from rootless.builder.session.build_session import BuildSession
    from rootless.builder.session.tracker import Step
    from rootless.engine.image_types import PullEvent
    from rootless.image.layout import LayoutSource
    from rootless.image.platform import Platform
    from rootless.storage.store.index import ImageEntry


IMAGE = "docker-image://"
LAYOUT = "oci-layout://"


def scratch_state(session: BuildSession, platform: Platform) -> BuildState:
    """The state of FROM scratch: no layers, and the PATH that docker gives an image without one."""
    from rootless.engine.plan.environment import DEFAULT_PATH

    return BuildState(platform, config={"Env": [f"PATH={DEFAULT_PATH}"]}, moment=session.latest or 0)


def image_state(session: BuildSession, reference: str, platform: Platform, step: Step | None) -> BuildState:
    """The state of the image `reference` for `platform`.

    A missing image is pulled; with --pull also one of which the registry has a newer version. step: gets the pull's
    progress, None for none. Raises ImageNotFound and what pulling raises.
    """
    from rootless.engine import image_in_use

    policy = "newer" if session.options.pull else "missing"
    asked = _asked_platform(session, platform)

    def progress(event: PullEvent) -> None:
        if step is not None and not event.id:
            step.log(event.status)

    try:
        found = image_in_use.image_for(session.engine, reference, pull=policy, platform=asked, progress=progress)
    except UsageError:
        if asked is None or policy != "missing":
            raise
        found = image_in_use.image_for(session.engine, reference, pull="always", platform=asked, progress=progress)
    digest = found.entry.named_digest
    named = _named(session, reference, found.entry) or Reference(DEFAULT_REGISTRY, "unnamed", None, digest)
    session.materials.add_image(image_uri(named, found.entry.config.platform), digest)
    return of_entry(session, found.entry, list(found.chain_ids))


def _named(session: BuildSession, text: str, entry: ImageEntry) -> Reference | None:
    """The name by which `text` means `entry`; where it is an id, a name that the image has, None without one."""
    from rootless.engine.image.image_names import qualify
    from rootless.image.reference import parse_reference

    try:
        asked = qualify(session.engine, text)[0]
    except UsageError:
        asked = None
    if asked is not None and (asked.digest or str(asked) in entry.names):
        return asked
    return parse_reference(entry.names[0]) if entry.names else None


def _asked_platform(session: BuildSession, platform: Platform) -> str | None:
    """`platform` when the user or FROM asks for it. None when it is the host's and nobody asked: an image for another
    platform is taken as it is then."""
    return None if platform == host_platform() and not session.options.platform else str(platform)


def of_entry(session: BuildSession, entry: ImageEntry, chain_ids: list[str]) -> BuildState:
    """The state that the image `entry` of the store is. chain_ids: of its layers, bottom first, all unpacked."""
    config = entry.config
    layers = tuple(
        StepLayer(chain, diff_id, descriptor.media_type, descriptor.digest, descriptor.size)
        for chain, diff_id, descriptor in zip(chain_ids, config.diff_ids, entry.manifest.layers, strict=True)
    )
    known = {"created", "author", "architecture", "os", "variant", "config", "rootfs", "history"}
    return BuildState(
        platform=config.platform,
        layers=layers,
        config=dict(config.config),
        history=tuple(config.history),
        moment=max(0, int(config.created_time)) if session.latest is None else session.latest,
        author=config.author,
        extra={name: value for name, value in config.document.items() if name.startswith("os.") and name not in known},
    )


def from_directory(session: BuildSession, context: Context, state: BuildState, step: Step) -> BuildState:
    """A state of one layer, on top of `state`, with the files of a named context. Raises UsageError, InvalidInput."""
    from rootless.builder.steps.copy_step import Placement, place_files
    from rootless.builder.steps.taking import TakenSources
    from rootless.builder.worker.file_jobs import TakenFiles

    taken = TakenSources()
    try:
        digest = context.digest(["/"], (), session.known(context), wildcards=False)
        taken.facts.append(["context", digest.hexdigest])
        taken.newest = digest.newest
        files = TakenFiles(0, ["/"], "/", wildcards=False)
        files.ignore = context.ignore
        taken.items.append(files)
        taken.fds.append(context.open())
        placement = Placement("/", max(state.moment, digest.newest), keeps_set_id=True)
        return place_files(StepRun(session, state, "COPY / /", "", step), taken, placement, 0)
    finally:
        taken.close()


def named_context(session: BuildSession, name: str, platform: Platform, step: Step | None) -> BuildState | Context:
    """What --build-context `name` is: the context of a directory, or the state of an image that it names as
    `docker-image://REF` or `oci-layout://PATH[:TAG][@DIGEST]`. Raises as `image` and `layout` do."""
    given = given_image(session, name)
    if given == f"{IMAGE}scratch":
        return scratch_state(session, platform)
    if given.startswith(IMAGE):
        return image_state(session, given.removeprefix(IMAGE), platform, step)
    if given.startswith(LAYOUT):
        return layout_state(session, name, given.removeprefix(LAYOUT), platform)
    return session.contexts[name]


def given_image(session: BuildSession, name: str) -> str:
    """The image that --build-context `name` is, with IMAGE or LAYOUT in front of it; "" for a directory."""
    for text in session.options.build_context:
        given, _, value = text.partition("=")
        if given.lower() == name and value.startswith((IMAGE, LAYOUT)):
            return value
    return ""


def layout_state(session: BuildSession, name: str, text: str, platform: Platform) -> BuildState:
    """The state of the image that `text`, PATH[:TAG][@DIGEST], names in an OCI layout, for the context `name`.

    The image gets no name in the store, and no name there changes its meaning. `platform` chooses from an index.
    Without TAG and DIGEST the layout must have one image only, or one tagged `latest`. Raises UsageError (no such
    image, or one for another platform than was asked for), DigestMismatch, and what reading a layout raises.
    """
    from rootless.engine.transfer.image_bring import bring
    from rootless.engine.transfer.load import open_files
    from rootless.image.layout import layout_sources
    from rootless.image.manifest import chain_ids
    from rootless.image.platform import best_match

    wanted = LayoutImage.parse(text)
    files = open_files(session.store, wanted.path)
    try:
        source = wanted.choose(layout_sources(files))
        manifest = source.manifest(platform)
        bring(session.engine, source, manifest, None)
    finally:
        files.close()
    entry = session.store.index.load(manifest.digest)
    if _asked_platform(session, platform) is not None and best_match([entry.config.platform], platform) is None:
        raise UsageError(f"'{text}' is for platform '{entry.config.platform}', not '{platform}'")
    session.materials.add_image(layout_uri(name, entry.manifest_digest, entry.config.platform), entry.manifest_digest)
    return of_entry(session, entry, chain_ids(entry.config.diff_ids))


class LayoutImage(NamedTuple):
    """Which image of an OCI layout (a directory, or a tar of one) is meant. tag, digest: "" when they are not given."""

    path: str
    tag: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> LayoutImage:
        """The parts of PATH[:TAG][@DIGEST], where PATH itself may have colons and at signs. Raises UsageError."""
        path, digest = text, ""
        if "@" in text and not os.path.exists(text):
            path, _, digest = text.rpartition("@")
            if not is_digest(digest):
                raise UsageError(f"'{digest}' in '{text}' is not a digest", hint="write PATH@sha256:<64 digits>")
        tag = ""
        if not os.path.exists(path):
            path, _, tag = path.rpartition(":")
            if not tag or "/" in tag or not os.path.exists(path):
                raise UsageError(f"there is no OCI layout '{text.removesuffix(f'@{digest}')}'")
        return cls(path, tag, digest)

    def choose(self, sources: Sequence[LayoutSource]) -> LayoutSource:
        """The source of the image that is meant. Raises UsageError for none or several.

        With a digest the bytes of the index entry's manifest are hashed, for a layout's index may name any digest
        beside any content: DigestMismatch is raised.
        """
        found = [each for each in sources if not self.tag or self.tag in _tags(each)]
        if not found:
            known = sorted({tag for each in sources for tag in _tags(each)})
            hint = f"it has {', '.join(known)[:500]}" if known else "none of its images has a tag"
            raise UsageError(f"the layout '{self.path}' has no image with the tag '{self.tag}'", hint=hint)
        if self.digest:
            digests = {digest_of(each.top()[0]): each for each in found}
            if self.digest not in digests:
                there = ", ".join(f"'{digest}'" for digest in digests)
                where = f"{self.path}:{self.tag}" if self.tag else self.path
                raise DigestMismatch(f"the image of the layout '{where}' has digest {there}, not '{self.digest}'")
            return digests[self.digest]
        if len(found) > 1:
            found = [each for each in found if "latest" in _tags(each)]
        if len(found) != 1:
            hint = f"name one: {self.path}:TAG or {self.path}@DIGEST"
            raise UsageError(f"the layout '{self.path}' has several images", hint=hint)
        return found[0]


def _tags(source: LayoutSource) -> set[str]:
    """The tags of an image in a layout: those that stand there, and those of full names."""
    labels = [*source.labels, *source.names]
    return {label.rpartition(":")[2] if "/" in label else label for label in labels}
