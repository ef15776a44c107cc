"""The verbs about the whole system without a module of their own: info, version, settings, doctor, unshare, prune."""

from __future__ import annotations

import os

from rootless.engine.container.container_cgroup import cgroup_facts, prune_stale
from rootless.engine.types import PruneReport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rootless.engine.context import Engine
    from rootless.engine.report_types import CachePruned
    from rootless.engine.settings import SettingInForce
    from rootless.host.doctor import Section

_OTHER_PROGRAMS = ("crun", "runc", "mmdebstrap")


def settings_in_force(engine: Engine) -> list[SettingInForce]:
    """Every setting with the source of its value. Raises InvalidInput, UsageError for one that is wrong."""
    from rootless.engine.settings import explain_settings

    return explain_settings(engine.directories.config, engine.overrides)


def system_info(engine: Engine) -> dict[str, object]:
    """Facts of the host and the store, under the names of docker's `info` where docker has them."""
    from rootless import __version__
    from rootless.engine.container.reconcile import state_of
    from rootless.errors import RootlessError
    from rootless.host.facts import find_helper
    from rootless.host.subid import MAP_PROGRAMS
    from rootless.network import modes
    from rootless.network.helper_choice import choose as choose_helper
    from rootless.storage import drivers
    from rootless.storage.drivers.choice import choose_driver
    from rootless.units import timestamp

    store, settings = engine.store, engine.settings
    states: dict[str, int] = {}
    for container_id in store.containers.list():
        try:
            status = state_of(engine, container_id).status
        except RootlessError:
            continue
        states[status] = states.get(status, 0) + 1
    id_map = store.id_map
    try:
        driver = choose_driver(settings.storage_driver, store.containers.directory, id_map, engine.directories.cache)
    except RootlessError as e:
        driver = f"none ({e.message})"
    uname = os.uname()
    layers = (driver.program for driver in drivers.all_drivers() if driver.program)
    programs = (*MAP_PROGRAMS, *(helper.name for helper in modes.HELPERS), *layers, *_OTHER_PROGRAMS)
    helper, _ = choose_helper(engine.directories.cache)
    network = settings.network or (helper.name if helper is not None else modes.UNCONNECTED.name)
    return {
        "ServerVersion": __version__,
        "Containers": sum(states.values()),
        "ContainersRunning": states.get("running", 0),
        "ContainersPaused": states.get("paused", 0),
        "ContainersStopped": sum(n for status, n in states.items() if status not in ("running", "paused")),
        "Images": len(store.index.manifest_digests()),
        "Driver": driver,
        "LoggingDriver": settings.log_driver,
        **cgroup_facts(),
        "Network": network,
        "DefaultRuntime": settings.runtime or "rootless",
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"],
        "KernelVersion": uname.release,
        "OperatingSystem": _operating_system(),
        "OSType": "linux",
        "Architecture": uname.machine,
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "Name": uname.nodename,
        "SystemTime": timestamp(),
        "RootDir": store.root,
        "CacheDir": engine.directories.cache,
        "RuntimeDir": engine.directories.runtime,
        "ConfigFile": f"{engine.directories.config}/config.toml",
        "IDMap": {
            "Kind": id_map.kind,
            "UidMap": [f"{e.container}:{e.host}:{e.size}" for e in id_map.uids],
            "GidMap": [f"{e.container}:{e.host}:{e.size}" for e in id_map.gids],
        },
        "Helpers": {name: find_helper(name) or "" for name in programs},
    }


def versions(engine: Engine) -> dict[str, object]:
    """The versions in the shape of docker's `version`: {"Client": {"Version", "Os", ...}, "Components": [...]}."""
    import platform

    from rootless import __version__
    from rootless.runtime import SPECIFICATION_VERSION

    uname = os.uname()
    libseccomp = _libseccomp_version()
    return {
        "Client": {
            "Version": __version__,
            "PythonVersion": platform.python_version(),
            "Os": "linux",
            "Arch": uname.machine,
            "KernelVersion": uname.release,
            "OCIVersion": SPECIFICATION_VERSION,
        },
        "Components": [{"Name": "libseccomp", "Version": libseccomp}] if libseccomp else [],
    }


