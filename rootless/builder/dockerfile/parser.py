"""A Dockerfile's text becomes typed instructions in stages. Pure: no file is read, no variable expanded.

Written to the Dockerfile reference; where that is silent, BuildKit's behaviour decides. What BuildKit lets pass and
drops silently (an unknown flag behind HEALTHCHECK NONE, RUN without a command) is an error here. Values with variables
in them are not checked here, but by `expand` when they are known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rootless.builder.dockerfile import lines
from rootless.builder.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    CommandLine,
    Copy,
    Dockerfile,
    Entrypoint,
    Env,
    Expose,
    From,
    HealthCheck,
    Heredoc,
    Instruction,
    Label,
    Maintainer,
    Mount,
    OnBuild,
    Pair,
    Run,
    Shell,
    Stage,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from rootless.builder.dockerfile.lines import LogicalLine
from rootless.builder.dockerfile.problems import DockerfileError, Place, did_you_mean
from rootless.builder.dockerfile.words import (
    Flags,
    NotStrings,
    heredoc_mark,
    json_strings,
    split_flags,
    split_head,
    split_plain,
    split_quoted,
)
from rootless.errors import UsageError
from rootless.units import parse_duration

_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*", re.ASCII)
_SHORTEST_INTERVAL = 1_000_000  # nanoseconds, docker's minimum


def parse(text: bytes | str, filename: str = "Dockerfile") -> Dockerfile:
    """The stages of a Dockerfile. Raises DockerfileError, and nothing else, whatever `text` is."""
    found = lines.read(text, filename)
    global_args: list[Arg] = []
    stages: list[Stage] = []
    begun: From | None = None
    body: list[Instruction] = []
    for line in found.instructions:
        instruction = _read(line, found.directives.escape)
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
        instruction = _read(read[0], escape)
        _check_trigger(instruction, read[0].place)
        assert not isinstance(instruction, From)
        found.append(instruction)
    return tuple(found)


class _Line:
    """A logical line taken apart: the instruction's word, its flags and the rest."""

    __slots__ = ("escape", "flags", "heredocs", "name", "place", "rest")

    def __init__(self, line: LogicalLine, escape: str) -> None:
        self.place = line.place
        self.heredocs = line.heredocs
        self.escape = escape
        head, rest = split_head(line.place.joined)
        self.name = head.upper()
        if self.name not in _READERS:
            raise DockerfileError(
                self.place, f"unknown instruction '{head[:64]}'{did_you_mean(self.name, sorted(_READERS))}"
            )
        words, self.rest = split_flags(rest)
        self.flags = Flags(self.place, self.name, words)

    def error(self, problem: str, *, hint: str | None = None) -> DockerfileError:
        return DockerfileError(self.place, problem, hint=hint)

    def one(self) -> str:
        """The rest of the line. Raises DockerfileError where it is empty."""
        if not self.rest:
            raise self.error(f"{self.name} needs an argument")
        return self.rest

    def json(self) -> list[str] | None:
        try:
            return json_strings(self.rest)
        except NotStrings:
            raise self.error(f"{self.name}: a JSON array here holds strings only") from None

    def words(self) -> list[str]:
        """The strings of a JSON array, or the words between spaces."""
        found = self.json()
        return split_plain(self.one()) if found is None else found

    def command(self) -> CommandLine:
        self.one()
        found = self.json()
        return CommandLine((self.rest,), False) if found is None else CommandLine(tuple(found), True)


def _read(line: LogicalLine, escape: str) -> Instruction | From:
    """The instruction on `line`. Raises DockerfileError."""
    taken = _Line(line, escape)
    return _READERS[taken.name](taken)


def _check_trigger(instruction: Instruction | From, place: Place) -> None:
    """Raise DockerfileError for an instruction that ONBUILD must not hold: ONBUILD itself, FROM and MAINTAINER."""
    if isinstance(instruction, OnBuild):
        raise DockerfileError(place, "ONBUILD cannot hold another ONBUILD")
    if isinstance(instruction, From | Maintainer):
        raise DockerfileError(place, f"{type(instruction).__name__.upper()} cannot be an ONBUILD trigger")


def _from(line: _Line) -> From:
    words = split_plain(line.one())
    name = ""
    if len(words) == 3 and words[1].lower() == "as":
        name = words[2].lower()
        if not _STAGE_NAME.fullmatch(name):
            raise line.error(
                f"invalid name for a build stage: '{words[2]}'",
                hint="a name begins with a letter; letters, digits, '-', '_' and '.' follow",
            )
    elif len(words) != 1:
        raise line.error("FROM takes an image, or an image and 'AS NAME'")
    return From(line.place, words[0], name, line.flags.text("platform"))


