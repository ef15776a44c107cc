"""Fills a new volume with what the image has at its place, before the volume is mounted there. It never overwrites."""

from __future__ import annotations

import os
import stat

from rootless.errors import RuntimeFailure
from rootless.host.seeding import seed_volume
from rootless.runtime.operations.base import BEFORE_MOUNTS, Operation, RootContext, existing


class SeedVolume(Operation):
    """Copy what the image has at `target` into the empty directory `source`, before that is mounted there.

    How starts and `cp` take turns on a volume, and what a crash leaves, is told by `host.seeding`.
    """

    __slots__ = ("source", "target")
    stage = BEFORE_MOUNTS

    def __init__(self, source: str, target: str) -> None:
        self.source = source
        self.target = target

    @property
    def path(self) -> str:
        return self.target

    def describe(self) -> str:
        return f"seed volume '{self.source}' from '{self.target}'"

    def apply(self, context: RootContext) -> None:
        image = existing(context, self.target)
        if image is None:
            return
        try:
            if not stat.S_ISDIR(os.fstat(image).st_mode):
                raise RuntimeFailure(f"cannot mount a volume on '{self.target}': it is a file in the image")
            seed_volume(self.source, image)
        finally:
            os.close(image)
