"""The verb `build`: options in, image out. It reads contexts and Dockerfile, has the graph solved, writes results."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from rootless.builder import graph, outputs
from rootless.builder.build_options import BuildOptions, BuildResult, Report
from rootless.builder.cache import cache_export
from rootless.builder.context import contexts
from rootless.builder.context.contexts import Context
from rootless.builder.dockerfile import checks, parser
from rootless.builder.session import BuildSession
from rootless.builder.solver import Solver
from rootless.builder.steps import secret_sources
from rootless.builder.tracker import Tracker
from rootless.engine import verbs
from rootless.errors import UsageError
from rootless.image.platform import host_platform, parse_platform

if TYPE_CHECKING:
    from rootless.builder.build_state import BuildState
    from rootless.builder.dockerfile.instructions import Dockerfile
    from rootless.builder.outputs import Output
    from rootless.engine.context import Engine
    from rootless.image.manifest import Descriptor
    from rootless.image.platform import Platform


def build(engine: Engine, options: BuildOptions, report: Report | None = None) -> BuildResult:
    """Build an image. report is called with each event, from one thread at a time.

    Raises StepError (a step that failed), DockerfileError, UsageError, and what pulling raises. Nothing of the build is
    left then but its cache.
    """
    secret_sources.check(options.secret)
    cache_export.check(options.cache_to)
    wanted = outputs.parse_outputs(options.output)
    latest = _latest(options)
    tracker = Tracker(report)
    with engine.store.using(), BuildSession(engine, options, tracker, latest=latest) as session:
        names = outputs.full_names(session, [*options.tag, *(each.name for each in wanted if each.name)])
        dockerfile = _load(session)
        _import_caches(session)
        build_args = _build_args(options, latest)
        platforms = [parse_platform(text) for each in options.platform for text in each.split(",")]
        platforms = platforms or [host_platform()]
        states = [_solve(session, dockerfile, platform, build_args) for platform in platforms]
        result = _finish(session, wanted, names, list(zip(platforms, states, strict=True)))
        verbs.limit_build_cache(engine)
    verbs.record_event(engine, "image", "build", result.image_id, {"name": ",".join(result.names)})
    return result


def _latest(options: BuildOptions) -> int | None:
    """--timestamp, else SOURCE_DATE_EPOCH as build argument or in the environment."""
    if options.timestamp is not None:
        return options.timestamp
    given = dict(text.partition("=")[::2] for text in options.build_arg)
    text = given.get("SOURCE_DATE_EPOCH") or os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"SOURCE_DATE_EPOCH is not a number of seconds: '{text}'")
    return int(text)


def _build_args(options: BuildOptions, latest: int | None) -> dict[str, str]:
    found = {}
    for text in options.build_arg:
        name, equals, value = text.partition("=")
        if not name:
            raise UsageError(f"invalid --build-arg '{text}'", hint="write NAME=VALUE, or NAME for your own variable")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    if latest is not None:
        found.setdefault("SOURCE_DATE_EPOCH", str(latest))
    return found


def _load(session: BuildSession) -> Dockerfile:
    """The main context, the named ones, and the parsed Dockerfile."""
    options = session.options
    for text in options.build_context:
        name, equals, value = text.partition("=")
        if not name or not equals or not value:
            raise UsageError(f"invalid --build-context '{text}'", hint="write NAME=PATH")
        if value.startswith(("docker-image://", "oci-layout://")):
            continue
        from rootless.builder.open_context import open_context

        found = open_context(session, value)
        session.contexts[name.lower()] = contexts.with_ignore(found.context, "")
    if options.context == "-" and options.file == "-":
        raise UsageError("standard input cannot be both the context and the Dockerfile")
    from rootless.builder.open_context import open_context

    opened = open_context(session, options.context)
    content, filename, path = _dockerfile(session, opened.context, opened.dockerfile, is_remote=opened.is_remote)
    session.contexts[""] = contexts.with_ignore(opened.context, path)
    dockerfile = parser.parse(content, filename)
    for finding in checks.check(dockerfile):
        session.engine.warn(str(finding))
    return dockerfile


def _dockerfile(
    session: BuildSession, context: Context, given: bytes | None, *, is_remote: bool
) -> tuple[bytes, str, str]:
    """(content, its name in messages, its path or "")."""
    file = session.options.file
    if given is not None:
        return given, "Dockerfile", ""
    if file == "-":
        content = sys.stdin.buffer.read(contexts.MAX_FILE + 1)
        if len(content) > contexts.MAX_FILE:
            raise UsageError(f"the Dockerfile of standard input is larger than {contexts.MAX_FILE >> 20} MiB")
        return content, "Dockerfile", ""
    path = contexts.find_dockerfile(context, file, is_remote=is_remote)
    name = os.path.relpath(path, context.path) if path.startswith(f"{context.path}/") else path
    return contexts.read_file(path), file or name, path


def _import_caches(session: BuildSession) -> None:
    if session.options.cache_from and not session.options.no_cache:
        from rootless.builder.cache.cache_import import ImportedCaches

        session.imported = ImportedCaches(session, session.options.cache_from)


def _solve(session: BuildSession, dockerfile: Dockerfile, platform: Platform, build_args: dict[str, str]) -> BuildState:
    names = {text.partition("=")[0].lower() for text in session.options.build_context}
    plan = graph.plan(
        dockerfile,
        target=session.options.target,
        build_args=build_args,
        contexts=names,
        target_platform=platform,
        build_platform=host_platform(),
    )
    for name in plan.unused_build_args:
        session.engine.warn(f"build argument '{name}' is not used: no ARG declares it")
    state = Solver(session, plan, platform, build_args).solve()
    if session.options.squash:
        from rootless.builder.whole import squash

        state = squash(session, _base_layers(session, plan), state)
    return state


def _base_layers(session: BuildSession, plan: Any) -> int:
    """How many layers the image has that the target stands on."""
    node = plan.target
    while node.base.kind == "stage":
        node = plan.node(node.base.stage)
    if node.base.kind != "image":
        return 0
    from rootless.engine.image_in_use import find

    entry = find(session.engine, node.base.name)
    return len(entry.config.diff_ids) if entry is not None else 0


def _finish(
    session: BuildSession, wanted: list[Output], names: list[str], built: list[tuple[Platform, BuildState]]
) -> BuildResult:
    options = session.options
    keeps = not wanted or options.load or options.push or any(each.kind == "image" for each in wanted)
    archives = [each for each in wanted if each.kind in ("docker", "oci")]
    keeps = keeps or any(not each.dest for each in archives)
    trees = [each for each in wanted if each.kind in ("tar", "local")]
    if len(built) > 1 and trees:
        raise UsageError("several platforms cannot be written as one tree", hint="build one --platform at a time")
    if len(built) > 1 and archives:
        hint = "name it with --tag, then: rootless copy --all NAME oci-archive:FILE"
        raise UsageError("several platforms cannot be written as one archive here", hint=hint)
    descriptor: Descriptor | None = None
    image_id = digest = ""
    if keeps or archives:
        step = session.tracker.start("exporting to image")
        images = [(platform, outputs.store_image(session, state)) for platform, state in built]
        descriptor = images[0][1] if len(images) == 1 else outputs.store_index(session, images)
        lent = outputs.lend_names(session.store, descriptor, names) if not keeps else None
        if keeps:
            outputs.name_in(session.store, descriptor, names)
        image_id = session.store.index.load(images[0][1].digest).config_digest
        digest = descriptor.digest
        step.log(f"writing image {image_id}")
        for name in names:
            step.log(f"naming to {name}")
        try:
            for archive in archives:
                if archive.dest:
                    outputs.write_archive(session, archive, names or [image_id])
        finally:
            if lent is not None:
                lent.give_back()
        step.done()
    for tree in trees:
        outputs.write_tree(session, tree, built[0][1])
    if options.cache_to:
        cache_export.export_caches(session, *built[0])
    if options.push or any(each.push for each in wanted):
        _push(session, names, wanted, all=len(built) > 1)
    _write_files(options, image_id if keeps else "", digest, names)
    return BuildResult(image_id if keeps else "", digest, tuple(names))


def _push(session: BuildSession, names: list[str], wanted: list[Output], *, all: bool) -> None:
    from rootless.engine.image_types import PushOptions

    if not names:
        raise UsageError("an image without a name cannot be pushed", hint="give it one with --tag")
    compression = next((each.compression for each in wanted if each.push and each.compression), None)
    for name in names:
        step = session.tracker.start(f"pushing {name}")
        verbs.push_image(session.engine, name, options=PushOptions(compression=compression, all=all))
        step.done()


def _write_files(options: BuildOptions, image_id: str, digest: str, names: list[str]) -> None:
    import json

    from rootless.engine.id_file import write_id_file

    metadata: dict[str, str] = {"containerimage.config.digest": image_id, "containerimage.digest": digest}
    if names:
        metadata["image.name"] = ",".join(names)
    if options.iidfile:
        write_id_file(options.iidfile, image_id, option="--iidfile")
    if options.metadata_file:
        write_id_file(options.metadata_file, json.dumps(metadata, indent=2), option="--metadata-file")
