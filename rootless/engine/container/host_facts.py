"""Finds on the host, in the store and in other containers the facts of which a new container's plan is made.

It makes nothing. Volumes, directories and layers that are missing stand in the facts as such, for `create` to make.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from rootless.engine import events
from rootless.engine.container import joins
from rootless.engine.plan import identity, launchfile, networking, oci_process
from rootless.engine.plan.container_plan import ContainerFacts, ImageFacts, Joins, Mounts, Places, ProcessFacts
from rootless.engine.plan.environment import parse_env, parse_labels
from rootless.engine.plan.security import hard_limits, is_cdi_name, parse_device, seccomp_profile, wants_cdi
from rootless.errors import UsageError
from rootless.records.container_options import ContainerOptions
from rootless.runtime import capabilities as kernel_capabilities
from rootless.storage.store.containers import suggest_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.engine.image_in_use import ImageInUse
    from rootless.engine.plan.device_edits import DeviceEdits
    from rootless.engine.plan.identity import Identity
    from rootless.host.cgroups import Delegation
    from rootless.records.id_map import IdMap
    from rootless.records.rootfs import RootfsPlan, ShownOwners

_ZONES = "/usr/share/zoneinfo"
_CHEAP_COPY = 32 << 20  # bytes of layers that are copied for an id map in a quarter of a second


def image_facts(image: ImageInUse) -> ImageFacts:
    """What the plan needs of an image in the store."""
    entry = image.entry
    return ImageFacts(image.name, entry.config_digest, entry.manifest_digest, image.chain_ids, image.defaults)


def look(
    engine: Engine, options: ContainerOptions, image: ImageInUse, *, starts: bool = False, container_id: str = ""
) -> ContainerFacts:
    """The facts for a container of `image`.

    starts: the container is started next, so that its ports must be free now; container_id: the id of a container that
    exists already ("": a new id is made). Raises UsageError for options that name what does not exist, InvalidState for
    a container to join that does not run, HostLimit for what the host cannot do.
    """
    store = engine.store
    container_id = container_id or store.containers.new_id()
    directory = store.containers.path(container_id)
    exposed = (*image.defaults.exposed_ports, *options.expose)
    network = networking.choose_network(engine, options, exposed, starts=starts)
    joined = joins.resolve(engine, options, network.mode)
    own = store.id_map
    lowerdirs = store.layers.lowerdirs(image.chain_ids, own)
    who = identity.identify(options, image.defaults.user, lowerdirs, joined.id_map, own)
    runtime = _runtime(options.runtime or engine.settings.runtime)
    outer_map = None if joined.id_map is not None else identity.outer_map(own, who.id_map, runtime)
    if network.attachments:
        _require_own_users(joined, runtime)
    joining = Joins(joined.namespaces, joined.id_map is not None)
    if joined.network:
        names = store.containers.path(joined.network)
        joining = joining._replace(network=joined.network, names_directory=names, hostname=_hostname_of(names))
    return ContainerFacts(
        container_id=container_id,
        name=(options.name or "").removeprefix("/") or suggest_name(),
        nodename=os.uname().nodename,
        now=time.time(),
        places=Places(directory, store.containers.names, events.log_path(engine), engine.directories.runtime),
        identity=who,
        outer_map=outer_map,
        joins=joining,
        network=network,
        mounts=_mounts(engine, options, image, who.id_map),
        rootfs=_rootfs(engine, options, directory, image.chain_ids, (who.id_map, outer_map)),
        process=_process(engine, options, who, runtime, outer_map),
        cgroup=_cgroup(engine, options),
    )


def _require_own_users(joined: joins.Joined, runtime: str) -> None:
    """Raise UsageError where a container cannot be on networks with names: its user namespace is made below theirs."""
    if joined.id_map is not None:
        raise UsageError(
            "conflicting options: a network with a name, and a namespace of another container",
            hint="--network container:NAME shares all networks of a container",
        )
    if runtime:
        raise UsageError(
            "a container on a network with a name works with this tool's own runtime only", hint="leave --runtime out"
        )


def _mounts(engine: Engine, options: ContainerOptions, image: ImageInUse, id_map: IdMap) -> Mounts:
    """The mounts that the options and the image ask for. Most containers have none, and need not load their grammar."""
    if not (options.volume or options.mount or options.tmpfs or options.volumes_from or image.defaults.volumes):
        return Mounts()
    from rootless.engine.plan.mount_sources import resolve_mounts

    return resolve_mounts(engine, options, image.defaults, id_map)


def _process(
    engine: Engine, options: ContainerOptions, who: Identity, runtime: str, outer_map: IdMap | None
) -> ProcessFacts:
    capabilities = oci_process.capabilities(
        options.cap_add, options.cap_drop, privileged=options.privileged, uid=who.account.uid
    )
    profile = seccomp_profile(engine, options, kernel_capabilities.capability_names(capabilities.bounding))
    path = None
    if profile is not None and not runtime:
        from rootless.runtime.seccomp import filter_cache

        path = filter_cache.planned_path(profile, engine.directories.cache)
    emulation = None
    if options.root_emulation != "off":
        from rootless.engine.plan import root_emulation

        nested = outer_map is not None
        if root_emulation.is_wanted(options.root_emulation, who.id_map, runtime=runtime, nested=nested):
            emulation = root_emulation.planned_filters(engine)
    return ProcessFacts(
        env=tuple(parse_env(options.env, options.env_file, os.environ)),
        labels=parse_labels(options.label, options.label_file),
        devices=_devices(options),
        hard_limits=hard_limits() if options.ulimit else {},
        init=_init_program() if options.init else "",
        runtime=runtime,
        profile=profile,
        filter_path=path,
        emulation=emulation,
        has_queues=bool(runtime) and os.path.isdir("/dev/mqueue"),
        zone_file=_zone_file(options.tz) if options.tz else "",
        edits=device_edits(engine, options, who.id_map),
    )


def _zone_file(zone: str) -> str:
    """The host path of the time zone that --tz names: "local" is the host's own. Raises UsageError."""
    path = "/etc/localtime" if zone == "local" else os.path.normpath(f"{_ZONES}/{zone}")
    found = os.path.realpath(path)
    if not (zone == "local" or path.startswith(f"{_ZONES}/")) or not os.path.isfile(found):
        raise UsageError(
            f"the host does not know the time zone '{zone}' (--tz)",
            hint=f"write local, or a name below {_ZONES}, where the package tzdata puts the zones",
        )
    return found


