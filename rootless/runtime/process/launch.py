"""Outside of a container: forks its first process, writes the id maps, holds the start gate, waits. It plans no mounts.

The caller forks the first child (runtime.process.init.outer), which enters the namespaces; its child becomes the
command and, as the caller is a child subreaper, the caller's own child once the first one has ended.
"""

from __future__ import annotations

import os
import signal
import socket

from rootless.errors import InvalidInput, RuntimeFailure
from rootless.host.userns import read_map, write_maps
from rootless.kernel import process as kernel
from rootless.kernel.namespaces import CLONE_NEWUSER
from rootless.runtime import CONFIG_VERSION
from rootless.runtime.channel import Channel, pair
from rootless.runtime.plan import RootFacts, operations, root_propagation
from rootless.runtime.process import hooks, init, namespace_steps
from rootless.runtime.process.command import ProcessCommand
from rootless.runtime.process.running import Process, expect
from rootless.runtime.seccomp.listener import listening

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from rootless.records.id_map import IdMap
    from rootless.runtime.operations import Operation
    from rootless.runtime.process.nested import Nested
    from rootless.runtime.seccomp.emulation import Emulation


_CAP_NET_BIND_SERVICE = 10


class Launch:
    """One container to start.

    config: validated OCI configuration; bundle: absolute directory; container_id: for hooks.
    id_map: of the new user namespace, None where the configuration wants none.
    root_mount: mounts the root file system at the path it is given, inside the user and mount namespace and outside of
    the pid namespace; None for a plain directory. extra: operations beside the configuration's.
    stdio: fds for 0, 1, 2 (None: the caller's own); preserve_fds: how many from 3 on stay open in the container.
    join_cgroup, on_namespaces: called here with the first child's pid, before it makes its cgroup namespace, and when
    its network namespace is there; it lives until `start` (or the hand-over to a gate).
    seccomp_bpf, seccomp_flags: the filter; seccomp_listener: listenerPath and listenerMetadata of its profile where the
    configuration does not have them; emulation: of a root with one id, its filter and supervisor;
    keyring: a session keyring of its own; die_with_parent: the container is
    killed when this process ends; init: our own reaper as pid 1; gate: listening SOCK_SEQPACKET socket by which a later
    process starts the container; keep_groups: the caller's supplementary groups stay; pivot: False moves the root.
    made: fds of namespaces, by the configuration's word for the type, that the caller has made already and that are
    entered where the configuration wants new ones; with a user namespace its map is outer_map or id_map.
    outer_map: of the user namespace in which everything is set up, where id_map lacks what that needs
    (runtime.process.nested).
    warn: gets one line for each thing that is weaker than asked.
    """

    __slots__ = (
        "bundle",
        "config",
        "container_id",
        "die_with_parent",
        "emulation",
        "extra",
        "gate",
        "id_map",
        "init",
        "join_cgroup",
        "keep_groups",
        "keyring",
        "made",
        "on_namespaces",
        "outer_map",
        "pivot",
        "preserve_fds",
        "root_mount",
        "seccomp_bpf",
        "seccomp_flags",
        "seccomp_listener",
        "stdio",
        "warn",
    )

    def __init__(
        self,
        *,
        config: dict[str, Any],
        bundle: str,
        id_map: IdMap | None,
        container_id: str = "",
        root_mount: Callable[[str], None] | None = None,
        extra: Sequence[Operation] = (),
        stdio: tuple[int, int, int] | None = None,
        preserve_fds: int = 0,
        join_cgroup: Callable[[int], None] | None = None,
        on_namespaces: Callable[[int], None] | None = None,
        seccomp_bpf: bytes | None = None,
        seccomp_flags: int = 0,
        seccomp_listener: dict[str, Any] | None = None,
        emulation: Emulation | None = None,
        keyring: bool = True,
        die_with_parent: bool = False,
        init: bool = False,
        gate: socket.socket | None = None,
        keep_groups: bool = False,
        pivot: bool = True,
        made: dict[str, int] | None = None,
        outer_map: IdMap | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.config = config
        self.bundle = bundle
        self.id_map = id_map
        self.container_id = container_id
        self.root_mount = root_mount
        self.extra = list(extra)
        self.stdio = stdio
        self.preserve_fds = preserve_fds
        self.join_cgroup = join_cgroup
        self.on_namespaces = on_namespaces
        self.seccomp_bpf = seccomp_bpf
        self.seccomp_flags = seccomp_flags
        self.seccomp_listener = seccomp_listener
        self.emulation = emulation
        self.keyring = keyring
        self.die_with_parent = die_with_parent
        self.init = init
        self.gate = gate
        self.keep_groups = keep_groups
        self.pivot = pivot
        self.made = made or {}
        self.outer_map = outer_map
        self.warn = warn or (lambda text: None)


def create(launch: Launch) -> Process:
    """Build the container up to the start gate. On any failure everything is undone and one RootlessError is raised."""
    setup = _prepare(launch)
    kernel.set_child_subreaper()
    ours, theirs = pair()
    inner_ours, inner_theirs = pair()
    caller = os.getpid()
    helper = os.fork()
    if helper == 0:
        ours.close()
        inner_ours.close()
        init.outer(setup, theirs, inner_theirs, caller)
    theirs.close()
    inner_theirs.close()
    try:
        return _follow(launch, helper, ours, inner_ours)
    except BaseException:
        ours.close()
        inner_ours.close()
        raise


def _prepare(launch: Launch) -> init.Setup:
    """Everything that can be decided, and every wrong input found, before anything is forked."""
    config = launch.config
    spaces = namespace_steps.wanted(config)
    if bool(spaces.new & CLONE_NEWUSER) != (launch.id_map is not None):
        raise InvalidInput("config property 'linux.uidMappings': a new user namespace and its id map go together")
    spaces.enter_made(launch.made)
    root = os.path.join(launch.bundle, config["root"]["path"])
    id_map = launch.id_map
    if id_map is not None:
        has_gid = id_map.has_gid
        single = id_map.kind == "single"
        _check_user(config, id_map)
    else:
        own = read_map("gid_map")
        single = len(own) == 1 and own[0].size == 1

        def has_gid(gid: int) -> bool:
            return any(e.container <= gid < e.container + e.size for e in own)

    facts = RootFacts(
        launch.bundle,
        has_gid,
        root_is_mounted=launch.root_mount is not None,
        nosuid=launch.root_mount is None and not _is_ours(root),
        pivot=launch.pivot,
    )
    command = ProcessCommand(
        config["process"],
        seccomp_bpf=launch.seccomp_bpf,
        seccomp_flags=launch.seccomp_flags,
        emulation=launch.emulation,
        preserved=preserved_fds(launch.preserve_fds),
        die_with_parent=launch.die_with_parent,
        keep_groups=launch.keep_groups,
        single_id=single,
    )
    if command.sets.unknown:
        launch.warn(f"capabilities not known to this kernel: {', '.join(command.sets.unknown)}")
    nested = None
    if launch.outer_map is not None and id_map is not None:
        nested = _nested(launch.outer_map, id_map, config, command)
        config = nested.rewritten(config)
    setup = init.Setup(config, command, spaces, operations(config, facts, launch.extra), os.path.realpath(root))
    setup.nested = nested
    setup.propagation = root_propagation(config)
    setup.root_mount = launch.root_mount
    setup.stdio = launch.stdio
    setup.gate = launch.gate
    setup.keyring = launch.keyring
    if id_map is not None:
        setup.ids = (launch.outer_map or id_map).first_uid(), (launch.outer_map or id_map).first_gid()
    elif any(kind == "user" for kind, _ in spaces.joined):
        setup.ids = 0, 0
    if launch.init:
        from rootless.runtime.process.reaper import split

        setup.reap = split
    return setup


def _nested(outer: IdMap, inner: IdMap, config: dict[str, Any], command: ProcessCommand) -> Nested:
    from rootless.runtime.process.nested import Nested

    nested = Nested(outer, inner)
    own = {n["type"] for n in (config.get("linux") or {}).get("namespaces") or [] if not n.get("path")}
    nested.low_ports = "network" in own and bool(command.sets.effective >> _CAP_NET_BIND_SERVICE & 1)
    return nested


def _check_user(config: dict[str, Any], id_map: IdMap) -> None:
    user = config["process"].get("user") or {}
    for name, number, known in (
        ("uid", user.get("uid", 0), id_map.has_uid),
        ("gid", user.get("gid", 0), id_map.has_gid),
    ):
        if not known(number):
            raise RuntimeFailure(
                f"the container's {name} {number} is not in its id map",
                hint="run as another user (`--user 0`), or see `rootless doctor` for a wider range of ids",
            )


def _is_ours(root: str) -> bool:
    """Whether a plain root directory belongs to the caller: of others' files no setuid bit should count."""
    try:
        return os.stat(root).st_uid == os.geteuid()
    except OSError as e:
        raise RuntimeFailure(f"cannot open root file system '{root}': {e.strerror}") from e


def preserved_fds(count: int) -> tuple[int, ...]:
    """Fds 3 to 2+count, which must be open. To be called before anything of ours is opened."""
    fds = tuple(range(3, 3 + count))
    for fd in fds:
        try:
            os.fstat(fd)
        except OSError:
            raise RuntimeFailure(f"cannot preserve fd {fd}: it is not open") from None
    return fds


def _follow(launch: Launch, helper: int, outer: Channel, inner: Channel) -> Process:
    """Our side of the conversation, up to the start gate; whatever fails, both children are gone afterwards."""
    userns_fd = -1
    process: Process | None = None
    try:
        expect(outer, "namespaces", launch.warn)
        if launch.id_map is not None:
            if "user" not in launch.made:
                write_maps(helper, launch.outer_map or launch.id_map)
            userns_fd = os.open(f"/proc/{helper}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        if launch.join_cgroup is not None:
            launch.join_cgroup(helper)
        outer.send({"do": "mapped", "devices": _move_devices(launch.config, helper)})
        if launch.on_namespaces is not None:
            # beside the mounts, which go on in the child meanwhile
            launch.on_namespaces(helper)
        answer, _ = expect(outer, "init", launch.warn)
        process = Process(answer["pid"], inner, launch.warn)
        process.on_listener = listening(
            launch.config, lambda: oci_state(launch, answer["pid"], "created"), launch.seccomp_listener
        )
        process.adopt(helper, outer)
        if userns_fd >= 0:
            process.userns_fd = userns_fd
        _until_created(launch, process, inner)
    except BaseException:
        if process is not None:
            process.destroy()
        else:
            if userns_fd >= 0:
                os.close(userns_fd)
            _kill(helper)
        raise
    return process


def _move_devices(config: dict[str, Any], helper: int) -> list[dict[str, Any]]:
    if not (config.get("linux") or {}).get("netDevices"):
        return []
    from rootless.runtime.process import netdevices

    return netdevices.move(config, helper)


def _until_created(launch: Launch, process: Process, inner: Channel) -> None:
    while True:
        message, fds = expect(inner, None, launch.warn)
        at = message.get("at")
        if at == "console":
            process.console_fd = fds[0]
        elif at == "mounted":
            state = oci_state(launch, process.pid, "creating")
            for stage in ("prestart", "createRuntime"):
                hooks.run(launch.config, stage, state)
            inner.send({"do": "hooked", "state": state})
        elif at == "created":
            return
        else:
            raise RuntimeFailure(f"the container's first process said {message}")


def oci_state(launch: Launch, pid: int, status: str) -> dict[str, Any]:
    """The state object of runtime.md, as hooks get it."""
    state: dict[str, Any] = {
        "ociVersion": launch.config.get("ociVersion", CONFIG_VERSION),
        "id": launch.container_id,
        "status": status,
        "pid": pid,
        "bundle": launch.bundle,
    }
    if launch.config.get("annotations"):
        state["annotations"] = launch.config["annotations"]
    return state


def _kill(pid: int) -> None:
    """Kill and reap our own child."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
