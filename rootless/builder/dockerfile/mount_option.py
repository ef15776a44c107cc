"""`RUN --mount=type=…,…` as a value. Pure: whether a source exists shows when the step is carried out."""

from __future__ import annotations

import csv
from collections.abc import Callable

from rootless.builder.dockerfile.instructions import Mount
from rootless.builder.dockerfile.problems import did_you_mean
from rootless.errors import UsageError
from rootless.units import parse_size

KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARING = ("shared", "private", "locked")
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
# The keys that each type of mount has, besides `type`
_KEYS = {
    "bind": {"from", "source", "target", "readonly", "readwrite"},
    "cache": {"from", "source", "target", "readonly", "readwrite", "id", "sharing", "mode", "uid", "gid"},
    "tmpfs": {"target", "size", "readonly", "readwrite"},
    "secret": {"source", "id", "target", "required", "mode", "uid", "gid", "env"},
    "ssh": {"id", "target", "required", "mode", "uid", "gid"},
}
_BARE = {"readonly", "readwrite", "required"}
_ACCESS = ("readonly", "readwrite")
_PLACED = ("bind", "cache", "tmpfs")  # on the working directory, where they have no target
_MAX_ID = 0xFFFFFFFF


class MountError(ValueError):
    """A mount that cannot be right; the text says why."""


def parse(text: str, expand: Callable[[str], str] | None = None) -> Mount:
    """The mount that `text` asks for. Raises MountError.

    expand: replaces the variables of a value. Without it the values with variables are left out, and what depends on
    them is not checked yet. `from` never has variables, because the graph of stages is made before any is known.
    """
    fields = _fields(text, expand)
    kind = fields.get("type", "bind")
    kind = kind.lower() if kind is not None else "bind"
    if kind not in KINDS:
        raise MountError(f"unsupported mount type '{kind}'{did_you_mean(kind, KINDS)}")
    is_deferred = any(value is None for value in fields.values())
    for key in fields:
        if key != "type" and key not in _KEYS[kind] and not (is_deferred and fields.get("type", "") is None):
            raise MountError(f"unexpected key '{key}' for a mount of type '{kind}'{did_you_mean(key, _KEYS[kind])}")
    if kind == "secret" and "source" in fields and "id" in fields:
        raise MountError("a secret mount has 'id' or 'source', not both")
    if kind in _PLACED and fields.get("target") == "":
        # Without the key the working directory is meant; an empty one comes of a variable without a value
        raise MountError(f"'target' of a {kind} mount is empty")
    mount = Mount(
        kind=kind,
        target=fields.get("target") or "",
        source=fields.get("source"),
        from_=fields.get("from") or "",
        is_read_only=_is_read_only(kind, fields),
        id=fields.get("id") or (fields.get("source") or "" if kind == "secret" else ""),
        sharing=_choice("sharing", fields.get("sharing"), SHARING) if kind == "cache" else "",
        is_required=_boolean("required", fields.get("required") or "false"),
        env=fields.get("env"),
        size=_size(fields.get("size")),
        mode=_number("mode", fields.get("mode"), 8, 0o7777),
        uid=_number("uid", fields.get("uid"), 10, _MAX_ID),
        gid=_number("gid", fields.get("gid"), 10, _MAX_ID),
        raw=text,
    )
    if not is_deferred:
        _check(mount)
    return mount


def _fields(text: str, expand: Callable[[str], str] | None) -> dict[str, str | None]:
    """The values of `text` by key, aliases resolved. A value is None while variables in it are not replaced.

    Raises MountError.
    """
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as e:
        raise MountError(f"'{text}': {e}") from None
    fields: dict[str, str | None] = {}
    for field in rows[0] if rows else []:
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        key = _ALIASES.get(key, key)
        known = set().union(*_KEYS.values()) | {"type"}
        if key not in known:
            raise MountError(f"unexpected key '{key}' in '{field}'{did_you_mean(key, sorted(known))}")
        if key in fields:
            raise MountError(f"'{key}' is given twice")
        if not equals:
            if key not in _BARE:
                raise MountError(f"'{field}' must be a key=value pair")
            fields[key] = "true"
        elif "$" not in value:
            fields[key] = value
        elif key == "from":
            raise MountError("'from' takes no variables; give the image a stage of its own (FROM … AS name)")
        else:
            fields[key] = expand(value) if expand is not None else None
    return fields


def _is_read_only(kind: str, fields: dict[str, str | None]) -> bool:
    """Whether the mount is read-only. Raises MountError, also where the two keys for it contradict each other."""
    given = {key: value for key in _ACCESS if (value := fields.get(key)) is not None}
    found = {_boolean(key, value) == (key == "readonly") for key, value in given.items()}
    if len(found) > 1:
        raise MountError("'readonly' and 'readwrite' contradict each other")
    return found.pop() if found else kind not in ("cache", "tmpfs")


def _check(mount: Mount) -> None:
    if mount.kind == "secret" and not (mount.id or mount.target):
        raise MountError("a secret mount needs an 'id'")


def _boolean(key: str, value: str) -> bool:
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise MountError(f"invalid value for {key}: '{value}' (write true or false)")


def _choice(key: str, value: str | None, choices: tuple[str, ...]) -> str:
    if value is None:
        return choices[0]
    if value.lower() not in choices:
        raise MountError(f"unsupported value '{value}' for {key}{did_you_mean(value, choices)}")
    return value.lower()


def _number(key: str, value: str | None, base: int, largest: int) -> int | None:
    if value is None:
        return None
    digits = "01234567" if base == 8 else "0123456789"
    if not value or len(value) > 12 or value.strip(digits) or int(value, base) > largest:
        raise MountError(f"invalid value for {key}: '{value}'")
    return int(value, base)


def _size(value: str | None) -> int | None:
    if value is None:
        return None
    try:
        return parse_size(value, "size")
    except UsageError as e:
        raise MountError(e.message) from None