def _rootfs(
    engine: Engine,
    options: ContainerOptions,
    directory: str,
    chain_ids: tuple[str, ...],
    maps: tuple[IdMap, IdMap | None],
) -> RootfsPlan:
    """maps: the container's id map, and that of the user namespace in which it is set up if that is another one."""
    from rootless.storage import drivers
    from rootless.storage.drivers.choice import choose_driver

    id_map, outer_map = maps
    store = engine.store
    name = options.storage_driver or engine.settings.storage_driver
    driver = choose_driver(name, store.containers.directory, id_map, engine.directories.cache)
    way = _Way(driver)
    if id_map.key() != store.id_map.key():
        way = _way_to_owners(engine, (name, driver), chain_ids, id_map, outer_map or id_map)
    if way.views:
        lowerdirs = [store.layers.planned_view(chain_ids, id_map)]
    else:
        lowerdirs = store.layers.planned_lowerdirs(chain_ids, id_map if way.owners is None else store.id_map)
    planned = drivers.plan_root(way.driver, directory, lowerdirs, volatile=options.rm)
    planned.owners, planned.content = way.owners, store.layers.directory if way.views else ""
    return planned


class _Way(NamedTuple):
    """How a container whose id map is not the layers' gets a root with its own owners. Without `owners` and `views`, by
    copies of the layers. owners: those that the driver shows; views: whether a view of the image is mounted."""

    driver: str
    owners: ShownOwners | None = None
    views: bool = False


