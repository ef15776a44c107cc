"""Tries for real what the host can do, one probe per primitive, each in a child with a time limit. It chooses nothing.

A probe is a function in one of this package's modules that returns a Probe; `probe(name, directory)` finds and runs it.
Storage drivers and network helpers are tried by their own rooms.
Nothing stays behind: mounts and namespaces end with the child, files are below one directory that is removed.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.host.probes.result import Probe

_MODULES = {
    "user_namespaces": "id_ranges",
    "id_ranges": "id_ranges",
    "reflink": "directories",
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


def probe(name: str, directory: str) -> Probe:
    """Run probe `name`; directory: the data directory or, where it is not made yet, where it will be.

    Never raises for what the host lacks: a probe that fails in an unforeseen way, or hangs, says so in its detail.
    """
    from importlib import import_module

    from rootless.host.probes.trial import attempt_probe

    function = getattr(import_module(f"rootless.host.probes.{_MODULES[name]}"), name)
    return attempt_probe(name, function, directory, TIMEOUT)
