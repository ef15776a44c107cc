"""What a build takes: its contexts as directories, its Dockerfile, its arguments and the time that it is for.

A context is a local directory, a tar or a Dockerfile on standard input, a git repository, or an archive behind a URL.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from rootless.builder.build_options import given_build_args
from rootless.builder.context import contexts
from rootless.builder.context.contexts import Context
from rootless.builder.dockerfile import checks, parser
from rootless.errors import UsageError
from rootless.units import LAST_MOMENT, whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from rootless.builder.build_options import BuildOptions
    from rootless.builder.dockerfile.check_options import CheckOptions
    from rootless.builder.dockerfile.instructions import Dockerfile
    from rootless.builder.session.build_session import BuildSession
    from rootless.builder.session.materials import Material
    from rootless.image.platform import Platform

_PIECE = 1 << 20
_EPOCH, _OF_CONTEXT = "SOURCE_DATE_EPOCH", "context"
_MAX_DOCKERFILE = 4 << 20  # bytes


class OpenedContext(NamedTuple):
    """A context that was opened.

    dockerfile: the content of a Dockerfile that came in the place of a context, None for a context; is_remote: the
    files are not the user's own. Links in such a context may have been made by a stranger and must not lead out of it.
    material: what was fetched, None where nothing was.
    """

    context: Context
    dockerfile: bytes | None = None
    is_remote: bool = True
    material: Material | None = None


def open_context(session: BuildSession, text: str, *, keeps_git_dir: bool = False) -> OpenedContext:
    """The context that `text` names, fetched and unpacked when it is elsewhere.

    keeps_git_dir: whether `.git` of a repository comes too, where its address does not say so itself. Raises
    UsageError, RegistryError (it cannot be fetched), HostLimit (no git), InvalidInput (a malformed archive).
    """
    if text == "-":
        return _stream(session, sys.stdin.buffer)
    if contexts.is_git(text):
        from rootless.builder.context.repository import Repository, clone

        source = Repository.parse(text)
        if source.keeps_git_dir is None:
            source = source._replace(keeps_git_dir=keeps_git_dir)
        directory = session.make_directory("files")
        step = session.tracker.start(f"[context] fetch {text}")
        fetched = clone(source, f"{directory}/files", step.log)
        step.done()
        context = Context(f"{directory}/files", is_lasting=False, moment=fetched.newest)
        return OpenedContext(context, material=session.materials.add_fetched(text, fetched.identity))
    if contexts.is_url(text):
        from rootless.builder.context.remote import download

        directory = session.make_directory("files")
        step = session.tracker.start(f"[context] download {text}")
        fetched = download(text, f"{directory}/files")
        step.done()
        with open(f"{directory}/files/{fetched.name}", "rb") as file:
            opened = _stream(session, file)
        context = opened.context._replace(moment=fetched.newest or _newest(opened.context.path))
        return opened._replace(context=context, material=session.materials.add_fetched(text, fetched.identity))
    return OpenedContext(contexts.local_context(text), is_remote=False)


def _stream(session: BuildSession, stream: BinaryIO) -> OpenedContext:
    """What `stream` holds: a tar, compressed or not, is a context, and anything else is a Dockerfile without one.

    The stream is written to a file first, because whether it is a tar shows only in its first decompressed block.
    """
    from rootless.builder.worker.step_jobs import UnpackContextJob
    from rootless.builder.worker.unpacking import is_archive

    directory = session.make_directory("files", "spool")
    path = f"{directory}/spool/context"
    with open(path, "w+b") as spool:
        while piece := stream.read(_PIECE):
            spool.write(piece)
        spool.flush()
        size = spool.tell()
        os.lseek(spool.fileno(), 0, os.SEEK_SET)
        if is_archive(spool.fileno()):
            job = UnpackContextJob(session.id_map, f"{directory}/files")
            session.on_worker(lambda worker: worker.call(job, [spool.fileno()]))
            os.unlink(path)
            return OpenedContext(Context(f"{directory}/files", is_lasting=False))
        if size > _MAX_DOCKERFILE:
            raise UsageError("standard input is neither a tar archive nor a Dockerfile")
        content = os.pread(spool.fileno(), size, 0)
    os.unlink(path)
    return OpenedContext(Context(f"{directory}/files", is_lasting=False), content)


def _newest(directory: str) -> int | None:
    """The latest time of a file below `directory`, in seconds; None without files."""
    paths = (os.path.join(folder, name) for folder, _, names in os.walk(directory) for name in names)
    return max((int(os.lstat(path).st_mtime) for path in paths), default=None)


def latest_time(options: BuildOptions) -> int | None:
    """The time, in seconds since the epoch, that no file of the image may be later than, so that a build is the same
    whenever it runs: --timestamp, else SOURCE_DATE_EPOCH as a build argument, else in the environment. None without
    any, and where it is that of the context. Raises UsageError."""
    if options.timestamp is None:
        return _seconds(_epoch(options))
    if options.timestamp > LAST_MOMENT:
        raise UsageError("--timestamp is later than the year 9999", hint="write seconds since the epoch")
    return options.timestamp


def _epoch(options: BuildOptions) -> str:
    """SOURCE_DATE_EPOCH as a build argument, else in the environment; "" for none. Raises UsageError."""
    return given_build_args(options).get(_EPOCH) or os.environ.get(_EPOCH, "")


def _seconds(text: str) -> int | None:
    """The number in a text of SOURCE_DATE_EPOCH; None for "" and "context". Raises UsageError."""
    if text in ("", _OF_CONTEXT):
        return None
    seconds = whole_number(text, LAST_MOMENT)
    if seconds is None:
        hint = f"write SECONDS, up to the year 9999, or {_OF_CONTEXT}"
        raise UsageError(f"{_EPOCH} is not a number of seconds: '{text}'", hint=hint)
    return seconds


def settle_latest_time(session: BuildSession, dockerfile: Dockerfile) -> None:
    """Let `session.latest` be what the context or the Dockerfile says, where the user has given no number.

    An ARG SOURCE_DATE_EPOCH above the first FROM has a default for it. `context`, given by the user or there, means the
    time of the commit or of the download; a local context has none. Raises DockerfileError, UsageError.
    """
    if session.latest is not None:
        return
    text = _epoch(session.options)
    if not text and any(pair.name == _EPOCH for arg in dockerfile.global_args for pair in arg.pairs):
        from rootless.builder.dockerfile import expand

        escape, given = dockerfile.directives.escape, given_build_args(session.options)
        automatic = dict.fromkeys(expand.PREDEFINED, "")
        values = expand.global_args(dockerfile.global_args, escape=escape, automatic=automatic, build_args=given)
        text = values[_EPOCH]
    session.latest = session.contexts[""].moment if text == _OF_CONTEXT else _seconds(text)


def build_args(options: BuildOptions, latest: int | None) -> dict[str, str]:
    """The values of --build-arg by name. latest: `session.latest`, which becomes SOURCE_DATE_EPOCH.

    Raises UsageError.
    """
    found = given_build_args(options)
    if found.get(_EPOCH) == _OF_CONTEXT:
        del found[_EPOCH]
    if latest is not None:
        found.setdefault(_EPOCH, str(latest))
    return found


def platforms(options: BuildOptions) -> list[Platform]:
    """The platforms of --platform, or this host's alone, which `local` is too. Raises UsageError."""
    from rootless.image.platform import host_platform, parse_platform

    texts = [text for each in options.platform for text in each.split(",")]
    found = [host_platform() if text == "local" else parse_platform(text) for text in texts]
    return list(dict.fromkeys(found)) or [host_platform()]


