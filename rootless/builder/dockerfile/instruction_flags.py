"""Which flags an instruction takes, and their values. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rootless.builder.dockerfile.problems import DockerfileError, Place, did_you_mean

TEXT, BOOLEAN, LIST = "text", "boolean", "list"

KNOWN: dict[str, dict[str, str]] = {
    "FROM": {"platform": TEXT},
    "RUN": {"mount": LIST, "network": TEXT, "security": TEXT},
    "COPY": {
        "from": TEXT,
        "chown": TEXT,
        "chmod": TEXT,
        "link": BOOLEAN,
        "parents": BOOLEAN,
        "exclude": LIST,
    },
    "ADD": {
        "checksum": TEXT,
        "chown": TEXT,
        "chmod": TEXT,
        "link": BOOLEAN,
        "keep-git-dir": BOOLEAN,
        "exclude": LIST,
        "unpack": BOOLEAN,
    },
    "HEALTHCHECK": {"interval": TEXT, "timeout": TEXT, "start-period": TEXT, "start-interval": TEXT, "retries": TEXT},
}


class Flags:
    """The flags of one instruction. Raises DockerfileError for unknown, repeated and malformed ones."""

    __slots__ = ("_booleans", "_lists", "_texts")

    def __init__(self, place: Place, instruction: str, words: Sequence[str]) -> None:
        self._texts: dict[str, str] = {}
        self._booleans: dict[str, bool] = {}
        self._lists: dict[str, list[str]] = {}
        known = KNOWN.get(instruction, {})
        for word in words:
            name, equals, value = word[2:].partition("=")
            kind = known.get(name)
            if kind is None:
                names = [f"--{one}" for one in known]
                hint = f"{instruction} takes {', '.join(names)}" if names else f"{instruction} takes no flags"
                near = did_you_mean(f"--{name}", names)
                raise DockerfileError(place, f"unknown flag '--{name}' of {instruction}{near}", hint=hint)
            if kind != LIST and (name in self._texts or name in self._booleans):
                raise DockerfileError(place, f"flag '--{name}' is given twice")
            if kind == BOOLEAN:
                if value.lower() not in ("", "true", "false") or (equals and not value):
                    raise DockerfileError(place, f"flag '--{name}' is true or false, not '{value}'")
                self._booleans[name] = value.lower() != "false"
            elif not equals:
                raise DockerfileError(place, f"flag '--{name}' needs a value", hint=f"write --{name}=VALUE")
            elif kind == TEXT:
                self._texts[name] = value
            else:
                self._lists.setdefault(name, []).append(value)

    def text(self, name: str) -> str:
        """The value, "" when not given."""
        return self._texts.get(name, "")

    def boolean(self, name: str) -> bool:
        """The value, False when not given."""
        return self._booleans.get(name, False)

    def maybe(self, name: str) -> bool | None:
        """The value, None when not given."""
        return self._booleans.get(name)

    def list(self, name: str) -> tuple[str, ...]:
        """Every value of a flag that may be repeated."""
        return tuple(self._lists.get(name, ()))
