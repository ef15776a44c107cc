"""From options, image defaults and facts to the OCI config.json of a container. Pure: golden tests hold every option.

Whatever must be looked up (users, volumes, devices, other containers) is looked up before, by
`rootless.engine.container.host_facts`. Nothing of the image reaches the configuration but what docker takes from it.
Its annotations never do: some of them are switches of runtimes ("run.oci.…" of crun), and the image's author would
decide what only the container's user may.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from rootless.engine.plan import oci_process as process
from rootless.engine.plan import security
from rootless.engine.plan.oci_process import ProcessPlan
from rootless.engine.plan.users import Account
from rootless.engine.types import ImageDefaults
from rootless.errors import UsageError
from rootless.records.container_options import ContainerOptions
from rootless.records.id_map import Extent, IdMap
from rootless.runtime import CONFIG_VERSION
from rootless.units import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.container import ContainerRecord
    from rootless.records.fields import Fields

MARK = "containerenv"
"""The file in a container's directory that is bound where programs look for a sign that they are in a container."""
_MARKED = ("/run/.containerenv", "/.dockerenv")  # podman's place, and docker's
SHM_SIZE = 64 << 20  # bytes of /dev/shm without --shm-size, as docker has it


class ResolvedMount(NamedTuple):
    """A mount whose source has been found.

    kind: bind, tmpfs or overlay; source: a host path, "" for tmpfs, and for overlay the directories of an image's
    layers, topmost first, with NUL between them (the only byte that no path can hold).
    """

    kind: str
    source: str
    target: str
    options: tuple[str, ...] = ()


class NamespaceChoice(NamedTuple):
    """Where each namespace of a container comes from: "private" (a new one), "host", or the /proc/PID/ns path to join.

    user is never "host": without a user namespace of its own an ordinary user may make no other namespace.
    """

    user: str = "private"
    mount: str = "private"
    pid: str = "private"
    ipc: str = "private"
    uts: str = "private"
    network: str = "private"
    cgroup: str = "private"


class BundleFacts(NamedTuple):
    """What was looked up for the configuration of one container.

    directory: the one that holds the names files (hosts, hostname, resolv.conf); hostname: the name inside, "" where
    the UTS namespace is not the container's own; devices: (host path, path inside, letters of "rwm").

    env: --env-file and -e as pairs; hard_limits: the caller's hard limits by name; init: host path of an init program
    ("" = none); seccomp: OCI profile to put in for a foreign runtime, None = the filter is in launch.json. foreign:
    another runtime than ours starts the container; has_queues: the host has /dev/mqueue (asked for a foreign one only).
    mark: host path of the container's file MARK, "" for a step of a build, which has no such signs. zone_file: host
    path of the time zone of --tz, "" for the image's.
    """

    directory: str
    hostname: str
    id_map: IdMap
    account: Account
    namespaces: NamespaceChoice
    mounts: tuple[ResolvedMount, ...] = ()
    devices: tuple[tuple[str, str, str], ...] = ()
    env: tuple[tuple[str, str | None], ...] = ()
    hard_limits: dict[str, int] = {}
    init: str = ""
    seccomp: dict[str, object] | None = None
    foreign: bool = False
    has_queues: bool = False
    mark: str = ""
    zone_file: str = ""


