"""The process that serves a container's networks with names has ended: another one is started, and the container told.

Meanwhile the container reaches its neighbours by their addresses, and neither names nor anything outside.
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.monitor import state
from rootless.monitor.loop import READ, Loop, Timer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from rootless.monitor.launch_spec import LaunchSpec
    from rootless.monitor.protocol import NetworkRequest

    class MemberRun(Protocol):
        """What this needs of a container's run (monitor.supervise.ContainerRun)."""

        @property
        def connection(self) -> int:
            """The connection to the process that serves networks."""

        @property
        def held(self) -> list[int]:
            """The descriptors by which the container is on networks, that connection first."""

        def use_connection(self, fd: int) -> None:
            """Let `fd` be that connection from now on."""


_ATTEMPTS = 12  # in a row; a process that cannot run here must not be started for ever
_FIRST_DELAY, _LONGEST_DELAY = 0.25, 8.0  # seconds before the second attempt; each further one waits twice as long


class NetworkWatch:
    """Watches the connection of one run, and connects it again. on_stable: called when that has succeeded."""

    def __init__(
        self, loop: Loop, spec: LaunchSpec, tracked: state.State, run: MemberRun, on_stable: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._spec = spec
        self._tracked = tracked
        self._run = run
        self._on_stable = on_stable
        self._attempts = 0
        self._timer: Timer | None = None
        loop.watch(run.connection, READ, lambda _: self._lost())

    @property
    def is_busy(self) -> bool:
        """Whether the container waits for another attempt."""
        return self._timer is not None

    def change(self, request: NetworkRequest) -> list[str]:
        """Put the container on one more network, or let it leave one; lines for the user. Raises RootlessError."""
        from rootless.network.resolv import change_names_files
        from rootless.network.shared import hub_client

        before = self._tracked.facts.network.attachments
        membership, warnings = hub_client.change(self._spec.runtime_dir, self._spec.id, self._run.held, request)
        facts = hub_client.network_facts(membership)
        facts.problem = self._tracked.facts.network.problem
        self._tracked.facts.network = facts
        self._tracked.save()
        try:
            change_names_files(self._spec.directory, before, facts.attachments, self._spec.plan.network.host_names)
        except OSError as e:
            warnings.append(f"/etc/hosts and /etc/resolv.conf of the container stay as they were: {e.strerror}")
        gone = [one for one in before if one.network_id == request.detach]
        for one in [request.attach] if request.attach is not None else gone:
            action = "disconnect" if request.attach is None else "connect"
            state.record_network_event(self._spec, action, one)
        return warnings

    def end(self) -> None:
        """Watch no longer, for the container has ended."""
        self._loop.forget(self._run.connection)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for attachment in self._tracked.facts.network.attachments:
            state.record_network_event(self._spec, "disconnect", attachment)

    def _lost(self) -> None:
        self._loop.forget(self._run.connection)
        state.add_note(self._spec.directory, "the process that serves networks has ended")
        self._connect()

    def _connect(self) -> None:
        from rootless.network.shared import hub_client

        self._timer = None
        self._attempts += 1
        try:
            connection = hub_client.resume(self._spec.runtime_dir, self._spec.id)
        except (RootlessError, OSError) as e:
            self._failed(e.message if isinstance(e, RootlessError) else e.strerror or str(e))
            return
        self._attempts = 0
        self._run.use_connection(connection)
        self._loop.watch(connection, READ, lambda _: self._lost())
        self._tell("", "network_up")
        self._loop.later(1.0, self._on_stable)

    def _failed(self, problem: str) -> None:
        state.add_note(self._spec.directory, f"cannot connect with its networks again: {problem}")
        if self._attempts == 1:
            self._tell(problem, "network_down")
        if self._attempts >= _ATTEMPTS:
            self._tell(problem, "network_lost")
            return
        delay = min(_FIRST_DELAY * 2 ** (self._attempts - 1), _LONGEST_DELAY)
        self._timer = self._loop.later(delay, self._connect)

    def _tell(self, problem: str, action: str) -> None:
        self._tracked.facts.network.problem = problem
        self._tracked.save()
        state.record_event(self._spec, action, **({"reason": problem} if problem else {}))
