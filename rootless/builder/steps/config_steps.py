"""Instructions that only change the image's config. Pure: state in, state out."""

from __future__ import annotations

import posixpath

from rootless.builder.dockerfile import texts
from rootless.builder.dockerfile.instructions import (
    Arg,
    Cmd,
    Entrypoint,
    Env,
    Expose,
    HealthCheck,
    Label,
    Maintainer,
    OnBuild,
    Shell,
    StopSignal,
    User,
    Volume,
)
from rootless.image import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.builder.dockerfile.instructions import Instruction
    from rootless.builder.session.build_state import BuildState
    from rootless.image.fields import Fields


def apply(state: BuildState, instruction: Instruction, created_by: str) -> BuildState:
    """The state after an instruction, expanded, that makes no layer. created_by: its line in the image's history."""
    if isinstance(instruction, Cmd):
        return state.changed(created_by, Cmd=texts.command_words(instruction.command, state.shell))._replace(
            has_cmd=True
        )
    if isinstance(instruction, Entrypoint):
        settings: Fields = {"Entrypoint": texts.command_words(instruction.command, state.shell)}
        if not state.has_cmd:
            settings["Cmd"] = None  # as in docker: the base's CMD holds the arguments of the base's ENTRYPOINT
        return state.changed(created_by, **settings)
    if isinstance(instruction, Maintainer):
        return state._replace(author=instruction.name).changed(created_by)
    return state.changed(created_by, **_settings(state, instruction))


def _settings(state: BuildState, instruction: Instruction) -> Fields:
    config = state.config
    match instruction:
        case Env():
            return {"Env": merged_env(state.env, [(p.name, p.value or "") for p in instruction.pairs])}
        case Label():
            return {
                "Labels": {
                    **fields.as_mapping(config.get("Labels"), "Labels"),
                    **{p.name: p.value or "" for p in instruction.pairs},
                }
            }
        case User():
            return {"User": instruction.user or None}
        case Shell():
            return {"Shell": list(instruction.words)}
        case Expose():
            return {
                "ExposedPorts": {
                    **fields.as_mapping(config.get("ExposedPorts"), "ExposedPorts"),
                    **{port: {} for port in instruction.ports},
                }
            }
        case Volume():
            return {
                "Volumes": {
                    **fields.as_mapping(config.get("Volumes"), "Volumes"),
                    **{path: {} for path in instruction.paths},
                }
            }
        case StopSignal():
            return {"StopSignal": instruction.signal}
        case HealthCheck():
            return {"Healthcheck": _health_check(instruction)}
        case OnBuild():
            return {"OnBuild": [*(fields.texts_member(config, "OnBuild") or []), instruction.trigger]}
        case Arg():
            return {}
    raise AssertionError(f"{type(instruction).__name__} changes more than the config")


def merged_env(env: list[str], pairs: list[tuple[str, str]]) -> list[str]:
    """The `NAME=value` entries of `env` with `pairs` set. A name that is there keeps its place in the order."""
    merged = dict(entry.partition("=")[::2] for entry in env)
    merged.update(pairs)
    return [f"{name}={value}" for name, value in merged.items()]


def _health_check(instruction: HealthCheck) -> Fields:
    if instruction.command is None:
        return {"Test": ["NONE"]}
    line = instruction.command
    check: Fields = {"Test": ["CMD", *line.words] if line.is_exec else ["CMD-SHELL", *line.words]}
    numbers = {
        "Interval": instruction.interval,
        "Timeout": instruction.timeout,
        "StartPeriod": instruction.start_period,
        "StartInterval": instruction.start_interval,
        "Retries": instruction.retries,
    }
    return check | {name: value for name, value in numbers.items() if value}


def working_directory(state: BuildState, path: str) -> str:
    """The absolute path, without `.` and `..`, that WORKDIR `path` means: it is relative to the one before."""
    joined = posixpath.normpath(posixpath.join("/", state.workdir, path))
    return "/" + joined.lstrip("/")
