"""Which paths of a context `.dockerignore`, or `--exclude`, leaves out, by docker's rules.

A pattern that matches a directory matches what is below it; the last pattern that matches decides; `!` includes again.
The rules of a .dockerignore that a stranger wrote are hostile input: their size and their number are bounded, and
`Wildcard` bounds the time of a match.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from typing import NamedTuple

from rootless.builder.context.context_files import Match, matches
from rootless.builder.context.wildcard import Wildcard
from rootless.builder.dockerfile.problems import DockerfileError, Place
from rootless.builder.dockerfile.words import SPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.builder.context.context_files import Skip

MAX_BYTES = 1 << 20  # of one ignore file
MAX_PATTERNS = 10_000  # of one ignore file; each path of the context is compared with all of them


class _Rule(NamedTuple):
    wildcard: Wildcard
    is_exception: bool


class Ignore:
    """Patterns in their order. Paths are relative to the context, with slashes, without `.` and `..`.

    has_exceptions: some pattern begins with `!`.
    """

    __slots__ = ("_combined", "_longest", "_parents", "_rules", "has_exceptions")

    def __init__(self, rules: list[_Rule]) -> None:
        self._rules = rules
        self.has_exceptions = any(rule.is_exception for rule in rules)
        self._parents: dict[str, tuple[bool, ...]] = {}
        self._combined = None if self.has_exceptions else _combine(rules)
        self._longest = min((rule.wildcard.longest for rule in rules), default=0)

    @staticmethod
    def parse(content: bytes | str, name: str = ".dockerignore") -> Ignore:
        """The rules of an ignore file. name: the file's, for errors. Raises DockerfileError that shows the line."""
        if isinstance(content, str):
            content = content.encode("utf-8", "surrogatepass")
        if len(content) > MAX_BYTES:
            raise DockerfileError(Place(name, 1, 1, ""), f"larger than {MAX_BYTES >> 20} MiB")
        # File names are bytes. A pattern that is no UTF-8 is decoded as Python decodes such names, so that both compare
        text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        rules: list[_Rule] = []
        for number, line in enumerate(text.split("\n"), 1):
            pattern = line.strip(SPACES)
            if line.startswith("#") or not pattern:
                continue
            place = Place(name, number, number, line)
            if len(rules) == MAX_PATTERNS:
                raise DockerfileError(place, f"more than {MAX_PATTERNS} patterns")
            rules.append(_rule(pattern, place))
        return Ignore(rules)

    @staticmethod
    def of(patterns: Iterable[str], place: Place) -> Ignore:
        """The rules of `--exclude` flags at `place`. Raises DockerfileError."""
        stripped = (pattern.strip(SPACES) for pattern in patterns)
        return Ignore([_rule(pattern, place) for pattern in stripped if pattern])

    def __bool__(self) -> bool:
        return bool(self._rules)

    def excludes(self, path: str) -> bool:
        """Whether `path`, or a directory above it, is left out."""
        if not self._rules or path in ("", "."):
            return False
        if self._combined is not None:
            return self._is_matched(path) or self._parent_is_excluded(path)
        is_excluded = False
        for rule, is_match in zip(self._rules, self._matches(path), strict=True):
            if is_match:
                is_excluded = not rule.is_exception
        return is_excluded

    def _is_matched(self, path: str) -> bool:
        """Whether any rule matches `path` itself, where there are no exceptions."""
        if self._combined is not None and len(path) <= self._longest:
            return self._combined.fullmatch(path) is not None
        return any(rule.wildcard.fullmatch(path) for rule in self._rules)

    def _parent_is_excluded(self, path: str) -> bool:
        parent = posixpath.dirname(path)
        while parent:
            known = self._parents.get(parent)
            if known is None:
                known = self._remember(parent, (self._is_matched(parent),))
            if known[0]:
                return True
            parent = posixpath.dirname(parent)
        return False

    def _matches(self, path: str) -> tuple[bool, ...]:
        """For each rule, in order, whether it matches `path` or a directory above it."""
        pending: list[str] = []
        above = posixpath.dirname(path)
        while above and above not in self._parents:
            pending.append(above)
            above = posixpath.dirname(above)
        matched = self._parents[above] if above else (False,) * len(self._rules)
        for directory in reversed(pending):
            matched = self._remember(directory, self._extend(matched, directory))
        return self._extend(matched, path)

    def _extend(self, above: tuple[bool, ...], path: str) -> tuple[bool, ...]:
        return tuple(known or rule.wildcard.fullmatch(path) for known, rule in zip(above, self._rules, strict=True))

    def _remember(self, directory: str, matched: tuple[bool, ...]) -> tuple[bool, ...]:
        if len(self._parents) > 4096:  # memory is bounded; what is forgotten is computed again
            self._parents.clear()
        self._parents[directory] = matched
        return matched

    def may_hold(self, directory: str) -> bool:
        """False when nothing below `directory`, which is left out, can be included again: it need not be read then."""
        if not self.has_exceptions:
            return False
        names = directory.split("/")
        return any(rule.is_exception and _may_match_below(rule.wildcard.text, names) for rule in self._rules)


