"""What the verbs of containers, volumes, networks and the system take and give: immutable values, no behaviour, no I/O.

They are named tuples and not dataclasses, as the first dataclass costs `run` about 12 ms of imports and generated code.
Fields of options that have no description here mean what they do in records.container_options.
"""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class AttachOptions(NamedTuple):
    """How the caller's terminal follows a container, in `run`, `start -a` and `attach`.

    detach_keys: docker's text, None for the setting's; sig_proxy: signals are passed on to the container's process;
    no_stdin: its standard input is not attached.
    """

    detach: bool = False  # -d: do not attach at all
    detach_keys: str | None = None
    sig_proxy: bool = True
    no_stdin: bool = False


class ExecOptions(NamedTuple):
    """The command of `exec` and its flags, one field for each."""

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
    """How `run` or `start -a` ended. exit_code: None where the container runs on (-d, or the detach keys)."""

    container_id: str
    exit_code: int | None


class PortBinding(NamedTuple):
    """One published port as it is in force: host_port is the real one, also where any free one was asked for."""

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


class NetworkSummary(NamedTuple):
    """One network as `network ls` shows it. predefined: docker has it from the start, and it has no record."""

    name: str
    id: str
    driver: str
    created: float
    internal: bool
    labels: dict[str, str]
    predefined: bool = False


class PruneReport(NamedTuple):
    """What a prune removed: ids or names, and in `reclaimed` the bytes that were freed."""

    containers: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    reclaimed: int = 0
    cache: tuple[str, ...] = ()  # one line per record of the build cache


class ExecSession(NamedTuple):
    """A process that `exec` started. pid: the host's number; exit_code: None when it was left running (detached)."""

    pid: int
    exit_code: int | None


class CopyResult(NamedTuple):
    """What `cp` copied. size: bytes of files; lost: how many devices and the like could not be made."""

    size: int
    lost: int


class ImageDefaults(NamedTuple):
    """What an image's config sets for the containers made from it (image-spec config.md). None: it is not set."""

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
