"""The kinds of faults by their name on the command line."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.campaign import Campaign
from tests.faults.damage import Damages
from tests.faults.inject import Injections
from tests.faults.kills import Kills
from tests.faults.power import PowerCuts

KINDS: dict[str, Callable[[str | None], Campaign]] = {
    "kill": lambda user: Kills(),
    "inject": lambda user: Injections(),
    "damage": lambda user: Damages(),
    "power": PowerCuts,
}
