"""What the attempt of a probe found, as a value."""

from __future__ import annotations


class Probe:
    """What an attempt found. works: whether it succeeded; detail: what was seen, or why not; remedy: what helps.

    flaw: what it does wrong although it works, "" for nothing: another way without a flaw is preferred.
    """

    __slots__ = ("detail", "flaw", "name", "remedy", "works")

    def __init__(self, name: str, works: bool, detail: str, remedy: str | None = None, *, flaw: str = "") -> None:
        self.name = name
        self.works = works
        self.detail = detail
        self.remedy = remedy
        self.flaw = flaw

    def __repr__(self) -> str:
        return f"Probe({self.name!r}, {self.works}, {self.detail!r}, {self.remedy!r})"

    def to_json(self) -> dict[str, object]:
        """The probe as JSON values; `flaw` only where there is one."""
        content: dict[str, object] = {"name": self.name, "works": self.works}
        content |= {"detail": self.detail, "remedy": self.remedy}
        return content | {"flaw": self.flaw} if self.flaw else content
