"""`pull`, `import`, `load`, `save` and `bootstrap`: images come and go."""

from __future__ import annotations

import sys
from typing import BinaryIO

import click

from rootless import output
from rootless.cli.declaration import (
    Session,
    command,
    complete_names,
    pass_session,
    repeated_option,
    switch_option,
    value_option,
)
from rootless.cli.registries import registry_options, take_registry_options
from rootless.engine import verbs
from rootless.errors import NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.image_types import PullOptions

_PULL_EXAMPLES = """
rootless pull debian
rootless pull --platform linux/arm64 ghcr.io/owner/name:1.2
rootless pull --tls-verify=false localhost:5000/name@sha256:...
"""
_MOST_TAGS = 100_000
_QUIET = switch_option("-q", "--quiet", help="Show no progress, only the result")
_PLATFORM = value_option("--platform", metavar="OS/ARCH[/VARIANT]", help="Platform of the image (default: this host's)")


@command(
    ("image pull", "pull"),
    "Download an image from a registry",
    description="Digests are verified. Signatures are not: a policy.json that demands them refuses the image.",
    examples=_PULL_EXAMPLES,
)
@switch_option("-a", "--all-tags", help="Download every tag of the repository")
@switch_option("--all-platforms", help="Bring every platform of an index; those of other hosts are not unpacked")
@_PLATFORM
@click.option(
    "--policy",
    type=click.Choice(["always", "missing", "never", "newer"]),
    default="always",
    show_default=True,
    help="When to ask the registry",
)
@_QUIET
@registry_options()
@click.argument("image")
@pass_session
def pull(
    session: Session,
    /,
    all_tags: bool,
    all_platforms: bool,
    platform: str | None,
    policy: str,
    quiet: bool,
    image: str,
    **flags: object,
) -> None:
    """Pull an image, or every tag of a repository, and print their full names."""
    from rootless.cli.progress import PullProgress
    from rootless.engine.image_types import PullOptions

    options = PullOptions(platform, policy, all_platforms, take_registry_options(flags))
    images = _every_tag(session, image, options) if all_tags else [image]
    pulled = []
    with PullProgress(quiet=quiet) as progress:
        for each in images:
            found = verbs.pull_image(session.engine, each, options, progress=progress.event)
            pulled.append(each if all_platforms else found.name)
    for name in pulled:
        output.line(name)


def _every_tag(session: Session, image: str, options: PullOptions) -> list[str]:
    """The names of all tags of the repository `image` in its registry. Raises UsageError for a name with a tag."""
    from rootless.image.reference import parse_reference

    if parse_reference(image, default_tag=None).tag or "@" in image:
        raise UsageError("tag can't be used with --all-tags/-a", hint="name the repository alone")
    tags = verbs.list_registry_tags(session.engine, image, limit=_MOST_TAGS, options=options.registry)
    if not tags:
        raise NotFound(f"the repository '{image}' has no tags")
    return [f"{each.name}:{each.tag}" for each in tags]


@command(
    ("image import", "import"),
    "Make an image of a root file system tarball",
    description="FILE is a tar, plain or compressed with gzip, zstd, xz or bzip2; - reads standard input.",
)
@repeated_option(
    "-c", "--change", metavar="LINE", help="Apply a Dockerfile line: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, ..."
)
@value_option("-m", "--message", metavar="TEXT", default="", help="Comment in the image's history")
@_PLATFORM
@click.argument("file", type=click.Path(allow_dash=True))
@click.argument("name", required=False, metavar="[NAME[:TAG]]")
@pass_session
def import_(
    session: Session, change: tuple[str, ...], message: str, platform: str | None, file: str, name: str | None
) -> None:
    """Make an image of one tar, and print its id."""
    from rootless.cli.progress import PullProgress
    from rootless.engine.image_types import ImportOptions

    with PullProgress(sys.stderr, quiet=not output.is_terminal(sys.stderr)) as progress:
        options = ImportOptions(change, message, platform)
        image = verbs.import_image(session.engine, file, name, options, progress=progress.event)
    output.line(image)


