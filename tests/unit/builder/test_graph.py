"""Stages as a graph: references, targets, order, cycles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.builder.dockerfile import graph
from rootless.builder.dockerfile.graph import Graph, Source, Wanted
from rootless.builder.dockerfile.parser import parse, parse_triggers
from rootless.builder.dockerfile.problems import DockerfileError
from rootless.errors import UsageError
from rootless.image.platform import Platform

LINUX = Platform("linux", "amd64")


def plan(text: str, target: str = "", contexts: tuple[str, ...] = (), **build_args: str) -> Graph:
    return graph.plan(parse(text), Wanted(Platform("linux", "arm64", "v8"), LINUX, target, build_args, contexts))


def names(found: Graph) -> list[str]:
    return [node.stage.name or str(node.stage.position) for node in found.order]


def test_only_what_the_target_needs_is_built() -> None:
    text = "FROM x AS a\nFROM a AS b\nFROM y AS unneeded\nFROM scratch\nCOPY --from=b /1 /\nCOPY --from=0 /2 /\n"
    assert names(plan(text)) == ["a", "b", "3"]
    assert names(plan(text, target="b")) == ["a", "b"]
    assert names(plan(text, target="B")) == ["a", "b"]
    assert names(plan(text, target="2")) == ["unneeded"]
    assert plan(text).target.base == Source("scratch", None, "scratch")


def test_independent_stages_need_nothing_of_each_other() -> None:
    found = plan("FROM x AS a\nFROM x AS b\nFROM x\nCOPY --from=a 1 2\nRUN --mount=from=b,target=/b true\n")
    needs = {node.stage.name: node.needs for node in found.order}
    assert needs == {"a": frozenset(), "b": frozenset(), "": frozenset({0, 1})}
    assert found.node(2).uses == (Source("stage", 0, "a"), Source("stage", 1, "b"))


def test_a_target_that_is_not_there_is_told_with_its_neighbour() -> None:
    with pytest.raises(UsageError) as caught:
        plan("FROM x AS build\nFROM x AS test\n", target="biuld")
    assert str(caught.value) == "no build stage 'biuld' (did you mean build?) (the stages are build, test)"


def test_from_sees_only_the_stages_above() -> None:
    found = plan("FROM node AS app\nFROM x AS node\nCOPY --from=app a b\n")
    assert found.order[0].base == Source("image", None, "node")
    assert plan("FROM 0\n").target.base == Source("image", None, "0")  # an index is no name of an image's base
    twice = plan("FROM x AS a\nFROM y AS a\nFROM a\n")
    assert twice.target.base.stage == 1


def test_triggers_of_a_base_bring_further_stages_in() -> None:
    text = "FROM x AS src\nFROM y AS other\nCOPY --from=src 1 2\nFROM base\nRUN true\n"
    found = plan(text)
    assert names(found) == ["2"]
    triggers = parse_triggers(["COPY --from=src 1 2", "RUN --mount=from=other,target=/m true"], "base")
    more = found.with_triggers(2, triggers)
    assert names(more) == ["src", "other", "2"]
    assert more.target.needs == {0, 1} and more.target == more.node(2)
    assert more.target.instructions == (*triggers, *found.target.instructions)
    assert names(found) == ["2"]


@pytest.mark.parametrize(
    ("trigger", "problem"),
    [
        ("COPY --from=last 1 2", "stages need each other: 'last' → 'first' → 'last'"),
        ("COPY --from=first 1 2", "stage 'first' copies from itself"),
        ("COPY --from=7 1 2", "no build stage 7"),
    ],
)
def test_triggers_of_a_base_that_close_a_cycle_are_refused(trigger: str, problem: str) -> None:
    found = plan("FROM base AS first\nFROM x AS last\nCOPY --from=first 1 2\n")
    with pytest.raises(DockerfileError, match=problem):
        found.with_triggers(0, parse_triggers([trigger], "base"))


def test_copy_sees_stages_below_too() -> None:
    found = plan("FROM x AS a\nCOPY --from=b 1 2\nFROM x AS b\nFROM a\n")
    assert names(found) == ["b", "a", "2"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("FROM x AS a\nCOPY --from=a 1 2\n", "Dockerfile:2: stage 'a' copies from itself"),
        ("FROM x AS a\nRUN --mount=from=b,target=/b true\nFROM a AS b\n", "Dockerfile:2: stages need each other"),
        ("FROM x AS a\nCOPY --from=c 1 2\nFROM a AS b\nFROM b AS c\n", "Dockerfile:2: stages need each other"),
        ("FROM x\nCOPY --from=4 1 2\n", "Dockerfile:2: no build stage 4"),
        ("ARG A\nFROM x$B${A:?give}\n", "Dockerfile:2: 'x$B${A:?give}': A: give"),
        ("FROM $A\n", "Dockerfile:1: FROM: '$A' is empty"),
        ("FROM --platform=$A x\n", "Dockerfile:1: --platform: '$A' is empty"),
        ("FROM --platform=a/b/c/d x\n", "Dockerfile:1: invalid platform"),
    ],
)
def test_what_cannot_be_planned_is_said_with_its_line(text: str, why: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        plan(text)
    assert str(caught.value).startswith(why)


def test_arguments_before_from() -> None:
    text = "ARG V=12\nARG BASE=debian:$V\nFROM --platform=$BUILDPLATFORM $BASE\n"
    assert plan(text).target.base.name == "debian:12"
    assert plan(text, V="13").target.base.name == "debian:13"
    assert plan(text, BASE="alpine").target.base.name == "alpine"
    assert plan(text).target.platform == LINUX
    assert plan("FROM --platform=$TARGETPLATFORM x\n").target.platform == Platform("linux", "arm64", "v8")
    assert plan("FROM x\n").target.platform is None


def test_named_contexts_replace_images_and_stages() -> None:
    text = "FROM base AS a\nRUN x\nFROM y\nCOPY --from=a 1 2\nCOPY --from=z 1 2\n"
    found = plan(text, contexts=("base", "z"))
    assert found.order[0].base == Source("context", None, "base") and len(found.order[0].instructions) == 1
    assert found.resolve("z", found.target.stage.start.place) == Source("context", None, "z")
    for name in ("base:latest", "docker.io/library/base"):
        again = plan(text.replace("FROM base", f"FROM {name}"), contexts=("Base",))
        assert again.order[0].base == Source("context", None, "base")
    replaced = plan(text, contexts=("a",))
    assert replaced.order[0].base == Source("context", None, "a") and replaced.order[0].instructions == ()
    assert found.resolve("scratch", found.target.stage.start.place).kind == "scratch"
    assert found.resolve("q/w:1", found.target.stage.start.place) == Source("image", None, "q/w:1")


def test_build_arguments_that_nothing_declares() -> None:
    text = "ARG A\nFROM x AS a\nARG B\nFROM x\nARG C\n"
    found = plan(text, A="1", B="1", C="1", D="1", HTTP_PROXY="x", BUILDKIT_INLINE_CACHE="1", TARGETARCH="x")
    assert found.unused_build_args == ("B", "D")  # stage a is not built
    assert found.with_triggers(1, parse_triggers(["ARG D"], "x")).unused_build_args == ("B",)


def test_more_stages_than_python_has_stack() -> None:
    text = "FROM x AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\n" for n in range(3000))
    assert len(plan(text).order) == 3001


@given(st.lists(st.lists(st.integers(0, 7), max_size=4), min_size=1, max_size=8))
def test_dependencies_come_first(edges: list[list[int]]) -> None:
    text = ""
    for index, targets in enumerate(edges):
        text += f"FROM x AS s{index}\n" + "".join(f"COPY --from=s{target} a b\n" for target in targets)
    try:
        found = plan(text)
    except DockerfileError as e:
        assert "copies from itself" in str(e) or "need each other" in str(e)
        return
    done: set[int] = set()
    for node in found.order:
        assert node.needs <= done
        done.add(node.stage.position)
    assert found.order[-1] == found.target
