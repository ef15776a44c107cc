"""The functions of a template: Go's builtins and docker's additions. Each takes and gives plain values.

A function that cannot do what it was asked raises FunctionError, which the evaluator gives a place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rootless import output
from rootless.cli.template import printing


class FunctionError(Exception):
    """What is wrong with the arguments, in one phrase."""


def is_true(value: Any) -> bool:
    """Go's truth: false for the zero of a number or text, an empty list or map, and nil."""
    return bool(value)


def _need(value: Any, kind: type[Any] | tuple[type[Any], ...], expected: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise FunctionError(f"wrong type for value; expected {expected}; got {printing.type_name(value)}")
    return value


def _json(value: Any) -> str:
    return output.json_text(value, indent=None)


def _join(parts: Any, separator: Any = " ") -> str:
    items = _need(parts if parts is not None else [], (list, tuple), "[]string")
    return str(_need(separator, str, "string")).join(printing.text(item) for item in items)


def _split(value: Any, separator: Any) -> list[str]:
    value, separator = _need(value, str, "string"), _need(separator, str, "string")
    return list(value) if separator == "" else value.split(separator)


def _title(value: Any) -> str:
    return re.sub(r"(?<![\w'])\w", lambda match: match[0].upper(), _need(value, str, "string"))


def _pad(value: Any, before: Any, after: Any) -> str:
    value = _need(value, str, "string")
    return " " * _need(before, int, "int") + value + " " * _need(after, int, "int") if value else ""


def _truncate(value: Any, length: Any) -> str:
    return str(_need(value, str, "string")[: max(0, _need(length, int, "int"))])


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode(errors="surrogateescape"))  # Go counts bytes
    if isinstance(value, Mapping | Sequence):
        return len(value)
    raise FunctionError("len of nil pointer" if value is None else f"len of type {printing.type_name(value)}")


def _index(collection: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(collection, Mapping):
            if key in collection:
                collection = collection[key]
            else:
                # the zero value of the map's type: docker's maps of labels and variables hold text
                collection = "" if all(isinstance(value, str) for value in collection.values()) else None
        elif collection is None and isinstance(key, str):
            collection = ""  # a nil map[string]string
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


def _slice(collection: Any, *bounds: Any) -> Any:
    if not isinstance(collection, Sequence):
        raise FunctionError(f"can't slice item of type {printing.type_name(collection)}")
    if len(bounds) > 3 or (isinstance(collection, str) and len(bounds) > 2):
        raise FunctionError(f"too many slice indexes: {len(bounds)}")
    for bound in bounds:
        if not 0 <= _need(bound, int, "integer") <= len(collection):
            raise FunctionError(f"index out of range: {bound}")
    start = bounds[0] if bounds else 0
    end = bounds[1] if len(bounds) > 1 else len(collection)
    if start > end:
        raise FunctionError(f"invalid slice index: {start} > {end}")
    return collection[start:end]


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "nil" if value is None else "other"


def _equal(first: Any, *others: Any) -> bool:
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


def _less(first: Any, second: Any) -> bool:
    if _kind(first) != _kind(second):
        raise FunctionError("incompatible types for comparison")
    if _kind(first) not in ("number", "string"):
        raise FunctionError("invalid type for comparison")
    return bool(first < second)


def _text_function(change: Callable[[str], str]) -> Callable[[Any], str]:
    return lambda value: change(_need(value, str, "string"))


# `and` and `or` are here for their names: the evaluator stops at the first argument that decides
FUNCTIONS: dict[str, Callable[..., Any]] = {
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
    "json": _json,
    "join": _join,
    "split": _split,
    "title": _title,
    "lower": _text_function(str.lower),
    "upper": _text_function(str.upper),
    "pad": _pad,
    "truncate": _truncate,
}


def _as_is(value: Any, *_: Any) -> Any:
    return value


# over a table's heading the functions of rows leave the words alone, as docker's do
HEADING_FUNCTIONS = {
    **FUNCTIONS,
    **dict.fromkeys(("json", "join", "split", "title", "lower", "upper", "pad", "truncate"), _as_is),
}
