"""`start --after-boot`: the containers that a docker daemon would start when the host comes up.

As there is no daemon here, a user's systemd unit (contrib/systemd) or a crontab's @reboot line runs the command.
"""

from __future__ import annotations

import os

from rootless.engine.container.reconcile import readable_records, state_of, tell_damaged
from rootless.errors import InvalidInput, NotFound
from rootless.monitor import stop_request
from rootless.records.state import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.records.container import ContainerRecord


def wanted_after_boot(engine: Engine) -> list[str]:
    """Names of the containers to start, oldest first.

    By restart policy these are, of `always`, each container that ever ran; of `unless-stopped`, each that its user has
    not stopped; of `on-failure`, each that was cut off or failed. Containers that were made on another host which
    shares the home are left to that host: started here too, they would run twice on the same files.
    """
    chosen = []
    for record in readable_records(engine):
        try:
            if record.host == os.uname().nodename and _is_wanted(engine, record):
                chosen.append((record.created, record.name))
        except NotFound:
            continue  # A container of --rm that the reboot has ended: looking at its state removed it
        except InvalidInput as e:
            tell_damaged(engine, record.id, e)
    return [name for _, name in sorted(chosen)]


def _is_wanted(engine: Engine, record: ContainerRecord) -> bool:
    kind = record.restart.name
    state = state_of(engine, record.id)
    if state.started_at == NEVER or state.is_running or state.status == "restarting" or state.remote:
        return False
    stopped = stop_request.is_stop_requested(engine.store.containers.path(record.id))
    if kind == "on-failure":
        return not stopped and state.exit_code != 0
    return kind == "always" or (kind == "unless-stopped" and not stopped)
