"""The verb `pull`: reference → registry → manifest → layers → name.

The name is written last: a pull that breaks off leaves layers without a name, which the next pull uses.
"""

from __future__ import annotations

from typing import NamedTuple

from rootless.engine import events
from rootless.engine.image.image_names import familiar, find, qualify, registries, registry_access, repo_digests, tags
from rootless.engine.image_types import PulledImage, PullEvent, PullOptions
from rootless.engine.transfer.image_bring import bring
from rootless.errors import ImageNotFound, InvalidInput, RegistryError, UsageError
from rootless.image.digest import digest_of
from rootless.image.distribution.policy import check_policy
from rootless.image.platform import best_match, host_platform, parse_platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.engine.context import Engine
    from rootless.engine.image_types import RegistryOptions
    from rootless.image.distribution.registry import RegistrySource
    from rootless.image.manifest import Descriptor, ImageConfig
    from rootless.image.platform import Platform
    from rootless.image.reference import Reference
    from rootless.storage.store.index import ImageEntry

POLICIES = ("always", "missing", "never", "newer")


class _Pull(NamedTuple):
    """One pull while it runs.

    is_asked: whether the user named the platform; here: the image of the store that has the name now, None for none;
    say: is called with each report of progress.
    """

    engine: Engine
    reference: Reference
    platform: Platform
    is_asked: bool
    here: ImageEntry | None
    say: Callable[[PullEvent], None]


def pull_image(
    engine: Engine,
    text: str,
    options: PullOptions | None = None,
    *,
    progress: Callable[[PullEvent], None] | None = None,
) -> PulledImage:
    """Bring an image into the store.

    progress is called from this thread only. Raises UsageError, ImageNotFound, RegistryError, AuthenticationError,
    InvalidInput, DigestMismatch, HostLimit (disk full).
    """
    options = options or PullOptions()
    if options.all_platforms and options.platform:
        raise UsageError("--platform and --all-platforms do not go together")
    if options.policy not in POLICIES:
        raise UsageError(f"unknown pull policy '{options.policy}'", hint=f"use one of: {', '.join(POLICIES)}")
    try:
        pulled = _by_policy(engine, text, options, progress or (lambda event: None))
    except (RegistryError, ImageNotFound) as e:
        local = find(engine, text) if options.platform else None
        if local is None or _fits(local.config, parse_platform(options.platform or "")):
            raise
        here = f"the image '{text}' of the store is for platform '{local.config.platform}', not '{options.platform}'"
        raise type(e)(f"{here}, and {e.message}", hint=e.hint) from e
    events.record_image(engine, "pull", text, text)
    return pulled


def _by_policy(engine: Engine, text: str, options: PullOptions, say: Callable[[PullEvent], None]) -> PulledImage:
    """The image that the policy asks for: of the one in the store, or of the registry's, which is pulled."""
    policy = options.policy
    wanted = parse_platform(options.platform) if options.platform else host_platform()
    is_asked = bool(options.platform)
    here = find(engine, text) if policy != "always" else None
    if here is not None and policy in ("missing", "never") and (not is_asked or _fits(here.config, wanted)):
        return _here(engine, text, here)
    if policy == "never":
        raise ImageNotFound(f"no such image: '{text}'", hint=f"pull it with `rootless pull {text}`")
    reference, why = qualify(engine, text)
    check_policy("docker", str(reference))
    if why:
        say(PullEvent("", f"Using {reference} for short name '{text}': {why}"))
    try:
        source = _open(engine, reference, options.registry)
    except RegistryError as e:
        if here is None or policy != "newer":
            raise
        engine.warn(f"using the local image, since the registry was not reached: {e.message}")
        return _here(engine, text, here)
    pull = _Pull(engine, reference, wanted, is_asked, here, say)
    try:
        pulled = _pull_all(pull, source) if options.all_platforms else _pull_one(pull, source)
        return PulledImage(pulled, str(reference))
    finally:
        source.close()


def _here(engine: Engine, text: str, image: ImageEntry) -> PulledImage:
    """The image of the store that `text` means; where that is an id, the first of its names."""
    try:
        name = str(qualify(engine, text)[0])
    except UsageError:
        name = text
    if name not in image.names and (named := tags(image)):
        name = named[0]
    return PulledImage(image.config_digest, name)


def _open(engine: Engine, reference: Reference, options: RegistryOptions) -> RegistrySource:
    from rootless.image.distribution.registry import open_registry

    return open_registry(reference, registries(engine), registry_access(options), warn=engine.warn)


def _pull_one(pull: _Pull, source: RegistrySource) -> str:
    """Bring the image for one platform, unpacked and named, and return its id."""
    reference, here = pull.reference, pull.here
    top = digest_of(source.top()[0])
    pulled_from = str(reference.with_digest(top))
    is_fitting = here is not None and (not pull.is_asked or _fits(here.config, pull.platform))
    if here is not None and is_fitting and pulled_from in repo_digests(here):
        return here.config_digest  # The policy is "newer", and the registry's image is the one in the store
    pull.say(PullEvent("", f"{reference.tag or reference.digest}: Pulling from {reference.repository}"))
    manifest = source.manifest(pull.platform)
    store = pull.engine.store
    with store.using():
        before = store.index.resolve(str(reference))
        config = bring(pull.engine, source, manifest, pull.say, origin=reference.name)
        _check_platform(pull, config)
        _name(pull, pulled_from, manifest.descriptor)
    is_new = before is None or before.manifest_digest != manifest.digest
    pull.say(PullEvent("", f"Digest: {top}"))
    what = "Downloaded newer image" if is_new else "Image is up to date"
    pull.say(PullEvent("", f"Status: {what} for {familiar(str(reference))}"))
    return manifest.config.digest


def _pull_all(pull: _Pull, source: RegistrySource) -> str:
    """Bring all images of an index, under the index's name, and return the digest of the index."""
    from rootless.engine.transfer.bring_index import bring_all

    reference = pull.reference
    pull.say(PullEvent("", f"{reference.tag or reference.digest}: Pulling from {reference.repository}"))
    with pull.engine.store.using():
        document = bring_all(pull.engine, source, pull.say, origin=reference.name)
        _name(pull, str(reference.with_digest(document.digest)), document.descriptor)
    pull.say(PullEvent("", f"Digest: {document.digest}"))
    return document.digest


def _name(pull: _Pull, pulled_from: str, descriptor: Descriptor) -> None:
    """Write the image's names: `repository@digest` with the registry's digest, and the tag that was asked for."""
    index = pull.engine.store.index
    index.tag(pulled_from, descriptor)
    if pull.reference.digest is None:
        index.tag(str(pull.reference), descriptor)


def _fits(config: ImageConfig, wanted: Platform) -> bool:
    return best_match([config.platform], wanted) is not None


def _check_platform(pull: _Pull, config: ImageConfig) -> None:
    """Compare an image's platform with the wanted one, as one that is in no index may be for another machine.

    Raises InvalidInput where the user asked for a platform; else it warns.
    """
    if _fits(config, pull.platform) or not config.architecture:
        return
    text = f"image '{pull.reference.familiar()}' is for platform '{config.platform}', not '{pull.platform}'"
    if pull.is_asked:
        raise InvalidInput(text, hint=f"pull it with --platform {config.platform}")
    pull.engine.warn(f"{text}: it runs only with an emulator (binfmt_misc)")
