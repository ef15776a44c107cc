"""The jobs for the process that works on layers, and its answers: one class for each.

worker_client writes a job and unpack_worker reads it; the answer goes the other way, and `worker_client.run_job`
returns it. Paths are absolute and lie in the user's store.
"""

from __future__ import annotations

from rootless.records.fields import Fields
from rootless.records.id_map import IdMap
from rootless.storage.layers.layer_record import LayerContent, LostAttributes
from rootless.storage.worker_jobs import QuietJob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import ClassVar

    from rootless.records.rootfs import RootfsPlan
    from rootless.storage.worker_jobs import Json


class UnpackJob:
    """Unpack an archive into the empty directory `target`, and write its recipe beside that. The archive's bytes follow
    the job on the same pipe. diff_id: the digest that the uncompressed tar must have, None when any will do.
    """

    __slots__ = ("diff_id", "target")
    operation: ClassVar[str] = "unpack"

    def __init__(self, target: str, diff_id: str | None) -> None:
        self.target = target
        self.diff_id = diff_id

    def to_json(self) -> Json:
        """The job as JSON values."""
        return {"target": self.target, "diff_id": self.diff_id}

    @classmethod
    def from_json(cls, fields: Fields) -> UnpackJob:
        """The reverse of `to_json`."""
        return cls(fields.text("target"), fields.optional_text("diff_id"))

    def read_answer(self, fields: Fields) -> Unpacked:
        """What was unpacked, and what is still to be done."""
        return Unpacked.from_json(fields)


