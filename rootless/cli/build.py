"""`build` and `builder prune`: flags to the build's options, its events to the terminal."""

from __future__ import annotations

import os
import sys

import click

from rootless import output
from rootless.cli.declaration import (
    CommandRules,
    Session,
    command,
    pass_session,
    repeated_option,
    switch_option,
    value_option,
)
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

_NO_CGROUP = (
    "the steps of a build have no cgroup of their own: systemd-run --user --scope -p MemoryMax=1G rootless build ."
)
_NO_CPU_LIMIT = _NO_CGROUP.replace("MemoryMax=1G", "CPUQuota=50%")
_ABSENT = {
    **dict.fromkeys(("--memory", "-m", "--memory-swap", "--cgroup-parent"), _NO_CGROUP),
    **dict.fromkeys(
        ("--cpu-period", "--cpu-quota", "--cpu-shares", "-c", "--cpuset-cpus", "--cpuset-mems"), _NO_CPU_LIMIT
    ),
    **dict.fromkeys(("--cap-add", "--cap-drop", "--device"), "see RUN --security=insecure and --allow"),
    "--compress": "nothing is sent anywhere: the files of the context are read where they lie",
    "--isolation": "steps run in user namespaces of yours",
    "--print": "its name is --call now",
}


@command(
    ("build", "image build", "builder build"),
    "Build an image from a Dockerfile",
    description=_DESCRIPTION,
    examples=_EXAMPLES,
    rules=CommandRules(absent=_ABSENT),
)
@repeated_option("--add-host", metavar="HOST:IP", help="Add a line to /etc/hosts of RUN")
@repeated_option("--allow", metavar="ENTITLEMENT", help="Allow the Dockerfile network.host or security.insecure")
@repeated_option("--annotation", metavar="KEY=VALUE", help="Add an annotation to the manifest")
@repeated_option(
    "--attest", metavar="SPEC", help="Attach an attestation, as --provenance does: type=provenance,FIELD,..."
)
@value_option("--builder", metavar="NAME", default="", help="The builder; there is one, whose name is default")
@repeated_option("--build-arg", metavar="NAME[=VALUE]", help="Set a build argument; without a value: your own variable")
@repeated_option(
    "--build-context", metavar="NAME=PATH", help="A further context: a directory, docker-image://, oci-layout://"
)
@repeated_option(
    "--cache-from",
    metavar="SOURCE",
    help="Use a cache of elsewhere: an image, type=local,src=DIR, type=registry,ref=REF",
)
@repeated_option(
    "--cache-to", metavar="TARGET", help="Write the cache: type=local,dest=DIR, type=registry,ref=REF, type=inline"
)
@value_option(
    "--call",
    metavar="METHOD[,format=json]",
    default="build",
    help="Do not build, and print what the Dockerfile says: check, outline (what it takes), targets (its stages)",
)
@switch_option("--check", help="Do not build, and print what the checks find (--call=check)")
@switch_option("--debug-shell", help="When a step fails, open a shell in the state before it")
@value_option(
    "-f",
    "--file",
    metavar="FILE",
    default="",
    help="The Dockerfile (default CONTEXT/Dockerfile, Containerfile); - is stdin",
)
@switch_option("--force-rm", help="Leave no container of a step behind; none ever is")
@value_option(
    "--format",
    type=click.Choice(["oci", "docker"]),
    default="oci",
    show_default=True,
    metavar=None,
    help="Format of the manifest",
)
@value_option("--iidfile", metavar="FILE", default="", help="Write the image's id to FILE")
@value_option(
    "--jobs", metavar="N", type=click.IntRange(0), default=0, help="Stages built at a time (default: one per CPU)"
)
@repeated_option("--label", metavar="KEY=VALUE", help="Set a label of the image")
@switch_option("--layers", default=True, help="Use the cache, and make a layer of each step; =false: one layer of all")
@switch_option("--load", help="Store the image here, beside what --output says")
@value_option("--metadata-file", metavar="FILE", default="", help="Write digests and names to FILE as JSON")
@value_option("--network", metavar="MODE", help=f"Network of RUN: {list_choices(with_joining=False)}")
@switch_option("--no-cache", help="Do every step again")
@repeated_option("--no-cache-filter", metavar="STAGE", help="Do every step of this stage again")
@repeated_option(
    "-o", "--output", metavar="DEST", help="type=image|docker|oci|tar|local,dest=PATH, or a directory for the files"
)
@repeated_option("--platform", metavar="OS/ARCH[/VARIANT]", help="Platform of the image; several make an index")
@value_option(
    "--progress",
    type=click.Choice(["auto", "plain", "tty", "rawjson", "quiet"]),
    default="auto",
    show_default=True,
    help="How to show the steps",
)
@value_option(
    "--provenance",
    metavar="SPEC",
    default="",
    help="State what the image was built from: true, or mode=min,builder-id=URI,version=v0.2|v1,inline-only=true,...",
)
@switch_option("--pull", help="Ask the registry for newer base images")
@switch_option("--push", help="Push the image to its names' registries")
@switch_option("-q", "--quiet", help="Print only the image's id")
@switch_option("--rm", default=True, help="Leave no container of a step behind; none ever is")
@value_option(
    "--sbom", metavar="false", default="", help="Whether to attach a list of the image's software; only false"
)
@repeated_option("--secret", metavar="SPEC", help="A secret for RUN --mount: id=NAME,src=FILE or id=NAME,env=VARIABLE")
@repeated_option(
    "--security-opt", metavar="OPTION", help="seccomp=FILE|unconfined, no-new-privileges, mask=PATHS, unmask=PATHS"
)
@value_option("--shm-size", metavar="SIZE", help="Size of /dev/shm of RUN (default 64m)")
@switch_option("--squash", help="Make one layer of all that the build adds")
@repeated_option(
    "--ssh", metavar="NAME[=SOCKET|=KEYFILE]", help="An ssh agent, or keys, for RUN --mount=type=ssh (default: yours)"
)
@repeated_option("-t", "--tag", metavar="NAME[:TAG]", help="Name of the image")
@value_option("--target", metavar="STAGE", default="", help="Build up to this stage")
@value_option(
    "--timestamp", metavar="SECONDS", type=click.IntRange(0), help="Time of the image, and of files that are later"
)
@repeated_option("--ulimit", metavar="NAME=SOFT[:HARD]", help="Resource limit of RUN")
@value_option(
    "--userns", metavar="MODE", default="", help="User namespace of RUN: private or host, which are the same here"
)
@repeated_option("-v", "--volume", metavar="DIR:PATH[:OPTIONS]", help="Mount a directory of the host in each RUN")
@click.argument("context", default=".", metavar="CONTEXT")
@pass_session
def build(session: Session, /, context: str, quiet: bool, progress: str, **flags: object) -> int:
    """Build, and print the image's id where the steps are not shown. A step that fails may open a shell.

    With --call or --check nothing is built, and the answer is printed. Returns the exit code.
    """
    from rootless.builder.build_options import BuildOptions
    from rootless.builder.steps.stage import StepError
    from rootless.cli.build_progress import make_display

    call, is_check = str(flags.pop("call")), flags.pop("check")
    options = BuildOptions._make({**flags, "context": context}[name] for name in BuildOptions._fields)
    if is_check or call != "build":
        from rootless.cli.build_answers import Call, answer

        asked = Call.parse("check" if is_check else call)
        if asked.method != "build":
            return answer(session.engine, options, asked)
    from rootless.builder.api import build as carry_out

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
            from rootless.builder.api import enter_state

            output.warn(f"{e.message}")
            enter_state(session.engine, e.before)
        raise
    if result.image_id:
        if kind == "quiet":
            output.line(result.image_id)
        display.show_result(result.image_id)
    return 0


