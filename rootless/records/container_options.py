"""What a container was asked to be: the flags of `run` and `create`, as record.json keeps them. No behaviour, no I/O.

Fields carry docker's flag names in snake_case, repeatable flags as tuples, and the text the user gave where a flag has
a grammar of its own (the engine parses it and its UsageError names the flag). Monitors do not load it, so that it may
be a named tuple, which here costs a tenth of a dataclass.
"""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rootless.records.fields import Fields


class ContainerOptions(NamedTuple):
    """One field per flag of `run` and `create`; an untouched flag is its default here. In record.json: "options"."""

    image: str = ""
    command: tuple[str, ...] = ()
    # identity
    name: str | None = None
    hostname: str | None = None
    domainname: str | None = None
    label: tuple[str, ...] = ()
    label_file: tuple[str, ...] = ()
    annotation: tuple[str, ...] = ()
    cidfile: str | None = None
    replace: bool = False  # a container that has the name is removed first
    # the image
    pull: str = "missing"  # always | missing | never | newer
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
    umask: str | None = None  # octal digits
    tz: str | None = None  # "local", or a name below /usr/share/zoneinfo
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
    gpus: tuple[str, ...] = ()
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
    more_networks: tuple[str, ...] = ()  # --network after the first
    network_alias: tuple[str, ...] = ()
    ip: str | None = None
    mac_address: str | None = None
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

    def to_json(self) -> dict[str, object]:
        """The member "options" of record.json."""
        return self._asdict()

    @classmethod
    def from_json(cls, fields: Fields) -> ContainerOptions:
        """The reverse of `to_json`; an option that an earlier version did not write has its default.

        Raises InvalidInput naming the file and the option when a value has the wrong type.
        """
        saved: dict[str, Any] = {}
        for name, kind in cls.__annotations__.items():
            if fields.has(name):
                # NamedTuple wraps annotations that are texts, as all are here, in typing.ForwardRef
                saved[name] = _READERS[kind.__forward_arg__](fields, name)
        return cls(**saved)


def _optional(read: Callable[[Fields, str], object]) -> Callable[[Fields, str], object]:
    return lambda fields, name: None if fields.is_null(name) else read(fields, name)


_READERS: dict[str, Callable[[Fields, str], object]] = {
    "str": lambda fields, name: fields.text(name),
    "bool": lambda fields, name: fields.flag(name),
    "str | None": lambda fields, name: fields.optional_text(name),
    "int | None": _optional(lambda fields, name: fields.integer(name)),
    "bool | None": _optional(lambda fields, name: fields.flag(name)),
    "tuple[str, ...]": lambda fields, name: tuple(fields.texts(name)),
}
"""How the options of each type are read, by what their class declares."""
