"""The verb `pull`: reference → registry → manifest → layers → name. The name is written last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootless.engine import events
from rootless.engine.image.image_names import familiar, find, qualify, registries, registry_access, repo_digests
from rootless.engine.image_types import PullEvent, RegistryOptions
from rootless.engine.transfer.image_bring import bring
from rootless.errors import ImageNotFound, InvalidInput, RegistryError, UsageError
from rootless.image.digest import digest_of
from rootless.image.distribution.policy import check_policy
from rootless.image.manifest import Descriptor
from rootless.image.platform import best_match, host_platform, parse_platform

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.engine.context import Engine
    from rootless.image.distribution.registry import RegistrySource
    from rootless.image.manifest import ImageConfig
    from rootless.image.platform import Platform
    from rootless.image.reference import Reference
    from rootless.storage.store.index import ImageEntry

POLICIES = ("always", "missing", "never", "newer")


def pull_image(
    engine: Engine,
    text: str,
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
    if all_platforms and platform:
        raise UsageError("--platform and --all-platforms do not go together")
    if policy not in POLICIES:
        raise UsageError(f"unknown pull policy '{policy}'", hint=f"use one of: {', '.join(POLICIES)}")
    wanted = parse_platform(platform) if platform else host_platform()
    say = progress or (lambda event: None)
    options = registry or RegistryOptions()
    pulled = _by_policy(engine, text, policy, wanted, options, say, all=all_platforms, is_asked=bool(platform))
    events.record_image(engine, "pull", text, text)
    return pulled


def _by_policy(
    engine: Engine,
    text: str,
    policy: str,
    wanted: Platform,
    options: RegistryOptions,
    say: Callable[[PullEvent], None],
    *,
    all: bool,
    is_asked: bool,
) -> str:
    """The image as the policy wants it: the one that is here, or the registry's."""
    here = find(engine, text) if policy != "always" else None
    if here is not None and policy in ("missing", "never") and (not is_asked or _fits(here.config, wanted)):
        return here.config_digest
    if policy == "never":
        raise ImageNotFound(f"no such image: '{text}'", hint=f"pull it with `rootless pull {text}`")
    reference, why = qualify(engine, text)
    check_policy("docker", str(reference))
    if why:
        say(PullEvent("", f"Using {reference} for short name '{text}': {why}"))
    try:
        source = _open(engine, reference, options)
    except RegistryError as e:
        if here is None or policy != "newer":
            raise
        engine.warn(f"using the local image, since the registry was not reached: {e.message}")
        return here.config_digest
    try:
        if all:
            return _pull_all(engine, reference, source, say)
        return _pull(engine, reference, source, wanted, say, here=here, is_asked=is_asked)
    finally:
        source.close()


def _open(engine: Engine, reference: Reference, options: RegistryOptions) -> RegistrySource:
    from rootless.image.distribution.registry import open_registry

    return open_registry(reference, registries(engine), registry_access(options), warn=engine.warn)


def _pull(
    engine: Engine,
    reference: Reference,
    source: RegistrySource,
    wanted: Platform,
    say: Callable[[PullEvent], None],
    *,
    here: ImageEntry | None,
    is_asked: bool,
) -> str:
    top = digest_of(source.top()[0])
    pulled_from = str(reference.with_digest(top))
    if here is not None and pulled_from in repo_digests(here) and (not is_asked or _fits(here.config, wanted)):
        return here.config_digest  # policy "newer", and it is not
    say(PullEvent("", f"{reference.tag or reference.digest}: Pulling from {reference.repository}"))
    manifest = source.manifest(wanted)
    store = engine.store
    with store.using():
        before = store.index.resolve(str(reference))
        config = bring(
            store,
            source,
            manifest,
            say,
            origin=f"{reference.registry}/{reference.repository}",
            keep_blobs=engine.settings.keep_layer_blobs,
        )
        _check_platform(engine, reference, config, wanted, is_asked=is_asked)
        descriptor = Descriptor(manifest.media_type, manifest.digest, len(manifest.raw))
        store.index.tag(pulled_from, descriptor)
        if reference.digest is None:
            store.index.tag(str(reference), descriptor)
    is_new = before is None or before.manifest_digest != manifest.digest
    say(PullEvent("", f"Digest: {top}"))
    what = "Downloaded newer image" if is_new else "Image is up to date"
    say(PullEvent("", f"Status: {what} for {familiar(str(reference))}"))
    return manifest.config.digest


def _pull_all(engine: Engine, reference: Reference, source: RegistrySource, say: Callable[[PullEvent], None]) -> str:
    """Every platform of an index, under the index's name; the digest of what was pulled."""
    from rootless.engine.transfer.bring_index import bring_all

    say(PullEvent("", f"{reference.tag or reference.digest}: Pulling from {reference.repository}"))
    index = engine.store.index
    with engine.store.using():
        document = bring_all(engine, source, say, origin=f"{reference.registry}/{reference.repository}")
        descriptor = Descriptor(document.media_type, document.digest, len(document.raw))
        index.tag(str(reference.with_digest(document.digest)), descriptor)
        if reference.digest is None:
            index.tag(str(reference), descriptor)
    say(PullEvent("", f"Digest: {document.digest}"))
    return document.digest


def _fits(config: ImageConfig, wanted: Platform) -> bool:
    return best_match([config.platform], wanted) is not None


def _check_platform(
    engine: Engine, reference: Reference, config: ImageConfig, wanted: Platform, *, is_asked: bool
) -> None:
    """An image without an index may be for another machine: an error where a platform was asked for, else a warning."""
    if _fits(config, wanted) or not config.architecture:
        return
    text = f"image '{reference.familiar()}' is for platform '{config.platform}', not '{wanted}'"
    if is_asked:
        raise InvalidInput(text, hint=f"pull it with --platform {config.platform}")
    engine.warn(f"{text}: it runs only with an emulator (binfmt_misc)")
