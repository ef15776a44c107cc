"""What launch.json asks of the monitor, checked once, and the restarts that its policy allows.

Files are read and removed here; nothing is started, and nothing waits.
"""

from __future__ import annotations

import os

from rootless.errors import InvalidInput
from rootless.records.fields import parse_json
from rootless.records.launch import LaunchPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.runtime.spec.oci_config import OciConfig

_MAX_FILE = 8 << 20  # bytes of launch.json
_FIRST_DELAY = 0.1  # seconds, doubled with each restart
_LONGEST_DELAY = 60.0  # seconds
_GOOD_RUN = 10.0  # seconds after which the next delay is the first one again


class LaunchSpec:
    """launch.json of one container as its monitor uses it.

    directory: the container's directory; plan: launch.json; bundle: where config.json is; runtime_dir: where the
    monitor's socket is; stop_timeout: seconds, None means "never kill". The OCI configuration is read when needed:
    `config` checked, and `config_json` as it is, for other runtimes, which may know more of it. warnings: lines that
    the launch has for the user who started the container.
    """

    __slots__ = (
        "_config",
        "_config_json",
        "bundle",
        "directory",
        "id",
        "plan",
        "runtime_dir",
        "stop_timeout",
        "warnings",
    )

    def __init__(self, directory: str, plan: LaunchPlan) -> None:
        self.directory = directory
        self.plan = plan
        self._config: OciConfig | None = None
        self._config_json: dict[str, object] | None = None
        self.id = plan.id
        self.bundle = plan.bundle or directory
        self.runtime_dir = plan.runtime_dir or directory
        self.stop_timeout = None if plan.stop_timeout < 0 else plan.stop_timeout
        self.warnings: list[str] = []

    @property
    def config_json(self) -> dict[str, object]:
        """The content of config.json, unchecked. Raises InvalidInput when it cannot be read or is no JSON object."""
        if self._config_json is None:
            self._config_json = _object(f"{self.bundle}/config.json")
        return self._config_json

    @property
    def config(self) -> OciConfig:
        """The container's OCI configuration. Raises InvalidInput naming the property that is wrong."""
        if self._config is None:
            from rootless.runtime.spec.oci_config import OciConfig

            self._config = OciConfig.from_json(self.config_json)
        return self._config

    def now(self) -> LaunchPlan:
        """launch.json as it is now, because `update` and `rename` change it while the container runs; the plan of the
        start where it cannot be read any more, for the end of the container must not depend on that."""
        try:
            return _plan(self.directory)
        except InvalidInput:
            return self.plan

    def remove_container(self, userns_fd: int | None = None) -> None:
        """Delete what launch.json's "remove" lists, for a container of --rm that has ended. Raises RootlessError.

        The name goes first: a container without a name is garbage that `prune` finds if this process is killed in
        between. userns_fd: a user namespace with the container's id map; None where none is open, and one is made. Only
        inside of such a namespace can files be removed that other ids of the container own.
        """
        from rootless.storage.files.removal import remove_tree

        remove = self.now().remove
        if remove is None:
            return
        if remove.name_file:
            try:
                os.unlink(remove.name_file)
            except FileNotFoundError:
                pass
        for path in (remove.directory, *remove.volumes):
            if path and os.path.lexists(path):
                remove_tree(path, self.plan.id_map, userns_fd=userns_fd)

    @property
    def socket_path(self) -> str:
        """The path of the socket at which clients attach to the container."""
        return f"{self.runtime_dir}/containers/{self.id}.sock"

    @property
    def has_own_users(self) -> bool:
        """Whether the container has a user namespace of its own, and does not join that of another container."""
        return self.config.linux.makes("user")


class RestartPolicy:
    """docker's restart policy `name` with its count and its back-off.

    name: "no", "on-failure", "always", "unless-stopped"; maximum: the most restarts of on-failure, 0 means no limit.
    "always" and "unless-stopped" differ only in what a later boot does, which is not the monitor's business. count:
    starts after the first one; delay: seconds before the last of them, 0 before there was one.
    """

    __slots__ = ("count", "delay", "maximum", "name")

    def __init__(self, name: str = "no", maximum: int = 0) -> None:
        self.name = name or "no"
        self.maximum = maximum
        self.count = 0
        self.delay = 0.0

    def resume(self, count: int, delay: float) -> None:
        """Go on with the count and the delay of an earlier policy."""
        self.count, self.delay = count, delay

    def change(self, name: str, maximum: int) -> None:
        """Follow another policy from now on, as `update --restart` asks; the count and the delay so far stay."""
        self.name = name or "no"
        self.maximum = maximum

    def next_delay(self, exit_code: int, ran_for: float, *, stop_requested: bool) -> float | None:
        """Seconds until the next start; None when the container stays ended.

        exit_code, ran_for: the code and the seconds of the run that has ended. stop_requested: a user has stopped the
        container, which no policy undoes.
        """
        if stop_requested or self.name == "no":
            return None
        if self.name == "on-failure" and (exit_code == 0 or 0 < self.maximum <= self.count):
            return None
        if self.name not in ("on-failure", "always", "unless-stopped"):
            return None
        if ran_for >= _GOOD_RUN or not self.delay:
            self.delay = _FIRST_DELAY
        else:
            self.delay = min(self.delay * 2, _LONGEST_DELAY)
        self.count += 1
        return self.delay


def read_spec(directory: str) -> LaunchSpec:
    """The specification in `directory`. Raises InvalidInput naming the file when it is missing or malformed."""
    spec = LaunchSpec(directory, _plan(directory))
    _ = spec.config_json  # a file that is missing or malformed is reported before the launch has made anything
    return spec


def _plan(directory: str) -> LaunchPlan:
    path = f"{directory}/launch.json"
    return LaunchPlan.from_json(_object(path), path)


def _object(path: str) -> dict[str, object]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(fd, "rb") as file:
            value = parse_json(file.read(_MAX_FILE))
    except OSError as e:
        raise InvalidInput(f"cannot read '{path}': {e.strerror}") from e
    except ValueError as e:
        raise InvalidInput(f"'{path}' is not JSON: {e}") from e
    if not isinstance(value, dict):
        raise InvalidInput(f"'{path}' is not a JSON object")
    return value
