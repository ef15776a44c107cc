"""What connects a container to its network has ended while it runs: it is started again, or its loss is reported.

For a network of its own that is the network helper, for networks with names the process that serves them. Without it a
container says "Up" and reaches nobody outside. So a thing that cannot be started again is reported: in events, `ps` and
`inspect`. The monitor loads this module for a container on networks with names, else when a helper has ended.
"""

from __future__ import annotations

from rootless.errors import HostLimit, RootlessError
from rootless.monitor import state
from rootless.monitor.loop import READ, Loop, Timer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from rootless.monitor.launch_spec import LaunchSpec
    from rootless.monitor.protocol import NetworkRequest
    from rootless.network.helper import Helper

    class ConnectedRun(Protocol):
        """What the repair of a helper needs of a container's run (monitor.container_run)."""

        pid: int

        def helpers(self) -> list[tuple[int, int]]:
            """(pid, start time) of the helper processes that serve this run."""

        def use_helper(self, helper: Helper) -> None:
            """Let `helper` be the network helper of the run from now on."""

    class MemberRun(Protocol):
        """What the watch over networks with names needs of a container's run (monitor.container_run)."""

        @property
        def connection(self) -> int:
            """The connection to the process that serves networks."""

        @property
        def held(self) -> list[int]:
            """The descriptors by which the container is on networks, that connection first."""

        def use_connection(self, fd: int) -> None:
            """Let `fd` be that connection from now on."""


ATTEMPTS = 12  # in a row, over about one minute: what cannot run here must not be started for ever
_FIRST_DELAY = 0.25  # seconds before the second attempt; each further one waits twice as long
_LONGEST_DELAY = 8.0  # seconds
_STABLE = 60.0  # seconds that a helper must live until those before it are forgotten


