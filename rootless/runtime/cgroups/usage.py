"""What a cgroup uses, and what it may use: read from its files, of either version. It changes nothing."""

from __future__ import annotations

import os

from rootless.host.cgroups import ROOT
from rootless.runtime.cgroups.group import Group1, read_pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.runtime.cgroups.group import Group

_NONE = 1 << 62  # version 1 knows no "max": a memory limit of about this many bytes means that there is none


class Usage:
    """What a cgroup has used, and two limits beside it: those of memory and of processes, None where there is none.

    cpu: seconds; memory: bytes with the page cache; cache: the part of it that can be dropped at once (inactive files);
    peak: the most bytes of memory so far; pids: processes and threads now; block_read, block_written: bytes since the
    start; oom_kills: processes that the kernel ended for lack of memory. pressure: "cpu", "memory" or "io" → percent of
    the last ten seconds in which something waited for it (version 2 only).
    """

    __slots__ = (
        "block_read",
        "block_written",
        "cache",
        "cpu",
        "memory",
        "memory_limit",
        "oom_kills",
        "peak",
        "pids",
        "pids_limit",
        "pressure",
    )

    def __init__(self) -> None:
        self.cpu = 0.0
        self.memory = 0
        self.cache = 0
        self.peak = 0
        self.memory_limit: int | None = None
        self.pids = 0
        self.pids_limit: int | None = None
        self.block_read = 0
        self.block_written = 0
        self.oom_kills = 0
        self.pressure: dict[str, float] = {}


class Effective:
    """The limits that are in force for a cgroup, which are the tightest of its own and of all cgroups above it.

    memory, swap: bytes; pids: processes and threads; cpus: how many CPUs' time, such as 1.5; None: no limit.
    cpuset: the CPUs themselves, as a list such as "0-3,7", "" where the kernel does not tell.
    """

    __slots__ = ("cpus", "cpuset", "memory", "pids", "swap")

    def __init__(self) -> None:
        self.memory: int | None = None
        self.swap: int | None = None
        self.pids: int | None = None
        self.cpus: float | None = None
        self.cpuset = ""


def read_usage(group: Group | Group1) -> Usage:
    """What a cgroup has used by now; zero for what no controller counts. Raises nothing when the cgroup has gone."""
    return _read_1(group.paths) if isinstance(group, Group1) else _read_2(group.path)


def _read_2(path: str) -> Usage:
    usage = Usage()
    usage.cpu = read_pairs(f"{path}/cpu.stat").get("usage_usec", 0) / 1e6
    usage.memory = read_number(f"{path}/memory.current") or 0
    if usage.memory:
        usage.cache = min(read_pairs(f"{path}/memory.stat").get("inactive_file", 0), usage.memory)
        usage.peak = read_number(f"{path}/memory.peak") or 0
        usage.oom_kills = read_pairs(f"{path}/memory.events").get("oom_kill", 0)
    usage.pids = read_number(f"{path}/pids.current") or 0
    for line in _lines(f"{path}/io.stat"):
        for word in line.split()[1:]:
            key, _, value = word.partition("=")
            if key == "rbytes" and value.isdigit():
                usage.block_read += int(value)
            elif key == "wbytes" and value.isdigit():
                usage.block_written += int(value)
    for kind in ("cpu", "memory", "io"):
        some = read_pressure(f"{path}/{kind}.pressure")
        if some is not None:
            usage.pressure[kind] = some
    tightest = tightest_limits(path)
    usage.memory_limit, usage.pids_limit = tightest.memory, tightest.pids
    return usage


def _read_1(paths: dict[str, str]) -> Usage:
    usage = Usage()
    memory, pids, block = paths.get("memory", ""), paths.get("pids", ""), paths.get("blkio", "")
    usage.cpu = (read_number(f"{paths.get('cpuacct', '')}/cpuacct.usage") or 0) / 1e9
    usage.memory = read_number(f"{memory}/memory.usage_in_bytes") or 0
    usage.cache = min(read_pairs(f"{memory}/memory.stat").get("total_inactive_file", 0), usage.memory)
    usage.peak = read_number(f"{memory}/memory.max_usage_in_bytes") or 0
    usage.oom_kills = read_pairs(f"{memory}/memory.oom_control").get("oom_kill", 0)
    limit = read_pairs(f"{memory}/memory.stat").get("hierarchical_memory_limit")
    usage.memory_limit = limit if limit is not None and limit < _NONE else None
    usage.pids = read_number(f"{pids}/pids.current") or 0
    usage.pids_limit = read_number(f"{pids}/pids.max")
    for line in _lines(f"{block}/blkio.throttle.io_service_bytes"):
        words = line.split()
        if len(words) == 3 and words[2].isdigit():
            usage.block_read += int(words[2]) if words[1] == "Read" else 0
            usage.block_written += int(words[2]) if words[1] == "Write" else 0
    return usage


def tightest_limits(path: str, root: str = ROOT) -> Effective:
    """The limits in force for the cgroup of directory `path`: the minimum over it and its ancestors (version 2)."""
    found = Effective()
    for line in _lines(f"{path}/cpuset.cpus.effective"):
        found.cpuset = line
    while path.startswith(f"{root}/"):
        found.memory = _least(found.memory, read_number(f"{path}/memory.max"))
        found.swap = _least(found.swap, read_number(f"{path}/memory.swap.max"))
        found.pids = _least(found.pids, read_number(f"{path}/pids.max"))
        quota, _, period = (_lines(f"{path}/cpu.max") or [""])[0].partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            share = int(quota) / int(period)
            found.cpus = share if found.cpus is None else min(found.cpus, share)
        path = os.path.dirname(path)
    return found


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def read_pressure(path: str) -> float | None:
    """`avg10` of the "some" line of a pressure file; None where the kernel keeps none."""
    for line in _lines(path):
        words = line.split()
        if words[:1] == ["some"]:
            for word in words[1:]:
                if word.startswith("avg10="):
                    try:
                        return float(word[6:])
                    except ValueError:
                        return None
    return None


def read_number(path: str) -> int | None:
    """The number in a file; None for "max", for nonsense and when it is not there."""
    text = (_lines(path) or [""])[0]
    return int(text) if text.isdigit() else None


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(1 << 16).splitlines()
    except OSError:
        return []