def _way_to_owners(
    engine: Engine, asked: tuple[str, str], chain_ids: tuple[str, ...], id_map: IdMap, mounted_in: IdMap
) -> _Way:
    """The best way that this host has. asked: the name that the user gave, and the driver that was chosen for it.

    What is small is copied, and copies that are there are used. A copy of a large image costs seconds and its whole
    size on disk, for each id map anew. Views cost inodes alone, and are as fast as the layers. Where the kernel has
    none, "auto" takes a driver that shows other owners, which costs some time at each access to a file.
    """
    from rootless.storage.drivers import all_drivers, find_driver
    from rootless.storage.drivers.choice import KeptAnswers
    from rootless.storage.drivers.shown_owners import between
    from rootless.storage.drivers.view_trial import can_mount_views

    store, cache, (name, driver) = engine.store, engine.directories.cache, asked
    owners = between(store.id_map, id_map, mounted_in)
    if owners is None:
        return _Way(driver)
    if find_driver(driver).shows_owners:
        return _Way(driver, owners)
    if store.layers.bytes_to_copy(chain_ids, id_map) <= _CHEAP_COPY:
        return _Way(driver)
    if can_mount_views(driver, store.containers.directory, mounted_in, cache):
        return _Way(driver, views=True)
    if name == "auto":
        able = [each.name for each in all_drivers() if each.shows_owners]
        found = KeptAnswers(store.containers.directory, id_map, cache).first_working(able)
        if found is not None:
            return _Way(found, owners)
    return _Way(driver)


def _cgroup(engine: Engine, options: ContainerOptions) -> Delegation | None:
    """Where the container's cgroup would be; None where neither a limit nor a parent asks for that search."""
    wanted = launchfile.cgroup_settings(options, engine.settings)
    if not (wanted.resources or wanted.parent or wanted.mode == "split"):
        return None
    from rootless.host import cgroups

    return cgroups.find_delegation(parent=wanted.parent, current=wanted.mode == "split")


def _hostname_of(directory: str) -> str:
    try:
        with open(f"{directory}/hostname", encoding="utf-8", errors="replace") as file:
            return file.read(65).strip()
    except OSError:
        return ""


def _devices(options: ContainerOptions) -> tuple[tuple[str, str, str], ...]:
    """The device nodes to bind: those asked for, and with --privileged all that the caller may open."""
    import stat

    found: dict[str, tuple[str, str, str]] = {}
    if options.privileged:
        for path in _openable_devices():
            found[path] = (path, path, "rwm")
    for text in options.device:
        if is_cdi_name(text):
            continue
        host, inside, permissions = parse_device(text)
        try:
            mode = os.stat(host).st_mode
        except OSError as e:
            raise UsageError(
                f"error gathering device information while adding custom device '{host}': {str(e.strerror).lower()}"
            ) from e
        if stat.S_ISDIR(mode):
            for name in sorted(os.listdir(host)):
                if _is_device(f"{host}/{name}"):
                    found[f"{inside}/{name}"] = (f"{host}/{name}", f"{inside}/{name}", permissions)
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            found[inside] = (host, inside, permissions)
        else:
            raise UsageError(f"'{host}' is not a device (--device)")
    return tuple(found.values())


def device_edits(engine: Engine, options: ContainerOptions, id_map: IdMap) -> DeviceEdits | None:
    """What the devices of CDI change that a container has by --device and --gpus; None where it has none of them."""
    if not wants_cdi(options):
        return None
    from rootless.engine.devices.device_requests import edits_of_devices

    return edits_of_devices(engine, options, id_map)


def _is_device(path: str) -> bool:
    import stat

    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


_OWN_DEVICES = {"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"}


def _openable_devices() -> list[str]:
    found = []
    for parent, directories, names in os.walk("/dev"):
        if parent == "/dev":
            directories[:] = [d for d in directories if d not in ("pts", "shm", "mqueue", "fd")]
            names = [n for n in names if n not in _OWN_DEVICES]
        for name in sorted(names):
            path = f"{parent}/{name}"
            if not os.path.islink(path) and _is_device(path) and os.access(path, os.R_OK | os.W_OK):
                found.append(path)
    return found


def _init_program() -> str:
    """The path of the host's statically linked init; "" when it has none, and then our own reaper is pid 1.

    It is mounted into containers, whose images may have no libraries for a dynamically linked one.
    """
    from rootless.host.facts import find_helper

    for name in ("docker-init", "catatonit", "tini-static"):
        path = find_helper(name)
        if path is not None:
            return os.path.realpath(path)
    return ""


def _runtime(name: str) -> str:
    """The absolute path of the OCI runtime that --runtime means, "" for our own. Raises UsageError."""
    if name in ("", "rootless", "rootless-oci"):
        return ""
    from rootless.host.facts import find_helper

    path = name if name.startswith("/") else find_helper(name)
    if path is None or not os.access(path, os.X_OK):
        raise UsageError(
            f"unknown or invalid runtime name '{name}' (--runtime)",
            hint="give the path of an OCI runtime, or install it",
        )
    return path
