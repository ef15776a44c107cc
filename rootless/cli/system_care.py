"""`system df`, `system check` and `system reset`: what the store takes, whether it is whole, and its end."""

from __future__ import annotations

import sys
from typing import NamedTuple

import click

from rootless import output
from rootless.cli.declaration import Session, command, pass_session, switch_option, value_option
from rootless.cli.run_flags import confirm
from rootless.engine import verbs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.cli.table import Layout
    from rootless.engine.report_types import CheckResult, DiskUsage, ImageUsage, StoreFinding


@command(
    "df",
    "Show disk usage",
    description="Bytes are those really allocated on disk; what several images share counts once.",
    examples="rootless system df\nrootless system df -v\nrootless system df --format '{{.Type}}: {{.Size}}'",
)
@value_option("--format", metavar="FORMAT", help="'json', 'table' with a template, or a Go template of fields")
@switch_option("-v", "--verbose", help="List every image, container, volume and build step")
@pass_session
def df(session: Session, format: str | None, verbose: bool) -> None:
    """Print how many bytes images, containers, volumes and the build cache take."""
    usage = verbs.disk_usage(session.engine)
    if verbose and format == "json":
        output.line(output.json_text(_document(usage), indent=None))
    elif verbose and not format:
        _print_all(usage)
    else:
        _layout().print(_rows(usage), format=format, quiet=False)


class _UsageRow(NamedTuple):
    """One kind of object in `df`: how many there are and are in use, and their bytes."""

    kind: str
    total: int
    active: int
    size: int
    reclaimable: int


def _rows(usage: DiskUsage) -> list[_UsageRow]:
    images, containers, volumes = usage.images, usage.containers, usage.volumes
    live = [each.size for each in containers if each.status in ("running", "paused", "restarting")]
    mounted = [each.size for each in volumes if each.links]
    needed = sum(each.is_needed for each in usage.cache)
    used_images = sum(bool(each.containers) for each in images)
    rows = [
        _UsageRow("Images", len(images), used_images, usage.images_size, usage.images_free),
        _sum("Containers", [each.size for each in containers], live),
        _sum("Local Volumes", [each.size for each in volumes], mounted),
        _UsageRow("Build Cache", len(usage.cache), needed, usage.cache_size, usage.cache_size),
    ]
    if usage.copies:
        rows.append(_sum("Id Map Copies", [c.size for c in usage.copies], [c.size for c in usage.copies if c.is_used]))
    if usage.leftovers:
        rows.append(_UsageRow("Leftovers", 0, 0, usage.leftovers, usage.leftovers))
    return rows


def _sum(kind: str, sizes: Sequence[int], active: Sequence[int]) -> _UsageRow:
    return _UsageRow(kind, len(sizes), len(active), sum(sizes), sum(sizes) - sum(active))


def _layout() -> Layout[_UsageRow]:
    from rootless import units
    from rootless.cli.table import Column, Layout

    def reclaimable(row: _UsageRow) -> str:
        free = units.human_size(row.reclaimable)
        return f"{free} ({100 * row.reclaimable // row.size}%)" if row.size else free

    columns: list[Column[_UsageRow]] = [
        Column("Active", "ACTIVE", lambda row: str(row.active)),
        Column("Reclaimable", "RECLAIMABLE", reclaimable),
        Column("Size", "SIZE", lambda row: units.human_size(row.size)),
        Column("TotalCount", "TOTAL", lambda row: str(row.total)),
        Column("Type", "TYPE", lambda row: row.kind),
    ]
    return Layout(columns, ["Type", "TotalCount", "Active", "Size", "Reclaimable"], quiet="Type")


