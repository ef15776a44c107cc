"""RUN --mount: what each mount adds to the cache key, and what a worker must mount for it."""

from __future__ import annotations

import base64
import os
import posixpath
from typing import TYPE_CHECKING, Any, Protocol

from rootless.builder.context.context_files import clean
from rootless.builder.dockerfile.problems import DockerfileError
from rootless.builder.session.build_state import BuildState
from rootless.errors import UsageError

if TYPE_CHECKING:
    from rootless.builder.context.contexts import Context
    from rootless.builder.dockerfile.instructions import Mount, Run
    from rootless.builder.session.build_session import BuildSession
    from rootless.paths import Lock

_SECRETS = "/run/secrets"
_SSH = "/run/buildkit"


class Finder(Protocol):
    """Finds what `from=NAME` means."""

    def __call__(self, name: str) -> BuildState | Context:
        """A stage's or image's state, or a context. "" is the build context."""


class Prepared:
    """What a worker is told. `release` gives locks back when the step has ended."""

    def __init__(self) -> None:
        self.trees: list[dict[str, Any]] = []
        self.binds: list[dict[str, Any]] = []
        self.tmpfs: list[dict[str, Any]] = []
        self.secrets: list[dict[str, Any]] = []
        self.env: dict[str, str] = {}
        self.targets: list[str] = []
        self.locks: list[Lock] = []
        self.agents: list[Any] = []

    def add_script(self, directory: str, name: str, content: str, *, target: str) -> None:
        """The text of a heredoc that is itself the program."""
        path = f"{directory}/script/{name}"
        if "/" in name or name in (".", ".."):
            raise UsageError(f"'{name}' cannot be the name of a script")
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(content)
        os.chmod(path, 0o755)  # noqa: S103 - any user of the container may run it
        self.binds.append({"root": f"{directory}/script", "source": name, "target": target, "read_only": True})

    def release(self) -> None:
        """Give back locks, end agents."""
        for agent in self.agents:
            agent.close()
        for lock in self.locks:
            lock.release()


def target_of(mount: Mount, state: BuildState) -> str:
    """Where it is mounted: relative to the working directory."""
    if mount.target:
        return "/" + clean(posixpath.join(state.workdir, mount.target))
    return f"{_SECRETS}/{mount.id}"


def facts(session: BuildSession, instruction: Run, state: BuildState, finder: Finder) -> list[Any]:
    """What of the mounts is in the cache key: places and contents that can be seen, never a secret."""
    found: list[Any] = []
    for mount in instruction.mounts:
        fields: list[Any] = [mount.kind, mount.target, mount.source, mount.is_read_only, mount.id, mount.env]
        fields += [mount.size, mount.mode, mount.uid, mount.gid]
        if mount.kind == "bind":
            source = finder(mount.from_)
            path = mount.source or "/"
            if isinstance(source, BuildState):
                fields.append(["tree", source.chain])
            else:
                fields.append(["context", source.digest([path], (), session.known(source), wildcards=False).hexdigest])
        elif mount.kind == "cache" and mount.from_:
            fields.append(mount.from_)
        found.append(fields)
    return found


def prepare(session: BuildSession, instruction: Run, state: BuildState, finder: Finder, directory: str) -> Prepared:
    """Make what the mounts need. Raises DockerfileError for a secret that is required and not there."""
    prepared = Prepared()
    try:
        claims = _claims(session, prepared, instruction)
        for position, mount in enumerate(instruction.mounts):
            target = target_of(mount, state)
            if target == "/":
                raise DockerfileError(instruction.place, f"--mount: '{mount.raw}' is on the root itself")
            match mount.kind:
                case "bind":
                    _bind(session, prepared, mount, target, finder)
                case "cache":
                    _cache(session, prepared, mount, target, finder, claims)
                case "tmpfs":
                    _tmpfs(prepared, mount, target)
                case "secret":
                    _secret(session, prepared, instruction, mount, target, directory)
                case "ssh":
                    _ssh(session, prepared, instruction, mount, position, directory)
    except BaseException:
        prepared.release()
        raise
    return prepared


def _bind(session: BuildSession, prepared: Prepared, mount: Mount, target: str, finder: Finder) -> None:
    source = finder(mount.from_)
    if isinstance(source, BuildState):
        lowerdirs = session.lowerdirs(source)
    elif mount.is_read_only and not source.ignore:
        lowerdirs = []
    else:
        lowerdirs = [source.path]
        if source.ignore:
            from rootless.builder.context.masking import mask

            lowerdirs.insert(0, mask(source, session.make_directory("mask") + "/mask"))
    if isinstance(source, BuildState) or lowerdirs:
        tree = session.tree(lowerdirs)
        prepared.trees.append(tree)
        root = tree["target"]
    else:
        root = source.path
    prepared.targets.append(target)
    prepared.binds.append(
        {"root": root, "source": clean(mount.source or ""), "target": target, "read_only": mount.is_read_only}
    )


