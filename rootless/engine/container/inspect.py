"""`inspect`: a container's record, bundle and state in the shape of docker's `container inspect`. It only reads.

Scripts and libraries written for docker read these names and units, so that members without a meaning here stay.
"""

from __future__ import annotations

from rootless.engine.container.container_cgroup import effective_limits
from rootless.engine.container.reconcile import state_of
from rootless.engine.plan.signal_names import signal_name
from rootless.errors import RootlessError
from rootless.records.container_options import ContainerOptions
from rootless.records.resource_limits import Resources
from rootless.units import timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.engine.context import Engine
    from rootless.records.container import ContainerRecord, RecordedMount
    from rootless.records.id_map import Extent
    from rootless.records.launch import CgroupPlan, LaunchPlan
    from rootless.records.port import Port
    from rootless.records.rootfs import RootfsPlan
    from rootless.records.state import ContainerState
    from rootless.runtime.spec.oci_config import OciConfig
    from rootless.runtime.spec.process_config import OciProcess

_SECOND = 1_000_000_000


def inspect_container(engine: Engine, container: str, *, size: bool = False) -> dict[str, object]:
    """All that is known of one container, in the shape of docker's `container inspect`.

    size: count the bytes that it has written, too, which reads its whole upper directory. Raises NotFound, InvalidInput
    for a damaged file.
    """
    from rootless.records.json_file import read_record
    from rootless.runtime.spec.oci_config import OciConfig

    containers = engine.store.containers
    container_id = containers.find(container)
    record = containers.read(container_id)
    state = state_of(engine, container_id)
    directory = containers.path(container_id)
    config = OciConfig.from_json(read_record(f"{directory}/config.json", what="bundle"))
    launch = containers.read_launch(container_id)
    options = record.options
    names = record.names_directory
    process = config.first_process()
    shown: dict[str, object] = {
        "Id": container_id,
        "Created": timestamp(record.created),
        "Path": process.args[0],
        "Args": process.args[1:],
        "State": _state(state),
        "Image": record.image_id,
        "ImageDigest": record.manifest_digest,
        "ImageName": record.image,
        "ResolvConfPath": f"{names}/resolv.conf",
        "HostnamePath": f"{names}/hostname",
        "HostsPath": f"{names}/hosts",
        "LogPath": launch.log.path if launch.log.driver != "none" else "",
        "Name": f"/{record.name}",
        "RestartCount": state.restart_count,
        "Driver": record.driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": _host_config(record, options, config, launch),
        "GraphDriver": {"Name": record.driver, "Data": _graph(launch.rootfs)},
        "Mounts": [_mount(m) for m in record.mounts],
        "Config": _config(record, options, process) | _command(engine, record),
        "NetworkSettings": _network(record, state),
        "OCIConfigPath": f"{directory}/config.json",
        "OCIRuntime": record.runtime or "rootless",
        "IDMappings": {
            "UidMap": _id_map(config.linux.uids),
            "GidMap": _id_map(config.linux.gids),
        },
    }
    effective = effective_limits(state)
    if effective is not None:
        shown["EffectiveLimits"] = effective
    if size:
        from rootless.storage.layers.tree_sizes import tree_sizes

        layers = engine.store.layers
        written = tree_sizes([f"{directory}/upper"], engine.store.id_map)[0].content
        shown["SizeRw"] = written
        shown["SizeRootFs"] = written + sum(layers.size(c) for c in record.layers if layers.has(c))
    return shown


def _state(state: ContainerState) -> dict[str, object]:
    status = state.status
    shown: dict[str, object] = {
        "Status": status,
        "Running": status in ("running", "paused"),
        "Paused": status == "paused",
        "Restarting": status == "restarting",
        "OOMKilled": state.oom_killed,
        "CgroupPath": (state.cgroup or {}).get("path") or "",
        "Dead": status == "dead",
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error or state.network.problem,
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
    }
    if state.host:
        shown["Host"] = state.host
    health = state.health
    if health is not None:
        shown["Health"] = {
            "Status": health.status,
            "FailingStreak": health.failing_streak,
            "Log": [
                {"Start": entry.start, "End": entry.end, "ExitCode": entry.exit_code, "Output": entry.output}
                for entry in health.log
            ],
        }
    return shown


