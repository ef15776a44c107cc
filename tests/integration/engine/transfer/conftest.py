"""Registries, a front that misbehaves, and a store with an image that was made here."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from tests.conftest import Runner, make_private_directory, make_runner, remove_private_directory
from tests.integration.engine.transfer.faulty_registry import Front
from tests.integration.image.conftest import Registry, password_registry, registry, tls_registry

__all__ = ["password_registry", "registry", "tls_registry"]


@pytest.fixture
def front(registry: Registry) -> Iterator[Front]:
    """The misbehaving front of the plain registry."""
    made = Front(registry.address)
    yield made
    made.close()


@pytest.fixture
def stranger() -> Iterator[Front]:
    """Another host, with nothing behind it."""
    made = Front()
    yield made
    made.close()


def root_tar(files: dict[str, bytes]) -> bytes:
    """The tar of a root file system."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            tar.addfile(info, BytesIO(content))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def image_root() -> Iterator[Path]:
    """A store with the images small:1 (one small layer) and large:1 (6 MB that do not compress)."""
    root = make_private_directory("p")
    run = make_runner(root)
    run("import", "-", "small:1", input=root_tar({"etc/name": b"small"}))
    run("import", "-", "large:1", input=root_tar({"etc/name": b"large", "random": os.urandom(6 << 20)}))
    yield root
    remove_private_directory(root)


@pytest.fixture
def rl(image_root: Path) -> Runner:
    """Run `rootless ARGS...` on that store, as somebody who has no credentials and no configuration."""
    run = make_runner(image_root)
    nobody = {"REGISTRY_AUTH_FILE": "/dev/null", "XDG_CONFIG_HOME": "/nonexistent", "DOCKER_CONFIG": "/nonexistent"}
    return lambda *arguments, env=None, **settings: run(*arguments, env={**nobody, **(env or {})}, **settings)
