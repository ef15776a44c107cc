"""One stage: its base, then its instructions one after the other. It knows no other stage but by `Finder`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootless.builder.dockerfile import expand, texts
from rootless.builder.dockerfile.instructions import Add, Copy, Run, Workdir, name_of
from rootless.builder.dockerfile.parser import parse_triggers
from rootless.builder.dockerfile.problems import DockerfileError, excerpt
from rootless.builder.session.tracker import StepSite
from rootless.builder.steps import config_steps, run_step
from rootless.errors import RootlessError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.builder.dockerfile.graph import Graph, Node
    from rootless.builder.dockerfile.instructions import Instruction
    from rootless.builder.session.build_session import BuildSession
    from rootless.builder.session.build_state import BuildState
    from rootless.builder.session.tracker import Step
    from rootless.builder.steps.run_mounts import Finder

_WORK = (Run, Copy, Add, Workdir)


class StepError(RootlessError):
    """A step that failed: where it stands, and the state before it, which `--debug-shell` enters."""

    def __init__(self, error: RootlessError, title: str, instruction: Instruction, before: BuildState) -> None:
        place = instruction.place
        hint = error.hint
        if isinstance(error, run_step.StepFailed):
            hint = "`--debug-shell` enters the state before this step"
        # an error of the Dockerfile names its place already
        why = error.problem if isinstance(error, DockerfileError) else error.message
        super().__init__(f"{place}: {title}: {why}", hint=hint)
        self.exit_code = getattr(error, "status", error.exit_code)
        self.excerpt = error.excerpt or excerpt(place)
        self.before = before
        self.place = place


class StageRun:
    """Carries out one node of the graph."""

    def __init__(self, session: BuildSession, graph: Graph, node: Node, *, is_only: bool) -> None:
        self._session = session
        self._graph = graph
        self._node = node
        self._escape = graph.dockerfile.directives.escape
        name = node.stage.name or ("" if is_only else f"stage-{node.stage.position}")
        self._label = f"{name} " if name else ""
        self._name = node.stage.name or str(node.stage.position)

    @property
    def label(self) -> str:
        """What its steps' titles begin with."""
        return self._label

    def carry_out(
        self, base: BuildState, finder: Callable[[str, Instruction], object], build_args: dict[str, str]
    ) -> BuildState:
        """The state after the last instruction. Raises StepError."""
        triggers = parse_triggers(base.config.get("OnBuild") or [], self._node.base.name, self._escape)
        state = base._replace(config={k: v for k, v in base.config.items() if k != "OnBuild"}, has_cmd=False)
        scope = expand.Scope(
            escape=self._escape,
            environment=expand.environment(state.env),
            global_args=self._graph.global_args,
            build_args=build_args,
        )
        instructions = (*triggers, *self._node.instructions)
        count = 1 + sum(isinstance(each, _WORK) for each in instructions)
        position = 1
        for written in instructions:
            before = state
            step: Step | None = None
            if isinstance(written, _WORK):
                position += 1
                step = self._session.tracker.start(texts.title(self._label, position, count, written))
            try:
                final = scope.expand(written)
                if step is not None:
                    state = self._work(state, written, final, scope, finder, step)
                else:
                    state = config_steps.apply(state, final, texts.created_by(written, final, state.shell))
                scope.enter(final)
            except StepError:
                raise
            except RootlessError as e:
                if step is not None:
                    step.error(e.message)
                raise StepError(e, step.title if step is not None else name_of(written), written, before) from e
        return state

    def _work(
        self,
        state: BuildState,
        written: Instruction,
        final: Instruction,
        scope: expand.Scope,
        finder: Callable[[str, Instruction], object],
        step: Step,
    ) -> BuildState:
        site = StepSite(texts.created_by(written, final, state.shell), self._name, step)

        def find(name: str) -> object:
            return finder(name, written)

        typed: Finder = find  # type: ignore[assignment]
        if isinstance(final, Run):
            arguments = {n: v for n, v in scope.variables.items() if n in scope.arguments}
            return run_step.run(self._session, state, final, arguments, typed, site)
        from rootless.builder.steps import copy_step

        if isinstance(final, Workdir):
            return copy_step.workdir(self._session, state, final, site)
        assert isinstance(final, Copy | Add)
        return copy_step.copy(self._session, state, final, typed, site)