def _host_config(
    record: ContainerRecord, options: ContainerOptions, config: OciConfig, launch: LaunchPlan
) -> dict[str, object]:
    shm = next(
        (
            int(word.removeprefix("size="))
            for mount in config.mounts
            if mount.destination == "/dev/shm"  # noqa: S108
            for word in mount.options
            if word.startswith("size=") and word[5:].isdigit()
        ),
        0,
    )
    log = launch.log
    return {
        "Binds": list(options.volume) or None,
        "ContainerIDFile": options.cidfile or "",
        "LogConfig": {
            "Type": log.driver,
            "Config": {"max-size": str(log.max_size), "max-file": str(log.max_file)},
        },
        "NetworkMode": _network_mode(record),
        "PortBindings": _port_map(record.network.ports or _asked_ports(record, options)),
        "RestartPolicy": {
            "Name": record.restart.name,
            "MaximumRetryCount": record.restart.maximum_retry_count,
        },
        "AutoRemove": options.rm,
        "VolumesFrom": list(options.volumes_from) or None,
        "CapAdd": list(options.cap_add) or None,
        "CapDrop": list(options.cap_drop) or None,
        "CgroupnsMode": options.cgroupns or "private",
        "Dns": list(options.dns),
        "DnsOptions": list(options.dns_option),
        "DnsSearch": list(options.dns_search),
        "ExtraHosts": list(options.add_host) or None,
        "GroupAdd": list(options.group_add) or None,
        "IpcMode": options.ipc or "private",
        "OomScoreAdj": options.oom_score_adj or 0,
        **_limits(options, launch.cgroup),
        "PidMode": options.pid or "",
        "Privileged": options.privileged,
        "PublishAllPorts": options.publish_all,
        "ReadonlyRootfs": options.read_only,
        "SecurityOpt": list(options.security_opt) or None,
        "Tmpfs": {target: words for target, _, words in (text.partition(":") for text in options.tmpfs)},
        "UTSMode": options.uts or "",
        "UsernsMode": options.userns or "",
        "ShmSize": shm,
        "Sysctls": config.linux.sysctl,
        "Runtime": record.runtime or "rootless",
        "Ulimits": [
            {"Name": limit.kind.removeprefix("RLIMIT_").lower(), "Soft": limit.soft, "Hard": limit.hard}
            for limit in config.first_process().rlimits
        ],
        "Devices": [
            {
                "PathOnHost": mount.source,
                "PathInContainer": mount.destination,
                "CgroupPermissions": "rwm" if "ro" not in mount.options else "rm",
            }
            for mount in config.mounts
            if mount.fstype == "bind" and mount.source.startswith("/dev/") and mount.destination.startswith("/dev/")
        ],
        "DeviceRequests": _device_requests(options) or None,
        "MaskedPaths": config.linux.masked_paths,
        "ReadonlyPaths": config.linux.readonly_paths,
        "Init": options.init,
    }


def _device_requests(options: ContainerOptions) -> list[dict[str, object]]:
    """The devices that were asked for by their CDI names, and by --gpus, as docker shows both."""
    from rootless.engine.plan.security import is_cdi_name, wants_cdi

    if not wants_cdi(options):
        return []
    from rootless.engine.plan.device_edits import parse_gpus

    names = [text for text in options.device if is_cdi_name(text)]
    shown: list[dict[str, object]] = []
    if names:
        shown.append({"Driver": "cdi", "Count": 0, "DeviceIDs": names, "Capabilities": None, "Options": None})
    for request in map(parse_gpus, options.gpus):
        ids = list(request.names) or None
        found = {"Driver": "", "Count": request.number, "DeviceIDs": ids, "Capabilities": [["gpu"]], "Options": {}}
        shown.append(found)
    return shown


