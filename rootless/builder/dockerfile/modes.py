"""--chmod of COPY and ADD: octal or symbolic modes as chmod(1) has them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from rootless.errors import UsageError

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXst]*|[-+=][ugo])+)", re.ASCII)
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)", re.ASCII)
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007, "a": 0o7777}
_SHIFT = {"u": 6, "g": 3, "o": 0}

Change = Callable[[int, bool], int]


def parse_chmod(text: str) -> Change:
    """The change that the text of a --chmod asks for: a function of (mode, is directory) that returns the new mode.

    Raises UsageError.
    """
    if re.fullmatch(r"[0-7]{1,5}", text, re.ASCII) and int(text, 8) <= 0o7777:
        number = int(text, 8)
        return lambda mode, is_directory: number
    clauses = []
    for clause in text.split(","):
        found = _CLAUSE.fullmatch(clause)
        if found is None:
            raise UsageError(f"invalid --chmod '{text}'", hint="write an octal mode such as 0755, or u+rwX,go-w")
        clauses.append((found[1] or "a", _ACTION.findall(found[2])))

    def change(mode: int, is_directory: bool) -> int:
        for who, actions in clauses:
            for operator, permissions in actions:
                mode = _apply(mode, who, operator, permissions, is_directory)
        return mode

    return change


def _apply(mode: int, who: str, operator: str, permissions: str, is_directory: bool) -> int:
    everybody = "ugo" if "a" in who else who
    mask = 0
    for one in everybody:
        mask |= _WHO[one]
    bits = 0
    if permissions in _SHIFT and permissions:
        copied = mode >> _SHIFT[permissions] & 7
        for one in everybody:
            bits |= copied << _SHIFT[one]
    else:
        for letter in permissions:
            for one in everybody:
                bits |= _bit(letter, one, mode, is_directory)
        if "t" in permissions:
            bits |= 0o1000
            mask |= 0o1000
    if operator == "+":
        return mode | bits
    if operator == "-":
        return mode & ~bits
    return mode & ~mask | bits


def _bit(letter: str, who: str, mode: int, is_directory: bool) -> int:
    if letter == "s":
        return {"u": 0o4000, "g": 0o2000, "o": 0}[who]
    if letter == "t":
        return 0
    if letter == "X":
        if not (is_directory or mode & 0o111):
            return 0
        letter = "x"
    return {"r": 4, "w": 2, "x": 1}[letter] << _SHIFT[who]