def _arg(line: _Line) -> Arg:
    pairs = []
    line.one()
    for word in split_quoted(line.rest, line.escape):
        name, equals, value = word.partition("=")
        if not name:
            raise line.error("ARG names cannot be blank")
        pairs.append(Pair(name, value if equals else None))
    return Arg(line.place, tuple(pairs))


def _pairs(line: _Line) -> tuple[Pair, ...]:
    """The pairs of ENV and LABEL: `name=value …`, or the old form `name value`, which is one pair."""
    words = split_quoted(line.one(), line.escape)
    if words and "=" not in words[0]:
        name, value = split_head(line.rest)
        if not value:
            raise line.error(f"{line.name} needs a name and a value", hint=f"write {line.name} {name[:64]}=VALUE")
        return (Pair(name, value),)
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise line.error(f"{line.name}: no '=' in '{word[:64]}'", hint='write name=value or name="a b"')
        if not name:
            raise line.error(f"{line.name} names cannot be blank")
        pairs.append(Pair(name, value))
    if not pairs:
        raise line.error(f"{line.name} needs an argument")
    return tuple(pairs)


def _run(line: _Line) -> Run:
    command, script = _with_heredocs(line)
    network = line.flags.text("network") or "default"
    if network not in ("default", "none", "host"):
        raise line.error(f"unknown network '{network}'", hint="RUN --network is default, none or host")
    security = line.flags.text("security") or "sandbox"
    if security not in ("sandbox", "insecure"):
        raise line.error(f"unknown security mode '{security}'", hint="RUN --security is sandbox or insecure")
    mounts = tuple(_mount(line, text) for text in line.flags.list("mount"))
    if not command.words and script is None:
        raise line.error("RUN needs a command")
    return Run(line.place, command, line.heredocs, script, mounts, network, security)


def _mount(line: _Line, text: str) -> Mount:
    from rootless.builder.dockerfile import mount_option

    try:
        return mount_option.parse(text)
    except mount_option.MountError as e:
        raise line.error(f"--mount: {e}") from None


def _with_heredocs(line: _Line) -> tuple[CommandLine, Heredoc | None]:
    """(command, script) of a RUN.

    A heredoc alone that begins with `#!` is the script, which is executed itself; script is None else. A heredoc alone
    without `#!` is the text for the shell; others are put together again for the shell to read.
    """
    command = line.command()
    if not line.heredocs:
        return command, None
    first = line.heredocs[0]
    if heredoc_mark(line.rest) is not None:
        if first.content.startswith("#!"):
            return CommandLine((), True), first
        return CommandLine((first.content,), False), None
    parts = [line.rest, *(f"{one.raw}{one.name}" for one in line.heredocs)]
    return CommandLine(("\n".join(parts),), False), None


def _sources(line: _Line) -> tuple[tuple[str, ...], tuple[Heredoc, ...], str]:
    """(paths, inline files, destination) of COPY and ADD. An inline file is a heredoc among the sources.

    Its delimiter becomes the file's name, and so must be a plain file name.
    """
    words = line.words()
    if len(words) < 2:
        raise line.error(f"{line.name} needs a source and a destination")
    *sources, destination = words
    if not line.heredocs:
        return tuple(sources), (), destination
    if heredoc_mark(destination) is not None:
        raise line.error(f"{line.name}: a heredoc cannot be the destination")
    if "<<" in sources:
        raise line.error(
            f"{line.name}: a space parts '<<' from the heredoc's name", hint=f"write <<{line.heredocs[0].name}"
        )
    by_name = {one.name: one for one in line.heredocs}
    paths: list[str] = []
    inline: list[Heredoc] = []
    for word in sources:
        mark = heredoc_mark(word)
        if mark is None:
            paths.append(word)
        elif mark.name not in by_name:
            raise line.error(f"{line.name}: '{word}' has no content")
        elif "/" in mark.name or mark.name in (".", ".."):
            raise line.error(f"{line.name}: '{mark.name}' cannot be a file's name")
        else:
            inline.append(by_name[mark.name])
    return tuple(paths), tuple(inline), destination