class BundleMount(NamedTuple):
    """An entry of "mounts" in config.json. kind: a file system's name, or "bind"; target: the path inside."""

    target: str
    kind: str
    source: str
    options: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The entry (config.md, "Mounts")."""
        return {"destination": self.target, "type": self.kind, "source": self.source, "options": list(self.options)}


class BundleConfig:
    """A config.json that is not written yet: the properties of the runtime specification that the engine uses.

    The classes of runtime.spec, which read config.json, have all properties. Loading them takes 2 ms, which the start
    of a container need not spend on writing. hostname, domainname, propagation: "" for none; seccomp: an OCI profile
    for a foreign runtime, None as our own takes the compiled filter from launch.json.
    """

    __slots__ = (
        "annotations",
        "domainname",
        "hostname",
        "id_map",
        "masked_paths",
        "mounts",
        "namespaces",
        "process",
        "propagation",
        "read_only",
        "readonly_paths",
        "seccomp",
        "sysctls",
    )

    def __init__(self, process: ProcessPlan, id_map: IdMap, namespaces: NamespaceChoice) -> None:
        self.process = process
        self.id_map = id_map
        self.namespaces = namespaces
        self.mounts: list[BundleMount] = []
        self.read_only = False
        self.masked_paths: list[str] = []
        self.readonly_paths: list[str] = []
        self.sysctls: dict[str, str] = {}
        self.seccomp: dict[str, object] | None = None
        self.propagation = ""
        self.hostname = self.domainname = ""
        self.annotations: dict[str, str] = {}

    def to_json(self) -> dict[str, object]:
        """The content of config.json."""
        linux: dict[str, object] = {
            "uidMappings": _mappings(self.id_map.uids),
            "gidMappings": _mappings(self.id_map.gids),
            "namespaces": _namespaces(self.namespaces),
            "maskedPaths": self.masked_paths,
            "readonlyPaths": self.readonly_paths,
        }
        if self.sysctls:
            linux["sysctl"] = self.sysctls
        if self.seccomp is not None:
            linux["seccomp"] = self.seccomp
        if self.propagation:
            linux["rootfsPropagation"] = self.propagation
        config: dict[str, object] = {
            "ociVersion": CONFIG_VERSION,
            "process": self.process.to_json(),
            "root": {"path": "rootfs", "readonly": self.read_only},
            "mounts": [mount.to_json() for mount in self.mounts],
            "linux": linux,
        }
        if self.hostname:
            config["hostname"] = self.hostname
        if self.domainname:
            config["domainname"] = self.domainname
        if self.annotations:
            config["annotations"] = self.annotations
        return config


def make_config(options: ContainerOptions, image: ImageDefaults, facts: BundleFacts) -> tuple[BundleConfig, list[str]]:
    """The configuration of a container, and warnings of one line each about what the host or an option takes away.

    Raises UsageError, naming the flag, for options that are wrong or cannot be combined.
    """
    secure = security.parse_security_options(options.security_opt)
    restricted = [unenforced_permissions(inside, permissions) for _, inside, permissions in facts.devices]
    warnings = [warning for warning in restricted if warning]
    namespaces = facts.namespaces
    user, lost = process.user(facts.account, facts.id_map, keep_groups="keep-groups" in options.group_add)
    warnings += lost
    if options.umask is not None:
        user = user._replace(umask=process.parse_umask(options.umask))
    args = process.arguments(image, options.entrypoint, options.command)
    if facts.init:
        args = ["/sbin/docker-init", "--", *args]
    own = {kind for kind in NamespaceChoice._fields if getattr(namespaces, kind) == "private"}
    sysctls = security.parse_sysctls(
        options.sysctl, own_network="network" in own, own_ipc="ipc" in own, own_uts="uts" in own
    )
    capabilities = process.capabilities(
        options.cap_add, options.cap_drop, privileged=options.privileged, uid=facts.account.uid
    )
    planned = ProcessPlan(user, args, capabilities)
    planned.terminal = options.tty
    planned.env = process.environment(
        image, facts.env, hostname=facts.hostname, account=facts.account, terminal=options.tty
    )
    if facts.mark and not any(entry.startswith("container=") for entry in planned.env):
        # systemd.io/CONTAINER_INTERFACE. Detectors know some managers by name; for "oci" they look at files of _MARKED
        planned.env.append("container=oci")
    planned.directory = working_directory(options.workdir, image.working_dir)
    planned.no_new_privileges = secure.no_new_privileges
    planned.limits = security.parse_ulimits(options.ulimit, facts.hard_limits)
    if options.oom_score_adj is not None:
        if not -1000 <= options.oom_score_adj <= 1000:
            raise UsageError(f"--oom-score-adj {options.oom_score_adj} is out of range -1000 to 1000")
        planned.oom_score_adj = options.oom_score_adj
    config = BundleConfig(planned, facts.id_map, namespaces)
    config.masked_paths, config.readonly_paths = security.covered_paths(secure, privileged=options.privileged)
    config.sysctls, config.seccomp = sysctls, facts.seccomp
    config.propagation = _root_propagation(facts.mounts)
    config.mounts = default_mounts(options, facts) + [_mount(m) for m in facts.mounts] + _device_mounts(facts)
    if facts.init:
        config.mounts.append(_bind(facts.init, "/sbin/docker-init", "ro", "nosuid", "nodev"))
    config.read_only = options.read_only
    if namespaces.uts == "private" and facts.hostname:
        config.hostname, config.domainname = facts.hostname, options.domainname or ""
    config.annotations = dict(_annotation(text) for text in options.annotation)
    if "keep-groups" in options.group_add:
        # The runtime specification has no property for that. This annotation is crun's, and our runtime reads it, too
        config.annotations["run.oci.keep_original_groups"] = "1"
    return config, warnings


def working_directory(asked: str | None, image: str) -> str:
    """The absolute working directory: that of -w, else the image's, else "/".

    Raises UsageError for a relative path in -w; a relative one of an image begins at the root, as with docker.
    """
    cwd = asked or image or "/"
    if not cwd.startswith("/") or "\0" in cwd:
        if asked:
            raise UsageError(f"the working directory '{cwd}' is invalid, it needs to be an absolute path")
        cwd = "/" + cwd
    return cwd


def default_mounts(options: ContainerOptions, facts: BundleFacts) -> list[BundleMount]:
    """The mounts that docker gives to each container, but those that a mount of the user covers entirely."""
    covered = {m.target for m in facts.mounts}
    namespaces = facts.namespaces
    secure = ("nosuid", "noexec", "nodev")
    # devpts refuses a gid that has no place in the id map with EINVAL: a runtime that passes it on could start no
    # container with one id. Without the option a terminal belongs to the group of the process that opens it
    tty_group = ("gid=5",) if facts.id_map.has_gid(5) else ()
    access = () if options.privileged else ("ro",)
    # The kernel makes a new procfs, sysfs or mqueue only for who has CAP_SYS_ADMIN in the user namespace that owns the
    # pid, network or ipc namespace, which nobody has in the host's (EPERM). Our own runtime then binds the host's by
    # itself, others have to be told to
    shared = {kind for kind in ("pid", "network", "ipc") if facts.foreign and getattr(namespaces, kind) == "host"}
    mounts = [
        _bind("/proc", "/proc", *secure) if "pid" in shared else _fs("proc", "/proc", *secure),
        _fs("tmpfs", "/dev", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _fs("devpts", "/dev/pts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *tty_group),
    ]
    if "network" in shared:
        # "rro" and not "ro": below /sys are mounts of which the user may write to some, such as his cgroups
        mounts.append(_bind("/sys", "/sys", *secure, *(() if options.privileged else ("rro",))))
    else:
        mounts.append(_fs("sysfs", "/sys", *secure, *access))
    if namespaces.cgroup == "private":
        mounts.append(_fs("cgroup", "/sys/fs/cgroup", *secure, "relatime", *access))
    elif "network" in shared:
        mounts.append(_bind("/sys/fs/cgroup", "/sys/fs/cgroup", *secure, "rro"))  # CVE-2023-25809
    if "ipc" not in shared:
        mounts.append(_fs("mqueue", "/dev/mqueue", *secure))
    elif facts.has_queues:
        mounts.append(_bind("/dev/mqueue", "/dev/mqueue", *secure))
    if "/dev/shm" not in covered:  # noqa: S108
        if namespaces.ipc == "host":
            mounts.append(_bind("/dev/shm", "/dev/shm", *secure))  # noqa: S108
        else:
            size = SHM_SIZE if options.shm_size is None else parse_size(options.shm_size, "--shm-size")
            mounts.append(_fs("tmpfs", "/dev/shm", *secure, "mode=1777", f"size={size}"))  # noqa: S108
    names = [n for n in ("resolv.conf", "hostname", "hosts") if not {f"/etc/{n}", "/etc"} & covered]
    # --read-only is a promise about the whole root file system, and docker counts these files as a part of it
    sealed = ("ro",) if options.read_only else ()
    mounts += [_bind(f"{facts.directory}/{name}", f"/etc/{name}", "nosuid", "nodev", *sealed) for name in names]
    if facts.zone_file and not {"/etc/localtime", "/etc"} & covered:
        mounts.append(_bind(facts.zone_file, "/etc/localtime", *secure, "ro"))
    if facts.mark:
        # Not below a mount of the user: the mount point would be made in his directory
        targets = [target for target in _MARKED if not {target, os.path.dirname(target)} & covered]
        mounts += [_bind(facts.mark, target, *secure, "ro") for target in targets]
    return mounts


def mark_content(record: ContainerRecord) -> str:
    """What the file MARK says: with --privileged who the container is, in podman's form, and nothing without it."""
    if not record.options.privileged:
        return ""
    from rootless import __version__

    pairs = {"engine": f"rootless-{__version__}", "name": record.name, "id": record.id}
    pairs |= {"image": record.image, "imageid": record.image_id.removeprefix("sha256:")}
    return "".join(f'{name}="{value}"\n' for name, value in pairs.items()) + "rootless=1\n"


