"""The user's settings, with their names and types: from config.toml, ROOTLESS_* variables and global flags.

A later one of these three wins over an earlier one.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from rootless.errors import HostLimit, InvalidInput, UsageError
from rootless.paths import close_to_others


class Settings(NamedTuple):
    """The settings that hold for all commands. Their names are the keys of config.toml; `ABOUT` describes each."""

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
    build_times: str = "kept"
    cgroups: str = "enabled"
    cgroup_parent: str = ""
    strict_limits: bool = False
    keep_layer_blobs: bool = False
    cdi_spec_dirs: str = ""


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
    "build_times": "kept: what RUN writes has the time of its writing; settled: that of its inputs, reproducible",
    "cgroups": "enabled, disabled or split",
    "cgroup_parent": "a directory of the cgroup tree that is yours, or a .slice of your systemd; empty: what is found",
    "strict_limits": "whether a limit that the host cannot enforce is an error instead of a warning",
    "keep_layer_blobs": "whether a layer's compressed bytes are kept beside its unpacked files",
    "cdi_spec_dirs": "directories of CDI specifications, with colons between them; empty: /etc/cdi, /var/run/cdi, "
    "~/.config/cdi",
}


def load_settings(config_directory: str, overrides: dict[str, str]) -> Settings:
    """The settings of this command. overrides: those of global flags, by name.

    Raises InvalidInput naming the file and key, UsageError naming the variable or flag, HostLimit for a directory of
    settings that another user could write.
    """
    return _load(config_directory, overrides, {})


class SettingInForce(NamedTuple):
    """One setting as a command would use it. source: the file, variable or flag that gave it; "" = the default."""

    name: str
    value: str | int | bool
    source: str
    about: str


def explain_settings(config_directory: str, overrides: dict[str, str]) -> list[SettingInForce]:
    """Every setting with the source of its value. Raises as `load_settings` does."""
    sources: dict[str, str] = {}
    settings = _load(config_directory, overrides, sources)
    return [
        SettingInForce(name, value, sources.get(name, ""), ABOUT[name]) for name, value in settings._asdict().items()
    ]


def _load(config_directory: str, overrides: dict[str, str], sources: dict[str, str]) -> Settings:
    """The settings. Into `sources` goes, by name, where each one comes from that is not a default."""
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
    """Make sure that nobody but the caller and the administrator can write to the directory of settings.

    Settings name programs that run as the caller (`runtime`), so that whoever writes them can act as the caller. Write
    permissions of others on a directory of the caller's are taken away. A directory of root is the administrator's, and
    in a user namespace without root's id root's files show the overflow uid (user_namespaces(7)). Any other owner
    raises HostLimit.
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
    """The uid that stat(2) reports for files whose owner has no number in this user namespace (65534 mostly)."""
    with open("/proc/sys/kernel/overflowuid", encoding="ascii") as file:
        return int(file.read())


def _choices(key: str) -> tuple[str, ...]:
    """The values that a setting takes, none where it takes any text.

    The tables of drivers and modes are loaded only for a setting that somebody has set, which most users have not.
    """
    if key == "storage_driver":
        from rootless.storage.drivers import driver_names

        return ("auto", *driver_names())
    if key == "network":
        from rootless.network.modes import MODES

        return ("", *(mode.name for mode in MODES if not mode.joins_another))
    return {
        "log_driver": ("json-file", "none"),
        "build_times": ("kept", "settled"),
        "cgroups": ("enabled", "disabled", "split"),
    }.get(key, ())


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
    replaced: dict[str, Any] = {key: value}  # The value was found above to have the type of the default
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
