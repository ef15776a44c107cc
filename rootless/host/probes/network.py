"""Probes of what every helper of a container's network needs of the host. The helpers' own are rootless.network's."""

from __future__ import annotations

import os

from rootless.host.facts import is_real_root, read_sysctl
from rootless.host.probes.result import Probe


def tun(directory: str) -> Probe:
    """Open /dev/net/tun: its mode says nothing about what a device cgroup or a container forbids."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as e:
        return Probe("tun", False, f"cannot open '/dev/net/tun': {e.strerror}", _tun_line(e))
    return Probe("tun", True, "/dev/net/tun opens")


def low_ports(directory: str) -> Probe:
    """Read the lowest port that `-p` can publish, and say whether 80 can be."""
    first = int(read_sysctl("net/ipv4/ip_unprivileged_port_start") or 1024)
    if first <= 80 or is_real_root():
        return Probe("low_ports", True, f"ports from {first} can be published")
    return Probe(
        "low_ports",
        False,
        f"ports below {first} cannot be published",
        "publish on a higher one (-p 8080:80), or ask the administrator for:"
        " sysctl -w net.ipv4.ip_unprivileged_port_start=80",
    )


def _tun_line(error: OSError) -> str:
    line = "modprobe tun" if isinstance(error, FileNotFoundError) else "chmod 0666 /dev/net/tun"
    return f"ask the administrator for: {line}"


def tun_remedy() -> str | None:
    """What to ask the administrator for where a helper failed; None: /dev/net/tun is not the reason."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as e:
        return _tun_line(e)
    return None
