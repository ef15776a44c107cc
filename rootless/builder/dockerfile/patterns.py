r"""The patterns of `${name#pattern}` and its kin: `*` and `?`, no brackets. Pure.

They come from a file that may be hostile: matching is a simulation of all states at once, never a backtracking search,
and a budget bounds what one expansion may cost.
"""

from __future__ import annotations

_BUDGET = 4 << 20  # characters looked at by one replacement
MAX_PATTERN = 4096


class Pattern:
    """A compiled pattern. Raises ValueError (with the words for the user) for one that is malformed or too long."""

    __slots__ = ("_accepting", "_any", "_literals", "_stars", "_start")

    def __init__(self, text: str, *, is_reversed: bool = False) -> None:
        if len(text) > MAX_PATTERN:
            raise ValueError(f"a pattern longer than {MAX_PATTERN} characters")
        parts = _parts(text)
        if is_reversed:
            parts.reverse()
        self._literals: dict[str, int] = {}
        self._any = self._stars = 0
        for at, part in enumerate(parts):
            if part == "*":
                self._stars |= 1 << at
            elif part == "?":
                self._any |= 1 << at
            else:
                literal = part[-1]
                self._literals[literal] = self._literals.get(literal, 0) | 1 << at
        self._accepting = 1 << len(parts)
        self._start = self._closure(1)

    def _closure(self, states: int) -> int:
        """A star may match nothing (two stars never stand side by side)."""
        return states | (states & self._stars) << 1

    def ends(self, value: str, begin: int = 0) -> tuple[int, int, int]:
        """(shortest, longest, looked at): where a match that begins at `begin` may end, -1 for none."""
        shortest = longest = begin if self._start & self._accepting else -1
        states = self._start
        at = begin
        while at < len(value):
            character = value[at]
            moving = self._literals.get(character, 0)
            staying = 0
            if character != "\n":  # as in Go, whose `.` matches no line end
                moving |= self._any
                staying = states & self._stars
            states = self._closure(staying | (states & moving) << 1)
            at += 1
            if not states:
                break
            if states & self._accepting:
                longest = at
                if shortest < 0:
                    shortest = at
        return shortest, longest, at - begin


def _parts(text: str) -> list[str]:
    r"""`*`, `?` and literals (as `=c`). `\*`, `\?`, `\\` are literals; `\}` and `\/` hid the character from `${}`."""
    parts: list[str] = []
    at = 0
    while at < len(text):
        character = text[at]
        at += 1
        if character == "*":
            if parts[-1:] != ["*"]:
                parts.append("*")
        elif character == "?":
            parts.append("?")
        elif character == "\\":
            following = text[at : at + 1]
            if following in ("}", "/"):
                continue
            if following not in ("*", "?", "\\") or not following:
                raise ValueError(f"invalid escape '\\{following}'")
            parts.append(f"={following}")
            at += 1
        else:
            parts.append(f"={character}")
    return parts


def without_prefix(value: str, pattern: str, *, is_greedy: bool) -> str:
    """`${value#pattern}`, `##` when greedy. Raises ValueError."""
    shortest, longest, _ = Pattern(pattern).ends(value)
    end = longest if is_greedy else shortest
    return value[end:] if end > 0 else value


def without_suffix(value: str, pattern: str, *, is_greedy: bool) -> str:
    """`${value%pattern}`, `%%` when greedy. Raises ValueError."""
    backwards = value[::-1]
    shortest, longest, _ = Pattern(pattern, is_reversed=True).ends(backwards)
    end = longest if is_greedy else shortest
    return backwards[end:][::-1] if end > 0 else value


def replace(value: str, pattern: str, replacement: str, *, is_all: bool) -> str:
    """`${value/pattern/replacement}`, `//` for all: leftmost, longest matches. Raises ValueError."""
    compiled = Pattern(pattern)
    parts: list[str] = []
    at = copied = 0
    last_end = -1
    budget = _BUDGET
    while at <= len(value):
        _, end, looked = compiled.ends(value, at)
        budget -= looked + 1
        if budget < 0:
            raise ValueError("a replacement that takes too long")
        if end < 0 or (end == at == last_end):  # an empty match right after a match does not count, as in Go
            at += 1
            continue
        parts += [value[copied:at], replacement]
        copied = last_end = end
        if not is_all:
            break
        at = end if end > at else at + 1
    parts.append(value[copied:])
    return "".join(parts)
