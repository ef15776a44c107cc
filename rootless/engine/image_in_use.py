"""From a name that the user typed to an image that is in the store and unpacked. It pulls if the policy says so."""

from __future__ import annotations

from typing import NamedTuple

from rootless.engine.types import ImageDefaults
from rootless.errors import ImageNotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.engine.context import Engine
    from rootless.engine.image_types import PullEvent
    from rootless.storage.store.index import ImageEntry


class ImageInUse(NamedTuple):
    """What a container needs of an image. name: as the user typed it; chain_ids: those of its layers, bottom first."""

    name: str
    entry: ImageEntry
    defaults: ImageDefaults
    chain_ids: tuple[str, ...]


def find(engine: Engine, text: str) -> ImageEntry | None:
    """The local image that `text` (a name, name@digest, an id or its first digits) means; None when there is none."""
    from rootless.engine.image import image_names

    return image_names.find(engine, text)


def image_for(
    engine: Engine,
    text: str,
    *,
    pull: str = "missing",
    platform: str | None = None,
    progress: Callable[[PullEvent], None] | None = None,
) -> ImageInUse:
    """The image that `text` names, pulled before if the policy `pull` (always, missing, never, newer) says so.

    platform: "os/architecture[/variant]", None for the host's; progress: is called with the steps of a pull. Raises
    UsageError, ImageNotFound and the errors of a pull.
    """
    if pull not in ("always", "missing", "never", "newer"):
        raise UsageError(f"invalid pull policy '{pull}' (--pull)", hint="use always, missing, newer or never")
    entry = None if pull in ("always", "newer") else find(engine, text)
    missing = f"image '{text}'"
    if entry is not None and platform and pull == "missing" and not _fits(entry, platform):
        missing = f"image '{text}' for platform '{platform}' (this one is for '{entry.config.platform}')"
        entry = None
    if entry is None:
        if pull == "never":
            raise ImageNotFound(f"no such image: '{text}'", hint=f"rootless pull {text}")
        progress = progress or engine.progress
        if progress is not None and pull == "missing":
            from rootless.engine.image_types import PullEvent

            progress(PullEvent("", f"Unable to find {missing} locally"))
        from rootless.engine.image_types import PullOptions
        from rootless.engine.transfer.pull import pull_image

        pulled = pull_image(engine, text, PullOptions(platform, pull), progress=progress)
        entry = find(engine, text) or engine.store.index.resolve(pulled.id)
        if entry is None:
            raise ImageNotFound(f"no such image: '{text}'")
    elif platform and not _fits(entry, platform):
        raise UsageError(f"image '{text}' is for platform '{entry.config.platform}', not '{platform}'")
    return ImageInUse(text, entry, defaults(entry), tuple(_chain_ids(entry)))


def _fits(entry: ImageEntry, platform: str) -> bool:
    from rootless.image.platform import best_match, parse_platform

    return best_match([entry.config.platform], parse_platform(platform)) is not None


def _chain_ids(entry: ImageEntry) -> list[str]:
    from rootless.image.manifest import chain_ids

    return chain_ids(entry.config.diff_ids)


def defaults(entry: ImageEntry) -> ImageDefaults:
    """The defaults for a container in the image's config (image-spec config.md)."""
    config = entry.config
    return ImageDefaults(
        env=tuple(config.env),
        cmd=None if config.cmd is None else tuple(config.cmd),
        entrypoint=None if config.entrypoint is None else tuple(config.entrypoint),
        user=config.user,
        working_dir=config.working_dir,
        volumes=tuple(config.volumes),
        exposed_ports=tuple(config.exposed_ports),
        labels=config.labels,
        stop_signal=config.stop_signal,
        healthcheck=config.healthcheck,
    )