def _claims(session: BuildSession, prepared: Prepared, instruction: Run) -> dict[str, tuple[str, bool]]:
    """The directories of all cache mounts, (path, is new) by id, locked in the order of their ids: two steps that want
    the same ones never wait for each other. Of several mounts of one id the strictest sharing counts."""
    wanted: dict[str, str] = {}
    for mount in instruction.mounts:
        if mount.kind == "cache":
            id = mount.id or mount.target
            strictest = max(wanted.get(id, "shared"), mount.sharing, key=("shared", "private", "locked").index)
            wanted[id] = strictest
    claims: dict[str, tuple[str, bool]] = {}
    if not wanted:
        return claims
    from rootless.builder.steps.cache_mounts import claim

    for id in sorted(wanted):
        directory, lock, is_new = claim(session.engine.directories.cache, id, wanted[id])
        prepared.locks.append(lock)
        claims[id] = directory, is_new
    return claims


def _cache(
    session: BuildSession,
    prepared: Prepared,
    mount: Mount,
    target: str,
    finder: Finder,
    claims: dict[str, tuple[str, bool]],
) -> None:
    directory, is_new = claims[mount.id or mount.target]
    data = f"{directory}/data"
    if is_new and mount.from_:
        _fill(session, finder(mount.from_), clean(mount.source or ""), data)
    prepared.targets.append(target)
    # with one id there is nobody else to give it to
    owner = (0, 0) if session.id_map.kind == "single" else (mount.uid or 0, mount.gid or 0)
    make = (*owner, 0o755 if mount.mode is None else mount.mode)
    name = clean(mount.source or "") or "root"
    prepared.binds.append(
        {
            "root": data,
            "source": name,
            "target": target,
            "read_only": mount.is_read_only,
            "make": make,
        }
    )


def _fill(session: BuildSession, source: BuildState | Context, path: str, data: str) -> None:
    """The first content of a cache directory: a copy of what `from` has."""
    from rootless.builder.context.contexts import item

    trees, fds = [], []
    if isinstance(source, BuildState):
        trees = [session.tree(session.lowerdirs(source))]
    else:
        fds = [source.open()]
    where = path or "root"
    job = {
        "do": "copy",
        "directory": data,
        "into": data,
        "id_map": session.id_map.to_json(),
        "rootfs": None,
        "trees": trees,
        "owner": None,
        "chmod": "",
        "owned": bool(trees),
        "timestamp": 0,
        "latest": None,
        "items": [item(0, [path or "/"], f"/{where}/", wildcards=False)],
    }
    try:
        session.on_worker(lambda worker: worker.call(job, fds))
    finally:
        for fd in fds:
            os.close(fd)


def _tmpfs(prepared: Prepared, mount: Mount, target: str) -> None:
    options = ["nosuid", "nodev", "mode=1777", *([f"size={mount.size}"] if mount.size else [])]
    prepared.tmpfs.append({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options})


def _secret(
    session: BuildSession, prepared: Prepared, instruction: Run, mount: Mount, target: str, directory: str
) -> None:
    from rootless.builder.steps.secret_sources import secret

    name = mount.id or posixpath.basename(mount.target)
    content = secret(session.options.secret, name)
    if content is None:
        if mount.is_required:
            raise DockerfileError(
                instruction.place, f"secret '{name}' is required", hint=f"give it with --secret id={name},src=FILE"
            )
        return
    if mount.env is not None:
        try:
            prepared.env[mount.env or name] = content.decode()
        except UnicodeDecodeError:
            raise DockerfileError(instruction.place, f"secret '{name}' is no text: it cannot be a variable") from None
        if not mount.target:
            return
    single = session.id_map.kind == "single"
    prepared.targets.append(target)
    prepared.secrets.append(
        {
            "target": target,
            "content": base64.b64encode(content).decode(),
            "workplace": f"{directory}/secret",
            "uid": 0 if single else mount.uid or 0,
            "gid": 0 if single else mount.gid or 0,
            "mode": 0o400 if mount.mode is None else mount.mode,
        }
    )


def _ssh(
    session: BuildSession, prepared: Prepared, instruction: Run, mount: Mount, position: int, directory: str
) -> None:
    from rootless.builder.steps.ssh_agent import Forwarder, agent_for

    name = mount.id or "default"
    source = agent_for(session.options.ssh, name)
    if source is None:
        if mount.is_required:
            raise DockerfileError(
                instruction.place, f"ssh agent '{name}' is required", hint="give it with --ssh default"
            )
        return
    target = "/" + clean(mount.target) if mount.target else f"{_SSH}/ssh_agent.{position}"
    folder = session.make_directory()
    forwarder = Forwarder(source, f"{folder}/agent", 0o600 if mount.mode is None else mount.mode)
    prepared.agents.append(forwarder)
    prepared.env["SSH_AUTH_SOCK"] = target
    prepared.targets.append(target)
    prepared.binds.append({"root": folder, "source": "agent", "target": target, "read_only": False})
