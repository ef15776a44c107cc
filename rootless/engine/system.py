"""The verbs of the whole: info, version, doctor, unshare, disk use, prune."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rootless.engine.cgroup import cgroup_facts, prune_stale
from rootless.engine.options import PruneReport

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rootless.engine.context import Engine
    from rootless.host.doctor import Section

_HELPERS = ("newuidmap", "newgidmap", "pasta", "slirp4netns", "fuse-overlayfs", "crun", "runc", "mmdebstrap")


class System:
    """`engine.system`."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def info(self) -> dict[str, Any]:
        """What the host and the store are, docker's keys where docker has them."""
        from rootless import __version__
        from rootless.engine.durations import timestamp
        from rootless.engine.reconcile import state_of
        from rootless.errors import RootlessError
        from rootless.host.facts import find_helper
        from rootless.storage import drivers

        engine = self._engine
        store, settings = engine.store, engine.settings
        states: dict[str, int] = {}
        for container_id in store.containers.list():
            try:
                status = state_of(engine, container_id)["status"]
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
        network = settings.network or next((n for n in ("pasta", "slirp4netns") if find_helper(n)), "none")
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
            "Helpers": {name: find_helper(name) or "" for name in _HELPERS},
        }

    def version(self) -> dict[str, Any]:
        """Versions: {"Client": {"Version", "Os", "Arch", ...}, "Components": [...]}."""
        import platform

        from rootless import __version__

        uname = os.uname()
        libseccomp = _libseccomp_version()
        return {
            "Client": {
                "Version": __version__,
                "PythonVersion": platform.python_version(),
                "Os": "linux",
                "Arch": uname.machine,
                "KernelVersion": uname.release,
                "OCIVersion": "1.2.0",
            },
            "Components": [{"Name": "libseccomp", "Version": libseccomp}] if libseccomp else [],
        }

    def doctor(self) -> list[Section]:
        """host.doctor's sections, each primitive tried for real."""
        from rootless.host.doctor import examine

        directories = self._engine.directories
        return examine(directories.data, directories.cache)

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

    def df(self) -> dict[str, Any]:
        """Bytes by kind: {"images": {"count", "active", "size", "reclaimable"}, "containers": ..., "volumes": ...}."""
        from rootless.engine.reconcile import is_running, state_of
        from rootless.engine.removal import tree_size
        from rootless.errors import NotFound

        engine = self._engine
        store = engine.store
        containers = {"count": 0, "active": 0, "size": 0, "reclaimable": 0}
        used: set[str] = set()
        for container_id in store.containers.list():
            try:
                record = store.containers.read(container_id)
                state = state_of(engine, container_id)
            except NotFound:
                continue
            used.add(record["manifest_digest"])
            size = tree_size(store.containers.path(container_id, "upper"))
            _count(containers, size, active=is_running(state))
        images = {"count": 0, "active": 0, "size": 0, "reclaimable": 0}
        layers: dict[str, bool] = {}
        from rootless.image.manifest import chain_ids

        for entry in store.index.entries():
            active = entry.manifest_digest in used
            images["count"] += 1
            images["active"] += active
            for chain in chain_ids(entry.config.diff_ids):
                layers[chain] = layers.get(chain, False) or active
        for chain, active in layers.items():
            if store.layers.has(chain):
                size = store.layers.size(chain)
                images["size"] += size
                images["reclaimable"] += 0 if active else size
        volumes = {"count": 0, "active": 0, "size": 0, "reclaimable": 0}
        users = store.volumes.users()
        for volume in store.volumes.list():
            _count(volumes, tree_size(volume.path), active=bool(users.get(volume.name)))
        return {"images": images, "containers": containers, "volumes": volumes}

    def prune(
        self, *, all: bool = False, volumes: bool = False, filters: Mapping[str, Sequence[str]] | None = None
    ) -> PruneReport:
        """Stopped containers, dangling images (all: unused ones), with `volumes` anonymous volumes, and garbage."""
        engine = self._engine
        containers = engine.containers.prune(filters=filters)
        images = engine.images.prune(all=all, filters=filters)
        pruned = engine.volumes.prune(filters=filters) if volumes else PruneReport()
        garbage = engine.store.gc.collect()
        prune_stale(engine)
        if garbage.busy:
            engine.warn(
                "another command uses the store: what interrupted commands left behind stays for the next prune"
            )
        return PruneReport(
            containers=containers.containers,
            images=images.images,
            volumes=pruned.volumes,
            reclaimed=containers.reclaimed + images.reclaimed + pruned.reclaimed + garbage.freed,
        )


def _count(kind: dict[str, int], size: int, *, active: bool) -> None:
    kind["count"] += 1
    kind["active"] += active
    kind["size"] += size
    kind["reclaimable"] += 0 if active else size


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
