"""`stats`: what containers use, from their cgroups' files and the host's /proc. It only reads.

Without a cgroup the numbers are sums over a container's processes in /proc, in which those that have ended are missing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

from rootless.engine.container.container_cgroup import group_of
from rootless.engine.container.reconcile import state_of, tell_damaged
from rootless.engine.report_types import ContainerStats
from rootless.errors import InvalidInput, InvalidState, NotFound
from rootless.kernel import procfs
from rootless.network.modes import recorded_mode
from rootless.units import parse_timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.records.container import ContainerRecord
    from rootless.records.state import ContainerState

_HERTZ = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def container_stats(
    engine: Engine, containers: Sequence[str] = (), *, all: bool = False, stream: bool = True, interval: float = 1.0
) -> Iterator[list[ContainerStats]]:
    """Samples of the named containers, or if none is named of those that run.

    all: those that do not run as well, with zeroes, as a named one always is; stream: sample again and again, every
    `interval` seconds. Raises NotFound for an unknown name.
    """
    find = engine.store.containers.find
    wanted = [find(name) for name in containers]
    sampler = _Sampler(engine)
    while True:
        began = time.monotonic()
        yield sampler.sample(wanted or engine.store.containers.list(), all=all or bool(wanted))
        if not stream:
            return
        time.sleep(max(0.0, interval - (time.monotonic() - began)))


class _Sampler:
    """Takes samples, and keeps the CPU times of the last one: a share of CPU is the difference of two samples."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._before: dict[str, tuple[float, float]] = {}  # container id → time.monotonic(), CPU seconds
        self._host_memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def sample(self, ids: Sequence[str], *, all: bool) -> list[ContainerStats]:
        processes: _Processes | None = None
        found = []
        for container_id in ids:
            try:
                record = self._engine.store.containers.read(container_id)
                state = state_of(self._engine, container_id)
            except (NotFound, InvalidState):
                continue
            except InvalidInput as e:
                tell_damaged(self._engine, container_id, e)
                continue
            if not state.is_running or state.remote:
                if all:
                    found.append(ContainerStats(container_id, record.name, state.status))
                continue
            if group_of(state) is None and processes is None:
                processes = _Processes()
            found.append(self._look(record, state, processes))
        self._before = {stats.id: self._before[stats.id] for stats in found if stats.id in self._before}
        return sorted(found, key=lambda stats: stats.name)

    def _look(self, record: ContainerRecord, state: ContainerState, processes: _Processes | None) -> ContainerStats:
        pid = state.pid
        group = group_of(state)
        received, sent = _network(pid) if recorded_mode(record.network.mode).counts_own_traffic else (0, 0)
        shown = ContainerStats(record.id, record.name, state.status, net_received=received, net_sent=sent)
        if group is not None:
            from rootless.runtime.cgroups.usage import read_usage

            usage = read_usage(group)
            limit = min(usage.memory_limit or self._host_memory, self._host_memory)
            return shown._replace(
                source="cgroup",
                cpu=self._percent(state, record.id, usage.cpu),
                memory=usage.memory - usage.cache,
                memory_cached=usage.memory,
                memory_limit=limit,
                block_read=usage.block_read,
                block_written=usage.block_written,
                pids=usage.pids or len(group.pids()),
                pids_limit=usage.pids_limit,
                pressure=usage.pressure,
            )
        assert processes is not None
        seconds, resident, threads, read_, written = processes.sums(pid)
        return shown._replace(
            source="proc",
            cpu=self._percent(state, record.id, seconds),
            memory=resident,
            memory_cached=resident,
            memory_limit=self._host_memory,
            block_read=read_,
            block_written=written,
            pids=threads,
        )

    def _percent(self, state: ContainerState, container_id: str, cpu: float) -> float:
        now = time.monotonic()
        before = self._before.get(container_id)
        self._before[container_id] = now, cpu
        if before is None:
            elapsed, used = time.time() - parse_timestamp(state.started_at), cpu
        else:
            elapsed, used = now - before[0], cpu - before[1]
        return max(0.0, 100.0 * used / elapsed) if elapsed > 0.001 else 0.0


class _Processes:
    """Every process of the host, read once per sample for all containers that have no cgroup."""

    def __init__(self) -> None:
        self._stat: dict[int, tuple[int, float, int, int]] = {}  # pid → parent, CPU seconds, resident bytes, threads
        self._spaces: dict[int, int] = {}
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
                self._spaces[int(name)] = os.stat(f"/proc/{name}/ns/pid").st_ino
            except FileNotFoundError:
                continue
            except OSError:
                # The namespace of another user's process, or of our reaper, which is not dumpable, is closed to us
                # (ptrace(2)). Such a process counts to the container of its parent
                pass
            seconds = (int(fields[11]) + int(fields[12])) / _HERTZ
            self._stat[int(name)] = int(fields[1]), seconds, int(fields[21]) * _PAGE, int(fields[17])
        self._children: dict[int, list[int]] = {}
        for pid, (parent, *_) in self._stat.items():
            self._children.setdefault(parent, []).append(pid)

    def sums(self, init: int) -> tuple[float, int, int, int, int]:
        """Sums for the container whose first process is `init`.

        They are CPU seconds, resident bytes, threads, bytes read and bytes written.
        """
        own = self._spaces.get(init)
        members = {init}
        if own is not None and own != self._spaces.get(os.getpid()):
            members.update(pid for pid, space in self._spaces.items() if space == own)
        queue = list(members)
        while queue:
            for child in self._children.get(queue.pop(), ()):
                if child not in members:
                    members.add(child)
                    queue.append(child)
        seconds, resident, threads, read_, written = 0.0, 0, 0, 0, 0
        for pid in members:
            if pid not in self._stat:
                continue
            _, used, pages, count = self._stat[pid]
            seconds, resident, threads = seconds + used, resident + pages, threads + count
            try:
                with open(f"/proc/{pid}/io", encoding="ascii") as file:
                    words = dict(line.split(": ") for line in file.read().splitlines())
                read_ += int(words["read_bytes"])
                written += int(words["write_bytes"])
            except (OSError, KeyError, ValueError):
                continue  # A process with another id of the container: the kernel shows its I/O to that id alone
        return seconds, resident, threads, read_, written


def _network(pid: int) -> tuple[int, int]:
    """Bytes received and sent by the interfaces of a process's network namespace, without the loopback."""
    received = sent = 0
    try:
        with open(f"/proc/{procfs.visible_process(pid)}/net/dev", encoding="ascii", errors="replace") as file:
            for line in file:
                name, colon, numbers = line.partition(":")
                fields = numbers.split()
                if colon and name.strip() != "lo" and len(fields) >= 9:
                    received += int(fields[0])
                    sent += int(fields[8])
    except (OSError, ValueError):
        pass
    return received, sent
