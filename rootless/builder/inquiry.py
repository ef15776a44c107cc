"""What a Dockerfile says without being built: what its checks find, which stages it has, what a stage takes.

Images are not pulled: of a base that is not in the store, the registry is asked for the config alone.
"""

from __future__ import annotations

import posixpath
from typing import NamedTuple

from rootless.builder import inputs
from rootless.builder.build_options import check_foreign
from rootless.builder.dockerfile import checks, expand, graph, parser, variables
from rootless.builder.dockerfile.instructions import Arg, Run
from rootless.builder.dockerfile.problems import DockerfileError, Place
from rootless.builder.session.build_session import BuildSession
from rootless.builder.session.tracker import Tracker
from rootless.errors import RootlessError
from rootless.image import fields
from rootless.image.platform import host_platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rootless.builder.build_options import BuildOptions
    from rootless.builder.dockerfile.checks import Finding
    from rootless.builder.dockerfile.graph import Graph, Node
    from rootless.builder.dockerfile.instructions import Dockerfile, Mount
    from rootless.engine.context import Engine
    from rootless.image.fields import Fields
    from rootless.image.platform import Platform


class DockerfileSource(NamedTuple):
    """The Dockerfile that was asked about. name: in messages; content: its bytes."""

    name: str
    content: bytes


class CheckAnswer(NamedTuple):
    """`--call=check`: what was found, by line, and what makes a build of this Dockerfile fail, None for nothing."""

    source: DockerfileSource
    findings: tuple[Finding, ...]
    error: DockerfileError | None


class TargetEntry(NamedTuple):
    """A stage that can be the target.

    description: what the comment above FROM says; base, platform: as they are written.
    """

    name: str
    is_default: bool
    description: str
    base: str
    platform: str
    place: Place


class TargetsAnswer(NamedTuple):
    """`--call=targets`: the stages in their order."""

    source: DockerfileSource
    targets: tuple[TargetEntry, ...]


class ArgumentEntry(NamedTuple):
    """A build argument. value: of --build-arg or its default, "" for none; description: what the comment says."""

    name: str
    description: str
    value: str
    place: Place


class MountEntry(NamedTuple):
    """A secret or an ssh agent that a RUN mounts. is_required: the build fails without it."""

    name: str
    is_required: bool
    place: Place


class OutlineAnswer(NamedTuple):
    """`--call=outline`: what the build of one target takes, each in the order of the file."""

    source: DockerfileSource
    name: str
    description: str
    arguments: tuple[ArgumentEntry, ...]
    secrets: tuple[MountEntry, ...]
    agents: tuple[MountEntry, ...]


def check(engine: Engine, options: BuildOptions) -> CheckAnswer:
    """What the checks find in the stages of the target, or in all stages without --target.

    An error in the Dockerfile ends the search and is part of the answer. Raises UsageError, NotFound, and what fetching
    a context raises.
    """
    found: list[Finding] = []
    error: DockerfileError | None = None
    with engine.store.using(), _session(engine, options) as session:
        source = DockerfileSource(*inputs.read(session))
        try:
            dockerfile = parser.parse(source.content, source.name)
            session.checks = inputs.check_options(options, dockerfile)
            found += checks.findings_in(dockerfile)
            found += _findings_in_stages(session, dockerfile)
        except DockerfileError as e:
            error = e
    wanted = checks.chosen(found, session.checks)
    if error is None and session.checks.is_error:
        try:
            checks.refuse(wanted)
        except DockerfileError as e:
            error = e
    return CheckAnswer(source, wanted, error)


def targets(engine: Engine, options: BuildOptions) -> TargetsAnswer:
    """The stages of the Dockerfile, in order.

    Raises DockerfileError, UsageError, NotFound, and what fetching a context raises.
    """
    with engine.store.using(), _session(engine, options) as session:
        source = DockerfileSource(*inputs.read(session))
    stages = parser.parse(source.content, source.name).stages
    found = []
    for stage in stages:
        start = stage.start
        description = checks.description(start.place, start.name)
        is_default = stage is stages[-1]
        found.append(TargetEntry(start.name, is_default, description, start.base, start.platform, start.place))
    return TargetsAnswer(source, tuple(found))


