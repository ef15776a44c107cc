"""The directories of the sockets of slirp4netns, after a process that has started helpers was killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rootless.network import slirp4netns


def test_what_a_killed_process_has_left_goes_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slirp4netns, "_parents", lambda: ["/nonexistent", str(tmp_path)])
    own, other, plain = (Path(slirp4netns._socket_path(owner)) for owner in ("/run/a", "/run/b", ""))
    for path in (own, other, plain):
        path.touch()
    # somebody else's link of the same name, in a directory that everybody may write to
    private = tmp_path / "private"
    private.mkdir()
    (private / "api").touch()
    os.symlink(private, tmp_path / f"{slirp4netns._prefix('/run/a')}link")
    slirp4netns.remove_sockets("/run/a")
    assert [path.exists() for path in (own, own.parent, other, plain, private / "api")] == [
        False, False, True, True, True,
    ]  # fmt: skip
