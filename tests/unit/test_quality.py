"""Linters and types are tests: what a reviewer would have to say twice."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY, require


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def tool(name: str) -> str:
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    require(path, f"{name} is not installed (pip install .[test])")
    assert path
    return path


def test_ruff_check() -> None:
    run(tool("ruff"), "check", "--no-cache", "rootless", "tests")


def test_ruff_format() -> None:
    run(tool("ruff"), "format", "--no-cache", "--check", "rootless", "tests")


def test_mypy_strict() -> None:
    run(tool("mypy"), "--cache-dir=/dev/null")
