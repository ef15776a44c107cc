"""Runs a container with our own runtime, in this process: from launch.json to runtime.process.launch."""

from __future__ import annotations

import gc
import os

from rootless.errors import HostLimit
from rootless.kernel import procfs
from rootless.monitor import cgroup
from rootless.monitor.state import add_note, read_state
from rootless.records.state import NetworkFacts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.kernel.namespaces import OpenNetwork
    from rootless.monitor.cgroup import AnyGroup, Holder
    from rootless.monitor.handover import RunHandover
    from rootless.monitor.launch_spec import LaunchSpec
    from rootless.monitor.prepared import PreparedContainer
    from rootless.network.helper import Helper
    from rootless.network.shared.hub_client import NetworkPlace
    from rootless.records.state import ContainerNamespaces
    from rootless.runtime.process.command import SeccompFilters
    from rootless.runtime.process.launch import UserIds
    from rootless.runtime.process.running import Process
    from rootless.runtime.spec.oci_state import Bundle
    from rootless.storage.drivers import Mounter
    from rootless.storage.owners.emulator import EmulationSupervisor


class NetworkedRun:
    """The network of a run, under whatever runtime: its helper, None where its mode needs none, and the facts of it.

    member: its place on networks with names, None where it is on none.
    """

    __slots__ = ("_helper", "member", "network")

    def __init__(self, helper: Helper | None = None) -> None:
        self._helper = helper
        self.network = NetworkFacts()
        self.member: NetworkPlace | None = None

    def wait_for_network(self) -> None:
        """Return once the network is there. Raises RootlessError when it cannot be."""
        if self._helper is not None:
            self._helper.ready()
            self.network = self._helper.facts
        if self.member is not None:
            self.network = self.member.facts()

    def forget(self, pid: int) -> str | None:
        """Child `pid` was reaped: if it was the network helper, return the last that it said; None else.

        The helper's number is dropped with it: `stop` would otherwise signal whatever process has that pid by then.
        """
        helper = self._helper
        if helper is None or helper.pid != pid:
            return None
        self._helper = None
        return helper.note_end()

    def use_helper(self, helper: Helper) -> None:
        """Let `helper` be the network helper of the run from now on."""
        self._helper = helper

    @property
    def connection(self) -> int:
        """The connection to the process that serves networks with names; -1 where the container is on none."""
        return -1 if self.member is None else self.member.held[0]

    @property
    def held(self) -> list[int]:
        """The descriptors by which the container is on networks with names, that connection first."""
        return [] if self.member is None else self.member.held

    def use_connection(self, fd: int) -> None:
        """Let `fd` be that connection from now on."""
        if self.member is not None:
            os.close(self.member.held[0])
            self.member.held[0] = fd


class NativeRun(NetworkedRun):
    """A run under rootless.runtime.process.launch, with its network helper. group: its cgroup, None without one."""

    __slots__ = ("_process", "_spec", "console_fd", "group", "pid", "pidfd")

    def __init__(self, spec: LaunchSpec, process: Process, helper: Helper | None, group: AnyGroup | None) -> None:
        super().__init__(helper)
        self._spec = spec
        self._process = process
        self.group = group
        self.pid = process.pid
        self.pidfd = process.pidfd
        self.console_fd, process.console_fd = process.console_fd, None  # the pump closes it, `destroy` must not

    def start(self) -> None:
        """Wait until the network is there, then let the command begin. Raises RootlessError when either fails."""
        self.wait_for_network()
        if self.group is not None:
            from rootless.runtime.cgroups import ownership

            # Until `release` has ended the first child, that process of ours counts in the group: with the late limit
            # pids.max of 1 the command could not be forked
            self._process.release()
            cgroup.apply_late(self.group, self._spec)
            if ownership.is_wanted(self._spec.config):
                ownership.delegate(self.group, self._spec.config, self._process.userns_fd)
        self._process.start()

    def wait(self) -> int:
        """Reap the container's first process; its exit code, 128+N when signal N ended it."""
        return self._process.wait()

    def helpers(self) -> list[tuple[int, int]]:
        """(pid, start time) of the network helper, by which it is found and ended when this monitor was killed."""
        return helper_identities(self._helper)

    @property
    def namespaces(self) -> ContainerNamespaces | None:
        """The namespaces by which processes are found that outlive the first one; None where none can."""
        return self._process.namespaces

    def hand_over(self) -> RunHandover | None:
        """The run as `adopted.AdoptedRun` takes it. Its descriptors stay open across the execve."""
        from rootless.monitor.handover import RunHandover

        userns_fd = -1 if self._process.userns_fd is None else self._process.userns_fd
        error_fd = -1 if self._helper is None else self._helper.error_fd()
        handover = RunHandover(self.pid, (userns_fd, error_fd), self.helpers())
        handover.group = None if self.group is None else self.group.to_json()
        handover.held = [] if self.member is None else self.member.held
        return handover

    def close(self, *, remove: bool = False) -> None:
        """Stop the network helper and the filesystem's daemon, delete the container if it shall be removed."""
        from rootless.storage import drivers

        process = self._process
        userns_fd, process.userns_fd = process.userns_fd, None
        try:
            if process.pidfd >= 0:
                process.destroy()  # closes its descriptors, and kills a process whose command never began
            if self.group is not None:
                cgroup.remove_group(self.group, userns_fd, lambda text: add_note(self._spec.directory, text))
            if self._helper is not None:
                self._helper.stop(wait=bool(self._helper.ports))
                self._helper = None
            if self.member is not None:
                self.member.leave()
                self.member = None
            if self._spec.plan.rootfs is not None:
                drivers.unmount_root(self._spec.plan.rootfs)
            if remove:
                self._spec.remove_container(userns_fd)
        finally:
            if userns_fd is not None:
                os.close(userns_fd)


