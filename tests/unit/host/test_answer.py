"""host.answer: an error keeps what the user sees of it on its way over a pipe, and no bytes make anything else."""

from __future__ import annotations

import errno
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless import errors
from rootless.errors import CommandNotFound, DigestMismatch, HostLimit, RootlessError, RuntimeFailure, UsageError
from rootless.host import answer

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RootlessError)]


def through(error: BaseException) -> RootlessError | OSError:
    return answer.error_from_json(json.loads(json.dumps(answer.error_to_json(error))))


@given(st.sampled_from(CLASSES), st.text(), st.none() | st.text())
def test_every_class_comes_back_with_message_hint_and_exit_status(
    kind: type[RootlessError], message: str, hint: str | None
) -> None:
    error = through(kind(message, hint=hint))
    assert isinstance(error, RootlessError)
    assert (type(error), error.message, error.hint, error.exit_code) == (kind, message, hint, kind.exit_code)


def test_an_exit_status_of_its_own_comes_back() -> None:
    error = RuntimeFailure("a step failed")
    error.exit_code = 42
    found = through(error)
    assert isinstance(found, RuntimeFailure)
    assert found.exit_code == 42


def test_a_class_from_elsewhere_comes_back_as_its_nearest_parent_of_the_tree() -> None:
    class Special(UsageError):
        pass

    assert type(through(Special("no"))) is UsageError


@pytest.mark.parametrize("name", [None, "/a/b", b"/a/\xff", 7])
def test_a_system_error_comes_back_with_number_and_name(name: str | bytes | int | None) -> None:
    error = through(OSError(errno.ENOENT, os.strerror(errno.ENOENT), name))
    assert isinstance(error, FileNotFoundError)
    assert error.strerror == os.strerror(errno.ENOENT)
    assert error.filename == (os.fsdecode(name) if isinstance(name, (str, bytes)) else None)


def test_an_error_of_ours_comes_back_as_its_trace() -> None:
    error = through(KeyError("uid"))
    assert type(error) is RootlessError
    assert "KeyError: 'uid'" in error.message


def test_results_and_errors_are_told_apart_whatever_they_hold() -> None:
    assert answer.decode_answer(answer.encode_result(b"-")) == b"-"
    assert answer.decode_answer(answer.encode_result(b"")) == b""
    with pytest.raises(DigestMismatch, match="other bytes"):
        answer.decode_answer(answer.encode_error(DigestMismatch("other bytes")))


def test_no_answer_is_an_error_that_the_caller_may_word() -> None:
    with pytest.raises(HostLimit, match="was killed"):
        answer.decode_answer(b"")
    with pytest.raises(HostLimit, match="memory"):
        answer.decode_answer(b"", HostLimit("memory"))


def test_a_forked_child_answers() -> None:
    def fail() -> bytes:
        raise CommandNotFound("no such command", hint="look")

    assert answer.fork_and_read(lambda: b"x" * 200_000) == b"x" * 200_000
    with pytest.raises(CommandNotFound, match="no such command"):
        answer.fork_and_read(fail)
    with pytest.raises(HostLimit, match="killed"):
        answer.fork_and_read(lambda: os.kill(os.getpid(), 9) or b"")


def test_an_answer_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "LIMIT", 1000)
    with pytest.raises(HostLimit, match="longer than 1000 bytes"):
        answer.fork_and_read(lambda: b"x" * 2000)


@pytest.mark.parametrize("word", ["annotations", "Exception", "__name__", "SystemExit", "", "no such", None, 3, ["x"]])
def test_only_classes_of_the_tree_are_made(word: object) -> None:
    error = answer.error_from_json({"class": word, "message": "m", "hint": None})
    assert type(error) is RuntimeFailure
    assert error.message == "m"


@pytest.mark.parametrize("status", [0, 256, -1, "3", None, 10**30])
def test_an_exit_status_is_that_of_a_failure(status: object) -> None:
    error = answer.error_from_json({"class": "HostLimit", "message": "m", "hint": None, "exit_code": status})
    assert isinstance(error, HostLimit)
    assert error.exit_code == 125


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
fields = st.sampled_from(["class", "message", "hint", "errno", "strerror", "filename", "exit_code"])


@given(values | st.dictionaries(fields, values | st.sampled_from(dir(errors))))
def test_every_value_makes_an_error(value: object) -> None:
    assert isinstance(answer.error_from_json(value), RootlessError | OSError)


@given(st.binary() | values.map(lambda value: b"-" + json.dumps(value).encode()))
def test_hostile_bytes_are_a_result_or_an_error_of_the_tree(content: bytes) -> None:
    try:
        assert answer.decode_answer(content) == content[1:]
        assert content[:1] == b"+"
    except (RootlessError, OSError):
        pass


@pytest.mark.parametrize("content", [b"-" + b"[" * 100_000, b'-{"errno": ' + b"9" * 5000 + b"}", b"-\xff", b"-3", b"?"])
def test_what_is_no_json_object_is_a_failure(content: bytes) -> None:
    with pytest.raises(RuntimeFailure, match="not an answer"):
        answer.decode_answer(content)