def outline(engine: Engine, options: BuildOptions) -> OutlineAnswer:
    """What the build of the target takes. Raises DockerfileError, UsageError, NotFound, and what fetching a context
    raises."""
    arguments: dict[str, ArgumentEntry] = {}
    secrets: dict[str, MountEntry] = {}
    agents: dict[str, MountEntry] = {}
    with engine.store.using(), _session(engine, options) as session:
        source = DockerfileSource(*inputs.read(session))
        dockerfile = parser.parse(source.content, source.name)
        plan = _plan(session, dockerfile)
        outer = _global_arguments(plan)
        for node, scope in _Walk(session, plan, needs_bases=False).through(plan.order):
            for name in _names_in(node.stage.start.base, node.stage.start.platform):
                _use_global(name, outer, arguments)
            for written in node.stage.instructions:
                scope.enter(scope.expand(written))
                if isinstance(written, Arg):
                    _note_arguments(written, scope, outer, arguments)
                elif isinstance(written, Run):
                    _note_mounts(written, "secret", secrets)
                    _note_mounts(written, "ssh", agents)
    start = plan.target.stage.start
    description = checks.description(start.place, start.name)
    by_line = sorted(arguments.values(), key=lambda each: each.place.first)
    mounts = [tuple(sorted(each.values(), key=lambda entry: entry.place.first)) for each in (secrets, agents)]
    return OutlineAnswer(source, start.name, description, tuple(by_line), *mounts)


def _session(engine: Engine, options: BuildOptions) -> BuildSession:
    check_foreign(options)
    return BuildSession(engine, options, Tracker(None), latest=inputs.latest_time(options))


def _plan(session: BuildSession, dockerfile: Dockerfile) -> Graph:
    options = session.options
    inputs.settle_latest_time(session, dockerfile)
    platform = inputs.platforms(options)[0]
    names = {text.partition("=")[0].lower() for text in options.build_context}
    build_args = inputs.build_args(options, session.latest)
    return graph.plan(dockerfile, graph.Wanted(platform, host_platform(), options.target, build_args, names))


def _findings_in_stages(session: BuildSession, dockerfile: Dockerfile) -> Iterator[Finding]:
    plan = _plan(session, dockerfile)
    is_ignored = session.contexts[""].static_rules()
    nodes = plan.order if session.options.target else plan.nodes
    for node, scope in _Walk(session, plan, needs_bases=True).through(nodes):
        yield from checks.findings_in_stage(node.stage.instructions, scope, is_ignored)


class _Walk:
    """The stages of `plan` with the variables that a build would give them; nothing is carried out.

    needs_bases: an image whose config cannot be had is an error, and not taken for one without variables.
    """

    def __init__(self, session: BuildSession, plan: Graph, *, needs_bases: bool) -> None:
        self._session = session
        self._plan = plan
        self._needs_bases = needs_bases
        self._scopes: dict[int, expand.Scope] = {}

    def through(self, nodes: Iterable[Node]) -> Iterator[tuple[Node, expand.Scope]]:
        """Each of `nodes` with the scope before its own instructions, which the caller has to put through the scope.

        A stage comes behind the one that it stands on. Raises DockerfileError.
        """
        build_args = inputs.build_args(self._session.options, self._session.latest)
        for node in nodes:
            below = self._scopes.get(node.base.stage) if node.base.stage is not None else None
            scope = expand.Scope(
                escape=self._plan.dockerfile.directives.escape,
                environment={} if below is None else below.environment,
                global_args=self._plan.global_args,
                build_args=build_args,
                inherited={} if below is None else below.arguments,
            )
            if below is None:
                self._enter_base(node, scope)
            else:
                scope.declared |= below.declared
            self._scopes[node.stage.position] = scope
            yield node, scope

    def _enter_base(self, node: Node, scope: expand.Scope) -> None:
        """Put the variables of the image that `node` stands on, and what its ONBUILD triggers set, into `scope`.

        Raises DockerfileError.
        """
        try:
            config = self._config(node)
        except RootlessError as e:
            if self._needs_bases:
                raise DockerfileError(node.stage.start.place, e.message, hint=e.hint) from e
            config = {}
        values = {"PATH": "", **expand.environment(fields.texts_member(config, "Env") or [])}  # each image gets a PATH
        scope.environment.update(values)
        scope.variables.update(values)
        triggers = parser.parse_triggers(fields.texts_member(config, "OnBuild") or [], node.base.name)
        checks.findings_in_stage(triggers, scope, None)

    def _config(self, node: Node) -> Fields:
        """The config of the image that `node` stands on; empty for no image. Raises RootlessError."""
        from rootless.builder.steps import bases

        name = node.base.name
        platform = node.platform or inputs.platforms(self._session.options)[0]
        if node.base.kind == "context":
            given = bases.given_image(self._session, name)
            if given.startswith(bases.LAYOUT):
                return bases.layout_state(self._session, name, given.removeprefix(bases.LAYOUT), platform).config
            name = given.removeprefix(bases.IMAGE)
        if node.base.kind == "scratch" or name in ("", graph.SCRATCH):
            return {}
        return _image_config(self._session, name, platform)


