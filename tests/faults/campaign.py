"""A campaign of faults: trials by a seed until the time is over, what was tried in figures, and what was found."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from tests.conftest import make_private_directory
from tests.faults.scene import Broken, Scene, User, kill, processes, remove_files

Trial = Iterator[None]


class Finding(NamedTuple):
    """A promise that was not kept. place: the store, as it was left."""

    campaign: str
    seed: str
    trial: int
    text: str
    place: Path

    def __str__(self) -> str:
        return f"{self.campaign}, seed {self.seed}, trial {self.trial}, store kept in {self.place}\n{self.text}"


class Campaign:
    """One kind of fault. A subclass says what a trial is; each `yield` of `trials` is one that held."""

    name = ""
    most_findings = 5

    def __init__(self) -> None:
        self.figures: Counter[tuple[str, str]] = Counter()
        self.tried = 0
        self.findings: list[Finding] = []
        self.log: TextIO | None = None
        self._last = ""

    def why_not(self) -> str:
        """Why this kind cannot be tried here, "" when it can."""
        return ""

    def trials(self, scene: Scene, rng: random.Random) -> Trial:
        """Trials with one new store. Raises Broken."""
        raise NotImplementedError

    def count(self, what: str, outcome: str) -> None:
        """Note one more of these for the figures."""
        self.figures[(what, outcome)] += 1

    def says(self, text: str) -> None:
        """Note what is being tried, for the case that it is what breaks."""
        self._last = text
        if self.log is not None:
            self.log.write(f"{self.name} {self.tried}: {text}\n")
            self.log.flush()

    def scene(self, rng: random.Random) -> Scene:
        """A new store, in which there is nothing yet."""
        root = make_private_directory("f")
        return Scene(root, root.with_name(f"{root.name}-files"), User.caller())

    def run(self, seed: int, deadline: float) -> None:
        """Trials until `deadline` (of the monotonic clock), or until there are enough findings."""
        round_ = 0
        while time.monotonic() < deadline and len(self.findings) < self.most_findings:
            self._round(f"{seed}.{round_}", deadline)
            round_ += 1

    def _round(self, seed: str, deadline: float) -> None:
        rng = random.Random(f"{self.name} {seed}")
        scene = self.scene(rng)
        try:
            scene.set_up()
            for _ in self.trials(scene, rng):
                self.tried += 1
                if time.monotonic() >= deadline:
                    break
            self.close(scene)
        except Broken as e:
            finding = Finding(self.name, seed, self.tried, f"{self._last}\n{e}", scene.root)
            self.findings.append(finding)
            self.says(f"FOUND {finding}")
            for process in processes(scene.root):
                kill(process)

    def close(self, scene: Scene) -> None:
        """The end of a store in which nothing broke."""
        for process in processes(scene.root):
            kill(process)
        scene.command("system", "reset", "-f")
        remove_files(scene)
        if scene.root.is_dir():
            scene.root.rmdir()

    def summary(self) -> str:
        """The figures as lines."""
        outcomes: dict[str, list[str]] = {}
        for (what, outcome), number in sorted(self.figures.items()):
            outcomes.setdefault(what, []).append(f"{outcome} {number}")
        lines = [f"{self.name}: {self.tried} trials, {len(self.findings)} findings"]
        lines += [f"    {what}: {', '.join(numbers)}" for what, numbers in outcomes.items()]
        return "\n".join(lines)


def report(campaign: Campaign) -> None:
    """Print figures and findings."""
    for finding in campaign.findings:
        sys.stderr.write(f"{finding}\n\n")
    sys.stdout.write(campaign.summary() + "\n")