def preload_modules(*, with_cgroup: bool) -> None:
    """Load the modules that a run needs while the engine still plans, so that no step of the run waits for a file.

    with_cgroup: whether the run may get a cgroup.
    """
    # Loading makes many objects and no garbage: the collector that looks for some takes 2 of 40 ms (measured)
    gc.disable()
    try:
        _load_for_run()
        if with_cgroup:
            import rootless.runtime.cgroups.place  # noqa: F401
    finally:
        gc.enable()


def _load_for_run() -> None:
    import rootless.paths
    import rootless.runtime.plan
    import rootless.runtime.process.launch
    import rootless.runtime.seccomp.filter_cache
    import rootless.storage.files.removal  # noqa: F401
    from rootless.storage.drivers import USUAL, find_driver

    find_driver(USUAL)


def launch_container(
    spec: LaunchSpec,
    stdio: tuple[int, int, int] | None,
    prepared: PreparedContainer | None = None,
    holder: Holder | None = None,
) -> NativeRun:
    """Create the container, up to the gate before its command. Raises what rootless.runtime.process.launch raises.

    prepared: namespaces made early; it is used up. holder: gives the run its cgroup.
    """
    from rootless.runtime.process import launch as runtime
    from rootless.runtime.process.command import ProcessOptions, ProcessStreams
    from rootless.storage import drivers

    mounter: Mounter | None = None
    supervisor: EmulationSupervisor | None = None
    group: AnyGroup | None = None
    member: NetworkPlace | None = None
    if _has_networks(spec) and prepared is not None:
        prepared.close()  # these namespaces are not below the one that owns the networks
        prepared = None
    helper = prepared.take(spec) if prepared is not None else None

    def warn(text: str) -> None:
        add_note(spec.directory, text)

    def join_cgroup(pid: int) -> None:
        if group is not None:
            from rootless.runtime.cgroups import place

            place.join(group, pid)

    def on_namespaces(opened: OpenNetwork) -> None:
        nonlocal helper
        if helper is None:
            helper = start_network(spec, opened)

    try:
        # The scope comes before the fork: systemd moves this process into it alone. A child that is forked earlier
        # stays in the cgroup of the login, and may be killed at the logout
        group = holder.make(spec, warn) if holder is not None else None
        if _has_networks(spec):
            member, prepared = _join_networks(spec)
        if spec.plan.rootfs is not None:
            mounter = drivers.make_mounter(spec.plan.rootfs)
        supervisor = _supervisor(spec)
        wanted = runtime.Launch(_bundle(spec), _ids(spec))
        wanted.root_mount = mounter
        if spec.plan.seed_volumes:
            from rootless.runtime.operations.seed import SeedVolume

            wanted.extra += [SeedVolume(seed.source, seed.target) for seed in spec.plan.seed_volumes]
        if spec.plan.login is not None:
            from rootless.runtime.operations.passwd_line import AddLogin

            wanted.extra.append(AddLogin(spec.plan.login))
        wanted.streams = ProcessStreams(stdio)
        wanted.join_cgroup = join_cgroup
        wanted.on_namespaces = on_namespaces
        wanted.filters = _filters(spec, supervisor)
        wanted.options = ProcessOptions(keyring=True, die_with_parent=True, keep_groups=spec.plan.keep_groups)
        wanted.init = spec.plan.init
        wanted.namespace_fds = prepared.fds if prepared is not None else {}
        wanted.warn = warn
        process = runtime.create(wanted)
    except BaseException:
        if helper is not None:
            helper.stop()
        if member is not None:
            member.leave()
        if group is not None:
            cgroup.remove_group(group, None, warn)
        raise
    finally:
        if mounter is not None:
            mounter.close()
        if supervisor is not None:
            supervisor.close()
        if prepared is not None:
            prepared.close()
    run = NativeRun(spec, process, helper, group)
    run.member = member
    return run


def _has_networks(spec: LaunchSpec) -> bool:
    """Whether the container is on networks with names, of which `network connect` may have changed the list."""
    from rootless.network.modes import NAMED

    if spec.plan.network.mode != NAMED.name:
        return False
    spec.plan.network = spec.now().network
    return bool(spec.plan.network.attachments)


