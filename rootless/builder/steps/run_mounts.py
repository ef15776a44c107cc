"""RUN --mount: what each mount adds to the cache key, and what a worker must mount for it."""

from __future__ import annotations

import json
import os
import posixpath
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, Protocol

from rootless.builder.dockerfile.problems import DockerfileError
from rootless.builder.session.build_state import BuildState
from rootless.builder.worker.client import Worker
from rootless.builder.worker.step_jobs import BoundPart, LayerTree, MountedSecret
from rootless.errors import NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootless.builder.context.contexts import Context
    from rootless.builder.dockerfile.instructions import Mount, Run
    from rootless.builder.session.build_session import BuildSession, StepRun
    from rootless.builder.steps.cache_mounts import CacheIdentity
    from rootless.builder.steps.ssh_agent import Forwarder
    from rootless.paths import Lock

_SECRETS = "/run/secrets"
_SSH = "/run/buildkit"


class Finder(Protocol):
    """Finds what `from=NAME` means."""

    def __call__(self, name: str) -> BuildState | Context:
        """The state of the stage or image `name`, or the context of that name; "" is the build context."""


class TmpfsMount(NamedTuple):
    """A tmpfs of a step. target: its absolute path; options: as mount(8) has them."""

    target: str
    options: list[str]


class PreparedMounts:
    """What a step's mounts are made of. `release` gives back what is held outside of the step, and is to be called when
    the step has ended.

    trees, binds, tmpfs, secrets: for the worker's job; env: variables for the command, which are in no cache key;
    targets: mount points that the worker takes away again where it had to make them.
    """

    def __init__(self) -> None:
        self.trees: list[LayerTree] = []
        self.binds: list[BoundPart] = []
        self.tmpfs: list[TmpfsMount] = []
        self.secrets: list[MountedSecret] = []
        self.env: dict[str, str] = {}
        self.targets: list[str] = []
        self.locks: list[Lock] = []
        self.agents: list[Forwarder] = []

    def add_script(self, directory: str, name: str, content: str, *, target: str) -> None:
        """Bind the text of a heredoc that is itself the program on `target`. Raises UsageError.

        directory: of the step, outside of its root; name: of the heredoc, which becomes a file's name there.
        """
        path = f"{directory}/script/{name}"
        if "/" in name or name in (".", ".."):
            raise UsageError(f"'{name}' cannot be the name of a script")
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(content)
        os.chmod(path, 0o755)  # noqa: S103 - any user of the container may run it
        self.binds.append(BoundPart(f"{directory}/script", name, target, read_only=True))

    def release(self) -> None:
        """Give back locks of cache directories, and end the forwarding of ssh agents."""
        for agent in self.agents:
            agent.close()
        for lock in self.locks:
            lock.release()


def target_of(mount: Mount, state: BuildState) -> str:
    """The absolute path on which `mount` is mounted: its target, which is relative to the working directory.

    Without a target it is the working directory itself, for a secret the usual place of secrets.
    """
    from rootless.builder.context.context_files import clean_path

    if mount.target or mount.kind not in ("secret", "ssh"):
        return "/" + clean_path(posixpath.join(state.workdir, mount.target))
    return f"{_SECRETS}/{mount.id}"


def facts(
    session: BuildSession, instruction: Run, finder: Finder, contents: Mapping[Mount, str] = MappingProxyType({})
) -> list[object]:
    """What of the mounts is in the cache key: their places, and the content of what is bound.

    A secret's content is not: it must be in nothing that is kept. Nor is that of a cache directory, which may differ
    each time without the step being another one; what it is first filled with is. contents: the digests of
    `digest_parts`; a part of a tree without one is known by all layers of the tree.
    """
    found: list[object] = []
    for mount in instruction.mounts:
        fields: list[object] = [mount.kind, mount.target, mount.source, mount.is_read_only, mount.id, mount.env]
        fields += [mount.size, mount.mode, mount.uid, mount.gid]
        if _has_source(mount):
            source = finder(mount.from_)
            path = mount.source or "/"
            if not isinstance(source, BuildState):
                fields.append(["context", source.digest([path], (), session.known(source), wildcards=False).hexdigest])
            elif mount in contents:
                fields.append(["content", contents[mount]])
            else:
                fields.append(["tree", source.chain])
        found.append(fields)
    return found


def _has_source(mount: Mount) -> bool:
    return mount.kind == "bind" or (mount.kind == "cache" and bool(mount.from_))


