"""--root-emulation: whether a container's root is emulated, and what its launch.json says then. It emulates nothing.

In a container with one id the kernel refuses chown to any other id, and every change of ids (EINVAL). Programs that do
so to set a system up (package managers, useradd, tar) would fail. The emulation lets these calls succeed, and notes the
owners that were asked for, which the layer of a commit or build then has.
"""

from __future__ import annotations

from rootless.engine.plan.bundle import BundleConfig, BundleMount
from rootless.errors import HostLimit, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.records.id_map import IdMap
    from rootless.records.launch import RootEmulation
    from rootless.runtime.seccomp.seccomp_profile import SeccompProfile

MODES = ("auto", "on", "off")
APT_FILE = "/dev/rootless-apt.conf"
"""In the container's own tmpfs: nothing of it reaches a layer."""
APT_CONFIG = 'APT::Sandbox::User "root"; // there is no other user to download as\n'


def is_wanted(mode: str, id_map: IdMap, *, runtime: str, nested: bool = False) -> bool:
    """Whether root is emulated: with `on` always, with `auto` where the container has no id but its root.

    runtime: the path of another OCI runtime, "" for ours; nested: the container has none of the user's own ids. Raises
    UsageError for a word that is no mode, and for `on` where it cannot be.
    """
    if mode not in MODES:
        raise UsageError(f"invalid --root-emulation '{mode}'", hint="use auto, on or off")
    if mode == "off":
        return False
    fits = id_map.has_uid(0) and not runtime
    if mode == "on" and nested:
        raise UsageError("--root-emulation=on needs a container with your own ids, and --userns=nomap has none of them")
    if mode == "on" and runtime:
        raise UsageError("--root-emulation=on works with this tool's own runtime only (--runtime)")
    if mode == "on" and not fits:
        raise UsageError("--root-emulation=on needs a container whose user is 0", hint="give --user 0")
    return fits and (mode == "on" or id_map.kind == "single")


def check_profile(profile: SeccompProfile) -> None:
    """Raise UsageError for a seccomp profile with an agent of its own (SCMP_ACT_NOTIFY).

    The emulation is such an agent, and the kernel refuses a second listener above a process (EBUSY, seccomp(2)).
    """
    if profile.has_listener:
        raise UsageError(
            "--root-emulation and a seccomp profile with SCMP_ACT_NOTIFY exclude each other: the kernel allows one "
            "listener around a process"
        )


def filters(engine: Engine) -> RootEmulation:
    """The member "root_emulation" of launch.json; the two filters that it names are on disk then. Raises HostLimit."""
    from rootless.runtime.seccomp import filter_cache

    try:
        return filter_cache.emulation(engine.directories.cache)
    except OSError as e:
        raise HostLimit(f"cannot write the seccomp filter to '{engine.directories.cache}': {e.strerror}") from e


def planned_filters(engine: Engine) -> RootEmulation:
    """The member "root_emulation" of launch.json as `filters` gives it, but no file is written.

    Filters that are not on disk yet are compiled all the same, for only that tells which calls they hold up.
    Raises HostLimit.
    """
    from rootless.runtime.seccomp import filter_cache

    return filter_cache.planned_emulation(engine.directories.cache)


def refreshed(engine: Engine, planned: RootEmulation) -> RootEmulation:
    """`planned`, or new filters when the cache that holds them was cleared or is damaged. Raises HostLimit."""
    from rootless.runtime.seccomp import filter_cache

    return planned if all(map(filter_cache.is_whole, planned.paths())) else filters(engine)


def prepare_apt(directory: str, config: BundleConfig) -> None:
    """Do as `add_apt_file`, and write the file that it mounts. Raises HostLimit."""
    if add_apt_file(directory, config):
        write_apt_file(directory)


def write_apt_file(directory: str) -> None:
    """Write the file that `add_apt_file` mounts. Raises HostLimit."""
    try:
        with open(f"{directory}/apt.conf", "w", encoding="ascii") as file:
            file.write(APT_CONFIG)
    except OSError as e:
        raise HostLimit(f"cannot write '{directory}/apt.conf': {e.strerror}") from e


def add_apt_file(directory: str, config: BundleConfig) -> bool:
    """Make apt in the container download as root, by a mount of `directory`/apt.conf and $APT_CONFIG in `config`.

    By default apt changes to the user _apt and verifies that it has become that user, which fails, as the emulation
    changes no ids. An $APT_CONFIG of the image stays as it is. Returns whether the file is needed.
    """
    if any(entry.startswith("APT_CONFIG=") for entry in config.process.env):
        return False
    config.process.env.append(f"APT_CONFIG={APT_FILE}")
    config.mounts.append(
        BundleMount(APT_FILE, "bind", f"{directory}/apt.conf", ("bind", "rprivate", "ro", "nosuid", "nodev", "noexec"))
    )
    return True
