"""From the text of a context to a directory: local, a tar or Dockerfile on stdin, git, an archive behind an URL."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from rootless.builder.context import contexts
from rootless.builder.context.contexts import Context
from rootless.builder.worker.unpacking import is_archive
from rootless.errors import UsageError

if TYPE_CHECKING:
    from typing import BinaryIO

    from rootless.builder.session import BuildSession

_PIECE = 1 << 20
_MAX_DOCKERFILE = 4 << 20


class Opened(NamedTuple):
    """context; dockerfile: its content, when the text was one and no context; is_remote: it is not the user's own."""

    context: Context
    dockerfile: bytes | None = None
    is_remote: bool = True


def open_context(session: BuildSession, text: str) -> Opened:
    """Raises UsageError, RegistryError."""
    from rootless.builder.context.remote import clone, download, is_git, is_url

    if text == "-":
        return _stream(session, sys.stdin.buffer)
    if is_git(text):
        directory = session.make_directory("files")
        step = session.tracker.start(f"[context] fetch {text}")
        clone(text, f"{directory}/files", log=step.log)
        step.done()
        return Opened(Context(f"{directory}/files", is_lasting=False))
    if is_url(text):
        directory = session.make_directory("files")
        step = session.tracker.start(f"[context] download {text}")
        fetched = download(text, f"{directory}/files")
        step.done()
        with open(f"{directory}/files/{fetched.name}", "rb") as file:
            return _stream(session, file)
    return Opened(contexts.local(text), is_remote=False)


def _stream(session: BuildSession, stream: BinaryIO) -> Opened:
    """A tar (compressed or not) is a context, anything else a Dockerfile without one."""
    directory = session.make_directory("files", "spool")
    path = f"{directory}/spool/context"
    with open(path, "w+b") as spool:
        while piece := stream.read(_PIECE):
            spool.write(piece)
        spool.flush()
        size = spool.tell()
        os.lseek(spool.fileno(), 0, os.SEEK_SET)
        if is_archive(spool.fileno()):
            job = {"do": "unpack", "id_map": session.id_map.to_json(), "into": f"{directory}/files"}
            session.on_worker(lambda worker: worker.call(job, [spool.fileno()]))
            os.unlink(path)
            return Opened(Context(f"{directory}/files", is_lasting=False))
        if size > _MAX_DOCKERFILE:
            raise UsageError("standard input is neither a tar archive nor a Dockerfile")
        content = os.pread(spool.fileno(), size, 0)
    os.unlink(path)
    return Opened(Context(f"{directory}/files", is_lasting=False), content)
