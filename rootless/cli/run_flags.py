"""The flags of `run` and `create` (and `explain`), declared once. Values with a grammar go to the engine as text.

The name of each parameter is the field of records.container_options.ContainerOptions that it fills.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import click

from rootless import output
from rootless.cli.declaration import Declared, complete_names, repeated_option, switch_option, value_option
from rootless.errors import UsageError
from rootless.network.modes import list_choices
from rootless.records.container_options import ContainerOptions
from rootless.storage import drivers

_SECONDS = "SECONDS"
_DURATION = "DURATION"

_LIMITS: tuple[Callable[[Callable[..., object]], Callable[..., object]], ...] = (
    value_option("--blkio-weight", metavar="WEIGHT", type=int, help="Share of block I/O, 10 to 1000"),
    value_option("--cpu-period", metavar="MICROSECONDS", type=int, help="Period of --cpu-quota (default 100000)"),
    value_option("--cpu-quota", metavar="MICROSECONDS", type=int, help="CPU time in each period"),
    value_option("-c", "--cpu-shares", metavar="SHARES", type=int, help="Share of CPU time (default 1024)"),
    value_option("--cpus", metavar="NUMBER", help="Most CPUs to use, such as 1.5"),
    value_option("--cpuset-cpus", metavar="LIST", help="CPUs to run on, such as 0-3,8"),
    value_option("--cpuset-mems", metavar="LIST", help="Memory nodes to use, such as 0,1"),
    value_option("-m", "--memory", metavar="SIZE", help="Most memory, such as 512m; the kernel kills what wants more"),
    value_option(
        "--memory-reservation", metavar="SIZE", help="Memory that is not taken away while others can give some"
    ),
    value_option(
        "--memory-swap", metavar="SIZE", help="Most memory and swap together (default twice --memory), -1: no limit"
    ),
    value_option("--pids-limit", metavar="N", type=int, help="Most processes and threads, -1: no limit"),
)
_DEVICE_LIMITS: tuple[Callable[[Callable[..., object]], Callable[..., object]], ...] = (
    repeated_option("--blkio-weight-device", metavar="DEVICE:WEIGHT", help="Share of I/O of one block device"),
    repeated_option(
        "--device-read-bps", metavar="DEVICE:SIZE", help="Most bytes per second to read from a block device"
    ),
    repeated_option("--device-read-iops", metavar="DEVICE:N", help="Most reads per second from a block device"),
    repeated_option(
        "--device-write-bps", metavar="DEVICE:SIZE", help="Most bytes per second to write to a block device"
    ),
    repeated_option("--device-write-iops", metavar="DEVICE:N", help="Most writes per second to a block device"),
    value_option(
        "--memory-swappiness",
        metavar="PERCENT",
        type=click.IntRange(-1, 100),
        help="Readiness to swap; cgroup version 1 only",
    ),
    switch_option("--oom-kill-disable", help="Stop, and do not kill, what wants more memory; cgroup version 1 only"),
)

_OPTIONS: tuple[Callable[[Callable[..., object]], Callable[..., object]], ...] = (
    repeated_option("--add-host", metavar="HOST:IP", help="Add a line to /etc/hosts (IP may be host-gateway)"),
    repeated_option("--annotation", metavar="KEY=VALUE", help="Add an annotation to the OCI configuration"),
    repeated_option(
        "-a",
        "--attach",
        metavar=None,
        type=click.Choice(["stdin", "stdout", "stderr"], case_sensitive=False),
        help="Attach only this stream",
    ),
    *_LIMITS,
    *_DEVICE_LIMITS,
    repeated_option(
        "--cgroup-conf", metavar="FILE=VALUE", help="Write VALUE to a file of the cgroup (v2), such as memory.oom.group"
    ),
    value_option(
        "--cgroup-parent",
        metavar="PARENT",
        help="Cgroup to be below: a path of the cgroup tree that is yours, or a .slice of your systemd",
    ),
    value_option(
        "--cgroups",
        metavar=None,
        type=click.Choice(["enabled", "disabled", "split"]),
        help="enabled (default), disabled: no cgroup of its own, split: below the current one",
    ),
    value_option(
        "--strict-limits/--no-strict-limits",
        metavar=None,
        default=None,
        help="Fail when a limit cannot be enforced on this host, in place of a warning",
    ),
    repeated_option("--cap-add", metavar="CAPABILITY", help="Add a Linux capability, or ALL"),
    repeated_option("--cap-drop", metavar="CAPABILITY", help="Drop a Linux capability, or ALL"),
    value_option("--cgroupns", metavar="MODE", help="Cgroup namespace: private or host"),
    value_option("--cidfile", metavar="FILE", help="Write the container's id to FILE, which must not exist"),
    repeated_option(
        "--device",
        metavar="HOST[:CONTAINER[:rwm]]",
        help="Make a device of the host available, or by its CDI name VENDOR/CLASS=NAME|all",
    ),
    repeated_option("--dns", metavar="ADDRESS", help="Set a name server"),
    repeated_option("--dns-option", "--dns-opt", metavar="OPTION", help="Set an option of resolv.conf"),
    repeated_option("--dns-search", metavar="DOMAIN", help="Set a search domain"),
    value_option("--domainname", metavar="NAME", help="NIS domain name"),
    value_option("--entrypoint", metavar="PROGRAM", help="Replace the image's entrypoint ('' clears it)"),
    repeated_option("-e", "--env", metavar="NAME[=VALUE]", help="Set an environment variable; without a value: yours"),
    repeated_option("--env-file", metavar="FILE", help="Read environment variables from FILE"),
    repeated_option("--expose", metavar="PORT[/PROTOCOL]", help="Expose a port or a range of ports"),
    repeated_option("--gidmap", metavar="CONTAINER:HOST:SIZE", help="Map group ids"),
    repeated_option("--gpus", metavar="GPUS", help="Add GPUs by CDI: all, a number, or device=NAME[,NAME...]"),
    repeated_option("--group-add", metavar="GROUP", help="Add a group, or keep-groups for all of yours"),
    value_option("--health-cmd", metavar="COMMAND", help="Command that tells whether the container is healthy"),
    value_option("--health-interval", metavar=_DURATION, help="Time between two checks (default 30s)"),
    value_option("--health-retries", metavar="N", type=int, help="Failures in a row that mean unhealthy (default 3)"),
    value_option(
        "--health-start-interval", metavar=_DURATION, help="Time between checks in the start period (default 5s)"
    ),
    value_option("--health-start-period", metavar=_DURATION, help="Time in which failures do not count (default 0s)"),
    value_option("--health-timeout", metavar=_DURATION, help="Time that one check may take (default 30s)"),
    value_option("-h", "--hostname", metavar="NAME", help="Host name inside the container"),
    switch_option("--init", help="Run an init as process 1 that forwards signals and reaps processes"),
    switch_option("-i", "--interactive", help="Keep standard input open even if not attached"),
    value_option("--ip", metavar="ADDRESS", help="IPv4 address on a network with a name"),
    value_option("--ipc", metavar="MODE", help="IPC namespace: private, shareable, none, host or container:NAME"),
    repeated_option("-l", "--label", metavar="KEY[=VALUE]", help="Set a label"),
    repeated_option("--label-file", metavar="FILE", help="Read labels from FILE"),
    value_option("--log-driver", metavar="DRIVER", help="json-file (default) or none"),
    repeated_option("--log-opt", metavar="KEY=VALUE", help="Option of the log: max-size, max-file"),
    repeated_option(
        "--mount", metavar="SPEC", help="Mount a bind, volume, tmpfs or image: type=...,source=...,target=..."
    ),
    value_option("--name", metavar="NAME", help="Name of the container"),
    value_option("--mac-address", metavar="ADDRESS", help="Address of the link layer on a network with a name"),
    repeated_option(
        "--network",
        "--net",
        metavar="MODE",
        help=f"{list_choices()} (default: the first program that works), or networks with names",
    ),
    repeated_option("--network-alias", metavar="NAME", help="Further name of the container on its networks"),
    switch_option("--no-healthcheck", help="Do not run the image's health check"),
    value_option(
        "--oom-score-adj", metavar="N", type=click.IntRange(-1000, 1000), help="Preference of the kernel's OOM killer"
    ),
    value_option("--pid", metavar="MODE", help="PID namespace: private, host or container:NAME"),
    value_option("--platform", metavar="OS/ARCH[/VARIANT]", help="Platform of the image"),
    switch_option("--privileged", help="Give everything that your user namespace can give"),
    repeated_option(
        "-p", "--publish", metavar="[IP:][HOST:]CONTAINER[/PROTOCOL]", help="Publish a port or a range of ports"
    ),
    switch_option("-P", "--publish-all", help="Publish all exposed ports to free ports of the host"),
    value_option(
        "--pull",
        metavar=None,
        type=click.Choice(["always", "missing", "never", "newer"]),
        default="missing",
        show_default=True,
        help="When to pull the image",
    ),
    switch_option("--read-only", help="Mount the container's root file system read-only"),
    switch_option("--replace", help="Remove the container that has the name first, even if it runs"),
    value_option(
        "--restart", metavar="POLICY", default="no", help="no (default), on-failure[:N], always or unless-stopped"
    ),
    value_option(
        "--root-emulation",
        metavar=None,
        type=click.Choice(["auto", "on", "off"]),
        help="Let chown, mknod and changes of users succeed and note the owners; auto: with one id (default off)",
    ),
    switch_option("--rm", help="Remove the container and its anonymous volumes when it ends"),
    value_option("--runtime", metavar="PROGRAM", help="Run with another OCI runtime: crun, runc or a path"),
    repeated_option(
        "--security-opt", metavar="OPTION", help="seccomp=FILE|unconfined, no-new-privileges, mask=PATHS, unmask=PATHS"
    ),
    value_option("--shm-size", metavar="SIZE", help="Size of /dev/shm (default 64m)"),
    value_option("--stop-signal", metavar="SIGNAL", help="Signal that asks the container to stop"),
    value_option("--stop-timeout", metavar=_SECONDS, type=int, help="Time to stop before it is killed (default 10)"),
    value_option("--storage-driver", metavar="NAME", help=f"{drivers.list_choices()}, for this container"),
    repeated_option("--sysctl", metavar="NAME=VALUE", help="Set a kernel parameter of the container's namespaces"),
    repeated_option("--tmpfs", metavar="PATH[:OPTIONS]", help="Mount a tmpfs"),
    switch_option("-t", "--tty", help="Give the container a terminal"),
    value_option("--tz", metavar="ZONE", help="Time zone of /etc/localtime: local, or a name such as Europe/Prague"),
    repeated_option("--uidmap", metavar="CONTAINER:HOST:SIZE", help="Map user ids"),
    repeated_option("--ulimit", metavar="NAME=SOFT[:HARD]", help="Set a resource limit"),
    value_option("--umask", metavar="MODE", help="Bits that new files of the process lack (default 0022)"),
    value_option("-u", "--user", metavar="USER[:GROUP]", help="User name or id, and group, of the process"),
    value_option(
        "--userns", metavar="MODE", help="Id map: default, keep-id[:uid=N,gid=N], host, nomap or container:NAME"
    ),
    value_option("--uts", metavar="MODE", help="UTS namespace: private, host or container:NAME"),
    repeated_option(
        "-v", "--volume", metavar="[SOURCE:]TARGET[:OPTIONS]", help="Mount a directory of the host or a volume"
    ),
    repeated_option("--volumes-from", metavar="CONTAINER[:ro]", help="Mount the volumes of another container"),
    value_option("-w", "--workdir", metavar="DIR", help="Working directory inside the container"),
    click.argument("image", shell_complete=complete_names("images")),
    click.argument("command", nargs=-1, type=click.UNPROCESSED),
)


def container_options(function: Declared) -> Declared:
    """Declare every flag of `run` and `create`, IMAGE and COMMAND."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def limit_options(function: Declared) -> Declared:
    """Declare the limits of a container that `update` can change too."""
    for option in reversed(_LIMITS):
        function = option(function)
    return function


