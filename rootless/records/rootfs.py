"""The format of a storage driver's plan: how layers and a writable directory become one root filesystem.

It is the member "rootfs" of launch.json, and of the jobs of workers that mount a tree.
"""

from __future__ import annotations

from rootless.records.fields import Fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class RootfsPlan:
    """What a storage driver is to mount. Every path is the user's own, none comes from an image.

    driver: a name of storage.drivers; lowerdirs: directories of the layers, the topmost first; upper: the writable
    directory; work: a directory beside it that only the driver uses, "" without; directory: the container's, which
    holds both; volatile: the changes need not survive a crash of the host. copied: where `upper` was filled with a copy
    of the layers, the change time in ns that its root had then: what is newer was changed by the container. program,
    site_packages: of a driver whose helper process is started later, by a process that does not look for them.
    """

    __slots__ = ("copied", "directory", "driver", "lowerdirs", "program", "site_packages", "upper", "volatile", "work")

    def __init__(self, driver: str, directory: str, lowerdirs: Sequence[str], *, volatile: bool = False) -> None:
        self.driver = driver
        self.directory = directory
        self.lowerdirs = list(lowerdirs)
        self.upper = f"{directory}/upper"
        self.work = ""
        self.volatile = volatile
        self.copied = 0
        self.program = ""
        self.site_packages: list[str] = []

    def to_json(self) -> dict[str, object]:
        """The plan as the JSON object "rootfs"; keys of one driver are there only where it sets them."""
        value: dict[str, object] = {
            "driver": self.driver,
            "lowerdirs": self.lowerdirs,
            "upper": self.upper,
            "work": self.work,
            "volatile": self.volatile,
            "options": [],  # always empty; readers of earlier versions may count on the key
            "directory": self.directory,
        }
        if self.copied:
            value["copied"] = self.copied
        if self.program:
            value |= {"program": self.program, "site_packages": self.site_packages}
        return value

    @classmethod
    def from_json(cls, fields: Fields) -> RootfsPlan:
        """The reverse of `to_json`. Raises InvalidInput naming the file and the key."""
        plan = cls(fields.text("driver"), fields.text("directory"), fields.texts("lowerdirs"))
        plan.upper = fields.text("upper")
        plan.work = fields.text("work", "")
        plan.volatile = fields.flag("volatile")
        plan.copied = fields.integer("copied", 0)
        plan.program = fields.text("program", "")
        plan.site_packages = fields.texts("site_packages")
        return plan

    @classmethod
    def from_job(cls, known: object) -> RootfsPlan:
        """The plan in a job that our own process wrote. Raises InvalidInput."""
        return cls.from_json(Fields(known, "the worker's job", "rootfs"))
