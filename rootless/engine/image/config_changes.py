"""Dockerfile instructions that change an image's config (`import --change`, `commit --change`). Pure."""

from __future__ import annotations

import re
import shlex

from rootless.errors import UsageError
from rootless.image.fields import as_mapping, as_strings, texts_member
from rootless.image.fields import text_member as string
from rootless.records.fields import parse_json
from rootless.units import parse_duration, whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.image.fields import Fields

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE | re.ASCII)
_SHORTEST_INTERVAL = 1_000_000  # nanoseconds, docker's bound: a check every nanosecond would keep the host busy
_SHELL = ["/bin/sh", "-c"]


def apply_changes(config: Fields, changes: Sequence[str]) -> Fields:
    """A copy of the config with each instruction applied, in order. No value of `config` itself is changed.

    A new ENTRYPOINT removes the CMD, which was made for another one, unless a change before it has set the CMD: that is
    the rule of Dockerfiles and of `docker commit`. An empty one (`ENTRYPOINT []`) leaves CMD as it is, as with docker.

    Raises UsageError naming the instruction, InvalidInput for a member of the config that has another type than the
    image specification's config.md says.
    """
    changed = dict(config)
    is_cmd_set = False
    for line in changes:
        word, _, rest = line.strip().partition(" ")
        if "=" in word and word.partition("=")[0].upper() in _INSTRUCTIONS:
            word, _, rest = line.strip().partition("=")  # podman's form: CMD=/bin/sh
        instruction = _INSTRUCTIONS.get(word.upper())
        if instruction is None:
            raise UsageError(f"invalid change '{line}'", hint=f"use one of {', '.join(_INSTRUCTIONS)}")
        if not rest.strip():
            raise UsageError(f"invalid change '{line}': {word.upper()} needs a value")
        try:
            instruction(changed, rest.strip())
        except ValueError as e:
            raise UsageError(f"invalid change '{line}': {e}") from e
        is_cmd_set = is_cmd_set or instruction is _cmd
        if instruction is _entrypoint and changed["Entrypoint"] and not is_cmd_set:
            changed.pop("Cmd", None)
    return changed


def _command(text: str, shell: Sequence[str]) -> list[str]:
    """The words of a command: those of the exec form (a JSON list), or `shell` and the text of the shell form."""
    if text.startswith("["):
        try:
            words = parse_json(text)
        except ValueError:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return words
    return [*shell, text]


def _cmd(config: Fields, text: str) -> None:
    config["Cmd"] = _command(text, texts_member(config, "Shell") or _SHELL)


def _entrypoint(config: Fields, text: str) -> None:
    config["Entrypoint"] = _command(text, texts_member(config, "Shell") or _SHELL)


def _pairs(text: str) -> list[tuple[str, str]]:
    """The pairs of `A=1 B="2 3"`, or the one pair of the old form `A the rest`. Raises ValueError."""
    if "=" not in text.split(None, 1)[0]:
        name, _, value = text.partition(" ")
        return [(name, value.strip())]
    pairs = []
    for word in shlex.split(text):
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ValueError(f"'{word}' is not NAME=VALUE")
        pairs.append((name, value))
    return pairs


def _env(config: Fields, text: str) -> None:
    env = dict(entry.partition("=")[::2] for entry in texts_member(config, "Env") or [])
    env.update(_pairs(text))
    config["Env"] = [f"{name}={value}" for name, value in env.items()]


def _label(config: Fields, text: str) -> None:
    config["Labels"] = {**as_strings(config.get("Labels"), "Labels"), **dict(_pairs(text))}


def _expose(config: Fields, text: str) -> None:
    ports = dict(as_mapping(config.get("ExposedPorts"), "ExposedPorts"))
    for word in text.split():
        match = _PORT.fullmatch(word)
        if match is None or not 0 < int(match[1]) <= int(match[2] or match[1]) < 65536:
            raise ValueError(f"'{word}' is not PORT[-PORT][/PROTOCOL]")
        for port in range(int(match[1]), int(match[2] or match[1]) + 1):
            ports[f"{port}/{(match[3] or 'tcp').lower()}"] = {}
    config["ExposedPorts"] = ports


def _volume(config: Fields, text: str) -> None:
    paths = _command(text, []) if text.startswith("[") else shlex.split(text)
    if not all(path.startswith("/") for path in paths):
        raise ValueError("a volume is an absolute path")
    config["Volumes"] = {**as_mapping(config.get("Volumes"), "Volumes"), **{path: {} for path in paths}}


def _workdir(config: Fields, text: str) -> None:
    import posixpath

    config["WorkingDir"] = posixpath.normpath(posixpath.join(string(config, "WorkingDir") or "/", text))


def _user(config: Fields, text: str) -> None:
    if text.split() != [text]:
        raise ValueError("a user has no spaces")
    config["User"] = text


def _stop_signal(config: Fields, text: str) -> None:
    if not re.fullmatch(r"(?:SIG)?[A-Z0-9]+(?:[+-]\d+)?", text, re.ASCII):
        raise ValueError(f"'{text}' is not a signal")
    config["StopSignal"] = text


def _shell(config: Fields, text: str) -> None:
    words = _command(text, [])
    if not text.startswith("[") or words == [text]:
        raise ValueError("SHELL needs a JSON list")
    config["Shell"] = words


def _onbuild(config: Fields, text: str) -> None:
    word = text.split(None, 1)[0].upper()
    if word in ("ONBUILD", "FROM", "MAINTAINER"):
        raise ValueError(f"{word} is not allowed as an ONBUILD trigger")
    config["OnBuild"] = [*(texts_member(config, "OnBuild") or []), text]


def _retries(text: str) -> int:
    number = whole_number(text, (1 << 31) - 1)
    if number is None:
        raise ValueError(f"HEALTHCHECK --retries: '{text[:20]}' is not a number")
    return number


def _nanoseconds(text: str, flag: str) -> int:
    nanoseconds = int(parse_duration(text, flag) * 1e9)
    if 0 < nanoseconds < _SHORTEST_INTERVAL:
        raise ValueError(f"{flag} cannot be less than 1ms")
    return nanoseconds


def _healthcheck(config: Fields, text: str) -> None:
    names = {
        "interval": "Interval",
        "timeout": "Timeout",
        "start-period": "StartPeriod",
        "start-interval": "StartInterval",
        "retries": "Retries",
    }
    health: Fields = {}
    while text.startswith("--"):
        flag, _, text = text.partition(" ")
        name, _, value = flag[2:].partition("=")
        if name not in names:
            raise ValueError(f"'--{name}' is not an option of HEALTHCHECK")
        health[names[name]] = _retries(value) if name == "retries" else _nanoseconds(value, f"HEALTHCHECK --{name}")
        text = text.strip()
    if text.upper() == "NONE":
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    word, _, command = text.partition(" ")
    if word.upper() != "CMD" or not command.strip():
        raise ValueError("HEALTHCHECK needs CMD or NONE")
    words = _command(command.strip(), ["CMD-SHELL"])
    config["Healthcheck"] = {"Test": words if words[0] == "CMD-SHELL" else ["CMD", *words], **health}


_INSTRUCTIONS: dict[str, Callable[[Fields, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
