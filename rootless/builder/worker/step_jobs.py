"""The jobs of a build's worker processes and their answers: one class each, which giver and doer share.

The jobs of COPY and ADD are in `file_jobs`, which a build without these instructions does not load.
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
            "content": to_base64(self.content),
            "workplace": self.workplace,
            "uid": self.uid,
            "gid": self.gid,
            "mode": self.mode,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> MountedSecret:
        """The reverse of `to_json`. Raises InvalidInput."""
        secret = cls(fields.text("target"), from_base64(fields, "content"), fields.text("workplace"))
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
        return cls(fields.text("directory"), read_id_map(fields), _plan(fields))


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
        job.trees = read_trees(fields)
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
        return cls(read_id_map(fields), fields.text("into"))


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
        return cls(read_id_map(fields), fields.texts("layers"), fields.text("upper"))


class ExportedStatement:
    """An in-toto statement that is written beside the files which it is about.

    name: of its file; document: the statement as JSON, which gets the files as its subjects; moment: the file's time in
    seconds.
    """

    __slots__ = ("document", "moment", "name")

    def __init__(self, name: str, document: str, moment: int) -> None:
        self.name = name
        self.document = document
        self.moment = moment

    def to_json(self) -> dict[str, object]:
        """The statement as a member of a job."""
        return {"name": self.name, "document": self.document, "moment": self.moment}

    @classmethod
    def from_json(cls, fields: Fields) -> ExportedStatement:
        """The reverse of `to_json`. Raises InvalidInput."""
        return cls(fields.text("name"), fields.text("document"), fields.integer("moment"))


class ExportJob(QuietJob):
    """--output: write the files of `tree` into `directory`; where that is "", as a tar to the job's fd.

    prefix: a directory of the tar that holds all files, "" for none; is_last: the tar ends with this tree; statement:
    the provenance of the files, None for none.
    """

    __slots__ = ("directory", "id_map", "is_last", "prefix", "statement", "tree")
    operation: ClassVar[str] = "export"

    def __init__(self, id_map: IdMap, tree: LayerTree, directory: str = "") -> None:
        self.id_map = id_map
        self.tree = tree
        self.directory = directory
        self.prefix = ""
        self.is_last = True
        self.statement: ExportedStatement | None = None

    def to_json(self) -> dict[str, object]:
        """The job as the payload of a message."""
        return {
            "id_map": self.id_map.to_json(),
            "tree": self.tree.to_json(),
            "directory": self.directory,
            "prefix": self.prefix,
            "is_last": self.is_last,
            "statement": None if self.statement is None else self.statement.to_json(),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> ExportJob:
        """The reverse of `to_json`. Raises InvalidInput."""
        tree = LayerTree.from_json(fields.require_member("tree"))
        job = cls(read_id_map(fields), tree, fields.text("directory"))
        job.prefix, job.is_last = fields.text("prefix"), fields.flag("is_last")
        statement = fields.member("statement")
        job.statement = None if statement is None else ExportedStatement.from_json(statement)
        return job


if TYPE_CHECKING:
    StepJob = RunJob | UnpackContextJob | SquashJob | ExportJob

STEP_JOB_READERS: dict[str, Callable[[Fields], StepJob]] = {
    each.operation: each.from_json for each in (RunJob, UnpackContextJob, SquashJob, ExportJob)
}


def _plan(fields: Fields) -> RootfsPlan:
    return RootfsPlan.from_json(fields.require_member("rootfs"))


def read_id_map(fields: Fields) -> IdMap:
    """The member "id_map" of a job. Raises InvalidInput."""
    return IdMap.from_fields(fields.require_member("id_map"))


def read_trees(fields: Fields) -> list[LayerTree]:
    """The member "trees" of a job. Raises InvalidInput."""
    return [LayerTree.from_json(each) for each in fields.objects("trees")]


def to_base64(content: bytes) -> str:
    """Bytes as a member of a job has them."""
    import base64

    return base64.b64encode(content).decode()


def from_base64(fields: Fields, key: str) -> bytes:
    """The bytes in member `key`, which `to_base64` has written. Raises InvalidInput."""
    import base64

    try:
        return base64.b64decode(fields.text(key), validate=True)
    except ValueError as e:
        raise InvalidInput(f"'{key}' of a build's worker is not base64") from e
