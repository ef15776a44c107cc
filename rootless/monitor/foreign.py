"""Runs a container with another OCI runtime (`--runtime crun`): calls it from inside the container's user namespace.

An agent, a forked child of the monitor, enters a user and mount namespace, mounts the root filesystem there and runs
PROGRAM create, start and delete. The agent stays as long as the container, which it kills when the monitor dies. The
monitor makes and limits the container's cgroup: PROGRAM is called in it and makes none.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket

from rootless.errors import (
    CommandNotExecutable,
    CommandNotFound,
    HostLimit,
    RootlessError,
    RuntimeFailure,
)
from rootless.kernel import procfs
from rootless.kernel.mounts import MS_RDONLY, mount
from rootless.kernel.process import close_range, pidfd_open, pidfd_send_signal
from rootless.monitor import cgroup
from rootless.monitor.state import add_note
from rootless.records.state import NetworkFacts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from rootless.monitor.cgroup import AnyGroup, Holder
    from rootless.monitor.handover import RunHandover
    from rootless.monitor.launch_spec import LaunchSpec
    from rootless.network.helper import Helper
    from rootless.records.state import ContainerNamespaces
    from rootless.storage.drivers import Mounter

_MAX_ANSWER = 1 << 16  # bytes of the agent's messages and of the program's own words
_MAX_TEXT = 4096  # characters of an error; as JSON they stay below _MAX_ANSWER
_HYBRID = "/sys/fs/cgroup/unified"
_START, _DELETE = b"s", b"d"


class ForeignRun:
    """A run under another runtime: the agent that called it, and the container's first process.

    That process is the monitor's child by adoption: the runtime that forked it has ended, and the monitor is the
    nearest subreaper (PR_SET_CHILD_SUBREAPER).
    """

    __slots__ = ("_agent", "_channel", "_helper", "_spec", "console_fd", "group", "network", "pid", "pidfd")

    def __init__(self, spec: LaunchSpec, agent: int, channel: socket.socket, pid: int, group: AnyGroup | None) -> None:
        self.group = group
        self._spec = spec
        self._agent = agent
        self._channel = channel
        self._helper: Helper | None = None
        self.pid = pid
        self.pidfd = pidfd_open(pid)
        self.console_fd: int | None = None
        self.network = NetworkFacts()

    def connect(self) -> None:
        """Begin to connect the network, without waiting.

        The runtime was executed inside of the user namespace, and so its child's namespaces can be opened at any time
        (OpenNetwork.of_process says when the kernel forbids that).
        """
        from rootless.kernel.namespaces import OpenNetwork
        from rootless.monitor.native import start_network

        try:
            opened = OpenNetwork.of_process(self.pid)
        except OSError as e:
            raise RuntimeFailure(f"the container's first process has no network to connect: {e.strerror}") from e
        try:
            self._helper = start_network(self._spec, opened)
        finally:
            opened.close()

    def start(self) -> None:
        """Wait for the network, then run PROGRAM start. Raises RuntimeFailure and its kin with the program's words."""
        if self._helper is not None:
            self._helper.ready()
            self.network = self._helper.facts
        if self.group is not None:
            cgroup.apply_late(self.group, self._spec)
        self._channel.send(_START)
        _answer(self._channel)

    def wait(self) -> int:
        """Reap the container's first process; its exit code, 128+N when signal N ended it."""
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def helpers(self) -> list[tuple[int, int]]:
        """(pid, start time) of the agent and of the network helper."""
        from rootless.monitor.native import helper_identities

        return [(self._agent, procfs.start_time(self._agent)), *helper_identities(self._helper)]

    @property
    def namespaces(self) -> ContainerNamespaces | None:
        """The namespaces by which processes are found that outlive the first one; None where none can."""
        makes = self._spec.config.linux.makes
        if makes("pid") and makes("user"):
            return None
        from rootless.kernel.container_members import identify_namespaces

        found = identify_namespaces(self.pid)
        if found is not None:
            found.makes_user, found.shares_processes = makes("user"), not makes("pid")
        return found

    def forget(self, pid: int) -> str | None:
        """Drop child `pid`, which was reaped; return the network helper's last words if it was that one, None else."""
        helper = self._helper
        if pid == self._agent:
            self._agent = -1
        if helper is None or helper.pid != pid:
            return None
        self._helper = None
        return helper.note_end()

    def use_helper(self, helper: Helper) -> None:
        """Let `helper` be the network helper of the run from now on."""
        self._helper = helper

    def hand_over(self) -> RunHandover | None:
        """None: a new image of this process would not know the agent's channel, and so this image stays."""
        return None

    def close(self, *, remove: bool = False) -> None:
        """Run PROGRAM delete --force, end the agent and the helpers, delete the container if it shall be removed."""
        from rootless.storage import drivers

        try:
            self._channel.send(_DELETE)
            _answer(self._channel)
        except (OSError, RootlessError):
            pass  # the agent has ended, and everything that its namespaces held went with it
        self._channel.close()
        for pid in (self._agent, self.pid):
            if pid <= 0:
                continue
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass
        os.close(self.pidfd)
        if self.group is not None:
            cgroup.remove_group(self.group, None, lambda text: add_note(self._spec.directory, text))
        if self._helper is not None:
            self._helper.stop()
            self._helper = None
        if self._spec.plan.rootfs is not None:
            drivers.unmount_root(self._spec.plan.rootfs)
        if remove:
            self._spec.remove_container()