def _print_all(usage: DiskUsage) -> None:
    """Print a table for each kind of object, as `docker system df -v` does."""
    from rootless import units
    from rootless.cli.table import short_id

    def names(image: ImageUsage) -> tuple[str, str]:
        name = image.names[0] if image.names else ""
        head, _, tag = name.rpartition(":")
        return (head, tag) if head else (name or "<none>", "<none>")

    tables: list[tuple[str, list[str], list[list[str]]]] = [
        (
            "Images space usage:",
            ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"],
            [
                [*names(i), short_id(i.id), units.human_age(i.created), units.human_size(i.size),
                 units.human_size(i.shared), units.human_size(i.unique), str(i.containers)]
                for i in usage.images
            ],
        ),
        (
            "Containers space usage:",
            ["CONTAINER ID", "IMAGE", "SIZE", "CREATED", "STATUS", "NAMES"],
            [
                [c.id[:12], c.image, units.human_size(c.size), units.human_age(c.created), c.status, c.name]
                for c in usage.containers
            ],
        ),
        (
            "Local Volumes space usage:",
            ["VOLUME NAME", "LINKS", "SIZE"],
            [[v.name, str(v.links), units.human_size(v.size)] for v in usage.volumes],
        ),
        (
            f"Build cache usage: {units.human_size(usage.cache_size)}",
            ["CACHE ID", "STEP", "SIZE", "CREATED", "LAST USED", "IN USE"],
            [
                [c.key[:12], c.description[:50], units.human_size(c.size), units.human_age(c.created),
                 units.human_age(c.used), "true" if c.is_needed else "false"]
                for c in usage.cache
            ],
        ),
    ]  # fmt: skip
    for title, headings, rows in tables:
        output.line(f"{title}\n")
        _print_table([headings, *rows])
        output.line()
    if usage.copies:
        output.line("Copies of layers for other id maps (--userns=keep-id, --uidmap):\n")
        headings = ["LAYER", "ID MAP", "SIZE", "IN USE"]
        shown = [
            [short_id(c.layer), c.id_map, units.human_size(c.size), "true" if c.is_used else "false"]
            for c in usage.copies
        ]
        _print_table([headings, *shown])
        output.line()
    if usage.leftovers:
        output.line(f"Leftovers of interrupted commands: {units.human_size(usage.leftovers)}\n")
    output.line(f"All together: {units.human_size(usage.total)}")


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        output.line("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _document(usage: DiskUsage) -> dict[str, object]:
    return {
        "Images": [
            {"ID": i.id, "Names": list(i.names), "Created": i.created, "Size": i.size, "SharedSize": i.shared,
             "UniqueSize": i.unique, "Containers": i.containers}
            for i in usage.images
        ],
        "Containers": [
            {"ID": c.id, "Name": c.name, "Image": c.image, "Created": c.created, "Status": c.status, "Size": c.size}
            for c in usage.containers
        ],
        "Volumes": [{"Name": v.name, "Links": v.links, "Size": v.size} for v in usage.volumes],
        "BuildCache": [
            {"ID": c.key, "Description": c.description, "Created": c.created, "LastUsed": c.used, "Size": c.size,
             "InUse": c.is_needed}
            for c in usage.cache
        ],
        "IdMapCopies": [
            {"Layer": c.layer, "IDMap": c.id_map, "Size": c.size, "InUse": c.is_used} for c in usage.copies
        ],
        "ImagesSize": usage.images_size,
        "BuildCacheSize": usage.cache_size,
        "Leftovers": usage.leftovers,
        "Total": usage.total,
    }  # fmt: skip


@command(
    "check",
    "Verify everything in the store, and repair what can be",
    description="Reads every blob and compares every layer's tree with its archive: content, owners, modes, times, "
    "extended attributes. Also: names, records, containers, volumes, and what nothing needs. The exit code is 1 when "
    "damage is left. With --repair, damaged layers and blobs go into quarantine (which `system prune` empties) and are "
    "made or fetched again; containers that run keep what they have.",
    examples="rootless system check --quick\nrootless system check --repair",
)
@click.option(
    "--format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print it"
)
@switch_option("--quick", help="Do not read content: only what is there, and sizes")
@switch_option("--repair", help="Put right what can be")
@pass_session
def check(session: Session, format: str, quick: bool, repair: bool) -> int:
    """Print every damage that was found, and what was repaired."""

    def say(what: str) -> None:
        if output.is_terminal(sys.stderr):
            output.raw(f"\r\x1b[Kchecking {what}", sys.stderr)

    checked = verbs.check_store(session.engine, repair=repair, quick=quick, progress=say)
    if output.is_terminal(sys.stderr):
        output.raw("\r\x1b[K", sys.stderr)
    if format == "json":
        document = {**checked._asdict(), "findings": [each._asdict() for each in checked.findings]}
        output.line(output.json_text({**document, "sound": checked.is_sound}))
    else:
        _print_checked(checked, quick=quick)
    return 0 if checked.is_sound else 1


def _print_checked(checked: CheckResult, *, quick: bool) -> None:
    for finding in checked.findings:
        _print_finding(finding)
    counts = (
        (checked.blobs, "blobs"),
        (checked.layers, "layers"),
        (checked.images, "images"),
        (checked.containers, "containers"),
        (checked.volumes, "volumes"),
    )
    looked = ", ".join(f"{count} {what}" for count, what in counts)
    damages = sum(each.is_damage and not each.repaired for each in checked.findings)
    repaired = sum(each.is_damage and bool(each.repaired) for each in checked.findings)
    result = "everything is whole" if not damages and not repaired else f"{damages} damaged"
    output.line(
        f"{looked}: {result}{f', {repaired} repaired' if repaired else ''}{' (content was not read)' if quick else ''}"
    )


def _print_finding(finding: StoreFinding) -> None:
    number = finding.id[7:19] if finding.id.startswith("sha256:") else finding.id
    subject = f"{finding.kind} {number}: " if number else ""
    done = f" — {finding.repaired}" if finding.repaired else ""
    output.line(f"{subject}{finding.text}{done}")
    for detail in finding.details[:10]:
        output.line(f"    {detail}")
    if len(finding.details) > 10:
        output.line(f"    ... and {len(finding.details) - 10} more")


@command(
    "reset",
    "Remove everything: containers, images, volumes, caches",
    description="The store is empty afterwards, files of mapped ids are removed too. Settings and credentials stay.",
)
@switch_option("-f", "--force", help="Do not ask, and kill containers that run")
@pass_session
def reset(session: Session, force: bool) -> None:
    """Ask, then remove everything that the store keeps."""
    root = session.engine.store.root
    question = (
        "This will remove:\n  - all containers\n  - all images\n  - all volumes, with what is in them\n"
        f"  - all caches\nand everything else that the store keeps in '{root}'.\n"
    )
    if confirm(question, force=force):
        verbs.reset_store(session.engine, force=force)
