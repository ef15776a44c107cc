"""`create`: from options to a container directory with record, bundle and launch.json; the name is written last.

On any error everything made so far is removed again; a kill leaves a nameless directory, which `prune` finds.
"""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

from rootless.engine import events, image_in_use
from rootless.engine.container import joins
from rootless.engine.container.names import suggest_name
from rootless.engine.plan import identity, launchfile, mount_sources, networking
from rootless.engine.plan.bundle import BundleFacts, make_config
from rootless.engine.plan.environment import parse_env, parse_labels, split_env
from rootless.engine.plan.security import parse_device, parse_security_options
from rootless.engine.types import ContainerOptions
from rootless.errors import AlreadyExists, HostLimit, RootlessError, UsageError
from rootless.records.container import ContainerRecord, RecordedNetwork
from rootless.records.fields import Fields
from rootless.records.launch import CgroupPlan, EventsPlan, LaunchPlan, NetworkPlan, RemovePlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.engine.image_in_use import ImageInUse
    from rootless.records.id_map import IdMap
    from rootless.records.rootfs import RootfsPlan
    from rootless.runtime.seccomp.seccomp_profile import SeccompProfile

_NAME_ATTEMPTS = 20


class Created(NamedTuple):
    """A new container."""

    id: str
    directory: str


def create_container(engine: Engine, options: ContainerOptions) -> str:
    """Make a container that is not started; its id (64 hex digits). Writes --cidfile. On error nothing is left."""
    return make(engine, options).id


def make(engine: Engine, options: ContainerOptions, *, starts: bool = False) -> Created:
    """Make a container. starts: it is started next, so that its ports must be free now.

    Raises what is wrong with the options, image or host; nothing is left then.
    """
    store = engine.store
    if options.cidfile and os.path.lexists(options.cidfile):
        raise UsageError(
            f"container ID file found, make sure the other container isn't running or delete '{options.cidfile}'"
        )
    launchfile.restart_policy(options.restart, rm=options.rm)
    # the lock keeps garbage collection away from layers and volumes that only we know of yet
    with store.using():
        image = image_in_use.image_for(engine, options.image, pull=options.pull, platform=options.platform)
        container_id = store.containers.new_id()
        made = mount_sources.Made()
        try:
            directory = _make(engine, options, image, container_id, made, starts=starts)
            if options.cidfile:
                from rootless.engine.id_file import write_id_file

                write_id_file(options.cidfile, container_id, option="--cidfile", exclusive=True)
            if engine.debug is not None:
                from rootless.engine.plan.explanation import explanation

                for step in explanation(directory).steps:
                    engine.debug(step)
        except BaseException:
            _undo(engine, container_id, made)
            raise
    events.record_container(engine, store.containers.read(container_id), "create")
    return Created(container_id, directory)


