"""Members of JSON objects that strangers wrote, taken out with their type checked. Errors name the member. No I/O.

As the image specification says of its documents: members that are not known are no error, and null means absent.
"""

from __future__ import annotations

import json

from rootless.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Fields: TypeAlias = dict[str, object]


def load_json(raw: bytes, what: str) -> Fields:
    """The JSON object in `raw`, which `what` names in errors. Raises InvalidInput for anything else.

    Python takes NaN for a number, and hostile nesting exhausts its stack: both are InvalidInput here.
    """
    try:
        document = json.loads(raw.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as e:
        if raw.lstrip()[:1] == b"<":
            hint = "is that the address of a registry? a proxy or a login page may answer in its place"
            raise InvalidInput(f"{what} is a web page, not JSON", hint=hint) from e
        reason = "nested too deeply" if isinstance(e, RecursionError) else str(e)
        raise InvalidInput(f"{what} is not JSON: {reason[:200]}") from e
    if not isinstance(document, dict):
        raise InvalidInput(f"{what} is not a JSON object")
    return document


def as_mapping(value: object, where: str) -> Fields:
    """`value` as an object, empty when it is absent. Raises InvalidInput."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput(f"'{where}' is not an object")
    return value


def as_sequence(value: object, where: str) -> list[object]:
    """`value` as a list, empty when it is absent. Raises InvalidInput."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidInput(f"'{where}' is not a list")
    return value


def as_strings(value: object, where: str) -> dict[str, str]:
    """`value` as an object whose values are texts, "" for null. Raises InvalidInput."""
    found: dict[str, str] = {}
    for key, each in as_mapping(value, where).items():
        if each is not None and not isinstance(each, str):
            raise InvalidInput(f"'{where}' has a value that is not text")
        found[key] = each or ""
    return found


def text_member(fields: Fields, name: str) -> str:
    """The text in member `name`, "" when it is absent. Raises InvalidInput."""
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInput(f"'{name}' is not text")
    return value


def texts_member(fields: Fields, name: str) -> list[str] | None:
    """The list of texts in member `name`, None when it is absent. Raises InvalidInput."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, list):
        raise InvalidInput(f"'{name}' is not a list of texts")
    return [_as_text(each, name) for each in value]


def _as_text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"'{name}' is not a list of texts")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
