"""The meaning of --security-opt, --sysctl, --ulimit and --device, and the paths of /proc that docker hides.

A security option that cannot be applied is an error, never ignored (CVE-2025-65105): who asks for a confinement must
not get a container without it. All is pure but the functions that read the caller's own limits and a seccomp profile,
and write its compiled filter.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from typing import NamedTuple

from rootless.errors import HostLimit, UsageError
from rootless.runtime import MASKED_PATHS, READONLY_PATHS
from rootless.units import whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.records.container_options import ContainerOptions
    from rootless.runtime.seccomp.seccomp_profile import SeccompProfile

_RLIMITS = "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack as"
_UNLIMITED = (1 << 64) - 1
_IPC_SYSCTLS = {
    f"kernel.{n}" for n in ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"]
}


class SecurityOptions(NamedTuple):
    """The values of --security-opt together.

    seccomp: "" for the default profile, "unconfined", or the path of a profile; mask, unmask: absolute paths, in unmask
    with wildcards ("ALL": all of them).
    """

    seccomp: str = ""
    no_new_privileges: bool = False
    mask: tuple[str, ...] = ()
    unmask: tuple[str, ...] = ()


def parse_security_options(values: Iterable[str]) -> SecurityOptions:
    """The values of --security-opt together. Raises UsageError for one that is unknown or cannot be applied here."""
    parsed = SecurityOptions()
    for text in values:
        name, separator, value = text.partition("=") if "=" in text else text.partition(":")
        if name == "no-new-privileges":
            if separator and value.lower() not in ("true", "false"):
                raise UsageError(f"invalid --security-opt '{text}'", hint="write no-new-privileges or ...=true")
            parsed = parsed._replace(no_new_privileges=value.lower() != "false")
        elif name == "seccomp" and value:
            parsed = parsed._replace(seccomp="" if value in ("builtin", "default") else value)
        elif name == "mask" and value:
            parsed = parsed._replace(mask=(*parsed.mask, *_paths(value, text)))
        elif name == "unmask" and value:
            parsed = parsed._replace(unmask=(*parsed.unmask, *_paths(value, text)))
        elif name == "systempaths" and value == "unconfined":
            parsed = parsed._replace(unmask=(*parsed.unmask, "ALL"))
        elif (name, value) in (("label", "disable"), ("apparmor", "unconfined")):
            continue  # neither a label nor a profile is ever set for a container: both need the host's root
        elif name in ("apparmor", "label", "proc-opts", "writable-cgroups"):
            raise UsageError(
                f"--security-opt '{text}' cannot be applied",
                hint="an ordinary user cannot load or select such a policy; leave the option out",
            )
        else:
            raise UsageError(
                f"invalid --security-opt '{text}'",
                hint="known are seccomp=, no-new-privileges, mask=, unmask= and systempaths=unconfined",
            )
    return parsed


def _paths(value: str, text: str) -> tuple[str, ...]:
    paths = tuple(path for path in value.split(":") if path)
    for path in paths:
        if path != "ALL" and not path.startswith("/"):
            raise UsageError(f"invalid --security-opt '{text}': '{path}' is not absolute")
    return paths


def covered_paths(security: SecurityOptions, *, privileged: bool) -> tuple[list[str], list[str]]:
    """The paths of the container that are masked, and those that are read-only.

    privileged: none of docker's, as with docker. To the kernel the container's root remains an ordinary user of the
    host, and most of these files are closed to that one.
    """
    if privileged:
        return list(security.mask), []

    def kept(path: str) -> bool:
        return not any(u == "ALL" or fnmatch.fnmatchcase(path, u) for u in security.unmask)

    masked = [p for p in MASKED_PATHS if kept(p)]
    return [*masked, *(p for p in security.mask if p not in masked)], [p for p in READONLY_PATHS if kept(p)]


def parse_sysctls(values: Iterable[str], *, own_network: bool, own_ipc: bool, own_uts: bool) -> dict[str, str]:
    """The settings of --sysctl NAME=VALUE by name, with dots for slashes.

    own_network, own_ipc, own_uts: whether the container has that namespace for itself. Raises UsageError for a setting
    of any other namespace, or of the whole host: it would change what other containers or the user's programs see.
    """
    parsed = {}
    for text in values:
        name, separator, value = text.partition("=")
        name = name.strip().replace("/", ".")
        if not separator or not name:
            raise UsageError(f"invalid --sysctl '{text}'", hint="write NAME=VALUE")
        if name.startswith("net."):
            allowed, why = own_network, "the container shares its network"
        elif name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
            allowed, why = own_ipc, "the container shares its ipc namespace"
        elif name in ("kernel.domainname", "kernel.hostname"):
            allowed, why = own_uts, "the container shares its uts namespace"
        else:
            allowed, why = False, "it belongs to the whole host"
        if not allowed:
            raise UsageError(f"sysctl '{name}' is not allowed: {why} (--sysctl)")
        parsed[name] = value
    return parsed


class ProcessLimit(NamedTuple):
    """A resource limit of a process (setrlimit(2)). kind: "RLIMIT_NOFILE" and the like; 2**64 - 1: no limit."""

    kind: str
    soft: int
    hard: int

    def to_json(self) -> dict[str, object]:
        """An entry of the member "rlimits" of a process (config.md, "POSIX process")."""
        return {"type": self.kind, "soft": self.soft, "hard": self.hard}


def parse_ulimits(values: Iterable[str], hard_limits: dict[str, int]) -> list[ProcessLimit]:
    """The limits of --ulimit TYPE=SOFT[:HARD]; of two with one TYPE the later counts.

    hard_limits: the caller's own by TYPE (-1: none), which only CAP_SYS_RESOURCE of the host could raise. Raises
    UsageError, also for a limit above them.
    """
    limits: dict[str, ProcessLimit] = {}
    for text in values:
        name, separator, value = text.partition("=")
        soft_text, colon, hard_text = value.partition(":")
        if name not in _RLIMITS.split() or not separator:
            raise UsageError(f"invalid --ulimit '{text}'", hint=f"write TYPE=SOFT[:HARD]; types: {_RLIMITS}")
        soft = _limit(soft_text, text)
        hard = _limit(hard_text, text) if colon else soft
        if soft > hard:
            raise UsageError(f"invalid --ulimit '{text}': the soft limit is above the hard limit")
        own = hard_limits.get(name, -1)
        if own >= 0 and hard > own:
            raise UsageError(
                f"--ulimit '{text}' is above your own hard limit of {own}",
                hint="only the administrator can raise it, in /etc/security/limits.conf",
            )
        kind = f"RLIMIT_{name.upper()}"
        limits[kind] = ProcessLimit(kind, soft, hard)
    return list(limits.values())


def _limit(value: str, text: str) -> int:
    if value == "-1":
        return _UNLIMITED
    number = whole_number(value, _UNLIMITED)
    if number is None:
        raise UsageError(f"invalid --ulimit '{text}'", hint="write numbers, or -1 for no limit")
    return number


def parse_device(text: str) -> tuple[str, str, str]:
    """(host path, container path, permissions) of a text HOST[:CONTAINER[:PERMISSIONS]] of --device.

    PERMISSIONS are letters of "rwm". Raises UsageError.
    """
    fields = text.split(":")
    host = fields[0]
    container, permissions = host, "rwm"
    if len(fields) == 2 and fields[1] and set(fields[1]) <= set("rwm"):
        permissions = fields[1]
    elif len(fields) >= 2:
        container = fields[1] or host
    if len(fields) == 3:
        permissions = fields[2]
    if (
        len(fields) > 3
        or not host.startswith("/")
        or not container.startswith("/")
        or not permissions
        or not set(permissions) <= set("rwm")
        or ".." in container.split("/")
    ):
        raise UsageError(
            f"invalid --device '{text}'", hint="write /dev/NAME[:/dev/NAME_INSIDE[:rwm]], or VENDOR/CLASS=NAME of CDI"
        )
    return host, container, permissions


def is_cdi_name(text: str) -> bool:
    """Whether a text of --device is meant as the name VENDOR/CLASS=NAME of a device of CDI, and not as a path."""
    return not text.startswith("/") and "/" in text and "=" in text


def wants_cdi(options: ContainerOptions) -> bool:
    """Whether a container has devices of CDI, whose specifications each start reads."""
    return bool(options.gpus) or any(map(is_cdi_name, options.device))


def hard_limits() -> dict[str, int]:
    """The caller's own hard limits by the TYPE of --ulimit (nofile, core, ...); -1: none."""
    import resource

    limits = {}
    for name in dir(resource):
        if name.startswith("RLIMIT_"):
            try:
                limits[name[7:].lower()] = resource.getrlimit(getattr(resource, name))[1]
            except (ValueError, OSError):
                continue
    return limits


