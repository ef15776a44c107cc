"""Starts unpack_worker and feeds it: jobs are JSON, archives go through a pipe. It opens no archive itself.

Work on layers happens in a process of its own: it enters the user namespace (which needs a single thread), shuts itself
into the directory, and uses the other core while this process reads from the network.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
from typing import TYPE_CHECKING, Any

from rootless import errors
from rootless.errors import HostLimit, RootlessError
from rootless.host.userns import worker_command
from rootless.storage.inflate import compression_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.host.idmap import IdMap
    from rootless.storage.layers import Reader

PIECE = 1 << 18
PIPE_SIZE = 1 << 20
RESULT_LIMIT = 64 << 20
# glibc would map and unmap the memory of each 1 MiB piece anew: a fifth of the kernel time of an unpacking
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "67108864", "MALLOC_TRIM_THRESHOLD_": "134217728"}


def unpack_job(target: str, media_type: str, diff_id: str) -> dict[str, Any]:
    """Unpack an archive into the empty directory `target`."""
    return {"operation": "unpack", "target": target, "compression": compression_of(media_type), "diff_id": diff_id}


def finish_job(directory: str, lowers: Sequence[str], result: dict[str, Any]) -> dict[str, Any]:
    """Make what needed the lower layers (topmost first)."""
    pending = {key: result[key] for key in ("links", "implied")}
    return {"operation": "finish", "target": f"{directory}/diff", "lowers": list(lowers), **pending}


def remap_job(source: str, directory: str, id_map: IdMap) -> dict[str, Any]:
    """Copy a layer with the owners of another id map."""
    return {"operation": "remap", "source": source, "target": f"{directory}/diff", "other_map": id_map.to_json()}


def delete_job(directory: str) -> dict[str, Any]:
    """Delete a tree."""
    return {"operation": "delete", "target": directory}


def run(
    job: dict[str, Any],
    id_map: IdMap,
    *,
    stream: Reader | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Do `job` in a worker inside a namespace of `id_map` and return its result. Safe beside threads.

    Raises what the worker raised; an error of `stream` ends the worker and is raised as it is.
    """
    content = json.dumps({**job, "id_map": id_map.to_json()}).encode()
    stdin, feed = os.pipe()
    answer, stdout = os.pipe()
    try:
        fcntl.fcntl(feed, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:
        pass  # above /proc/sys/fs/pipe-user-pages-soft: slower only
    argv = worker_command("rootless.storage.unpack_worker", site_packages=True)
    actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
    environment = {"PATH": os.environ.get("PATH", os.defpath), **_MALLOC}
    pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions)
    os.close(stdin)
    os.close(stdout)
    try:
        try:
            _write(feed, struct.pack("!I", len(content)) + content)
            if stream is not None:
                while piece := stream.read(PIECE):
                    if progress is not None:
                        progress(len(piece))
                    _write(feed, piece)
            os.close(feed)
            feed = -1
        except BrokenPipeError:
            pass  # the worker gave up: its answer says why
        except BaseException:
            os.kill(pid, 9)
            raise
        finally:
            if feed >= 0:
                os.close(feed)
        return _result(_read_all(answer))
    finally:
        os.close(answer)
        os.waitpid(pid, 0)


def drain(stream: Reader, progress: Callable[[int], None] | None) -> None:
    """Read a stream whose layer is here already, so that whoever listens to it gets all bytes."""
    while piece := stream.read(PIECE):
        if progress is not None:
            progress(len(piece))


def _write(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def _read_all(fd: int) -> bytes:
    pieces = []
    size = 0
    while piece := os.read(fd, 1 << 16):
        pieces.append(piece)
        size += len(piece)
        if size > RESULT_LIMIT:
            raise HostLimit("the answer of the unpacking process is too long")
    return b"".join(pieces)


def _result(answer: bytes) -> dict[str, Any]:
    if not answer:
        raise HostLimit("the unpacking process ended without an answer", hint="is memory short?")
    result: dict[str, Any] = json.loads(answer)
    if "error" in result:
        kind = getattr(errors, result["error"], RootlessError)
        raise kind(result["message"], hint=result["hint"])
    return result
