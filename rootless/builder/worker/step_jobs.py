"""The jobs of a build's worker processes and their answers: one class each, which giver and doer share.

The values of a message are checked on arrival: a wrong one raises InvalidInput with its key. `job_channel` says how
messages are sent.
"""

from __future__ import annotations

from rootless.errors import InvalidInput
from rootless.records.fields import Fields
from rootless.records.id_map import IdMap
from rootless.records.launch import RootEmulation
from rootless.records.rootfs import RootfsPlan
from rootless.storage.worker_jobs import QuietJob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import ClassVar


class LayerTree:
    """A tree of layers that a job mounts on the directory `target`. What is written to it is thrown away."""

    __slots__ = ("rootfs", "target")

    def __init__(self, rootfs: RootfsPlan, target: str) -> None:
        self.rootfs = rootfs
        self.target = target

    def to_json(self) -> dict[str, object]:
        """The tree as a member of a job."""
        return {"rootfs": self.rootfs.to_json(), "target": self.target}

    @classmethod
    def from_json(cls, fields: Fields) -> LayerTree:
        """The reverse of `to_json`. Raises InvalidInput."""
        return cls(_plan(fields), fields.text("target"))


class BoundPart:
    """A part of a tree that RUN --mount shows in the step's root.

    root: the host's path of the tree; source: the part, a path inside of it; target: where the step sees it. make:
    (uid, gid, mode) with which `source` is made as a directory when it is missing; None: it must be there. give:
    (uid, gid, mode) that `source`, which is there, gets before it is mounted; None leaves it as it is.
    """

    __slots__ = ("give", "make", "read_only", "root", "source", "target")

    def __init__(self, root: str, source: str, target: str, *, read_only: bool) -> None:
        self.root = root
        self.source = source
        self.target = target
        self.read_only = read_only
        self.make: tuple[int, int, int] | None = None
        self.give: tuple[int, int, int] | None = None

    def to_json(self) -> dict[str, object]:
        """The part as a member of a job."""
        values = {"root": self.root, "source": self.source, "target": self.target, "read_only": self.read_only}
        return values | {
            "make": [self.make] if self.make is not None else [],
            "give": [self.give] if self.give is not None else [],
        }

    @classmethod
    def from_json(cls, fields: Fields) -> BoundPart:
        """The reverse of `to_json`. Raises InvalidInput."""
        part = cls(
            fields.text("root"), fields.text("source"), fields.text("target"), read_only=fields.flag("read_only")
        )
        part.make = next(iter(fields.integer_triples("make")), None)
        part.give = next(iter(fields.integer_triples("give")), None)
        return part


