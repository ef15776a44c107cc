"""`cdi list` and `validate`."""

from __future__ import annotations

import click

from rootless import output
from rootless.cli.declaration import Session, command, pass_session, switch_option
from rootless.cli.run_flags import format_option, no_heading_option_short
from rootless.engine import verbs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.report_types import CdiDevice


@command(
    "list",
    "List the devices that --device VENDOR/CLASS=NAME can name",
    description="They are described by CDI specifications in /etc/cdi, /var/run/cdi and ~/.config/cdi, or in the "
    "directories of the setting cdi_spec_dirs. A later directory wins over an earlier one.",
)
@format_option
@no_heading_option_short
@switch_option("-q", "--quiet", help="Only print names")
@pass_session
def list_(session: Session, format: str | None, noheading: bool, quiet: bool) -> None:
    """Print one line per device."""
    from rootless.cli.table import Column, Layout

    columns: list[Column[CdiDevice]] = [
        Column("Name", "DEVICE", lambda row: row.name),
        Column("File", "FILE", lambda row: row.file),
    ]
    layout = Layout(columns, ["Name", "File"], quiet="Name")
    layout.print(verbs.list_cdi_devices(session.engine), format=format, quiet=quiet, headings=not noheading)


@command(
    "validate",
    "Check CDI specifications",
    description="Without FILE, all that 'cdi list' reads are checked. The exit code is 1 when one is wrong.",
)
@click.argument("files", nargs=-1, metavar="[FILE...]")
@pass_session
def validate(session: Session, files: tuple[str, ...]) -> int:
    """Print one line per file: what it describes, or as an error what is wrong."""
    code = 0
    for checked in verbs.check_cdi_files(session.engine, files):
        if checked.error is not None:
            output.error(str(checked.error))
            code = 1
        else:
            noun = "device" if checked.devices == 1 else "devices"
            output.line(f"{checked.path}: {checked.devices} {noun} {checked.kind}")
    return code