def digest_parts(session: BuildSession, instruction: Run, finder: Finder) -> dict[Mount, str]:
    """The digest of the content of each part of a tree that `instruction` mounts.

    A change elsewhere in a stage is no reason to carry the step out again. Mounts of whole trees are left out: all
    files of an image would have to be read, and what changed anything in the stage has changed them. Empty where a part
    is not there, which the step itself will report. Raises HostLimit.
    """
    from rootless.builder.context.context_files import clean_path

    found: dict[Mount, str] = {}
    for mount in instruction.mounts:
        source = finder(mount.from_) if _has_source(mount) and clean_path(mount.source or "") else None
        if isinstance(source, BuildState):
            from rootless.builder.worker.file_jobs import DigestJob, TakenFiles

            files = TakenFiles(0, [mount.source or "/"], "/", wildcards=False)
            files.parents = True  # the owner and mode of the mounted directory itself are seen too
            job = DigestJob(session.id_map, [session.tree(session.lowerdirs(source))], [files])
            try:
                found[mount] = session.on_worker(partial(Worker.call, job=job))
            except NotFound:
                return {}
    return found


def prepare(run: StepRun, instruction: Run, finder: Finder, directory: str) -> PreparedMounts:
    """Make what the mounts of `instruction` need. directory: of the step. Nothing is held after an error.

    Raises DockerfileError for a required secret or agent that is not given, UsageError, HostLimit, NotFound.
    """
    if not instruction.mounts:
        return PreparedMounts()
    preparation = _Preparation(run, instruction, finder, directory)
    try:
        preparation.carry_out()
    except BaseException:
        preparation.prepared.release()
        raise
    return preparation.prepared


