"""A Dockerfile's bytes become logical lines: directives, comments, continuations, heredocs.

Nothing is known here of the arguments of instructions, but for which instructions may open heredocs. A Dockerfile is
hostile input (it may come from a repository that is built without being read), and so every size is bounded.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rootless.builder.dockerfile import check_options
from rootless.builder.dockerfile.instructions import Directives, Heredoc
from rootless.builder.dockerfile.problems import DockerfileError, Place
from rootless.builder.dockerfile.words import (
    SPACES,
    HeredocMark,
    NotStrings,
    heredoc_marks,
    json_strings,
    split_flags,
    split_head,
)

MAX_BYTES = 4 << 20
MAX_LINES = 100_000
MAX_HEREDOCS = 256  # of one instruction

# The pattern is for a line whose spaces at the end were stripped
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(\S.*)", re.ASCII)
_HEREDOC_INSTRUCTIONS = ("RUN", "COPY", "ADD")


class LogicalLine(NamedTuple):
    """One instruction. place: where it stands, with its text on one line as `joined`; heredocs: those behind it."""

    place: Place
    heredocs: tuple[Heredoc, ...]


class Lines(NamedTuple):
    """The parts of a Dockerfile. remarks: places and problems of style, which `checks` makes warnings of."""

    directives: Directives
    instructions: tuple[LogicalLine, ...]
    remarks: tuple[tuple[Place, str], ...]


def read(content: bytes | str, filename: str) -> Lines:
    """Split a Dockerfile into directives and logical lines. Raises DockerfileError."""
    text = _decode(content, filename)
    lines = text.split("\n")
    if len(lines) > MAX_LINES:
        raise DockerfileError(Place(filename, MAX_LINES, MAX_LINES, ""), f"more than {MAX_LINES} lines")
    return _Reader(lines, filename).read()


def _decode(content: bytes | str, filename: str) -> str:
    """The text without its byte order mark. Bytes that are no UTF-8 become surrogates, for comments may hold such.

    Raises DockerfileError where it is too large.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    if len(content) > MAX_BYTES:
        raise DockerfileError(Place(filename, 1, 1, ""), f"larger than {MAX_BYTES >> 20} MiB")
    return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