def end_of_following(exit_code: int | None) -> int:
    """The exit code of a command that has followed a process; for None, where the user left by the detach keys, 0.

    Docker's words say so then: they stand on the line of the container's own prompt, which now looks like a shell's.
    """
    if exit_code is not None:
        return exit_code
    output.note("read escape sequence")
    return 0


def options_from_flags(flags: Mapping[str, object]) -> ContainerOptions:
    """The options that the flags of `container_options` say; a flag that was not given has the engine's default."""
    given = {name: value for name, value in flags.items() if value is not None}
    networks = given.get("network")
    if isinstance(networks, tuple):  # it may be given several times, and the record of earlier versions has one text
        given["network"], given["more_networks"] = next(iter(networks), None), networks[1:]
    return ContainerOptions._make(
        {**ContainerOptions._field_defaults, **given}[name] for name in ContainerOptions._fields
    )


def terminal_options(function: Declared) -> Declared:
    """Declare how the caller's terminal follows a container: --detach-keys and --sig-proxy."""
    function = switch_option("--sig-proxy", default=True, help="Pass signals on to the process (default true)")(
        function
    )
    return value_option("--detach-keys", metavar="KEYS", help="Keys that detach (default ctrl-p,ctrl-q)")(function)


# Commands that list have -f for --filter, those that remove have it for --force, as docker's do
format_option = value_option(
    "--format", metavar="FORMAT", help="'json', 'table' with a template, or a Go template of fields"
)
filter_option = repeated_option(
    "-f", "--filter", metavar="KEY=VALUE", help="Show only what matches; may be given several times"
)
filter_option_prune = repeated_option(
    "--filter", metavar="KEY=VALUE", help="Remove only what matches: until=TIME, label=KEY[=VALUE]"
)
force_option = switch_option("-f", "--force", help="Do not ask for confirmation")
no_trunc_option = switch_option("--no-trunc", help="Do not shorten the output")
no_heading_option = switch_option("--noheading", help="Leave out the line of headings")
no_heading_option_short = switch_option("-n", "--noheading", help="Leave out the line of headings")


def names_or_all(
    names: tuple[str, ...], all: bool, noun: str, list_all: Callable[[], Iterable[str]]
) -> tuple[str, ...]:
    """What a command with names and --all is about: the names that were given, or with --all what `list_all` returns.

    noun: what a name is, for the error. Raises UsageError for names beside --all, and where there is neither.
    """
    if all and names:
        raise UsageError(f"--all and the name of {noun} exclude each other", hint="give one of them")
    if not all and not names:
        raise UsageError(f"the name of {noun} is missing", hint="name one, or give --all")
    return tuple(list_all()) if all else names


def confirm(question: str, *, force: bool) -> bool:
    """Ask before something is lost, as docker does: anything but `y` or `yes` means no. force: do not ask."""
    if force:
        return True
    click.echo(f"WARNING! {question}")
    answer: str = click.prompt(
        "Are you sure you want to continue? [y/N]", default="N", show_default=False, prompt_suffix=" "
    )
    return answer.strip().lower() in ("y", "yes")
