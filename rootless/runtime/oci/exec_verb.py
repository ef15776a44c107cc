"""`rootless-oci exec`: one more process in a running container. It parses no command line and prints nothing."""

from __future__ import annotations

from rootless.errors import UsageError
from rootless.records.properties import Properties, property_error
from rootless.runtime.cgroups import place
from rootless.runtime.oci.bundle_cgroup import group_of, require, sub_group
from rootless.runtime.oci.life_verbs import filters_of, write_pid_file
from rootless.runtime.oci.oci_records import OciRecord, Records
from rootless.runtime.process import console
from rootless.runtime.process.command import ProcessOptions, ProcessStreams
from rootless.runtime.process.join import Joining, exec_process
from rootless.runtime.seccomp.listener import pass_on
from rootless.runtime.spec.oci_config import parse_json, read_content
from rootless.runtime.spec.process_config import CapabilityNames, OciProcess, OciUser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.records.launch import SeccompListener
    from rootless.runtime.spec.oci_config import OciConfig

_MAX_ID = 0xFFFFFFFE


class OciExecOptions:
    """The flags of exec; None or empty leaves what the container's own process has."""

    __slots__ = (
        "additional_gids",
        "apparmor",
        "capabilities",
        "cgroups",
        "console_socket",
        "cwd",
        "detach",
        "environment",
        "ignore_paused",
        "no_new_privileges",
        "pid_file",
        "preserve_fds",
        "process_file",
        "process_label",
        "tty",
        "user",
    )

    def __init__(self) -> None:
        self.additional_gids: Sequence[int] = ()
        self.apparmor: str | None = None
        self.capabilities: Sequence[str] = ()
        self.cgroups: Sequence[str] = ()
        self.console_socket: str | None = None
        self.cwd: str | None = None
        self.detach = False
        self.environment: Sequence[str] = ()
        self.ignore_paused = False
        self.no_new_privileges = False
        self.pid_file: str | None = None
        self.preserve_fds = 0
        self.process_file: str | None = None
        self.process_label: str | None = None
        self.tty = False
        self.user: str | None = None


def execute(
    records: Records, container_id: str, arguments: list[str], options: OciExecOptions, warn: Callable[[str], None]
) -> int:
    """Run the process; its exit status, 0 when detached.

    A created container is one that has everything but its own command; of a paused one the new process would be frozen
    too, so that it has to be asked for.
    """
    record = records.get(container_id)
    record.require("exec in", "created", "running", *(["paused"] if options.ignore_paused else []))
    config = record.config()
    process = process_for(config, arguments, options)
    if process.terminal and options.detach and not options.console_socket:
        raise UsageError("a detached process with a terminal needs somebody who takes it", hint="give --console-socket")
    group, init = group_of(record), record.pid
    if options.cgroups:
        group, init = sub_group(require(record, "exec in"), options.cgroups), 0
    joining = Joining(record.pid, process, config)
    joining.filters = filters_of(config)
    joining.on_listener = _agent(joining.filters.listener, record)
    joining.streams = ProcessStreams(preserve_fds=options.preserve_fds)
    joining.start_time = record.facts.pid_start
    joining.options = ProcessOptions(keep_groups=config.keeps_groups)
    joining.join_cgroup = None if group is None else lambda pid: place.join(group, pid, init)
    joining.warn = warn
    if not options.console_socket:
        joining.on_console = console.prepare_terminal
    joined = exec_process(joining)
    try:
        if options.pid_file:
            write_pid_file(options.pid_file, joined.pid)
        if joined.console_fd is not None and options.console_socket:
            console.send_master(options.console_socket, joined.console_fd)
    except BaseException:
        joined.kill()
        raise
    if options.detach:
        return 0
    with console.Forward(joined.pidfd, joined.console_fd):
        if joined.console_fd is not None and not options.console_socket:
            console.relay_terminal(joined.console_fd, joined.pidfd)
        return joined.wait()


def _agent(agent: SeccompListener | None, record: OciRecord) -> Callable[[int, int], None] | None:
    """What passes the listener of the new process on to the agent; its state is that of the container."""
    if agent is None:
        return None
    return lambda fd, pid: pass_on(agent, fd, record.oci_state(), pid)


def process_for(config: OciConfig, arguments: list[str], options: OciExecOptions) -> OciProcess:
    """The OCI process of an exec: that of a file, or the container's with the flags' changes.

    Raises UsageError, and InvalidInput for a file, or a container, with a property that cannot be worked with.
    """
    if options.process_file:
        content = read_content(options.process_file, regular=False)
        process = OciProcess.from_json(Properties(parse_json(content, options.process_file), "process"))
        process.check_labels()
        return process
    if not arguments:
        raise UsageError("exec needs a command, or --process")
    process = config.first_process().copy()
    process.args = arguments
    process.terminal = options.tty
    if options.cwd:
        process.cwd = options.cwd
        if not options.cwd.startswith("/"):
            raise property_error("process.cwd", f"must be an absolute path, not '{options.cwd}'")
    process.env = [*process.env, *options.environment]
    if options.user is not None:
        process.user = OciUser(*parse_user(options.user))
    if options.additional_gids:
        process.user = process.user.copy()
        process.user.additional_gids = list(options.additional_gids)
    process.no_new_privileges = process.no_new_privileges or options.no_new_privileges
    process.apparmor_profile = options.apparmor or process.apparmor_profile
    process.selinux_label = options.process_label or process.selinux_label
    if options.capabilities:
        process.capabilities = _with(process.capabilities or CapabilityNames(), options.capabilities)
    process.check_labels()
    return process


def parse_user(text: str) -> tuple[int, int]:
    """`uid` or `uid:gid`, numbers only. CVE-2026-30892: no sign, overflow or trailing junk, never root instead."""
    fields = text.split(":")
    if len(fields) > 2 or not all(f.isascii() and f.isdigit() and len(f) <= 10 for f in fields):
        raise UsageError(f"invalid user '{text}'", hint="give UID or UID:GID as numbers")
    numbers = [int(f) for f in fields]
    if any(n > _MAX_ID for n in numbers):
        raise UsageError(f"invalid user '{text}': an id is at most {_MAX_ID}")
    return numbers[0], numbers[1] if len(numbers) == 2 else 0


def _with(sets: CapabilityNames, names: Sequence[str]) -> CapabilityNames:
    """More capabilities, but none more inheritable (CVE-2022-29162). Ambient become those that the container's process
    has inheritable, as with runc: the kernel wants that of an ambient one."""
    added = [upper if upper.startswith("CAP_") else f"CAP_{upper}" for upper in map(str.upper, names)]
    result = CapabilityNames()
    result.bounding = sorted({*sets.bounding, *added})
    result.effective = sorted({*sets.effective, *added})
    result.permitted = sorted({*sets.permitted, *added})
    result.inheritable = sets.inheritable
    result.ambient = sorted({*sets.ambient, *(name for name in added if name in sets.inheritable)})
    return result
