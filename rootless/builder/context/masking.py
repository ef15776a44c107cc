"""A layer of whiteouts that hides what .dockerignore leaves out, for contexts that are mounted and not copied.

Without it `RUN --mount=type=bind` would show a step the files that the user keeps from every build, such as .env or
.git.
"""

from __future__ import annotations

import os

from rootless.builder.context.context_files import DIRECTORY, Match, walk
from rootless.builder.context.ignore import Exclusions
from rootless.errors import HostLimit
from rootless.kernel.files import make_whiteout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.builder.context.contexts import Context


def mask(context: Context, directory: str) -> str:
    """Fill the empty `directory` with whiteouts, and return it. Over the context it hides all that the rules leave out.

    Its directories have the modes of the context's, which an upper layer's would otherwise replace. Raises HostLimit.
    """
    skip, may_hold = Exclusions(context.ignore, ()).below(Match("", "", "", True))
    root = context.open()
    try:
        status = os.fstat(root)
        os.chmod(directory, status.st_mode & 0o7777)
        hidden: list[str] = []

        def pruned(path: str, is_directory: bool) -> bool:
            """Whether the path is excluded as a whole, and so noted and not walked."""
            if not skip(path, is_directory) or (is_directory and may_hold(path, True)):
                return False
            hidden.append(path)
            return True

        for _ in walk(root, "", pruned):
            pass
        for path in hidden:
            _hide(root, directory, path)
    except OSError as e:
        raise HostLimit(f"cannot hide ignored files of the context: {e.strerror}") from e
    finally:
        os.close(root)
    return directory


def _hide(root: int, directory: str, path: str) -> None:
    here, names = directory, path.split("/")
    for position, name in enumerate(names[:-1]):
        here = f"{here}/{name}"
        try:
            os.mkdir(here, 0o700)
        except FileExistsError:
            continue
        status = os.stat("/".join(names[: position + 1]), dir_fd=root, follow_symlinks=False)
        os.chmod(here, status.st_mode & 0o7777 | 0o700)
    parent = os.open(here, DIRECTORY)
    try:
        make_whiteout(parent, names[-1])
    finally:
        os.close(parent)
