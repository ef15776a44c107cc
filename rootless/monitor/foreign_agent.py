"""The agent that calls another OCI runtime from inside the container's user namespace.

A forked child of the monitor, it enters a user and mount namespace, mounts the root filesystem there and runs PROGRAM
create, start and delete. It stays as long as the container, which it kills when the monitor dies.
"""

from __future__ import annotations

import json
import os
import signal

from rootless.errors import CommandNotExecutable, CommandNotFound, HostLimit, RootlessError, RuntimeFailure
from rootless.kernel.mounts import MS_RDONLY, mount
from rootless.kernel.process import close_range, pidfd_open, pidfd_send_signal
from rootless.monitor import cgroup
from rootless.records.fields import Fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from typing import NoReturn

    from rootless.monitor.cgroup import AnyGroup
    from rootless.monitor.launch_spec import LaunchSpec
    from rootless.storage.drivers import Mounter

START, DELETE = b"s", b"d"
_MAX_ANSWER = 1 << 16  # bytes of the agent's messages and of the program's own words
_MAX_TEXT = 4096  # characters of an error; as JSON they stay below _MAX_ANSWER
_HYBRID = "/sys/fs/cgroup/unified"


def adapt_config(config: Mapping[str, object], bundle: str) -> dict[str, object]:
    """`config` for a runtime that is inside the container's user namespace already and owns no cgroup. Pure.

    Its relative paths are those of a bundle in `bundle`, and the runtime reads a copy elsewhere: they become absolute.
    Members that are not known here stay as they are, for the runtime may know them. Raises InvalidInput.
    """
    given = Fields(config, "config.json")
    known = Fields(given.mapping("linux"), "config.json", "linux")
    linux = dict(known.to_json())
    for name in ("uidMappings", "gidMappings", "resources", "cgroupsPath"):
        linux.pop(name, None)
    linux["namespaces"] = [each for each in known.mappings("namespaces") if each.get("type") != "user"]
    root = {**given.mapping("root"), "path": root_path(config, bundle)}
    mounts = [_absolute(each, bundle) for each in given.objects("mounts")]
    return {**config, "linux": linux, "root": root, "mounts": mounts}


def root_path(config: Mapping[str, object], bundle: str) -> str:
    """The absolute path of the root filesystem that `config` of the bundle in `bundle` names. Raises InvalidInput."""
    root = Fields(config, "config.json").member("root")
    named = None if root is None else root.optional_text("path")
    return os.path.normpath(os.path.join(bundle, named or "rootfs"))


def _absolute(entry: Fields, bundle: str) -> dict[str, object]:
    """A mount of config.json, whose source is absolute where it is a path."""
    source = entry.text("source", "")
    is_bind = entry.text("type", "") == "bind" or {"bind", "rbind"} & set(entry.texts("options"))
    if is_bind and not source.startswith("/"):
        return {**entry.to_json(), "source": os.path.normpath(os.path.join(bundle, source))}
    return entry.to_json()


def write_bundle(spec: LaunchSpec, place: str) -> None:
    """Write the bundle that the runtime reads to `place`. Raises HostLimit, and InvalidInput for a malformed config."""
    from rootless.paths import atomic_write, make_private

    try:
        make_private(f"{place}/bundle")
        content = json.dumps(adapt_config(spec.config_json, spec.bundle)).encode()
        atomic_write(f"{place}/bundle/config.json", content, durable=False)
    except OSError as e:
        raise HostLimit(f"cannot write '{place}': {e.strerror}") from e


def read_answer(channel: socket.socket) -> int:
    """The container's pid in the agent's next message, 0 where the message names none. Raises the error in it."""
    message = channel.recv(_MAX_ANSWER)
    if not message:
        raise RuntimeFailure("the agent that calls the runtime ended unexpectedly")
    from rootless.monitor.protocol import ErrorNotice, read_payload

    fields = read_payload(message)
    if fields.has("message"):
        raise ErrorNotice.from_json(fields).error()
    return fields.integer("pid", 0)


class RuntimeAgent:
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
        rootfs = root_path(spec.config_json, spec.bundle)
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
            if command == START:
                self._call(["start", self._spec.id], None)
                self._send({"started": True})
            elif command == DELETE:
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
