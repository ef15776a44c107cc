"""JSON records on disk: read with a bound, written by rename. It knows nothing of what a record means."""

from __future__ import annotations

import json
import os

from rootless.errors import InvalidInput, NotFound
from rootless.paths import atomic_write
from rootless.records.fields import parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 64 << 20
"""Bytes of a record. Ours have some kilobytes; a larger file is not ours, and is not read into memory."""


_HINT = "restore the file or remove its directory"


def read_record(path: str, *, what: str = "record", hint: str = _HINT) -> dict[str, object]:
    """The JSON object in file `path`.

    hint: what the user can do about a damaged one. Raises NotFound when there is no such file, InvalidInput when it is
    not a JSON object.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise NotFound(f"no {what} at '{path}'") from e
    except OSError as e:
        raise InvalidInput(f"cannot read {what} '{path}': {e.strerror}") from e
    with open(fd, "rb") as file:
        content = file.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise InvalidInput(f"{what} '{path}' is larger than {LIMIT >> 20} MiB")
    try:
        record = parse_json(content)
    except ValueError as e:
        raise InvalidInput(f"{what} '{path}' is not JSON: {e}", hint=hint) from e
    if not isinstance(record, dict):
        raise InvalidInput(f"{what} '{path}' is not a JSON object", hint=hint)
    return record


def write_record(path: str, record: Mapping[str, object], *, durable: bool = True) -> None:
    """Replace file `path` by `record` in one step. durable: see paths.atomic_write."""
    atomic_write(path, json.dumps(record, separators=(",", ":"), ensure_ascii=True).encode() + b"\n", durable=durable)


def random_name() -> str:
    """64 hexadecimal digits that nobody can guess: ids of containers, anonymous volumes, temporary names."""
    return os.urandom(32).hex()
