"""`cp` and `export`: files of containers."""

from __future__ import annotations

import sys

import click

from rootless import output
from rootless.cli.declaration import Session, command, complete_names, pass_session, switch_option, value_option
from rootless.engine import verbs
from rootless.errors import UsageError

_EXAMPLES = """
rootless cp web:/var/log/nginx ./logs
rootless cp site/. web:/usr/share/nginx/html/
rootless cp web:/etc - | tar -t
"""


@command(
    "cp",
    "Copy files between a container and the host",
    description="SRC and DEST are CONTAINER:PATH, a path of the host, or - for a tar stream. A directory is copied "
    "into an existing one under its name; DIR/. copies what is in it. Running containers are entered with all that is "
    "mounted in them; of stopped ones the volumes are there too.",
    examples=_EXAMPLES,
)
@switch_option(
    "-a", "--archive", help="Keep owners where possible, set-id bits, and the attributes of existing directories"
)
@switch_option("-L", "--follow-link", help="Copy what a link as SRC points to")
@switch_option("--overwrite", help="Let directories replace other files, and the reverse")
@switch_option("-q", "--quiet", help="Do not say how much was copied")
@click.argument("source", metavar="SRC", type=click.Path(allow_dash=True))
@click.argument("target", metavar="DEST", type=click.Path(allow_dash=True))
@pass_session
def cp(
    session: Session, archive: bool, follow_link: bool, overwrite: bool, quiet: bool, source: str, target: str
) -> None:
    """Copy the files, and say how many bytes they were."""
    if target == "-" and output.is_terminal(sys.stdout):
        raise UsageError("an archive is not written to a terminal", hint="redirect standard output")
    from rootless.engine.report_types import FileCopyOptions

    options = FileCopyOptions(archive, follow_link, overwrite)
    result = verbs.copy_files(session.engine, source, target, options)
    if result.lost:
        output.warn(f"{result.lost} devices were left out: an ordinary user cannot make them")
    if not quiet and target != "-" and output.is_terminal(sys.stderr):
        from rootless import units

        sys.stderr.write(output.escape(f"Successfully copied {units.human_size(result.size)} to {target}") + "\n")


@command("export", "Write a container's root file system as a tar archive")
@value_option(
    "-o", "--output", "target", metavar="FILE", type=click.Path(), help="File to write (default: standard output)"
)
@click.argument("container", shell_complete=complete_names("containers"))
@pass_session
def export(session: Session, target: str | None, container: str) -> None:
    """Write the container's whole tree as a tar to the file or to standard output."""
    if target is None and output.is_terminal(sys.stdout):
        raise UsageError(
            "an archive is not written to a terminal", hint="name a file with -o FILE, or redirect standard output"
        )
    verbs.export_container(session.engine, container, target or "-")
