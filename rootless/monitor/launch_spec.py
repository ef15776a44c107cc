"""What launch.json asks of the monitor, checked once. It reads; it starts nothing."""

from __future__ import annotations

import os

from rootless.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_FILE = 8 << 20  # bytes of launch.json


class LaunchSpec:
    """launch.json of one container: what the engine wants to run and what shall happen when it ends.

    directory: the container's directory; raw: launch.json itself; the other attributes are its members. Seconds are
    floats, sizes bytes, `stop_timeout` None means "never kill". `config`, the OCI configuration, is read when needed.
    warnings: what the launch has to tell the user, who started the container.
    """

    __slots__ = (
        "_config",
        "bundle",
        "cgroup",
        "directory",
        "events",
        "health",
        "id",
        "id_map",
        "init",
        "keep_groups",
        "log",
        "name",
        "network",
        "open_stdin",
        "outer_map",
        "raw",
        "remove",
        "restart",
        "root_emulation",
        "rootfs",
        "runtime",
        "runtime_dir",
        "seccomp_bpf",
        "seccomp_flags",
        "seccomp_listener",
        "seed_volumes",
        "stdin_once",
        "stop_signal",
        "stop_timeout",
        "terminal",
        "warnings",
    )

    def __init__(self, directory: str, launch: dict[str, Any]) -> None:
        self.directory = directory
        self.raw = launch
        self._config: dict[str, Any] | None = None
        self.id = str(launch["id"])
        self.name = str(launch.get("name") or self.id[:12])
        self.bundle = str(launch.get("bundle") or directory)
        self.rootfs: dict[str, Any] | None = launch.get("rootfs")
        self.id_map: dict[str, Any] = launch["id_map"]
        self.outer_map: dict[str, Any] | None = launch.get("outer_map")
        self.init = bool(launch.get("init"))
        self.network: dict[str, Any] = launch.get("network") or {"mode": "none"}
        self.seed_volumes: list[dict[str, str]] = launch.get("seed_volumes") or []
        self.seccomp_bpf: str | None = launch.get("seccomp_bpf")
        self.seccomp_flags = int(launch.get("seccomp_flags") or 0)
        self.seccomp_listener: dict[str, Any] | None = launch.get("seccomp_listener")
        self.root_emulation: dict[str, Any] | None = launch.get("root_emulation")
        self.cgroup: dict[str, Any] = launch.get("cgroup") or {}
        self.events: dict[str, Any] | None = launch.get("events")
        self.warnings: list[str] = []
        self.log: dict[str, Any] = launch.get("log") or {"driver": "none"}
        self.terminal = bool(launch.get("terminal"))
        self.open_stdin = bool(launch.get("open_stdin"))
        self.keep_groups = bool(launch.get("keep_groups"))
        self.stdin_once = bool(launch.get("stdin_once"))
        self.stop_signal = int(launch.get("stop_signal") or 15)
        timeout = launch.get("stop_timeout", 10)
        self.stop_timeout: float | None = None if timeout is None or timeout < 0 else float(timeout)
        restart = launch.get("restart") or {}
        self.restart = (str(restart.get("name") or "no"), int(restart.get("maximum_retry_count") or 0))
        self.health: dict[str, Any] | None = launch.get("health")
        self.remove: dict[str, Any] | None = launch.get("remove")
        self.runtime: str | None = launch.get("runtime")
        self.runtime_dir = str(launch.get("runtime_dir") or directory)

    @property
    def config(self) -> dict[str, Any]:
        """The container's OCI configuration."""
        if self._config is None:
            self._config = _object(f"{self.bundle}/config.json")
        return self._config

    def now(self, key: str) -> Any:
        """A member of launch.json as it is now: `update` and `rename` change it while the container runs."""
        try:
            return _object(f"{self.directory}/launch.json").get(key)
        except InvalidInput:
            return self.raw.get(key)

    @property
    def socket_path(self) -> str:
        """Where clients attach."""
        return f"{self.runtime_dir}/containers/{self.id}.sock"

    @property
    def has_own_users(self) -> bool:
        """Whether the container has a user namespace of its own, and does not join that of another container."""
        namespaces = self.config.get("linux", {}).get("namespaces", [])
        return any(n.get("type") == "user" and not n.get("path") for n in namespaces)

    @property
    def has_own_processes(self) -> bool:
        """Whether the container has a pid namespace of its own, in which nothing outlives its first process."""
        namespaces = self.config.get("linux", {}).get("namespaces", [])
        return any(n.get("type") == "pid" and not n.get("path") for n in namespaces)


def read(directory: str) -> LaunchSpec:
    """The specification in `directory`. Raises InvalidInput naming the file when it is missing or malformed."""
    launch = _object(f"{directory}/launch.json")
    try:
        spec = LaunchSpec(directory, launch)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise InvalidInput(f"'{directory}/launch.json' is not complete: {e!r}") from e
    _ = spec.config  # missing or malformed: better now than inside the launch
    return spec


def _object(path: str) -> dict[str, Any]:
    import json

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(fd, "rb") as file:
            value = json.loads(file.read(_MAX_FILE))
    except OSError as e:
        raise InvalidInput(f"cannot read '{path}': {e.strerror}") from e
    except ValueError as e:
        raise InvalidInput(f"'{path}' is not JSON: {e}") from e
    if not isinstance(value, dict):
        raise InvalidInput(f"'{path}' is not a JSON object")
    return value
