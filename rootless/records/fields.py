"""Checked reading of one JSON object: a value of the wrong type is an error that names the file and the key.

Keys that nobody asks for are ignored, so that a file of a program with more keys can be read. A key that is missing,
or null, takes the default that its reader names; that is how files of earlier versions are migrated.
"""

from __future__ import annotations

from rootless.errors import InvalidInput, NewerFormat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


_TOO_LARGE = 1 << 64  # no number of ours is; float() and the system calls raise OverflowError for larger ones
_HINT = "restore the file or remove the container's directory"


def parse_json(content: str | bytes) -> object:
    """The JSON value that `content` writes, UTF-8 where it is bytes. Raises ValueError for everything else.

    Whoever reads JSON of an image, a registry, a socket or a file asks here: json.loads raises RecursionError, which is
    no ValueError, for text of more brackets than Python has stack, and would end a monitor and its container with it.
    """
    import json

    try:
        value: object = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


class Fields:
    """The members of a JSON object.

    file: what errors call the file; place: the keys that lead to the object; hint: what the user can do about errors.
    """

    __slots__ = ("_file", "_hint", "_known", "_place")

    def __init__(self, known: object, file: str, place: str = "", hint: str = _HINT) -> None:
        self._file = file
        self._place = place
        self._hint = hint
        if not isinstance(known, dict):
            raise self._wrong("", "a JSON object")
        self._known: dict[str, object] = known

    def to_json(self) -> dict[str, object]:
        """The object itself, for a writer that hands it on."""
        return self._known

    def check_version(self, newest: int) -> None:
        """Refuse a file that a newer program wrote in a format we do not know. Without a "version" it is version 1."""
        version = self.integer("version", 1)
        if version > newest:
            raise NewerFormat(
                f"'{self._file}' has version {version} of its format; this program knows those up to {newest}",
                hint="use the version of rootless that wrote it, or a newer one",
            )

    def text(self, key: str, default: str | None = None) -> str:
        """A string; without a default it must be there."""
        value = self._known.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value

    def optional_text(self, key: str) -> str | None:
        """A string, None without one."""
        return None if self._known.get(key) is None else self.text(key)

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number; without a default it must be there."""
        value = self._known.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not abs(value) < _TOO_LARGE:
            raise self._wrong(key, "a whole number")
        return value

    def optional_integer(self, key: str) -> int | None:
        """A whole number, None without one."""
        return None if self._known.get(key) is None else self.integer(key)

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number; without a default it must be there."""
        value = self._known.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < _TOO_LARGE:
            raise self._wrong(key, "a number")
        return float(value)

    def flag(self, key: str) -> bool:
        """True or false; false when it is missing."""
        value = self._known.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def has(self, key: str) -> bool:
        """Whether the key is there, null included."""
        return key in self._known

    def is_null(self, key: str) -> bool:
        """Whether the key is missing or null."""
        return self._known.get(key) is None

    def mappings(self, key: str) -> list[dict[str, object]]:
        """A list of objects whose own format another room knows; empty when it is missing."""
        return [entry._known for entry in self.objects(key)]

    def mapping(self, key: str) -> dict[str, object]:
        """An object whose own format another room knows; empty when it is missing."""
        value = self._known.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._wrong(key, "a JSON object")
        return value

    def text_mapping(self, key: str) -> dict[str, str]:
        """An object of strings; empty when it is missing."""
        value = self.mapping(key)
        for name, text in value.items():
            if not isinstance(text, str):
                raise self._wrong(f"{key}.{name}", "a string")
        return {name: str(text) for name, text in value.items()}

    def member(self, key: str) -> Fields | None:
        """The members of an object; None when it is missing."""
        value = self._known.get(key)
        return None if value is None else Fields(value, self._file, self._path(key), self._hint)

    def require_member(self, key: str) -> Fields:
        """The members of an object that must be there."""
        return Fields(self._known.get(key), self._file, self._path(key), self._hint)

    def objects(self, key: str) -> Iterator[Fields]:
        """The objects of a list, none when it is missing."""
        for number, value in enumerate(self._list(key)):
            yield Fields(value, self._file, self._path(f"{key}[{number}]"), self._hint)

    def texts(self, key: str) -> list[str]:
        """A list of strings, empty when it is missing."""
        values = self._list(key)
        for number, value in enumerate(values):
            if not isinstance(value, str):
                raise self._wrong(f"{key}[{number}]", "a string")
        return [str(value) for value in values]

    def text_pairs(self, key: str) -> list[tuple[str, str]]:
        """A list of pairs of strings, empty when it is missing."""
        pairs: list[tuple[str, str]] = []
        for number, value in enumerate(self._list(key)):
            match value:
                case [str(first), str(second)] | (str(first), str(second)):
                    pairs.append((first, second))
                case _:
                    raise self._wrong(f"{key}[{number}]", "a pair of strings")
        return pairs

    def integers(self, key: str) -> list[int]:
        """A list of whole numbers, empty when it is missing."""
        numbers: list[int] = []
        for position, value in enumerate(self._list(key)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise self._wrong(f"{key}[{position}]", "a whole number")
            numbers.append(value)
        return numbers

    def integer_pairs(self, key: str) -> list[tuple[int, int]]:
        """A list of pairs of whole numbers, empty when it is missing."""
        pairs: list[tuple[int, int]] = []
        for number, value in enumerate(self._list(key)):
            match value:
                case [int(first), int(second)] | (int(first), int(second)):
                    pairs.append((first, second))
                case _:
                    raise self._wrong(f"{key}[{number}]", "a pair of whole numbers")
        return pairs

    def integer_triples(self, key: str) -> list[tuple[int, int, int]]:
        """A list of three whole numbers each, empty when it is missing."""
        triples: list[tuple[int, int, int]] = []
        for number, value in enumerate(self._list(key)):
            match value:
                case [int(first), int(second), int(third)]:
                    triples.append((first, second, third))
                case _:
                    raise self._wrong(f"{key}[{number}]", "three whole numbers")
        return triples

    def _list(self, key: str) -> list[object]:
        value = self._known.get(key)
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            raise self._wrong(key, "a list")
        return list(value)

    def _path(self, key: str) -> str:
        return f"{self._place}.{key}" if self._place else key

    def _wrong(self, key: str, wanted: str) -> InvalidInput:
        path = self._path(key) if key else self._place
        what = f"'{path}' in '{self._file}'" if path else f"'{self._file}'"
        return InvalidInput(f"{what} is not {wanted}", hint=self._hint)
