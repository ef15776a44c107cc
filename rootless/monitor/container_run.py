"""What the supervisor asks of a launcher and of its runs, whatever runtime they use: types, and nothing else."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from rootless.monitor.cgroup import AnyGroup
    from rootless.monitor.handover import RunHandover
    from rootless.monitor.launch_spec import LaunchSpec
    from rootless.network.helper import Helper
    from rootless.records.state import ContainerNamespaces, NetworkFacts

    class ContainerRun(Protocol):
        """One run of a container, made by a launcher: created and waiting for `start`.

        group: its cgroup, None without; pid, pidfd: of its first process; console_fd: the master of its terminal.
        """

        group: AnyGroup | None
        pid: int
        pidfd: int
        console_fd: int | None
        network: NetworkFacts

        @property
        def namespaces(self) -> ContainerNamespaces | None:
            """The namespaces by which processes are found that outlive the first one; None where none can."""

        def start(self) -> None:
            """Let the command begin; return once its execve succeeded. Raises RootlessError when it did not."""

        def wait(self) -> int:
            """Reap the container's first process; its exit code, 128+N when signal N ended it."""

        def helpers(self) -> list[tuple[int, int]]:
            """(pid, start time) of processes of ours that serve this run."""

        def close(self, *, remove: bool = False) -> None:
            """Stop the helpers of a container that has ended, and unmount its root. remove: also delete the container.

            A run that never started is undone. Raises RootlessError for what stays.
            """

        def hand_over(self) -> RunHandover | None:
            """The run as AdoptedRun takes it in a new image of this process; None where it cannot be handed over."""

        def forget(self, pid: int) -> str | None:
            """Drop child `pid`, which was reaped: its number may be another process's from now on.

            Returns what the network helper said last ("" for nothing) if the child was that helper, None else.
            """

        def use_helper(self, helper: Helper) -> None:
            """Let `helper` be the network helper of the run from now on."""

        @property
        def connection(self) -> int:
            """The connection to the process that serves networks with names; -1 where the container is on none."""

        @property
        def held(self) -> list[int]:
            """The descriptors by which the container is on networks with names, that connection first."""

        def use_connection(self, fd: int) -> None:
            """Let `fd` be that connection from now on."""

    Stdio = tuple[int, int, int]

    class Launcher(Protocol):
        """Makes the runs of one container."""

        def __call__(self, spec: LaunchSpec, stdio: Stdio | None) -> ContainerRun:
            """Make the next run, up to the gate before its command. Raises RootlessError.

            stdio: the container's ends of stdin, stdout and stderr; None where it gets a terminal.
            """

        def hand_over(self) -> str:
            """The directory of the systemd scope that this process is in, "" without."""
