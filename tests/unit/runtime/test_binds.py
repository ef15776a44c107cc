"""Bind mounts: what is looked at is what is mounted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rootless.runtime.mount_options import parse_mount_options
from rootless.runtime.operations import attach, config_mounts
from rootless.runtime.operations.base import RootContext


@pytest.mark.parametrize("has_mount_api", [True, False])
def test_a_source_that_is_swapped_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_mount_api: bool
) -> None:
    """Who can write above the source must not make us mount another directory than the one that was looked at."""
    monkeypatch.setenv("ROOTLESS_NO_MOUNT_API", "" if has_mount_api else "1")
    for name in ("source", "other"):
        (tmp_path / name).mkdir()
    wanted = (tmp_path / "source").stat().st_ino
    bound: list[int] = []

    def mountpoint(*_: object, **__: object) -> int:
        (tmp_path / "source").rename(tmp_path / "away")
        (tmp_path / "source").symlink_to("other")
        return os.open(tmp_path, os.O_PATH)

    def bind(source: int | str, *_: object, **__: object) -> int:
        bound.append(os.stat(source).st_ino)
        raise InterruptedError  # enough was seen

    monkeypatch.setattr(config_mounts, "mountpoint", mountpoint)
    monkeypatch.setattr(attach, "bind", bind)
    operation = config_mounts.Bind(str(tmp_path / "source"), "/target", parse_mount_options(["rbind"]))
    with pytest.raises(InterruptedError):
        operation.apply(RootContext(str(tmp_path), lambda _: None))
    assert bound == [wanted]
