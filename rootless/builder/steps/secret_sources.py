"""--secret id=NAME[,src=FILE|,env=VARIABLE]: where a secret's content is. No error and no message holds the content."""

from __future__ import annotations

import os
from collections.abc import Iterable

from rootless.builder.build_options import parse_fields
from rootless.errors import UsageError

_LIMIT = 512 << 10  # bytes of a secret's file, as in BuildKit


def secret(flags: Iterable[str], name: str) -> bytes | None:
    """The content of the secret `name`; None when none of `flags`, the texts of --secret, gives it.

    Raises UsageError.
    """
    for text in flags:
        fields = parse_fields(text, "--secret", {"id", "src", "source", "env", "type"})
        kind = fields.get("type", "")
        if kind not in ("", "file", "env"):
            raise UsageError(f"--secret: unknown type '{kind}'", hint="use file or env")
        source, variable = fields.get("src") or fields.get("source"), fields.get("env")
        if kind == "env" and variable is None:
            variable = source
            source = None
        id = fields.get("id") or os.path.basename(source or "") or variable or ""
        if id != name:
            continue
        if variable is None and source is None and kind != "file":
            variable = id if id in os.environ else None
        if variable is not None:
            if variable not in os.environ:
                raise UsageError(f"--secret id={id}: the variable '{variable}' is not set")
            return os.environb[os.fsencode(variable)]
        return _read(id, os.path.expanduser(source or id))
    return None


def check(flags: Iterable[str]) -> None:
    """Raise UsageError for flags that cannot be right, before anything is built."""
    for text in flags:
        fields = parse_fields(text, "--secret", {"id", "src", "source", "env", "type"})
        if not any(fields.get(name) for name in ("id", "src", "source", "env")):
            raise UsageError(f"--secret: '{text}' has no id", hint="write id=NAME,src=FILE or id=NAME,env=VARIABLE")
        source = fields.get("src") or fields.get("source")
        if source and fields.get("type") != "env":
            _read(fields.get("id") or source, os.path.expanduser(source))


def _read(id: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(_LIMIT + 1)
    except OSError as e:
        raise UsageError(f"--secret id={id}: cannot read '{path}': {e.strerror}") from e
    if len(content) > _LIMIT:
        raise UsageError(f"--secret id={id}: '{path}' is larger than {_LIMIT >> 10} KiB")
    return content
