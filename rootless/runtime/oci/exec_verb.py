"""`rootless-oci exec`: one more process in a running container. It parses no command line and prints nothing."""

from __future__ import annotations

from rootless.errors import UsageError
from rootless.runtime import capabilities, spec
from rootless.runtime.cgroups import place
from rootless.runtime.oci.bundle_cgroup import group_of
from rootless.runtime.oci.life_verbs import KEEP_GROUPS, seccomp_of, write_pid_file
from rootless.runtime.oci.oci_records import OciRecord, Records
from rootless.runtime.process import console
from rootless.runtime.process.join import exec_process
from rootless.runtime.seccomp.listener import pass_on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_MAX_ID = 0xFFFFFFFE


class OciExecOptions:
    """The flags of exec; None or empty leaves what the container's own process has."""

    __slots__ = (
        "additional_gids",
        "apparmor",
        "capabilities",
        "console_socket",
        "cwd",
        "detach",
        "environment",
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
        self.console_socket: str | None = None
        self.cwd: str | None = None
        self.detach = False
        self.environment: Sequence[str] = ()
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
    """Run the process; its exit status, 0 when detached."""
    record = records.get(container_id)
    record.require("exec in", "running")
    config = record.config()
    process = process_for(config, arguments, options)
    if process.get("terminal") and options.detach and not options.console_socket:
        raise UsageError("a detached process with a terminal needs somebody who takes it", hint="give --console-socket")
    filter_program, flags = seccomp_of(config)
    group = group_of(record)
    joined = exec_process(
        record.pid,
        process,
        config=config,
        seccomp_bpf=filter_program,
        seccomp_flags=flags,
        on_listener=_agent(config, record),
        preserve_fds=options.preserve_fds,
        start_time=record.pid_start,
        own_keyring=True,
        keep_groups=(config.get("annotations") or {}).get(KEEP_GROUPS) == "1",
        join_cgroup=None if group is None else lambda pid: place.join(group, pid, record.pid),
        warn=warn,
    )
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
            console.relay(joined.console_fd, joined.pidfd)
        return joined.wait()


def _agent(config: dict[str, Any], record: OciRecord) -> Callable[[int, int], None] | None:
    """What passes the listener of the new process on to the agent; its state is that of the container."""
    profile = (config.get("linux") or {}).get("seccomp") or {}
    if not profile.get("listenerPath"):
        return None
    return lambda fd, pid: pass_on(profile, fd, record.oci_state(), pid)


def process_for(config: dict[str, Any], arguments: list[str], options: OciExecOptions) -> dict[str, Any]:
    """The OCI process of an exec: that of a file, or the container's with the flags' changes. Raises UsageError."""
    if options.process_file:
        process: dict[str, Any] = spec.read_json(options.process_file)
        spec.validate_process(process)
        return process
    if not arguments:
        raise UsageError("exec needs a command, or --process")
    process = {**config["process"], "args": arguments, "terminal": options.tty}
    if options.cwd:
        process["cwd"] = options.cwd
    if options.environment:
        process["env"] = [*(process.get("env") or []), *options.environment]
    if options.user is not None:
        uid, gid = parse_user(options.user)
        process["user"] = {"uid": uid, "gid": gid}
    if options.additional_gids:
        process["user"] = {**(process.get("user") or {}), "additionalGids": list(options.additional_gids)}
    if options.no_new_privileges:
        process["noNewPrivileges"] = True
    if options.apparmor:
        process["apparmorProfile"] = options.apparmor
    if options.process_label:
        process["selinuxLabel"] = options.process_label
    if options.capabilities:
        process["capabilities"] = _with(process.get("capabilities") or {}, options.capabilities)
    spec.validate_process(process)
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


def _with(sets: dict[str, list[str]], names: Sequence[str]) -> dict[str, list[str]]:
    """More capabilities, but none inheritable or ambient (CVE-2022-29162)."""
    added = [capabilities.normalise(name) for name in names]
    result = dict(sets)
    for key in ("bounding", "effective", "permitted"):
        result[key] = sorted({*(sets.get(key) or []), *added})
    return result
