"""Random SIGKILLs: an operation begins, and at a random moment a client, a monitor, a worker or all are killed."""

from __future__ import annotations

import random
import time

from tests.faults.campaign import Campaign, Trial
from tests.faults.operations import Operations
from tests.faults.scene import Broken, Process, Scene, kill, processes

_EACH = 10
"""Trials between two thorough looks."""
_MOST = 120
"""Trials with one store."""


class Kills(Campaign):
    """Which process is killed is drawn; whatever it was, the next commands find every object that was reported."""

    name = "kill"

    def __init__(self) -> None:
        super().__init__()
        self._usual: dict[str, float] = {}

    def trials(self, scene: Scene, rng: random.Random) -> Trial:
        """Trials with one store, which is cleared at the end."""
        operations = Operations(scene)
        for number in range(1, _MOST + 1):
            name, operation = operations.pick(rng)
            moment = rng.random() * 1.1 * self._usual.get(name, 0.4)
            victim = rng.choices(("client", "monitor", "worker", "all"), (4, 3, 2, 1))[0]
            self.says(f"{' '.join(operation.words)} · {victim} killed after {moment:.3f} s")
            before = {each.pid for each in processes(scene.root)} if rng.random() < 0.8 else set()
            began = time.monotonic()
            process = scene.start(operation.words)
            if process.stdin is not None and not operation.input:
                process.stdin.close()
                process.stdin = None
            time.sleep(moment)
            found = [each for each in processes(scene.root) if victim == "all" or each.pid not in before]
            hit = [each for each in _victims(found, victim, process.pid) if kill(each)]
            done = scene.finish(operation.words, process, operation.input)
            if not hit and done.code:
                raise Broken(str(done))
            if not hit:
                self._usual[name] = 0.7 * self._usual.get(name, 0.4) + 0.3 * (time.monotonic() - began)
            self.count(name, "killed" if hit else "not hit")
            if victim in ("monitor", "all"):
                # its container dies with it; nothing waits for it but this
                time.sleep(0.05)
            scene.done(operation, done)
            if number % _EACH:
                scene.look()
            else:
                scene.look_deeper()
            yield
        scene.clear()


def _victims(found: list[Process], kind: str, client: int) -> list[Process]:
    if kind == "client":
        return [each for each in found if each.pid == client]
    if kind == "monitor":
        monitors = [each for each in found if each.is_monitor]
        return monitors[-1:]
    if kind == "worker":
        return [each for each in found if not each.is_client and not each.is_monitor and each.pid != client][-1:]
    return found
