"""Outside of a container: forks its first process, writes the id maps, holds the start gate, waits. It plans no mounts.

The caller forks the first child (runtime.process.init.outer), which enters the namespaces; its child becomes the
command and, as the caller is a child subreaper, the caller's own child once the first one has ended.
"""

from __future__ import annotations

import os
import socket

from rootless.errors import InvalidInput, RuntimeFailure
from rootless.host.mapping import write_maps
from rootless.host.subid import read_map
from rootless.kernel.namespaces import CLONE_NEWUSER, OpenNetwork
from rootless.runtime.channel import Channel, MovedDevice, Order
from rootless.runtime.plan import RootFacts, operations, root_propagation
from rootless.runtime.process import init, namespace_steps
from rootless.runtime.process.command import ProcessCommand, ProcessOptions, ProcessStreams, SeccompFilters
from rootless.runtime.process.running import FirstChild, Process, expect, fork_first_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.records.id_map import IdMap
    from rootless.runtime.operations.base import Operation
    from rootless.runtime.process.nested import Nested
    from rootless.runtime.spec.oci_config import OciConfig
    from rootless.runtime.spec.oci_state import Bundle
    from rootless.runtime.spec.process_config import OciUser


_CAP_NET_BIND_SERVICE = 10


class UserIds:
    """The ids of a container. id_map: of its new user namespace, None where the configuration wants none.

    outer_map: of the user namespace in which everything is set up, where id_map lacks what that needs
    (runtime.process.nested).
    """

    __slots__ = ("id_map", "outer_map")

    def __init__(self, id_map: IdMap | None, outer_map: IdMap | None = None) -> None:
        self.id_map = id_map
        self.outer_map = outer_map

    @property
    def setup_map(self) -> IdMap | None:
        """The map of the namespace in which the container is set up, which is written from outside."""
        return self.outer_map or self.id_map


class Launch:
    """One container to start, from its bundle and its ids; the attributes say what the configuration does not.

    root_mount: mounts the root file system at the path it is given, inside the user and mount namespace and outside of
    the pid namespace; None for a plain directory. extra: operations beside the configuration's; pivot: False moves the
    root, where the old root is an initramfs, which pivot_root(2) refuses.
    namespace_fds: namespaces, by the configuration's word for the type, that the caller has made already and that are
    entered where the configuration wants new ones; a user namespace among them has the map `ids.setup_map`.
    join_cgroup: called here with the first child's pid, before it makes its cgroup namespace. on_namespaces: called
    here beside the mounts with the network namespace, which is closed afterwards.
    init: our own reaper is pid 1; gate: listening SOCK_SEQPACKET socket by which a later process starts the container.
    warn: gets one line for each thing that is weaker than asked.
    """

    __slots__ = (
        "bundle",
        "extra",
        "filters",
        "gate",
        "ids",
        "init",
        "join_cgroup",
        "namespace_fds",
        "on_namespaces",
        "options",
        "pivot",
        "root_mount",
        "streams",
        "warn",
    )

    def __init__(self, bundle: Bundle, ids: UserIds) -> None:
        self.bundle = bundle
        self.ids = ids
        self.root_mount: Callable[[str], None] | None = None
        self.extra: list[Operation] = []
        self.pivot = True
        self.namespace_fds: dict[str, int] = {}
        self.join_cgroup: Callable[[int], None] | None = None
        self.on_namespaces: Callable[[OpenNetwork], None] | None = None
        self.filters = SeccompFilters()
        self.options = ProcessOptions()
        self.streams = ProcessStreams()
        self.init = False
        self.gate: socket.socket | None = None
        self.warn: Callable[[str], None] = lambda text: None


def create(launch: Launch) -> Process:
    """Build the container up to the start gate. On any failure everything is undone and one RootlessError is raised."""
    setup = _prepare(launch)
    child = fork_first_child(lambda launcher, inner, parent: init.outer(setup, launcher, inner, parent))
    try:
        return _follow(launch, child)
    except BaseException:
        child.close()
        raise


def _prepare(launch: Launch) -> init.Setup:
    """Everything that can be decided, and every wrong input found, before anything is forked."""
    config = launch.bundle.config
    process = config.first_process()
    spaces = namespace_steps.wanted_namespaces(config.linux)
    if bool(spaces.new & CLONE_NEWUSER) != (launch.ids.id_map is not None):
        raise InvalidInput("config property 'linux.uidMappings': a new user namespace and its id map go together")
    spaces.enter_open(launch.namespace_fds)
    root = os.path.join(launch.bundle.directory, config.root)
    facts, single_id = _facts(launch, root, process.user)
    command = ProcessCommand(process, launch.filters, launch.options, launch.streams.preserved(), single_id=single_id)
    for line in command.sets.warnings:
        launch.warn(line)
    _load_ahead(config)
    nested = _nested(launch.ids, config, command)
    if nested is not None:
        config = nested.rewritten(config)
    setup = init.Setup(config, command, spaces, operations(config, facts, launch.extra), os.path.realpath(root))
    setup.nested = nested
    setup.propagation = root_propagation(config)
    setup.root_mount = launch.root_mount
    setup.stdio = launch.streams.stdio
    setup.gate = launch.gate
    setup_map = launch.ids.setup_map
    if setup_map is not None:
        setup.ids = setup_map.first_uid(), setup_map.first_gid()
    elif any(kind == "user" for kind, _ in spaces.joined):
        setup.ids = 0, 0
    if launch.init:
        from rootless.runtime.process.reaper import fork_reaper

        setup.reap = fork_reaper
    return setup


