"""Cuts the text of a Go template into literal text and the tokens of its actions. It knows spelling, not grammar.

Syntax: https://pkg.go.dev/text/template (delimiters, trim markers and comments as there).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rootless.errors import UsageError


class TemplateError(UsageError):
    """A template that cannot be parsed or carried out; the message has its line and column."""

    exit_code = 1  # docker's exit code for wrong templates, unlike that for wrong flags


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an action. `spaced`: white space stands before it, which separates arguments from field chains."""

    kind: str  # field, variable, identifier, number, char, string, punctuation, end
    text: str
    position: int
    spaced: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of literal text (`tokens` is None) or the tokens of one action."""

    text: str
    position: int
    tokens: tuple[Token, ...] | None


_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+
                          |(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?))
      | (?P<field>\.[^\W\d]\w*)
      | (?P<variable>\$\w*)
      | (?P<identifier>[^\W\d]\w*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
      | (?P<char>'(?:[^'\\\n]|\\.)+')
      | (?P<punctuation>:=|[=|(),.])
    """,
    re.VERBOSE,
)
_TRIM_LEFT = re.compile(r"-[ \t\r\n]")
_TRIM_RIGHT = re.compile(r"[ \t\r\n]-\}\}")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def place(source: str, position: int) -> str:
    """The place `line:column`, both counted from 1, of the character at offset `position`."""
    start = source.rfind("\n", 0, position) + 1
    return f"{source.count(chr(10), 0, position) + 1}:{position - start + 1}"


def fail(source: str, position: int, problem: str) -> TemplateError:
    """The error to raise for a problem at a position of the template, which its message names in Go's words."""
    return TemplateError(f"template parsing error: template: {place(source, position)}: {problem}")


def pieces(source: str) -> list[Piece]:
    """Split a template into literal text and actions, with trim markers and comments applied."""
    found: list[Piece] = []
    position = 0
    trim = False
    while position < len(source):
        start = source.find("{{", position)
        end_of_text = len(source) if start < 0 else start
        text = source[position:end_of_text]
        if trim:
            text = text.lstrip(" \t\r\n")
        if start < 0:
            if text:
                found.append(Piece(text, position, None))
            break
        inside = start + 2
        if _TRIM_LEFT.match(source, inside):
            text = text.rstrip(" \t\r\n")
            inside += 1
        if text:
            found.append(Piece(text, position, None))
        tokens, position, trim = _action(source, start, inside)
        if tokens:
            found.append(Piece("", start, tuple(tokens)))
    return found


def _action(source: str, start: int, position: int) -> tuple[list[Token], int, bool]:
    """The tokens of the action whose inside begins at `position`, the position after it, and whether it trims."""
    blank = len(source[position:]) - len(source[position:].lstrip(" \t\r\n"))
    if source.startswith("/*", position + blank):
        comment = _COMMENT.match(source, position + blank)
        if comment is None:
            raise fail(source, start, "unclosed comment")
        if _TRIM_RIGHT.match(source, comment.end()):
            return [], comment.end() + 4, True
        if source.startswith("}}", comment.end()):
            return [], comment.end() + 2, False
        raise fail(source, start, "comment ends before closing delimiter")
    tokens: list[Token] = []
    spaced = True
    while True:
        if _TRIM_RIGHT.match(source, position):
            closing, trim = position + 4, True
            break
        if source.startswith("}}", position):
            closing, trim = position + 2, False
            break
        match = _TOKEN.match(source, position)
        if match is None:
            if position >= len(source):
                raise fail(source, start, "unclosed action")
            if source[position] in "\"'`":
                raise fail(source, position, "unterminated quoted string")
            raise fail(source, position, f'unexpected "{source[position]}" in command')
        kind = match.lastgroup or ""
        if kind == "space":
            spaced = True
        else:
            tokens.append(Token(kind, match.group(), position, spaced))
            spaced = False
        position = match.end()
    if not tokens:
        raise fail(source, start, "missing value for command")
    tokens.append(Token("end", "}}", position, spaced))
    return tokens, closing, trim