class _Preparation:
    """Prepares the mounts of one instruction, one after the other."""

    def __init__(self, run: StepRun, instruction: Run, finder: Finder, directory: str) -> None:
        self.prepared = PreparedMounts()
        self._session = run.session
        self._state = run.state
        self._instruction = instruction
        self._finder = finder
        self._directory = directory
        self._claims: dict[Mount, tuple[str, bool]] = {}  # of each cache mount: its directory, whether that is new

    def carry_out(self) -> None:
        self._claim_caches()
        for position, mount in enumerate(self._instruction.mounts):
            target = target_of(mount, self._state)
            if target == "/":
                hint = None if mount.target else "without a target it is on the WORKDIR, which is / here"
                raise self._error(f"--mount: '{mount.raw}' is on the root itself", hint=hint)
            match mount.kind:
                case "bind":
                    self._bind(mount, target)
                case "cache":
                    self._cache(mount, target)
                case "tmpfs":
                    options = ["nosuid", "nodev", "mode=1777", *([f"size={mount.size}"] if mount.size else [])]
                    self.prepared.tmpfs.append(TmpfsMount(target, [*options, "ro"] if mount.is_read_only else options))
                case "secret":
                    self._secret(mount, target)
                case "ssh":
                    self._ssh(mount, position)

    def _error(self, problem: str, *, hint: str | None = None) -> DockerfileError:
        return DockerfileError(self._instruction.place, problem, hint=hint)

    def _bind(self, mount: Mount, target: str) -> None:
        from rootless.builder.context.context_files import clean_path

        source = self._finder(mount.from_)
        if isinstance(source, BuildState):
            lowerdirs = self._session.lowerdirs(source)
        elif mount.is_read_only and not source.ignore:
            lowerdirs = []
        else:
            lowerdirs = [source.path]
            if source.ignore:
                from rootless.builder.context.masking import mask

                lowerdirs.insert(0, mask(source, self._session.make_directory("mask") + "/mask"))
        if isinstance(source, BuildState) or lowerdirs:
            tree = self._session.tree(lowerdirs)
            self.prepared.trees.append(tree)
            root = tree.target
        else:
            root = source.path
        self.prepared.targets.append(target)
        part = BoundPart(root, clean_path(mount.source or ""), target, read_only=mount.is_read_only)
        self.prepared.binds.append(part)

    def _claim_caches(self) -> None:
        """Lock the directories of all cache mounts, in the order of their identities.

        With one order for all, two steps that want the same directories never each hold one and wait for the other.
        Of several mounts of one directory the strictest sharing counts.
        """
        wanted: dict[CacheIdentity, list[Mount]] = {}
        for mount in self._instruction.mounts:
            if mount.kind == "cache":
                wanted.setdefault(self._identity(mount), []).append(mount)
        if not wanted:
            return
        from rootless.builder.steps.cache_mounts import claim_mount

        for identity in sorted(wanted):
            strictest = max((mount.sharing for mount in wanted[identity]), key=("shared", "private", "locked").index)
            directory, lock, is_new = claim_mount(self._session.engine.directories.cache, identity, strictest)
            self.prepared.locks.append(lock)
            self._claims |= dict.fromkeys(wanted[identity], (directory, is_new))

    def _identity(self, mount: Mount) -> CacheIdentity:
        """The identity of a cache mount, its id and its origin, as BuildKit's `cache-dir:<id>:<what it is made from>`.

        Mounts of one identity have their files together.
        """
        from rootless.builder.steps.cache_mounts import CacheIdentity

        origin: list[object] = []
        if mount.from_:
            source = self._finder(mount.from_)
            if isinstance(source, BuildState):
                origin.append(source.chain)
            else:
                content = source.digest([mount.source or "/"], (), self._session.known(source), wildcards=False)
                origin.append(content.hexdigest)
        is_root = not (mount.source or "").strip("/")
        if is_root and (mount.uid, mount.gid, mount.mode) != (None, None, None):
            origin.append([mount.uid or 0, mount.gid or 0, 0o755 if mount.mode is None else mount.mode])
        name = mount.id or mount.target or target_of(mount, self._state)
        return CacheIdentity(name, json.dumps(origin) if origin else "")

    def _cache(self, mount: Mount, target: str) -> None:
        from rootless.builder.context.context_files import clean_path

        directory, is_new = self._claims[mount]
        data = f"{directory}/data"
        if is_new and mount.from_:
            _fill(self._session, self._finder(mount.from_), clean_path(mount.source or ""), data)
        self.prepared.targets.append(target)
        name = clean_path(mount.source or "") or "root"
        part = BoundPart(data, name, target, read_only=mount.is_read_only)
        part.make = (*self._owner(mount), 0o755 if mount.mode is None else mount.mode)
        self.prepared.binds.append(part)

    def _owner(self, mount: Mount) -> tuple[int, int]:
        """(uid, gid) of what `mount` shows. A map of one id has no other user that could own it: chown(2) would fail
        with EINVAL."""
        return (0, 0) if self._session.id_map.kind == "single" else (mount.uid or 0, mount.gid or 0)

    def _secret(self, mount: Mount, target: str) -> None:
        from rootless.builder.steps.secret_sources import secret

        name = mount.id or posixpath.basename(mount.target)
        content = secret(self._session.options.secret, name)
        if content is None:
            if mount.is_required:
                raise self._error(f"secret '{name}' is required", hint=f"give it with --secret id={name},src=FILE")
            return
        prepared = self.prepared
        if mount.env is not None:
            try:
                prepared.env[mount.env or name] = content.decode()
            except UnicodeDecodeError:
                raise self._error(f"secret '{name}' is no text: it cannot be a variable") from None
            if not mount.target:
                return
        prepared.targets.append(target)
        file = MountedSecret(target, content, f"{self._directory}/secret")
        file.uid, file.gid = self._owner(mount)
        file.mode = 0o400 if mount.mode is None else mount.mode
        prepared.secrets.append(file)

    def _ssh(self, mount: Mount, position: int) -> None:
        from rootless.builder.context.context_files import clean_path
        from rootless.builder.steps.ssh_agent import Forwarder, agent_for

        name = mount.id or "default"
        source = agent_for(self._session.options.ssh, name)
        if source is None:
            if mount.is_required:
                raise self._error(f"ssh agent '{name}' is required", hint="give it with --ssh default")
            return
        target = "/" + clean_path(mount.target) if mount.target else f"{_SSH}/ssh_agent.{position}"
        folder = self._session.make_directory()
        prepared = self.prepared
        prepared.agents.append(Forwarder(source.socket or self._own_agent(name, source.keys), f"{folder}/agent"))
        prepared.env["SSH_AUTH_SOCK"] = target
        prepared.targets.append(target)
        part = BoundPart(folder, "agent", target, read_only=False)
        part.give = (*self._owner(mount), 0o600 if mount.mode is None else mount.mode)
        prepared.binds.append(part)

    def _own_agent(self, name: str, keys: tuple[str, ...]) -> str:
        """The socket of an agent with `keys`, which all steps of the build share. Raises UsageError, HostLimit."""
        from rootless.builder.steps.key_agent import KeyAgent

        session = self._session
        with session.lock:
            if keys not in session.agents:
                session.agents[keys] = KeyAgent(name, keys)
            return session.agents[keys].socket


def _fill(session: BuildSession, source: BuildState | Context, path: str, data: str) -> None:
    """Fill the new cache directory `data` with a copy of what `source` has at `path`. Raises NotFound, HostLimit."""
    where = path or "root"
    from rootless.builder.worker.file_jobs import CopyJob, TakenFiles

    job = CopyJob(data, session.id_map, [TakenFiles(0, [path or "/"], f"/{where}/", wildcards=False)])
    job.into = data
    fds = []
    if isinstance(source, BuildState):
        job.trees = [session.tree(session.lowerdirs(source))]
        job.is_owned = True
    else:
        fds = [source.open()]
    try:
        session.on_worker(lambda worker: worker.call(job, fds))
    finally:
        for fd in fds:
            os.close(fd)
