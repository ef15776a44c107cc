r"""Go's filepath.Match patterns, and docker's with `**`, over paths with slashes. Pure.

`*` and `?` match no slash, `[a-z]` and `[^a]` are classes, `\c` is the character c. Docker adds `**` for any number of
directories. The patterns and the names may both be hostile. A backtracking search takes as many steps as the name's
length to the power of the number of stars: where that is much, a simulation of all states at once takes its place.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_PATTERN = 4096
# How long a name may be for a backtracking search, by the number of stars in the pattern, so that the search takes
# about a million steps at most
_LONGEST_NAME = {0: 1 << 20, 1: 1 << 20, 2: 1000, 3: 100}
_WILD = frozenset("*?[\\")

LITERAL, ANY, STAR, ALL, DIRECTORIES, CLASS = "literal", "any", "star", "all", "directories", "class"


class Part(NamedTuple):
    """A piece of a pattern.

    kind: one of the constants above; text: the character of a literal, or the pairs of first and last characters of a
    class.
    """

    kind: str
    text: str = ""
    is_negated: bool = False


def has_wildcard(text: str) -> bool:
    """Whether `text` has a character that means more than itself in a pattern."""
    return not _WILD.isdisjoint(text)


def split(pattern: str, *, is_docker: bool = False) -> list[Part]:
    """The parts of a pattern. is_docker: whether `**` has docker's meaning.

    Raises ValueError for a malformed pattern.
    """
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"a pattern longer than {MAX_PATTERN} characters")
    parts: list[Part] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        if is_docker and pattern.startswith("**", at):
            part, at = _stars(pattern, at)
        elif character == "[":
            part, at = _class(pattern, at + 1)
        elif character == "\\":
            if at + 1 == len(pattern):
                raise ValueError("it ends with a backslash")
            part, at = Part(LITERAL, pattern[at + 1]), at + 2
        else:
            part, at = {"*": Part(STAR), "?": Part(ANY)}.get(character, Part(LITERAL, character)), at + 1
        if not (part.kind in (STAR, ALL, DIRECTORIES) and parts[-1:] == [part]):
            parts.append(part)
    return parts


def _stars(pattern: str, at: int) -> tuple[Part, int]:
    """The part that `**` at `at` is, and where it ends.

    `**` at the end matches everything, `**/` any number of directories. So does `**` before a name, but for one oddity
    of docker's that is kept: a leading `**name` without further wildcards matches whatever ends in name.
    """
    end = at + 2
    rest = pattern[end:]
    if rest.startswith("/"):
        end += 1
    if end == len(pattern):
        return Part(ALL), end
    if at == 0 and not rest.startswith("/") and not has_wildcard(rest):
        return Part(ALL), end
    return Part(DIRECTORIES), end


def _class(pattern: str, at: int) -> tuple[Part, int]:
    """The class that begins behind a `[` at `at`, and where it ends."""
    is_negated = pattern.startswith("^", at)
    at += is_negated
    ranges: list[str] = []
    while True:
        if pattern.startswith("]", at) and ranges:
            return Part(CLASS, "".join(ranges), is_negated), at + 1
        low, at = _member(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _member(pattern, at + 1)
        ranges += [low, high]


def _member(pattern: str, at: int) -> tuple[str, int]:
    character = pattern[at : at + 1]
    if character == "\\":
        at += 1
        character = pattern[at : at + 1]
    elif character and character in "-]":
        raise ValueError(f"'{character}' stands alone in a class")
    if not character:
        raise ValueError("a '[' without ']'")
    return character, at + 1


class Wildcard:
    """A compiled pattern. Raises ValueError for a malformed one.

    longest: how long a name may be, in characters, for which the regular expression is used; 0 for none.
    """

    __slots__ = ("_parts", "_regex", "_states", "longest", "text")

    def __init__(self, text: str, *, is_docker: bool = False) -> None:
        self._parts = split(text, is_docker=is_docker)
        self.text = text
        self._states: _States | None = None
        self._regex: re.Pattern[str] | None = None
        stars = sum(part.kind in (STAR, ALL, DIRECTORIES) for part in self._parts)
        self.longest = _LONGEST_NAME.get(stars, 0)
        if self.longest:
            self._regex = re.compile("".join(map(_regex, self._parts)), re.DOTALL)

    @property
    def regex(self) -> str | None:
        """The pattern as a regular expression; None when it would be too slow as one, for any name."""
        return self._regex.pattern if self._regex is not None else None

    def fullmatch(self, name: str) -> bool:
        """Whether the whole of `name` matches."""
        if self._regex is not None and len(name) <= self.longest:
            return self._regex.fullmatch(name) is not None
        if self._states is None:
            self._states = _States(self._parts)
        return self._states.fullmatch(name)


def _regex(part: Part) -> str:
    if part.kind == LITERAL:
        return re.escape(part.text)
    if part.kind == CLASS:
        pairs = [part.text[at : at + 2] for at in range(0, len(part.text), 2)]
        kept = [f"{_escaped(pair[0])}-{_escaped(pair[1])}" for pair in pairs if pair[0] <= pair[1]]
        if not kept:  # the class has empty ranges only, as [z-a], and so no characters
            return "." if part.is_negated else "(?!)"
        return f"[{'^' if part.is_negated else ''}{''.join(kept)}]"
    return {ANY: "[^/]", STAR: "[^/]*", ALL: ".*", DIRECTORIES: "(?:.*/)?"}[part.kind]


def _escaped(character: str) -> str:
    return f"\\{character}" if character in "\\]^-[&~|" else character


class _States:
    """A matcher that follows all ways through the pattern at once: the positions reached are the bits of one number.

    Each character of a name costs one step over the whole pattern, whatever the name and the pattern are.
    """

    __slots__ = ("_any", "_final", "_jumps", "_masks", "_parts", "_stars", "_start")

    def __init__(self, parts: list[Part]) -> None:
        # DIRECTORIES, which is (.*/)?, has three positions: one where all of it may be jumped over, one that takes any
        # character, and one that takes the slash
        flat: list[Part] = []
        self._any = self._stars = self._jumps = 0
        for part in parts:
            bit = 1 << len(flat)
            if part.kind == DIRECTORIES:
                self._jumps |= bit
                self._any |= bit << 1
                flat += [part, Part(ALL), Part(LITERAL, "/")]
                continue
            if part.kind == ALL:
                self._any |= bit
            elif part.kind == STAR:
                self._stars |= bit
            flat.append(part)
        self._parts = flat
        self._final = 1 << len(flat)
        self._masks: dict[str, int] = {}
        self._start = self._closure(1)

    def _closure(self, states: int) -> int:
        while True:
            free = self._any | self._stars | self._jumps
            more = states | ((states & free) << 1) | ((states & self._jumps) << 3)
            if more == states:
                return states
            states = more

    def _mask(self, character: str) -> int:
        """The positions that take `character` and move on, as bits. A bounded number of characters is remembered."""
        mask = self._masks.get(character)
        if mask is None:
            mask = sum(1 << at for at, part in enumerate(self._parts) if _takes(part, character))
            if len(self._masks) < 1024:
                self._masks[character] = mask
        return mask

    def fullmatch(self, name: str) -> bool:
        states = self._start
        for character in name:
            staying = states & (self._any if character == "/" else self._any | self._stars)
            states = self._closure(staying | ((states & self._mask(character)) << 1))
            if not states:
                return False
        return bool(states & self._final)


def _takes(part: Part, character: str) -> bool:
    if part.kind == LITERAL:
        return part.text == character
    if part.kind == ANY:
        return character != "/"
    if part.kind == CLASS:
        found = any(part.text[at] <= character <= part.text[at + 1] for at in range(0, len(part.text), 2))
        return found != part.is_negated
    return False
