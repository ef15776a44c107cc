"""`$name` and `${name…}` in one word, with quotes and escapes, as BuildKit's shell lexer does it. Pure.

The syntax looks like a shell's and is none: names are replaced once, no word is split, `~` and `*` mean nothing. The
text may be hostile: nesting, the size of the result and the cost of a replacement are bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rootless.builder.dockerfile.words import SPACES

MAX_RESULT = 1 << 20  # characters of all values in one word
MAX_DEPTH = 64  # of `${a:-${b:-...}}`, each level of which is a call in a call
_SPECIAL = "@*#?-$!0"


class ExpansionError(ValueError):
    """A word that cannot be expanded; the text says why."""


class Expansion:
    """The result of one word.

    text: all of it; words: it split at unquoted spaces; unset: the names without a value; undefined: those of them for
    which nothing stands in, as the default of `${name:-default}` does.
    """

    __slots__ = ("text", "undefined", "unset", "words")

    def __init__(self, text: str, words: list[str], unset: set[str], undefined: set[str]) -> None:
        self.text = text
        self.words = words
        self.unset = unset
        self.undefined = undefined


def expand(word: str, variables: Mapping[str, str], *, escape: str = "\\", is_raw: bool = False) -> Expansion:
    """`word` with its variables replaced. Raises ExpansionError.

    escape: the Dockerfile's escape character; is_raw: quotes are characters like any other, as in a heredoc.
    """
    lexer = _Lexer(word, variables, escape, is_raw)
    text, words = lexer.until("", keeps_escapes=False)
    return Expansion(text, words, lexer.unset, lexer.undefined)


class _Lexer:
    def __init__(self, word: str, variables: Mapping[str, str], escape: str, is_raw: bool) -> None:
        self._word = word
        self._at = 0
        self._variables = variables
        self._escape = escape
        self._is_raw = is_raw
        self._depth = 0
        self._spent = 0
        self.unset: set[str] = set()
        self.undefined: set[str] = set()

    def until(self, stop: str, *, keeps_escapes: bool) -> tuple[str, list[str]]:
        """(text, words) up to the character `stop`, which is taken too; "" means up to the end. Raises ExpansionError.

        keeps_escapes: whether escapes stay in the text, as for a pattern, in which they protect `*` and `?`.
        """
        parts: list[str] = []
        words = _Words()
        while self._at < len(self._word):
            character = self._word[self._at]
            if stop and character == stop:
                self._at += 1
                return "".join(parts), words.finish()
            if character == "$":
                piece = self._dollar()
                words.add(piece)
            elif character in "'\"" and not self._is_raw:
                piece = self._single() if character == "'" else self._double(keeps_escapes)
                words.add_quoted(piece)
            elif character == self._escape:
                piece = self._escaped(keeps_escapes)
                words.add_quoted(piece)
            else:
                self._at += 1
                piece = character
                words.add(piece)
            parts.append(piece)
        if stop:
            raise ExpansionError(f"syntax error: missing '{stop}'")
        return "".join(parts), words.finish()

    def _escaped(self, keeps_escapes: bool) -> str:
        """The character that an escape outside of quotes protects, with the escape if that is kept.

        An escape at the very end protects nothing, and vanishes unless it is kept.
        """
        pair = self._word[self._at : self._at + 2]
        self._at += 2
        return pair if keeps_escapes else pair[1:]

    def _single(self) -> str:
        end = self._word.find("'", self._at + 1)
        if end < 0:
            raise ExpansionError("unexpected end of statement while looking for matching single-quote")
        begin, self._at = self._at + 1, end + 1
        return self._word[begin:end]

    def _double(self, keeps_escapes: bool) -> str:
        self._at += 1
        parts: list[str] = []
        while self._at < len(self._word):
            character = self._word[self._at]
            if character == '"':
                self._at += 1
                return "".join(parts)
            if character == "$":
                parts.append(self._dollar())
                continue
            self._at += 1
            if character == self._escape:
                if keeps_escapes:
                    parts.append(character)
                following = self._word[self._at : self._at + 1]
                if not following:
                    break
                if following in ('"', "$", self._escape):
                    character = following
                    self._at += 1
            parts.append(character)
        raise ExpansionError("unexpected end of statement while looking for matching double-quote")

    def _dollar(self) -> str:
        self._at += 1
        if not self._word.startswith("{", self._at):
            name = self._name()
            return self._spend(self._defined(name)) if name else "$"
        self._at += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpansionError(f"substitutions nested more than {MAX_DEPTH} deep")
        result = self._braces()
        self._depth -= 1
        return self._spend(result)

    def _spend(self, result: str) -> str:
        """Count the length of `result`, which may hold other variables' values many times over: a few lines could grow
        to any size. Raises ExpansionError."""
        self._spent += len(result)
        if self._spent > MAX_RESULT:
            raise ExpansionError(f"a value longer than {MAX_RESULT >> 20} MiB")
        return result

    def _braces(self) -> str:
        """The value of a substitution whose `${` was taken; its `}` is taken too. Raises ExpansionError."""
        following = self._word[self._at : self._at + 1]
        if not following:
            raise ExpansionError("syntax error: missing '}'")
        if following in "{}:":
            raise ExpansionError("syntax error: bad substitution")
        name = self._name()
        modifier = self._take()
        value, is_set = self._value(name)
        if modifier == "}":
            return self._defined(name)
        if modifier == "/":
            return self._replaced(self._defined(name))
        if modifier == ":":
            following = self._take()
            modifier += following
            is_set = is_set and (value != "" or following not in "-+?")
        operator = modifier[-1:]
        if not operator or operator not in "+-?#%":
            raise ExpansionError(f"unsupported modifier ({modifier}) in substitution")
        word, _ = self.until("}", keeps_escapes=operator in "#%")
        if operator == "-":
            return value if is_set else word
        if operator == "+":
            return word if is_set else ""
        if operator == "?":
            if not is_set:
                problem = "is not allowed to be empty" if modifier == ":?" and name not in self.unset else ""
                raise ExpansionError(f"{name}: {word or problem or 'is not allowed to be unset'}")
            return value
        value = self._defined(name)
        is_greedy = word.startswith(operator)
        trim = _without_prefix if operator == "#" else _without_suffix
        return self._matched(lambda: trim(value, word[is_greedy:], is_greedy=is_greedy))

    def _replaced(self, value: str) -> str:
        is_all = self._word.startswith("/", self._at)
        self._at += is_all
        pattern, _ = self.until("/", keeps_escapes=True)
        replacement, _ = self.until("}", keeps_escapes=True)
        return self._matched(lambda: _replace(value, pattern, replacement, is_all=is_all))

    @staticmethod
    def _matched(match: Callable[[], str]) -> str:
        try:
            return match()
        except ValueError as e:
            raise ExpansionError(f"{e} in substitution") from None

    def _take(self) -> str:
        self._at += 1
        return self._word[self._at - 1 : self._at]

    def _name(self) -> str:
        """The name at this position: letters, digits and `_`, or digits alone, or one special character, or ""."""
        begin = self._at
        first = self._word[begin : begin + 1]
        if first.isdecimal():
            while self._word[self._at : self._at + 1].isdecimal():
                self._at += 1
            return self._word[begin : self._at]
        if first and first in _SPECIAL:
            self._at += 1
            return first
        while self._at < len(self._word) and (self._word[self._at].isalpha() or self._word[self._at].isdecimal()
                                              or self._word[self._at] == "_"):  # fmt: skip
            self._at += 1
        return self._word[begin : self._at]

    def _defined(self, name: str) -> str:
        """The value of `name`, which is noted as undefined where it has none."""
        value, is_set = self._value(name)
        if not is_set:
            self.undefined.add(name)
        return value

    def _value(self, name: str) -> tuple[str, bool]:
        value = self._variables.get(name)
        if value is None:
            self.unset.add(name)
        return value or "", value is not None


class _Words:
    """Splits a text at its unquoted white space, while the text is put together."""

    __slots__ = ("_word", "_words")

    def __init__(self) -> None:
        self._words: list[str] = []
        self._word: list[str] = []

    def add(self, text: str) -> None:
        for character in text:
            if character in SPACES:
                if self._word:
                    self._close()
            else:
                self._word.append(character)

    def add_quoted(self, text: str) -> None:
        if text:
            self._word.append(text)

    def _close(self) -> None:
        self._words.append("".join(self._word))
        self._word = []

    def finish(self) -> list[str]:
        if self._word:
            self._close()
        return self._words


_BUDGET = 4 << 20  # characters that one replacement may look at
MAX_PATTERN = 4096


class Pattern:
    """A compiled pattern of `${name#pattern}` and its kin: `*` and `?`, no brackets.

    The pattern comes from a file that may be hostile. So all ways through it are followed at once, where a backtracking
    search could take exponential time, and a budget bounds what one replacement may cost. Raises ValueError, whose text
    is for the user, for a pattern that is malformed or too long.
    """

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
        """`states` with those behind their stars, which may match nothing. Two stars never stand side by side."""
        return states | (states & self._stars) << 1

    def ends(self, value: str, begin: int = 0) -> tuple[int, int, int]:
        """(shortest end, longest end, characters looked at) of the matches that begin at `begin`; -1 is no end."""
        shortest = longest = begin if self._start & self._accepting else -1
        states = self._start
        at = begin
        while at < len(value):
            character = value[at]
            moving = self._literals.get(character, 0)
            staying = 0
            if character != "\n":  # BuildKit makes a Go regular expression of it, whose `.` matches no line end
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
    r"""The parts of a pattern: `*`, `?` and literals (as `=c`). Raises ValueError for an escape that means nothing.

    `\*`, `\?` and `\\` are literals; of `\}` and `\/` the escape hid the character from the end of `${}`, and is
    dropped.
    """
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


def _without_prefix(value: str, pattern: str, *, is_greedy: bool) -> str:
    """The value of `${value#pattern}`, or of `##` when greedy, which takes the longest match away.

    Raises ValueError.
    """
    shortest, longest, _ = Pattern(pattern).ends(value)
    end = longest if is_greedy else shortest
    return value[end:] if end > 0 else value


def _without_suffix(value: str, pattern: str, *, is_greedy: bool) -> str:
    """The value of `${value%pattern}`, or of `%%` when greedy, which takes the longest match away.

    Raises ValueError.
    """
    backwards = value[::-1]
    shortest, longest, _ = Pattern(pattern, is_reversed=True).ends(backwards)
    end = longest if is_greedy else shortest
    return backwards[end:][::-1] if end > 0 else value


def _replace(value: str, pattern: str, replacement: str, *, is_all: bool) -> str:
    """The value of `${value/pattern/replacement}`, or of `//` where `is_all`, by leftmost, longest matches.

    Raises ValueError for a malformed pattern, and for a replacement that would take too long.
    """
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
