"""The instructions of a Dockerfile as values. Pure; nothing is expanded here, and nothing is carried out.

Every instruction has `place` (lines and original text) first. Where the reference lets variables be used, words are as
written, with quotes and variables: `rootless.builder.dockerfile.expand.Scope` gives the same instruction with its
final words.
"""

from __future__ import annotations

from typing import NamedTuple

from rootless.builder.dockerfile.check_options import CheckOptions
from rootless.builder.dockerfile.problems import Place


class Heredoc(NamedTuple):
    """A heredoc: `<<NAME` in an instruction, and the lines after it up to NAME.

    content: the lines, for `<<-` without the tabs at their beginnings; raw: the lines as written; is_expanded: False
    for a quoted delimiter, after which variables in the content are left alone.
    """

    name: str
    content: str
    is_expanded: bool
    raw: str


class CommandLine(NamedTuple):
    """What RUN, CMD, ENTRYPOINT and HEALTHCHECK start.

    The exec form has its `words`. The shell form has one word, the text for the shell, which the executor appends to
    the words of SHELL. No words at all (`CMD []`) is an empty command.
    """

    words: tuple[str, ...]
    is_exec: bool


class Pair(NamedTuple):
    """`name=value` of ENV, LABEL and ARG; `value` is None for an ARG without a default."""

    name: str
    value: str | None


class Mount(NamedTuple):
    """One `RUN --mount`. `source`, `size` (in bytes), `mode`, `uid` and `gid` are None when they are not given.

    A `target` of "" is the working directory, or for secrets and ssh the usual place.

    `raw` is the flag's text. While it holds variables, before `Scope.expand`, the other fields are what could be read
    without them; `kind` and `from_` never hold variables.
    """

    kind: str  # bind, cache, tmpfs, secret or ssh
    target: str
    source: str | None
    from_: str
    is_read_only: bool
    id: str
    sharing: str  # shared, private or locked; "" for other kinds than cache
    is_required: bool
    env: str | None  # the variable that holds a secret, "" for one named like the id, None for none
    size: int | None
    mode: int | None
    uid: int | None
    gid: int | None
    raw: str


class From(NamedTuple):
    """FROM [--platform=] image [AS name]; `name` is in lower case, "" for a stage without one."""

    place: Place
    base: str
    name: str
    platform: str


class Arg(NamedTuple):
    place: Place
    pairs: tuple[Pair, ...]


class Env(NamedTuple):
    place: Place
    pairs: tuple[Pair, ...]


class Label(NamedTuple):
    place: Place
    pairs: tuple[Pair, ...]


class Run(NamedTuple):
    """RUN. `script` is the executable text of a single heredoc that begins with `#!`, else None.

    Other heredocs are in `command` already, as BuildKit does: a lone `RUN <<EOF` is its content given to the shell, and
    anything more is put together again for the shell to read.
    """

    place: Place
    command: CommandLine
    heredocs: tuple[Heredoc, ...]
    script: Heredoc | None
    mounts: tuple[Mount, ...]
    network: str  # default, none or host
    security: str  # sandbox or insecure


class Copy(NamedTuple):
    """COPY. `sources` are paths, `heredocs` are inline files named like their delimiter."""

    place: Place
    sources: tuple[str, ...]
    heredocs: tuple[Heredoc, ...]
    destination: str
    from_: str
    chown: str
    chmod: str
    is_link: bool
    is_parents: bool
    excludes: tuple[str, ...]


class Add(NamedTuple):
    """ADD.

    `unpack` is None without --unpack: archives from the context are unpacked then, archives from a URL are not.
    `keeps_git_dir` is None without --keep-git-dir: the query of a repository's URL decides then.
    """

    place: Place
    sources: tuple[str, ...]
    heredocs: tuple[Heredoc, ...]
    destination: str
    chown: str
    chmod: str
    is_link: bool
    checksum: str
    keeps_git_dir: bool | None
    excludes: tuple[str, ...]
    unpack: bool | None


class Workdir(NamedTuple):
    place: Place
    path: str


class User(NamedTuple):
    place: Place
    user: str


class Cmd(NamedTuple):
    place: Place
    command: CommandLine


class Entrypoint(NamedTuple):
    place: Place
    command: CommandLine


class Shell(NamedTuple):
    place: Place
    words: tuple[str, ...]


class Expose(NamedTuple):
    """EXPOSE; after expansion each port is `80/tcp`, ranges and bare numbers resolved."""

    place: Place
    ports: tuple[str, ...]


class Volume(NamedTuple):
    place: Place
    paths: tuple[str, ...]


class StopSignal(NamedTuple):
    place: Place
    signal: str


class HealthCheck(NamedTuple):
    """HEALTHCHECK. `command` is None for NONE, which takes the base's check away.

    Times are in nanoseconds, as in the image's config; 0 means docker's default, as 0 retries do.
    """

    place: Place
    command: CommandLine | None
    interval: int
    timeout: int
    start_period: int
    start_interval: int
    retries: int


class OnBuild(NamedTuple):
    """ONBUILD; `trigger` is the text for the image's config, heredocs included."""

    place: Place
    trigger: str


class Maintainer(NamedTuple):
    place: Place
    name: str


Instruction = (
    Arg
    | Env
    | Label
    | Run
    | Copy
    | Add
    | Workdir
    | User
    | Cmd
    | Entrypoint
    | Shell
    | Expose
    | Volume
    | StopSignal
    | HealthCheck
    | OnBuild
    | Maintainer
)


class Stage(NamedTuple):
    """A FROM and the instructions that follow it. position: among the stages, from 0."""

    position: int
    start: From
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        """The stage's name, "" when it has none."""
        return self.start.name


class Directives(NamedTuple):
    """The parser directives at the top of a Dockerfile.

    syntax: the frontend that is asked for, "" without one; checks: which build checks are wanted.
    """

    syntax: str
    escape: str
    checks: CheckOptions


class Dockerfile(NamedTuple):
    """A whole Dockerfile. global_args: the ARGs before the first FROM; remarks: places and problems of style."""

    filename: str
    directives: Directives
    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    remarks: tuple[tuple[Place, str], ...]


def name_of(instruction: Instruction | From) -> str:
    """The word of an instruction in upper case, as `RUN` or `COPY`."""
    return type(instruction).__name__.upper()