def _load_ahead(config: OciConfig) -> None:
    """Import what the processes inside need for this configuration and most do not.

    Once they have changed their ids they may not be able to read our files, which can lie in a home of mode 0700, and
    inside the container's root these would be the image's.
    """
    linux = config.linux
    if config.hooks.of_creation() or config.hooks.start_container.hooks:
        import rootless.runtime.process.hooks
    if linux.personality or linux.memory_policy is not None:
        import rootless.runtime.process.scheduling
    if linux.net_devices:
        import rootless.runtime.process.netdevices
    if not (linux.makes("pid") and linux.makes("user")):
        import rootless.kernel.container_members  # noqa: F401


def _facts(launch: Launch, root: str, user: OciUser) -> tuple[RootFacts, bool]:
    """(what the plan must know, whether the container has one id alone). Raises RuntimeFailure for an unmapped user."""
    id_map = launch.ids.id_map
    has_gid: Callable[[int], bool]
    if id_map is not None:
        has_gid = id_map.has_gid
        single = id_map.kind == "single"
        _check_user(user, id_map)
    else:
        own = read_map("gid_map")
        single = len(own) == 1 and own[0].size == 1

        def has_gid(gid: int) -> bool:
            return any(e.container <= gid < e.container + e.size for e in own)

    facts = RootFacts(
        launch.bundle.directory,
        has_gid,
        root_is_mounted=launch.root_mount is not None,
        nosuid=launch.root_mount is None and not _is_ours(root),
        pivot=launch.pivot,
    )
    return facts, single


def _nested(ids: UserIds, config: OciConfig, command: ProcessCommand) -> Nested | None:
    """The way into the container's own user namespace, where it is set up in another one."""
    if ids.outer_map is None or ids.id_map is None:
        return None
    from rootless.runtime.process.nested import Nested

    nested = Nested(ids.outer_map, ids.id_map)
    nested.low_ports = config.linux.makes("network") and bool(command.sets.effective >> _CAP_NET_BIND_SERVICE & 1)
    return nested


def _check_user(user: OciUser, id_map: IdMap) -> None:
    for name, number, known in (("uid", user.uid, id_map.has_uid), ("gid", user.gid, id_map.has_gid)):
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


def _follow(launch: Launch, child: FirstChild) -> Process:
    """Our side of the conversation, up to the start gate; whatever fails, both children are gone afterwards."""
    userns_fd = -1
    network: OpenNetwork | None = None
    process: Process | None = None
    try:
        expect(child.channel, "namespaces", launch.warn)
        if launch.ids.setup_map is not None:
            if "user" not in launch.namespace_fds:
                write_maps(child.pid, launch.ids.setup_map)
            userns_fd = os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        if launch.join_cgroup is not None:
            launch.join_cgroup(child.pid)
        if launch.on_namespaces is not None:
            network = _open_network(child)
        order = Order("mapped")
        order.devices = _move_devices(launch.bundle.config, child.pid)
        child.channel.send(order)
        if launch.on_namespaces is not None and network is not None:
            # beside the mounts, which go on in the child meanwhile
            launch.on_namespaces(network)
        process = child.follow(launch.warn)
        process.state = launch.bundle.state("created", process.pid)
        agent = launch.filters.listener or launch.bundle.config.linux.seccomp_listener
        if agent is not None:
            from rootless.runtime.seccomp.listener import handler_of_launch

            process.on_listener = handler_of_launch(agent, lambda: launch.bundle.state("created", process.pid))
        if userns_fd >= 0:
            process.userns_fd = userns_fd
        _until_created(launch, process, child.inner)
    except BaseException:
        if process is not None:
            process.destroy()
        else:
            if userns_fd >= 0:
                os.close(userns_fd)
            child.abandon()
        raise
    finally:
        if network is not None:
            network.close()
    return process


def _open_network(child: FirstChild) -> OpenNetwork:
    """Its namespaces, opened while it waits: when it has changed its uid it is not dumpable, and nobody may."""
    try:
        return OpenNetwork.of_process(child.pid)
    except OSError as e:
        raise RuntimeFailure(f"the container's first process cannot be looked at: {e.strerror}") from e


def _move_devices(config: OciConfig, child: int) -> list[MovedDevice]:
    if not config.linux.net_devices:
        return []
    from rootless.runtime.process import netdevices

    return netdevices.move(config.linux, child)


def _until_created(launch: Launch, process: Process, inner: Channel) -> None:
    """Answer what the first process tells until it waits at the gate: take its terminal, run the hooks of creation."""
    while True:
        report, fds = expect(inner, None, launch.warn)
        if report.at == "console":
            process.console_fd = fds[0]
        elif report.at == "mounted":
            state = launch.bundle.state("creating", process.pid)
            stages = launch.bundle.config.hooks
            for stage in (stages.prestart, stages.create_runtime):
                init.run_hooks(stage, state)
            inner.send(Order("hooked", state))
        elif report.at == "created":
            return
        else:
            raise RuntimeFailure(f"the container's first process said '{report.at}'")
