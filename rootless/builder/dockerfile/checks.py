"""What is dubious in a Dockerfile that builds, by the names of BuildKit's build checks. Pure.

Most rules look at the file alone. Those of `findings_in_stage` need what the instructions have become: the variables
of the base image, the ignore file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from rootless.builder.dockerfile import check_options, expand, variables
from rootless.builder.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Dockerfile,
    Entrypoint,
    Env,
    Expose,
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
from rootless.builder.dockerfile.problems import DockerfileError, Place, did_you_mean
from rootless.builder.dockerfile.words import split_flags, split_head, split_quoted
from rootless.errors import UsageError
from rootless.image.platform import parse_platform
from rootless.image.reference import parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.builder.dockerfile.check_options import CheckOptions

_SECRET = re.compile(
    r"(?:^|_)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.ASCII | re.IGNORECASE
)
_NO_SECRET = re.compile(r"(?:^|_)(?:public|file|version)(?:_|$)", re.ASCII | re.IGNORECASE)
_RESERVED = ("scratch", "context")
_ONCE = (Cmd, Entrypoint, HealthCheck)
_WORD_ENDS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

RULES: Mapping[str, str] = {
    "ConsistentInstructionCasing": "All instructions of a file are written in upper case, or all in lower case",
    "CopyIgnoredFile": "COPY and ADD find no file that .dockerignore leaves out",
    "DuplicateStageName": "Every stage has a name of its own",
    "ExposeInvalidFormat": "EXPOSE takes ports of the container, without an address or a port of the host",
    "ExposeProtoCasing": "The protocol in EXPOSE is written in lower case",
    "FromAsCasing": "FROM and AS are written in the same case",
    "FromPlatformFlagConstDisallowed": "A constant FROM --platform makes an image for one platform only",
    "InvalidDefaultArgInFrom": "The defaults of the global ARGs make a valid name of an image",
    "InvalidDefinitionDescription": "A comment directly above a stage or an ARG begins with its name",
    "JSONArgsRecommended": "CMD and ENTRYPOINT are JSON arrays, so that the program gets signals",
    "LegacyKeyValueFormat": "ENV and LABEL take name=value",
    "MaintainerDeprecated": "MAINTAINER is deprecated in favour of a label",
    "MultipleInstructionsDisallowed": "Of some instructions only the last one of a stage counts",
    "NoEmptyContinuation": "A continued instruction holds no empty line",
    "RedundantTargetPlatform": "FROM builds for $TARGETPLATFORM without being told to",
    "ReservedStageName": "No stage has a name with another meaning",
    "SecretsUsedInArgOrEnv": "Secrets are no values of ARG and ENV, which stay in the image",
    "StageNameCasing": "The names of stages are written in lower case",
    "UndefinedArgInFrom": "FROM uses ARGs that are declared above it",
    "UndefinedVar": "Variables are defined before they are used",
    "WorkdirRelativePath": "The first WORKDIR of a stage does not depend on that of the base image",
}
"""What each rule asks for. The names are BuildKit's."""
_EXPERIMENTAL = ("InvalidDefinitionDescription",)
_MOST_HINTS = 20  # findings of a stage that say which name may be meant: to search for each takes a millisecond or more


class Finding(NamedTuple):
    """A breach of a rule. rule: BuildKit's name of it; place: where; text: what is wrong."""

    rule: str
    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text} ({self.rule})"

    @property
    def url(self) -> str:
        """The page of docker's documentation that explains the rule."""
        return f"https://docs.docker.com/go/dockerfile/rule/{_WORD_ENDS.sub('-', self.rule).lower()}/"


def chosen(found: Iterable[Finding], options: CheckOptions) -> tuple[Finding, ...]:
    """Those of `found` that are wanted by `options` and by the comments above their instructions, by line."""
    wanted = (finding for finding in found if _is_wanted(finding, options))
    return tuple(sorted(wanted, key=lambda finding: finding.place.first))


def _is_wanted(finding: Finding, options: CheckOptions) -> bool:
    own = check_options.of_comments(finding.place.comments)
    if finding.rule in _EXPERIMENTAL:
        is_on = options.wants(finding.rule, is_experimental=True) or own.wants(finding.rule, is_experimental=True)
        return is_on and finding.rule.lower() not in own.skip
    return all(each.wants(finding.rule, is_experimental=False) for each in (options, own))


def refuse(found: Iterable[Finding]) -> None:
    """Raise DockerfileError for the first of `found`, because error=true makes an error of it."""
    for finding in found:
        raise DockerfileError(
            finding.place,
            f"{finding.text} ({finding.rule})",
            hint=f"'check=error=true' makes warnings errors; '# check=skip={finding.rule}' turns this one off",
        )


def findings_in(dockerfile: Dockerfile) -> Iterator[Finding]:
    """What the text of the whole file shows, in no order."""
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
        yield from _description(arg.place, "ARG", [pair.name for pair in arg.pairs])


