"""A small language of types to check JSON against, with errors that name the property. It knows no configuration."""

from __future__ import annotations

from rootless.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Check = Callable[[str, Any], None]


def fail(path: str, message: str) -> InvalidInput:
    """The error for the property at `path`."""
    return InvalidInput(f"config property '{path}' {message}")


def text(path: str, value: Any) -> None:
    """A string without NUL, which no system call could carry."""
    if not isinstance(value, str):
        raise fail(path, "must be a string")
    if "\0" in value:
        raise fail(path, "must not contain NUL")


def filled(path: str, value: Any) -> None:
    """A string that is not empty."""
    text(path, value)
    if not value:
        raise fail(path, "must not be empty")


def absolute(path: str, value: Any) -> None:
    """Check that `value` is an absolute path; InvalidInput names the property at `path`."""
    text(path, value)
    if not value.startswith("/"):
        raise fail(path, f"must be an absolute path, not '{value}'")


def boolean(path: str, value: Any) -> None:
    """Check that `value` is true or false; InvalidInput names the property at `path`."""
    if not isinstance(value, bool):
        raise fail(path, "must be true or false")


def anything(path: str, value: Any) -> None:
    """Whatever the specification does not give to us to judge."""


def integer(low: int, high: int) -> Check:
    """A whole number in a range, both ends included."""

    def check(path: str, value: Any) -> None:
        # to Python true is an int
        if not isinstance(value, int) or isinstance(value, bool):
            raise fail(path, "must be a whole number")
        if not low <= value <= high:
            raise fail(path, f"must be from {low} to {high}, not {value}")

    return check


def one_of(*words: str) -> Check:
    """One of these strings."""

    def check(path: str, value: Any) -> None:
        if value not in words:
            raise fail(path, f"must be one of {', '.join(words)}, not {value!r}")

    return check


def array(item: Check, *, least: int = 0, most: int = 100_000) -> Check:
    """An array of `item`."""

    def check(path: str, value: Any) -> None:
        if not isinstance(value, list):
            raise fail(path, "must be an array")
        if not least <= len(value) <= most:
            raise fail(path, f"must have from {least} to {most} entries, not {len(value)}")
        for index, element in enumerate(value):
            item(f"{path}[{index}]", element)

    return check


def mapping(item: Check) -> Check:
    """An object with free names and values of one type."""

    def check(path: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise fail(path, "must be an object")
        for name, element in value.items():
            if not name or "\0" in name:
                raise fail(path, "has an impossible name")
            item(f"{path}.{name}", element)

    return check


def record(properties: Mapping[str, Check], *, required: tuple[str, ...] = ()) -> Check:
    """An object of known properties; null counts as absent, unknown ones are ignored (config.md, extensibility)."""

    def check(path: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise fail(path or "(root)", "must be an object")
        prefix = f"{path}." if path else ""
        for name in required:
            if value.get(name) is None:
                raise fail(f"{prefix}{name}", "is missing")
        for name, property_check in properties.items():
            element = value.get(name)
            if element is not None:
                property_check(prefix + name, element)

    return check
