"""`start --after-boot`: the containers that a docker daemon would start when the host comes up.

There is no daemon to ask: a user's systemd unit (contrib/systemd) or a crontab's @reboot line calls it.
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

    always: each that ever ran; unless-stopped: each that the user did not stop; on-failure: each that was cut off.
    Containers that were made on another host of a shared home are that host's.
    """
    chosen = []
    for record in readable_records(engine):
        try:
            if record.host == os.uname().nodename and _is_wanted(engine, record):
                chosen.append((record.created, record.name))
        except NotFound:
            continue  # a container of --rm, which the reboot has ended
        except InvalidInput as e:
            tell_damaged(engine, record.id, e)
    return [name for _, name in sorted(chosen)]


def _is_wanted(engine: Engine, record: ContainerRecord) -> bool:
    kind = record.restart.name
    state = state_of(engine, record.id)
    if state.started_at == NEVER or state.is_running or state.status == "restarting" or state.remote:
        return False
    stopped = stop_request.is_asked(engine.store.containers.path(record.id))
    if kind == "on-failure":
        return not stopped and state.exit_code != 0
    return kind == "always" or (kind == "unless-stopped" and not stopped)
