"""What stages stand on: images of the store (pulled when they are not here), scratch, named contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rootless.builder.build_state import BuildState, Layer
from rootless.engine import verbs
from rootless.errors import UsageError

if TYPE_CHECKING:
    from rootless.builder.context.contexts import Context
    from rootless.builder.session import BuildSession
    from rootless.builder.tracker import Step
    from rootless.image.platform import Platform
    from rootless.storage.store.index import ImageEntry


def scratch(session: BuildSession, platform: Platform) -> BuildState:
    """No layers, and docker's PATH."""
    from rootless.engine.plan.environment import DEFAULT_PATH

    return BuildState(platform, config={"Env": [f"PATH={DEFAULT_PATH}"]}, moment=session.latest or 0)


def image(session: BuildSession, reference: str, platform: Platform, step: Step | None) -> BuildState:
    """The state of an image. Pulls by --pull. Raises ImageNotFound and what pulling raises."""
    from rootless.engine import image_in_use
    from rootless.image.platform import host_platform

    policy = "newer" if session.options.pull else "missing"
    asked = None if platform == host_platform() and not session.options.platform else str(platform)

    def progress(event: Any) -> None:
        if step is not None and not event.id:
            step.log(event.status)

    try:
        found = image_in_use.image_for(session.engine, reference, pull=policy, platform=asked, progress=progress)
    except UsageError:
        if asked is None or policy != "missing":
            raise
        found = image_in_use.image_for(session.engine, reference, pull="always", platform=asked, progress=progress)
    return of_entry(session, found.entry, list(found.chain_ids))


def of_entry(session: BuildSession, entry: ImageEntry, chain_ids: list[str]) -> BuildState:
    """The state that an image of the store is."""
    config = entry.config
    layers = tuple(
        Layer(chain, diff_id, descriptor.media_type, descriptor.digest, descriptor.size)
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


def named(session: BuildSession, name: str, platform: Platform, step: Step | None) -> BuildState | Context:
    """A --build-context: a directory, or `docker-image://REF`, or `oci-layout://PATH`."""
    for text in session.options.build_context:
        given, _, value = text.partition("=")
        if given.lower() != name:
            continue
        if value.startswith("docker-image://"):
            return image(session, value.removeprefix("docker-image://"), platform, step)
        if value.startswith("oci-layout://"):
            return layout(session, value.removeprefix("oci-layout://"), platform)
    return session.contexts[name]


def layout(session: BuildSession, path: str, platform: Platform) -> BuildState:
    """An image of an OCI layout directory: PATH[:TAG][@DIGEST]."""
    del platform
    directory = path.partition("@")[0]
    loaded = verbs.load_images(session.engine, directory)
    entry = session.store.index.resolve(loaded[0].id)
    if entry is None:
        raise UsageError(f"no image in the layout '{directory}'")
    from rootless.image.manifest import chain_ids

    return of_entry(session, entry, chain_ids(entry.config.diff_ids))