def _make(
    engine: Engine,
    options: ContainerOptions,
    image: ImageInUse,
    container_id: str,
    made: mount_sources.Made,
    *,
    starts: bool = False,
) -> str:
    store, settings = engine.store, engine.settings
    labels = {**image.defaults.labels, **parse_labels(options.label, options.label_file)}
    exposed = (*image.defaults.exposed_ports, *options.expose)
    network = networking.choose_network(engine, options, exposed, starts=starts)
    joined = joins.resolve(engine, options, network.mode)
    own = store.id_map
    layers = image.chain_ids
    who = identity.identify(options, image.defaults.user, store.layers.lowerdirs(layers, own), joined.id_map, own)
    id_map = who.id_map
    for warning in (*who.warnings, network.warning):
        if warning:
            engine.warn(warning)
    record = ContainerRecord(container_id, options.name or suggest_name(), id_map)
    record.created = time.time()
    record.image = image.name
    record.image_id = image.entry.config_digest
    record.manifest_digest = image.entry.manifest_digest
    record.layers = list(image.chain_ids)
    record.labels = labels
    record.options = Fields(options._asdict(), "record.json", "options")
    record.exposed = [f"{port}/{protocol}" for port, protocol in networking.exposed_ports(exposed)]
    record.network = RecordedNetwork(network.mode, joined.network, list(network.ports))
    record.host = os.uname().nodename
    directory = _make_directory(engine, record, named=options.name is not None)
    made.directory = directory
    try:
        os.mkdir(f"{directory}/rootfs", 0o755)
    except OSError as e:
        raise HostLimit(f"cannot make '{directory}/rootfs': {e.strerror}") from e
    hostname = _hostname(options, network.mode, container_id)
    names_directory = directory
    if joined.network:
        names_directory = store.containers.path(joined.network)
        hostname = _hostname_of(names_directory)
    else:
        networking.write_names_files(directory, hostname, options, network)
    mounts = mount_sources.resolve_mounts(engine, options, image.defaults, id_map, made)
    driver, rootfs = _rootfs(engine, options, directory, store.layers.lowerdirs(layers, id_map), id_map)
    init_program = _init_program() if options.init else ""
    facts = BundleFacts(
        directory=names_directory,
        hostname=hostname if joined.namespaces.uts == "private" else "",
        id_map=id_map,
        account=who.account,
        namespaces=joined.namespaces,
        mounts=mounts.resolved,
        devices=_devices(options),
        env=tuple(parse_env(options.env, options.env_file, os.environ)),
        hard_limits=hard_limits() if options.ulimit else {},
        init=init_program,
    )
    runtime = _runtime(options.runtime or settings.runtime)
    outer_map = None if joined.id_map is not None else identity.outer_map(own, id_map, runtime)
    config, warnings = make_config(options, image.defaults, facts)
    cgroup = _limit(engine, options, config)
    for warning in warnings:
        engine.warn(warning)
    emulation = None
    if options.root_emulation != "off":
        from rootless.engine.plan import root_emulation

        if root_emulation.is_wanted(options.root_emulation, id_map, runtime=runtime, nested=outer_map is not None):
            emulation = root_emulation.filters(engine)
            root_emulation.prepare_apt(directory, config)
    profile = seccomp_profile(engine, options, config)
    if emulation is not None and profile is not None:
        root_emulation.check_profile(profile)
    if runtime and profile is not None:
        config["linux"]["seccomp"] = profile.to_json()
    mount_sources.give_to_user(engine, mounts, who.account, id_map)
    stop = launchfile.stop_settings(options, image.defaults.stop_signal, settings)
    restart = launchfile.restart_policy(options.restart, rm=options.rm)
    health = launchfile.health_check(options, image.defaults.healthcheck)
    record.volumes = list(mounts.volumes)
    record.mounts = list(mounts.described)
    record.driver = driver
    record.stop = stop
    record.restart = restart
    record.health = health
    record.hostname = hostname
    record.runtime = runtime
    record.names_directory = names_directory
    record.command = config["process"]["args"]
    record.default_home = not any(name == "HOME" for name, _ in (*split_env(image.defaults.env), *facts.env))
    launch = LaunchPlan(container_id, id_map)
    launch.name = record.name
    launch.bundle = directory
    launch.rootfs = rootfs
    launch.joined_user = joined.id_map is not None
    launch.outer_map = outer_map
    launch.network = NetworkPlan(network.mode, list(network.ports), list(options.dns))
    launch.network.options = list(network.options)
    launch.seed_volumes = list(mounts.seeds)
    if not runtime:
        launch.seccomp_bpf = filter_path(engine, profile)
        if profile is not None:
            launch.seccomp_flags, launch.seccomp_listener = seccomp_extras(profile)
    launch.root_emulation = emulation
    launch.log = launchfile.log_settings(options, settings, directory)
    launch.cgroup = cgroup
    launch.events = EventsPlan(events.log_path(engine), events.container_attributes(record))
    launch.terminal = options.tty
    launch.open_stdin = launch.stdin_once = options.interactive
    launch.stop_signal, launch.stop_timeout = stop.signal, stop.timeout
    launch.restart = restart
    launch.health = health
    launch.keep_groups = "keep-groups" in options.group_add
    launch.init = options.init and not init_program
    if options.rm:
        volumes = [os.path.dirname(store.volumes.get(name).path) for name in mounts.anonymous]
        launch.remove = RemovePlan(f"{store.containers.names}/{record.name}", directory, volumes)
    launch.runtime = runtime or None
    launch.runtime_dir = engine.directories.runtime
    return _publish(engine, record, config, launch, named=options.name is not None)


