"""Stages become a graph: what each needs, which are needed at all, in which order. Pure.

FROM sees the stages above it; COPY --from and RUN --mount=from= see all of them, as in BuildKit. A cycle is an error.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from rootless.build import expand
from rootless.build.instructions import Arg, Copy, Dockerfile, From, Instruction, Run, Stage
from rootless.build.problems import DockerfileError, Place, did_you_mean
from rootless.errors import UsageError
from rootless.image.platform import Platform, parse_platform

SCRATCH = "scratch"


class Source(NamedTuple):
    """Where files come from: a `stage` (its index), an `image` (its reference), `scratch`, or a named `context`."""

    kind: str
    stage: int | None
    name: str


class Node(NamedTuple):
    """A stage that is built. `needs` are the indices of the stages it stands on or copies from, all before it.

    `platform` is what FROM --platform asks for, None without it. When `base` is a named context that replaces the
    stage, its instructions are left out.
    """

    stage: Stage
    base: Source
    uses: tuple[Source, ...]
    needs: frozenset[int]
    platform: Platform | None

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """What is carried out on the base."""
        return () if self.base.kind == "context" and self.base.name == self.stage.name else self.stage.instructions


class Graph(NamedTuple):
    """`order` are the needed stages, dependencies first; stages that do not need each other may run side by side."""

    dockerfile: Dockerfile
    order: tuple[Node, ...]
    target: Node
    global_args: dict[str, str]
    unused_build_args: tuple[str, ...]
    contexts: frozenset[str]

    def resolve(self, name: str, place: Place) -> Source:
        """What `--from=name` means. Raises DockerfileError for an index that is no stage."""
        return _resolve(name, place, self.dockerfile.stages, self.contexts)

    def node(self, index: int) -> Node:
        """The needed stage of that index."""
        return next(node for node in self.order if node.stage.position == index)


def plan(
    dockerfile: Dockerfile,
    *,
    target: str = "",
    build_args: Mapping[str, str] | None = None,
    contexts: Collection[str] = (),
    target_platform: Platform,
    build_platform: Platform,
) -> Graph:
    """The graph of what `target` (a stage's name or index, "" for the last stage) needs.

    Raises DockerfileError, and UsageError for a target that does not exist.
    """
    build_args = build_args or {}
    stages = dockerfile.stages
    wanted = _target(stages, target)
    automatic = expand.platform_args(target_platform, build_platform, target)
    values = expand.global_args(
        dockerfile.global_args, escape=dockerfile.directives.escape, automatic=automatic, build_args=build_args
    )
    names = frozenset(name.lower() for name in contexts)
    nodes = [_node(dockerfile, stage, values, names) for stage in stages]
    order = _order(nodes, wanted.position)
    unused = _unused(build_args, dockerfile.global_args, order)
    return Graph(dockerfile, order, nodes[wanted.position], values, unused, names)


def _target(stages: tuple[Stage, ...], target: str) -> Stage:
    if not target:
        return stages[-1]
    found = _find(target, stages)
    if found is None:
        names = [stage.name for stage in stages if stage.name]
        hint = f"the stages are {', '.join(names)}" if names else "no stage of this Dockerfile has a name"
        raise UsageError(f"no build stage '{target}'{did_you_mean(target, names)}", hint=hint)
    return found


def _find(name: str, stages: tuple[Stage, ...]) -> Stage | None:
    """By name (the last of that name) or index."""
    for stage in reversed(stages):
        if stage.name and stage.name == name.lower():
            return stage
    if name.isascii() and name.isdigit() and len(name) < 7 and int(name) < len(stages):
        return stages[int(name)]
    return None


def _resolve(name: str, place: Place, stages: tuple[Stage, ...], contexts: frozenset[str]) -> Source:
    found = _find(name, stages)
    if found is not None:
        return Source("stage", found.position, name)
    if name.isascii() and name.isdigit():
        raise DockerfileError(place, f"no build stage {name}", hint=f"there are {len(stages)}, counted from 0")
    context = _context(name, contexts)
    if context:
        return Source("context", None, context)
    if name == SCRATCH:
        return Source("scratch", None, name)
    return Source("image", None, name)


def _node(dockerfile: Dockerfile, stage: Stage, values: Mapping[str, str], contexts: frozenset[str]) -> Node:
    start = stage.start
    escape = dockerfile.directives.escape
    platform = _platform(start, values, escape)
    if stage.name and stage.name in contexts:
        return Node(stage, Source("context", None, stage.name), (), frozenset(), platform)
    base = _base(
        start, expand.word(start.base, values, start.place, escape), dockerfile.stages, stage.position, contexts
    )
    uses = tuple(
        dict.fromkeys(_resolve(name, place, dockerfile.stages, contexts) for name, place in froms(stage.instructions))
    )
    needs = frozenset(source.stage for source in (base, *uses) if source.stage is not None)
    if stage.position in needs:
        place = next(p for n, p in froms(stage.instructions) if _is_stage(n, dockerfile.stages, stage.position))
        raise DockerfileError(place, f"stage '{stage.name or stage.position}' copies from itself")
    return Node(stage, base, uses, needs, platform)


def _context(name: str, contexts: frozenset[str]) -> str:
    """The named context that stands for `name`: a context `alpine` is also that of alpine:latest, and the other way."""
    short = name.lower().removeprefix("docker.io/").removeprefix("library/")
    for one in (name.lower(), short, short.removesuffix(":latest"), f"{short}:latest"):
        if one in contexts:
            return one
    return ""


def _is_stage(name: str, stages: tuple[Stage, ...], index: int) -> bool:
    found = _find(name, stages)
    return found is not None and found.position == index


def _platform(start: From, values: Mapping[str, str], escape: str) -> Platform | None:
    text = expand.word(start.platform, values, start.place, escape)
    if not text:
        if start.platform:
            raise DockerfileError(start.place, f"--platform: '{start.platform[:100]}' is empty")
        return None
    try:
        return parse_platform(text)
    except UsageError as e:
        raise DockerfileError(start.place, e.message, hint=e.hint) from None


def _base(start: From, name: str, stages: tuple[Stage, ...], index: int, contexts: frozenset[str]) -> Source:
    """Only the stages above count, and no indices: `FROM 0` is an image named 0."""
    if not name:
        raise DockerfileError(
            start.place,
            f"FROM: '{start.base[:100]}' is empty",
            hint="give it a value: ARG NAME=value before the first FROM, or --build-arg NAME=value",
        )
    for stage in reversed(stages[:index]):
        if stage.name and stage.name == name.lower():
            return Source("stage", stage.position, name)
    context = _context(name, contexts)
    if context:
        return Source("context", None, context)
    if name == SCRATCH:
        return Source("scratch", None, name)
    return Source("image", None, name)


def froms(instructions: Iterable[Instruction]) -> list[tuple[str, Place]]:
    """Every name behind --from= and from=, with its place."""
    found = []
    for instruction in instructions:
        if isinstance(instruction, Copy) and instruction.from_:
            found.append((instruction.from_, instruction.place))
        elif isinstance(instruction, Run):
            found += [(mount.from_, instruction.place) for mount in instruction.mounts if mount.from_]
    return found


def _order(nodes: list[Node], target: int) -> tuple[Node, ...]:
    """Depth first without recursion: a Dockerfile may have more stages than Python has stack."""
    order: list[Node] = []
    done: set[int] = set()
    path: dict[int, None] = {}
    stack = [target]
    while stack:
        index = stack[-1]
        if index in done:
            stack.pop()
            continue
        path[index] = None
        waiting = [need for need in sorted(nodes[index].needs, reverse=True) if need not in done]
        circular = next((need for need in waiting if need in path), None)
        if circular is not None:
            _raise_cycle(nodes, [*list(path)[list(path).index(circular) :], circular])
        if waiting:
            stack.append(waiting[-1])
            continue
        stack.pop()
        path.pop(index)
        done.add(index)
        order.append(nodes[index])
    return tuple(order)


def _raise_cycle(nodes: list[Node], indices: list[int]) -> None:
    stages = tuple(node.stage for node in nodes)
    place = next(  # FROM looks only upwards, so some step of the way is a --from
        place
        for index, following in itertools.pairwise(indices)
        for name, place in froms(nodes[index].stage.instructions)
        if _is_stage(name, stages, following)
    )
    names = " → ".join(f"'{nodes[index].stage.name or index}'" for index in indices)
    raise DockerfileError(place, f"stages need each other: {names}")


def _unused(build_args: Mapping[str, str], global_args: Iterable[Arg], order: Iterable[Node]) -> tuple[str, ...]:
    declared = {pair.name for arg in global_args for pair in arg.pairs}
    for node in order:
        declared |= {pair.name for one in node.instructions if isinstance(one, Arg) for pair in one.pairs}
    return tuple(name for name in build_args if name not in declared and not expand.is_predefined(name))
