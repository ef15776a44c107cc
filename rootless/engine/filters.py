"""--filter KEY=VALUE of ps, volume ls and the prunes: which keys there are, and docker's meaning of each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rootless.errors import UsageError
from rootless.units import parse_moment


class Filters:
    """The filters of one command. Raises UsageError for a key that it does not know."""

    __slots__ = ("_before", "_values")

    def __init__(self, values: Mapping[str, Sequence[str]], known: Iterable[str]) -> None:
        allowed = tuple(known)
        for key in values:
            if key not in allowed:
                raise UsageError(f"invalid filter '{key}'", hint=f"known are {', '.join(sorted(allowed))}")
        self._values = values
        moments = values.get("until") or ()
        self._before = min((parse_moment(text, "--filter until") for text in moments), default=None)

    def get(self, key: str) -> Sequence[str]:
        """The values given for `key`."""
        return self._values.get(key) or ()

    def has_labels(self, labels: Mapping[str, str]) -> bool:
        """`label`: all of them are there (KEY, or KEY=VALUE); `label!`: none of them is."""
        return all(_has(labels, text) for text in self.get("label")) and not any(
            _has(labels, text) for text in self.get("label!")
        )

    def is_before(self, created: float) -> bool:
        """`until`: made before that time."""
        return self._before is None or created < self._before

    def any_of(self, key: str, *found: str) -> bool:
        """No filter for `key`, or one of its values is among `found`."""
        wanted = self.get(key)
        return not wanted or any(value in found for value in wanted)

    def boolean(self, key: str) -> bool | None:
        """The value of a filter that is true or false; None when it was not given."""
        result = None
        for text in self.get(key):
            if text.lower() not in ("true", "1", "false", "0"):
                raise UsageError(f"invalid filter '{key}={text}'", hint="write true or false")
            result = text.lower() in ("true", "1")
        return result


def _has(labels: Mapping[str, str], text: str) -> bool:
    name, equals, value = text.partition("=")
    return name in labels and (not equals or labels[name] == value)
