"""`build` and `builder prune`: flags to the build's options, its events to the terminal."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from rootless import output
from rootless.cli.declaration import Session, command, many, pass_session, switch, text
from rootless.engine import verbs
from rootless.network.modes import list_choices

_EXAMPLES = """
rootless build -t app .
rootless build -f docker/Dockerfile --target test --build-arg VERSION=1.2 .
rootless build --secret id=token,src=token.txt -o type=local,dest=out .
rootless build --debug-shell .
"""
_DESCRIPTION = """The context is a directory, a git URL (https://HOST/NAME.git#REF:DIR), the URL of a tar archive,
or '-' for a tar archive or a Dockerfile on standard input."""


@command(
    "build",
    "Build an image from a Dockerfile",
    places=(
        "build",
        "image build",
        "builder build",
    ),
    description=_DESCRIPTION,
    examples=_EXAMPLES,
)
@many("--add-host", metavar="HOST:IP", help="Add a line to /etc/hosts of RUN")
@many("--allow", metavar="ENTITLEMENT", help="Allow the Dockerfile network.host or security.insecure")
@many("--annotation", metavar="KEY=VALUE", help="Add an annotation to the manifest")
@many("--build-arg", metavar="NAME[=VALUE]", help="Set a build argument; without a value: your own variable")
@many("--build-context", metavar="NAME=PATH", help="A further context: a directory, docker-image://, oci-layout://")
@many(
    "--cache-from",
    metavar="SOURCE",
    help="Use a cache of elsewhere: an image, type=local,src=DIR, type=registry,ref=REF",
)
@many("--cache-to", metavar="TARGET", help="Write the cache: type=local,dest=DIR, type=registry,ref=REF, type=inline")
@switch("--debug-shell", help="When a step fails, open a shell in the state before it")
@text(
    "-f",
    "--file",
    metavar="FILE",
    default="",
    help="The Dockerfile (default CONTEXT/Dockerfile, Containerfile); - is stdin",
)
@text("--iidfile", metavar="FILE", default="", help="Write the image's id to FILE")
@text("--jobs", metavar="N", type=click.IntRange(0), default=0, help="Stages built at a time (default: one per CPU)")
@many("--label", metavar="KEY=VALUE", help="Set a label of the image")
@switch("--load", help="Store the image here, beside what --output says")
@text("--metadata-file", metavar="FILE", default="", help="Write digests and names to FILE as JSON")
@text("--network", metavar="MODE", help=f"Network of RUN: {list_choices(with_joining=False)}")
@switch("--no-cache", help="Do every step again")
@many("--no-cache-filter", metavar="STAGE", help="Do every step of this stage again")
@many("-o", "--output", metavar="DEST", help="type=image|docker|oci|tar|local,dest=PATH, or a directory for the files")
@many("--platform", metavar="OS/ARCH[/VARIANT]", help="Platform of the image; several make an index")
@text(
    "--progress",
    type=click.Choice(["auto", "plain", "tty", "rawjson", "quiet"]),
    default="auto",
    show_default=True,
    help="How to show the steps",
)
@switch("--pull", help="Ask the registry for newer base images")
@switch("--push", help="Push the image to its names' registries")
@switch("-q", "--quiet", help="Print only the image's id")
@many("--secret", metavar="SPEC", help="A secret for RUN --mount: id=NAME,src=FILE or id=NAME,env=VARIABLE")
@many("--security-opt", metavar="OPTION", help="seccomp=FILE|unconfined, no-new-privileges, mask=PATHS, unmask=PATHS")
@text("--shm-size", metavar="SIZE", help="Size of /dev/shm of RUN (default 64m)")
@switch("--squash", help="Make one layer of all that the build adds")
@many("--ssh", metavar="NAME[=SOCKET]", help="An ssh agent for RUN --mount=type=ssh (default: yours)")
@many("-t", "--tag", metavar="NAME[:TAG]", help="Name of the image")
@text("--target", metavar="STAGE", default="", help="Build up to this stage")
@text("--timestamp", metavar="SECONDS", type=click.IntRange(0), help="Time of the image, and of files that are later")
@many("--ulimit", metavar="NAME=SOFT[:HARD]", help="Resource limit of RUN")
@click.argument("context", default=".", metavar="CONTEXT")
@pass_session
def build(session: Session, /, context: str, quiet: bool, progress: str, **flags: Any) -> None:
    """Build, then print the id when nothing else is printed."""
    from rootless.builder.api import build as carry_out
    from rootless.builder.build_options import BuildOptions
    from rootless.builder.steps.stage import StepError
    from rootless.cli.build_progress import make_display

    options = BuildOptions(context=context, **flags)
    kind = "quiet" if quiet else progress
    if kind == "auto" and os.environ.get("BUILDKIT_PROGRESS") in ("plain", "tty", "quiet", "rawjson"):
        kind = os.environ["BUILDKIT_PROGRESS"]
    display = make_display(kind, sys.stderr)
    try:
        with display:
            result = carry_out(session.engine, options, display.event)
    except StepError as e:
        display.show_failure()
        if options.debug_shell and e.before.layers and os.isatty(0):
            from rootless.builder.debug_shell import enter

            output.warn(f"{e.message}")
            enter(session.engine, e.before)
        raise
    if kind == "quiet" and result.image_id:
        output.line(result.image_id)


@command("prune", "Remove the build cache", places=("builder prune",))
@switch("-a", "--all", help="Remove also what images and containers still use, and cache mounts")
@many("--filter", metavar="KEY=VALUE", help="Remove only what matches: until=DURATION")
@switch("-f", "--force", help="Do not ask for confirmation")
@text("--keep-storage", "--max-used-space", metavar="SIZE", help="Keep as much of the newest cache")
@pass_session
def prune(session: Session, all: bool, filter: tuple[str, ...], force: bool, keep_storage: str | None) -> None:
    """Ask, then remove."""
    from rootless import units
    from rootless.cli.run_flags import confirm

    what = "all build cache" if all else "build cache that no image uses"
    if not confirm(f"This will remove {what}.", force=force):
        return
    report = verbs.prune_build_cache(session.engine, all=all, filters=filter, keep=keep_storage)
    for line in report.removed:
        output.line(line)
    output.line(f"Total:\t{units.human_size(report.reclaimed)}")


@command("du", "Show what the build cache takes", places=("builder du",))
@pass_session
def du(session: Session) -> None:
    """One line per record, the newest last."""
    from rootless import units

    lines, total = verbs.build_cache_usage(session.engine)
    for key, size, used, description in lines:
        output.line(f"{key[:12]}  {units.human_size(size):>9}  {units.human_duration(used):>16} ago  {description}")
    output.line(f"Total:\t{units.human_size(total)}")
