"""What the verbs of containers, volumes and the system take and give: immutable values, no behaviour, no I/O.

Named tuples, not dataclasses: a dataclass costs `run` about 12 ms of imports and generated code. Option fields carry
docker's flag names in snake_case, repeatable flags as tuples, and the text the user gave where a flag has a grammar of
its own (the engine parses it and its UsageError names the flag).
"""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class ContainerOptions(NamedTuple):
    """One field per flag of `run` and `create`; an untouched flag is its default here."""

    image: str
    command: tuple[str, ...] = ()
    # identity
    name: str | None = None
    hostname: str | None = None
    domainname: str | None = None
    label: tuple[str, ...] = ()
    label_file: tuple[str, ...] = ()
    annotation: tuple[str, ...] = ()
    cidfile: str | None = None
    # the image
    pull: str = "missing"  # always | missing | never
    platform: str | None = None
    # streams; `attach` is -a (stdin, stdout, stderr), empty = docker's default
    interactive: bool = False
    tty: bool = False
    attach: tuple[str, ...] = ()
    # the process
    entrypoint: str | None = None  # "" clears the image's
    env: tuple[str, ...] = ()
    env_file: tuple[str, ...] = ()
    workdir: str | None = None
    user: str | None = None
    group_add: tuple[str, ...] = ()
    init: bool = False
    ulimit: tuple[str, ...] = ()
    oom_score_adj: int | None = None
    # limits; texts are docker's sizes and numbers
    memory: str | None = None
    memory_swap: str | None = None
    memory_reservation: str | None = None
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    cpus: str | None = None
    cpu_shares: int | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    pids_limit: int | None = None
    blkio_weight: int | None = None
    blkio_weight_device: tuple[str, ...] = ()
    device_read_bps: tuple[str, ...] = ()
    device_write_bps: tuple[str, ...] = ()
    device_read_iops: tuple[str, ...] = ()
    device_write_iops: tuple[str, ...] = ()
    cgroup_conf: tuple[str, ...] = ()
    cgroup_parent: str | None = None
    cgroups: str | None = None  # enabled | disabled | split
    strict_limits: bool | None = None  # None: as the settings say
    stop_signal: str | None = None
    stop_timeout: int | None = None  # seconds; -1 waits for ever
    # life
    rm: bool = False
    restart: str = "no"
    health_cmd: str | None = None
    health_interval: str | None = None
    health_timeout: str | None = None
    health_retries: int | None = None
    health_start_period: str | None = None
    health_start_interval: str | None = None
    no_healthcheck: bool = False
    # files
    read_only: bool = False
    volume: tuple[str, ...] = ()
    mount: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    volumes_from: tuple[str, ...] = ()
    shm_size: str | None = None
    device: tuple[str, ...] = ()
    # isolation
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    privileged: bool = False
    sysctl: tuple[str, ...] = ()
    userns: str | None = None  # default | keep-id[:uid=N,gid=N] | host | nomap | container:ID
    uidmap: tuple[str, ...] = ()
    gidmap: tuple[str, ...] = ()
    root_emulation: str = "off"  # auto | on | off
    ipc: str | None = None
    pid: str | None = None
    uts: str | None = None
    cgroupns: str | None = None
    # network
    network: str | None = None
    publish: tuple[str, ...] = ()
    publish_all: bool = False
    expose: tuple[str, ...] = ()
    add_host: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_option: tuple[str, ...] = ()
    # how
    log_driver: str | None = None
    log_opt: tuple[str, ...] = ()
    runtime: str | None = None
    storage_driver: str | None = None


class AttachOptions(NamedTuple):
    """How the caller's terminal follows a container: of `run`, `start -a` and `attach`."""

    detach: bool = False  # -d: do not attach at all
    detach_keys: str | None = None
    sig_proxy: bool = True
    no_stdin: bool = False


class ExecOptions(NamedTuple):
    """One field per flag of `exec`."""

    command: tuple[str, ...]
    interactive: bool = False
    tty: bool = False
    detach: bool = False
    env: tuple[str, ...] = ()
    env_file: tuple[str, ...] = ()
    workdir: str | None = None
    user: str | None = None
    privileged: bool = False
    detach_keys: str | None = None


class RunOutcome(NamedTuple):
    """How `run` or `start -a` ended: exit_code is None while the container goes on without us (-d, detach keys)."""

    container_id: str
    exit_code: int | None


class PortBinding(NamedTuple):
    """One published port, as it is."""

    host_ip: str
    host_port: int
    container_port: int
    protocol: str


class ContainerSummary(NamedTuple):
    """One row of `ps`. Times are seconds since the epoch (0.0 = never)."""

    id: str
    name: str
    image: str
    image_id: str
    command: tuple[str, ...]
    created: float
    started: float
    finished: float
    state: str  # created | running | paused | restarting | exited | dead
    status: str  # docker's words: "Up 3 minutes (healthy)", "Exited (0) 2 hours ago"
    exit_code: int
    health: str  # "" | starting | healthy | unhealthy
    ports: tuple[PortBinding, ...]
    exposed: tuple[str, ...]  # "80/tcp", exposed and not published
    labels: dict[str, str]
    mounts: tuple[str, ...]  # volume names and host paths
    networks: tuple[str, ...]
    size_rw: int | None = None  # bytes; None unless asked for
    size_root: int | None = None


class TopTable(NamedTuple):
    """The answer of `top`: one text for each column of each process."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class VolumeSummary(NamedTuple):
    """One volume as `volume ls` shows it."""

    name: str
    driver: str
    mountpoint: str
    created: float
    labels: dict[str, str]
    options: dict[str, str]
    anonymous: bool
    size: int | None = None  # bytes; None unless asked for


class PruneReport(NamedTuple):
    """What a prune deleted: ids or names, and the bytes that came free."""

    containers: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    reclaimed: int = 0
    cache: tuple[str, ...] = ()  # one line per record of the build cache


class ExecSession(NamedTuple):
    """A process that `exec` started: exit_code is None when it was detached."""

    pid: int
    exit_code: int | None


class CopyResult(NamedTuple):
    """size: bytes of files; lost: devices and the like that could not be made."""

    size: int
    lost: int


class ImageDefaults(NamedTuple):
    """What an image config says a container starts from. None: not set."""

    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    user: str = ""
    working_dir: str = ""
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    stop_signal: str = ""
    healthcheck: Mapping[str, object] | None = None
