"""The messages between the engine and storage.roots.transfer_worker: the container, then requests and their answers.

Each message is one frame, a length and JSON. Archives go through other descriptors.
"""

from __future__ import annotations

from rootless.errors import InvalidInput
from rootless.records.fields import Fields
from rootless.records.id_map import IdMap
from rootless.records.rootfs import RootfsPlan

TYPE_CHECKING = False

_FILE = "a message about files of a container"


class BoundMount:
    """A directory or file of the host that a container has at `target`."""

    __slots__ = ("read_only", "source", "target")

    def __init__(self, source: str, target: str, *, read_only: bool) -> None:
        self.source = source
        self.target = target
        self.read_only = read_only

    def to_json(self) -> dict[str, object]:
        """The mount as JSON values."""
        return {"source": self.source, "target": self.target, "read_only": self.read_only}

    @classmethod
    def from_json(cls, fields: Fields) -> BoundMount:
        """The reverse of `to_json`."""
        return cls(fields.text("source"), fields.text("target"), read_only=fields.flag("read_only"))


class TransferJob:
    """The first message: the container whose files are to be read or written.

    directory: the container's; plan: how its tree is mounted when it does not run; pid, started: pid and start time of
    its first process, 0 when it does not run; writes: whether files will be placed; bare: whether to leave out what is
    mounted in its tree; read_only: whether the tree itself, without its mounts, may not be written to; binds: its
    mounts, outer ones before those inside of them; seeds: volumes (source, target) that are to get the image's files
    when they are still new.
    """

    __slots__ = (
        "bare", "binds", "directory", "id_map", "pid", "plan", "read_only", "seeds", "started", "writes",
    )  # fmt: skip

    def __init__(self, directory: str, id_map: IdMap, plan: RootfsPlan) -> None:
        self.directory = directory
        self.id_map = id_map
        self.plan = plan
        self.pid = 0
        self.started = 0
        self.writes = False
        self.bare = False
        self.read_only = False
        self.binds: list[BoundMount] = []
        self.seeds: list[tuple[str, str]] = []

    def to_json(self) -> dict[str, object]:
        """The message as JSON values."""
        return {
            "directory": self.directory,
            "id_map": self.id_map.to_json(),
            "plan": self.plan.to_json(),
            "pid": self.pid,
            "started": self.started,
            "writes": self.writes,
            "bare": self.bare,
            "read_only": self.read_only,
            "binds": [bind.to_json() for bind in self.binds],
            "seeds": [{"source": source, "target": target} for source, target in self.seeds],
        }

    @classmethod
    def from_json(cls, known: object) -> TransferJob:
        """The reverse of `to_json`; raises InvalidInput for a member that is missing or of a wrong type."""
        fields = Fields(known, _FILE)
        id_map, plan = IdMap.from_json(fields.mapping("id_map")), RootfsPlan.from_job(fields.mapping("plan"))
        job = cls(fields.text("directory"), id_map, plan)
        job.pid = fields.integer("pid")
        job.started = fields.integer("started")
        job.writes = fields.flag("writes")
        job.bare = fields.flag("bare")
        job.read_only = fields.flag("read_only")
        job.binds = [BoundMount.from_json(entry) for entry in fields.objects("binds")]
        job.seeds = [(entry.text("source"), entry.text("target")) for entry in fields.objects("seeds")]
        return job


class SourceRequest:
    """Find what is to be copied out. follow: whether a link at the end of the path is followed."""

    __slots__ = ("follow", "path")
    verb = "source"

    def __init__(self, path: str, *, follow: bool) -> None:
        self.path = path
        self.follow = follow

    def to_json(self) -> dict[str, object]:
        """The message as JSON values."""
        return {"verb": self.verb, "path": self.path, "follow": self.follow}

    @classmethod
    def from_json(cls, fields: Fields) -> SourceRequest:
        """The reverse of `to_json`."""
        return cls(fields.text("path"), follow=fields.flag("follow"))


