"""Which build checks are wanted: `skip=RULE,RULE;experimental=RULE;error=true`, as BuildKit writes it. Pure.

Such a text stands in the directive `# check=` at the top of a Dockerfile, in the build argument
BUILDKIT_DOCKERFILE_CHECK, which replaces the directive, and in a comment `# check=` directly above an instruction, for
which it holds alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

ALL = "all"
_COMMENT = re.compile(r"check\s*=\s*(\S+)", re.ASCII | re.IGNORECASE)
_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


class CheckOptions(NamedTuple):
    """Which checks are wanted.

    skip, experimental: names of rules in lower case that are off and on, with "all" for every one; is_error: a finding
    is an error and no warning.
    """

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    is_error: bool = False

    def wants(self, rule: str, *, is_experimental: bool) -> bool:
        """Whether the findings of `rule` are wanted. An experimental rule is off until `experimental` names it, and
        `skip` does not turn it off again."""
        if is_experimental:
            return bool({ALL, rule.lower()} & self.experimental)
        return not {ALL, rule.lower()} & self.skip


def parse(text: str) -> CheckOptions:
    """The options in `text`, "" for none. Raises ValueError, whose text names the option that is malformed."""
    found = CheckOptions()
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, value = (word.strip() for word in part.partition("="))
        if name in ("skip", "experimental") and equals:
            rules = frozenset(rule.strip().lower() for rule in value.split(",") if rule.strip())
            found = found._replace(skip=rules) if name == "skip" else found._replace(experimental=rules)
        elif name == "error" and value.lower() in _BOOLEANS:
            found = found._replace(is_error=_BOOLEANS[value.lower()])
        else:
            raise ValueError(f"invalid check option '{part}'")
    return found


def of_comments(comments: Iterable[str]) -> CheckOptions:
    """The options in the first of an instruction's comments that is `check=OPTIONS`; what follows a space is prose.

    As by BuildKit, a malformed one is a comment like any other.
    """
    for comment in comments:
        match = _COMMENT.match(comment)
        if match is not None:
            try:
                return parse(match[1])
            except ValueError:
                break
    return CheckOptions()


def is_options(comment: str) -> bool:
    """Whether `comment`, without its `#`, is a `check=OPTIONS` and no description."""
    return _COMMENT.match(comment) is not None