@command(("builder prune",), "Remove the build cache")
@switch_option("-a", "--all", help="Remove also what images and containers still use, and cache mounts")
@repeated_option("--filter", metavar="KEY=VALUE", help="Remove only what matches: until=DURATION")
@switch_option("-f", "--force", help="Do not ask for confirmation")
@value_option("--keep-storage", "--max-used-space", metavar="SIZE", help="Keep as much of the newest cache")
@pass_session
def prune(session: Session, all: bool, filter: tuple[str, ...], force: bool, keep_storage: str | None) -> None:
    """Ask, then remove what the flags choose, and print what was removed."""
    from rootless import units
    from rootless.cli.run_flags import confirm

    what = "all build cache" if all else "build cache that no image uses"
    if not confirm(f"This will remove {what}.", force=force):
        return
    report = verbs.prune_build_cache(session.engine, all=all, filters=filter, keep=keep_storage)
    for line in report.removed:
        output.line(line)
    output.line(f"Total:\t{units.human_size(report.reclaimed)}")


@command(("builder du",), "Show what the build cache takes")
@pass_session
def du(session: Session) -> None:
    """Print one line per record of the cache, the newest last."""
    from rootless import units

    lines, total = verbs.build_cache_usage(session.engine)
    for key, size, used, description in lines:
        output.line(f"{key[:12]}  {units.human_size(size):>9}  {units.human_duration(used):>16} ago  {description}")
    output.line(f"Total:\t{units.human_size(total)}")
