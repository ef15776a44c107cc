"""The console script's guess, before click is loaded, whether a container will be started."""

from __future__ import annotations

import pytest

from rootless.cli.entry import starts_container


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run busybox", True),
        ("start web", True),
        ("container run busybox", True),
        ("--root /x run busybox", True),
        ("--root=/x -D container start web", True),
        ("ps", False),
        ("image run", False),
        ("--root run ps", False),
        ("exec web run", False),
        ("", False),
        ("--root", False),
        ("container", False),
    ],
)
def test_guess(line: str, expected: bool) -> None:
    assert starts_container(line.split()) is expected
