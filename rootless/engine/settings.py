"""The user's settings: config.toml, then ROOTLESS_* variables, then global flags. It owns their names and types."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from rootless.errors import HostLimit, InvalidInput, UsageError
from rootless.paths import close_to_others


class Settings(NamedTuple):
    """What may be set once for all commands. Names are the keys of config.toml; `ABOUT` says what each one means."""

    storage_driver: str = "auto"
    network: str = ""
    runtime: str = ""
    log_driver: str = "json-file"
    log_max_size: int = 100 << 20
    log_max_file: int = 2
    stop_timeout: int = 10
    detach_keys: str = "ctrl-p,ctrl-q"
    seccomp_profile: str = ""
    build_cache_size: int = 20 << 30
    cgroups: str = "enabled"
    cgroup_parent: str = ""
    strict_limits: bool = False
    keep_layer_blobs: bool = False


# What each setting means, in words for `rootless config` and the man page.
ABOUT = {
    "storage_driver": "how layers become a container's root file system, as --storage-driver",
    "network": "the network mode of a container that names none; empty: the best one that the host has",
    "runtime": "name or path of another OCI runtime, such as crun; empty: our own",
    "log_driver": "json-file or none",
    "log_max_size": "bytes (or a size such as 10m) of a log file before a new one is begun; -1: no limit",
    "log_max_file": "how many log files are kept of a container",
    "stop_timeout": "seconds from the stop signal to SIGKILL",
    "detach_keys": "the keys that detach from a terminal",
    "seccomp_profile": "path of a seccomp profile; empty: the default one",
    "build_cache_size": "bytes (or a size) that the build cache may take",
    "cgroups": "enabled, disabled or split",
    "cgroup_parent": "a directory of the cgroup tree that is yours, or a .slice of your systemd; empty: what is found",
    "strict_limits": "whether a limit that the host cannot enforce is an error instead of a warning",
    "keep_layer_blobs": "whether a layer's compressed bytes are kept beside its unpacked files",
}


def load_settings(config_directory: str, overrides: dict[str, str]) -> Settings:
    """The settings of this command. Raises InvalidInput naming the file and key, UsageError naming the variable."""
    return _load(config_directory, overrides, {})


class SettingInForce(NamedTuple):
    """One setting as a command would use it. source: the file, variable or flag that gave it; "" = the default."""

    name: str
    value: str | int | bool
    source: str
    about: str


def explain_settings(config_directory: str, overrides: dict[str, str]) -> list[SettingInForce]:
    """Every setting with where its value comes from. Raises as `load_settings`."""
    sources: dict[str, str] = {}
    settings = _load(config_directory, overrides, sources)
    return [
        SettingInForce(name, value, sources.get(name, ""), ABOUT[name]) for name, value in settings._asdict().items()
    ]


def _load(config_directory: str, overrides: dict[str, str], sources: dict[str, str]) -> Settings:
    """The settings; `sources` is told where each one that is not a default comes from."""
    settings = Settings()
    path = f"{config_directory}/config.toml"
    for key, value in _read(path).items():
        settings = _set(settings, key, value, f"'{path}'", InvalidInput)
        sources[key] = path
    for key in Settings._fields:
        variable = f"ROOTLESS_{key.upper()}"
        if variable in os.environ:
            settings = _set(settings, key, os.environ[variable], variable, UsageError)
            sources[key] = variable
    for key, value in overrides.items():
        flag = f"--{key.replace('_', '-')}"
        settings = _set(settings, key, value, flag, UsageError)
        sources[key] = flag
    return settings


def _read(path: str) -> dict[str, object]:
    try:
        file = open(path, "rb")
    except FileNotFoundError:
        return {}
    except OSError as e:
        raise InvalidInput(f"cannot read '{path}': {e.strerror}") from e
    import tomllib

    with file:
        _check_writers(os.path.dirname(path))
        try:
            return tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
            raise InvalidInput(f"'{path}' is not TOML: {e}") from e


def _check_writers(directory: str) -> None:
    """Settings name programs that are run as the caller: who else can write them is kept out, or nothing is read.

    A directory of root (or, in a user namespace without root's id, of an id that is not mapped) is the administrator's.
    Raises HostLimit.
    """
    status = os.stat(directory)
    if status.st_uid == os.geteuid():
        if status.st_mode & 0o022:
            close_to_others(directory)
    elif status.st_uid not in (0, _overflow_uid()):
        raise HostLimit(
            f"the settings in '{directory}' belong to another user", hint="set XDG_CONFIG_HOME to a directory of yours"
        )


def _overflow_uid() -> int:
    """The uid that stat(2) gives for ids which have no number in this user namespace."""
    with open("/proc/sys/kernel/overflowuid", encoding="ascii") as file:
        return int(file.read())


def _choices(key: str) -> tuple[str, ...]:
    """The values that a setting takes; none where it takes any. Most commands have no setting and load no table."""
    if key == "storage_driver":
        from rootless.storage.drivers import names

        return ("auto", *names())
    if key == "network":
        from rootless.network.modes import MODES

        return ("", *(mode.name for mode in MODES if not mode.joins_another))
    return {"log_driver": ("json-file", "none"), "cgroups": ("enabled", "disabled", "split")}.get(key, ())


def _set(
    settings: Settings, key: str, value: object, where: str, error: type[InvalidInput] | type[UsageError]
) -> Settings:
    if key not in Settings._fields:
        raise error(f"unknown setting '{key}' in {where}", hint=f"known are {', '.join(Settings._fields)}")
    default = Settings._field_defaults[key]
    if isinstance(default, bool):
        value = _switch(key, value, where, error)
    elif isinstance(default, int):
        value = _integer(key, value, where, error)
    elif not isinstance(value, str):
        raise error(f"setting '{key}' in {where} must be text, not {value!r}")
    choices = _choices(key)
    if choices and value not in choices:
        raise error(f"setting '{key}' in {where} cannot be '{value}'", hint=f"use {', '.join(c for c in choices if c)}")
    replaced: dict[str, Any] = {key: value}  # the value has the type of the default: looked at above
    return settings._replace(**replaced)


def _switch(key: str, value: object, where: str, error: type[InvalidInput] | type[UsageError]) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise error(f"setting '{key}' in {where} must be true or false, not {value!r}")


def _integer(key: str, value: object, where: str, error: type[InvalidInput] | type[UsageError]) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise error(f"setting '{key}' in {where} must be a number, not {value!r}")
    try:
        if key in ("log_max_size", "build_cache_size") and isinstance(value, str) and value != "-1":
            from rootless.units import parse_size

            return parse_size(value, key)
        return int(value)
    except (ValueError, UsageError):
        raise error(f"setting '{key}' in {where} must be a number, not '{value}'") from None