def load(session: BuildSession) -> Dockerfile:
    """Parse the Dockerfile, and warn of what the checks find.

    Puts the main context (as "") and the named ones into `session.contexts`. Raises DockerfileError, UsageError,
    NotFound, and what fetching a context raises.
    """
    filename, content = read(session)
    dockerfile = parser.parse(content, filename)
    session.checks = check_options(session.options, dockerfile)
    session.report(checks.findings_in(dockerfile))
    settle_latest_time(session, dockerfile)
    return dockerfile


def read(session: BuildSession) -> tuple[str, bytes]:
    """(name in messages, content) of the Dockerfile, and the contexts into `session.contexts`.

    Raises UsageError, NotFound, DockerfileError (the ignore file), and what fetching a context raises.
    """
    options = session.options
    for text in options.build_context:
        name, equals, value = text.partition("=")
        if not name or not equals or not value:
            raise UsageError(f"invalid --build-context '{text}'", hint="write NAME=PATH")
        if value.startswith(("docker-image://", "oci-layout://")):
            continue
        found = open_context(session, value)
        if found.material is None:
            session.materials.locals.add(name.lower())
        session.contexts[name.lower()] = contexts.with_ignore(found.context, "")
    if options.context == "-" and options.file == "-":
        raise UsageError("standard input cannot be both the context and the Dockerfile")
    opened = open_context(session, options.context, keeps_git_dir=_keeps_git_dir(options))
    content, filename, path = _dockerfile(session, opened.context, opened.dockerfile, is_remote=opened.is_remote)
    session.contexts[""] = contexts.with_ignore(opened.context, path)
    materials = session.materials
    materials.context = opened.material
    materials.entry_point = filename if opened.material is not None else os.path.basename(filename)
    if opened.material is None:
        materials.locals |= {"context", "dockerfile"}
    elif options.file == "-":
        materials.locals.add("dockerfile")
    return filename, content


