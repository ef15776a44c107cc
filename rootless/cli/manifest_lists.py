"""`manifest create/add/annotate/inspect/push/rm/…`: lists of images for several platforms."""

from __future__ import annotations

import click

from rootless import output
from rootless.cli.declaration import (
    CommandRules,
    Declared,
    Session,
    command,
    complete_names,
    do_for_each,
    pass_session,
    repeated_option,
    switch_option,
    value_option,
)
from rootless.cli.registries import (
    compression_options,
    digestfile_option,
    format_option,
    registry_options,
    take_registry_options,
    write_digest,
)
from rootless.engine import verbs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.engine.image_types import EntryDetails

_LIST = click.argument("name", metavar="LIST", shell_complete=complete_names("images"))
_QUIET = switch_option("-q", "--quiet", help="Show no progress, only the result")


def _details_options(function: Declared) -> Declared:
    """Declare the options for what an entry of a list says about its image."""
    for option in reversed(
        (
            repeated_option("--annotation", metavar="KEY=VALUE", help="Annotation of the entry"),
            value_option("--arch", metavar="NAME", default="", help="Architecture, for example arm64"),
            repeated_option("--features", metavar="NAME", help="Feature of the processor"),
            value_option("--os", metavar="NAME", default="", help="Operating system"),
            repeated_option("--os-features", metavar="NAME", help="Feature of the operating system"),
            value_option("--os-version", metavar="TEXT", default="", help="Version of the operating system"),
            value_option("--variant", metavar="NAME", default="", help="Variant of the architecture, for example v7"),
        )
    ):
        function = option(function)
    return function


def _pairs(values: Sequence[str]) -> dict[str, str]:
    from rootless.errors import UsageError

    pairs = dict(value.partition("=")[::2] for value in values)
    if not all(pairs):
        raise UsageError("an annotation is KEY=VALUE")
    return pairs


def _take_details(flags: dict[str, object], annotations: Sequence[str]) -> EntryDetails:
    """What the options of `_details_options` say; their values are taken out of `flags`, but for the annotations.

    Raises UsageError for an annotation that is no KEY=VALUE.
    """
    from rootless.engine.image_types import EntryDetails

    names = ("os", "arch", "variant", "os_version", "os_features", "features")
    return EntryDetails._make([*(flags.pop(name) for name in names), tuple(_pairs(annotations).items())])


@command(
    "create",
    "Create a list of images, one per platform",
    examples="rootless manifest create app:1 app:amd64 docker://registry.example.org/app:arm64",
)
@switch_option("--all", help="Of an image that is an index: add every platform")
@switch_option("-a", "--amend", help="Add to a list that exists")
@repeated_option("--annotation", metavar="KEY=VALUE", help="Annotation of the list")
@_QUIET
@registry_options()
@_LIST
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@pass_session
def create(
    session: Session,
    /,
    all: bool,
    amend: bool,
    annotation: tuple[str, ...],
    quiet: bool,
    name: str,
    images: tuple[str, ...],
    **flags: object,
) -> None:
    """Make a list, and print its digest."""
    import sys

    from rootless.cli.progress import PullProgress
    from rootless.engine.image_types import EntryOptions, ListOptions

    options = ListOptions(amend, _pairs(annotation), EntryOptions(all=all, registry=take_registry_options(flags)))
    with PullProgress(sys.stderr, quiet=quiet or not output.is_terminal(sys.stderr)) as progress:
        digest = verbs.create_manifest(session.engine, name, images, options, progress=progress.event)
    output.line(digest)


