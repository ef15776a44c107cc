"""The last resort when the monitor itself is at fault: the container ends, and everybody who asks is told why.

A container without a monitor would go on with nobody to keep its output and its exit code, or to stop it.
"""

from __future__ import annotations

import traceback

from rootless.monitor import protocol, state
from rootless.records.state import timestamp_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.monitor.supervise import Supervisor

KILLED = 137  # 128 + SIGKILL


def report_failure(supervisor: Supervisor) -> None:
    """Kill the container, write the exception being handled to monitor.log and state.json, tell the clients."""
    text = traceback.format_exc()
    supervisor.kill()
    if supervisor.directory is not None:
        state.add_note(supervisor.directory, text)
        facts = state.read_state(supervisor.directory)
        if facts is not None:
            facts.status = "exited"
            facts.pid = 0
            facts.exit_code = KILLED
            facts.error = f"monitor failed: {text.strip().splitlines()[-1]}"
            facts.finished_at = timestamp_ns()
            try:
                state.write_state(supervisor.directory, facts)
            except OSError:
                pass  # a full disk is often why the monitor failed; the clients are still to be told
    supervisor.clients.tell_all(
        protocol.encode_message(
            protocol.ErrorNotice(
                "the container's monitor failed", "see monitor.log in the container's directory, and report it"
            )
        )
    )
