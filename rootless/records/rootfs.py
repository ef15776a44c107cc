"""The format of a storage driver's plan: how layers and a writable directory become one root filesystem.

It is the member "rootfs" of launch.json, and of the jobs of workers that mount a tree.
"""

from __future__ import annotations

from rootless.records.fields import Fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class ShownOwners:
    """How the owners on disk become those that a container sees, where its layers and `upper` have the owners of
    another id map than its own (`--userns=keep-id` on the layers that all containers share).

    uids, gids: (the id on disk, the id to show, how many ids follow) each; both ids are the host's.
    """

    __slots__ = ("gids", "uids")

    def __init__(self, uids: Sequence[tuple[int, int, int]], gids: Sequence[tuple[int, int, int]]) -> None:
        self.uids = tuple(uids)
        self.gids = tuple(gids)

    def to_json(self) -> dict[str, object]:
        """The member "owners" of "rootfs"."""
        return {"uids": [list(each) for each in self.uids], "gids": [list(each) for each in self.gids]}

    @classmethod
    def from_json(cls, fields: Fields) -> ShownOwners:
        """The reverse of `to_json`. Raises InvalidInput naming the file and the key."""
        uids, gids = fields.integer_triples("uids"), fields.integer_triples("gids")
        return cls([(a, b, c) for a, b, c in uids], [(a, b, c) for a, b, c in gids])


class RootfsPlan:
    """What a storage driver is to mount. Every path is the user's own, none comes from an image.

    driver: a name of storage.drivers; lowerdirs: directories of the layers, the topmost first; upper: the writable
    directory; work: a directory beside it that only the driver uses, "" without; directory: the container's, which
    holds both; volatile: the changes need not survive a crash of the host. copied: where `upper` was filled with a copy
    of the layers, the change time in ns that its root had then: what is newer was changed by the container. program,
    site_packages: of a driver whose helper process is started later, by a process that does not look for them. owners:
    the owners that the driver has to show in place of those on disk, None for these. content: where `lowerdirs` are
    views (storage.files.layer_views), the directory below which the content of their files is; "" where they are not.
    """

    __slots__ = ("content", "copied", "directory", "driver", "lowerdirs", "owners", "program", "site_packages", "upper",
                 "volatile", "work")  # fmt: skip

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
        self.owners: ShownOwners | None = None
        self.content = ""

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
        if self.content:
            value["content"] = self.content
        if self.owners is not None:
            value["owners"] = self.owners.to_json()
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
        plan.content = fields.text("content", "")
        owners = fields.member("owners")
        plan.owners = None if owners is None else ShownOwners.from_json(owners)
        return plan

    @classmethod
    def from_job(cls, known: object) -> RootfsPlan:
        """The plan in a job that our own process wrote. Raises InvalidInput."""
        return cls.from_json(Fields(known, "the worker's job", "rootfs"))
