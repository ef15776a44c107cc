"""One stage: its base, then its instructions one after the other. Other stages are known by the given finder alone."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from rootless.builder.dockerfile import checks, expand, texts
from rootless.builder.dockerfile.instructions import Add, Copy, Run, Workdir, name_of
from rootless.builder.dockerfile.problems import DockerfileError, excerpt
from rootless.builder.session.build_session import LayersMissing, StepRun
from rootless.builder.steps import config_steps, run_step
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.builder.context.contexts import Context
    from rootless.builder.dockerfile.graph import Graph, Node
    from rootless.builder.dockerfile.instructions import Instruction
    from rootless.builder.session.build_session import BuildSession
    from rootless.builder.session.build_state import BuildState
    from rootless.builder.session.tracker import Step
    from rootless.builder.steps.run_mounts import Finder

_WORK = (Run, Copy, Add, Workdir)


class StageFinder(Protocol):
    """Finds what `from=NAME` of an instruction means."""

    def __call__(self, name: str, instruction: Instruction) -> BuildState | Context:
        """The state of the stage or image `name`, or the context of that name; "" is the build context.

        instruction: the one that names it, for errors. Raises DockerfileError, UsageError.
        """


class StepError(RootlessError):
    """A step that failed.

    place, excerpt: where it stands; before: the state before it, which `--debug-shell` enters. exit_code is that of the
    step's command, where a command failed.
    """

    def __init__(self, error: RootlessError, title: str, instruction: Instruction, before: BuildState) -> None:
        place = instruction.place
        hint = error.hint
        if isinstance(error, run_step.StepFailed):
            hint = "`--debug-shell` enters the state before this step"
        # The message of a DockerfileError begins with its place already
        why = error.problem if isinstance(error, DockerfileError) else error.message
        super().__init__(f"{place}: {title}: {why}", hint=hint)
        self.exit_code = getattr(error, "status", error.exit_code)
        self.excerpt = error.excerpt or excerpt(place)
        self.before = before
        self.place = place


class StageRun:
    """Carries out one node of the graph. is_only: no other stage is built, so that titles need not name this one.

    may_be_absent: the layers of its steps need not be in the store.
    """

    def __init__(
        self, session: BuildSession, graph: Graph, node: Node, *, is_only: bool, may_be_absent: bool = False
    ) -> None:
        self._session = session
        self._may_be_absent = may_be_absent
        self._graph = graph
        self._node = node
        self._escape = graph.dockerfile.directives.escape
        name = node.stage.name or ("" if is_only else f"stage-{node.stage.position}")
        self._label = f"{name} " if name else ""
        self._name = node.stage.name or str(node.stage.position)

    @property
    def label(self) -> str:
        """What the titles of this stage's steps begin with: its name and a space, or ""."""
        return self._label

    def carry_out(self, base: BuildState, finder: StageFinder, build_args: dict[str, str]) -> BuildState:
        """The state after the last instruction. Raises StepError, LayersMissing.

        base: the state that the stage stands on, whose ONBUILD triggers the node has; build_args: values of
        --build-arg.
        """
        state = base._replace(config={k: v for k, v in base.config.items() if k != "OnBuild"}, has_cmd=False)
        scope = expand.Scope(
            escape=self._escape,
            environment=expand.environment(state.env),
            global_args=self._graph.global_args,
            build_args=build_args,
            inherited=base.arguments,
        )
        scope.declared |= base.declared
        instructions = self._node.instructions
        self._check(scope.copy())
        count = 1 + sum(isinstance(each, _WORK) for each in instructions)
        position = 1
        for written in instructions:
            before = state
            step: Step | None = None
            if isinstance(written, _WORK):
                position += 1
                step = self._session.tracker.start(texts.step_title(self._label, position, count, written))
            try:
                final = scope.expand(written)
                if step is not None:
                    created_by = texts.created_by(written, final, state.shell)
                    run = StepRun(self._session, state, created_by, self._name, step, self._may_be_absent)
                    state = _work(run, final, partial(finder, instruction=written), scope)
                else:
                    state = config_steps.apply(state, final, texts.created_by(written, final, state.shell))
                scope.enter(final)
            except StepError:
                raise
            except LayersMissing:
                if step is not None:
                    step.done("the stages that it needs come first")
                raise
            except RootlessError as e:
                if step is not None:
                    step.error(e.message)
                raise StepError(e, step.title if step is not None else name_of(written), written, before) from e
        return state._replace(arguments=dict(scope.arguments), declared=frozenset(scope.declared))

    def _check(self, scope: expand.Scope) -> None:
        """Report what the checks find in the stage, before its first step. scope: a copy for this purpose.

        Raises DockerfileError where findings are errors.
        """
        checks.findings_in_stage(self._node.triggers, scope, None)  # what a trigger does wrong is its author's affair
        is_ignored = self._session.contexts[""].static_rules()
        own = self._node.instructions[len(self._node.triggers) :]
        self._session.report(checks.findings_in_stage(own, scope, is_ignored))


def _work(run: StepRun, instruction: Instruction, find: Finder, scope: expand.Scope) -> BuildState:
    """The state after an instruction, expanded, that may make a layer. Raises RootlessError."""
    if isinstance(instruction, Run):
        arguments = {n: v for n, v in scope.variables.items() if n in scope.arguments}
        return run_step.run(run, instruction, arguments, find)
    # This is not imported at the top, because a Dockerfile with nothing but RUN needs none of what files need
    from rootless.builder.steps import copy_step

    if isinstance(instruction, Workdir):
        return copy_step.workdir(run, instruction)
    assert isinstance(instruction, Copy | Add)
    return copy_step.copy(run, instruction, find)
