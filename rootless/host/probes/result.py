"""What the attempt of a probe found, as a value."""

from __future__ import annotations


class Probe:
    """What an attempt found. works: whether it succeeded; detail: what was seen, or why not; remedy: what helps."""

    __slots__ = ("detail", "name", "remedy", "works")

    def __init__(self, name: str, works: bool, detail: str, remedy: str | None = None) -> None:
        self.name = name
        self.works = works
        self.detail = detail
        self.remedy = remedy

    def __repr__(self) -> str:
        return f"Probe({self.name!r}, {self.works}, {self.detail!r}, {self.remedy!r})"

    def to_json(self) -> dict[str, object]:
        """The probe as JSON values."""
        return {"name": self.name, "works": self.works, "detail": self.detail, "remedy": self.remedy}