def launch_container(spec: LaunchSpec, stdio: tuple[int, int, int] | None, holder: Holder | None = None) -> ForeignRun:
    """Create the container with PROGRAM create. Raises RuntimeFailure and its kin with the program's own words.

    stdio: the container's ends of stdin, stdout and stderr, None where it gets a terminal; holder: gives it a cgroup.
    """
    from rootless.storage import drivers

    program = _find(spec.plan.runtime or "")
    place = f"{spec.directory}/foreign"
    _write_bundle(spec, place)
    listener = _ConsoleListener() if stdio is None else None
    mounter: Mounter | None = None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    agent = -1
    group: AnyGroup | None = None
    try:
        if holder is not None:
            group = holder.make(spec, lambda text: add_note(spec.directory, text))
        if spec.plan.rootfs is not None:
            mounter = drivers.make_mounter(spec.plan.rootfs)
        monitor = os.getpid()
        agent = os.fork()
        if agent == 0:
            _Agent(spec, program, place, theirs, group).live(
                monitor, mounter, stdio, listener.path if listener else None
            )
        theirs.close()
        run = ForeignRun(spec, agent, ours, _answer(ours), group)
        if listener is not None:
            run.console_fd = listener.receive()
        run.connect()
    except BaseException:
        ours.close()
        if agent > 0:
            os.waitpid(agent, 0)  # the agent sees the end of the channel, and kills and deletes what it has made
        if group is not None:
            cgroup.remove_group(group, None, lambda text: add_note(spec.directory, text))
        raise
    finally:
        theirs.close()
        if mounter is not None:
            mounter.close()
        if listener is not None:
            listener.close()
    return run


def _find(name: str) -> str:
    from rootless.host.facts import find_helper

    path = name if name.startswith("/") else find_helper(name)
    if path is None or not os.access(path, os.X_OK):
        raise HostLimit(f"cannot find runtime '{name}'", hint="install it, or give its absolute path to --runtime")
    return path


def adapted(config: dict[str, Any], bundle: str) -> dict[str, Any]:
    """`config` for a runtime that is inside the container's user namespace already and owns no cgroup. Pure.

    Its relative paths are those of a bundle in `bundle`, and the runtime reads a copy elsewhere: they become absolute.
    """
    linux = dict(config.get("linux") or {})
    for key in ("uidMappings", "gidMappings", "resources", "cgroupsPath"):
        linux.pop(key, None)
    linux["namespaces"] = [n for n in linux.get("namespaces") or [] if n.get("type") != "user"]
    root = dict(config.get("root") or {})
    root["path"] = os.path.normpath(os.path.join(bundle, root.get("path") or "rootfs"))
    mounts = []
    for entry in config.get("mounts") or []:
        source = entry.get("source", "")
        is_bind = entry.get("type") == "bind" or {"bind", "rbind"} & set(entry.get("options") or ())
        if is_bind and not source.startswith("/"):
            entry = {**entry, "source": os.path.normpath(os.path.join(bundle, source))}
        mounts.append(entry)
    return {**config, "linux": linux, "root": root, "mounts": mounts}


def _write_bundle(spec: LaunchSpec, place: str) -> None:
    from rootless.paths import atomic_write, make_private

    try:
        make_private(f"{place}/bundle")
        content = json.dumps(adapted(spec.config_json, spec.bundle)).encode()
        atomic_write(f"{place}/bundle/config.json", content, durable=False)
    except OSError as e:
        raise HostLimit(f"cannot write '{place}': {e.strerror}") from e


