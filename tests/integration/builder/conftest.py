"""What the tests of builds share: a context directory, `build`, the files of an image, all bytes of a store."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.conftest import Runner, make_private_directory, remove_private_directory

Build = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def context() -> Iterator[Path]:
    """An empty context directory."""
    directory = make_private_directory("x")
    yield directory
    remove_private_directory(directory)


@pytest.fixture
def build(busybox: Runner, context: Path) -> Build:
    """Build a Dockerfile's text in the context: build("FROM busybox...", "-t", "name")."""

    def carry_out(dockerfile: str, *arguments: str, check: bool = True, **settings: object) -> CompletedProcess[str]:
        (context / "Dockerfile").write_text(dockerfile)
        return busybox("build", *arguments, str(context), check=check, **settings)

    return carry_out


def image_id(busybox: Runner, name: str) -> str:
    """The id of an image."""
    return inspect(busybox, name)["Id"]


def inspect(busybox: Runner, name: str) -> dict:
    """docker's description of an image."""
    return json.loads(busybox("image", "inspect", name).stdout)[0]


def cached_steps(completed: CompletedProcess[str]) -> int:
    """How many steps a plain log says were cached."""
    return completed.stderr.count(" CACHED\n")


def layers(busybox: Runner, name: str, context: Path) -> list[tarfile.TarFile]:
    """The layers of an image, bottom first."""
    archive = context.parent / f"{context.name}.tar"
    busybox("save", "-o", str(archive), name)
    try:
        with tarfile.open(archive) as outer:
            manifest = json.load(outer.extractfile("manifest.json"))
            return [tarfile.open(fileobj=io.BytesIO(outer.extractfile(path).read())) for path in manifest[0]["Layers"]]
    finally:
        archive.unlink()


def names_of_top(busybox: Runner, name: str, context: Path) -> list[str]:
    """The entries of the topmost layer."""
    return sorted(member.name.rstrip("/") for member in layers(busybox, name, context)[-1].getmembers())


def read_in(busybox: Runner, name: str, *command: str) -> str:
    """What a command in a container of the image prints."""
    return busybox("run", "--rm", "--network=none", name, *command).stdout


def every_byte(root: Path) -> bytes:
    """All files of a store below `root` that the user can read."""
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            try:
                found.append(path.read_bytes())
            except PermissionError:
                continue
    return b"\n".join(found)
