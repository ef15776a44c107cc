"""Runs the hooks of a configuration with the state on stdin. When they run is decided by its callers.

runtime-spec config.md, POSIX-platform Hooks. The environment of a program of the host is what the hook names, or the
runtime's own where it names none, as with runc and crun. It never is that of the container's process: an image's
LD_PRELOAD must not reach a program of the host.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time

from rootless.errors import HookFailed, RootlessError
from rootless.kernel.process import pidfd_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from rootless.runtime.spec.oci_config import Hook, HookStage
    from rootless.runtime.spec.oci_state import OciState

_OUTPUT = 4096  # bytes of a hook's output that an error quotes


def run(stage: HookStage, state: OciState, *, required: bool = True) -> list[str]:
    """Run the hooks of the stage in order, each with `state` on its stdin. Raises HookFailed at the first that fails.

    required: False collects the failures instead and returns them (poststop).
    """
    failures: list[str] = []
    for hook in stage.hooks:
        try:
            _run_one(stage.name, hook, state)
        except HookFailed as e:
            if required:
                raise
            failures.append(e.message)
    return failures


def _run_one(name: str, hook: Hook, state: OciState) -> None:
    path = hook.path
    reader, writer = os.pipe()
    output, output_writer = os.pipe()
    try:
        child = os.posix_spawn(
            path,
            hook.args or [path],
            os.environ if hook.env is None else dict(entry.partition("=")[::2] for entry in hook.env),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, reader, 0),
                (os.POSIX_SPAWN_DUP2, output_writer, 1),
                (os.POSIX_SPAWN_DUP2, output_writer, 2),
            ],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            setpgroup=0,
        )
    except OSError as e:
        os.close(writer)
        os.close(output)
        raise HookFailed(f"cannot run {name} hook '{path}': {e.strerror}") from e
    finally:
        os.close(reader)
        os.close(output_writer)
    _await(name, hook, child, (writer, output), state)


def run_confined(name: str, hook: Hook, state: OciState, become: Callable[[Hook], NoReturn]) -> None:
    """Run one hook of the stage `name` in a child that `become` turns into its program. Raises HookFailed.

    For startContainer hooks, which are programs of the image: `become` takes on what confines the container's command,
    and executes the hook. It raises OSError or RootlessError when it cannot.
    """
    reader, writer = os.pipe()
    output, output_writer = os.pipe()
    failure, failure_writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            for fd, number in ((reader, 0), (output_writer, 1), (output_writer, 2)):
                os.dup2(fd, number)
            become(hook)
        except BaseException as e:
            os.write(failure_writer, _reason(e).encode(errors="replace")[:_OUTPUT])
        finally:
            os._exit(1)
    for fd in (reader, output_writer, failure_writer):
        os.close(fd)
    try:
        # ends with the execve that succeeds, which closes the pipe
        reason = os.read(failure, _OUTPUT).decode(errors="replace")
    finally:
        os.close(failure)
    if reason:
        os.close(writer)
        os.close(output)
        os.waitpid(child, 0)
        raise HookFailed(f"cannot run {name} hook '{hook.path}': {reason}")
    _await(name, hook, child, (writer, output), state)


def _reason(error: BaseException) -> str:
    if isinstance(error, RootlessError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"


def _await(name: str, hook: Hook, child: int, pipes: tuple[int, int], state: OciState) -> None:
    """Give the hook the state, wait for its end. pipes: its stdin and its output. Raises HookFailed."""
    path, (stdin, output) = hook.path, pipes
    words, status = _converse(child, stdin, output, json.dumps(state.to_json()).encode(), hook.timeout)
    if status is None:
        raise HookFailed(f"{name} hook '{path}' took longer than its {hook.timeout} seconds{words}")
    if status != 0:
        raise HookFailed(f"{name} hook '{path}' failed with exit status {status}{words}")


def _converse(child: int, stdin: int, output: int, state: bytes, timeout: int | None) -> tuple[str, int | None]:
    """Write the state to the hook, read its output, wait for its end: (output for an error, exit status).

    The status is None when the hook was killed because `timeout` seconds had passed.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    pidfd = pidfd_open(child)
    os.set_blocking(stdin, False)
    try:
        said = b""
        watched = {pidfd, output}
        while pidfd in watched:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                # The hook leads a process group, so that what it has started ends too. It is not reaped yet: its number
                # can mean no other group
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return _quoted(said), None
            state = _feed(stdin, state)
            if not state and stdin >= 0:
                os.close(stdin)
                stdin = -1
            ready, _, _ = select.select(sorted(watched), [stdin] if state else [], [], left)
            for fd in ready:
                if fd == output:
                    block = os.read(output, _OUTPUT)
                    said = (said + block)[:_OUTPUT]
                    if not block:
                        watched.discard(output)
                else:
                    watched.discard(pidfd)
        return _quoted(said), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        for fd in (pidfd, output, stdin):
            if fd >= 0:
                os.close(fd)


def _feed(stdin: int, state: bytes) -> bytes:
    """Write what the pipe takes; what is left of the state. A hook that does not read its stdin is no error."""
    if not state:
        return b""
    # inside of a container SIGPIPE has its default action by now, which would end us
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        return state[os.write(stdin, state) :]
    except BlockingIOError:
        return state
    except BrokenPipeError:
        signal.sigtimedwait({signal.SIGPIPE}, 0)
        return b""
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _quoted(said: bytes) -> str:
    text = said.decode(errors="replace").strip()
    return f": {text}" if text else ""