class _Reader:
    def __init__(self, lines: list[str], filename: str) -> None:
        self._lines = lines
        self._filename = filename
        self._at = 0
        self._remarks: list[tuple[Place, str]] = []
        self._comments: list[str] = []  # those directly above the next instruction
        self._last: dict[str, int] | None = None  # the last position of each line's text; made when needed

    def read(self) -> Lines:
        directives, self._at = self._directives()
        continuation = re.compile(rf"(?:(?<=[^{re.escape(directives.escape)}])|^){re.escape(directives.escape)}[ \t]*$")
        found: list[LogicalLine] = []
        while self._at < len(self._lines):
            line = self._instruction(continuation)
            if line is not None:
                found.append(line)
        if not found:
            last = max(len(self._lines), 1)
            raise DockerfileError(Place(self._filename, last, last, self._lines[-1]), "no instructions in this file")
        return Lines(directives, tuple(found), tuple(self._remarks))

    def _directives(self) -> tuple[Directives, int]:
        """The directives, and the number of their lines.

        They stand before anything else: the first line that is none ends them.
        """
        values: dict[str, str] = {}
        checks = check_options.CheckOptions()
        at = 0
        for at, line in enumerate(self._lines):
            if at == 0 and line.startswith("#!"):
                continue
            match = _DIRECTIVE.fullmatch(line.strip(SPACES))
            name = match[1].lower() if match else ""
            if match is None or name not in ("syntax", "escape", "check"):
                break
            place = Place(self._filename, at + 1, at + 1, line)
            if name in values:
                raise DockerfileError(place, f"only one '{name}' parser directive can be used")
            _check_text(place, line)
            values[name] = match[2]
            if name == "escape" and match[2] not in ("\\", "`"):
                raise DockerfileError(place, f"invalid escape '{match[2]}'", hint="the escape character is \\ or `")
            if name == "check":
                try:
                    checks = check_options.parse(match[2])
                except ValueError as e:
                    hint = "write '# check=skip=RULE,RULE;experimental=RULE;error=true'"
                    raise DockerfileError(place, str(e), hint=hint) from None
        return Directives(values.get("syntax", ""), values.get("escape", "\\"), checks), at

    def _instruction(self, continuation: re.Pattern[str]) -> LogicalLine | None:
        """The logical line that begins at the current line; None for a blank or a comment."""
        first = self._at
        line = self._next().lstrip(SPACES)
        if not line or line.startswith("#"):
            if line:
                self._comments.append(line[1:].strip(SPACES))
            else:
                self._comments.clear()
            return None
        comments = tuple(self._comments)
        self._comments.clear()
        parts: list[str] = []
        has_blank = False
        while True:
            match = continuation.search(line)
            parts.append(line[: match.start()] if match else line)
            if match is None:
                break
            line = ""
            while self._at < len(self._lines):  # comments and blank lines are skipped, and do not end a continuation
                line = self._next()
                bare = line.lstrip(SPACES)
                if bare and not bare.startswith("#"):
                    break
                has_blank = has_blank or (not bare and self._at < len(self._lines))
                line = ""
            if not line:
                break
        joined = "".join(parts).strip(SPACES)
        if not joined:
            return None
        place = self._place(first, joined, comments)
        if has_blank:
            self._remarks.append((place, "empty line inside a continued instruction"))
        _check_text(place, joined)
        marks = _opened(joined)
        if not marks:
            return LogicalLine(place, ())
        heredocs = self._heredocs(marks, place)
        place = self._place(first, joined, comments)
        for heredoc in heredocs:
            _check_text(place, heredoc.raw)
        return LogicalLine(place, heredocs)

    def _heredocs(self, marks: list[HeredocMark], place: Place) -> tuple[Heredoc, ...]:
        if len(marks) > MAX_HEREDOCS:
            raise DockerfileError(place, f"more than {MAX_HEREDOCS} heredocs in one instruction")
        # `$((1 << 2))` has the form of a heredoc with a space, which BuildKit refuses, as no line ends it. Here such a
        # word is left to the shell where no line ends it, so that all that BuildKit takes means the same
        return tuple(self._heredoc(mark, place) for mark in marks if not mark.is_parted or self._is_ahead(mark.name))

    def _is_ahead(self, text: str) -> bool:
        """Whether a later line is `text` alone.

        The lines are looked through once for the whole file: a search for each mark would take a time that grows with
        the square of the file's length.
        """
        if self._last is None:
            self._last = {line.rstrip("\r"): number for number, line in enumerate(self._lines)}
        return self._last.get(text, -1) >= self._at

    def _heredoc(self, mark: HeredocMark, place: Place) -> Heredoc:
        """The heredoc that `mark` opens: the lines up to the one that is its name alone. Raises DockerfileError."""
        content: list[str] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            end = line.rstrip("\r")
            if (end.lstrip("\t") if mark.strips_tabs else end) == mark.name:
                raw = "".join(f"{one}\n" for one in content)
                stripped = "".join(f"{one.lstrip(chr(9))}\n" for one in content) if mark.strips_tabs else raw
                return Heredoc(mark.name, stripped, mark.is_expanded, raw)
            content.append(line)
        raise DockerfileError(
            place,
            f"unterminated heredoc: no line is '{mark.name[:100]}' alone",
            hint=f"end it with a line '{mark.name[:100]}'",
        )

    def _next(self) -> str:
        self._at += 1
        return self._lines[self._at - 1].rstrip("\r")

    def _place(self, first: int, joined: str, comments: tuple[str, ...]) -> Place:
        text = "\n".join(self._lines[first : self._at])
        return Place(self._filename, first + 1, self._at, text, joined, comments)


def _opened(line: str) -> list[HeredocMark]:
    """The heredocs that an instruction opens.

    The exec form, and instructions other than RUN, COPY and ADD, open none.
    """
    if "<<" not in line:
        return []
    head, rest = split_head(line)
    if head.upper() == "ONBUILD":
        head, rest = split_head(rest)
    if head.upper() not in _HEREDOC_INSTRUCTIONS:
        return []
    try:
        if json_strings(split_flags(rest)[1]) is not None:
            return []
    except NotStrings:
        return []
    return heredoc_marks(rest)


def _check_text(place: Place, text: str) -> None:
    """Raise DockerfileError for a NUL byte, which ends an argument of execve(2), and for what JSON cannot hold."""
    if "\0" in text:
        raise DockerfileError(place, "a NUL byte in an instruction")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DockerfileError(place, "not UTF-8", hint="convert the file: iconv -f latin1 -t utf-8") from None
