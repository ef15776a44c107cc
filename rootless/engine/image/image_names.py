"""From a text that the user typed to a full reference, and to an image of the store: the same answer for every verb."""

from __future__ import annotations

from rootless.errors import ImageNotFound, UsageError
from rootless.image.reference import Reference, is_short, parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.engine.image_types import RegistryOptions
    from rootless.image.distribution.http_session import Access
    from rootless.image.distribution.shortnames import Registries
    from rootless.image.manifest import Index
    from rootless.storage.store.index import ImageEntry


def registries(engine: Engine) -> Registries:
    """The user's registries.conf, merged with its drop-ins. Raises InvalidInput for a file that breaks its rules."""
    from rootless.image.distribution.shortnames import load_registries

    return load_registries(engine.directories.cache)


def registry_access(options: RegistryOptions) -> Access:
    """The flags of a command about its registry (credentials, TLS), in the form that a registry's session takes."""
    from rootless.image.distribution.http_session import Access

    return Access(options.tls_verify, options.authfile, options.credentials, options.certificates)


def qualify(engine: Engine, text: str) -> tuple[Reference, str | None]:
    """The full reference that `text` means; and a text that says why, where registries.conf decided it.

    Raises UsageError for a text that is no name, and for a short name that registries.conf leaves open.
    """
    if not is_short(text):
        return parse_reference(text), None
    return registries(engine).qualify(text)


def find(engine: Engine, text: str) -> ImageEntry | None:
    """The local image that `text` means: a name, name@digest, an id or the first digits of one.

    A name wins over an id, as in docker. Raises UsageError when digits or a short name are ambiguous.
    """
    index = engine.store.index
    if text.startswith("sha256:"):
        return index.resolve(text)
    try:
        reference, _ = qualify(engine, text)
    except UsageError:
        return index.resolve(text) if "/" not in text and ":" not in text else None
    entry = index.resolve(str(reference))
    if entry is not None or "/" in text or ":" in text or "@" in text:
        return entry
    return index.resolve(text)


def require(engine: Engine, text: str) -> ImageEntry:
    """The local image that `text` means, as of `find`. Raises ImageNotFound, UsageError."""
    entry = find(engine, text)
    if entry is None:
        raise ImageNotFound(f"no such image: '{text}'", hint="`rootless images` lists what is here")
    return entry


def require_platform(engine: Engine, text: str, platform: str) -> ImageEntry:
    """The local image for `platform` ("os/architecture[/variant]") that `text` means.

    It is one of the images of the index that `text` means, without names of its own, or the image itself where it is
    for that platform. Raises ImageNotFound, UsageError.
    """
    from rootless.image.platform import best_match, parse_platform

    wanted = parse_platform(platform)
    index = find_index(engine, text)
    if index is None:
        entry = require(engine, text)
        if best_match([entry.config.platform], wanted) is None:
            raise ImageNotFound(f"image '{text}' is for platform '{entry.config.platform}', not '{platform}'")
        return entry
    position = best_match([child.platform for child in index.manifests], wanted)
    if position is None or not engine.store.blobs.has(index.manifests[position].digest):
        raise ImageNotFound(
            f"the image of '{text}' for platform '{platform}' is not here",
            hint=f"bring it with `rootless pull --all-platforms {text}`",
        )
    return engine.store.index.load(index.manifests[position].digest)


def find_index(engine: Engine, text: str) -> Index | None:
    """The index of several platforms that `text` (a name or a digest) means; None where it means none."""
    try:
        return engine.store.index.find_index(str(qualify(engine, text)[0]))
    except UsageError:
        return engine.store.index.find_index(text)


def familiar(name: str) -> str:
    """A full name of the index as docker shows it."""
    try:
        return parse_reference(name).familiar()
    except UsageError:
        return name


def is_digest_name(name: str) -> bool:
    """Whether a name of the index records where the image was pulled from (`repository@digest`)."""
    return "@" in name


def tags(entry: ImageEntry) -> list[str]:
    """The names that users gave the image, in full."""
    return [name for name in entry.names if not is_digest_name(name)]


def repo_digests(entry: ImageEntry) -> list[str]:
    """The names by which the image was pulled (`repository@digest`), in full."""
    return [name for name in entry.names if is_digest_name(name)]
