"""Carries out the stages of a graph: those that do not need each other side by side, each in a thread.

The threads only hash, plan and wait, because what a step does happens in worker processes. The first failure ends the
build: the workers of the other stages are closed, which wakes the threads that wait for them.
"""

from __future__ import annotations

import os
import queue
import threading

from rootless.builder.session.build_state import BuildState
from rootless.builder.steps import bases
from rootless.builder.steps.stage import StageRun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.builder.context.contexts import Context
    from rootless.builder.dockerfile.graph import Graph, Node, Source
    from rootless.builder.dockerfile.instructions import Instruction
    from rootless.builder.session.build_session import BuildSession
    from rootless.builder.session.tracker import Step
    from rootless.image.platform import Platform


class Solver:
    """Carries out one graph for one platform. build_args: the values of --build-arg."""

    def __init__(self, session: BuildSession, graph: Graph, platform: Platform, build_args: dict[str, str]) -> None:
        self._session = session
        self._graph = graph
        self._platform = platform
        self._build_args = build_args
        self._states: dict[int, BuildState] = {}
        self._images: dict[tuple[str, str], BuildState] = {}
        self._lock = threading.Lock()
        self._image_lock = threading.Lock()

    def solve(self) -> BuildState:
        """Carry out every needed stage; return the state of the target. Raises what the first failing step raises."""
        order = self._graph.order
        jobs = self._session.options.jobs or os.cpu_count() or 1
        if jobs == 1 or len(order) == 1:
            for node in order:
                self._states[node.stage.position] = self._stage(node)
        else:
            self._in_threads(jobs)
        return self._states[self._graph.target.stage.position]

    def _in_threads(self, jobs: int) -> None:
        waiting = {node.stage.position: node for node in self._graph.order}
        ended: queue.SimpleQueue[tuple[int, BuildState | BaseException]] = queue.SimpleQueue()
        running = 0

        def work(node: Node) -> None:
            try:
                ended.put((node.stage.position, self._stage(node)))
            except BaseException as e:  # handed to the caller's thread, which raises it
                ended.put((node.stage.position, e))

        failure: BaseException | None = None
        while waiting or running:
            ready = [n for n in waiting.values() if n.needs <= self._states.keys()] if failure is None else []
            for node in ready[: jobs - running]:
                del waiting[node.stage.position]
                threading.Thread(target=work, args=(node,), daemon=True).start()
                running += 1
            if not running:
                break
            index, result = ended.get()
            running -= 1
            if not isinstance(result, BaseException):
                with self._lock:
                    self._states[index] = result
            elif failure is None:
                failure = result
                self._session.workers.close()  # this ends what the other stages run; their errors are dropped
        if failure is not None:
            raise failure

    def _stage(self, node: Node) -> BuildState:
        stage = StageRun(self._session, self._graph, node, is_only=len(self._graph.order) == 1)
        base = self._base(node, stage.label)
        return stage.carry_out(base, self._finder, self._build_args)

    def _base(self, node: Node, label: str) -> BuildState:
        platform = node.platform or self._platform
        source = node.base
        if source.kind == "stage":
            assert source.stage is not None
            return self._states[source.stage]
        if source.kind == "scratch":
            return bases.scratch(self._session, platform)
        count = 1 + sum(type(each).__name__ in ("Run", "Copy", "Add", "Workdir") for each in node.instructions)
        step = self._session.tracker.start(f"[{label}1/{count}] FROM {source.name}")
        found = self._named(source, platform, step)
        if isinstance(found, BuildState):
            step.done()
            return found
        # A named context is a directory in the place of an image, and its files become the root
        return bases.from_directory(self._session, found, bases.scratch(self._session, platform), step)

    def _finder(self, name: str, instruction: Instruction) -> BuildState | Context:
        if not name:
            return self._session.contexts[""]
        source = self._graph.resolve(name, instruction.place)
        if source.kind == "stage":
            assert source.stage is not None
            with self._lock:
                if source.stage in self._states:
                    return self._states[source.stage]
            # Only an ONBUILD trigger of the base can name a stage that is not there: the plan was made before the base
            # was read
            from rootless.errors import UsageError

            raise UsageError(f"stage '{name}' is not built before this one", hint="name it in the Dockerfile itself")
        if source.kind == "scratch":
            return bases.scratch(self._session, self._platform)
        return self._named(source, self._platform, None)

    def _named(self, source: Source, platform: Platform, step: Step | None) -> BuildState | Context:
        if source.kind == "context":
            return bases.named(self._session, source.name, platform, step)
        key = source.name, str(platform)
        with self._image_lock:
            if key not in self._images:
                self._images[key] = bases.image(self._session, source.name, platform, step)
            return self._images[key]
