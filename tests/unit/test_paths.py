"""The user's directories are those that platformdirs names; files that are replaced whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from platformdirs.unix import Unix

from rootless.paths import atomic_write, directories

VARIABLES = ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
values = st.none() | st.lists(st.sampled_from(["/", "a", ".", "..", "~", "é b", "$HOME"]), max_size=6).map("".join)


@given(st.fixed_dictionaries(dict.fromkeys(VARIABLES, values)))
@example(dict.fromkeys(VARIABLES))
@example({**dict.fromkeys(VARIABLES), "HOME": "/home/a"})
@example({**dict.fromkeys(VARIABLES), "HOME": "/"})
@example({**dict.fromkeys(VARIABLES, "/x"), "HOME": "relative"})
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_they_are_those_of_platformdirs(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str | None]) -> None:
    with monkeypatch.context() as patch:
        patch.delenv("ROOTLESS_ROOT", raising=False)
        for name, value in environment.items():
            if value is None:
                patch.delenv(name, raising=False)
            else:
                patch.setenv(name, value)
        theirs = Unix("rootless", appauthor=False)
        ours = directories()
        assert (ours.data, ours.cache, ours.config) == (
            theirs.user_data_dir,
            theirs.user_cache_dir,
            theirs.user_config_dir,
        )


def test_a_bare_name_is_replaced_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file is beside it, not in "/", which an ordinary user cannot write and which has other disks."""
    monkeypatch.chdir(tmp_path)
    opened: list[str] = []
    real = os.open

    def note(path: str, *arguments: int) -> int:
        opened.append(path)
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", note)
    atomic_write("here", b"content")
    assert opened == [f".here.{os.getpid()}.tmp"]
    assert (tmp_path / "here").read_bytes() == b"content"
    assert [entry.name for entry in tmp_path.iterdir()] == ["here"]
