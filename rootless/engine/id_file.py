"""Files in which a script finds an id: --cidfile, --iidfile, --metadata-file. Their content is decided elsewhere."""

from __future__ import annotations

import os

from rootless.errors import HostLimit


def write_id_file(path: str, content: str, *, option: str, exclusive: bool = False) -> None:
    """Write `content` to file `path`, which `option` named. Raises HostLimit with the whole path.

    exclusive: a file that is there is an error, as docker has it for --cidfile: two containers would else share one
    file, and a script would stop the wrong one. Otherwise the file is written over and never replaced, so that
    /dev/stdout and a FIFO work.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_EXCL if exclusive else os.O_TRUNC)
    try:
        with open(os.open(path, flags, 0o666 if not exclusive else 0o644), "w", encoding="utf-8") as file:
            file.write(content)
    except OSError as e:
        raise HostLimit(f"cannot write '{os.path.abspath(path)}' ({option}): {e.strerror}") from e