def _image_config(session: BuildSession, name: str, platform: Platform) -> Fields:
    """docker's part of the config of an image of the store, else of its registry. Raises RootlessError."""
    from rootless.engine.image.image_names import qualify, registries
    from rootless.engine.image_in_use import find
    from rootless.image.distribution.http_session import Access
    from rootless.image.distribution.registry import open_registry
    from rootless.image.manifest import ImageConfig

    entry = None if session.options.pull else find(session.engine, name)
    if entry is not None:
        return entry.config.config
    reference, _ = qualify(session.engine, name)
    registry = open_registry(reference, registries(session.engine), Access(), warn=session.engine.warn)
    return ImageConfig(registry.config(registry.manifest(platform))).config


def _global_arguments(plan: Graph) -> dict[str, tuple[ArgumentEntry, set[str]]]:
    """The ARGs above the first FROM by name, each with the names that its default uses."""
    found = {}
    for arg in plan.dockerfile.global_args:
        for pair in arg.pairs:
            value = plan.global_args.get(pair.name, "")
            entry = ArgumentEntry(pair.name, checks.description(arg.place, pair.name), value, arg.place)
            found[pair.name] = entry, _names_in(pair.value or "")
    return found


def _names_in(*texts: str) -> set[str]:
    """The names of the variables in `texts`, where nothing has a value."""
    found: set[str] = set()
    for text in texts:
        try:
            found |= variables.expand(text, {}).unset
        except variables.ExpansionError:
            continue  # the plan of the stages has expanded it with the real values
    return found


def _use_global(
    name: str, outer: dict[str, tuple[ArgumentEntry, set[str]]], arguments: dict[str, ArgumentEntry]
) -> None:
    """Note the global ARG `name`, and those that its default uses, among `arguments`."""
    waiting = [name]
    while waiting:
        each = waiting.pop()
        if each in outer and each not in arguments:
            arguments[each] = outer[each][0]
            waiting += outer[each][1]


def _note_arguments(
    arg: Arg,
    scope: expand.Scope,
    outer: dict[str, tuple[ArgumentEntry, set[str]]],
    arguments: dict[str, ArgumentEntry],
) -> None:
    for pair in arg.pairs:
        if pair.value is None and pair.name in outer:
            _use_global(pair.name, outer, arguments)
        else:
            description = checks.description(arg.place, pair.name)
            entry = ArgumentEntry(pair.name, description, scope.arguments.get(pair.name, ""), arg.place)
            arguments.setdefault(pair.name, entry)


def _note_mounts(run: Run, kind: str, found: dict[str, MountEntry]) -> None:
    for mount in run.mounts:
        if mount.kind == kind:
            name = _mount_name(mount)
            is_required = mount.is_required or (name in found and found[name].is_required)
            place = found[name].place if name in found else run.place
            found[name] = MountEntry(name, is_required, place)


def _mount_name(mount: Mount) -> str:
    """The id of a secret or an agent, as a mount without one has it."""
    return mount.id or (posixpath.basename(mount.target) if mount.kind == "secret" else "default")
