"""`exec` and `healthcheck`: one more process in a running container, started by this process and not by the monitor."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from rootless.engine.container.reconcile import state_of
from rootless.engine.types import ExecOptions, ExecSession
from rootless.errors import HostLimit, InvalidInput, InvalidState, RootlessError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.records.container import ContainerRecord
    from rootless.records.launch import LaunchPlan
    from rootless.records.state import ContainerState
    from rootless.runtime.process.running import Process
    from rootless.runtime.spec.oci_config import OciConfig
    from rootless.runtime.spec.process_config import OciProcess


class ExecPlan(NamedTuple):
    """A process that joins a container. launch, config: what the container's launch.json and config.json say."""

    state: ContainerState
    process: OciProcess
    launch: LaunchPlan
    config: OciConfig


def exec_in_container(engine: Engine, container: str, options: ExecOptions) -> ExecSession:
    """Run one more command in a running container, attached to the caller's streams unless detached.

    Raises CommandNotFound (exit code 127), CommandNotExecutable (126), InvalidState where the container does not run,
    UsageError and HostLimit.
    """
    if options.tty and options.interactive and not options.detach and not os.isatty(0):
        raise UsageError("the input device is not a TTY", hint="leave out -t, or run it in a terminal")
    container_id, state = running(engine, container, "exec")
    plan = _plan(engine, container_id, state, options)
    # The record is read now, for the events: a container of --rm may be removed before the command ends
    record = engine.store.containers.read(container_id)
    _note(engine, record, "exec_create", options)
    if options.detach:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            plan.process.terminal = False
            started = _join(engine, plan, (null, null, null))
        finally:
            os.close(null)
        _note(engine, record, "exec_start", options)
        return ExecSession(started.pid, None)
    from rootless.engine.container.exec_streams import Carrier, Pipes

    pipes = None if options.tty else Pipes(interactive=options.interactive)
    keys = engine.settings.detach_keys if options.detach_keys is None else options.detach_keys
    try:
        started = _join(engine, plan, pipes.theirs if pipes else None)
        carrier = Carrier(started, detach_keys=keys)
        if pipes is not None:
            pipes.close_theirs()
            carrier.use_pipes(pipes)
        else:
            carrier.use_terminal(interactive=options.interactive)
        _note(engine, record, "exec_start", options)
        code = carrier.run()
        _note(engine, record, "exec_die", options, exitCode=str(code))
        return ExecSession(started.pid, code)
    except BaseException:
        if pipes is not None:
            pipes.close()
        raise


def _note(engine: Engine, record: ContainerRecord, action: str, options: ExecOptions, **attributes: str) -> None:
    """Write an event of the container. As with docker, exec_create and exec_start have the command in the action."""
    from rootless.engine import events

    if action != "exec_die":
        action = f"{action}: {' '.join(options.command)}"
    events.record_container(engine, record, action, **attributes)


def running(engine: Engine, container: str, verb: str) -> tuple[str, ContainerState]:
    """The id and state of a container that runs on this host. verb: what the user wants of it, for the message.

    Raises NotFound, InvalidState.
    """
    container_id = engine.store.containers.find(container)
    state = state_of(engine, container_id)
    if state.remote:
        raise InvalidState(f"container '{container}' runs on host '{state.remote}'", hint=f"{verb} there")
    if state.status == "paused":
        raise InvalidState(f"container {container} is paused, unpause the container before {verb}")
    if state.status == "restarting":
        raise InvalidState(f"container {container} is restarting, wait until the container is running")
    if state.status != "running":
        raise InvalidState(f"container {container} is not running", hint=f"rootless start {container}")
    return container_id, state


def _plan(engine: Engine, container_id: str, state: ContainerState, options: ExecOptions) -> ExecPlan:
    from rootless.records.json_file import read_record
    from rootless.runtime.spec.oci_config import OciConfig

    containers = engine.store.containers
    record = containers.read(container_id)
    directory = containers.path(container_id)
    config = OciConfig.from_json(read_record(f"{directory}/config.json", what="bundle"))
    launch = engine.store.containers.read_launch(container_id)
    process = config.first_process().copy()
    process.args, process.terminal = list(options.command), options.tty
    process.oom_score_adj = None
    if options.workdir:
        from rootless.engine.plan.bundle import working_directory

        process.cwd = working_directory(options.workdir, "")
    home = None
    if options.user is not None or options.privileged:
        home = _change_user(engine, record, state.pid, options, process)
    _change_env(options, process, home if record.default_home else None)
    return ExecPlan(state, process, launch, config)


def _change_user(
    engine: Engine, record: ContainerRecord, pid: int, options: ExecOptions, process: OciProcess
) -> str | None:
    """Set the ids and capabilities of `process` for -u and --privileged, and return the home of the user of -u.

    The user is looked up in the files that the container has now, below the root of its first process: they may have
    other users than the image's. These files are the container's to forge, so that no link of theirs is followed out of
    that root, and the numbers are checked against the id map. Raises UsageError, HostLimit.
    """
    from rootless.engine.plan import oci_process as planning
    from rootless.engine.plan.users import resolve
    from rootless.kernel.procfs import visible_process
    from rootless.records.properties import Properties
    from rootless.runtime.spec.process_config import CapabilityNames, OciUser

    saved = record.options
    home = None
    uid = process.user.uid
    if options.user is not None:
        try:
            passwd, group = _read_accounts(visible_process(pid))
        except OSError as e:
            raise HostLimit(f"cannot look into container {record.id[:12]}: {e.strerror}") from e
        account = resolve(options.user, passwd, group)
        user, warnings = planning.user(account, record.id_map)
        for warning in warnings:
            engine.warn(warning)
        if process.user.umask is not None:
            user = user._replace(umask=process.user.umask)
        process.user = OciUser.from_json(Properties(user.to_json(), "process.user"))
        uid, home = account.uid, account.home
    capabilities = planning.capabilities(
        saved.cap_add, saved.cap_drop, privileged=options.privileged or saved.privileged, uid=uid
    )
    process.capabilities = CapabilityNames.from_json(Properties(capabilities.to_oci(), "process.capabilities"))
    return home