class MountedSecret:
    """A secret of RUN --mount as a file of the step.

    target: the file's path in the step's root; uid, gid, mode: of the file; workplace: an empty directory outside of
    the step's root, on which the worker mounts the tmpfs that holds the file.
    """

    __slots__ = ("content", "gid", "mode", "target", "uid", "workplace")

    def __init__(self, target: str, content: bytes, workplace: str) -> None:
        self.target = target
        self.content = content
        self.workplace = workplace
        self.uid = 0
        self.gid = 0
        self.mode = 0o400

    def to_json(self) -> dict[str, object]:
        """The value as a member of a job."""
        return {
            "target": self.target,
            "content": _to_base64(self.content),
            "workplace": self.workplace,
            "uid": self.uid,
            "gid": self.gid,
            "mode": self.mode,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> MountedSecret:
        """The reverse of `to_json`. Raises InvalidInput."""
        secret = cls(fields.text("target"), _from_base64(fields, "content"), fields.text("workplace"))
        secret.uid, secret.gid, secret.mode = fields.integer("uid"), fields.integer("gid"), fields.integer("mode")
        return secret


class StepRoot:
    """The writable tree of one step. directory: the step's, on whose subdirectory `rootfs` the tree is mounted."""

    __slots__ = ("directory", "id_map", "rootfs")

    def __init__(self, directory: str, id_map: IdMap, rootfs: RootfsPlan) -> None:
        self.directory = directory
        self.id_map = id_map
        self.rootfs = rootfs

    def to_json(self) -> dict[str, object]:
        """The tree as members of a job's own object."""
        return {"directory": self.directory, "id_map": self.id_map.to_json(), "rootfs": self.rootfs.to_json()}

    @classmethod
    def from_json(cls, fields: Fields) -> StepRoot:
        """The reverse of `to_json`. Raises InvalidInput."""
        return cls(fields.text("directory"), _id_map(fields), _plan(fields))


class RunJob:
    """RUN: one container on the tree `root`, whose output goes to the fd that comes with the job.

    config: the OCI configuration; network: the mode's name as records have it; seccomp: path of the compiled filter,
    None without one; root_emulation: as launch.json has it, where the id map has one id; timestamp: the time, in
    seconds, that files get which the step writes, None leaves them the time of their writing; targets: the paths on
    which something is mounted, so that mount points that had to be made are taken away again. trees: mounted for
    `binds`, which show parts of them.
    """

    __slots__ = (
        "binds", "config", "network", "root", "root_emulation", "seccomp", "secrets", "targets", "timestamp", "trees",
    )  # fmt: skip
    operation: ClassVar[str] = "run"

    def __init__(self, root: StepRoot, config: dict[str, object], network: str, timestamp: int | None) -> None:
        self.root = root
        self.config = config
        self.network = network
        self.timestamp = timestamp
        self.seccomp: str | None = None
        self.root_emulation: RootEmulation | None = None
        self.targets: list[str] = []
        self.trees: list[LayerTree] = []
        self.binds: list[BoundPart] = []
        self.secrets: list[MountedSecret] = []

    def to_json(self) -> dict[str, object]:
        """The job as the payload of a message."""
        return {
            **self.root.to_json(),
            "config": self.config,
            "network": self.network,
            "timestamp": self.timestamp,
            "seccomp": self.seccomp,
            "root_emulation": None if self.root_emulation is None else self.root_emulation.to_json(),
            "targets": self.targets,
            "trees": [tree.to_json() for tree in self.trees],
            "binds": [part.to_json() for part in self.binds],
            "secrets": [secret.to_json() for secret in self.secrets],
        }

    @classmethod
    def from_json(cls, fields: Fields) -> RunJob:
        """The reverse of `to_json`. Raises InvalidInput."""
        root = StepRoot.from_json(fields)
        job = cls(root, fields.mapping("config"), fields.text("network"), fields.optional_integer("timestamp"))
        job.seccomp = fields.optional_text("seccomp")
        job.root_emulation = RootEmulation.from_json(fields.member("root_emulation"))
        job.targets = fields.texts("targets")
        job.trees = _trees(fields)
        job.binds = [BoundPart.from_json(each) for each in fields.objects("binds")]
        job.secrets = [MountedSecret.from_json(each) for each in fields.objects("secrets")]
        return job

    def read_answer(self, fields: Fields) -> RunAnswer:
        """The answer of a worker to this job. Raises InvalidInput."""
        return RunAnswer.from_json(fields)


class RunAnswer:
    """How RUN's command ended. warnings: lines about what was weaker than it was asked for."""

    __slots__ = ("exit_code", "warnings")

    def __init__(self, exit_code: int, warnings: Sequence[str]) -> None:
        self.exit_code = exit_code
        self.warnings = list(warnings)

    def to_json(self) -> dict[str, object]:
        """The answer as the payload of a message."""
        return {"exit_code": self.exit_code, "warnings": self.warnings}

    @classmethod
    def from_json(cls, fields: Fields) -> RunAnswer:
        """The reverse of `to_json`. Raises InvalidInput."""
        return cls(fields.integer("exit_code"), fields.texts("warnings"))


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
            "content": _to_base64(self.content),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> InlineFile:
        """The reverse of `to_json`. Raises InvalidInput."""
        return cls(fields.text("destination"), fields.text("name"), _from_base64(fields, "content"))


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
        job = cls(fields.text("directory"), _id_map(fields), items)
        rootfs = fields.member("rootfs")
        job.rootfs = RootfsPlan.from_json(rootfs) if rootfs is not None else None
        job.into = fields.optional_text("into")
        job.trees = _trees(fields)
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
        return cls(_id_map(fields), _trees(fields), [TakenFiles.from_json(each) for each in fields.objects("items")])

    def read_answer(self, fields: Fields) -> str:
        """The answer of a worker to this job: the digest, 64 hexadecimal digits. Raises InvalidInput."""
        return fields.text("digest")


class UnpackContextJob(QuietJob):
    """A context that is an archive: unpack the archive behind the job's fd into the empty directory `into`."""

    __slots__ = ("id_map", "into")
    operation: ClassVar[str] = "unpack"

    def __init__(self, id_map: IdMap, into: str) -> None:
        self.id_map = id_map
        self.into = into

    def to_json(self) -> dict[str, object]:
        """The job as the payload of a message."""
        return {"id_map": self.id_map.to_json(), "into": self.into}

    @classmethod
    def from_json(cls, fields: Fields) -> UnpackContextJob:
        """The reverse of `to_json`. Raises InvalidInput."""
        return cls(_id_map(fields), fields.text("into"))


class SquashJob(QuietJob):
    """--squash: merge `layers` (directories, bottom first) into the empty directory `upper`."""

    __slots__ = ("id_map", "layers", "upper")
    operation: ClassVar[str] = "squash"

    def __init__(self, id_map: IdMap, layers: Sequence[str], upper: str) -> None:
        self.id_map = id_map
        self.layers = list(layers)
        self.upper = upper

    def to_json(self) -> dict[str, object]:
        """The job as the payload of a message."""
        return {"id_map": self.id_map.to_json(), "layers": self.layers, "upper": self.upper}

    @classmethod
    def from_json(cls, fields: Fields) -> SquashJob:
        """The reverse of `to_json`. Raises InvalidInput."""
        return cls(_id_map(fields), fields.texts("layers"), fields.text("upper"))


class ExportJob(QuietJob):
    """--output: write the files of `tree` into `directory`; where that is "", as a tar to the job's fd.

    prefix: a directory of the tar that holds all files, "" for none; is_last: the tar ends with this tree.
    """

    __slots__ = ("directory", "id_map", "is_last", "prefix", "tree")
    operation: ClassVar[str] = "export"

    def __init__(self, id_map: IdMap, tree: LayerTree, directory: str = "") -> None:
        self.id_map = id_map
        self.tree = tree
        self.directory = directory
        self.prefix = ""
        self.is_last = True

    def to_json(self) -> dict[str, object]:
        """The job as the payload of a message."""
        return {
            "id_map": self.id_map.to_json(),
            "tree": self.tree.to_json(),
            "directory": self.directory,
            "prefix": self.prefix,
            "is_last": self.is_last,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> ExportJob:
        """The reverse of `to_json`. Raises InvalidInput."""
        tree = LayerTree.from_json(fields.require_member("tree"))
        job = cls(_id_map(fields), tree, fields.text("directory"))
        job.prefix, job.is_last = fields.text("prefix"), fields.flag("is_last")
        return job


if TYPE_CHECKING:
    Item = NewDirectory | InlineFile | TakenFiles
    AnyJob = RunJob | CopyJob | DigestJob | UnpackContextJob | SquashJob | ExportJob

_ITEMS: dict[str, Callable[[Fields], Item]] = {
    each.kind: each.from_json for each in (NewDirectory, InlineFile, TakenFiles)
}
STEP_JOB_READERS: dict[str, Callable[[Fields], AnyJob]] = {
    each.operation: each.from_json for each in (RunJob, CopyJob, DigestJob, UnpackContextJob, SquashJob, ExportJob)
}


def _plan(fields: Fields) -> RootfsPlan:
    return RootfsPlan.from_json(fields.require_member("rootfs"))


def _id_map(fields: Fields) -> IdMap:
    return IdMap.from_fields(fields.require_member("id_map"))


def _trees(fields: Fields) -> list[LayerTree]:
    return [LayerTree.from_json(each) for each in fields.objects("trees")]


def _to_base64(content: bytes) -> str:
    import base64

    return base64.b64encode(content).decode()


def _from_base64(fields: Fields, key: str) -> bytes:
    import base64

    try:
        return base64.b64decode(fields.text(key), validate=True)
    except ValueError as e:
        raise InvalidInput(f"'{key}' of a build's worker is not base64") from e
