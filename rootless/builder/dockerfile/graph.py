"""The stages of a Dockerfile become a graph: what each needs, which are needed at all, and in which order. Pure.

FROM sees the stages above it; COPY --from and RUN --mount=from= see all of them, as in BuildKit. A cycle is an error.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from rootless.builder.dockerfile import expand
from rootless.builder.dockerfile.instructions import Arg, Copy, Dockerfile, From, Instruction, Run, Stage
from rootless.builder.dockerfile.problems import DockerfileError, Place, did_you_mean
from rootless.errors import UsageError
from rootless.image.platform import Platform, parse_platform

SCRATCH = "scratch"
_LONGEST_NAME = 4096


class Source(NamedTuple):
    """Where files come from.

    kind: "stage", "image", "scratch" or "context"; stage: the index of a stage, None for other kinds; name: as it is
    written, an image's reference, or the name of a context.
    """

    kind: str
    stage: int | None
    name: str


class Node(NamedTuple):
    """A stage that is built.

    base: what it stands on; uses: what it copies from or mounts; needs: the indices of the stages among these, which
    are built before it; platform: of FROM --platform, None without. Where `base` is a named context that replaces the
    stage, the stage's instructions are left out. triggers: the ONBUILD instructions of the base, which come first; they
    are known only when the base is there (`Graph.with_triggers`).
    """

    stage: Stage
    base: Source
    uses: tuple[Source, ...]
    needs: frozenset[int]
    platform: Platform | None
    triggers: tuple[Instruction, ...] = ()

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """The instructions that are carried out on the base."""
        is_replaced = self.base.kind == "context" and self.base.name == self.stage.name
        return self.triggers if is_replaced else (*self.triggers, *self.stage.instructions)


class Graph(NamedTuple):
    """What is built of a Dockerfile.

    nodes: all stages, by index; order: the needed ones, each behind those that it needs; stages that do not need each
    other may run side by side. target: the stage whose state is the result; global_args: the values of the ARGs before
    the first FROM; build_args: the names of --build-arg.
    """

    dockerfile: Dockerfile
    nodes: tuple[Node, ...]
    order: tuple[Node, ...]
    target: Node
    global_args: dict[str, str]
    build_args: tuple[str, ...]
    names: _Names

    @property
    def unused_build_args(self) -> tuple[str, ...]:
        """The names of --build-arg that nothing declares, neither an ARG of a needed stage nor BuildKit itself."""
        declared = {pair.name for arg in self.dockerfile.global_args for pair in arg.pairs}
        for node in self.order:
            declared |= {pair.name for one in node.instructions if isinstance(one, Arg) for pair in one.pairs}
        return tuple(name for name in self.build_args if name not in declared and not expand.is_predefined(name))

    def resolve(self, name: str, place: Place) -> Source:
        """What `--from=name` at `place` means. Raises DockerfileError for an index that is no stage."""
        return self.names.resolve(name, place)

    def node(self, index: int) -> Node:
        """The stage whose index is `index`."""
        return self.nodes[index]

    def with_triggers(self, index: int, triggers: Sequence[Instruction]) -> Graph:
        """The graph in which the stage `index` begins with `triggers`, the ONBUILD instructions of its base.

        What they copy from or mount is needed before that stage: further stages may have to be built, of which the file
        itself shows no need. Raises DockerfileError for a cycle, and for an index that is no stage.
        """
        node = _using(self.nodes[index]._replace(triggers=tuple(triggers)), self.names)
        nodes = tuple(node if each.stage.position == index else each for each in self.nodes)
        target = self.target.stage.position
        return self._replace(nodes=nodes, order=_order(nodes, self.names, target), target=nodes[target])


class _Names(NamedTuple):
    """What names mean. stages: the index of the last stage of each name; total: of all stages; contexts: names of
    --build-context in lower case."""

    stages: dict[str, int]
    total: int
    contexts: frozenset[str]

    def stage(self, name: str) -> int | None:
        """The index of the stage that has this name or index; None when there is none."""
        found = self.stages.get(name.lower())
        if found is None and name.isascii() and name.isdigit() and len(name) < 7 and int(name) < self.total:
            return int(name)
        return found

    def resolve(self, name: str, place: Place) -> Source:
        """What `--from=name` means: a stage, a named context, scratch or an image. Raises DockerfileError."""
        found = self.stage(name)
        if found is not None:
            return Source("stage", found, name)
        if name.isascii() and name.isdigit():
            raise DockerfileError(place, f"no build stage {name[:20]}", hint=f"there are {self.total}, counted from 0")
        return self.outside(name)

    def outside(self, name: str) -> Source:
        """The named context, scratch or image that `name` means. A context `alpine` replaces alpine:latest too, and a
        context `alpine:latest` replaces alpine."""
        short = name.lower().removeprefix("docker.io/").removeprefix("library/")
        for one in (name.lower(), short, short.removesuffix(":latest"), f"{short}:latest"):
            if one in self.contexts:
                return Source("context", None, one)
        return Source(SCRATCH if name == SCRATCH else "image", None, name)


class Wanted(NamedTuple):
    """What is to be built of a Dockerfile: for which platform, and on which.

    target: a stage's name or index, "" for the last stage; build_args: values of --build-arg; contexts: names of
    --build-context.
    """

    target_platform: Platform
    build_platform: Platform
    target: str = ""
    build_args: Mapping[str, str] = MappingProxyType({})
    contexts: Collection[str] = ()


def plan(dockerfile: Dockerfile, wanted: Wanted) -> Graph:
    """The graph of what the wanted target needs. Raises DockerfileError, UsageError: there is no such target."""
    stages = dockerfile.stages
    names = _Names(
        {stage.name: stage.position for stage in stages if stage.name},
        len(stages),
        frozenset(name.lower() for name in wanted.contexts),
    )
    target = _target(names, wanted.target)
    automatic = expand.platform_args(wanted.target_platform, wanted.build_platform, wanted.target)
    values = expand.global_args(
        dockerfile.global_args, escape=dockerfile.directives.escape, automatic=automatic, build_args=wanted.build_args
    )
    nodes: list[Node] = []
    above: dict[str, int] = {}
    for stage in stages:
        nodes.append(_node(stage, names, above, values, dockerfile.directives.escape))
        if stage.name:
            above[stage.name] = stage.position
    order = _order(nodes, names, target)
    return Graph(dockerfile, tuple(nodes), order, nodes[target], values, tuple(wanted.build_args), names)


def _target(names: _Names, target: str) -> int:
    if not target:
        return names.total - 1
    found = names.stage(target)
    if found is None:
        known = list(names.stages)
        hint = f"the stages are {', '.join(known)}" if known else "no stage of this Dockerfile has a name"
        raise UsageError(f"no build stage '{target}'{did_you_mean(target, known)}", hint=hint)
    return found


def _node(stage: Stage, names: _Names, above: Mapping[str, int], values: Mapping[str, str], escape: str) -> Node:
    start = stage.start
    platform = _platform(start, values, escape)
    if stage.name and stage.name in names.contexts:
        return Node(stage, Source("context", None, stage.name), (), frozenset(), platform)
    base = _base(start, expand.expand_word(start.base, values, start.place, escape), names, above)
    return _using(Node(stage, base, (), frozenset(), platform), names)


def _using(node: Node, names: _Names) -> Node:
    """The node with what its instructions use, and the stages that it needs for that. Raises DockerfileError."""
    stage, named = node.stage, from_names(node.instructions)
    uses = tuple(dict.fromkeys(names.resolve(name, place) for name, place in named))
    needs = frozenset(source.stage for source in (node.base, *uses) if source.stage is not None)
    if stage.position in needs:
        place = next(place for name, place in named if names.stage(name) == stage.position)
        raise DockerfileError(place, f"stage '{stage.name or stage.position}' copies from itself")
    return node._replace(uses=uses, needs=needs)


def _platform(start: From, values: Mapping[str, str], escape: str) -> Platform | None:
    text = expand.expand_word(start.platform, values, start.place, escape)
    if not text:
        if start.platform:
            raise DockerfileError(start.place, f"--platform: '{start.platform[:100]}' is empty")
        return None
    try:
        return parse_platform(text)
    except UsageError as e:
        raise DockerfileError(start.place, e.message, hint=e.hint) from None


def _base(start: From, name: str, names: _Names, above: Mapping[str, int]) -> Source:
    """What FROM `name` means: one of the stages `above`, or something outside of the Dockerfile.

    An index names no stage here: `FROM 0` is an image named 0. Raises DockerfileError.
    """
    if not name:
        raise DockerfileError(
            start.place,
            f"FROM: '{start.base[:100]}' is empty",
            hint="give it a value: ARG NAME=value before the first FROM, or --build-arg NAME=value",
        )
    if len(name) > _LONGEST_NAME:
        raise DockerfileError(start.place, f"FROM: a name of {len(name)} characters")
    found = above.get(name.lower())
    return names.outside(name) if found is None else Source("stage", found, name)


def from_names(instructions: Iterable[Instruction]) -> list[tuple[str, Place]]:
    """Every name that stands behind a --from= of COPY or a from= of RUN --mount, with its place."""
    found = []
    for instruction in instructions:
        if isinstance(instruction, Copy) and instruction.from_:
            found.append((instruction.from_, instruction.place))
        elif isinstance(instruction, Run):
            found += [(mount.from_, instruction.place) for mount in instruction.mounts if mount.from_]
    return found


def _order(nodes: Sequence[Node], names: _Names, target: int) -> tuple[Node, ...]:
    """The needed stages, each behind those that it needs. Raises DockerfileError for a cycle.

    The search is depth first, without recursion: a Dockerfile may have more stages than Python's stack has frames.
    """
    order: list[Node] = []
    done: set[int] = set()
    waiting = {target: iter(sorted(nodes[target].needs))}  # the stages from the target down, with what each still needs
    while waiting:
        index = next(reversed(waiting))
        need = next((need for need in waiting[index] if need not in done), None)
        if need is None:
            del waiting[index]
            done.add(index)
            order.append(nodes[index])
        elif need in waiting:
            way = list(waiting)
            _raise_cycle(nodes, names, [*way[way.index(need) :], need])
        else:
            waiting[need] = iter(sorted(nodes[need].needs))
    return tuple(order)


def _raise_cycle(nodes: Sequence[Node], names: _Names, indices: list[int]) -> None:
    place = next(  # FROM names only stages above it, so every cycle has a --from, whose place the error shows
        place
        for index, following in itertools.pairwise(indices)
        for name, place in from_names(nodes[index].instructions)
        if names.stage(name) == following
    )
    way = [f"'{nodes[index].stage.name or index}'" for index in indices]
    shown = way if len(way) < 10 else [*way[:4], "…", *way[-4:]]
    raise DockerfileError(place, f"stages need each other: {' → '.join(shown)}")
