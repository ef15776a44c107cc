"""The commands of a campaign: which there are, and which can work on the objects that there are now."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from tests.faults.scene import CONTAINER, TAG, VOLUME, Operation, Scene


class Operations:
    """Picks operations that can work on the objects of a scene."""

    def __init__(self, scene: Scene, *, pulls_from: str = "") -> None:
        self._scene = scene
        self._count = 0
        self._pulls_from = pulls_from
        self.names: dict[str, Callable[[random.Random], Operation | None]] = {
            name.removeprefix("_make_"): getattr(self, name) for name in dir(self) if name.startswith("_make_")
        }

    def pick(self, rng: random.Random, among: Sequence[str] = ()) -> tuple[str, Operation]:
        """An operation, and its name. among: names to pick from, all without."""
        if len(self._some(CONTAINER)) > 6:
            among = [
                name for name in among or self.names if name in ("remove", "remove_several", "container_prune")
            ] or among
        while True:
            name = rng.choice(sorted(among or self.names))
            operation = self.names[name](rng)
            if operation is not None:
                return name, operation

    def _new(self, kind: str) -> str:
        self._count += 1
        return f"f-{kind[0]}{self._count}"

    def _some(self, kind: str) -> list[str]:
        return sorted(name for each, name in self._scene.things if each == kind and name.startswith(f"f-{kind[0]}"))

    def _one(self, kind: str, rng: random.Random) -> str | None:
        names = self._some(kind)
        return rng.choice(names) if names else None

    def _make_create(self, rng: random.Random) -> Operation:
        name, volume = self._new("c"), self._new("used")  # which is removed by nobody: it is in use
        words = ("create", "--name", name, "--network=none", "-v", f"{volume}:/data", "busybox", "true")
        return Operation(words, ((CONTAINER, name), (VOLUME, volume)))

    def _make_run_detached(self, rng: random.Random) -> Operation:
        name = self._new("c")
        network = "none" if rng.random() < 0.8 else "default"
        restart = "no" if rng.random() < 0.7 else "always"
        words = ("run", "-d", "--name", name, f"--network={network}", f"--restart={restart}")
        return Operation(
            (*words, "busybox", "sh", "-c", "echo $$; echo mine >/mine; exec sleep 100000"), ((CONTAINER, name),)
        )

    def _make_run_kept(self, rng: random.Random) -> Operation:
        name = self._new("c")
        words = (
            "run",
            "--name",
            name,
            "--network=none",
            "busybox",
            "sh",
            "-c",
            "mkdir /d; echo mine >/d/mine; rm /bin/ed",
        )
        return Operation(words, ((CONTAINER, name),))

    def _make_run_removed(self, rng: random.Random) -> Operation:
        network = "none" if rng.random() < 0.7 else "default"
        return Operation(
            ("run", "--rm", "-i", f"--network={network}", "busybox", "cat"), input=b"x" * rng.choice((0, 10, 300_000))
        )

    def _make_rename(self, rng: random.Random) -> Operation | None:
        old, new = self._one(CONTAINER, rng), self._new("c")
        return Operation(("rename", old, new), ((CONTAINER, new),), ((CONTAINER, old),), moves=True) if old else None

    def _make_update(self, rng: random.Random) -> Operation | None:
        name = self._one(CONTAINER, rng)
        return Operation(("update", f"--restart={rng.choice(('no', 'always'))}", name)) if name else None

    def _make_start(self, rng: random.Random) -> Operation | None:
        name = self._one(CONTAINER, rng)
        return Operation(("start", name)) if name else None

    def _make_stop(self, rng: random.Random) -> Operation | None:
        name = self._one(CONTAINER, rng)
        return Operation(("stop", "-t", "0", name)) if name else None

    def _make_restart(self, rng: random.Random) -> Operation | None:
        name = self._one(CONTAINER, rng)
        return Operation(("restart", "-t", "0", name)) if name else None

    def _make_copy_in(self, rng: random.Random) -> Operation | None:
        name = self._one(CONTAINER, rng)
        return Operation(("cp", str(self._scene.files / "tree.tar"), f"{name}:/tmp/")) if name else None

    def _make_copy_out(self, rng: random.Random) -> Operation | None:
        name = self._one(CONTAINER, rng)
        return Operation(("cp", f"{name}:/bin/busybox", str(self._scene.files / "out"))) if name else None

    def _make_export(self, rng: random.Random) -> Operation | None:
        name = self._one(CONTAINER, rng)
        return Operation(("export", "-o", str(self._scene.files / "out.tar"), name)) if name else None

    def _make_diff(self, rng: random.Random) -> Operation | None:
        name = self._one(CONTAINER, rng)
        return Operation(("diff", name)) if name else None

    def _make_commit(self, rng: random.Random) -> Operation | None:
        name, tag = self._one(CONTAINER, rng), f"{self._new('t')}:1"
        return Operation(("commit", name, tag), ((TAG, tag),)) if name else None

    def _make_remove(self, rng: random.Random) -> Operation | None:
        name = self._one(CONTAINER, rng)
        return Operation(("rm", "-f", name), ends=((CONTAINER, name),)) if name else None

    def _make_remove_several(self, rng: random.Random) -> Operation | None:
        names = self._some(CONTAINER)[:3]
        if len(names) < 2:
            return None
        return Operation(("rm", "-f", *names), ends=tuple((CONTAINER, name) for name in names))

    def _make_tag(self, rng: random.Random) -> Operation:
        tag = f"{self._new('t')}:1"
        return Operation(("tag", "busybox", tag), ((TAG, tag),))

    def _make_import(self, rng: random.Random) -> Operation:
        tag = f"{self._new('t')}:1"
        return Operation(("import", "-c", f"LABEL n={tag}", str(self._scene.files / "tree.tar"), tag), ((TAG, tag),))

    def _make_load(self, rng: random.Random) -> Operation:
        return Operation(("load", "-q", "-i", str(self._scene.files / "image.tar")), ((TAG, "faults/loaded:1"),))

    def _make_pull(self, rng: random.Random) -> Operation | None:
        name = f"{self._pulls_from}/faults/pulled:1"
        return Operation(("pull", "-q", name), ((TAG, name),)) if self._pulls_from else None

    def _make_build(self, rng: random.Random) -> Operation:
        tag = f"{self._new('t')}:1"
        cache = ("--no-cache",) if rng.random() < 0.7 else ()
        return Operation(
            ("build", "-q", *cache, "--network=none", "-t", tag, str(self._scene.files / "context")), ((TAG, tag),)
        )

    def _make_save(self, rng: random.Random) -> Operation:
        return Operation(("save", "-o", str(self._scene.files / "saved.tar"), "busybox"))

    def _make_untag(self, rng: random.Random) -> Operation | None:
        tag = self._one(TAG, rng)
        return Operation(("rmi", "-f", tag), ends=((TAG, tag),)) if tag else None

    def _make_volume_create(self, rng: random.Random) -> Operation:
        name = self._new("v")
        return Operation(("volume", "create", name), ((VOLUME, name),))

    def _make_volume_remove(self, rng: random.Random) -> Operation | None:
        name = self._one(VOLUME, rng)
        return Operation(("volume", "rm", "-f", name), ends=((VOLUME, name),)) if name else None

    def _make_prune(self, rng: random.Random) -> Operation:
        return Operation(("image", "prune", "-f"))

    def _make_check(self, rng: random.Random) -> Operation:
        return Operation(("system", "check", "--repair"))
