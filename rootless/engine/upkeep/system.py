"""The verbs of the whole: info, version, doctor, unshare, disk use, check, prune, reset."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rootless.engine.container.container_cgroup import cgroup_facts, prune_stale
from rootless.engine.types import PruneReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rootless.engine.context import Engine
    from rootless.engine.upkeep.build_cache import CachePruned
    from rootless.engine.upkeep.check import CheckResult
    from rootless.engine.upkeep.disk_usage import DiskUsage
    from rootless.host.doctor import Section

_ID_PROGRAMS = ("newuidmap", "newgidmap")
_OTHER_PROGRAMS = ("fuse-overlayfs", "crun", "runc", "mmdebstrap")


class System:
    """`engine.upkeep.system`."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def info(self) -> dict[str, Any]:
        """What the host and the store are, docker's keys where docker has them."""
        from rootless import __version__
        from rootless.engine.container.reconcile import state_of
        from rootless.errors import RootlessError
        from rootless.host.facts import find_helper
        from rootless.network import modes
        from rootless.storage import drivers
        from rootless.units import timestamp

        engine = self._engine
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
            driver = drivers.choose(
                settings.storage_driver, store.containers.directory, id_map, engine.directories.cache
            )
        except RootlessError as e:
            driver = f"none ({e.message})"
        uname = os.uname()
        programs = (*_ID_PROGRAMS, *(helper.name for helper in modes.HELPERS), *_OTHER_PROGRAMS)
        network = settings.network or next((h.name for h in modes.HELPERS if h.path()), modes.UNCONNECTED.name)
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

    def version(self) -> dict[str, Any]:
        """Versions: {"Client": {"Version", "Os", "Arch", ...}, "Components": [...]}."""
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

    def doctor(self) -> list[Section]:
        """host.doctor's sections, each primitive tried for real."""
        from rootless.host.doctor import examine
        from rootless.network.modes import HELPERS

        directories = self._engine.directories
        return examine(directories.data, HELPERS, directories.cache)

    def events(
        self,
        *,
        since: str | None = None,
        until: str | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
        follow: bool = True,
    ) -> Iterator[dict[str, Any]]:
        """Events in the shape of docker's, from `since` (none: from now) to `until`; follow: and those to come."""
        from rootless.engine import events

        for entry in events.stream(self._engine, since=since, until=until, filters=filters, follow=follow):
            yield events.to_json(entry)

    def unshare(self, command: Sequence[str]) -> int:
        """Run `command` (default: the user's shell) as root of the user's id map; its exit status."""
        from rootless.host import userns

        argv = list(command) or [os.environ.get("SHELL") or "/bin/sh"]
        return userns.run(self._engine.store.id_map, argv)

    def df(self) -> DiskUsage:
        """Bytes really allocated, by image, container, volume and build step; what is shared counts once."""
        from rootless.engine.upkeep.disk_usage import disk_usage

        return disk_usage(self._engine)

    def check(
        self, *, repair: bool = False, quick: bool = False, progress: Callable[[str], None] | None = None
    ) -> CheckResult:
        """Verify blobs, layers, names, records, containers and volumes; what nothing needs is told too.

        repair: put right what can be, and remove what nothing needs; quick: read no content. progress: called with what
        is looked at now. Damage is an answer, not an error.
        """
        from rootless.engine.upkeep.check import check

        return check(self._engine, repair=repair, quick=quick, progress=progress)

    def reset(self, *, force: bool = False) -> None:
        """Remove everything. Raises InvalidState while containers run (force: they are killed)."""
        from rootless.engine.upkeep.reset import reset

        reset(self._engine, force=force)

    def prune(
        self,
        *,
        all: bool = False,
        volumes: bool = False,
        build: bool = False,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> PruneReport:
        """Stopped containers, dangling images (all: unused ones), with `volumes` anonymous volumes, with `build` the
        build cache, and garbage.

        filters: until, label, label!. The build cache has no labels: with a filter of labels it stays.
        """
        from rootless.engine.filters import Filters

        engine = self._engine
        filters = filters or {}
        Filters(filters, ("label", "label!", "until"))  # all are known, before anything is removed
        containers = engine.containers.prune(filters=filters)
        images = engine.images.prune(all=all, filters=filters)
        pruned = engine.volumes.prune(filters=filters) if volumes else PruneReport()
        cache = self._prune_cache(filters) if build else None
        prune_stale(engine)
        garbage = engine.store.gc.collect(keep_layer_blobs=engine.settings.keep_layer_blobs)
        if garbage.busy:
            engine.warn(
                "another command uses the store: what interrupted commands left behind stays for the next prune"
            )
        freed = (containers.reclaimed, images.reclaimed, pruned.reclaimed, garbage.freed)
        return PruneReport(
            containers=containers.containers,
            images=images.images,
            volumes=pruned.volumes,
            reclaimed=sum(freed) + (cache.reclaimed if cache else 0),
            cache=cache.removed if cache else (),
        )

    def _prune_cache(self, filters: Mapping[str, Sequence[str]]) -> CachePruned | None:
        from rootless.engine.upkeep.build_cache import prune

        if filters.get("label") or filters.get("label!"):
            return None
        return prune(self._engine, all=True, filters=[f"until={value}" for value in filters.get("until", ())])


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
        return ".".join(map(str, libseccomp.version()))
    except OSError:
        return ""
