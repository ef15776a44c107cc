"""What history and progress call an instruction. Pure; values of build arguments are never in it."""

from __future__ import annotations

import json

from rootless.builder.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    HealthCheck,
    Label,
    Run,
    Shell,
    Volume,
    name_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.builder.dockerfile.instructions import CommandLine, Instruction

_TITLE = 200


def created_by(written: Instruction, final: Instruction, shell: Sequence[str]) -> str:
    """The line of an instruction in the image's history, in BuildKit's form.

    written, final: the instruction before and after its expansion; shell: the words of SHELL. Words into which a build
    argument could have come are shown as they are written (ARG's value, COPY's paths): anybody with the image reads
    them.
    """
    name = name_of(final)
    if isinstance(written, Arg):
        return f"ARG {' '.join(p.name if p.value is None else f'{p.name}={p.value}' for p in written.pairs)}"
    if isinstance(final, Env | Label):
        return f"{name} {' '.join(f'{p.name}={p.value}' for p in final.pairs)}"
    if isinstance(final, Run):
        words = list(final.command.words) if final.command.is_exec else [*shell, *final.command.words]
        return f"RUN {' '.join(words)} # buildkit"
    if isinstance(written, Copy | Add):
        sources = [*written.sources, *(heredoc.name for heredoc in written.heredocs)]
        return f"{name} {' '.join([*sources, written.destination])} # buildkit"
    if isinstance(final, Cmd | Entrypoint):
        return f"{name} {json.dumps(command_words(final.command, shell), ensure_ascii=False)}"
    if isinstance(final, Shell):
        return f"SHELL [{' '.join(final.words)}]"
    if isinstance(final, Expose):
        return f"EXPOSE map[{' '.join(f'{port}:{{}}' for port in final.ports)}]"
    if isinstance(final, Volume):
        return f"VOLUME [{' '.join(final.paths)}]"
    if isinstance(final, HealthCheck):
        test = ["NONE"] if final.command is None else command_words(final.command, ["CMD-SHELL"])
        return f"HEALTHCHECK {json.dumps(test, ensure_ascii=False)}"
    return one_line(written.place.text)


def command_words(line: CommandLine, shell: Sequence[str]) -> list[str]:
    """The words that are started. The text of the shell form is appended to `shell`."""
    return list(line.words) if line.is_exec else [*shell, *line.words]


def step_title(stage: str, position: int, count: int, written: Instruction) -> str:
    """The title of a step in the progress display, as `[build 2/4] RUN make`, cut to a bounded length.

    stage: the stage's name and a space, or ""; position, count: of the step among the stage's steps, from 1.
    """
    text = one_line(written.place.text)
    return f"[{stage}{position}/{count}] {text if len(text) <= _TITLE else text[: _TITLE - 3] + '...'}"


def one_line(text: str) -> str:
    """The text of an instruction on one line, with single spaces."""
    return " ".join(text.replace("\\\n", " ").split())
