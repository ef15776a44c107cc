"""The variables of a stage: what ARG and ENV declare, and instructions with their final words. Pure.

ARG and ENV are one set of names in which the later declaration wins, as in BuildKit; only ENV reaches the image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from rootless.builder.dockerfile import variables
from rootless.builder.dockerfile.instructions import (
    Add,
    Arg,
    Copy,
    Env,
    Expose,
    Instruction,
    Label,
    Mount,
    Pair,
    Run,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from rootless.builder.dockerfile.problems import DockerfileError, Place
from rootless.errors import UsageError
from rootless.image.platform import Platform

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
_PLATFORM_ARGS = ("PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT")
PREDEFINED = frozenset(
    [*_PROXIES, *(name.lower() for name in _PROXIES), "SOURCE_DATE_EPOCH", "TARGETSTAGE"]
    + [side + name for side in ("TARGET", "BUILD") for name in _PLATFORM_ARGS]
)
# The BUILDKIT_ arguments that are obeyed. Others are said to be unused, as any argument that changes nothing
_SWITCHES = frozenset(
    ("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "BUILDKIT_DOCKERFILE_CHECK", "BUILDKIT_INLINE_CACHE", "BUILDKIT_SANDBOX_HOSTNAME")
)
# A Dockerfile is hostile input, and a few lines of `ENV A=$A$A` double a value each
MAX_VARIABLES = 4 << 20  # characters of all values together; the kernel takes less for one process
MAX_WORDS = 64 << 20  # characters of all words of a stage, most of which end up in the image's config
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/([a-z]+))?", re.ASCII)


def is_predefined(name: str) -> bool:
    """Whether `name` is a build argument that needs no ARG: a proxy, a platform, the epoch, or a switch."""
    return name in PREDEFINED or name in _SWITCHES


def proxy_variables(build_args: Mapping[str, str]) -> dict[str, str]:
    """The proxies among the build arguments, as RUN gets them, in upper and in lower case.

    They are in no cache key, no history and no config: a proxy's URL may hold a password, and is this host's alone.
    """
    found: dict[str, str] = {}
    for name in _PROXIES:
        value = build_args.get(name) or build_args.get(name.lower())
        if value:
            found[name] = found[name.lower()] = value
    return found


def platform_args(target: Platform, build: Platform, stage: str) -> dict[str, str]:
    """TARGETPLATFORM and its kin, BUILDPLATFORM and its kin, and TARGETSTAGE ("default" for the last stage)."""
    found = {"TARGETSTAGE": stage or "default"}
    for side, platform in (("TARGET", target), ("BUILD", build)):
        found[f"{side}PLATFORM"] = str(platform)
        found[f"{side}OS"] = platform.os
        found[f"{side}OSVERSION"] = ""
        found[f"{side}ARCH"] = platform.architecture
        found[f"{side}VARIANT"] = platform.variant
    return found


def global_args(
    declared: Iterable[Arg], *, escape: str, automatic: Mapping[str, str], build_args: Mapping[str, str]
) -> dict[str, str]:
    """The values of the ARGs before the first FROM, and of the `automatic` ones that they do not declare anew.

    build_args: values of --build-arg. Raises DockerfileError.
    """
    scope = Scope(escape=escape, environment={}, global_args=automatic, build_args=build_args)
    found = dict(automatic)
    for arg in declared:
        scope.enter(arg, also=automatic)
    found.update(scope.arguments)
    return found


def expand_word(text: str, values: Mapping[str, str], place: Place, escape: str) -> str:
    """`text` of an instruction at `place` with its variables replaced by `values`. Raises DockerfileError."""
    try:
        return variables.expand(text, values, escape=escape).text
    except variables.ExpansionError as e:
        raise DockerfileError(place, f"'{text[:100]}': {e}") from None


class Scope:
    """The variables of one stage, whose instructions are given in order to `expand`, and then to `enter`.

    environment: what ENV has set, the base's included; arguments: what ARG has declared, in the stage and, as
    `inherited`, in the stages that it stands on; variables: both, where the later declaration of a name wins. declared:
    the names of all ARGs, also of those without a value; undefined: the names without a value, and without an ARG, that
    were used since somebody last cleared it. escape: the Dockerfile's escape character; build_args: values of
    --build-arg.
    """

    def __init__(
        self,
        *,
        escape: str,
        environment: Mapping[str, str],
        global_args: Mapping[str, str],
        build_args: Mapping[str, str],
        inherited: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.environment = dict(environment)
        self.arguments = dict(inherited)
        # BuildKit sets the ENV of the base's config anew in each stage, so that it wins over an inherited ARG
        self.variables = {**inherited, **environment}
        self.undefined: set[str] = set()
        self.declared = set(inherited)
        self._expanded = 0
        self._escape = escape
        self._global_args = global_args
        self._build_args = build_args

    def copy(self) -> Scope:
        """A scope with the same variables, in which other instructions can be tried."""
        new = Scope(
            escape=self._escape,
            environment=self.environment,
            global_args=self._global_args,
            build_args=self._build_args,
        )
        new.arguments, new.variables, new.declared = dict(self.arguments), dict(self.variables), set(self.declared)
        return new

    def enter(self, instruction: Instruction, *, also: Mapping[str, str] | None = None) -> None:
        """Note what an ENV, expanded, or an ARG declares for later instructions. Others change nothing.

        also: further values to expand an ARG's default with, for the ARGs before the first FROM. Raises
        DockerfileError.
        """
        if isinstance(instruction, Env):
            for pair in instruction.pairs:
                self.environment[pair.name] = self.variables[pair.name] = pair.value or ""
            self._check_size(instruction.place)
        elif isinstance(instruction, Arg):
            for pair in instruction.pairs:
                value = self._argument(instruction.place, pair, also)
                self.declared.add(pair.name)
                if value is not None:
                    self.arguments[pair.name] = self.variables[pair.name] = value
            self._check_size(instruction.place)

    def _argument(self, place: Place, pair: Pair, also: Mapping[str, str] | None) -> str | None:
        """The value of an ARG: of --build-arg, else its default, else that of the ARG before the first FROM, else None.

        A default sees the ARGs before it on the same line.
        """
        if pair.name in self._build_args:
            return self._build_args[pair.name]
        if pair.value is None:
            return self._global_args.get(pair.name)
        return self._expansion(place, pair.value, also).text

    def _check_size(self, place: Place) -> None:
        if sum(map(len, self.variables.values())) > MAX_VARIABLES:
            raise DockerfileError(place, f"the variables hold more than {MAX_VARIABLES >> 20} MiB")

    def expand(self, instruction: Instruction) -> Instruction:
        """The same instruction with its final words, checked. Raises DockerfileError.

        Words that became empty mean what they mean to BuildKit (the destination of COPY and WORKDIR the working
        directory, USER root), except for a source, which would be the whole context.

        The words that the shell expands (RUN, CMD, ENTRYPOINT, HEALTHCHECK) stay as they are; `enter` expands the
        values of ARG.
        """
        place = instruction.place
        if isinstance(instruction, Env | Label):
            return instruction._replace(pairs=tuple(self._pair(place, pair) for pair in instruction.pairs))
        if isinstance(instruction, Arg):
            return instruction._replace(
                pairs=tuple(Pair(self._name(place, pair.name), pair.value) for pair in instruction.pairs)
            )
        if isinstance(instruction, Run):
            return instruction._replace(mounts=tuple(self._mount(place, mount) for mount in instruction.mounts))
        if isinstance(instruction, Copy | Add):
            return self._files(instruction)
        if isinstance(instruction, Workdir):
            return instruction._replace(path=self._word(place, instruction.path))
        if isinstance(instruction, User):
            return instruction._replace(user=self._word(place, instruction.user))
        if isinstance(instruction, Volume):
            paths = tuple(self._filled(place, "a path", path) for path in instruction.paths)
            return instruction._replace(paths=paths)
        if isinstance(instruction, StopSignal):
            return instruction._replace(signal=self._signal(place, instruction.signal))
        if isinstance(instruction, Expose):
            return instruction._replace(ports=self._ports(place, instruction.ports))
        return instruction

    def _word(self, place: Place, text: str) -> str:
        found = self._expansion(place, text).text
        self._count(place, len(found))
        return found

    def _expansion(self, place: Place, text: str, also: Mapping[str, str] | None = None) -> variables.Expansion:
        """`text` with its variables replaced, and with those of `also`. Raises DockerfileError."""
        values = {**also, **self.variables} if also else self.variables
        try:
            found = variables.expand(text, values, escape=self._escape)
        except variables.ExpansionError as e:
            raise DockerfileError(place, f"'{text[:100]}': {e}") from None
        self.undefined |= found.undefined - self.declared
        return found

    def _count(self, place: Place, size: int) -> None:
        self._expanded += size
        if self._expanded > MAX_WORDS:
            raise DockerfileError(place, f"the stage's words hold more than {MAX_WORDS >> 20} MiB")

    def _filled(self, place: Place, name: str, text: str) -> str:
        found = self._word(place, text)
        if not found:
            raise DockerfileError(place, f"{name}: '{text[:100]}' is empty")
        return found

    def _name(self, place: Place, text: str) -> str:
        name = self._filled(place, "a name", text)
        if "=" in name:
            raise DockerfileError(place, f"a name holds '=': '{name[:100]}'")
        return name

    def _pair(self, place: Place, pair: Pair) -> Pair:
        return Pair(self._name(place, pair.name), self._word(place, pair.value or ""))

    def _mount(self, place: Place, mount: Mount) -> Mount:
        from rootless.builder.dockerfile import mount_option

        try:
            return mount_option.parse(mount.raw, lambda text: self._word(place, text))
        except mount_option.MountError as e:
            raise DockerfileError(place, f"--mount: {e}") from None

    def _files(self, instruction: Copy | Add) -> Copy | Add:
        place = instruction.place
        heredocs = []
        for heredoc in instruction.heredocs:
            content = heredoc.content
            if heredoc.is_expanded:
                try:
                    # The escape character of a heredoc is always the backslash, and quotes are text in it
                    found = variables.expand(content, self.variables, is_raw=True)
                    content = found.text
                    self.undefined |= found.undefined - self.declared
                except variables.ExpansionError as e:
                    raise DockerfileError(place, f"heredoc '{heredoc.name[:100]}': {e}") from None
            heredocs.append(heredoc._replace(content=content))
        changed = instruction._replace(
            sources=tuple(self._filled(place, "a source", source) for source in instruction.sources),
            destination=self._word(place, instruction.destination),
            heredocs=tuple(heredocs),
            chown=self._word(place, instruction.chown),
            chmod=self._word(place, instruction.chmod),
            excludes=tuple(self._word(place, pattern) for pattern in instruction.excludes),
        )
        if isinstance(changed, Add):
            checksum = self._word(place, changed.checksum)
            if changed.checksum and not checksum:  # the verification that was asked for would not take place
                raise DockerfileError(place, f"--checksum: '{changed.checksum[:100]}' is empty")
            return changed._replace(checksum=checksum)
        return changed

    def _signal(self, place: Place, text: str) -> str:
        from rootless.engine.plan.signal_names import parse_signal

        found = self._filled(place, "the signal", text)
        try:
            parse_signal(found, "STOPSIGNAL")
        except UsageError as e:
            raise DockerfileError(place, e.message, hint=e.hint) from None
        return found

    def _ports(self, place: Place, texts: tuple[str, ...]) -> tuple[str, ...]:
        """The ports, as `80/tcp`, that texts such as `80`, `80/udp` and `8000-8010` mean. A variable may hold several.

        A variable without a value means none. Raises DockerfileError.
        """
        found: dict[str, None] = {}
        for text in texts:
            for one in self._expansion(place, text).words:
                found.update(dict.fromkeys(_port_range(place, one)))
        self._count(place, sum(map(len, found)))
        return tuple(found)


def _port_range(place: Place, text: str) -> list[str]:
    # docker takes `[ip:][host:]container`, of which EXPOSE uses the container's port alone
    match = _PORT.fullmatch(text.lower().rpartition(":")[2])
    first = int(match[1]) if match else 0
    last = int(match[2] or match[1]) if match else 0
    protocol = (match[3] or "tcp") if match else ""
    if not 0 < first <= last < 1 << 16 or protocol not in ("tcp", "udp", "sctp"):
        raise DockerfileError(place, f"EXPOSE: '{text[:100]}' is not a port", hint="write 80, 80/udp or 8000-8010")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def environment(pairs: Iterable[str]) -> dict[str, str]:
    """The `NAME=value` entries of an image config's Env as a mapping. Entries without `=` are left out."""
    split = (pair.partition("=") for pair in pairs)
    return {name: value for name, equals, value in split if equals}
