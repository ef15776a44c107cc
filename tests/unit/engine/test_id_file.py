"""Files in which a script finds an id."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootless.engine.id_file import write_id_file
from rootless.errors import HostLimit


def test_the_id_is_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("an id that was longer")
    write_id_file(str(tmp_path / "id"), "sha256:1", option="--iidfile")
    assert (tmp_path / "id").read_text() == "sha256:1"


def test_a_file_of_another_container_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("first")
    with pytest.raises(HostLimit, match="--cidfile"):
        write_id_file(str(tmp_path / "id"), "second", option="--cidfile", exclusive=True)
    assert (tmp_path / "id").read_text() == "first"


def test_what_cannot_be_written_is_the_hosts_limit_and_told_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build's id file used to be "not found", as if an image were missing."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HostLimit, match=f"cannot write '{tmp_path}/no/id' .--iidfile.: No such file"):
        write_id_file("no/id", "x", option="--iidfile")


def test_a_device_is_written_and_not_replaced() -> None:
    write_id_file("/dev/null", "x", option="--iidfile")
    assert Path("/dev/null").is_char_device()