def _limit(engine: Engine, options: ContainerOptions, config: dict[str, Any]) -> CgroupPlan:
    """launch.json's "cgroup"; where the host cannot enforce a limit, it is told, and what stands in is in `config`."""
    from rootless.engine.plan import resources

    wanted = resources.launch_settings(options, engine.settings)
    place = wanted.parent or wanted.mode == "split"
    if wanted.resources or place:
        from rootless.host import cgroups

        found = cgroups.find(parent=wanted.parent, current=wanted.mode == "split")
        if place and found.kind == "none":
            raise HostLimit(f"the cgroup that was asked for cannot be used: {found.reason}", hint=found.remedy)
        rlimits = config["process"].setdefault("rlimits", [])
        verdict = resources.judge(wanted, found, given_rlimits={limit["type"] for limit in rlimits})
        rlimits += verdict.rlimits
        if verdict.warning:
            engine.warn(verdict.warning)
    return wanted


def _make_directory(engine: Engine, record: ContainerRecord, *, named: bool) -> str:
    for attempt in range(_NAME_ATTEMPTS):
        try:
            return engine.store.containers.create(record)
        except AlreadyExists:
            if named:
                raise
            record.name = suggest_name(attempt + 1)
    return engine.store.containers.create(record)


def _publish(
    engine: Engine, record: ContainerRecord, config: dict[str, Any], launch: LaunchPlan, *, named: bool
) -> str:
    from rootless.records.json_file import write_record

    containers = engine.store.containers
    directory = containers.path(record.id)
    write_record(f"{directory}/config.json", config, durable=False)
    for attempt in range(_NAME_ATTEMPTS):
        containers.write_launch(launch.id, launch)
        containers.update(record)
        try:
            containers.publish(record.id)
            break
        except AlreadyExists:
            if named or attempt == _NAME_ATTEMPTS - 1:
                raise
            record.name = suggest_name(attempt + 1)
            launch.rename(record.name, containers.names)
    return directory


def _undo(engine: Engine, container_id: str, made: mount_sources.Made) -> None:
    """Remove what `_make` has made; an error of that is less news than the one that brought us here."""
    from rootless.storage.files.removal import remove_tree

    store = engine.store
    try:
        if made.directory is not None:
            remove_tree(store.containers.unpublish(container_id), store.id_map)
        for name in made.volumes:
            store.volumes.remove(name)
    except RootlessError as e:
        engine.warn(f"left-overs of the failed container stay until the next `rootless system prune`: {e.message}")


def _hostname(options: ContainerOptions, mode: str, container_id: str) -> str:
    if options.hostname:
        if options.uts == "host":
            raise UsageError("conflicting options: --hostname and the UTS mode 'host'")
        if len(options.hostname) > 64 or any(c.isspace() or c in "/\0" for c in options.hostname):
            raise UsageError(f"invalid hostname '{options.hostname}' (--hostname)", hint="use at most 64 characters")
        return options.hostname
    return os.uname().nodename if mode == "host" or options.uts == "host" else container_id[:12]


def _hostname_of(directory: str) -> str:
    try:
        with open(f"{directory}/hostname", encoding="utf-8", errors="replace") as file:
            return file.read(65).strip()
    except OSError:
        return ""


def _rootfs(
    engine: Engine, options: ContainerOptions, directory: str, lowerdirs: list[str], id_map: IdMap
) -> tuple[str, RootfsPlan]:
    from rootless.storage import drivers
    from rootless.storage.drivers.choice import choose

    name = options.storage_driver or engine.settings.storage_driver
    driver = choose(name, engine.store.containers.directory, id_map, engine.directories.cache)
    return driver, drivers.prepare(driver, directory, lowerdirs, id_map, volatile=options.rm)


