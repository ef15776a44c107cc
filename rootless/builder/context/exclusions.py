"""What a COPY leaves out: `.dockerignore` by paths of the context, `--exclude` by paths of what is copied. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootless.builder.context.context_files import Match, matches
from rootless.builder.context.ignore import Ignore
from rootless.builder.dockerfile.problems import Place
from rootless.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.builder.context.context_files import Skip


class Exclusions:
    """ignore: text of .dockerignore; exclude: patterns of --exclude."""

    __slots__ = ("_exclude", "_ignore")

    def __init__(self, ignore: str, exclude: Sequence[str]) -> None:
        self._ignore = Ignore.parse(ignore)
        self._exclude = Ignore.of(exclude, Place("--exclude", 0, 0, " ".join(exclude)))

    def __bool__(self) -> bool:
        return bool(self._ignore) or bool(self._exclude)

    def leaves_out(self, path: str, is_directory: bool) -> bool:
        """Whether a source as a whole is not there: an ignored directory may still have something for us."""
        if path and not is_directory and self._exclude.excludes(path.rpartition("/")[2]):
            return True
        return self._ignore.excludes(path) and not (is_directory and self._ignore.may_hold(path))

    def below(self, match: Match) -> tuple[Skip, Skip]:
        """(skip, may hold) for a walk below a directory that is copied."""
        cut = len(match.path) + 1 if match.path else 0

        def skip(path: str, is_directory: bool) -> bool:
            return self._ignore.excludes(path) or self._exclude.excludes(path[cut:])

        def may_hold(path: str, is_directory: bool) -> bool:
            ignored = not self._ignore.excludes(path) or self._ignore.may_hold(path)
            return ignored and (not self._exclude.excludes(path[cut:]) or self._exclude.may_hold(path[cut:]))

        return skip, may_hold


def all_matches(root: int, sources: Sequence[str], exclusions: Exclusions, *, wildcards: bool = True) -> list[Match]:
    """What all `sources` mean. A pattern may mean nothing, but not all of them. Raises NotFound."""
    found: list[Match] = []
    for source in sources:
        found += matches(root, source, exclusions.leaves_out, wildcards=wildcards)
    if not found and sources:
        raise NotFound(f"no file matches '{' '.join(sources)}'")
    return found
