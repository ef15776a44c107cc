"""Damaged files: any file of a store is cut, zeroed, flipped in a bit, filled with noise, or taken away."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
from pathlib import Path

from tests.faults.campaign import Campaign, Trial
from tests.faults.scene import CONTAINER, TAG, VOLUME, Broken, Done, Operation, Scene

_WAYS = ("empty", "cut", "zeroes", "flip", "noise", "missing")
_FAMILIES = ("containers", "names", "volumes", "layers", "blobs", "locks", "cache", "build-cache", "")
"""Directories at the top of a store from which a file is drawn; the last stands for the files at the top itself."""


class Damages(Campaign):
    """What is whole goes on working; the damage is told by `system check`, and repaired or removed by the tool."""

    name = "damage"

    def trials(self, scene: Scene, rng: random.Random) -> Trial:
        """Trials that begin with the same store."""
        self._furnish(scene)
        whole = scene.files / "whole"
        _open(scene.root)
        _copy(scene.root, whole)
        things = set(scene.things)
        while True:
            scene.things = set(things)
            path = _draw(scene.root, rng)
            way = rng.choice(_WAYS)
            inside = path.relative_to(scene.root)
            self.says(f"{inside}: {way}")
            changed = spoil(path, way, rng)
            self.count(inside.parts[0] if len(inside.parts) > 1 else inside.name, way)
            if changed:
                self._trial(scene, inside)
            yield
            _open(scene.root)
            shutil.rmtree(scene.root)
            _copy(whole, scene.root)

    @staticmethod
    def _furnish(scene: Scene) -> None:
        words = ("--network=none", "-v", "f-v:/v", "busybox", "sh", "-c", "echo mine >/mine; echo mine >/v/mine")
        for operation in (
            Operation(("run", "--name", "f-ended", *words), ((CONTAINER, "f-ended"), (VOLUME, "f-v"))),
            Operation(("create", "--name", "f-new", "busybox", "true"), ((CONTAINER, "f-new"),)),
            Operation(("build", "-q", "-t", "f-built:1", str(scene.files / "context")), ((TAG, "f-built:1"),)),
            Operation(("import", str(scene.files / "tree.tar"), "f-imported:1"), ((TAG, "f-imported:1"),)),
        ):
            scene.must(*operation.words)
            scene.things |= set(operation.makes)

    def _trial(self, scene: Scene, inside: Path) -> None:
        owner = inside.parts[1] if inside.parts[0] == "containers" else ""
        hurt = self._name(scene, owner)
        listed = _spoken(scene.command("ps", "-a", "--format", "{{.Names}}"), works=True)
        for kind, name in sorted(scene.things):
            if kind == CONTAINER and name != hurt and inside.parts[0] != "names" and name not in listed.stdout:
                raise Broken(f"'{name}' is not listed: {listed}")
        for words in (
            ("images",),
            ("volume", "ls"),
            ("system", "df"),
            ("container", "prune", "-f", "--filter", "label=no"),
        ):
            _spoken(scene.command(*words), works=inside.name != "index.json")
        _spoken(
            scene.command("start", "f-ended"),
            works=inside.parts[0] in ("names", "locks", "cache", "build-cache", "volumes"),
        )
        checked = _spoken(scene.command("system", "check"))
        repaired = _spoken(scene.command("system", "check", "--repair"))
        again = _spoken(scene.command("system", "check"))
        if again.code and not any(
            word in again.stdout + repaired.stdout for word in ("rm -f", "remove", "rmi", "only you", "again")
        ):
            raise Broken(f"neither repaired, nor told what to do: {checked}\n{repaired}\n{again}")
        for name in _spoken(scene.command("ps", "-aq", "--no-trunc")).stdout.split():
            _spoken(scene.command("rm", "-f", name), works=True)
        _spoken(scene.command("system", "prune", "-af", "--volumes"), works=True)
        if left := os.listdir(scene.root / "containers"):
            raise Broken(f"containers are left: {left}\n{checked}\n{repaired}")

    @staticmethod
    def _name(scene: Scene, container_id: str) -> str:
        for name in ("f-ended", "f-new"):
            if (scene.root / "names" / name).exists() and container_id in (scene.root / "names" / name).read_text():
                return name
        return ""


def _spoken(done: Done, *, works: bool = False) -> Done:
    if done.code and (works or not (done.stderr.strip() or done.stdout.strip())):
        raise Broken(str(done))
    return done


def _copy(source: Path, target: Path) -> None:
    """Copy with all that a layer's tree is compared by: hard links, modes, times, attributes."""
    subprocess.run(["cp", "-a", source, target], check=True)


def _open(root: Path) -> None:
    """Let the directories that overlayfs keeps for itself be copied and removed."""
    for parent, names, _ in os.walk(root):
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o700)


def _draw(root: Path, rng: random.Random) -> Path:
    while True:
        family = rng.choice(_FAMILIES)
        below = (root / family).rglob("*") if family else root.iterdir()
        files = sorted(path for path in below if stat.S_ISREG(path.lstat().st_mode))
        if files:
            return rng.choice(files)


def spoil(path: Path, way: str, rng: random.Random) -> bool:
    """Damage a file; whether it is another one now."""
    before = path.read_bytes()
    content = bytearray(before)
    if way == "missing":
        path.unlink()
        return True
    if way == "empty":
        content.clear()
    elif way == "cut":
        del content[rng.randrange(len(content)) if content else 0 :]
    elif way == "zeroes":
        start = rng.randrange(len(content)) if content and rng.random() < 0.5 else 0
        content[start:] = bytes(len(content) - start)
    elif way == "flip" and content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif way == "noise":
        content[:] = rng.randbytes(len(content))
    mode = path.stat().st_mode
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(stat.S_IMODE(mode))
    return bytes(content) != before