def _join_networks(spec: LaunchSpec) -> tuple[NetworkPlace, PreparedContainer]:
    """Put the container on its networks with names; its place there, and the namespaces that were made for it.

    Its lines in /etc/hosts get the addresses that it has this time.
    """
    from rootless.monitor.prepared import PreparedContainer
    from rootless.network.resolv import read_text, with_own_addresses
    from rootless.network.shared import hub_client
    from rootless.paths import atomic_write
    from rootless.records.membership import Membership

    network = spec.plan.network
    membership = Membership(spec.id, spec.now().name, network.attachments)
    membership.ports, membership.dns = network.ports, network.dns
    id_map = spec.plan.outer_map or spec.plan.id_map
    kinds = [namespace.kind for namespace in spec.config.linux.namespaces if not namespace.path]
    member = hub_client.join(spec.runtime_dir, membership, id_map, kinds)
    prepared = PreparedContainer(id_map, member.namespaces, None)
    try:
        spec.warnings += member.warnings
        hosts = f"{spec.directory}/hosts"
        own = [attachment.ip for attachment in member.membership.attachments]
        text = with_own_addresses(read_text(hosts), own, network.host_names)
        atomic_write(hosts, text.encode(), mode=0o644, durable=False)
        os.chmod(hosts, 0o644)  # whatever the umask, any user of the container may read it
    except BaseException as e:
        prepared.close()
        member.leave()
        if isinstance(e, OSError):
            raise HostLimit(f"cannot write the container's addresses to '{e.filename}': {e.strerror}") from e
        raise
    return member, prepared


def start_beside(spec: LaunchSpec, pid: int, argv: list[str], output: int) -> Process:
    """Run `argv` in the container whose first process is `pid`, as the container's own user, with its environment and
    its seccomp filter. Standard input is /dev/null, both outputs go to the descriptor `output`."""
    from rootless.runtime.process.command import ProcessOptions, ProcessStreams
    from rootless.runtime.process.join import Joining, exec_process
    from rootless.runtime.seccomp.listener import handler_of_join

    process = spec.config.first_process().copy()
    process.args, process.terminal = argv, False
    facts = read_state(spec.directory)
    wanted = Joining(pid, process, spec.config)
    wanted.join_cgroup = cgroup.make_joiner(facts.cgroup if facts is not None else None, pid)
    wanted.options = ProcessOptions(die_with_parent=True)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    wanted.streams = ProcessStreams((null, output, output))
    supervisor = _supervisor(spec)
    try:
        wanted.filters = _filters(spec, supervisor)
        wanted.on_listener = handler_of_join(wanted.filters.listener, _bundle(spec), pid)
        return exec_process(wanted)
    finally:
        os.close(null)
        if supervisor is not None:
            supervisor.close()


def _supervisor(spec: LaunchSpec) -> EmulationSupervisor | None:
    """What answers the system calls of an emulated root; None where root is not emulated. Raises HostLimit."""
    if not spec.plan.root_emulation:
        return None
    from rootless.storage.owners.emulator import make_supervisor

    try:
        return make_supervisor(spec.plan.rootfs, spec.plan.root_emulation, spec.directory)
    except OSError as e:
        raise HostLimit(f"cannot prepare the emulation of root in '{spec.directory}': {e.strerror}") from e


def _bundle(spec: LaunchSpec) -> Bundle:
    from rootless.runtime.spec.oci_state import Bundle

    return Bundle(spec.config, spec.bundle, spec.id)


def _ids(spec: LaunchSpec) -> UserIds:
    """The container's id maps; none where it joins another container's user namespace, whose maps are written once."""
    from rootless.runtime.process.launch import UserIds

    if not spec.has_own_users:
        return UserIds(None)
    return UserIds(spec.plan.id_map, spec.plan.outer_map)


def _filters(spec: LaunchSpec, supervisor: EmulationSupervisor | None) -> SeccompFilters:
    """The seccomp filters that launch.json names. Raises HostLimit when one cannot be read."""
    from rootless.runtime.process.command import SeccompFilters
    from rootless.runtime.seccomp.filter_cache import require_filter

    path = spec.plan.seccomp_bpf
    filters = SeccompFilters(None if path is None else require_filter(path, hint="start the container again"))
    filters.flags = spec.plan.seccomp_flags
    filters.listener = spec.plan.seccomp_listener
    if supervisor is not None and spec.plan.root_emulation:
        from rootless.runtime.seccomp.emulation import read_emulation

        filters.emulation = read_emulation(spec.plan.root_emulation, supervisor)
    return filters


def helper_identities(helper: Helper | None) -> list[tuple[int, int]]:
    """(pid, start time in clock ticks since boot) of a network helper; empty where none runs."""
    if helper is None or helper.pid <= 0:
        return []
    try:
        return [(helper.pid, procfs.start_time(helper.pid))]
    except OSError:
        return []


def start_network(spec: LaunchSpec, target: OpenNetwork) -> Helper | None:
    """Begin, without waiting, to connect the network namespace `target`; None when its mode needs no helper."""
    from rootless.network.modes import recorded_mode

    network = spec.plan.network
    return recorded_mode(network.mode).start(target, network.ports, network.options)
