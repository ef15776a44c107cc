"""Warnings about a Dockerfile that builds, by the names of BuildKit's build checks. Pure.

`# check=skip=RULE,RULE;error=true` at the top of the file turns some off, or makes all errors; `skip=all` turns all
off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from rootless.builder.dockerfile import expand, variables
from rootless.builder.dockerfile.instructions import (
    Arg,
    Cmd,
    Dockerfile,
    Entrypoint,
    Env,
    From,
    HealthCheck,
    Instruction,
    Label,
    Maintainer,
    Shell,
    Stage,
    Workdir,
    name_of,
)
from rootless.builder.dockerfile.problems import DockerfileError, Place
from rootless.builder.dockerfile.words import split_flags, split_head, split_quoted

_SECRET = re.compile(
    r"(?:^|_)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.ASCII | re.IGNORECASE
)
_PUBLIC = re.compile(r"(?:^|_)public(?:_|$)", re.ASCII | re.IGNORECASE)
_RESERVED = ("scratch", "context")
_ONCE = (Cmd, Entrypoint, HealthCheck)


class Finding(NamedTuple):
    """A warning. rule: BuildKit's name of the check; place: where; text: what is wrong."""

    rule: str
    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text} ({self.rule})"


def check(dockerfile: Dockerfile) -> tuple[Finding, ...]:
    """The warnings that the Dockerfile's own directive leaves on, in the order of lines.

    Raises DockerfileError for the first of them where the directive says error=true.
    """
    directives = dockerfile.directives
    skipped = {rule.lower() for rule in directives.skip}
    if "all" in skipped:
        return ()
    found = [finding for finding in _all(dockerfile) if finding.rule.lower() not in skipped]
    found.sort(key=lambda finding: finding.place.first)
    if found and directives.is_error:
        first = found[0]
        raise DockerfileError(
            first.place,
            f"{first.text} ({first.rule})",
            hint=f"'# check=error=true' makes warnings errors; '# check=skip={first.rule}' turns this one off",
        )
    return tuple(found)


def _all(dockerfile: Dockerfile) -> Iterator[Finding]:
    yield from (Finding("NoEmptyContinuation", place, problem) for place, problem in dockerfile.remarks)
    yield from _casing(dockerfile)
    yield from _stage_names(dockerfile)
    yield from _arguments_in_from(dockerfile)
    for stage in dockerfile.stages:
        yield from _stage(stage)
        for instruction in stage.instructions:
            yield from _instruction(instruction, dockerfile.directives.escape)
    for arg in dockerfile.global_args:
        yield from _secrets(arg)


def _everything(dockerfile: Dockerfile) -> Iterator[Instruction | From]:
    yield from dockerfile.global_args
    for stage in dockerfile.stages:
        yield stage.start
        yield from stage.instructions


def _casing(dockerfile: Dockerfile) -> Iterator[Finding]:
    heads = [(split_head(one.place.joined)[0], one.place) for one in _everything(dockerfile)]
    upper = sum(head.isupper() for head, _ in heads)
    lower = sum(head.islower() for head, _ in heads)
    majority = "lowercase" if lower > upper else "uppercase"
    for head, place in heads:
        if not (head.islower() if majority == "lowercase" else head.isupper()):
            yield Finding("ConsistentInstructionCasing", place, f"'{head}' is not {majority} like most instructions")
    for stage in dockerfile.stages:
        words = split_flags(split_head(stage.start.place.joined)[1])[1].split()
        head = split_head(stage.start.place.joined)[0]
        if len(words) == 3 and words[1].isupper() != head.isupper():
            yield Finding("FromAsCasing", stage.start.place, f"'{words[1]}' and '{head}' differ in case")
        if len(words) == 3 and words[2] != words[2].lower():
            yield Finding("StageNameCasing", stage.start.place, f"the stage name '{words[2]}' is not lowercase")


def _stage_names(dockerfile: Dockerfile) -> Iterator[Finding]:
    seen: dict[str, Place] = {}
    for stage in dockerfile.stages:
        place = stage.start.place
        if stage.name in _RESERVED:
            yield Finding("ReservedStageName", place, f"the stage name '{stage.name}' has a meaning of its own")
        if stage.name and stage.name in seen:
            earlier = seen[stage.name].first
            yield Finding("DuplicateStageName", place, f"the stage name '{stage.name}' is that of line {earlier} too")
        seen.setdefault(stage.name, place)


def _arguments_in_from(dockerfile: Dockerfile) -> Iterator[Finding]:
    declared = dict.fromkeys((pair.name for arg in dockerfile.global_args for pair in arg.pairs), "")
    known = {**declared, **dict.fromkeys(expand.PREDEFINED, "")}
    for stage in dockerfile.stages:
        start = stage.start
        for text in (start.base, start.platform):
            try:
                unset = variables.expand(text, known, escape=dockerfile.directives.escape).unset
            except variables.ExpansionError:
                continue  # the build of the stage, where it is needed, reports this as an error
            for name in sorted(unset):
                yield Finding("UndefinedArgInFrom", start.place, f"FROM uses '{name}', which no ARG above it declares")
        if start.platform in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
            yield Finding("RedundantTargetPlatform", start.place, "--platform=$TARGETPLATFORM is what FROM does anyway")


def _stage(stage: Stage) -> Iterator[Finding]:
    has_shell = any(isinstance(one, Shell) for one in stage.instructions)
    is_absolute = False
    last = {type(one): one for one in stage.instructions if isinstance(one, _ONCE)}
    for one in stage.instructions:
        if isinstance(one, _ONCE) and last[type(one)] is not one:
            rule = "MultipleInstructionsDisallowed"
            yield Finding(rule, one.place, f"only the last {name_of(one)} of a stage counts")
        if isinstance(one, Cmd | Entrypoint) and not one.command.is_exec and not has_shell:
            text = f"{name_of(one)} in the shell form gets no signals; write a JSON array"
            yield Finding("JSONArgsRecommended", one.place, text)
        if isinstance(one, Workdir):
            if not is_absolute and not one.path.startswith(("/", "$", '"/', "'/")):
                text = f"the relative WORKDIR '{one.path}' depends on that of the base image"
                yield Finding("WorkdirRelativePath", one.place, text)
            is_absolute = True


def _instruction(instruction: Instruction, escape: str) -> Iterator[Finding]:
    if isinstance(instruction, Maintainer):
        text = "MAINTAINER is deprecated; write LABEL org.opencontainers.image.authors=NAME"
        yield Finding("MaintainerDeprecated", instruction.place, text)
    if isinstance(instruction, Env | Label):
        head, rest = split_head(instruction.place.joined)
        words = split_quoted(split_flags(rest)[1], escape)
        if words and "=" not in words[0]:
            text = f"{head} {words[0]} value is the old form; write {head} {words[0]}=value"
            yield Finding("LegacyKeyValueFormat", instruction.place, text)
    if isinstance(instruction, Env | Arg):
        yield from _secrets(instruction)


def _secrets(instruction: Env | Arg) -> Iterator[Finding]:
    for pair in instruction.pairs:
        if _SECRET.search(pair.name) and not _PUBLIC.search(pair.name):
            text = f"{name_of(instruction)} {pair.name}: a secret here stays in the image; use RUN --mount=type=secret"
            yield Finding("SecretsUsedInArgOrEnv", instruction.place, text)