def _answer(channel: socket.socket) -> int:
    """The container's pid in the agent's next message, 0 where the message names none. Raises the error in it."""
    message = channel.recv(_MAX_ANSWER)
    if not message:
        raise RuntimeFailure("the agent that calls the runtime ended unexpectedly")
    from rootless.monitor.protocol import ErrorNotice, read_payload

    fields = read_payload(message)
    if fields.has("message"):
        raise ErrorNotice.from_json(fields).error()
    return fields.integer("pid", 0)


class _ConsoleListener:
    """The socket to which a runtime sends the terminal's master (--console-socket), below a private directory.

    The directory is in /tmp because the socket's name, which the runtime must use, may have 107 bytes only. Its mode
    keeps other users from connecting first and sending a terminal of theirs, where the user's input would go.
    """

    def __init__(self) -> None:
        self._directory = f"/tmp/rootless-{os.urandom(8).hex()}"  # noqa: S108 - mkdir fails when it exists
        os.mkdir(self._directory, 0o700)
        self.path = f"{self._directory}/console"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(self.path)
        self._socket.listen(1)
        self._socket.settimeout(5)

    def receive(self) -> int:
        """The descriptor of the terminal's master, after PROGRAM create. Raises RuntimeFailure when none comes."""
        try:
            connection, _ = self._socket.accept()
            connection.settimeout(5)
            with connection:
                _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4 * 4), socket.MSG_CMSG_CLOEXEC)
        except OSError as e:
            raise RuntimeFailure(f"the runtime sent no terminal: {e}") from e
        fds = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        # The kernel has installed every descriptor of the message: one that is not closed here stays open for ever
        for extra in fds[1:]:
            os.close(extra)
        if not fds:
            raise RuntimeFailure("the runtime sent no terminal")
        return fds[0]

    def close(self) -> None:
        """Remove the socket and its directory; harmless when they are gone."""
        self._socket.close()
        for remove, path in ((os.unlink, self.path), (os.rmdir, self._directory)):
            try:
                remove(path)
            except OSError:
                pass


