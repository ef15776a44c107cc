"""What devices of CDI change in a container's config.json, and how a later start takes it back. Pure.

`engine.devices` finds out what is to be changed. A start reads the specifications again, since the devices of a host
may be others after a reboot. So config.json says in a member of its own what it held before the devices. Runtimes
ignore members that they do not know (config.md, "Extensibility").
"""

from __future__ import annotations

from typing import NamedTuple

from rootless.errors import UsageError
from rootless.records.fields import Fields
from rootless.units import whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.plan.bundle import BundleMount

BEFORE = "rootlessBeforeDevices"
"""The member of config.json that holds what `DeviceEdits.apply` has replaced."""
_FILE = "config.json"
_MOST_GPUS = 1 << 16


class DeviceHook(NamedTuple):
    """A program to run. stage: its member of `hooks`; env: its whole environment; timeout: seconds, None without."""

    stage: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None

    def to_json(self) -> dict[str, object]:
        """The entry of `hooks` (config.md, "POSIX-platform Hooks").

        env is always there: a runtime may give a hook without it its own environment, with the caller's secrets.
        """
        entry: dict[str, object] = {"path": self.path, "args": list(self.args), "env": list(self.env)}
        if self.timeout is not None:
            entry["timeout"] = self.timeout
        return entry


class DeviceEdits:
    """What the devices of one container change. mounts: parents before what lies below them; env: NAME=VALUE.

    gids: further groups of the process, as the container counts them; warnings: one line each about what the host or
    the lack of privileges takes away.
    """

    __slots__ = ("env", "gids", "hooks", "mounts", "warnings")

    def __init__(self) -> None:
        self.mounts: list[BundleMount] = []
        self.env: list[str] = []
        self.gids: list[int] = []
        self.hooks: list[DeviceHook] = []
        self.warnings: list[str] = []

    def apply(self, config: dict[str, object]) -> None:
        """Change the content of config.json. Raises InvalidInput for one that does not look like ours."""
        fields = Fields(config, _FILE)
        process = fields.require_member("process")
        user = process.require_member("user")
        env, gids, mounts = process.texts("env"), user.integers("additionalGids"), fields.mappings("mounts")
        config[BEFORE] = {"env": env, "gids": gids, "mounts": len(mounts)}
        names = {entry.partition("=")[0] for entry in self.env}
        kept = [entry for entry in env if entry.partition("=")[0] not in names]
        process.to_json()["env"] = [*kept, *self.env]
        user.to_json()["additionalGids"] = [*gids, *(gid for gid in self.gids if gid not in gids)]
        config["mounts"] = [*mounts, *(mount.to_json() for mount in self.mounts)]
        stages: dict[str, list[dict[str, object]]] = {}
        for hook in self.hooks:
            stages.setdefault(hook.stage, []).append(hook.to_json())
        if stages:
            config["hooks"] = stages


def take_back(config: dict[str, object]) -> None:
    """Undo what `DeviceEdits.apply` did to the content of config.json; one without devices stays as it is.

    Raises InvalidInput for a content that does not look like ours.
    """
    fields = Fields(config, _FILE)
    before = fields.member(BEFORE)
    if before is None:
        return
    process = fields.require_member("process")
    process.to_json()["env"] = before.texts("env")
    process.require_member("user").to_json()["additionalGids"] = before.integers("gids")
    config["mounts"] = fields.mappings("mounts")[: before.integer("mounts")]
    # the engine gives containers no other hooks
    config.pop("hooks", None)
    del config[BEFORE]


class GpuRequest(NamedTuple):
    """The meaning of one --gpus. number: how many, -1 for all; names: those of `device=`, and then number is 0."""

    number: int
    names: tuple[str, ...] = ()


def parse_gpus(text: str) -> GpuRequest:
    """What a value of --gpus asks for: `all`, a number, `count=` with either, or `device=` with names.

    It is a line of CSV as docker has it: '"device=0,1"' with quotes inside; without them commas separate names as well.
    Raises UsageError.
    """
    import csv

    wrong = UsageError(f"invalid --gpus '{text}'", hint="write all, a number, or device=NAME[,NAME...]")
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as e:
        raise wrong from e
    names: list[str] = []
    count: int | None = None
    for part in rows[0] if len(rows) == 1 else []:
        name, is_pair, value = part.strip().partition("=")
        if not is_pair:
            name, value = ("device" if names else "count"), name
        if name == "device" and value and count is None:
            names += value.split(",")
        elif name == "count" and count is None and not names:
            count = -1 if value in ("all", "-1") else whole_number(value, _MOST_GPUS)
            if not count:
                raise wrong
        elif (name, value) not in (("driver", "nvidia"), ("driver", ""), ("capabilities", "gpu")):
            if name in ("driver", "capabilities", "options"):
                raise UsageError(
                    f"--gpus cannot choose {name} '{value}'",
                    hint="a CDI specification says what its devices bring: give --device VENDOR/CLASS=NAME",
                )
            raise wrong
    if not all(names) or (count is None and not names):
        raise wrong
    return GpuRequest(count or 0, tuple(names))
