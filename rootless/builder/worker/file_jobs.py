"""The jobs of COPY and ADD for a build's worker, and their answers: what is taken from where, and how it is placed."""

from __future__ import annotations

from rootless.builder.worker.step_jobs import LayerTree, from_base64, read_id_map, read_trees, to_base64
from rootless.records.fields import Fields
from rootless.records.id_map import IdMap
from rootless.records.rootfs import RootfsPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import ClassVar


class NewDirectory:
    """A directory that a step makes, with its missing parents: WORKDIR."""

    __slots__ = ("path",)
    kind: ClassVar[str] = "directory"

    def __init__(self, path: str) -> None:
        self.path = path

    def to_json(self) -> dict[str, object]:
        """The directory as a member of a job."""
        return {"kind": self.kind, "path": self.path}

    @classmethod
    def from_json(cls, fields: Fields) -> NewDirectory:
        """The reverse of `to_json`. Raises InvalidInput."""
        return cls(fields.text("path"))


class InlineFile:
    """A file whose content the Dockerfile holds.

    A `destination` with a slash at its end is the directory for `name`.
    """

    __slots__ = ("content", "destination", "name")
    kind: ClassVar[str] = "content"

    def __init__(self, destination: str, name: str, content: bytes) -> None:
        self.destination = destination
        self.name = name
        self.content = content

    def to_json(self) -> dict[str, object]:
        """The value as a member of a job."""
        return {
            "kind": self.kind,
            "destination": self.destination,
            "name": self.name,
            "content": to_base64(self.content),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> InlineFile:
        """The reverse of `to_json`. Raises InvalidInput."""
        return cls(fields.text("destination"), fields.text("name"), from_base64(fields, "content"))


class TakenFiles:
    """Files that COPY or ADD takes from one root to `destination`.

    root: position of the root among the job's fds and, after them, its trees. sources: paths below that root, patterns
    too where `wildcards` is True; ignore: text of a .dockerignore; exclude: patterns of --exclude; parents: --parents;
    unpack: whether archives are unpacked.
    """

    __slots__ = ("destination", "exclude", "ignore", "parents", "root", "sources", "unpack", "wildcards")
    kind: ClassVar[str] = "files"

    def __init__(self, root: int, sources: Sequence[str], destination: str, *, wildcards: bool = True) -> None:
        self.root = root
        self.sources = list(sources)
        self.destination = destination
        self.wildcards = wildcards
        self.ignore = ""
        self.exclude: list[str] = []
        self.parents = False
        self.unpack = False

    def to_json(self) -> dict[str, object]:
        """The value as a member of a job."""
        return {
            "kind": self.kind,
            "root": self.root,
            "sources": self.sources,
            "destination": self.destination,
            "wildcards": self.wildcards,
            "ignore": self.ignore,
            "exclude": self.exclude,
            "parents": self.parents,
            "unpack": self.unpack,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> TakenFiles:
        """The reverse of `to_json`. Raises InvalidInput."""
        files = cls(
            fields.integer("root"),
            fields.texts("sources"),
            fields.text("destination"),
            wildcards=fields.flag("wildcards"),
        )
        files.ignore = fields.text("ignore")
        files.exclude = fields.texts("exclude")
        files.parents = fields.flag("parents")
        files.unpack = fields.flag("unpack")
        return files


class CopyJob:
    """COPY, ADD and WORKDIR: files placed on the mounted tree of `root`, or into the plain directory `into`.

    The fds that come with the job are the first roots that items name by position; the mounted `trees` are the next
    ones. owner: (uid, gid) of --chown; chmod: text of --chmod; is_owned: files keep their owners; keeps_set_id: files
    that do not keep them have their set-id bits all the same; timestamp: seconds, for what has no time of its own;
    latest: no time becomes later than these seconds; with_digest: the answer says what a DigestJob of the same items
    would say.
    """

    __slots__ = (
        "chmod", "directory", "id_map", "into", "is_owned", "items", "keeps_set_id", "latest", "owner", "rootfs",
        "timestamp", "trees", "with_digest",
    )  # fmt: skip
    operation: ClassVar[str] = "copy"

    def __init__(self, directory: str, id_map: IdMap, items: Sequence[Item]) -> None:
        self.directory = directory
        self.id_map = id_map
        self.items = list(items)
        self.rootfs: RootfsPlan | None = None
        self.into: str | None = None
        self.trees: list[LayerTree] = []
        self.owner: tuple[int, int] | None = None
        self.chmod = ""
        self.is_owned = False
        self.keeps_set_id = False
        self.timestamp = 0
        self.latest: int | None = None
        self.with_digest = False

    def to_json(self) -> dict[str, object]:
        """The job as the payload of a message."""
        return {
            "directory": self.directory,
            "id_map": self.id_map.to_json(),
            "items": [each.to_json() for each in self.items],
            "rootfs": self.rootfs.to_json() if self.rootfs is not None else None,
            "into": self.into,
            "trees": [tree.to_json() for tree in self.trees],
            "owner": [self.owner] if self.owner is not None else [],
            "chmod": self.chmod,
            "is_owned": self.is_owned,
            "keeps_set_id": self.keeps_set_id,
            "with_digest": self.with_digest,
            "timestamp": self.timestamp,
            **({"latest": self.latest} if self.latest is not None else {}),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> CopyJob:
        """The reverse of `to_json`. Raises InvalidInput."""
        items = [_ITEMS[each.text("kind")](each) for each in fields.objects("items")]
        job = cls(fields.text("directory"), read_id_map(fields), items)
        rootfs = fields.member("rootfs")
        job.rootfs = RootfsPlan.from_json(rootfs) if rootfs is not None else None
        job.into = fields.optional_text("into")
        job.trees = read_trees(fields)
        job.owner = next(iter(fields.integer_pairs("owner")), None)
        job.chmod = fields.text("chmod")
        job.is_owned = fields.flag("is_owned")
        job.keeps_set_id = fields.flag("keeps_set_id")
        job.with_digest = fields.flag("with_digest")
        job.timestamp = fields.integer("timestamp")
        job.latest = fields.integer("latest") if fields.has("latest") else None
        return job

    def read_answer(self, fields: Fields) -> CopyAnswer:
        """The answer of a worker to this job. Raises InvalidInput."""
        return CopyAnswer.from_json(fields)


class CopyAnswer:
    """What a copy has met.

    skipped: number of special files that could not be made; changed: latest ctime (ns) read; digest: of what was
    copied, 64 hexadecimal digits, "" where the job does not ask for it; unmatched: the sources of items whose patterns
    match nothing.
    """

    __slots__ = ("changed", "digest", "skipped", "unmatched")

    def __init__(self, skipped: int, changed: int, digest: str = "", unmatched: Sequence[str] = ()) -> None:
        self.skipped = skipped
        self.changed = changed
        self.digest = digest
        self.unmatched = list(unmatched)

    def to_json(self) -> dict[str, object]:
        """The answer as the payload of a message."""
        return {
            "skipped": self.skipped,
            "changed": self.changed,
            "digest": self.digest,
            "unmatched": self.unmatched,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> CopyAnswer:
        """The reverse of `to_json`. Raises InvalidInput."""
        return cls(
            fields.integer("skipped"), fields.integer("changed"), fields.text("digest"), fields.texts("unmatched")
        )


class DigestJob:
    """COPY --from: the digest of what items take from trees, for the cache key. Roots are numbered as in CopyJob."""

    __slots__ = ("id_map", "items", "trees")
    operation: ClassVar[str] = "digest"

    def __init__(self, id_map: IdMap, trees: Sequence[LayerTree], items: Sequence[TakenFiles]) -> None:
        self.id_map = id_map
        self.trees = list(trees)
        self.items = list(items)

    def to_json(self) -> dict[str, object]:
        """The job as the payload of a message."""
        return {
            "id_map": self.id_map.to_json(),
            "trees": [tree.to_json() for tree in self.trees],
            "items": [each.to_json() for each in self.items],
        }

    @classmethod
    def from_json(cls, fields: Fields) -> DigestJob:
        """The reverse of `to_json`. Raises InvalidInput."""
        return cls(
            read_id_map(fields), read_trees(fields), [TakenFiles.from_json(each) for each in fields.objects("items")]
        )

    def read_answer(self, fields: Fields) -> str:
        """The answer of a worker to this job: the digest, 64 hexadecimal digits. Raises InvalidInput."""
        return fields.text("digest")


if TYPE_CHECKING:
    Item = NewDirectory | InlineFile | TakenFiles
    FileJob = CopyJob | DigestJob

_ITEMS: dict[str, Callable[[Fields], Item]] = {
    each.kind: each.from_json for each in (NewDirectory, InlineFile, TakenFiles)
}
FILE_JOB_READERS: dict[str, Callable[[Fields], FileJob]] = {
    each.operation: each.from_json for each in (CopyJob, DigestJob)
}
