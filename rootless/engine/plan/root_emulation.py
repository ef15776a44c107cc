"""--root-emulation: whether a container's root is emulated, and what its launch.json says then. It emulates nothing.

With one id the kernel refuses chown to any other, and every change of ids. Programs that do so to set a system up
(package managers, useradd, tar) then work, and the owners that they asked for are noted for the layer.
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
    """auto: where the container is root of one id. Raises UsageError for a wrong word, and where it cannot be."""
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
    """Raises UsageError for a seccomp profile with an agent of its own."""
    if profile.has_listener:
        raise UsageError(
            "--root-emulation and a seccomp profile with SCMP_ACT_NOTIFY exclude each other: the kernel allows one "
            "listener around a process"
        )


def filters(engine: Engine) -> RootEmulation:
    """launch.json's "root_emulation"; the two filters are on disk then. Raises HostLimit."""
    from rootless.runtime.seccomp import filter_cache

    try:
        return filter_cache.emulation(engine.directories.cache)
    except OSError as e:
        raise HostLimit(f"cannot write the seccomp filter to '{engine.directories.cache}': {e.strerror}") from e


def planned_filters(engine: Engine) -> RootEmulation:
    """The same, and no file is written: filters that are not on disk yet are compiled for what is known of them then.

    Raises HostLimit.
    """
    from rootless.runtime.seccomp import filter_cache

    return filter_cache.planned_emulation(engine.directories.cache)


def refreshed(engine: Engine, planned: RootEmulation) -> RootEmulation:
    """`planned`, made again when the cache was cleared or is damaged. Raises HostLimit."""
    from rootless.runtime.seccomp import filter_cache

    return planned if all(map(filter_cache.is_whole, planned.paths())) else filters(engine)


def prepare_apt(directory: str, config: BundleConfig) -> None:
    """`add_apt_file`, and the file is written. Raises HostLimit."""
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
    """Tell apt not to change its user: it verifies that it has become another one. An APT_CONFIG of the image stays.

    `directory`/apt.conf is mounted for it. Returns whether that file is needed.
    """
    if any(entry.startswith("APT_CONFIG=") for entry in config.process.env):
        return False
    config.process.env.append(f"APT_CONFIG={APT_FILE}")
    config.mounts.append(
        BundleMount(APT_FILE, "bind", f"{directory}/apt.conf", ("bind", "rprivate", "ro", "nosuid", "nodev", "noexec"))
    )
    return True