def _fs(kind: str, target: str, *options: str) -> BundleMount:
    return BundleMount(target, kind, "shm" if target == "/dev/shm" else kind, options)  # noqa: S108


def _bind(source: str, target: str, *options: str) -> BundleMount:
    return BundleMount(target, "bind", source, ("rbind", "rprivate", *options))


def _mount(mount: ResolvedMount) -> BundleMount:
    if mount.kind == "overlay":
        # Unpacked layers carry their overlay attributes in user.overlay.*, as trusted.* is reserved to the host's root.
        # Without userxattr the kernel would not read them, and directories that a layer replaced would show old files
        layers = (f"lowerdir+={layer}" for layer in mount.source.split("\0"))
        return BundleMount(mount.target, "overlay", "overlay", (*layers, "userxattr", *mount.options))
    recursion = ("rbind",) if mount.kind == "bind" and "bind" not in mount.options else ()
    return BundleMount(mount.target, mount.kind, mount.source or mount.kind, (*recursion, *mount.options))


def _device_mounts(facts: BundleFacts) -> list[BundleMount]:
    # mknod(2) wants CAP_MKNOD in the initial user namespace, so the host's own nodes are bound. What a container may do
    # with them is what their modes on the host allow to the user: device cgroups need the host's root (device rules are
    # BPF programs). A missing "w" makes the mount read-only, which keeps the node's mode and owner; the kernel does not
    # let it stop writes to the device itself
    return [device_mount(*device) for device in facts.devices]


