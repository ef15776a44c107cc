"""The filters (--filter KEY=VALUE) of `ps`, `volume ls` and the prunes, with docker's meaning of each key. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rootless.errors import UsageError
from rootless.units import parse_moment


class Filters:
    """The filters of one command. known: the keys that it takes. Raises UsageError for others, and for a wrong time."""

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
        """Whether the labels have all that `label` names (KEY, or KEY=VALUE), and none that `label!` names."""
        return all(_has(labels, text) for text in self.get("label")) and not any(
            _has(labels, text) for text in self.get("label!")
        )

    def is_before(self, created: float) -> bool:
        """Whether an object made at `created` (seconds since the epoch) is older than `until`, if that is given."""
        return self._before is None or created < self._before

    def any_of(self, key: str, *found: str) -> bool:
        """Whether there is no filter for `key`, or one of its values is among `found`."""
        wanted = self.get(key)
        return not wanted or any(value in found for value in wanted)

    def boolean(self, key: str) -> bool | None:
        """The last value of a filter that is true or false; None when there is no such filter. Raises UsageError."""
        result = None
        for text in self.get(key):
            if text.lower() not in ("true", "1", "false", "0"):
                raise UsageError(f"invalid filter '{key}={text}'", hint="write true or false")
            result = text.lower() in ("true", "1")
        return result


def _has(labels: Mapping[str, str], text: str) -> bool:
    name, equals, value = text.partition("=")
    return name in labels and (not equals or labels[name] == value)