def _limits(options: ContainerOptions, cgroup: CgroupPlan) -> dict[str, object]:
    """The limits that were asked for, under docker's names and in its units; 0 or empty where there is none."""
    wanted = cgroup.resources or Resources()
    memory, cpu, block = wanted.memory, wanted.cpu, wanted.block_io
    shown: dict[str, object] = {
        "Memory": memory.limit or 0,
        "MemorySwap": memory.swap or 0,
        "MemoryReservation": memory.reservation or 0,
        "MemorySwappiness": memory.swappiness,
        "OomKillDisable": memory.disable_oom_killer,
        "NanoCpus": 0 if options.cpus is None else (cpu.quota or 0) * 10_000,
        "CpuPeriod": 0 if options.cpus is not None else cpu.period or 0,
        "CpuQuota": 0 if options.cpus is not None else cpu.quota or 0,
        "CpuShares": cpu.shares or 0,
        "CpusetCpus": cpu.cpus,
        "CpusetMems": cpu.mems,
        "PidsLimit": wanted.pids or 0,
        "BlkioWeight": block.weight or 0,
        "CgroupConf": wanted.unified or None,
        "CgroupParent": cgroup.parent,
        "Cgroups": cgroup.mode,
    }
    for name, value, devices in (
        ("BlkioWeightDevice", "Weight", block.weight_devices),
        ("BlkioDeviceReadBps", "Rate", block.read_bytes),
        ("BlkioDeviceWriteBps", "Rate", block.write_bytes),
        ("BlkioDeviceReadIOps", "Rate", block.read_operations),
        ("BlkioDeviceWriteIOps", "Rate", block.write_operations),
    ):
        shown[name] = [{"Path": f"/dev/block/{device.device}", value: device.value} for device in devices]
    return shown


def _id_map(extents: list[Extent]) -> list[str]:
    return [f"{extent.container}:{extent.host}:{extent.size}" for extent in extents]


def _graph(rootfs: RootfsPlan | None) -> dict[str, str]:
    if rootfs is None:
        return {"LowerDir": "", "UpperDir": "", "WorkDir": ""}
    return {
        "LowerDir": ":".join(rootfs.lowerdirs),
        "UpperDir": rootfs.upper,
        "WorkDir": rootfs.work,
    }


def _mount(mount: RecordedMount) -> dict[str, object]:
    shown = {
        "Type": "volume" if mount.name else mount.kind,
        "Source": mount.source,
        "Destination": mount.target,
        "Mode": ",".join(mount.options),
        "RW": not mount.read_only and mount.kind != "image",
        "Propagation": mount.propagation or ("rprivate" if mount.kind == "bind" else ""),
    }
    if mount.name:
        shown.update(Name=mount.name, Driver="local")
    return shown


def _config(record: ContainerRecord, options: ContainerOptions, process: OciProcess) -> dict[str, object]:
    user = process.user
    shown: dict[str, object] = {
        "Hostname": record.hostname,
        "Domainname": options.domainname or "",
        "User": options.user if options.user is not None else (f"{user.uid}:{user.gid}" if user.uid else ""),
        "AttachStdin": options.interactive,
        "AttachStdout": True,
        "AttachStderr": True,
        "ExposedPorts": {port: {} for port in _exposed(record, options)} or None,
        "Tty": options.tty,
        "OpenStdin": options.interactive,
        "StdinOnce": options.interactive,
        "Env": process.env,
        "Cmd": None,
        "Image": record.image,
        "Volumes": {m.target: {} for m in record.mounts if m.anonymous} or None,
        "WorkingDir": process.cwd,
        "Entrypoint": None,
        "Labels": record.labels,
        "StopSignal": signal_name(record.stop.signal),
        "StopTimeout": record.stop.timeout,
    }
    health = record.health
    if health is not None:
        shown["Healthcheck"] = {
            "Test": health.test,
            "Interval": int(health.interval * _SECOND),
            "Timeout": int(health.timeout * _SECOND),
            "StartPeriod": int(health.start_period * _SECOND),
            "StartInterval": int(health.start_interval * _SECOND),
            "Retries": health.retries,
        }
    return shown