def seccomp_profile(engine: Engine, options: ContainerOptions, capabilities: list[str]) -> SeccompProfile | None:
    """The OCI seccomp profile of a container: that of --security-opt, else the settings', else the default one.

    None: no filter is loaded ("unconfined", or --privileged without a profile). capabilities: the names in the bounding
    set, on which rules of a profile may depend. Raises InvalidInput for a profile that cannot be read.
    """
    setting = parse_security_options(options.security_opt).seccomp or engine.settings.seccomp_profile
    if setting == "unconfined" or (options.privileged and not setting):
        return None
    from rootless.runtime.seccomp.seccomp_profile import default_profile, read_profile

    if setting:
        return read_profile(setting, capabilities)
    return default_profile(capabilities)


def filter_path(engine: Engine, profile: SeccompProfile | None, planned: str | None = None) -> str | None:
    """The path of the profile's compiled filter, which is compiled and written where it is missing; None without one.

    planned: the path, where it is known already, which saves finding it out again. Raises HostLimit.
    """
    if profile is None:
        return None
    from rootless.runtime.seccomp import filter_cache

    try:
        return filter_cache.cached_path(profile, engine.directories.cache, planned)
    except OSError as e:
        raise HostLimit(f"cannot write the seccomp filter to '{engine.directories.cache}': {e.strerror}") from e
