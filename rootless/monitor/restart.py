"""Decides whether and when an ended container starts again. Pure: nothing waits or starts here."""

from __future__ import annotations

FIRST_DELAY = 0.1  # seconds, doubled with each restart
LONGEST_DELAY = 60.0  # seconds
GOOD_RUN = 10.0  # seconds after which the next delay is the first one again


class RestartPolicy:
    """docker's restart policy `name` with its count and its back-off.

    name: "no", "on-failure", "always", "unless-stopped"; maximum: the most restarts of on-failure, 0 means no limit.
    "always" and "unless-stopped" differ only in what a later boot does, which is not the monitor's business. count:
    starts after the first one; delay: seconds before the last of them, 0 before there was one.
    """

    __slots__ = ("count", "delay", "maximum", "name")

    def __init__(self, name: str = "no", maximum: int = 0) -> None:
        self.name = name or "no"
        self.maximum = maximum
        self.count = 0
        self.delay = 0.0

    def resume(self, count: int, delay: float) -> None:
        """Go on with the count and the delay of an earlier policy."""
        self.count, self.delay = count, delay

    def change(self, name: str, maximum: int) -> None:
        """Follow another policy from now on, as `update --restart` asks; the count and the delay so far stay."""
        self.name = name or "no"
        self.maximum = maximum

    def next_delay(self, exit_code: int, ran_for: float, *, stop_requested: bool) -> float | None:
        """Seconds until the next start; None when the container stays ended.

        exit_code, ran_for: the code and the seconds of the run that has ended. stop_requested: a user has stopped the
        container, which no policy undoes.
        """
        if stop_requested or self.name == "no":
            return None
        if self.name == "on-failure" and (exit_code == 0 or 0 < self.maximum <= self.count):
            return None
        if self.name not in ("on-failure", "always", "unless-stopped"):
            return None
        if ran_for >= GOOD_RUN or not self.delay:
            self.delay = FIRST_DELAY
        else:
            self.delay = min(self.delay * 2, LONGEST_DELAY)
        self.count += 1
        return self.delay