class PackRequest:
    """Write what SourceRequest has found as an archive. name: the name that it has in the archive."""

    __slots__ = ("name",)
    verb = "pack"

    def __init__(self, name: str) -> None:
        self.name = name

    def to_json(self) -> dict[str, object]:
        """The message as JSON values."""
        return {"verb": self.verb, "name": self.name}

    @classmethod
    def from_json(cls, fields: Fields) -> PackRequest:
        """The reverse of `to_json`."""
        return cls(fields.text("name"))


class DestinationRequest:
    """Find where to copy to; links are followed to their end."""

    __slots__ = ("path",)
    verb = "destination"

    def __init__(self, path: str) -> None:
        self.path = path

    def to_json(self) -> dict[str, object]:
        """The message as JSON values."""
        return {"verb": self.verb, "path": self.path}

    @classmethod
    def from_json(cls, fields: Fields) -> DestinationRequest:
        """The reverse of `to_json`."""
        return cls(fields.text("path"))


class PlaceRequest:
    """Place an archive at what DestinationRequest has found.

    inside: whether it goes into the directory found, else into the directory that holds it, under the archive's own
    names; owners: whether files get the archive's owners, else they belong to 0:0, or to the first ids of a container
    without that; overwrite: whether a directory may replace a file, and the reverse; keep: whether existing directories
    get the archive's attributes, and set-id bits stay.
    """

    __slots__ = ("inside", "keep", "overwrite", "owners")
    verb = "place"

    def __init__(self, *, inside: bool, owners: bool, overwrite: bool, keep: bool) -> None:
        self.inside = inside
        self.owners = owners
        self.overwrite = overwrite
        self.keep = keep

    def to_json(self) -> dict[str, object]:
        """The message as JSON values."""
        members = {"inside": self.inside, "owners": self.owners, "overwrite": self.overwrite, "keep": self.keep}
        return {"verb": self.verb, **members}

    @classmethod
    def from_json(cls, fields: Fields) -> PlaceRequest:
        """The reverse of `to_json`."""
        return cls(
            inside=fields.flag("inside"),
            owners=fields.flag("owners"),
            overwrite=fields.flag("overwrite"),
            keep=fields.flag("keep"),
        )


class ExportRequest:
    """Write the archive of the whole tree."""

    __slots__ = ()
    verb = "export"

    def to_json(self) -> dict[str, object]:
        """The message as JSON values."""
        return {"verb": self.verb}

    @classmethod
    def from_json(cls, fields: Fields) -> ExportRequest:
        """The reverse of `to_json`."""
        return cls()


if TYPE_CHECKING:
    TransferRequest = SourceRequest | PackRequest | DestinationRequest | PlaceRequest | ExportRequest

_REQUESTS: tuple[type[TransferRequest], ...] = (
    SourceRequest,
    PackRequest,
    DestinationRequest,
    PlaceRequest,
    ExportRequest,
)


def read_request(known: object) -> TransferRequest:
    """The request in a message; raises InvalidInput for a verb that nobody knows and a member of a wrong type."""
    fields = Fields(known, _FILE)
    verb = fields.text("verb")
    for kind in _REQUESTS:
        if kind.verb == verb:
            return kind.from_json(fields)
    raise InvalidInput(f"{_FILE} asks for '{verb}', which is unknown")


class TransferAnswer:
    """The answer to any request.

    exists, is_directory: what was found; name: the last name of the path to which a destination leads; size: bytes of
    the files copied; lost: number of devices that could not be made.
    """

    __slots__ = ("exists", "is_directory", "lost", "name", "size")

    def __init__(self, *, exists: bool = False, is_directory: bool = False, name: str = "", size: int = 0) -> None:
        self.exists = exists
        self.is_directory = is_directory
        self.name = name
        self.size = size
        self.lost = 0

    def to_json(self) -> dict[str, object]:
        """The message as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, known: object) -> TransferAnswer:
        """The reverse of `to_json`.

        Raises InvalidInput for a member of a wrong type: the container may have taken over the process that wrote it.
        """
        fields = Fields(known, _FILE)
        answer = cls(
            exists=fields.flag("exists"),
            is_directory=fields.flag("is_directory"),
            name=fields.text("name", ""),
            size=fields.integer("size", 0),
        )
        answer.lost = fields.integer("lost", 0)
        return answer