def _devices(options: ContainerOptions) -> tuple[tuple[str, str, str], ...]:
    """The device nodes to bind: those asked for, and with --privileged all that the caller may open."""
    import stat

    found: dict[str, tuple[str, str, str]] = {}
    if options.privileged:
        for path in _openable_devices():
            found[path] = (path, path, "rwm")
    for text in options.device:
        host, inside, permissions = parse_device(text)
        try:
            mode = os.stat(host).st_mode
        except OSError as e:
            raise UsageError(
                f"error gathering device information while adding custom device '{host}': {str(e.strerror).lower()}"
            ) from e
        if stat.S_ISDIR(mode):
            for name in sorted(os.listdir(host)):
                if _is_device(f"{host}/{name}"):
                    found[f"{inside}/{name}"] = (f"{host}/{name}", f"{inside}/{name}", permissions)
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            found[inside] = (host, inside, permissions)
        else:
            raise UsageError(f"'{host}' is not a device (--device)")
    return tuple(found.values())


def _is_device(path: str) -> bool:
    import stat

    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


_OWN_DEVICES = {"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"}


def _openable_devices() -> list[str]:
    found = []
    for parent, directories, names in os.walk("/dev"):
        if parent == "/dev":
            directories[:] = [d for d in directories if d not in ("pts", "shm", "mqueue", "fd")]
            names = [n for n in names if n not in _OWN_DEVICES]
        for name in sorted(names):
            path = f"{parent}/{name}"
            if not os.path.islink(path) and _is_device(path) and os.access(path, os.R_OK | os.W_OK):
                found.append(path)
    return found


def hard_limits() -> dict[str, int]:
    """The caller's own hard limits by name (-1: none)."""
    import resource

    limits = {}
    for name in dir(resource):
        if name.startswith("RLIMIT_"):
            try:
                limits[name[7:].lower()] = resource.getrlimit(getattr(resource, name))[1]
            except (ValueError, OSError):
                continue
    return limits


def _init_program() -> str:
    """A static init of the host; "" when it has none: our own reaper is pid 1 then."""
    from rootless.host.facts import find_helper

    for name in ("docker-init", "catatonit", "tini-static"):
        path = find_helper(name)
        if path is not None:
            return os.path.realpath(path)
    return ""


def _runtime(name: str) -> str:
    """Absolute path of another OCI runtime, "" for our own."""
    if name in ("", "rootless", "rootless-oci"):
        return ""
    from rootless.host.facts import find_helper

    path = name if name.startswith("/") else find_helper(name)
    if path is None or not os.access(path, os.X_OK):
        raise UsageError(
            f"unknown or invalid runtime name '{name}' (--runtime)",
            hint="give the path of an OCI runtime, or install it",
        )
    return path


def seccomp_profile(engine: Engine, options: ContainerOptions, config: dict[str, Any]) -> SeccompProfile | None:
    """The profile in force: --security-opt, else the settings', else the default one; None for unconfined."""
    setting = parse_security_options(options.security_opt).seccomp or engine.settings.seccomp_profile
    if setting == "unconfined" or (options.privileged and not setting):
        return None
    from rootless.runtime.seccomp import filter_cache

    capabilities = config["process"]["capabilities"]["bounding"]
    if setting:
        return filter_cache.read_profile(setting, capabilities)
    return filter_cache.default_profile(capabilities)


def seccomp_extras(profile: SeccompProfile) -> tuple[int, dict[str, Any] | None]:
    """What launch.json needs beside the filter: flags for the kernel, the agent that gets its listener or None."""
    from rootless.runtime.seccomp import filter_cache

    listener = None
    if profile.has_listener:
        listener = {"listenerPath": profile.listener_path, "listenerMetadata": profile.listener_metadata}
    return filter_cache.load_flags(profile), listener


def filter_path(engine: Engine, profile: SeccompProfile | None) -> str | None:
    """Where the compiled filter is; None without a profile. Raises HostLimit."""
    if profile is None:
        return None
    from rootless.runtime.seccomp import filter_cache

    try:
        return filter_cache.cached_path(profile, engine.directories.cache)
    except OSError as e:
        raise HostLimit(f"cannot write the seccomp filter to '{engine.directories.cache}': {e.strerror}") from e