def _keeps_git_dir(options: BuildOptions) -> bool:
    """The value of BUILDKIT_CONTEXT_KEEP_GIT_DIR: whether `.git` of a main context comes too. Raises UsageError."""
    name = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
    value = given_build_args(options).get(name)
    if not value:
        return False
    from rootless.builder.context.repository import parse_flag

    return parse_flag(value, f"--build-arg: {name}")


def check_options(options: BuildOptions, dockerfile: Dockerfile) -> CheckOptions:
    """The options of the build argument BUILDKIT_DOCKERFILE_CHECK, else of the Dockerfile's directive.

    Raises UsageError.
    """
    text = given_build_args(options).get("BUILDKIT_DOCKERFILE_CHECK")
    if text is None:
        return dockerfile.directives.checks
    from rootless.builder.dockerfile.check_options import parse

    try:
        return parse(text)
    except ValueError as e:
        hint = "write BUILDKIT_DOCKERFILE_CHECK='skip=RULE,RULE;experimental=RULE;error=true'"
        raise UsageError(f"--build-arg: {e}", hint=hint) from None


def _dockerfile(
    session: BuildSession, context: Context, given: bytes | None, *, is_remote: bool
) -> tuple[bytes, str, str]:
    """(content of the Dockerfile, its name in messages, its path or ""). given: the content, where it came already."""
    file = session.options.file
    if given is not None:
        return given, "Dockerfile", ""
    if file == "-":
        content = sys.stdin.buffer.read(contexts.MAX_FILE + 1)
        if len(content) > contexts.MAX_FILE:
            raise UsageError(f"the Dockerfile of standard input is larger than {contexts.MAX_FILE >> 20} MiB")
        return content, "Dockerfile", ""
    path = contexts.find_dockerfile(context, file, is_remote=is_remote)
    name = os.path.relpath(path, context.path) if path.startswith(f"{context.path}/") else path
    return contexts.read_file(path), file or name, path


def import_caches(session: BuildSession) -> None:
    """Open the caches of --cache-from, which `session.find` asks from then on. Raises UsageError."""
    if session.options.cache_from and not session.options.no_cache:
        from rootless.builder.cache.cache_import import ImportedCaches

        session.imported = ImportedCaches(session, session.options.cache_from)
