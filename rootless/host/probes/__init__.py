"""Tries for real what the host can do, one probe per primitive, each in a child with a time limit. It chooses nothing.

A probe is a function in one of this package's modules that returns a Probe; `probe(name, directory)` finds and runs it.
Nothing stays behind: mounts and namespaces end with the child, files are below one directory that is removed.
"""

from __future__ import annotations

import os

from rootless.host.facts import INITIAL_USER_NAMESPACE
from rootless.host.probes.result import Probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MODULES = {
    "user_namespaces": "id_ranges",
    "id_ranges": "id_ranges",
    "overlay": "layer_mounts",
    "fuse_overlayfs": "layer_mounts",
    "reflink": "layer_mounts",
    "data_directory": "directories",
    "runtime_directory": "directories",
    "lingering": "directories",
    "tun": "network",
    "low_ports": "network",
    "cgroup": "limits",
    "seccomp": "limits",
    "seccomp_listener": "limits",
    "keyring": "limits",
    "openat2": "kernel",
    "mount_setattr": "kernel",
    "mount_api": "kernel",
    "pidfd": "kernel",
    "close_range": "kernel",
    "time_namespace": "kernel",
}
NAMES = tuple(_MODULES)
TIMEOUT = 20.0  # seconds; the slowest probe takes 0.1
RETRY_AFTER = 300.0  # a failure is tried again after so many seconds: the administrator may have mended it


def probe(name: str, directory: str) -> Probe:
    """Run probe `name`; directory: the data directory or, where it is not made yet, where it will be.

    Never raises for what the host lacks: a probe that fails in an unforeseen way, or hangs, says so in its detail.
    """
    from importlib import import_module

    from rootless.host.probes.trial import attempt

    function = getattr(import_module(f"rootless.host.probes.{_MODULES[name]}"), name)
    return attempt(name, function, directory, TIMEOUT)


def cached(name: str, directory: str, cache: str) -> Probe:
    """Like `probe`, from file `probes.json` of directory `cache` when it was run since boot on this filesystem.

    A failure is only believed for RETRY_AFTER seconds, and nothing in a nested user namespace, which is another host.
    """
    import time

    key = _key(directory)
    entries = _read(cache) if key else {}
    found = entries.get(f"{key} {name}")
    if found and (found["works"] or 0 <= time.time() - found["at"] < RETRY_AFTER):
        return Probe(name, found["works"], found["detail"], found["remedy"])
    result = probe(name, directory)
    remember([result], directory, cache)
    return result


def remember(probes: list[Probe], directory: str, cache: str) -> None:
    """Put fresh results into the cache; a cache that cannot be written only costs time."""
    import json
    import time

    from rootless.paths import atomic_write

    key = _key(directory)
    if not key:
        return
    boot = key.partition(" ")[0]
    entries = {k: v for k, v in _read(cache).items() if k.startswith(boot)}
    for p in probes:
        entries[f"{key} {p.name}"] = {**p.to_json(), "at": time.time()}
    try:
        os.makedirs(cache, mode=0o700, exist_ok=True)
        atomic_write(f"{cache}/probes.json", json.dumps(entries).encode(), durable=False)
    except OSError:
        pass


def _read(cache: str) -> dict[str, Any]:
    import json

    try:
        with open(f"{cache}/probes.json", encoding="utf-8") as f:
            value = json.load(f)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _key(directory: str) -> str:
    """Boot, host name and filesystem: a home on NFS is the home of many hosts. Empty in a nested user namespace."""
    from rootless.host.probes.trial import existing_parent
    from rootless.kernel.procfs import boot_id

    try:
        if os.readlink("/proc/self/ns/user") != INITIAL_USER_NAMESPACE:
            return ""
        return f"{boot_id()} {os.stat(existing_parent(directory)).st_dev}"
    except OSError:
        return ""