def _command(engine: Engine, record: ContainerRecord) -> dict[str, object]:
    """Config.Entrypoint and Config.Cmd as they are in force: of the image, where the command line has no others.

    The record has both in one list; where the image cannot be read any more, what is not of the command line is Cmd.
    """
    options = record.options
    entrypoint, command = [options.entrypoint] if options.entrypoint else [], list(options.command)
    if options.entrypoint is None:
        try:
            image = engine.store.index.load(record.manifest_digest).config
            entrypoint, command = list(image.entrypoint or ()), command or list(image.cmd or ())
        except RootlessError:
            words = list(record.command)
            if command and words[-len(command) :] == command:
                entrypoint = words[: -len(command)]
            else:
                command = words
    return {"Entrypoint": entrypoint or None, "Cmd": command or None}


def _asked_ports(record: ContainerRecord, options: ContainerOptions) -> list[Port]:
    """The ports that a container which was never started is to publish; host port 0 stands for any free one."""
    from rootless.engine.plan.networking import wanted_ports

    return wanted_ports(options, tuple(record.exposed))


def _exposed(record: ContainerRecord, options: ContainerOptions) -> list[str]:
    """ "80/tcp" of all ports that are exposed; docker counts those that are published among them."""
    published = record.network.ports or _asked_ports(record, options)
    return list(dict.fromkeys([*record.exposed, *_port_map(published)]))


def _port_map(ports: Iterable[Port], any_address: str = "") -> dict[str, list[dict[str, str]] | None]:
    """docker's map of published ports. any_address: how an address is shown that was not given."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        key = f"{port.container_port}/{port.protocol}"
        host_port = str(port.host_port) if port.host_port else ""
        bindings.setdefault(key, []).append({"HostIp": port.host_ip or any_address, "HostPort": host_port})
    return dict(bindings)


def _network_mode(record: ContainerRecord) -> str:
    network = record.network
    if network.container:
        return f"container:{network.container}"
    return network.networks[0] if network.networks else network.mode


def _networks(record: ContainerRecord, state: ContainerState, address: dict[str, object]) -> dict[str, object]:
    """NetworkSettings.Networks: each network by its name, with the container's addresses there while it runs."""
    mode = record.network.mode
    if not record.network.networks:
        return {mode: {"NetworkID": mode, **address}}
    absent: dict[str, object] = {"IPAddress": "", "Gateway": "", "MacAddress": "", "IPPrefixLen": 0}
    shown: dict[str, object] = {name: {"NetworkID": "", "Aliases": [], **absent} for name in record.network.networks}
    for one in state.network.attachments:
        shown[one.name] = {
            "NetworkID": one.network_id,
            "Aliases": list(one.aliases),
            "DNSNames": [record.name, *one.aliases, record.id[:12]],
            "IPAddress": one.ip,
            "Gateway": one.gateway,
            "MacAddress": one.mac,
            "IPPrefixLen": one.prefix,
        }
    return shown


def _network(record: ContainerRecord, state: ContainerState) -> dict[str, object]:
    running = state.status in ("running", "paused")
    address: dict[str, object] = {
        "IPAddress": state.network.ip,
        "Gateway": state.network.gateway,
        "MacAddress": state.network.mac,
        "IPPrefixLen": state.network.prefix,
    }
    return {
        "SandboxKey": f"/proc/{state.pid}/ns/net" if running and state.pid else "",
        # what is exposed and not published is there without a binding
        "Ports": {**dict.fromkeys(record.exposed), **_port_map(record.network.ports, "0.0.0.0")} if running else {},  # noqa: S104
        **address,
        "Networks": _networks(record, state, address),
    }
