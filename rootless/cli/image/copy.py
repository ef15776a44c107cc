"""`image copy`: an image from one place to another."""

from __future__ import annotations

from typing import Any

import click

from rootless import output
from rootless.cli.declaration import Session, command, pass_session, switch, text
from rootless.cli.registries import digestfile_option, format_option, registry_of, registry_options, write_digest
from rootless.engine import verbs


@command(
    "copy",
    "Copy an image between registries, layouts, archives and the store",
    places=(
        "image copy",
        "copy",
    ),
    description="SOURCE and DESTINATION are docker://NAME, oci:DIR[:TAG], oci-archive:FILE[:TAG], "
    "docker-archive:FILE[:NAME], dir:DIR, or an image of the store. Bytes are copied as they are: digests stay. "
    "Digests are verified, signatures are not: a policy.json that demands them refuses the copy.",
    examples="rootless copy docker://registry.example.org/app:1 oci:app:1\n"
    "rootless copy --all docker://a.example.org/app:1 docker://b.example.org/app:1\n"
    "rootless copy app oci-archive:app.tar",
)
@switch("-a", "--all", help="Copy every platform of an index, and the index")
@digestfile_option
@format_option
@text("--platform", metavar="OS/ARCH[/VARIANT]", help="Platform to take of an index (default: this host's)")
@switch("-q", "--quiet", help="Show no progress, only the digest")
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
    **flags: Any,
) -> None:
    """Copy."""
    from rootless.cli.progress import PullProgress
    from rootless.engine.image_types import CopyOptions

    options = CopyOptions(all, platform, format, registry_of(flags, "src_"), registry_of(flags, "dest_"))
    with PullProgress(quiet=quiet) as progress:
        copied = verbs.copy_image(session.engine, source, destination, options, progress=progress.event)
    write_digest(digestfile, copied.digest)
    if quiet:
        output.line(copied.digest)
