"""Writes the files in which a script finds an id: those of --cidfile, --iidfile and --metadata-file."""

from __future__ import annotations

import os

from rootless.errors import HostLimit


def write_id_file(path: str, content: str, *, option: str, exclusive: bool = False) -> None:
    """Write `content` to the file `path`, which the flag `option` names. Raises HostLimit with the absolute path.

    exclusive: a file that exists is an error, as docker's contract for --cidfile is: two containers could share one
    file otherwise, and a script would stop the wrong one. Without it the file is overwritten in place and not replaced
    by a new one, so that /dev/stdout and a FIFO work.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_EXCL if exclusive else os.O_TRUNC)
    try:
        with open(os.open(path, flags, 0o666 if not exclusive else 0o644), "w", encoding="utf-8") as file:
            file.write(content)
    except OSError as e:
        raise HostLimit(f"cannot write '{os.path.abspath(path)}' ({option}): {e.strerror}") from e
