"""The functions of a template: Go's builtins and docker's additions. Each takes and gives plain values.

A function that cannot do what it was asked raises FunctionError, which the evaluator gives a place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from rootless import output
from rootless.cli.template import printing
from rootless.cli.template.nil import NilList, NilMap

Kind = TypeVar("Kind")


class FunctionError(Exception):
    """Arguments that a function cannot take; the message says in one phrase what is wrong with them."""


def is_true(value: object) -> bool:
    """Go's truth: false for the zero of a number or text, an empty list or map, and nil."""
    return bool(value)


def _need(value: object, kind: type[Kind], expected: str) -> Kind:
    """`value` as the Go type `expected`. Raises FunctionError; a bool is no number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise FunctionError(f"wrong type for value; expected {expected}; got {printing.type_name(value)}")
    return value


def _json(value: object) -> str:
    return output.json_text(None if isinstance(value, NilList | NilMap) else value, indent=None)


_HTML = {"'": "&#39;", '"': "&#34;", "&": "&amp;", "<": "&lt;", ">": "&gt;", "\0": "\ufffd"}
_JS = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}


def _html(*values: object) -> str:
    """The text for HTML, as Go's HTMLEscapeString makes it."""
    return "".join(_HTML.get(character, character) for character in printing.sprint(values))


def _js(*values: object) -> str:
    """The text for the inside of a JavaScript string, as Go's JSEscapeString makes it."""
    escaped = []
    for character in printing.sprint(values):
        plain = character.isprintable()
        escaped.append(_JS.get(character, character if plain else f"\\u{ord(character):04X}"))
    return "".join(escaped)


def _urlquery(*values: object) -> str:
    """The text for a query of a URL, as Go's QueryEscape makes it."""
    from urllib.parse import quote_plus

    return quote_plus(printing.sprint(values))


def _call(function: object, *_: object) -> object:
    """Go calls a value that is a function; none of what a template is given is one."""
    raise FunctionError(f"non-function of type {printing.type_name(function)}")


def _join(parts: object, separator: object = " ") -> str:
    if parts is not None and not isinstance(parts, list | tuple):
        raise FunctionError(f"wrong type for value; expected []string; got {printing.type_name(parts)}")
    return _need(separator, str, "string").join(printing.text(item) for item in parts or ())


def _split(value: object, separator: object) -> list[str]:
    text, between = _need(value, str, "string"), _need(separator, str, "string")
    return list(text) if between == "" else text.split(between)


def _title(value: object) -> str:
    return re.sub(r"(?<![\w'])\w", lambda match: match[0].upper(), _need(value, str, "string"))


def _pad(value: object, before: object, after: object) -> str:
    text = _need(value, str, "string")
    return " " * _need(before, int, "int") + text + " " * _need(after, int, "int") if text else ""


def _truncate(value: object, length: object) -> str:
    return _need(value, str, "string")[: max(0, _need(length, int, "int"))]


def _length(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode(errors="surrogateescape"))  # Go counts bytes
    if isinstance(value, Mapping | Sequence):
        return len(value)
    raise FunctionError("len of nil pointer" if value is None else f"len of type {printing.type_name(value)}")


def _index(collection: object, *keys: object) -> object:
    for key in keys:
        if isinstance(collection, Mapping):
            if key in collection:
                collection = collection[key]
            else:
                # Go gives the zero value of the map's type: docker's maps of labels and variables hold text
                collection = "" if all(isinstance(value, str) for value in collection.values()) else None
        elif collection is None and isinstance(key, str):
            collection = ""  # what Go gives for a nil map[string]string
        elif collection is None:
            raise FunctionError("index of nil pointer")
        elif isinstance(collection, Sequence):
            if not isinstance(key, int) or isinstance(key, bool):
                raise FunctionError(f"cannot index slice/array with type {printing.type_name(key)}")
            if not 0 <= key < len(collection):
                raise FunctionError(f"index out of range: {key}")
            collection = ord(collection[key]) if isinstance(collection, str) else collection[key]
        else:
            raise FunctionError(f"can't index item of type {printing.type_name(collection)}")
    return collection


def _slice(collection: object, *bounds: object) -> object:
    if not isinstance(collection, Sequence):
        raise FunctionError(f"can't slice item of type {printing.type_name(collection)}")
    if len(bounds) > 3 or (isinstance(collection, str) and len(bounds) > 2):
        raise FunctionError(f"too many slice indexes: {len(bounds)}")
    places = [_need(bound, int, "integer") for bound in bounds]
    for place in places:
        if not 0 <= place <= len(collection):
            raise FunctionError(f"index out of range: {place}")
    start = places[0] if places else 0
    end = places[1] if len(places) > 1 else len(collection)
    if start > end:
        raise FunctionError(f"invalid slice index: {start} > {end}")
    return collection[start:end]


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "nil" if value is None else "other"


def _equal(first: object, *others: object) -> bool:
    if not others:
        raise FunctionError("missing argument for comparison")
    for other in others:
        if _kind(first) == "other" or _kind(other) == "other":
            raise FunctionError("non-comparable types")
        if _kind(first) != _kind(other) and first is not None and other is not None:
            raise FunctionError("incompatible types for comparison")
        if first == other:
            return True
    return False


def _less(first: object, second: object) -> bool:
    if _kind(first) != _kind(second):
        raise FunctionError("incompatible types for comparison")
    if isinstance(first, str) and isinstance(second, str):
        return first < second
    if _kind(first) != "number" or not isinstance(first, int | float) or not isinstance(second, int | float):
        raise FunctionError("invalid type for comparison")
    return first < second


def _text_function(change: Callable[[str], str]) -> Callable[[object], str]:
    return lambda value: change(_need(value, str, "string"))


# `and` and `or` are here for the parser, which looks for their names: the evaluator carries them out itself, since it
# stops at the first argument that decides
FUNCTIONS: dict[str, Callable[..., object]] = {
    "and": lambda *values: values[-1],
    "or": lambda *values: values[-1],
    "not": lambda value: not is_true(value),
    "len": _length,
    "index": _index,
    "slice": _slice,
    "print": lambda *values: printing.sprint(values),
    "printf": lambda form, *values: printing.sprintf(_need(form, str, "string"), values),
    "println": lambda *values: printing.sprintln(values),
    "eq": _equal,
    "ne": lambda first, second: not _equal(first, second),
    "lt": _less,
    "le": lambda first, second: not _less(second, first),
    "gt": lambda first, second: _less(second, first),
    "ge": lambda first, second: not _less(first, second),
    "html": _html,
    "js": _js,
    "urlquery": _urlquery,
    "call": _call,
    "json": _json,
    "join": _join,
    "split": _split,
    "title": _title,
    "lower": _text_function(str.lower),
    "upper": _text_function(str.upper),
    "pad": _pad,
    "truncate": _truncate,
}


def _as_is(value: object, *_: object) -> object:
    return value


# In the heading of a table the functions leave the words alone, as docker's do: {{upper .Name}} has the heading NAME
HEADING_FUNCTIONS = {
    **FUNCTIONS,
    **dict.fromkeys(("json", "join", "split", "title", "lower", "upper", "pad", "truncate"), _as_is),
}