def _rule(pattern: str, place: Place) -> _Rule:
    is_exception = pattern.startswith("!")
    bare = pattern[1:].strip(SPACES) if is_exception else pattern
    if not bare:
        raise DockerfileError(place, f"'{pattern}' takes nothing back in", hint="write !PATTERN")
    cleaned = posixpath.normpath(bare)
    if len(cleaned) > 1:
        cleaned = cleaned.lstrip("/")
    if is_exception is False and cleaned.startswith("!"):
        cleaned = f"\\{cleaned}"  # './!name' is a file '!name', of which cleaning must not make an exception
    try:
        return _Rule(Wildcard(cleaned, is_docker=True), is_exception)
    except ValueError as e:
        raise DockerfileError(place, f"the pattern '{pattern[:100]}' is malformed: {e}") from None


def _combine(rules: list[_Rule]) -> re.Pattern[str] | None:
    """One regular expression for patterns without exceptions; None where a pattern has to be matched otherwise."""
    parts = [rule.wildcard.regex for rule in rules]
    if not parts or None in parts:
        return None
    return re.compile("|".join(f"(?:{part})" for part in parts), re.DOTALL)


def _may_match_below(pattern: str, names: list[str]) -> bool:
    """Whether `pattern` may match something below the directory whose path is `names`; True in doubt."""
    parts = pattern.split("/")
    for part, name in zip(parts, names, strict=False):
        if "**" in part or "[" in part or "\\" in part:
            return True
        if not Wildcard(part).fullmatch(name):
            return False
    return True


class Exclusions:
    """Both kinds of exclusion together. ignore: text of a .dockerignore; exclude: patterns of --exclude.

    Raises DockerfileError for a malformed pattern.
    """

    __slots__ = ("_exclude", "_ignore")

    def __init__(self, ignore: str, exclude: Sequence[str]) -> None:
        self._ignore = Ignore.parse(ignore)
        self._exclude = Ignore.of(exclude, Place("--exclude", 0, 0, " ".join(exclude)))

    def __bool__(self) -> bool:
        return bool(self._ignore) or bool(self._exclude)

    def leaves_out(self, path: str, is_directory: bool) -> bool:
        """Whether a source as a whole is left out. An ignored directory is not, while something in it is included."""
        if path and not is_directory and self._exclude.excludes(path.rpartition("/")[2]):
            return True
        return self._ignore.excludes(path) and not (is_directory and self._ignore.may_hold(path))

    def below(self, match: Match) -> tuple[Skip, Skip]:
        """(skip, may_hold) as `context_files.walk` takes them, for a walk below the directory that `match` means.

        --exclude counts from that directory, .dockerignore from the context.
        """
        cut = len(match.path) + 1 if match.path else 0

        def skip(path: str, is_directory: bool) -> bool:
            return self._ignore.excludes(path) or self._exclude.excludes(path[cut:])

        def may_hold(path: str, is_directory: bool) -> bool:
            ignored = not self._ignore.excludes(path) or self._ignore.may_hold(path)
            return ignored and (not self._exclude.excludes(path[cut:]) or self._exclude.may_hold(path[cut:]))

        return skip, may_hold


def all_matches(root: int, sources: Sequence[str], exclusions: Exclusions, *, wildcards: bool = True) -> list[Match]:
    """The files and directories that all `sources` mean in the directory `root` (fd), in the order of the sources.

    A pattern may match nothing, as in BuildKit. Raises NotFound, InvalidInput.
    """
    found: list[Match] = []
    for source in sources:
        found += matches(root, source, exclusions.leaves_out, wildcards=wildcards)
    return found
