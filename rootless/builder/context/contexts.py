"""Build contexts as directories, their ignore files and Dockerfiles, and the digest of what is taken from them."""

from __future__ import annotations

import os
import posixpath
import re
from typing import NamedTuple

from rootless.errors import NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.builder.context.digests import Known

MAX_FILE = 4 << 20  # bytes of a Dockerfile or an ignore file
_GIT_LIKE = re.compile(r"(?:git@[\w.-]+:|(?:https?|ssh|git)://[^?#]*\.git(?:[?#/]|$)|git://|ssh://)", re.ASCII)


class Context(NamedTuple):
    """A directory that COPY takes files from.

    path: of the directory; ignore: text of its .dockerignore; is_lasting: the directory is the user's own and there for
    later builds too, False for one that was fetched and is removed with this build; moment: the time of a commit or of
    a download in seconds, None for a context without a time of its own.
    """

    path: str
    ignore: str = ""
    is_lasting: bool = True
    moment: int | None = None

    def open(self) -> int:
        """Open the directory and return its fd. Raises UsageError."""
        try:
            return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise UsageError(f"cannot open the build context '{self.path}': {e.strerror}") from e

    def static_rules(self) -> Callable[[str], bool] | None:
        """Whether the ignore file leaves a path out, as a function, for a check that sees no files.

        None without an ignore file, and where it takes files back in: then a directory that is left out may be needed.
        Raises DockerfileError.
        """
        if not self.ignore:
            return None
        from rootless.builder.context.ignore import Ignore

        rules = Ignore.parse(self.ignore)
        return None if rules.has_exceptions else rules.excludes

    def digest(self, sources: Sequence[str], excludes: Sequence[str], known: Known, *, wildcards: bool) -> Digest:
        """The digest of what `sources` take. excludes: patterns of --exclude; known: digests of files that are known.

        Raises NotFound, InvalidInput, UsageError, DockerfileError.
        """
        from rootless.builder.context.digests import Content
        from rootless.builder.context.ignore import Exclusions, all_matches

        exclusions = Exclusions(self.ignore, excludes)
        content = Content(known, owned=False)
        root = self.open()
        try:
            for match in all_matches(root, sources, exclusions, wildcards=wildcards):
                content.add(root, match, exclusions)
        finally:
            os.close(root)
        return Digest(content.hexdigest(), content.newest // 10**9)


class Digest(NamedTuple):
    """The digest of what a COPY takes.

    hexdigest: of contents, modes and names, 64 hexadecimal digits; newest: the latest mtime of a file in seconds.
    """

    hexdigest: str
    newest: int


def is_url(text: str) -> bool:
    """Whether `text` is the URL of a file, to be downloaded."""
    return text.startswith(("http://", "https://")) and not is_git(text)


def is_git(text: str) -> bool:
    """Whether `text` is a git repository, by BuildKit's rules: a URL whose path ends with .git, git@, git://, ssh://."""
    return _GIT_LIKE.match(text) is not None


def local_context(path: str) -> Context:
    """The context of the user's own directory `path`. Raises UsageError when there is no such directory."""
    if not os.path.isdir(path):
        why = "is not a directory" if os.path.exists(path) else "does not exist"
        raise UsageError(f"the build context '{path}' {why}")
    return Context(os.path.realpath(path))


def with_ignore(context: Context, dockerfile: str) -> Context:
    """The context with the rules of `DOCKERFILE.dockerignore`, or of its `.dockerignore` where that is not there.

    dockerfile: the path, "" for one that is no file. Raises UsageError, NotFound.
    """
    found = choose_file(dockerfile, context.path, os.path.isfile)
    if found is None:
        return context
    if not context.is_lasting:
        found = _inside(context.path, found)
    return context._replace(ignore=read_file(found).decode("utf-8", "surrogateescape"))


def choose_file(dockerfile: str, context: str, exists: Callable[[str], bool]) -> str | None:
    """The path of the ignore file: `NAME.dockerignore` beside the Dockerfile, else the context's `.dockerignore`.

    exists: whether there is a file of a path. None without such a file.
    """
    own = f"{dockerfile}.dockerignore"
    if dockerfile not in ("", "-") and exists(own):
        return own
    common = posixpath.join(context, ".dockerignore")
    return common if exists(common) else None


def read_file(path: str) -> bytes:
    """The content of a Dockerfile or an ignore file. Raises NotFound, and UsageError for one that is too large."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError as e:
        raise NotFound(f"no such file: '{path}'") from e
    except OSError as e:
        raise UsageError(f"cannot read '{path}': {e.strerror}") from e
    if len(content) > MAX_FILE:
        raise UsageError(f"'{path}' is larger than {MAX_FILE >> 20} MiB")
    return content


def find_dockerfile(context: Context, file: str, *, is_remote: bool) -> str:
    """The path of the Dockerfile. file: of --file, "" for the usual names in the context.

    A path is the caller's, or one in the context; where `is_remote`, in the context alone. Raises NotFound, UsageError.
    """
    if file:
        inside = os.path.join(context.path, file)
        if is_remote:
            return _inside(context.path, file)
        if os.path.exists(file):
            return file
        if os.path.exists(inside):
            return inside
        raise NotFound(f"no such Dockerfile: '{file}' (--file)")
    for name in ("Dockerfile", "Containerfile", "dockerfile", "containerfile"):
        path = f"{context.path}/{name}"
        if os.path.isfile(path):
            return _inside(context.path, name) if is_remote else path
    raise NotFound(f"no Dockerfile or Containerfile in '{context.path}'", hint="name it with --file")


def _inside(root: str, file: str) -> str:
    """The path of `file` below `root`, a context that somebody else made. Raises UsageError where a link leads out.

    A link to /etc/shadow or ~/.ssh would otherwise come into the image, or into an error that shows its lines.
    """
    path = os.path.realpath(os.path.join(root, file))
    if os.path.commonpath([path, os.path.realpath(root)]) != os.path.realpath(root):
        raise UsageError(f"'{os.path.basename(file)}' leads out of the context")
    return path