class _Agent:
    """The forked child of the monitor, which lives inside the user namespace and calls the program on command."""

    def __init__(
        self, spec: LaunchSpec, program: str, place: str, channel: socket.socket, group: AnyGroup | None
    ) -> None:
        self._group = group
        self._spec = spec
        self._program = program
        self._place = place
        self._channel = channel
        self._pid = 0
        self._pidfd = -1

    def live(
        self, monitor: int, mounter: Mounter | None, stdio: tuple[int, int, int] | None, console: str | None
    ) -> NoReturn:
        """Do everything that the agent does, and end the process."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)  # the pipe is the monitor's: a signal here would wake its loop for one of its own
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            if os.getppid() == monitor:  # else the monitor has ended, and nobody would supervise the container
                self._create(mounter, stdio, console)
                self._serve()
                code = 0
        except RootlessError as e:
            self._fail(e.message, e.hint, e.exit_code)
        except BaseException as e:
            self._fail(f"the agent that calls the runtime failed: {e!r}")
        finally:
            self._clean()
            os._exit(code)

    def _fail(self, message: str, hint: str | None = None, exit_code: int = 125) -> None:
        from rootless.monitor.protocol import ErrorNotice

        self._send(ErrorNotice(message[:_MAX_TEXT], hint, exit_code).to_json())

    def _send(self, answer: dict[str, object]) -> None:
        try:
            self._channel.send(json.dumps(answer).encode())
        except OSError:
            pass

    def _create(self, mounter: Mounter | None, stdio: tuple[int, int, int] | None, console: str | None) -> None:
        from rootless.host import userns

        spec = self._spec
        userns.enter_new_namespace(spec.plan.id_map)
        rootfs = adapted(spec.config_json, spec.bundle)["root"]["path"]
        if mounter is not None:
            mounter(rootfs)
        self._seed(rootfs)
        if os.path.exists(_HYBRID):
            # crun refuses to run where version 1 and 2 of cgroups both have controllers, although it is to use none
            mount("tmpfs", _HYBRID, "tmpfs", MS_RDONLY, "size=4k")
        keep = {self._channel.fileno(), *(stdio or ())}
        # With the monitor's end of the channel open here, the agent would never see that the monitor is gone; with its
        # lock, nobody else would; and with its ends of the pipes, the container's output would have no end
        _close_all_but(keep)
        pid_file = f"{self._place}/pid"
        arguments = ["create", "--bundle", f"{self._place}/bundle", "--pid-file", pid_file]
        if console is not None:
            arguments += ["--console-socket", console]
        own = cgroup.enter_group(self._group)
        self._call([*arguments, spec.id], stdio)
        cgroup.leave_group(own)  # the agent has to outlive the group, to delete the container
        for fd in stdio or ():
            os.close(fd)
        with open(pid_file, encoding="ascii") as file:
            self._pid = int(file.read(32))
        self._pidfd = pidfd_open(self._pid)
        self._send({"pid": self._pid})

    def _seed(self, rootfs: str) -> None:
        """Fill volumes, and add the user's line to the passwd file, before the runtime mounts anything on the root."""
        login = self._spec.plan.login
        if not self._spec.plan.seed_volumes and login is None:
            return
        from rootless.runtime.operations.base import RootContext
        from rootless.runtime.operations.seed import SeedVolume

        context = RootContext(rootfs, lambda _: None)
        context.root_fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for seed in self._spec.plan.seed_volumes:
            SeedVolume(seed.source, seed.target).apply(context)
        if login is not None:
            from rootless.runtime.operations.passwd_line import AddLogin

            AddLogin(login).apply(context)
        os.close(context.root_fd)

    def _serve(self) -> None:
        while command := self._channel.recv(16):
            if command == _START:
                self._call(["start", self._spec.id], None)
                self._send({"started": True})
            elif command == _DELETE:
                self._clean()
                self._send({"deleted": True})
                return

    def _clean(self) -> None:
        """Kill the container, if it lives, and let the program delete what it knows of it."""
        if self._pid:
            self._pid = 0
            try:
                pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except OSError:
                pass
        if os.path.isdir(f"{self._place}/state/{self._spec.id}"):
            try:
                self._call(["delete", "--force", self._spec.id], None)
            except (RootlessError, OSError):
                pass

    def _call(self, arguments: list[str], stdio: tuple[int, int, int] | None) -> None:
        """Run PROGRAM and wait for its end. Raises the error that its log tells of (`_failure`).

        Python ignores SIGPIPE and SIGXFSZ, and an ignored signal stays ignored across execve(2): the container would
        inherit that from PROGRAM, so the defaults are set again.
        """
        log = f"{self._place}/log"
        if os.path.exists(log):
            os.unlink(log)
        options = ["--root", f"{self._place}/state", "--log", log]
        if os.path.basename(self._program) == "crun":
            options += ["--cgroup-manager", "disabled"]
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        fds = stdio or (null, null, null)
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(fds)]
        environment = {key: os.environ[key] for key in ("PATH", "HOME", "XDG_RUNTIME_DIR") if key in os.environ}
        environment.setdefault("PATH", os.defpath)
        child = os.posix_spawn(
            self._program,
            [self._program, *options, *arguments],
            environment,
            file_actions=actions,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP],
        )
        _, status = os.waitpid(child, 0)
        os.close(null)
        if status:
            raise _failure(os.path.basename(self._program), arguments[0], _last_words(log))


def _close_all_but(keep: set[int]) -> None:
    first = 3
    for fd in sorted(keep):
        if fd > first:
            close_range(first, fd - 1)
        first = max(first, fd + 1)
    close_range(first)


def _last_words(log: str) -> str:
    try:
        with open(log, "rb") as file:
            text = file.read(_MAX_ANSWER).decode(errors="replace").strip()
    except OSError:
        return "it said nothing"
    line = text.splitlines()[-1] if text else "it said nothing"
    _, marker, words = line.partition('msg="')  # runc writes: time=... level=error msg="..."
    return words.rstrip('"').replace('\\"', '"') if marker else line


def _failure(program: str, verb: str, words: str) -> RuntimeFailure:
    """The error of a failed PROGRAM, with docker's exit code: 127 for a command not found, 126 for one not executable.

    The runtime specification has no such codes, so they are read from the words of runc and crun.
    """
    kind: type[RuntimeFailure] = RuntimeFailure
    lowered = words.lower()
    if "exec" in lowered and ("not found" in lowered or "no such file" in lowered):
        kind = CommandNotFound
    elif "exec" in lowered and "permission denied" in lowered:
        kind = CommandNotExecutable
    return kind(f"'{program} {verb}' failed: {words}"[:4096])
