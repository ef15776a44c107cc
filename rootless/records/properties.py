"""Checked reading of one JSON object of the runtime specification: errors name the property. It knows no property."""

from __future__ import annotations

from rootless.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_ENTRIES = 100_000
"""Entries of an array for which the reader names no other bound."""
HIGHEST_ID = 0xFFFFFFFE
"""The highest user or group id: 2^32 - 1 means "no id" to chown(2) and setresuid(2), so it cannot be one."""
UINT32, INT32 = (0, 0xFFFFFFFF), (-(1 << 31), (1 << 31) - 1)
UINT64, INT64 = (0, (1 << 64) - 1), (-(1 << 63), (1 << 63) - 1)


def property_error(path: str, message: str) -> InvalidInput:
    """The error that the property at `path` (`linux.devices[2].major`) is wrong. message: what it must be, or is."""
    return InvalidInput(f"config property '{path}' {message}")


class Properties:
    """The members of an object of the configuration. path: the properties that lead to the object, "" at the top.

    A member that is null counts as absent, and members that nobody asks for are ignored (config.md, extensibility).
    Every method raises InvalidInput, naming the property, for a value of another type than it promises.
    """

    __slots__ = ("_members", "path")

    def __init__(self, value: object, path: str = "") -> None:
        if not isinstance(value, dict):
            raise property_error(path or "(root)", "must be an object")
        self._members: dict[str, object] = value
        self.path = path

    def error(self, name: str, message: str) -> InvalidInput:
        """The error that member `name` is wrong."""
        return property_error(self._at(name), message)

    def value(self, name: str) -> object:
        """The member as it is, None when it is absent."""
        return self._members.get(name)

    def require(self, *names: str) -> None:
        """Raise InvalidInput unless each of these members is there."""
        for name in names:
            if self._members.get(name) is None:
                raise self.error(name, "is missing")

    def names(self) -> list[str]:
        """The names of the members, where the specification leaves them free."""
        for name in self._members:
            if not name or "\0" in name:
                raise property_error(self.path, "has an impossible name")
        return list(self._members)

    def text(self, name: str, default: str = "") -> str:
        """A string without NUL, which no system call could carry."""
        value = self._members.get(name)
        return default if value is None else _text(self._at(name), value)

    def optional_text(self, name: str) -> str | None:
        """As `text`, None when the member is absent."""
        return None if self._members.get(name) is None else self.text(name)

    def filled_text(self, name: str) -> str:
        """A string that must be there and not be empty."""
        self.require(name)
        value = self.text(name)
        if not value:
            raise self.error(name, "must not be empty")
        return value

    def absolute_path(self, name: str) -> str:
        """An absolute path, "" when the member is absent."""
        value = self._members.get(name)
        return "" if value is None else _absolute(self._at(name), value)

    def flag(self, name: str) -> bool:
        """True or false; false when the member is absent."""
        value = self._members.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.error(name, "must be true or false")
        return value

    def integer(self, name: str, bounds: tuple[int, int], default: int = 0) -> int:
        """A whole number from `bounds`, both ends included."""
        value = self._members.get(name)
        return default if value is None else _integer(self._at(name), value, bounds)

    def optional_integer(self, name: str, bounds: tuple[int, int]) -> int | None:
        """As `integer`, None when the member is absent."""
        return None if self._members.get(name) is None else self.integer(name, bounds)

    def choice(self, name: str, words: Sequence[str]) -> str:
        """One of `words`, "" when the member is absent."""
        value = self._members.get(name)
        return "" if value is None else _choice(self._at(name), value, words)

    def texts(self, name: str, *, least: int = 0, most: int = MOST_ENTRIES) -> list[str]:
        """An array of strings, empty when the member is absent."""
        return [_text(path, value) for path, value in self._array(name, least, most)]

    def absolute_paths(self, name: str, *, most: int = MOST_ENTRIES) -> list[str]:
        """An array of absolute paths, empty when the member is absent."""
        return [_absolute(path, value) for path, value in self._array(name, 0, most)]

    def choices(self, name: str, words: Sequence[str], *, most: int = MOST_ENTRIES) -> list[str]:
        """An array of strings that are all among `words`, empty when the member is absent."""
        return [_choice(path, value, words) for path, value in self._array(name, 0, most)]

    def integers(self, name: str, bounds: tuple[int, int], *, most: int = MOST_ENTRIES) -> list[int]:
        """An array of whole numbers, empty when the member is absent."""
        return [_integer(path, value, bounds) for path, value in self._array(name, 0, most)]

    def member(self, name: str) -> Properties | None:
        """An object, None when the member is absent."""
        value = self._members.get(name)
        return None if value is None else Properties(value, self._at(name))

    def required_member(self, name: str) -> Properties:
        """An object that must be there."""
        self.require(name)
        return Properties(self._members[name], self._at(name))

    def objects(self, name: str, *, most: int = MOST_ENTRIES) -> list[Properties]:
        """An array of objects, empty when the member is absent."""
        return [Properties(value, path) for path, value in self._array(name, 0, most)]

    def text_mapping(self, name: str) -> dict[str, str]:
        """An object with free names, whose values are strings; empty when the member is absent."""
        inner = self.member(name)
        if inner is None:
            return {}
        return {key: _text(inner._at(key), inner._members[key]) for key in inner.names()}

    def _array(self, name: str, least: int, most: int) -> list[tuple[str, object]]:
        value = self._members.get(name)
        if value is None:
            return []
        path = self._at(name)
        if not isinstance(value, list):
            raise property_error(path, "must be an array")
        if not least <= len(value) <= most:
            raise property_error(path, f"must have from {least} to {most} entries, not {len(value)}")
        return [(f"{path}[{index}]", element) for index, element in enumerate(value)]

    def _at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def _text(path: str, value: object) -> str:
    if not isinstance(value, str):
        raise property_error(path, "must be a string")
    if "\0" in value:
        raise property_error(path, "must not contain NUL")
    return value


def _absolute(path: str, value: object) -> str:
    text = _text(path, value)
    if not text.startswith("/"):
        raise property_error(path, f"must be an absolute path, not '{text}'")
    return text


def _integer(path: str, value: object, bounds: tuple[int, int]) -> int:
    # to Python true is an int, which would make uid `true` the user 1
    if not isinstance(value, int) or isinstance(value, bool):
        raise property_error(path, "must be a whole number")
    low, high = bounds
    if not low <= value <= high:
        raise property_error(path, f"must be from {low} to {high}, not {value}")
    return value


def _choice(path: str, value: object, words: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in words:
        raise property_error(path, f"must be one of {', '.join(words)}, not {value!r}")
    return value
