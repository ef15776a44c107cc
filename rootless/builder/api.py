"""The verbs of building: `build`, and the shell on the state before a step that failed."""

from __future__ import annotations

import time

from rootless.builder import inputs, outputs
from rootless.builder.build_options import BuildOptions, BuildResult, check_foreign, check_step_flags, parse_provenance
from rootless.builder.dockerfile import graph
from rootless.builder.session.build_session import BuildSession
from rootless.builder.session.tracker import Report, Tracker
from rootless.builder.solver import Solver
from rootless.engine import verbs
from rootless.errors import RootlessError, UsageError
from rootless.image.platform import host_platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.builder.dockerfile.graph import Graph
    from rootless.builder.dockerfile.instructions import Dockerfile
    from rootless.builder.outputs import BuiltImage, Output
    from rootless.builder.session.build_state import BuildState
    from rootless.engine.context import Engine
    from rootless.image.manifest import Descriptor
    from rootless.image.platform import Platform


def build(engine: Engine, options: BuildOptions, report: Report | None = None) -> BuildResult:
    """Build an image. report: called with each event, by one thread at a time; None where nobody wants the events.

    Raises StepError (a step that failed), DockerfileError, UsageError, and what pulling raises. Nothing of the build is
    left then but its cache. Flags are checked before anything is built, so that a misspelt --output does not cost an
    hour's work.
    """
    options, wanted = _checked(options)
    begun = time.time()
    asked = parse_provenance(options)
    if asked is not None and asked.is_reduced:
        engine.warn("provenance of mode=max is not made here: the image gets one of mode=min")
    latest = inputs.latest_time(options)
    tracker = Tracker(report)
    with engine.store.using(), BuildSession(engine, options, tracker, latest=latest) as session:
        names = outputs.full_names(session, [*options.tag, *(each.name for each in wanted if each.name)])
        if options.volume:
            from rootless.builder.steps import host_mounts

            session.mounts = host_mounts.resolve(session)
        dockerfile = inputs.load(session)
        inputs.import_caches(session)
        build_args = inputs.build_args(options, session.latest)
        platforms = inputs.platforms(options)
        run = None
        if asked is not None:
            from rootless.builder.provenance import ProvenanceRun

            run = ProvenanceRun.begin(session, asked, begun)
        built = []
        for platform in platforms:
            state, solved = _solve(session, dockerfile, platform, build_args)
            built.append(outputs.BuiltImage(platform, state, None if run is None else run.provenance(solved)))
        result = _finish(session, wanted, names, built)
        verbs.limit_build_cache(engine)
    verbs.record_event(engine, "image", "build", result.image_id, {"name": ",".join(result.names)})
    return result


def _checked(options: BuildOptions) -> tuple[BuildOptions, list[Output]]:
    """The options with what follows from some of them, and what --output asks for. Raises UsageError."""
    if not options.layers:
        options = options._replace(squash=True, no_cache=True)
    if options.secret:
        from rootless.builder.steps import secret_sources

        secret_sources.check(options.secret)
    if options.cache_to:
        from rootless.builder.cache import cache_export

        cache_export.check(options.cache_to)
    wanted = outputs.parse_outputs(options.output)
    if any(each.is_docker for each in wanted):
        options = options._replace(format="docker")
    if len(inputs.platforms(options)) > 1:
        _check_several(wanted)
    check_foreign(options)
    check_step_flags(options)
    outputs.check(options, wanted)
    return options, wanted


def _check_several(wanted: list[Output]) -> None:
    """Raise UsageError for an --output that cannot hold the results for several platforms."""
    for each in wanted:
        if each.kind == "docker" and each.dest:
            hint = "use type=oci"
            raise UsageError("--output: a docker archive holds no images for several platforms", hint=hint)
        if each.is_split is False:
            hint = "leave platform-split away: each platform gets a directory"
            raise UsageError("--output: the files of several platforms are not written over each other", hint=hint)


def _solve(
    session: BuildSession, dockerfile: Dockerfile, platform: Platform, build_args: dict[str, str]
) -> tuple[BuildState, Graph]:
    """The state at the end of the target stage, and the graph with the triggers of all bases."""
    names = {text.partition("=")[0].lower() for text in session.options.build_context}
    wanted = graph.Wanted(platform, host_platform(), session.options.target, build_args, names)
    plan = graph.plan(dockerfile, wanted)
    solver = Solver(session, plan, platform, build_args)
    try:
        state = solver.solve()
    finally:  # the ONBUILD triggers of a base may declare further arguments, and a missing one may be why a step failed
        for name in solver.graph.unused_build_args:
            session.engine.warn(f"build argument '{name}' is not used: no ARG declares it")
    if session.options.squash:
        state = outputs.squash(session, _base_layers(session, plan), state)
    return state, solver.graph


