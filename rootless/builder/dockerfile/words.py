"""Words of one instruction: flags in front, quoted words, JSON arrays, heredoc marks. Pure; nothing is expanded here.

The rules are those of BuildKit's line parsers: where they look odd (quotes are kept in words and stripped by the later
expansion, flags lose theirs at once), images exist that depend on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from rootless.builder.dockerfile.problems import DockerfileError, Place, did_you_mean

# what Go's unicode.IsSpace takes for white space
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_BETWEEN = re.compile(r"[\t\v\f\r ]+")
_GAP = "\t\n\f\r "  # may stand between `<<` and the name
_HEREDOC = re.compile(rf"([0-9]*)<<(-?)([{_GAP}]*)([^<]*)", re.ASCII)
_OPENER = re.compile(r"(\\*)(<+)\Z")
_JSON_DEPTH = 64


class NotStrings(ValueError):
    """A JSON array with something in it that is not a string."""


class HeredocMark(NamedTuple):
    """A word `<<NAME`: `is_expanded` is False when NAME was quoted, `strips_tabs` is True for `<<-`. is_parted: there
    is a space in front of NAME."""

    name: str
    is_expanded: bool
    strips_tabs: bool
    is_parted: bool


def split_head(line: str) -> tuple[str, str]:
    """The first word of `line` and the rest."""
    parts = _BETWEEN.split(line.strip(SPACES), maxsplit=1)
    return parts[0], parts[1] if len(parts) == 2 else ""


def split_plain(rest: str) -> list[str]:
    """Words between white space; quotes mean nothing here."""
    return _BETWEEN.split(rest) if rest else []


def split_flags(rest: str) -> tuple[list[str], str]:
    """The words with `--` at the start of `rest`, quotes and backslashes resolved, and what follows them."""
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
    """One flag that begins at `at`, and where it ends."""
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
    """Words between white space outside quotes. Quotes and escapes stay in the words; an open quote runs to the end."""
    words: list[str] = []
    word: list[str] = []
    quote = ""
    at, end = 0, len(rest)
    while at < end:
        character = rest[at]
        at += 1
        if character == escape and quote != "'":
            if at < end:  # an escape at the very end is dropped
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
    """The strings of a JSON array; None when `rest` is no JSON array. Raises NotStrings."""
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
    """How many brackets open outside of strings."""
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
    """Lone surrogates (`\\ud800`) become the replacement character, as in Go."""
    return word.encode("utf-8", "replace").decode() if any("\ud800" <= c <= "\udfff" for c in word) else word


def heredoc_mark(word: str) -> HeredocMark | None:
    """What `<<EOF`, `<< EOF`, `<<-EOF`, `3<<"EOF"` asks for; None for any other word."""
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
    """Every heredoc that `line` opens, in order. A line with an open quote opens none."""
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
    # a backslash takes the first `<` away; the others are read in pairs
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
        """The value, "" when not given."""
        return self._texts.get(name, "")

    def boolean(self, name: str) -> bool:
        """The value, False when not given."""
        return self._booleans.get(name, False)

    def maybe(self, name: str) -> bool | None:
        """The value, None when not given."""
        return self._booleans.get(name)

    def list(self, name: str) -> tuple[str, ...]:
        """Every value of a flag that may be repeated."""
        return tuple(self._lists.get(name, ()))
