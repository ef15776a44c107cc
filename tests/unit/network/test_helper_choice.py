"""Which network helper is used: by what trials found, which are kept as long as nothing has changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rootless.host import doctor
from rootless.host.probes.result import Probe
from rootless.network import helper_choice, helper_trial, slirp4netns
from rootless.network.mode import HelperProgram


class Helper(HelperProgram):
    """A helper whose trials the test decides, and counts."""

    __slots__ = ("file", "found", "trials")

    def __init__(self, name: str, file: Path) -> None:
        super().__init__(name, f"{name}-package", "networks", lambda: slirp4netns)
        self.file = file
        self.found = Probe(name, True, "connected")
        self.trials = 0

    def path(self) -> str | None:
        return str(self.file) if self.file.exists() else None

    def attempt(self) -> Probe:
        self.trials += 1
        return self.found

    def is_flawed(self, flaw: str = "it loses half") -> None:
        self.found = Probe(self.name, True, flaw, "a newer one", flaw=flaw)

    def fails(self) -> None:
        self.found = Probe(self.name, False, "no route")


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Helper, Helper]:
    made = []
    for name in ("quick", "small"):
        file = tmp_path / name
        file.write_text("program")
        made.append(Helper(name, file))
    made[0].publishes_ipv6 = True
    monkeypatch.setattr(helper_choice, "HELPERS", tuple(made))
    monkeypatch.setattr(helper_trial, "try_helper", lambda helper, _: helper.attempt())
    return made[0], made[1]


@pytest.fixture
def chosen(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    def choose(*, publishes_ipv6: bool = False) -> tuple[str, str]:
        helper, flaw = helper_choice.choose(str(tmp_path / "cache"), publishes_ipv6=publishes_ipv6)
        return ("" if helper is None else helper.name), flaw

    return choose


def test_the_first_is_tried_once(helpers: tuple[Helper, Helper], chosen: Callable[..., tuple[str, str]]) -> None:
    for _ in range(3):
        assert chosen() == ("quick", "")
    assert [helper.trials for helper in helpers] == [1, 0]


def test_one_without_a_flaw_is_preferred(
    helpers: tuple[Helper, Helper], chosen: Callable[..., tuple[str, str]]
) -> None:
    helpers[0].is_flawed()
    for _ in range(3):
        assert chosen() == ("small", "")
    assert [helper.trials for helper in helpers] == [1, 1]
    helpers[1].file.unlink()
    assert chosen() == ("quick", "it loses half")
    helpers[0].file.unlink()
    assert chosen() == ("", "")


def test_a_flawed_one_is_preferred_to_one_that_fails(
    helpers: tuple[Helper, Helper], chosen: Callable[..., tuple[str, str]]
) -> None:
    helpers[0].fails()
    helpers[1].is_flawed()
    assert chosen() == ("small", "it loses half")
    helpers[1].file.write_text("another version")
    helpers[1].fails()
    assert chosen() == ("quick", "")  # its start says what fails


@pytest.mark.parametrize("change", ["content", "mode"])
def test_another_version_is_tried_anew(
    helpers: tuple[Helper, Helper], chosen: Callable[..., tuple[str, str]], change: str
) -> None:
    helpers[0].is_flawed()
    assert chosen() == ("small", "")
    helpers[0].found = Probe("quick", True, "connected")
    if change == "content":
        helpers[0].file.write_text("a newer version")
    else:
        helpers[0].file.chmod(0o755)
    assert chosen() == ("quick", "")


def test_a_failure_is_forgotten_and_a_flaw_is_not(
    helpers: tuple[Helper, Helper], chosen: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    helpers[0].fails()
    assert chosen() == ("small", "")
    helpers[0].is_flawed()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + helper_choice.RETRY_AFTER + 1)
    assert chosen() == ("small", "")
    assert [helper.trials for helper in helpers] == [2, 1]
    monkeypatch.setattr(time, "time", lambda: now + 10 * helper_choice.RETRY_AFTER)
    assert chosen() == ("small", "")
    assert [helper.trials for helper in helpers] == [2, 1]


def test_ipv6_ports_need_a_helper_that_can(
    helpers: tuple[Helper, Helper], chosen: Callable[..., tuple[str, str]]
) -> None:
    helpers[0].is_flawed()
    assert chosen(publishes_ipv6=True) == ("quick", "it loses half")
    helpers[0].file.unlink()
    assert chosen(publishes_ipv6=True) == ("small", "")


def test_a_guess_tries_nothing(
    helpers: tuple[Helper, Helper], chosen: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    assert helper_choice.guess(str(tmp_path / "cache")).name == "quick"
    helpers[0].is_flawed()
    assert chosen() == ("small", "")
    assert helper_choice.guess(str(tmp_path / "cache")).name == "small"
    assert [helper.trials for helper in helpers] == [1, 1]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"key": 3}', "null"])
def test_a_damaged_file_is_as_none(
    helpers: tuple[Helper, Helper], chosen: Callable[..., tuple[str, str]], tmp_path: Path, content: str
) -> None:
    assert chosen() == ("quick", "")
    file = tmp_path / "cache" / "network-helper.json"
    assert json.loads(file.read_text())["quick"]["works"] is True
    file.write_text(content)
    assert chosen() == ("quick", "")
    assert helpers[0].trials == 2


def test_doctor_says_what_run_uses(helpers: tuple[Helper, Helper], tmp_path: Path) -> None:
    """`-p` on an IPv6 address takes another helper: the verdict says so."""
    helpers[0].is_flawed()
    helpers[1].loss = "slower"
    cache = str(tmp_path / "cache")
    section = next(
        section
        for section in doctor.run_probes(str(tmp_path), [helper_choice.TriedHelper(one, cache) for one in helpers], [])
        if section.title == "network"
    )
    assert section.verdict.startswith("small is used: slower; quick for ports on IPv6 addresses")
    assert helper_choice.guess(cache).name == "small"
    helpers[1].fails()
    section = next(
        section
        for section in doctor.run_probes(str(tmp_path), [helper_choice.TriedHelper(one, cache) for one in helpers], [])
        if section.title == "network"
    )
    assert section.verdict == "quick is used; it loses half"
