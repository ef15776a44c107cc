"""Words of one instruction: flags in front, quoted words, JSON arrays, heredoc marks. Pure; nothing is expanded here.

The rules are those of BuildKit's line parsers. Some look odd (words keep their quotes until the later expansion strips
them, flags lose theirs at once), and Dockerfiles exist that depend on them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from rootless.builder.dockerfile.problems import DockerfileError, Place, did_you_mean

# What Go's unicode.IsSpace takes for white space, which is neither what str.isspace nor what `\s` takes
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_BETWEEN = re.compile(r"[\t\v\f\r ]+")
_GAP = "\t\n\f\r "  # the characters that may stand between `<<` and the name
_HEREDOC = re.compile(rf"([0-9]*)<<(-?)([{_GAP}]*)([^<]*)", re.ASCII)
_OPENER = re.compile(r"(\\*)(<+)\Z")
_JSON_DEPTH = 64  # more brackets than these are no array of strings, and would exhaust the stack of Python's parser


class NotStrings(ValueError):
    """A JSON array with something in it that is not a string."""


class HeredocMark(NamedTuple):
    """A word `<<NAME`, which opens a heredoc.

    is_expanded: variables in the content are replaced, False when NAME was quoted; strips_tabs: it is `<<-`, which
    takes tabs away from the beginnings of lines; is_parted: a space stands in front of NAME.
    """

    name: str
    is_expanded: bool
    strips_tabs: bool
    is_parted: bool


def split_head(line: str) -> tuple[str, str]:
    """The first word of `line` and the rest, "" where there is none."""
    parts = _BETWEEN.split(line.strip(SPACES), maxsplit=1)
    return parts[0], parts[1] if len(parts) == 2 else ""


def split_plain(rest: str) -> list[str]:
    """The words between white space in `rest`, in which quotes mean nothing."""
    return _BETWEEN.split(rest) if rest else []


def split_flags(rest: str) -> tuple[list[str], str]:
    """(flags, what follows them): the words at the start of `rest` with `--`, without their quotes and backslashes.

    A word `--` alone ends the flags and is dropped.
    """
    flags: list[str] = []
    at, end = 0, len(rest)
    while True:
        while at < end and rest[at] in SPACES:
            at += 1
        if not rest.startswith("--", at):
            return flags, rest[at:].strip(SPACES)
        word, at = _flag(rest, at)
        if word == "--":
            return flags, rest[at:].strip(SPACES)
        flags.append(word)


def _flag(rest: str, at: int) -> tuple[str, int]:
    """The flag that begins at `at`, and the position behind it."""
    word: list[str] = []
    quote, end = "", len(rest)
    while at < end:
        character = rest[at]
        at += 1
        if character == "\\":
            if at < end:
                word.append(rest[at])
                at += 1
        elif quote:
            if character == quote:
                quote = ""
            else:
                word.append(character)
        elif character in "'\"":
            quote = character
        elif character in SPACES:
            break
        else:
            word.append(character)
    return "".join(word), at


def split_quoted(rest: str, escape: str) -> list[str]:
    """The words between white space outside of quotes.

    Quotes and escapes stay in them; an open quote runs to the end.
    """
    words: list[str] = []
    word: list[str] = []
    quote = ""
    at, end = 0, len(rest)
    while at < end:
        character = rest[at]
        at += 1
        if character == escape and quote != "'":
            if at < end:  # an escape at the very end has nothing to protect, and is dropped
                word += [character, rest[at]]
                at += 1
            continue
        if not quote and character in SPACES:
            if word:
                words.append("".join(word))
                word = []
            continue
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        word.append(character)
    if word:
        words.append("".join(word))
    return words


def json_strings(rest: str) -> list[str] | None:
    """The strings of a JSON array; None when `rest` is no JSON array, which makes an instruction's shell form of it.

    Raises NotStrings for an array with something else in it.
    """
    rest = rest.lstrip(SPACES)
    if not rest.startswith("["):
        return None
    if rest.count("[") + rest.count("{") > _JSON_DEPTH and _brackets(rest) > _JSON_DEPTH:
        return None
    try:
        found = json.loads(rest, parse_constant=_refuse, parse_int=len, parse_float=len)
    except ValueError:
        return None
    if not all(isinstance(word, str) for word in found):
        raise NotStrings
    return [_scalar(word) for word in found]


def _brackets(rest: str) -> int:
    """The number of brackets that open outside of strings, which is never less than the depth of nesting."""
    count, at, is_string = 0, 0, False
    while at < len(rest):
        character = rest[at]
        if character == '"':
            is_string = not is_string
        elif is_string and character == "\\":
            at += 1
        elif not is_string and character in "[{":
            count += 1
        at += 1
    return count


def _refuse(name: str) -> object:
    raise ValueError(name)  # NaN and Infinity are not JSON


def _scalar(word: str) -> str:
    """`word` with its lone surrogates (`\\ud800`) replaced, as by Go: UTF-8, in which execve gets it, has none."""
    return word.encode("utf-8", "replace").decode() if any("\ud800" <= c <= "\udfff" for c in word) else word


def heredoc_mark(word: str) -> HeredocMark | None:
    """The heredoc that a word such as `<<EOF`, `<< EOF`, `<<-EOF` or `3<<"EOF"` opens; None for any other word."""
    match = _HEREDOC.fullmatch(word)
    if match is None or not match[4]:
        return None
    name: list[str] = []
    quote, was_quoted = "", False
    rest, at = match[4], 0
    while at < len(rest):
        character = rest[at]
        at += 1
        if character == "\\" and quote != "'" and at < len(rest) and (not quote or rest[at] in '"$\\'):
            name.append(rest[at])
            at += 1
        elif quote:
            if character == quote:
                quote = ""
            else:
                name.append(character)
        elif character in "'\"":
            quote, was_quoted = character, True
        elif character in SPACES:
            return None
        elif character != "\\":
            name.append(character)
    if quote or not name:
        return None
    return HeredocMark("".join(name), not was_quoted, match[2] == "-", bool(match[3]))


def heredoc_marks(line: str) -> list[HeredocMark]:
    """The heredocs that `line` opens, in order. A line with an open quote opens none."""
    if "<<" not in line or _has_open_quote(line):
        return []
    words: list[str] = []
    for word in split_quoted(line, "\\"):
        if words and _awaits_name(words[-1]):
            words[-1] += f" {word}"
        else:
            words.append(word)
    marks = (heredoc_mark(word) for word in words)
    return [mark for mark in marks if mark is not None]


def _awaits_name(word: str) -> bool:
    """Whether `word` ends with a `<<` that takes the next word to itself, as BuildKit has it since 0.22: neither `<<-`
    nor `<<<` does."""
    match = _OPENER.search(word)
    if match is None:
        return False
    # An odd number of backslashes escapes the first `<`; the others are read in pairs
    return len(match[2]) > len(match[1]) % 2 and (len(match[2]) - len(match[1]) % 2) % 2 == 0


def _has_open_quote(line: str) -> bool:
    quote, at = "", 0
    while at < len(line):
        character = line[at]
        if character == "\\" and quote != "'":
            at += 1
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        at += 1
    return bool(quote)


TEXT, BOOLEAN, LIST = "text", "boolean", "list"

KNOWN: dict[str, dict[str, str]] = {
    "FROM": {"platform": TEXT},
    "RUN": {"mount": LIST, "network": TEXT, "security": TEXT},
    "COPY": {
        "from": TEXT,
        "chown": TEXT,
        "chmod": TEXT,
        "link": BOOLEAN,
        "parents": BOOLEAN,
        "exclude": LIST,
    },
    "ADD": {
        "checksum": TEXT,
        "chown": TEXT,
        "chmod": TEXT,
        "link": BOOLEAN,
        "keep-git-dir": BOOLEAN,
        "exclude": LIST,
        "unpack": BOOLEAN,
    },
    "HEALTHCHECK": {"interval": TEXT, "timeout": TEXT, "start-period": TEXT, "start-interval": TEXT, "retries": TEXT},
}


class Flags:
    """The flags of one instruction. Raises DockerfileError for unknown, repeated and malformed ones."""

    __slots__ = ("_booleans", "_lists", "_texts")

    def __init__(self, place: Place, instruction: str, words: Sequence[str]) -> None:
        self._texts: dict[str, str] = {}
        self._booleans: dict[str, bool] = {}
        self._lists: dict[str, list[str]] = {}
        known = KNOWN.get(instruction, {})
        for word in words:
            name, equals, value = word[2:].partition("=")
            kind = known.get(name)
            if kind is None:
                names = [f"--{one}" for one in known]
                hint = f"{instruction} takes {', '.join(names)}" if names else f"{instruction} takes no flags"
                near = did_you_mean(f"--{name}", names)
                raise DockerfileError(place, f"unknown flag '--{name}' of {instruction}{near}", hint=hint)
            if kind != LIST and (name in self._texts or name in self._booleans):
                raise DockerfileError(place, f"flag '--{name}' is given twice")
            if kind == BOOLEAN:
                if value.lower() not in ("", "true", "false") or (equals and not value):
                    raise DockerfileError(place, f"flag '--{name}' is true or false, not '{value}'")
                self._booleans[name] = value.lower() != "false"
            elif not equals:
                raise DockerfileError(place, f"flag '--{name}' needs a value", hint=f"write --{name}=VALUE")
            elif kind == TEXT:
                self._texts[name] = value
            else:
                self._lists.setdefault(name, []).append(value)

    def text(self, name: str) -> str:
        """The value of the flag `name`, "" when it is not given."""
        return self._texts.get(name, "")

    def is_given(self, name: str) -> bool:
        """Whether the text flag `name` is given, be it empty."""
        return name in self._texts

    def boolean(self, name: str) -> bool:
        """The value of the flag `name`, False when it is not given."""
        return self._booleans.get(name, False)

    def maybe(self, name: str) -> bool | None:
        """The value of the flag `name`, None when it is not given: False and its absence differ."""
        return self._booleans.get(name)

    def list(self, name: str) -> tuple[str, ...]:
        """The values of the flag `name`, which may be repeated, in order."""
        return tuple(self._lists.get(name, ()))