class _Repair:
    """Attempts in a row to connect one container again, a bounded number of them, and the words about them."""

    what = ""  # is started again

    def __init__(self, loop: Loop, spec: LaunchSpec, tracked: state.State, on_stable: Callable[[], None]) -> None:
        self._loop = loop
        self._spec = spec
        self._tracked = tracked
        self._on_stable = on_stable
        self._attempts = 0
        self._timer: Timer | None = None

    def _attempt(self) -> None:
        raise NotImplementedError

    def _retry(self) -> None:
        """Make the next attempt in a while, the first one at once; or give up."""
        if self._attempts >= ATTEMPTS:
            self._note(f"gives up after {ATTEMPTS} attempts to start {self.what}")
            self._tell("network_lost", self._tracked.facts.network.problem)
            return
        delay = min(_FIRST_DELAY * 2 ** (self._attempts - 1), _LONGEST_DELAY) if self._attempts else 0.0
        self._attempts += 1
        self._timer = self._loop.later(delay, self._attempt)

    def _failed(self, error: RootlessError | OSError) -> None:
        text = error.message if isinstance(error, RootlessError) else error.strerror or str(error)
        self._note(f"cannot start {self.what} again: {text}")
        self._tracked.facts.network.problem = text
        self._save()
        self._retry()

    def _is_down(self, problem: str) -> None:
        """Report that the container is not connected, unless that is known already."""
        if not self._tracked.facts.network.problem:
            self._tell("network_down", problem)

    def _is_up(self) -> None:
        self._tracked.facts.network.problem = ""
        self._save()
        state.record_event(self._spec, "network_up")

    def _tell(self, action: str, problem: str) -> None:
        self._tracked.facts.network.problem = problem
        self._save()
        state.record_event(self._spec, action, reason=problem)

    def _save(self) -> None:
        try:
            self._tracked.save()
        except OSError as e:  # a full disk must not end the monitor, and the container with it
            self._note(f"cannot write the container's state: {e.strerror}")

    def _note(self, text: str) -> None:
        state.add_note(self._spec.directory, text)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class NetworkRepair(_Repair):
    """Starts the helper of one run again, without ever blocking the loop.

    on_stable: called when a helper that was started again has lived for a minute.
    """

    what = "the network helper"

    def __init__(
        self, loop: Loop, spec: LaunchSpec, tracked: state.State, run: ConnectedRun, on_stable: Callable[[], None]
    ) -> None:
        super().__init__(loop, spec, tracked, on_stable)
        self._run = run
        self._starting: Helper | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a helper is being started, or has lived for less than a minute."""
        return self._starting is not None or self._timer is not None

    def begin(self, last_words: str) -> None:
        """Start another helper, for that of the container has ended. last_words: what the helper wrote at its end."""
        self._cancel()
        self._tracked.facts.helpers = self._run.helpers()
        self._note(f"the network helper has ended{': ' * bool(last_words)}{last_words}")
        self._is_down("its network helper has ended")
        self._retry()

    def forget(self, pid: int) -> None:
        """Drop child `pid`, which was reaped, if it is the helper that is being started: `end` must not signal a number
        that may be another process's by then."""
        if self._starting is not None and self._starting.pid == pid:
            self._starting.pid = -1

    def end(self) -> None:
        """Stop the helper that is being started, and every timer, for the container has ended."""
        self._cancel()
        helper, self._starting = self._starting, None
        if helper is not None:
            self._loop.forget(helper.ready_fd())
            helper.stop(wait=False)

    def _attempt(self) -> None:
        from rootless.kernel.namespaces import OpenNetwork
        from rootless.network.helper import READY_TIMEOUT
        from rootless.network.modes import recorded_mode

        self._timer = None
        network = self._spec.plan.network
        # Host ports that the user left open were chosen for the first helper, and clients use them: they stay the same
        ports = self._tracked.facts.network.ports or network.ports
        try:
            opened = OpenNetwork.with_owner(self._run.pid)
            try:
                helper = recorded_mode(network.mode).start(opened, ports, network.options)
            finally:
                opened.close()
        except (RootlessError, OSError) as e:
            self._failed(e)
            return
        if helper is None:
            return  # a mode without a helper has nothing to start
        self._starting = helper
        self._loop.watch(helper.ready_fd(), READ, lambda _: self._is_ready())
        self._timer = self._loop.later(READY_TIMEOUT, self._is_late)

    def _is_ready(self) -> None:
        """Take the helper into use. It has written to its pipe or closed it: `ready` does not block the loop."""
        helper, self._starting = self._starting, None
        self._cancel()
        if helper is None:
            return
        self._loop.forget(helper.ready_fd())
        try:
            helper.ready()
        except (RootlessError, OSError) as e:
            self._failed(e)
            return
        self._run.use_helper(helper)
        self._tracked.facts.helpers = self._run.helpers()
        self._is_up()
        self._note(f"{helper.name}, the network helper, was started again")
        self._timer = self._loop.later(_STABLE, self._is_stable)

    def _is_late(self) -> None:
        self.end()
        self._failed(HostLimit("the network helper does not become ready"))

    def _is_stable(self) -> None:
        self._timer = None
        self._attempts = 0
        self._on_stable()


class NetworkWatch(_Repair):
    """Watches the connection of a run to the process that serves its networks with names, and connects it again.

    Meanwhile the container reaches its neighbours by their addresses. on_stable: called when it is connected again.
    """

    what = "the process that serves networks"

    def __init__(
        self, loop: Loop, spec: LaunchSpec, tracked: state.State, run: MemberRun, on_stable: Callable[[], None]
    ) -> None:
        super().__init__(loop, spec, tracked, on_stable)
        self._run = run
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
        self._cancel()
        for attachment in self._tracked.facts.network.attachments:
            state.record_network_event(self._spec, "disconnect", attachment)

    def _lost(self) -> None:
        self._loop.forget(self._run.connection)
        self._note("the process that serves networks has ended")
        self._attempts = 1
        self._attempt()  # at once: most often another container's monitor has started the next process already

    def _attempt(self) -> None:
        from rootless.network.shared import hub_client

        self._timer = None
        try:
            connection = hub_client.resume(self._spec.runtime_dir, self._spec.id)
        except (RootlessError, OSError) as e:
            self._is_down("the process that serves its networks has ended")
            self._failed(e)
            return
        self._attempts = 0
        self._run.use_connection(connection)
        self._loop.watch(connection, READ, lambda _: self._lost())
        self._is_up()
        self._loop.later(1.0, self._on_stable)