def device_mount(host: str, inside: str, permissions: str) -> BundleMount:
    """The bind mount of one node of the host. permissions: letters of "rwm"."""
    sealed = () if "w" in permissions else ("ro",)
    return BundleMount(inside, "bind", host, ("bind", "rprivate", "nosuid", "noexec", *sealed))


def unenforced_permissions(inside: str, permissions: str) -> str:
    """The warning about a device that was to be readable or writable only; "" for one that may be both."""
    if {"r", "w"} <= set(permissions):
        return ""
    # a read-only mount does not stop write(2) to a device, and only the host's root can load a filter of devices
    return (
        f"device '{inside}': the permissions '{permissions}' cannot be enforced without the host's root; what you may"
        " do with the device, the container may"
    )


def _mappings(extents: Iterable[Extent]) -> list[dict[str, int]]:
    return [{"containerID": e.container, "hostID": e.host, "size": e.size} for e in extents]


def _namespaces(namespaces: NamespaceChoice) -> list[dict[str, str]]:
    listed = []
    for kind in NamespaceChoice._fields:
        how = getattr(namespaces, kind)
        if how == "private":
            listed.append({"type": kind})
        elif how != "host":
            listed.append({"type": kind, "path": how})
    return listed


def rejoin(config: Fields, namespaces: NamespaceChoice) -> None:
    """Bring the paths of joined namespaces up to date in a configuration that `make_config` wrote.

    A path is /proc/PID/ns/KIND of another container's first process. That container may have been started anew since:
    its process is another one then, and the old number may belong to a stranger's process.
    """
    for namespace in config.require_member("linux").mappings("namespaces"):
        if "path" in namespace:
            namespace["path"] = getattr(namespaces, str(namespace["type"]))


def _root_propagation(mounts: tuple[ResolvedMount, ...]) -> str:
    """The member "rootfsPropagation": "rslave" where a mount has the option shared or slave, else "".

    Our own runtime makes the tree a slave unless it is told otherwise; another runtime may make it private, and then
    nothing that is mounted on the host later would arrive. "rshared" is never given: a mount namespace that belongs to
    another user namespace than the host's is its slave (mount_namespaces(7)), so that nothing could go the other way.
    """
    words = {word.removeprefix("r") for m in mounts for word in m.options if word.endswith(("shared", "slave"))}
    return "rslave" if words else ""


def _annotation(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name:
        raise UsageError(f"invalid annotation '{text}' (--annotation)", hint="write KEY=VALUE")
    return name, value