@command(
    ("image load", "load"),
    "Load images from an archive or a layout directory",
    description="Takes docker-archive and oci-archive files, compressed or not, and OCI layout directories.",
)
@value_option("-i", "--input", metavar="PATH", type=click.Path(), help="Archive or directory (default: standard input)")
@_PLATFORM
@_QUIET
@pass_session
def load(session: Session, input: str | None, platform: str | None, quiet: bool) -> None:
    """Store every image of an archive, and print its names, or its id where it has none."""
    from rootless.cli.progress import PullProgress

    if input is None and output.is_terminal(sys.stdin):
        raise UsageError(
            "an archive is not read from a terminal", hint="give it with -i FILE, or redirect standard input"
        )
    # As with docker, a program that reads the names finds nothing else on standard output
    with PullProgress(quiet=quiet or not output.is_terminal(sys.stdout)) as progress:
        loaded = verbs.load_images(session.engine, input or "-", platform=platform, progress=progress.event)
    for image in loaded:
        for name, old in image.replaced:
            output.line(f"The image {name} already exists, renaming the old one with ID {old} to empty string")
        for name in image.names:
            output.line(f"Loaded image: {name}")
        if not image.names:
            output.line(f"Loaded image ID: {image.id}")


_SAVE_EXAMPLES = """
rootless save -o debian.tar debian:12
rootless save --compression zstd debian:12 alpine | ssh host rootless load
rootless save --format oci-dir -o layout/ debian:12
"""


@command(
    ("image save", "save"),
    "Save images to an archive",
    examples=_SAVE_EXAMPLES,
)
@click.option(
    "--compression",
    type=click.Choice(["gzip", "zstd", "none"]),
    help="Compress the whole docker-archive, or in OCI formats each layer anew (default: layers as they were)",
)
@click.option(
    "--compression-level", type=int, metavar="N", help="How hard to compress: 1 to 9 for gzip, 1 to 22 for zstd"
)
@_PLATFORM
@value_option(
    "-o", "--output", "target", metavar="PATH", type=click.Path(), help="File or directory (default: standard output)"
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["docker-archive", "oci-archive", "oci-dir"]),
    default="docker-archive",
    show_default=True,
    help="What to write",
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", shell_complete=complete_names("images"))
@pass_session
def save(
    session: Session,
    platform: str | None,
    target: str | None,
    compression: str | None,
    compression_level: int | None,
    form: str,
    images: tuple[str, ...],
) -> None:
    """Write images to a file or to standard output."""
    if target is None and form == "oci-dir":
        raise UsageError("a layout directory cannot go to standard output", hint="name it with -o DIRECTORY")
    if target is None and output.is_terminal(sys.stdout):
        raise UsageError(
            "an archive is not written to a terminal", hint="name a file with -o FILE, or redirect standard output"
        )
    sink: str | BinaryIO = sys.stdout.buffer if target is None else target
    if compression_level is not None and compression is None:
        raise UsageError("--compression-level needs --compression")
    from rootless.engine.image_types import SaveOptions

    options = SaveOptions(form, compression, compression_level, platform=platform)
    verbs.save_images(session.engine, images, sink, options=options)


@command(
    "bootstrap",
    "Make a base image without a registry: busybox or debian",
    description="busybox is the host's static busybox; debian[:suite] is made by mmdebstrap from Debian's archive.",
    examples="rootless image bootstrap busybox\nrootless image bootstrap debian:bookworm",
)
@value_option("--mirror", metavar="URL", help="Debian archive to use (default: the host's apt sources)")
@_QUIET
@value_option("-t", "--tag", metavar="NAME[:TAG]", help="Name of the image (default: what was asked for)")
@click.argument("what", metavar="busybox|debian[:SUITE]")
@pass_session
def bootstrap(session: Session, mirror: str | None, quiet: bool, tag: str | None, what: str) -> None:
    """Make a base image, and print its id."""
    from rootless.cli.progress import PullProgress

    with PullProgress(sys.stderr, quiet=quiet) as progress:
        image = verbs.bootstrap_image(session.engine, what, tag=tag, mirror=mirror, progress=progress.event)
    output.line(image)