def findings_in_stage(
    instructions: Iterable[Instruction], scope: expand.Scope, is_ignored: Callable[[str], bool] | None
) -> list[Finding]:
    """What shows in a stage's instructions when they are expanded.

    scope: the variables before the first of them, and behind the last one afterwards; is_ignored: whether the ignore
    file leaves a path of the context out, None where there is no such file or it takes files back in. An instruction
    that cannot be expanded ends the search: the build reports it as an error.
    """
    found: list[Finding] = []
    for written in instructions:
        scope.undefined.clear()
        final = _entered(written, scope)
        for name in sorted(scope.undefined):
            near = did_you_mean(name, scope.variables) if len(found) < _MOST_HINTS else ""
            found.append(Finding("UndefinedVar", written.place, f"the variable '${name}' is not defined{near}"))
        if final is None:
            break
        if is_ignored is not None and isinstance(final, Copy | Add):
            found += _ignored(final, is_ignored)
    scope.undefined.clear()
    return found


def _entered(written: Instruction, scope: expand.Scope) -> Instruction | None:
    """The instruction with its final words, which `scope` has noted; None where it cannot be expanded."""
    try:
        final = scope.expand(written)
        scope.enter(final)
    except DockerfileError:
        return None
    return final


def _ignored(instruction: Copy | Add, is_ignored: Callable[[str], bool]) -> Iterator[Finding]:
    if isinstance(instruction, Copy) and instruction.from_:
        return
    for source in instruction.sources:
        path = posixpath.normpath("/" + source).lstrip("/")
        if "://" not in source and not source.startswith("git@") and is_ignored(path):
            text = f"{name_of(instruction)} takes '{source}', which .dockerignore leaves out"
            yield Finding("CopyIgnoredFile", instruction.place, text)


def default_arguments(dockerfile: Dockerfile) -> dict[str, str]:
    """The values of the ARGs above the first FROM without any --build-arg. Raises DockerfileError."""
    automatic = dict.fromkeys(expand.PREDEFINED, "")
    escape = dockerfile.directives.escape
    return expand.global_args(dockerfile.global_args, escape=escape, automatic=automatic, build_args={})


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
        yield from _constant_platform(stage)
    yield from _default_bases(dockerfile)


def _constant_platform(stage: Stage) -> Iterator[Finding]:
    start = stage.start
    if not start.platform or "$" in start.platform:
        return
    try:
        platform = parse_platform(start.platform)
    except UsageError:
        return  # the build of the stage reports this as an error
    if platform.os in stage.name or platform.architecture in stage.name:
        return  # a stage that is named after its platform is meant for it
    text = f"--platform={start.platform} is constant: the image cannot be built for another platform"
    yield Finding("FromPlatformFlagConstDisallowed", start.place, text)


def _default_bases(dockerfile: Dockerfile) -> Iterator[Finding]:
    """The FROMs that need --build-arg, because the defaults of the ARGs make no name of an image."""
    try:
        values = default_arguments(dockerfile)
    except DockerfileError:
        return
    for stage in dockerfile.stages:
        start = stage.start
        if "$" not in start.base:
            continue
        try:
            parse_reference(variables.expand(start.base, values, escape=dockerfile.directives.escape).text)
        except variables.ExpansionError:
            continue
        except UsageError:
            text = f"FROM {start.base} names no image without --build-arg"
            yield Finding("InvalidDefaultArgInFrom", start.place, text)


def _stage(stage: Stage) -> Iterator[Finding]:
    if stage.name:
        yield from _description(stage.start.place, "FROM", [stage.name])
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
    if isinstance(instruction, Arg):
        yield from _description(instruction.place, "ARG", [pair.name for pair in instruction.pairs])
    if isinstance(instruction, Expose):
        yield from _ports(instruction)


def _ports(instruction: Expose) -> Iterator[Finding]:
    for port in instruction.ports:
        if "$" in port:
            continue
        protocol = port.rpartition("/")[2] if "/" in port else ""
        if protocol != protocol.lower():
            text = f"EXPOSE {port}: the protocol is not in lower case"
            yield Finding("ExposeProtoCasing", instruction.place, text)
        if ":" in port:
            text = f"EXPOSE {port}: only the port of the container counts; publish it with run --publish"
            yield Finding("ExposeInvalidFormat", instruction.place, text)


def _description(place: Place, instruction: str, names: list[str]) -> Iterator[Finding]:
    """A comment above FROM or ARG that --call=outline and --call=targets do not take for its description."""
    comments = [comment for comment in place.comments if not check_options.is_options(comment)]
    if comments and comments[-1].split(" ")[0] not in names:
        text = (
            f"the comment above {instruction} describes something else: it does not begin with '{names[0]}'; put an"
            " empty line between the two"
        )
        yield Finding("InvalidDefinitionDescription", place, text)


def description(place: Place, name: str) -> str:
    """What the comments above an instruction say about `name`: the rest of the line that begins with it, or ""."""
    found = (comment for comment in place.comments if name and comment.startswith(f"{name} "))
    return next(found, "").removeprefix(f"{name} ").strip()


def _secrets(instruction: Env | Arg) -> Iterator[Finding]:
    for pair in instruction.pairs:
        if _SECRET.search(pair.name) and not _NO_SECRET.search(pair.name):
            text = f"{name_of(instruction)} {pair.name}: a secret here stays in the image; use RUN --mount=type=secret"
            yield Finding("SecretsUsedInArgOrEnv", instruction.place, text)
