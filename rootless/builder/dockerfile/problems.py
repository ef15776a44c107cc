"""What is wrong with a Dockerfile, and on which line. Nothing is printed here, and no file is read."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable
from typing import NamedTuple

from rootless.errors import UsageError

_SHOWN_LINES = 6
_SHOWN_WIDTH = 200
# A comparison costs microseconds, and more for long words: a Dockerfile may have a million of them
_LONGEST_WORD = 64
_MOST_WORDS = 500


class Place(NamedTuple):
    """Where an instruction stands: lines `first` to `last` (from 1) of `filename`, and their `text` as written.

    `joined` is the instruction as one line: continuations taken together, comments between them and heredocs left out.
    `comments` are the comment lines directly above it, without their `#`: an empty line above it parts it from them.
    """

    filename: str
    first: int
    last: int
    text: str
    joined: str = ""
    comments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.filename}:{self.first}"


class DockerfileError(UsageError):
    """A Dockerfile that breaks the reference, at `place`; `excerpt` shows the offending lines with their numbers."""

    def __init__(self, place: Place, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{place}: {problem}", hint=hint)
        self.place = place
        self.problem = problem
        self.excerpt = excerpt(place)


def excerpt(place: Place) -> str:
    """The lines of `place` with their numbers, the first one marked; a long instruction is cut."""
    lines = [one.removesuffix("\r") for one in place.text.split("\n")]
    shown = [
        f"{'>' if at == 0 else ' '} {place.first + at:4d} | {text[:_SHOWN_WIDTH]}\n"
        for at, text in enumerate(lines[:_SHOWN_LINES])
    ]
    if len(lines) > _SHOWN_LINES:
        shown.append("       | ...\n")
    return "".join(shown)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message, ` (did you mean RUN?)`, or "" when no word of `known` is like `word`.

    Only the first 500 words of `known` are compared, and none that is longer than 64 characters.
    """
    words = list(itertools.islice((each for each in known if len(each) <= _LONGEST_WORD), _MOST_WORDS))
    near = difflib.get_close_matches(word[:_LONGEST_WORD], words, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""