def examine_host(engine: Engine) -> list[Section]:
    """The sections of `doctor`. Each capability of the host (namespaces, mounts, drivers, ...) is tried for real."""
    from rootless.host.doctor import run_probes
    from rootless.host.subid import default_id_map
    from rootless.network.helper_choice import TriedHelper
    from rootless.network.modes import HELPERS
    from rootless.storage.drivers import all_drivers
    from rootless.storage.drivers.choice import TriedDriver

    id_map = default_id_map()
    drivers = [TriedDriver(driver, id_map, engine.directories.cache) for driver in all_drivers()]
    helpers = [TriedHelper(helper, engine.directories.cache) for helper in HELPERS]
    return run_probes(engine.directories.data, helpers, drivers, storage_driver=engine.settings.storage_driver)


def run_unshared(engine: Engine, command: Sequence[str]) -> int:
    """Run `command` (default: the user's shell) as root of a user namespace with the user's default map.

    Returns its exit status. Raises HostLimit.
    """
    from rootless.host import userns

    argv = list(command) or [os.environ.get("SHELL") or "/bin/sh"]
    return userns.run_in_new_namespace(engine.store.id_map, argv)


def prune_system(
    engine: Engine,
    *,
    all: bool = False,
    volumes: bool = False,
    build: bool = False,
    filters: Mapping[str, Sequence[str]] | None = None,
) -> PruneReport:
    """Remove stopped containers, unused networks, images without a name, and what interrupted commands have left.

    all: also images with a name that no container uses, and without filters the copies of layers for other id maps that
    no container uses; volumes: also anonymous volumes; build: also the build cache.
    filters: docker's until, label, label!. The build cache has no labels, so that a filter of labels keeps all of it.
    Raises UsageError.
    """
    from rootless.engine.container.container_removal import prune_containers
    from rootless.engine.filters import Filters
    from rootless.engine.image.image_remove import prune_images, tell_quarantined
    from rootless.engine.image.measured_layers import measure
    from rootless.engine.network.network_verbs import prune_networks
    from rootless.engine.volume.volume_verbs import prune_volumes
    from rootless.storage.files.removal import delete_tree
    from rootless.storage.store.gc import Spared, collect_garbage, quarantined_containers

    filters = filters or {}
    Filters(filters, ("label", "label!", "until"))  # It raises for a wrong filter, before anything is removed
    # An earlier command has told the user of these. What goes into quarantine now stays until the next prune, so that
    # the user has the time to save files from it
    told = quarantined_containers(engine.store)
    containers = prune_containers(engine, filters=filters)
    images = prune_images(engine, all=all, filters=filters)
    pruned = prune_volumes(engine, filters=filters) if volumes else PruneReport()
    networks = prune_networks(engine, filters=filters)
    cache = _prune_cache(engine, filters) if build else None
    prune_stale(engine)
    keep_blobs = engine.settings.keep_layer_blobs
    # A copy of a layer for another id map is made again when it is needed, and has no time or label of its own
    also = Spared(quarantine=True, unused_copies=all and not filters)
    # Without a copy no layer is measured, which for large ones takes seconds
    copies = measure(engine.store, []).copies if also.unused_copies and engine.store.layers.copies() else {}
    garbage = collect_garbage(engine.store, keep_layer_blobs=keep_blobs, also=also)
    for path in told:
        delete_tree(path, engine.store.id_map)
    tell_quarantined(engine, garbage.quarantined)
    if garbage.busy:
        engine.warn("another command uses the store: what interrupted commands left behind stays for the next prune")
    of_copies = sum(copies.get(path, 0) for path in garbage.copies)
    freed = (containers.reclaimed, images.reclaimed, pruned.reclaimed, garbage.freed, of_copies)
    return PruneReport(
        containers=containers.containers,
        images=images.images,
        volumes=pruned.volumes,
        networks=networks.networks,
        reclaimed=sum(freed) + (cache.reclaimed if cache else 0),
        cache=cache.removed if cache else (),
    )


def _prune_cache(engine: Engine, filters: Mapping[str, Sequence[str]]) -> CachePruned | None:
    from rootless.engine.upkeep.build_cache import prune_build_cache

    if filters.get("label") or filters.get("label!"):
        return None
    return prune_build_cache(engine, all=True, filters=[f"until={value}" for value in filters.get("until", ())])


def _operating_system() -> str:
    try:
        with open("/etc/os-release", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("PRETTY_NAME="):
                    return line.partition("=")[2].strip().strip('"')
    except OSError:
        pass
    return "Linux"


def _libseccomp_version() -> str:
    from rootless.kernel import libseccomp

    try:
        return ".".join(map(str, libseccomp.library_version()))
    except OSError:
        return ""