def _copy(line: _Line) -> Copy:
    sources, heredocs, destination = _sources(line)
    flags = line.flags
    if "$" in flags.text("from"):
        raise line.error("--from takes no variables", hint="give the image a stage of its own: FROM $IMAGE AS name")
    return Copy(
        line.place,
        sources,
        heredocs,
        destination,
        flags.text("from"),
        flags.text("chown"),
        flags.text("chmod"),
        flags.boolean("link"),
        flags.boolean("parents"),
        flags.list("exclude"),
    )


def _add(line: _Line) -> Add:
    sources, heredocs, destination = _sources(line)
    flags = line.flags
    if flags.is_given("checksum") and not flags.text("checksum"):
        raise line.error("--checksum is empty", hint="write --checksum=sha256:<64 digits>")
    return Add(
        line.place,
        sources,
        heredocs,
        destination,
        flags.text("chown"),
        flags.text("chmod"),
        flags.boolean("link"),
        flags.text("checksum"),
        flags.maybe("keep-git-dir"),
        flags.list("exclude"),
        flags.maybe("unpack"),
    )


def _shell(line: _Line) -> Shell:
    words = line.json() if line.rest else None
    if not words:
        raise line.error("SHELL takes a JSON array", hint='write SHELL ["/bin/bash", "-c"]')
    return Shell(line.place, tuple(words))


def _expose(line: _Line) -> Expose:
    return Expose(line.place, tuple(split_plain(line.one())))


def _volume(line: _Line) -> Volume:
    paths = line.words()
    if not paths or not all(path.strip() for path in paths):
        raise line.error("VOLUME: a path is empty")
    return Volume(line.place, tuple(paths))


def _health_check(line: _Line) -> HealthCheck:
    kind, line.rest = split_head(line.one())
    if kind.upper() == "NONE":
        if line.rest:
            raise line.error("HEALTHCHECK NONE takes no arguments")
        return HealthCheck(line.place, None, 0, 0, 0, 0, 0)
    if kind.upper() != "CMD":
        raise line.error(f"HEALTHCHECK: '{kind[:64]}' is not CMD or NONE", hint="write HEALTHCHECK CMD command")
    if not line.rest:
        raise line.error("HEALTHCHECK CMD needs a command")
    command = line.command()
    if not command.words:
        raise line.error("HEALTHCHECK CMD needs a command")
    return HealthCheck(
        line.place,
        command,
        _interval(line, "interval"),
        _interval(line, "timeout"),
        _interval(line, "start-period"),
        _interval(line, "start-interval"),
        _retries(line),
    )


def _interval(line: _Line, flag: str) -> int:
    """The duration in the flag `flag` in nanoseconds, 0 when it is not given."""
    text = line.flags.text(flag)
    if not text:
        return 0
    try:
        seconds = parse_duration(text, f"--{flag}")
    except UsageError as e:
        raise line.error(e.message, hint=e.hint) from None
    if seconds > 1e9:
        raise line.error(f"--{flag} is too long: '{text}'")
    nanoseconds = round(seconds * 1e9)
    if 0 < nanoseconds < _SHORTEST_INTERVAL:
        raise line.error(f"--{flag} cannot be less than 1ms")
    return nanoseconds


def _retries(line: _Line) -> int:
    text = line.flags.text("retries")
    if not text:
        return 0
    if len(text) > 9 or not (text.isascii() and text.isdigit()):
        raise line.error(f"--retries is a number, not '{text[:64]}'")
    return int(text)


def _on_build(line: _Line) -> OnBuild:
    trigger = line.one()
    if split_head(trigger)[0].upper() == "ONBUILD":  # not read: a thousand of them would nest as deep
        raise line.error("ONBUILD cannot hold another ONBUILD")
    inner = _read(LogicalLine(line.place._replace(joined=trigger), line.heredocs), line.escape)
    _check_trigger(inner, line.place)
    return OnBuild(line.place, "\n".join([trigger, *(f"{one.raw}{one.name}" for one in line.heredocs)]))


_READERS: dict[str, Callable[[_Line], Instruction | From]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": lambda line: Cmd(line.place, line.command()),
    "COPY": _copy,
    "ENTRYPOINT": lambda line: Entrypoint(line.place, line.command()),
    "ENV": lambda line: Env(line.place, _pairs(line)),
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _health_check,
    "LABEL": lambda line: Label(line.place, _pairs(line)),
    "MAINTAINER": lambda line: Maintainer(line.place, line.one()),
    "ONBUILD": _on_build,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": lambda line: StopSignal(line.place, line.one()),
    "USER": lambda line: User(line.place, line.one()),
    "VOLUME": _volume,
    "WORKDIR": lambda line: Workdir(line.place, line.one()),
}
