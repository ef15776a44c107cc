"""From options, image and facts of the host to the files of a new container. Pure: it looks at nothing, makes nothing.

`engine.container.host_facts` looks, `engine.container.create` makes what is planned, `explain` shows the plan alone.
"""

from __future__ import annotations

from typing import NamedTuple

from rootless.engine.plan import launchfile, networking
from rootless.engine.plan.bundle import MARK, BundleConfig, BundleFacts, make_config, working_directory
from rootless.engine.plan.environment import split_env
from rootless.engine.types import ImageDefaults
from rootless.errors import HostLimit, UsageError
from rootless.records.container import ContainerRecord, RecordedNetwork
from rootless.records.container_options import ContainerOptions
from rootless.records.launch import (
    CgroupPlan,
    EventsPlan,
    LaunchPlan,
    LoginEntry,
    NetworkPlan,
    RemovePlan,
    SeccompListener,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootless.engine.plan.bundle import NamespaceChoice, ResolvedMount
    from rootless.engine.plan.device_edits import DeviceEdits
    from rootless.engine.plan.identity import Identity
    from rootless.engine.plan.networking import Network
    from rootless.engine.plan.users import Account
    from rootless.engine.settings import Settings
    from rootless.host.cgroups import Delegation
    from rootless.records.container import RecordedMount
    from rootless.records.id_map import IdMap
    from rootless.records.launch import RootEmulation, VolumeSeed
    from rootless.records.rootfs import RootfsPlan
    from rootless.runtime.seccomp.seccomp_profile import SeccompProfile


class Places(NamedTuple):
    """The host paths of a container that is planned.

    directory: the container's own; names: the directory of the store with one entry for each container's name;
    event_log: the file of events; runtime: the runtime directory, in which the monitor's socket is.
    """

    directory: str
    names: str
    event_log: str
    runtime: str


class ImageFacts(NamedTuple):
    """What is known of the image of a container that is planned.

    config_digest, manifest_digest: "sha256:…"; layers: chain ids, bottom first; defaults: what its config says.
    """

    name: str
    config_digest: str
    manifest_digest: str
    layers: tuple[str, ...]
    defaults: ImageDefaults


class NewVolume(NamedTuple):
    """A volume that the container needs and that does not exist yet.

    directory: the volume's own in the store; anonymous: no user gave it a name, so it belongs to this container alone,
    and is removed with a container of --rm.
    """

    name: str
    directory: str
    anonymous: bool


class Mounts(NamedTuple):
    """The mounts of a container with their sources, and what is to be made before they can be mounted.

    resolved: the mounts as the bundle has them; described: the same as record.json has them; seeds: volumes that may
    be filled from the image at the first start; volumes: names of all that are used; new_volumes: those of them that
    are to be made; new_directories: host paths of -v that are missing; images: for each image that is mounted, its
    layers' chain ids; chown: sources to give to the container's user; warnings: one line each.
    """

    resolved: tuple[ResolvedMount, ...] = ()
    described: tuple[RecordedMount, ...] = ()
    seeds: tuple[VolumeSeed, ...] = ()
    volumes: tuple[str, ...] = ()
    new_volumes: tuple[NewVolume, ...] = ()
    new_directories: tuple[str, ...] = ()
    images: tuple[tuple[str, ...], ...] = ()
    chown: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class ProcessFacts(NamedTuple):
    """What the flags and the host give to the container's process.

    env: pairs of --env-file and -e; labels: those of --label-file and --label;
    devices: (host path, path inside, rwm); hard_limits: the caller's, by name; init: host path of an init program, ""
    for our own reaper; runtime: path of another OCI runtime, "" for ours; profile: the OCI seccomp profile in force,
    None for none; filter_path: where its compiled filter is kept; emulation: the filters of an emulated root, None
    where root is not emulated; has_queues: whether the host has /dev/mqueue, which only another runtime needs to know;
    zone_file: host path of the time zone of --tz, "" for the image's; edits: what devices of CDI change, None without.
    """

    env: tuple[tuple[str, str | None], ...] = ()
    labels: Mapping[str, str] = {}
    devices: tuple[tuple[str, str, str], ...] = ()
    hard_limits: dict[str, int] = {}
    init: str = ""
    runtime: str = ""
    profile: SeccompProfile | None = None
    filter_path: str | None = None
    emulation: RootEmulation | None = None
    has_queues: bool = False
    zone_file: str = ""
    edits: DeviceEdits | None = None


class Joins(NamedTuple):
    """Where a container's namespaces come from, and what comes with those of another container.

    namespaces: the choice for each kind; user: whether another container's user namespace is joined; network: the id of
    the container whose network is shared, None where none is; names_directory, hostname: that container's, "" likewise.
    """

    namespaces: NamespaceChoice
    user: bool = False
    network: str | None = None
    names_directory: str = ""
    hostname: str = ""


class ContainerFacts(NamedTuple):
    """What was found out for one container before it is planned.

    nodename: the host's name; now: seconds since the epoch; outer_map: the id map of the user namespace in which the
    container is set up, None where its own serves (it does unless it lacks the user's own ids); cgroup: what may be had
    for its cgroup, None where neither a limit nor a parent asks for one.
    """

    container_id: str
    name: str
    nodename: str
    now: float
    places: Places
    identity: Identity
    outer_map: IdMap | None
    joins: Joins
    network: Network
    mounts: Mounts
    rootfs: RootfsPlan
    process: ProcessFacts
    cgroup: Delegation | None = None


class ContainerPlan:
    """A container that is not made yet: the contents of its three files, and what is to be made for it.

    config: set by `plan`, which makes it; hostname: the name in the names files; has_own_names: whether these files are
    the container's own, which they are unless it shares another's network; has_apt_file: whether a file with
    root_emulation.APT_CONFIG is mounted for apt; warnings: one line each about what the host or an option takes away.
    """

    __slots__ = (
        "config",
        "facts",
        "has_apt_file",
        "has_own_names",
        "hostname",
        "launch",
        "options",
        "record",
        "warnings",
    )

    def __init__(self, options: ContainerOptions, facts: ContainerFacts) -> None:
        self.options = options
        self.facts = facts
        self.config: BundleConfig
        self.record = ContainerRecord(facts.container_id, facts.name, facts.identity.id_map)
        self.launch = LaunchPlan(facts.container_id, facts.identity.id_map)
        self.has_own_names = facts.joins.network is None
        self.hostname = ""
        self.has_apt_file = False
        self.warnings: list[str] = []

    def config_json(self) -> dict[str, object]:
        """The content of config.json, with what devices of CDI change in it."""
        config = self.config.to_json()
        if self.facts.process.edits is not None:
            self.facts.process.edits.apply(config)
        return config

    def rename(self, name: str) -> None:
        """Change the container's name wherever the plan holds it: creating tries another name when one is taken."""
        self.record.name = name
        self.launch.rename(name, self.facts.places.names)


def plan(options: ContainerOptions, image: ImageFacts, facts: ContainerFacts, settings: Settings) -> ContainerPlan:
    """The plan of one container. Raises UsageError for options that cannot be combined, HostLimit for what the host
    cannot do."""
    planned = ContainerPlan(options, facts)
    planned.warnings += [*facts.identity.warnings, facts.network.warning, *facts.mounts.warnings]
    planned.hostname = facts.joins.hostname
    if planned.has_own_names:
        planned.hostname = _hostname(options, facts)
    planned.config = _config(planned, image.defaults)
    cgroup = _cgroup(planned, settings)
    _fill_record(planned, image, settings)
    _fill_launch(planned, image, settings)
    planned.launch.cgroup = cgroup
    planned.warnings = [warning for warning in planned.warnings if warning]
    return planned


def _config(planned: ContainerPlan, image: ImageDefaults) -> BundleConfig:
    options, facts = planned.options, planned.facts
    process = facts.process
    bundle = BundleFacts(
        directory=facts.joins.names_directory or facts.places.directory,
        hostname=planned.hostname if facts.joins.namespaces.uts == "private" else "",
        id_map=facts.identity.id_map,
        account=_account(options, facts, image),
        namespaces=facts.joins.namespaces,
        mounts=facts.mounts.resolved,
        devices=process.devices,
        env=process.env,
        hard_limits=process.hard_limits,
        init=process.init,
        foreign=bool(process.runtime),
        has_queues=process.has_queues,
        mark=f"{facts.places.directory}/{MARK}",
        zone_file=process.zone_file,
    )
    config, warnings = make_config(options, image, bundle)
    planned.warnings += warnings
    if process.edits is not None:
        planned.warnings += process.edits.warnings
    if process.emulation is not None:
        from rootless.engine.plan import root_emulation

        planned.has_apt_file = root_emulation.add_apt_file(facts.places.directory, config)
        if process.profile is not None:
            root_emulation.check_profile(process.profile)
    if process.runtime and process.profile is not None:
        config.seccomp = process.profile.to_json()
    return config


def _account(options: ContainerOptions, facts: ContainerFacts, image: ImageDefaults) -> Account:
    """The account of the container's process.

    The caller, where the image does not know him, is at home in the working directory, as with podman. That is often a
    directory of his, while `/` is one in which he may write nothing.
    """
    account = facts.identity.account
    if not facts.identity.login_name:
        return account
    return account._replace(home=working_directory(options.workdir, image.working_dir))


def _cgroup(planned: ContainerPlan, settings: Settings) -> CgroupPlan:
    """The member "cgroup" of launch.json.

    A limit that the host cannot enforce adds a warning to the plan, and where a resource limit of processes does a part
    of the same, that one to the configuration. Raises HostLimit for a cgroup that was asked for and cannot be had, and
    for any such limit with --strict-limits.
    """
    wanted = launchfile.cgroup_settings(planned.options, settings)
    found = planned.facts.cgroup
    if found is None:
        return wanted
    if (wanted.parent or wanted.mode == "split") and found.kind == "none":
        raise HostLimit(f"the cgroup that was asked for cannot be used: {found.reason}", hint=found.remedy)
    from rootless.engine.plan.resources import judge

    limits = planned.config.process.limits
    verdict = judge(wanted, found, given_rlimits={limit.kind for limit in limits})
    limits += verdict.rlimits
    planned.warnings.append(verdict.warning)
    return wanted


def _fill_record(planned: ContainerPlan, image: ImageFacts, settings: Settings) -> None:
    options, facts, record = planned.options, planned.facts, planned.record
    defaults = image.defaults
    exposed = networking.exposed_ports((*defaults.exposed_ports, *options.expose))
    record.created = facts.now
    record.image = image.name
    record.image_id = image.config_digest
    record.manifest_digest = image.manifest_digest
    record.layers = list(image.layers)
    record.volumes = list(facts.mounts.volumes)
    record.labels = {**defaults.labels, **facts.process.labels}
    record.options = options
    record.exposed = [f"{port}/{protocol}" for port, protocol in exposed]
    record.network = RecordedNetwork(facts.network.mode, facts.joins.network, list(facts.network.ports))
    record.network.networks = [attachment.name for attachment in facts.network.attachments]
    record.host = facts.nodename
    record.mounts = list(facts.mounts.described)
    record.driver = facts.rootfs.driver
    record.stop = launchfile.stop_settings(options, defaults.stop_signal, settings)
    record.restart = launchfile.restart_policy(options.restart, rm=options.rm)
    record.health = launchfile.health_check(options, defaults.healthcheck)
    record.hostname = planned.hostname
    record.runtime = facts.process.runtime
    record.names_directory = facts.joins.names_directory or facts.places.directory
    record.command = planned.config.process.arguments
    record.default_home = not any(name == "HOME" for name, _ in (*split_env(defaults.env), *facts.process.env))


def _fill_launch(planned: ContainerPlan, image: ImageFacts, settings: Settings) -> None:
    options, facts, record, launch = planned.options, planned.facts, planned.record, planned.launch
    process, places = facts.process, facts.places
    launch.name = record.name
    launch.bundle = places.directory
    launch.rootfs = facts.rootfs
    launch.joined_user = facts.joins.user
    launch.outer_map = facts.outer_map
    launch.network = NetworkPlan(facts.network.mode, list(facts.network.ports), list(options.dns))
    launch.network.options = list(facts.network.options)
    if facts.network.attachments:
        from rootless.network.resolv import host_names

        launch.network.attachments = list(facts.network.attachments)
        launch.network.host_names = host_names(planned.hostname, options.domainname or "")
    launch.seed_volumes = list(facts.mounts.seeds)
    if facts.identity.login_name:
        account = _account(options, facts, image.defaults)
        launch.login = LoginEntry(facts.identity.login_name, account.uid, account.gid, account.home)
    if not process.runtime and process.profile is not None:
        launch.seccomp_bpf = process.filter_path
        launch.seccomp_flags, launch.seccomp_listener = seccomp_extras(process.profile)
    launch.root_emulation = process.emulation
    launch.log = launchfile.log_settings(options, settings, places.directory)
    launch.events = EventsPlan(places.event_log, {**record.labels, "image": record.image, "name": record.name})
    launch.terminal = options.tty
    launch.open_stdin = launch.stdin_once = options.interactive
    launch.stop_signal, launch.stop_timeout = record.stop.signal, record.stop.timeout
    launch.restart = record.restart
    launch.health = record.health
    launch.keep_groups = "keep-groups" in options.group_add
    launch.init = options.init and not process.init
    if options.rm:
        volumes = [volume.directory for volume in facts.mounts.new_volumes if volume.anonymous]
        launch.remove = RemovePlan(f"{places.names}/{record.name}", places.directory, volumes)
    launch.runtime = process.runtime or None
    launch.runtime_dir = places.runtime


def seccomp_extras(profile: SeccompProfile) -> tuple[int, SeccompListener | None]:
    """What launch.json says beside the path of a seccomp filter: its flags, and the agent that gets its listener.

    The flags are those of seccomp(2). The agent is None for a profile without SCMP_ACT_NOTIFY.
    """
    from rootless.runtime.seccomp import filter_cache

    listener = None
    if profile.has_listener and profile.listener_path:
        listener = SeccompListener(profile.listener_path, profile.listener_metadata)
    return filter_cache.load_flags(profile), listener


def _hostname(options: ContainerOptions, facts: ContainerFacts) -> str:
    if options.hostname:
        if options.uts == "host":
            raise UsageError("conflicting options: --hostname and the UTS mode 'host'")
        if len(options.hostname) > 64 or any(c.isspace() or c in "/\0" for c in options.hostname):
            raise UsageError(f"invalid hostname '{options.hostname}' (--hostname)", hint="use at most 64 characters")
        return options.hostname
    return facts.nodename if facts.network.mode == "host" or options.uts == "host" else facts.container_id[:12]
