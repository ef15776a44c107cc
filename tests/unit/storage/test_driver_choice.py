"""The choice of a storage driver: one table, and answers that are kept only as long as the host is the same."""

from pathlib import Path

import pytest

from rootless.errors import HostLimit
from rootless.host import facts
from rootless.host.idmap import single_map
from rootless.storage import drivers


def test_a_kept_failure_is_not_believed_after_the_program_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "newuidmap"
    program.write_text("broken")
    reasons = ["newuidmap is not setuid"]
    probed: list[str] = []

    class Fake:
        @staticmethod
        def probe(directory: str, id_map: object) -> str:
            probed.append(directory)
            return reasons[0]

    monkeypatch.setattr(facts, "find_helper", lambda name: str(program) if name == "newuidmap" else None)
    monkeypatch.setattr(drivers, "driver_module", lambda name: Fake)
    arguments = ("overlay", str(tmp_path), single_map(0, 0), str(tmp_path / "cache"))
    for _ in range(2):
        with pytest.raises(HostLimit, match="not setuid"):
            drivers.choose(*arguments)
    assert len(probed) == 1
    program.chmod(0o4755)  # changes no modification time
    reasons[0] = ""
    assert drivers.choose(*arguments) == "overlay"
    assert len(probed) == 2
