"""A Dockerfile's text becomes typed instructions in stages. Pure: no file is read, no variable expanded.

Written to the Dockerfile reference; where that is silent, BuildKit's behaviour decides. What BuildKit lets pass and
drops silently (an unknown flag behind HEALTHCHECK NONE, RUN without a command) is an error here.
"""

from __future__ import annotations

from collections.abc import Sequence

from rootless.builder.dockerfile import lines, read_instruction
from rootless.builder.dockerfile.instructions import Arg, Dockerfile, From, Instruction, Stage
from rootless.builder.dockerfile.problems import DockerfileError, Place


def parse(text: bytes | str, filename: str = "Dockerfile") -> Dockerfile:
    """The stages of a Dockerfile. Raises DockerfileError, and nothing else, whatever `text` is."""
    found = lines.read(text, filename)
    global_args: list[Arg] = []
    stages: list[Stage] = []
    begun: From | None = None
    body: list[Instruction] = []
    for line in found.instructions:
        instruction = read_instruction.read(line, found.directives.escape)
        if isinstance(instruction, From):
            if begun is not None:
                stages.append(Stage(len(stages), begun, tuple(body)))
            begun, body = instruction, []
        elif begun is not None:
            body.append(instruction)
        elif isinstance(instruction, Arg):
            global_args.append(instruction)
        else:
            raise DockerfileError(line.place, "only ARG may stand before the first FROM", hint="begin with FROM IMAGE")
    if begun is None:
        last = found.instructions[-1].place
        raise DockerfileError(last, "no FROM in this file", hint="begin with FROM IMAGE")
    stages.append(Stage(len(stages), begun, tuple(body)))
    return Dockerfile(filename, found.directives, tuple(global_args), tuple(stages), found.remarks)


def parse_triggers(texts: Sequence[str], image: str, escape: str = "\\") -> tuple[Instruction, ...]:
    """The instructions in the ONBUILD list of a base image's config. Raises DockerfileError that names the image."""
    found: list[Instruction] = []
    for text in texts:
        filename = f"ONBUILD of {image}"
        directive = "" if escape == "\\" else f"# escape={escape}\n"
        read = lines.read(directive + text, filename).instructions
        if len(read) != 1:
            raise DockerfileError(Place(filename, 1, 1, text), "a trigger is one instruction")
        instruction = read_instruction.read(read[0], escape)
        read_instruction.check_trigger(instruction, read[0].place)
        assert not isinstance(instruction, From)
        found.append(instruction)
    return tuple(found)
