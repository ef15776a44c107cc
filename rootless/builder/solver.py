"""Carries out the stages of a graph: those that do not need each other side by side, each in a thread.

The threads only hash, plan and wait, because what a step does happens in worker processes. The first failure ends the
build: the workers of the other stages are closed, which wakes the threads that wait for them. Which stages are needed
may show late: an ONBUILD trigger of a base image may copy from one that nothing else needs.

A stage that a cache of --cache-from knows is not built, and its layers are not fetched, before a step wants its files.
Both stages are carried out anew then, so that everything has its keys from what was built.
"""

from __future__ import annotations

import os
import queue
import threading

from rootless.builder.dockerfile.parser import parse_triggers
from rootless.builder.session.build_session import LayersMissing
from rootless.builder.session.build_state import BuildState
from rootless.builder.steps import bases
from rootless.builder.steps.stage import StageRun
from rootless.image import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

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
        self._bases: dict[int, BuildState] = {}  # what stages stand on that have not ended yet
        self._images: dict[tuple[str, str], BuildState] = {}
        self._wanted = {graph.target.stage.position}  # the stages whose layers must be in the store
        self._lock = threading.Lock()
        self._image_lock = threading.Lock()

    def solve(self) -> BuildState:
        """Carry out every needed stage; return the state of the target. Raises what the first failing step raises."""
        jobs = self._session.options.jobs or os.cpu_count() or 1
        if jobs == 1 or len(self._graph.order) == 1:
            while ready := self._ready(frozenset()):
                self._note(ready[0].stage.position, self._stage(ready[0]))
        else:
            self._in_threads(jobs)
        return self._states[self._graph.target.stage.position]

    @property
    def graph(self) -> Graph:
        """The graph with the triggers of all bases that are known by now."""
        return self._graph

    def _ready(self, begun: Collection[int]) -> list[Node]:
        """The needed stages that can be carried out now, without those that have `begun` (indices)."""
        with self._lock:
            return [
                node
                for node in self._graph.order
                if node.stage.position not in self._states
                and node.stage.position not in begun
                and node.needs <= self._states.keys()
            ]

    def _note(self, index: int, state: BuildState | None) -> None:
        if state is not None:
            with self._lock:
                self._states[index] = state

    def _in_threads(self, jobs: int) -> None:
        ended: queue.SimpleQueue[tuple[int, BuildState | BaseException | None]] = queue.SimpleQueue()
        running: set[int] = set()

        def work(node: Node) -> None:
            try:
                ended.put((node.stage.position, self._stage(node)))
            except BaseException as e:  # handed to the caller's thread, which raises it
                ended.put((node.stage.position, e))

        failure: BaseException | None = None
        while True:
            ready = self._ready(running) if failure is None else []
            for node in ready[: jobs - len(running)]:
                running.add(node.stage.position)
                threading.Thread(target=work, args=(node,), daemon=True).start()
            if not running:
                break
            index, result = ended.get()
            running.discard(index)
            if not isinstance(result, BaseException):
                self._note(index, result)
            elif failure is None:
                failure = result
                self._session.workers.close()  # this ends what the other stages run; their errors are dropped
        if failure is not None:
            raise failure

    def _stage(self, node: Node) -> BuildState | None:
        """The state at the end of a stage. None where the stage is to be carried out again, after stages that it needs:
        the ONBUILD triggers of its base may need further ones, which the graph has then, and files may be wanted of
        stages whose layers are not in the store."""
        index = node.stage.position
        with self._lock:
            base = self._bases.get(index)
            if base is not None and node.base.stage is not None:
                base = self._states.get(node.base.stage)
                if base is None:
                    return None
        if base is None:
            label = StageRun(self._session, self._graph, node, is_only=len(self._graph.order) == 1).label
            base = self._base(node, label)
            texts = fields.texts_member(base.config, "OnBuild") or []
            triggers = parse_triggers(texts, node.base.name, self._graph.dockerfile.directives.escape)
            with self._lock:
                self._bases[index] = base
                if triggers:
                    self._graph = self._graph.with_triggers(index, triggers)
                    node = self._graph.node(index)
                    if not node.needs <= self._states.keys():
                        return None
        may_be_absent = index not in self._wanted
        is_only = len(self._graph.order) == 1
        stage = StageRun(self._session, self._graph, node, is_only=is_only, may_be_absent=may_be_absent)
        try:
            state = stage.carry_out(base, self._finder, self._build_args)
            if not may_be_absent:
                self._session.require_layers(state)
        except LayersMissing as e:
            self._want(node, e.state)
            return None
        return state

    def _want(self, node: Node, missing: BuildState | None) -> None:
        """Have the layers `missing` made for the stage `node`, by which of the stages that it needs has them, and have
        the stage carried out anew; None for a state that is being made. Raises HostLimit when that was tried."""
        index = node.stage.position
        with self._lock:
            is_new = missing is None or index not in self._wanted
            self._wanted.add(index)
            for needed in node.needs:
                state = self._states.get(needed)
                if state is None:
                    is_new = True  # another stage wants it, and it is being carried out anew
                elif (
                    missing is not None
                    and state.chain_ids == missing.chain_ids[: len(state.layers)]
                    and not self._session.has_layers(state.chain_ids)
                ):
                    del self._states[needed]
                    self._wanted.add(needed)
                    is_new = True
        if not is_new:
            from rootless.errors import HostLimit

            raise HostLimit("layers have gone from the store while the build used them", hint="build again")

    def _base(self, node: Node, label: str) -> BuildState:
        platform = node.platform or self._platform
        source = node.base
        if source.kind == "stage":
            assert source.stage is not None
            return self._states[source.stage]
        if source.kind == "scratch":
            return bases.scratch_state(self._session, platform)
        count = 1 + sum(type(each).__name__ in ("Run", "Copy", "Add", "Workdir") for each in node.instructions)
        step = self._session.tracker.start(f"[{label}1/{count}] FROM {source.name}")
        found = self._named(source, platform, step)
        if isinstance(found, BuildState):
            step.done()
            return found
        # A named context is a directory in the place of an image, and its files become the root
        return bases.from_directory(self._session, found, bases.scratch_state(self._session, platform), step)

    def _finder(self, name: str, instruction: Instruction) -> BuildState | Context:
        if not name:
            return self._session.contexts[""]
        source = self._graph.resolve(name, instruction.place)
        if source.kind == "stage":
            assert source.stage is not None
            with self._lock:
                state = self._states.get(source.stage)
            if state is None:
                raise LayersMissing(None)  # it is being carried out anew
            return state
        if source.kind == "scratch":
            return bases.scratch_state(self._session, self._platform)
        return self._named(source, self._platform, None)

    def _named(self, source: Source, platform: Platform, step: Step | None) -> BuildState | Context:
        if source.kind == "context":
            return bases.named_context(self._session, source.name, platform, step)
        key = source.name, str(platform)
        with self._image_lock:
            if key not in self._images:
                self._images[key] = bases.image_state(self._session, source.name, platform, step)
            return self._images[key]