@command(
    "add",
    "Add an image to a list",
    description="IMAGE is one of the store, docker://NAME, or another place that `copy` knows; it is brought here.",
)
@switch_option("--all", help="Of an image that is an index: add every platform")
@_details_options
@_QUIET
@registry_options()
@_LIST
@click.argument("image", shell_complete=complete_names("images"))
@pass_session
def add(
    session: Session, /, all: bool, annotation: tuple[str, ...], quiet: bool, name: str, image: str, **flags: object
) -> None:
    """Add one image, and print the list's digest."""
    import sys

    from rootless.cli.progress import PullProgress
    from rootless.engine.image_types import EntryOptions

    options = EntryOptions(_take_details(flags, annotation), all, take_registry_options(flags))
    with PullProgress(sys.stderr, quiet=quiet or not output.is_terminal(sys.stderr)) as progress:
        output.line(verbs.add_to_manifest(session.engine, name, image, options, progress=progress.event))


@command("annotate", "Change what a list says of one of its images, or of itself")
@_details_options
@switch_option("--index", help="Write the annotations into the list itself; no ENTRY then")
@_LIST
@click.argument("entry", required=False, metavar="[ENTRY]")
@pass_session
def annotate(
    session: Session, /, annotation: tuple[str, ...], index: bool, name: str, entry: str | None, **flags: object
) -> None:
    """Change one entry (a digest or an image of the store) or the list itself, and print the list's digest."""
    from rootless.errors import UsageError

    if index == (entry is not None):
        raise UsageError("name one entry of the list, by digest or image, or use --index")
    output.line(
        verbs.annotate_manifest(session.engine, name, entry or "", _take_details(flags, annotation), whole=index)
    )


@command("remove", "Take an image out of a list")
@_LIST
@click.argument("entry", metavar="ENTRY")
@pass_session
def remove(session: Session, /, name: str, entry: str) -> None:
    """Take one entry away, and print the list's digest."""

    output.line(verbs.remove_from_manifest(session.engine, name, entry))


@command(
    "inspect",
    "Display a list or a manifest",
    description="What is not in the store is asked of its registry.",
)
@registry_options()
@click.argument("name", metavar="NAME", shell_complete=complete_names("images"))
@pass_session
def inspect(session: Session, /, name: str, **flags: object) -> None:
    """Print the list or manifest as JSON."""

    output.line(output.json_text(verbs.inspect_manifest(session.engine, name, take_registry_options(flags))))


@command("exists", "Tell by the exit code whether a list exists", rules=CommandRules(own_error=125))
@_LIST
@pass_session
def exists(session: Session, /, name: str) -> int:
    """Return 0 when the list exists, else 1."""

    return 0 if verbs.manifest_exists(session.engine, name) else 1


@command("rm", "Remove lists")
@click.argument("names", nargs=-1, required=True, metavar="LIST...", shell_complete=complete_names("images"))
@pass_session
def rm(session: Session, /, names: tuple[str, ...]) -> int:
    """Remove each list from the store; its images stay."""

    return do_for_each(names, lambda name: f"Deleted: {verbs.remove_manifest(session.engine, name)}")


@command("push", "Upload a list and its images to a registry")
@switch_option("--all", default=True, help="Push the images too (default true); false: only this host's image")
@compression_options
@digestfile_option
@format_option
@_QUIET
@switch_option("--rm", "remove_after", help="Remove the list here when it is pushed")
@registry_options()
@_LIST
@click.argument("destination", required=False, metavar="[DESTINATION]")
@pass_session
def push(
    session: Session,
    /,
    all: bool,
    compression: str | None,
    compression_level: int | None,
    digestfile: str | None,
    format: str | None,
    quiet: bool,
    remove_after: bool,
    name: str,
    destination: str | None,
    **flags: object,
) -> None:
    """Upload the list, and its images unless --all=false."""
    from rootless.cli.progress import PullProgress
    from rootless.engine.image_types import PushOptions

    options = PushOptions(format, compression, compression_level, all, registry=take_registry_options(flags))
    with PullProgress(quiet=quiet) as progress:
        pushed = verbs.push_manifest(session.engine, name, destination, options, progress=progress.event)
    write_digest(digestfile, pushed.digest)
    if remove_after:
        verbs.remove_manifest(session.engine, name)
    output.line(pushed.digest)