class Unfinished:
    """What is left to do in an unpacked tree.

    links: (path, target) of hard links to files of the layers below; implied: directories without an entry of their
    own; replaced: name of the directory in the tree that holds what the archive has brought and then replaced, "" for
    none; whiteouts: paths that the layer deletes, of which some may be in no layer below.
    """

    __slots__ = ("implied", "links", "replaced", "whiteouts")

    def __init__(
        self, links: Sequence[tuple[str, str]], implied: Sequence[str], replaced: str, whiteouts: Sequence[str]
    ) -> None:
        self.links = links
        self.implied = implied
        self.replaced = replaced
        self.whiteouts = whiteouts

    @property
    def needs_lowers(self) -> bool:
        """Whether the layers below must be looked at."""
        return bool(self.links or self.implied or self.whiteouts)

    def to_json(self) -> Json:
        """The members of an answer or a job."""
        return {
            "links": [list(pair) for pair in self.links],
            "implied": list(self.implied),
            "replaced": self.replaced,
            "whiteouts": list(self.whiteouts),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Unfinished:
        """The reverse of `to_json`."""
        return cls(
            fields.text_pairs("links"),
            fields.texts("implied"),
            fields.text("replaced"),
            fields.texts("whiteouts"),
        )


class Unpacked:
    """The answer to UnpackJob."""

    __slots__ = ("content", "unfinished")

    def __init__(self, content: LayerContent, unfinished: Unfinished) -> None:
        self.content = content
        self.unfinished = unfinished

    def to_json(self) -> Json:
        """The answer as JSON values."""
        return {**self.content.to_json(), **self.unfinished.to_json()}

    @classmethod
    def from_json(cls, fields: Fields) -> Unpacked:
        """The reverse of `to_json`."""
        return cls(LayerContent.from_json(fields), Unfinished.from_json(fields))


class FinishJob(QuietJob):
    """Complete the tree `target` with the help of the layers below (topmost first), and take out what was replaced."""

    __slots__ = ("lowers", "target", "unfinished")
    operation: ClassVar[str] = "finish"

    def __init__(self, target: str, lowers: Sequence[str], unfinished: Unfinished) -> None:
        self.target = target
        self.lowers = lowers
        self.unfinished = unfinished

    def to_json(self) -> Json:
        """The job as JSON values."""
        return {"target": self.target, "lowers": list(self.lowers), **self.unfinished.to_json()}

    @classmethod
    def from_json(cls, fields: Fields) -> FinishJob:
        """The reverse of `to_json`."""
        return cls(fields.text("target"), fields.texts("lowers"), Unfinished.from_json(fields))


class RemapJob:
    """Copy the tree `source`, which has owners by the default id map, into the empty directory `target` with owners by
    `other_map`."""

    __slots__ = ("other_map", "source", "target")
    operation: ClassVar[str] = "remap"

    def __init__(self, source: str, target: str, other_map: IdMap) -> None:
        self.source = source
        self.target = target
        self.other_map = other_map

    def to_json(self) -> Json:
        """The job as JSON values."""
        return {"source": self.source, "target": self.target, "other_map": self.other_map.to_json()}

    @classmethod
    def from_json(cls, fields: Fields) -> RemapJob:
        """The reverse of `to_json`."""
        other_map = IdMap.from_fields(fields.require_member("other_map"))
        return cls(fields.text("source"), fields.text("target"), other_map)

    def read_answer(self, fields: Fields) -> LostAttributes:
        """What the copy could not keep."""
        return LostAttributes.from_json(fields)


class ViewJob:
    """Make one view (storage.files.layer_views) of the layers `layers`, the bottom one first, in the empty directory
    `target`, with owners by `other_map`. A layer is named by its directory in the directory `data`, which is the view's
    data-only layer, and its tree, with owners by the default map, is `diff` in it."""

    __slots__ = ("data", "layers", "other_map", "target")
    operation: ClassVar[str] = "view"

    def __init__(self, data: str, layers: Sequence[str], target: str, other_map: IdMap) -> None:
        self.data = data
        self.layers = list(layers)
        self.target = target
        self.other_map = other_map

    def to_json(self) -> Json:
        """The job as JSON values."""
        return {
            "data": self.data,
            "layers": self.layers,
            "target": self.target,
            "other_map": self.other_map.to_json(),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> ViewJob:
        """The reverse of `to_json`."""
        other_map = IdMap.from_fields(fields.require_member("other_map"))
        return cls(fields.text("data"), fields.texts("layers"), fields.text("target"), other_map)

    def read_answer(self, fields: Fields) -> LostAttributes:
        """What the view could not keep."""
        return LostAttributes.from_json(fields)


class DeleteJob(QuietJob):
    """Delete the tree `target`, whoever its files belong to."""

    __slots__ = ("target",)
    operation: ClassVar[str] = "delete"

    def __init__(self, target: str) -> None:
        self.target = target

    def to_json(self) -> Json:
        """The job as JSON values."""
        return {"target": self.target}

    @classmethod
    def from_json(cls, fields: Fields) -> DeleteJob:
        """The reverse of `to_json`."""
        return cls(fields.text("target"))


class RebuildJob(QuietJob):
    """Write the tars of layers one after the other to the descriptor `out`. names: the layers' directories in `top`."""

    __slots__ = ("names", "out", "top")
    operation: ClassVar[str] = "rebuild"

    def __init__(self, top: str, names: Sequence[str], out: int) -> None:
        self.top = top
        self.names = names
        self.out = out

    def to_json(self) -> Json:
        """The job as JSON values."""
        return {"top": self.top, "names": list(self.names), "out": self.out}

    @classmethod
    def from_json(cls, fields: Fields) -> RebuildJob:
        """The reverse of `to_json`."""
        return cls(fields.text("top"), fields.texts("names"), fields.integer("out"))


class VerifyJob:
    """Compare the tree of the layer in `directory` with its recipe and archive.

    lost: what unpacking could not keep; lowers: the trees of the layers below, topmost first, None when one is missing:
    then nobody can know which whiteouts delete something.
    """

    __slots__ = ("directory", "lost", "lowers")
    operation: ClassVar[str] = "verify"

    def __init__(self, directory: str, lost: LostAttributes, lowers: Sequence[str] | None) -> None:
        self.directory = directory
        self.lost = lost
        self.lowers = lowers

    def to_json(self) -> Json:
        """The job as JSON values."""
        known = {} if self.lowers is None else {"lowers": list(self.lowers)}
        return {"directory": self.directory, "lost": self.lost.to_json(), **known}

    @classmethod
    def from_json(cls, fields: Fields) -> VerifyJob:
        """The reverse of `to_json`."""
        lowers = fields.texts("lowers") if fields.has("lowers") else None
        return cls(fields.text("directory"), LostAttributes.from_json(fields.member("lost")), lowers)

    def read_answer(self, fields: Fields) -> Verified:
        """What the worker found to be different."""
        return Verified.from_json(fields)


class Verified:
    """The answer to VerifyJob. diff_id: digest of the tar as the tree gives it now; count: number of differences;
    texts: descriptions of the first ones."""

    __slots__ = ("count", "diff_id", "texts")

    def __init__(self, diff_id: str, count: int, texts: list[str]) -> None:
        self.diff_id = diff_id
        self.count = count
        self.texts = texts

    def to_json(self) -> Json:
        """The answer as JSON values."""
        return {"diff_id": self.diff_id, "count": self.count, "texts": self.texts}

    @classmethod
    def from_json(cls, fields: Fields) -> Verified:
        """The reverse of `to_json`."""
        return cls(fields.text("diff_id"), fields.integer("count"), fields.texts("texts"))


class MeasureJob:
    """Count the bytes and inodes on disk of files and trees."""

    __slots__ = ("paths",)
    operation: ClassVar[str] = "measure"

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    def to_json(self) -> Json:
        """The job as JSON values."""
        return {"paths": list(self.paths)}

    @classmethod
    def from_json(cls, fields: Fields) -> MeasureJob:
        """The reverse of `to_json`."""
        return cls(fields.texts("paths"))

    def read_answer(self, fields: Fields) -> Measured:
        """The sizes that the worker found."""
        return Measured.from_json(fields)


class Measured:
    """The answer to MeasureJob. sizes: for each path (allocated bytes, inodes, bytes of content), as in TreeSize."""

    __slots__ = ("sizes",)

    def __init__(self, sizes: Sequence[tuple[int, int, int]]) -> None:
        self.sizes = sizes

    def to_json(self) -> Json:
        """The answer as JSON values."""
        return {"sizes": list(self.sizes)}

    @classmethod
    def from_json(cls, fields: Fields) -> Measured:
        """The reverse of `to_json`."""
        return cls(fields.integer_triples("sizes"))


class Changed:
    """The container whose changes are asked for. plan: its storage driver's; container_map: its id map; exclude: paths
    where something is mounted: the runtime may have made them, and then they are no change."""

    __slots__ = ("container_map", "exclude", "plan")

    def __init__(self, plan: RootfsPlan, container_map: IdMap, exclude: Sequence[str]) -> None:
        self.plan = plan
        self.container_map = container_map
        self.exclude = exclude

    def to_json(self) -> Json:
        """The members of a job."""
        return {
            "plan": self.plan.to_json(),
            "container_map": self.container_map.to_json(),
            "exclude": list(self.exclude),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Changed:
        """The reverse of `to_json`."""
        from rootless.records.rootfs import RootfsPlan

        container_map = IdMap.from_fields(fields.require_member("container_map"))
        plan = RootfsPlan.from_json(fields.require_member("plan"))
        return cls(plan, container_map, fields.texts("exclude"))


class CommitJob:
    """Make a layer of what a container has changed, in the directory `target`, which has an empty `diff` in it.

    timestamp: seconds since the epoch, which replace any later time, None to keep all times; move: whether the writable
    directory may become the layer; squash: whether the layer is to hold the whole tree.
    """

    __slots__ = ("changed", "move", "squash", "target", "timestamp")
    operation: ClassVar[str] = "commit"

    def __init__(self, changed: Changed, target: str, timestamp: int | None, *, move: bool, squash: bool) -> None:
        self.changed = changed
        self.target = target
        self.timestamp = timestamp
        self.move = move
        self.squash = squash

    def to_json(self) -> Json:
        """The job as JSON values."""
        asked = {"target": self.target, "timestamp": self.timestamp, "move": self.move, "squash": self.squash}
        return {**self.changed.to_json(), **asked}

    @classmethod
    def from_json(cls, fields: Fields) -> CommitJob:
        """The reverse of `to_json`."""
        return cls(
            Changed.from_json(fields),
            fields.text("target"),
            fields.optional_integer("timestamp"),
            move=fields.flag("move"),
            squash=fields.flag("squash"),
        )

    def read_answer(self, fields: Fields) -> LayerContent:
        """What is in the layer: 0 entries when nothing was changed, and no layer was made."""
        return LayerContent.from_json(fields)


class ChangesJob:
    """List what a container has changed."""

    __slots__ = ("changed",)
    operation: ClassVar[str] = "changes"

    def __init__(self, changed: Changed) -> None:
        self.changed = changed

    def to_json(self) -> Json:
        """The job as JSON values."""
        return self.changed.to_json()

    @classmethod
    def from_json(cls, fields: Fields) -> ChangesJob:
        """The reverse of `to_json`."""
        return cls(Changed.from_json(fields))

    def read_answer(self, fields: Fields) -> ChangeList:
        """What the container has added, changed and deleted."""
        return ChangeList.from_json(fields)


class CompareJob:
    """List what is different between two images. one, other: the trees of their layers, topmost first."""

    __slots__ = ("one", "other")
    operation: ClassVar[str] = "compare"

    def __init__(self, one: Sequence[str], other: Sequence[str]) -> None:
        self.one = one
        self.other = other

    def to_json(self) -> Json:
        """The job as JSON values."""
        return {"one": list(self.one), "other": list(self.other)}

    @classmethod
    def from_json(cls, fields: Fields) -> CompareJob:
        """The reverse of `to_json`."""
        return cls(fields.texts("one"), fields.texts("other"))

    def read_answer(self, fields: Fields) -> ChangeList:
        """What `other` has added, changed and deleted."""
        return ChangeList.from_json(fields)


class ChangeList:
    """The answer to ChangesJob and CompareJob. changes: (kind, path) with A for added, C for changed, D for deleted."""

    __slots__ = ("changes",)

    def __init__(self, changes: list[tuple[str, str]]) -> None:
        self.changes = changes

    def to_json(self) -> Json:
        """The answer as JSON values."""
        return {"changes": self.changes}

    @classmethod
    def from_json(cls, fields: Fields) -> ChangeList:
        """The reverse of `to_json`."""
        return cls(fields.text_pairs("changes"))


if TYPE_CHECKING:
    LayerJob = (
        UnpackJob
        | FinishJob
        | RemapJob
        | ViewJob
        | DeleteJob
        | RebuildJob
        | VerifyJob
        | MeasureJob
        | CommitJob
        | ChangesJob
        | CompareJob
    )

LAYER_JOB_READERS: dict[str, Callable[[Fields], LayerJob]] = {
    each.operation: each.from_json
    for each in (
        UnpackJob,
        FinishJob,
        RemapJob,
        ViewJob,
        DeleteJob,
        RebuildJob,
        VerifyJob,
        MeasureJob,
        CommitJob,
        ChangesJob,
        CompareJob,
    )
}
