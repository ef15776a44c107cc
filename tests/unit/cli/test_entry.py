"""The console script's guess, before click is loaded, what a monitor may prepare."""

from __future__ import annotations

import pytest

from rootless.cli.entry import guess_preparations


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run busybox", ("prepare", "network")),
        ("run --rm --network=none busybox", ("prepare",)),
        ("run --net host busybox", ("prepare",)),
        ("run -p80:80 busybox", ("prepare",)),
        ("run --userns=keep-id busybox", ()),
        ("run --runtime crun busybox", ()),
        ("start web", ("prepare",)),
        ("container run busybox", ("prepare", "network")),
        ("--root /x run busybox", ("prepare", "network")),
        ("--root=/x -D container start web", ("prepare",)),
        ("-l error --context default run busybox", ("prepare", "network")),
        ("ps", None),
        ("image run", None),
        ("--root run ps", None),
        ("exec web run", None),
        ("", None),
        ("--root", None),
        ("container", None),
    ],
)
def test_guess(line: str, expected: tuple[str, ...] | None) -> None:
    assert guess_preparations(line.split()) == expected
