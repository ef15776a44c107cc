"""The mark that the end of a container is wanted: no restart policy undoes it, and it outlives a reboot.

The mark is the file `stop-requested` in the container's directory. A full disk or a quota may have no room for another
file, and `stop` must work there too: the mark is then the sticky bit of `monitor.lock`, which a running container has.
"""

from __future__ import annotations

import errno
import os
import stat

_FILE = "stop-requested"
_LOCK = "monitor.lock"


def request_stop(directory: str) -> None:
    """Set the mark. Raises OSError, of which FileNotFoundError means that the container is gone."""
    try:
        os.close(os.open(f"{directory}/{_FILE}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        os.chmod(f"{directory}/{_LOCK}", 0o600 | stat.S_ISVTX)


def is_stop_requested(directory: str) -> bool:
    """Whether the mark is set."""
    if os.path.exists(f"{directory}/{_FILE}"):
        return True
    try:
        return bool(os.stat(f"{directory}/{_LOCK}").st_mode & stat.S_ISVTX)
    except OSError:
        return False


def withdraw_request(directory: str) -> None:
    """Take the mark away, for a new start. Raises OSError."""
    try:
        os.unlink(f"{directory}/{_FILE}")
    except FileNotFoundError:
        pass
    try:
        if os.stat(f"{directory}/{_LOCK}").st_mode & stat.S_ISVTX:
            os.chmod(f"{directory}/{_LOCK}", 0o600)
    except FileNotFoundError:
        pass  # a container that never ran has no lock
