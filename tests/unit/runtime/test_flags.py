"""The quick parser of rootless-oci takes only what click would take, and understands the same."""

from __future__ import annotations

import subprocess
from typing import Any

import click
import pytest

from rootless.errors import UsageError
from rootless.runtime.oci import flags
from rootless.runtime.oci.cli import group
from rootless.runtime.oci.exec_verb import parse_user
from rootless.runtime.oci.life_verbs import signal_number
from rootless.runtime.oci.oci_records import check_id
from tests.conftest import oci_command_path

LINES = [
    "create c",
    "--root /r --log=/l --log-format json create --bundle /b --pid-file p -b . c",
    "--systemd-cgroup --rootless true run -d --preserve-fds 2 c",
    "kill c",
    "kill -a c KILL",
    "kill c KILL --all",
    "kill c -- -9",
    "delete c --force",
    "exec -t -e A=1 --env=B=2 -u 1:2 c ls -l --color",
    "exec --cap X -c Y -g 1 -g 2 -p file c",
    "list -q",
    "ps -f json c",
    "features",
    "spec -b /x",
    "state -- -x",
]
FAULTY = [
    "",
    "fly",
    "create",
    "create a b",
    "create --preserve-fds x c",
    "create --preserve-fds 9999 c",
    "--log-format xml list",
    "list --nope",
    "state c --root /x",
    "exec",
    "features x",
    "kill a b c",
    "run --detach=yes c",
]


def by_click(words: list[str]) -> tuple[dict[str, Any], str, dict[str, Any]]:
    seen: list[tuple[dict[str, Any], str, dict[str, Any]]] = []

    def note(*line: Any) -> int:
        seen.append(line)
        return 0

    group(note).main(words, "rootless-oci", standalone_mode=False)
    return seen[0]


@pytest.mark.parametrize("line", LINES)
def test_both_parsers_agree(line: str) -> None:
    assert flags.parse(line.split()) == by_click(line.split())


@pytest.mark.parametrize("line", FAULTY)
def test_faulty_lines_go_to_click(line: str) -> None:
    assert flags.parse(line.split()) is None
    with pytest.raises((click.ClickException, click.exceptions.Exit, IndexError)):
        by_click(line.split())


def test_help_of_every_flag_ends_as_a_sentence() -> None:
    for flag in [*flags.GLOBAL, *(f for verb in flags.VERBS.values() for f in verb.flags)]:
        assert flag.help.endswith("."), flag.names


@pytest.mark.parametrize(
    ("word", "number"), [("9", 9), ("KILL", 9), ("SIGTERM", 15), ("sigterm", 15), ("RTMIN+3", 37), ("RTMAX-1", 63)]
)
def test_signals(word: str, number: int) -> None:
    assert signal_number(word) == number


@pytest.mark.parametrize("word", ["", "SIG", "NOPE", "65", "-9", "RTMIN-1", "RTMIN+x", "SIG_DFL", "_DFL", "٩"])
def test_no_signals(word: str) -> None:
    with pytest.raises(UsageError):
        signal_number(word)


@pytest.mark.parametrize(("text", "ids"), [("0", (0, 0)), ("33", (33, 0)), ("33:44", (33, 44))])
def test_users(text: str, ids: tuple[int, int]) -> None:
    assert parse_user(text) == ids


def test_ids() -> None:
    for name in ("c", "a.b_c-d+e", "0", "_x"):
        assert check_id(name) == name
    for name in ("", ".", "..", "a/b", "-a", ".a", "a b", "a\n", "ü"):
        with pytest.raises(UsageError):
            check_id(name)


@pytest.mark.parametrize("words", [["features"], ["--version"]])
def test_what_standard_output_does_not_take_is_an_error(words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*oci_command_path(), *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "No space left on device" in done.stderr
