"""`image copy`: an image from one place to another."""

from __future__ import annotations

import click

from rootless import output
from rootless.cli.declaration import Session, command, pass_session, switch_option, value_option
from rootless.cli.registries import (
    digestfile_option,
    format_option,
    registry_options,
    take_registry_options,
    write_digest,
)
from rootless.engine import verbs


@command(
    ("image copy", "copy"),
    "Copy an image between registries, layouts, archives and the store",
    description="SOURCE and DESTINATION are docker://NAME, oci:DIR[:TAG], oci-archive:FILE[:TAG], "
    "docker-archive:FILE[:NAME], dir:DIR, or an image of the store. Bytes are copied as they are: digests stay. "
    "Digests are verified, signatures are not: a policy.json that demands them refuses the copy.",
    examples="rootless copy docker://registry.example.org/app:1 oci:app:1\n"
    "rootless copy --all docker://a.example.org/app:1 docker://b.example.org/app:1\n"
    "rootless copy app oci-archive:app.tar",
)
@switch_option("-a", "--all", help="Copy every platform of an index, and the index")
@digestfile_option
@format_option
@value_option("--platform", metavar="OS/ARCH[/VARIANT]", help="Platform to take of an index (default: this host's)")
@switch_option("-q", "--quiet", help="Show no progress, only the digest")
@registry_options(prefix="src-", whose=" for the source")
@registry_options(prefix="dest-", whose=" for the destination")
@click.argument("source")
@click.argument("destination")
@pass_session
def copy(
    session: Session,
    /,
    all: bool,
    digestfile: str | None,
    format: str | None,
    platform: str | None,
    quiet: bool,
    source: str,
    destination: str,
    **flags: object,
) -> None:
    """Copy the image, and show the progress of its layers."""
    from rootless.cli.progress import PullProgress
    from rootless.engine.image_types import CopyOptions

    options = CopyOptions(
        all, platform, format, take_registry_options(flags, "src_"), take_registry_options(flags, "dest_")
    )
    with PullProgress(quiet=quiet) as progress:
        copied = verbs.copy_image(session.engine, source, destination, options, progress=progress.event)
    write_digest(digestfile, copied.digest)
    if quiet:
        output.line(copied.digest)
