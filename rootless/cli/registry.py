"""What has to do with registries: `push`, `login`, `logout` and `search`; and the flags that say how to reach one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from rootless import output
from rootless.cli import complete
from rootless.cli.command import Declared, Option, Session, command, pass_session, switch, text

if TYPE_CHECKING:
    from rootless.engine.images import RegistryOptions

_PUSH_EXAMPLES = """
rootless push registry.example.org/team/app:1.2
rootless push app registry.example.org/team/app:1.2
rootless push --compression zstd --digestfile digest app localhost:5000/app
"""


def registry_options(*, prefix: str = "", whose: str = "") -> Callable[[Declared], Declared]:
    """Declare --authfile, --cert-dir, --creds, --tls-verify. prefix: `src-` or `dest-`; whose: words for the help."""
    name = prefix.replace("-", "_")

    def declare(function: Declared) -> Declared:
        for option in reversed(
            (
                text(
                    f"--{prefix}authfile",
                    f"{name}authfile",
                    metavar="FILE",
                    help=f"Credentials{whose}, in the form of docker's config.json",
                ),
                text(
                    f"--{prefix}cert-dir",
                    f"{name}cert_dir",
                    metavar="DIR",
                    help=f"Directory with certificates{whose}: *.crt, *.cert, *.key",
                ),
                text(
                    f"--{prefix}creds",
                    f"{name}creds",
                    metavar="USER[:PASSWORD]",
                    help=f"Credentials{whose}; without a password it is asked for",
                ),
                click.option(
                    f"--{prefix}tls-verify",
                    f"{name}tls_verify",
                    cls=Option,
                    is_flag=True,
                    flag_value=True,
                    default=None,
                    help=f"Check the registry's certificate{whose} (default true); false allows plain HTTP too",
                ),
            )
        ):
            function = option(function)
        return function

    return declare


def registry_of(flags: dict[str, Any], prefix: str = "") -> RegistryOptions:
    """Take the values of `registry_options` out of `flags`."""
    from rootless.engine.images import RegistryOptions

    authfile, cert_dir, creds, tls_verify = (
        flags.pop(f"{prefix}{name}") for name in ("authfile", "cert_dir", "creds", "tls_verify")
    )
    if creds and ":" not in creds:
        creds = f"{creds}:{click.prompt('Password', hide_input=True, err=True)}"
    return RegistryOptions(tls_verify=tls_verify, authfile=authfile, credentials=creds or None, certificates=cert_dir)


def compression_options(function: Declared) -> Declared:
    """Declare --compression and --compression-level."""
    function = text(
        "--compression-level",
        metavar="N",
        type=int,
        help="Level: 1 to 9 for gzip, 1 to 22 for zstd (default: a fast one)",
    )(function)
    return click.option(
        "--compression",
        "--compression-format",
        "compression",
        type=click.Choice(["gzip", "zstd", "none"]),
        help="Compress every layer so (default: as they are, and gzip for those that are not compressed)",
    )(function)


format_option = click.option(
    "-f", "--format", type=click.Choice(["oci", "v2s2"]), help="Media types of the manifest (default: as the image has)"
)
digestfile_option = text("--digestfile", metavar="FILE", help="Write the digest that the registry has to FILE")


def write_digest(path: str | None, digest: str) -> None:
    """Do what --digestfile says. Raises HostLimit."""
    if path is None:
        return
    from rootless.errors import HostLimit

    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(digest)
    except OSError as e:
        raise HostLimit(f"cannot write '{path}': {e.strerror}") from e


@command(
    "push",
    "Upload an image to a registry",
    description="Layers that the registry has are not sent; those that another of its repositories has are mounted. An "
    "image goes to where its name says, or to DESTINATION.",
    examples=_PUSH_EXAMPLES,
)
@switch("--all", "all", help="Push every platform of an index, and the index")
@switch("-a", "--all-tags", help="Push every tag of the repository that IMAGE names")
@text("--chunk-size", metavar="SIZE", help="Send at most SIZE per request (default: a layer in one stream)")
@compression_options
@digestfile_option
@format_option
@switch("-q", "--quiet", help="Show no progress, only the result")
@registry_options()
@click.argument("image", shell_complete=complete.images)
@click.argument("destination", required=False, metavar="[DESTINATION]")
@pass_session
def push(
    session: Session,
    /,
    all: bool,
    all_tags: bool,
    chunk_size: str | None,
    compression: str | None,
    compression_level: int | None,
    digestfile: str | None,
    format: str | None,
    quiet: bool,
    image: str,
    destination: str | None,
    **flags: Any,
) -> None:
    """Upload."""
    from rootless.cli.progress import PullProgress
    from rootless.engine.durations import parse_size
    from rootless.engine.push import PushOptions
    from rootless.errors import UsageError

    registry = registry_of(flags)
    chunk = parse_size(chunk_size, "--chunk-size") if chunk_size else None
    if chunk is not None and chunk < 1:
        raise UsageError("--chunk-size must be at least one byte")
    options = PushOptions(format, compression, compression_level, all, chunk)
    if all_tags and destination:
        raise UsageError("--all-tags and a destination do not go together")
    names = session.engine.images.tags_of(image) if all_tags else [image]
    with PullProgress(quiet=quiet) as progress:
        for name in names:
            pushed = session.engine.images.push(
                name, destination, options=options, registry=registry, progress=progress.event
            )
            write_digest(digestfile, pushed.digest)
            if quiet:
                output.line(pushed.name)