def _read_accounts(pid: int) -> tuple[str, str]:
    """The passwd and the group file in the root of process `pid`. Raises OSError, InvalidInput.

    Files that the caller may not read are read in the container's user namespace. Outside of it FUSE lets nobody read
    any file (fuse(4), allow_other), and with keep-id a file may belong to another id than the caller's.
    """
    import json

    from rootless.engine.image.image_files import read_in_root
    from rootless.host.userns import call_in_namespace

    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def read() -> bytes:
        return json.dumps([read_in_root(root, name) or "" for name in ("etc/passwd", "etc/group")]).encode()

    try:
        try:
            found = read()
        except InvalidInput as e:
            if not isinstance(e.__cause__, PermissionError):
                raise
            namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            try:
                found = call_in_namespace(namespace, read)
            finally:
                os.close(namespace)
    finally:
        os.close(root)
    passwd, group = json.loads(found)
    return passwd, group


def _change_env(options: ExecOptions, process: OciProcess, home: str | None) -> None:
    from rootless.engine.plan.environment import merge_env, parse_env, split_env

    given: list[tuple[str, str | None]] = []
    if home is not None:
        given.append(("HOME", home))
    if options.tty and not any(entry.startswith("TERM=") for entry in process.env):
        given.append(("TERM", "xterm"))
    if options.env or options.env_file:
        given += parse_env(options.env, options.env_file, os.environ)
    process.env = merge_env(split_env(process.env), given)


def _join(engine: Engine, plan: ExecPlan, stdio: tuple[int, int, int] | None) -> Process:
    """Start the process in the container. stdio: its descriptors 0, 1 and 2; None where it gets a pty."""
    state, process, launch, config = plan
    from rootless.engine.container import container_cgroup
    from rootless.runtime.process.command import ProcessOptions, ProcessStreams, SeccompFilters
    from rootless.runtime.process.join import Joining, exec_process
    from rootless.runtime.seccomp.listener import handler_of_join
    from rootless.runtime.spec.oci_state import Bundle

    privileged = len(process.bounding_set()) > len(config.first_process().bounding_set())
    supervisor, emulation = None, None
    if launch.root_emulation:
        from rootless.runtime.seccomp.emulation import read_emulation
        from rootless.storage.owners.emulator import make_supervisor

        try:
            directory = engine.store.containers.path(launch.id)
            supervisor = make_supervisor(launch.rootfs, launch.root_emulation, directory)
        except OSError as e:
            raise HostLimit(f"cannot prepare the emulation of root: {e.strerror}") from e
        emulation = None if supervisor is None else read_emulation(launch.root_emulation, supervisor)
    try:
        joining = Joining(state.pid, process, config)
        joining.streams = ProcessStreams(stdio)
        joining.options = ProcessOptions(keep_groups=launch.keep_groups)
        joining.filters = SeccompFilters(
            # `exec --privileged` gives all that the user namespace can give; the container's filter refuses the very
            # system calls (mount, setns, bpf, ...) that these capabilities are for
            None if privileged else _filter(launch.seccomp_bpf),
            launch.seccomp_flags,
            launch.seccomp_listener,
            emulation,
        )
        bundle = Bundle(config, launch.bundle, launch.id)
        joining.on_listener = handler_of_join(joining.filters.listener, bundle, state.pid)
        joining.start_time = state.pid_start
        joining.join_cgroup = container_cgroup.joiner(engine, state, launch)
        joining.warn = engine.warn
        return exec_process(joining)
    finally:
        if supervisor is not None:
            supervisor.close()


def _filter(path: str | None) -> bytes | None:
    from rootless.runtime.seccomp.filter_cache import require_filter

    return None if path is None else require_filter(path, hint="restart the container")


def check_health(engine: Engine, container: str) -> int:
    """Run the container's health check once, and return 0 for healthy or 1 for unhealthy.

    The recorded health is not changed, as only the monitor writes the state. Raises InvalidState where the container
    does not run or has no check.
    """
    from rootless.kernel.process import pidfd_send_signal

    container_id, state = running(engine, container, "the health check")
    health = engine.store.containers.read(container_id).health
    if health is None:
        raise InvalidState(f"container {container} has no health check")
    test = health.test
    command = ["/bin/sh", "-c", *test[1:]] if test[0] == "CMD-SHELL" else test[1:]
    plan = _plan(engine, container_id, state, ExecOptions(tuple(command)))
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        started = _join(engine, plan, (null, null, null))
    except RootlessError as e:
        if e.exit_code in (126, 127):
            return 1
        raise
    finally:
        os.close(null)
    import select

    poll = select.poll()
    poll.register(started.pidfd, select.POLLIN)
    deadline = time.monotonic() + health.timeout
    if not poll.poll(max(0, int((deadline - time.monotonic()) * 1000))):
        pidfd_send_signal(started.pidfd, 9)
        started.wait()
        return 1
    return 0 if started.wait() == 0 else 1
