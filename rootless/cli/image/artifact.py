"""`image attach` and `image referrers`: artifacts beside an image in its registry."""

from __future__ import annotations

import click

from rootless import output
from rootless.cli.declaration import Session, command, pass_session, repeated_option, switch_option, value_option
from rootless.cli.registries import registry_options, take_registry_options
from rootless.cli.run_flags import format_option
from rootless.engine import verbs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.image.distribution.referrers import Referrer

_PLATFORM = value_option(
    "--platform", metavar="OS/ARCH[/VARIANT]", help="Of an index: mean the image for this platform"
)


@command(
    "attach",
    "Attach files to an image in its registry, as an artifact that refers to it",
    description="FILE is PATH[:MEDIATYPE]. The artifact is found by `image referrers`; a registry without an interface "
    "for that gets the tag that the specification names instead.",
    examples="rootless image attach --artifact-type application/spdx+json registry.example.org/app:1 "
    "sbom.json:application/spdx+json",
)
@repeated_option("--annotation", metavar="KEY=VALUE", help="Annotation of the artifact")
@value_option("--artifact-type", metavar="TYPE", default="", help="What the artifact is, as a media type")
@_PLATFORM
@registry_options()
@click.argument("image")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@pass_session
def attach(
    session: Session,
    /,
    annotation: tuple[str, ...],
    artifact_type: str,
    platform: str | None,
    image: str,
    files: tuple[str, ...],
    **flags: object,
) -> None:
    """Push the artifact, and print its name by digest."""
    from rootless.engine.image_types import ArtifactOptions
    from rootless.errors import UsageError

    pairs = dict(value.partition("=")[::2] for value in annotation)
    if not all(pairs):
        raise UsageError("an annotation is KEY=VALUE")
    options = ArtifactOptions(artifact_type, pairs, platform, take_registry_options(flags))
    output.line(verbs.attach_artifact(session.engine, image, files, options).name)


@command("referrers", "List the artifacts that refer to an image in its registry")
@value_option("--artifact-type", metavar="TYPE", default="", help="Show only artifacts of this type")
@format_option
@_PLATFORM
@switch_option("-q", "--quiet", help="Only print digests")
@registry_options()
@click.argument("image")
@pass_session
def referrers(
    session: Session,
    /,
    artifact_type: str,
    format: str | None,
    platform: str | None,
    quiet: bool,
    image: str,
    **flags: object,
) -> None:
    """Print one line per artifact."""
    from rootless import units
    from rootless.cli.table import Column, Layout

    found = verbs.image_referrers(
        session.engine, image, artifact_type=artifact_type, platform=platform, registry=take_registry_options(flags)
    )
    columns: list[Column[Referrer]] = [
        Column("Annotations", "ANNOTATIONS", lambda row: ",".join(f"{k}={v}" for k, v in row.annotations.items())),
        Column("ArtifactType", "ARTIFACT TYPE", lambda row: row.artifact_type),
        Column("Digest", "DIGEST", lambda row: row.digest),
        Column("MediaType", "MEDIA TYPE", lambda row: row.media_type),
        Column("Size", "SIZE", lambda row: units.human_size(row.size)),
    ]
    Layout(columns, ["Digest", "ArtifactType", "Size"], quiet="Digest").print(found, format=format, quiet=quiet)