def _base_layers(session: BuildSession, plan: Graph) -> int:
    """The number of layers of the image that the target stands on, which --squash leaves alone; 0 for none."""
    node = plan.target
    while node.base.kind == "stage":
        assert node.base.stage is not None
        node = plan.node(node.base.stage)
    if node.base.kind != "image":
        return 0
    from rootless.engine.image_in_use import find

    entry = find(session.engine, node.base.name)
    return len(entry.config.diff_ids) if entry is not None else 0


def _finish(session: BuildSession, wanted: list[Output], names: list[str], built: list[BuiltImage]) -> BuildResult:
    options = session.options
    is_attested = built[0].provenance is not None
    keeps = not wanted or options.load or options.push or any(each.kind == "image" for each in wanted)
    archives = [each for each in wanted if each.kind in ("docker", "oci")]
    keeps = keeps or any(not each.dest for each in archives)
    if is_attested and any(each.kind == "docker" and each.dest for each in archives):
        session.engine.warn("a docker archive holds no attestations: it is written without the provenance")
        if not keeps and all(each.kind == "docker" for each in archives):
            is_attested = False
    trees = [each for each in wanted if each.kind in ("tar", "local")]
    descriptor: Descriptor | None = None
    image_id = digest = ""
    if keeps or archives:
        step = session.tracker.start("exporting to image")
        images = [(each, outputs.store_image(session, each.state)) for each in built]
        is_index = len(images) > 1 or is_attested
        descriptor = outputs.store_index(session, images, names) if is_index else images[0][1]
        lent = outputs.lend_names(session.store, descriptor, names) if not keeps else None
        if keeps:
            outputs.name_in(session.store, descriptor, names)
            if is_attested:
                outputs.drop_replaced(session.store, descriptor, [each for _, each in images])
        image_id = session.store.index.load(images[0][1].digest).config_digest
        digest = descriptor.digest
        step.log(f"writing image {image_id}")
        for name in names:
            step.log(f"naming to {name}")
        try:
            for archive in archives:
                if archive.dest and is_index and archive.kind == "oci":
                    outputs.write_index_archive(session, archive, digest, names)
                elif archive.dest:
                    outputs.write_archive(session, archive, names or [image_id])
        finally:
            if lent is not None:
                lent.give_back()
        step.done()
    for tree in trees:
        outputs.write_trees(session, tree, built)
    if options.cache_to:
        from rootless.builder.cache import cache_export

        cache_export.export_caches(session, built[0].platform, built[0].state)
    if options.push or any(each.push for each in wanted):
        _push(session, names, wanted, all=len(built) > 1 or is_attested)
    _write_files(options, BuildResult(image_id if keeps else "", digest, tuple(names)), built)
    return BuildResult(image_id if keeps else "", digest, tuple(names))


def _push(session: BuildSession, names: list[str], wanted: list[Output], *, all: bool) -> None:
    from rootless.engine.image_types import PushOptions

    compression = next((each.compression for each in wanted if each.push and each.compression), None)
    for name in names:
        step = session.tracker.start(f"pushing {name}")
        verbs.push_image(session.engine, name, options=PushOptions(compression=compression, all=all))
        step.done()


def _write_files(options: BuildOptions, result: BuildResult, built: list[BuiltImage]) -> None:
    if not options.iidfile and not options.metadata_file:
        return
    import json

    from rootless.engine.id_file import write_id_file

    metadata: dict[str, object] = {
        "containerimage.config.digest": result.image_id,
        "containerimage.digest": result.manifest_digest,
    }
    if result.names:
        metadata["image.name"] = ",".join(result.names)
    for each in built:
        if each.provenance is not None:
            platform = f"/{each.platform}" if len(built) > 1 else ""
            metadata[f"buildx.build.provenance{platform}"] = each.provenance.predicate()
    if options.iidfile:
        write_id_file(options.iidfile, result.image_id, option="--iidfile")
    if options.metadata_file:
        write_id_file(options.metadata_file, json.dumps(metadata, indent=2), option="--metadata-file")


def enter_state(engine: Engine, state: BuildState) -> None:
    """`--debug-shell`: run the shell of `state` in a container on that state, interactively.

    The container, and the image as which `state` is stored for it, are removed afterwards.
    """
    from rootless.engine.types import AttachOptions
    from rootless.records.container_options import ContainerOptions

    with engine.store.using():
        descriptor = outputs.store_state(engine, state)
        outputs.name_in(engine.store, descriptor, ())
    image_id = engine.store.index.load(descriptor.digest).config_digest
    shell = state.shell[0]
    try:
        options = ContainerOptions(image=image_id, entrypoint=shell, interactive=True, tty=True, rm=True, user="0")
        verbs.run_container(engine, options, AttachOptions())
    finally:
        try:
            verbs.remove_image(engine, image_id)
        except RootlessError as e:
            engine.warn(f"the image of the state stays: {e.message}")
