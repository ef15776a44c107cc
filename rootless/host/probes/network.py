"""Probes of what can connect a network namespace to the host's network."""

from __future__ import annotations

import os
import select
import signal

from rootless.errors import HostLimit
from rootless.host import userns
from rootless.host.facts import find_helper, is_real_root, sysctl
from rootless.host.idmap import single_map
from rootless.host.probes import Probe
from rootless.host.probes.trial import run

_READY = 10.0  # seconds


def pasta(directory: str) -> Probe:
    """pasta, run once around a command in a network namespace of its own."""
    program = find_helper("pasta")
    if program is None:
        return Probe("pasta", False, "program 'pasta' is missing", _install("passt"))
    argv = [program, "--quiet", "--config-net", "-t", "none", "-u", "none", "-T", "none", "-U", "none"]
    code, words = run([*argv, "--", "/bin/true"], timeout=5.0)
    if code != 0:
        return Probe("pasta", False, f"'{program}' ended with status {code}: {words}", _tun_remedy())
    return Probe("pasta", True, f"{program} connected a network namespace")


def slirp4netns(directory: str) -> Probe:
    """slirp4netns, attached once to a network namespace."""
    program = find_helper("slirp4netns")
    if program is None:
        return Probe("slirp4netns", False, "program 'slirp4netns' is missing", _install("slirp4netns"))
    release_read, release_write = os.pipe()
    made_read, made_write = os.pipe()
    target = os.fork()
    if target == 0:
        try:
            from rootless.kernel.namespaces import CLONE_NEWNET, unshare

            os.close(release_write)
            userns.enter(single_map(0, 0))
            unshare(CLONE_NEWNET)
            os.write(made_write, b"+")
            os.read(release_read, 1)
        finally:
            os._exit(0)
    os.close(made_write)
    try:
        if not os.read(made_read, 1):
            raise HostLimit("cannot make a network namespace")
        words = _attach_slirp(program, target)
    finally:
        os.close(release_write)
        os.waitpid(target, 0)
    if words is not None:
        return Probe("slirp4netns", False, f"'{program}' failed: {words}", _tun_remedy())
    return Probe("slirp4netns", True, f"{program} connected a network namespace")


def _attach_slirp(program: str, target: int) -> str | None:
    """None once slirp4netns says that it is ready, else its last words."""
    ready_read, ready_write = os.pipe()
    error_read, error_write = os.pipe()
    above = os.dup(ready_write)  # dup2 of fd 3 to itself would leave it close-on-exec
    child = os.posix_spawn(
        program,
        [program, "--configure", "--mtu=65520", "--disable-host-loopback", "--ready-fd=3", str(target), "tap0"],
        {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, error_write, 2),
            (os.POSIX_SPAWN_DUP2, error_write, 1),
            (os.POSIX_SPAWN_DUP2, above, 3),
        ],
        setsigdef=(signal.SIGPIPE,),
    )
    os.close(above)
    os.close(ready_write)
    os.close(error_write)
    try:
        if select.select([ready_read], [], [], _READY)[0] and os.read(ready_read, 1):
            return None
        os.kill(child, signal.SIGTERM)
        lines = os.read(error_read, 4096).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"not ready within {_READY:.0f} s"
    finally:
        try:
            os.kill(child, signal.SIGTERM)
        except ProcessLookupError:
            pass
        os.waitpid(child, 0)


def tun(directory: str) -> Probe:
    """/dev/net/tun, really opened: its mode says nothing about what a device cgroup or a container forbids."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as e:
        return Probe("tun", False, f"cannot open '/dev/net/tun': {e.strerror}", _tun_line(e))
    return Probe("tun", True, "/dev/net/tun opens")


def low_ports(directory: str) -> Probe:
    """The lowest port that `-p` can publish."""
    first = int(sysctl("net/ipv4/ip_unprivileged_port_start") or 1024)
    if first <= 80 or is_real_root():
        return Probe("low_ports", True, f"ports from {first} can be published")
    return Probe(
        "low_ports",
        False,
        f"ports below {first} cannot be published",
        "publish on a higher one (-p 8080:80), or ask the administrator for:"
        " sysctl -w net.ipv4.ip_unprivileged_port_start=80",
    )


def _install(package: str) -> str:
    return f"ask the administrator for: apt install {package}   (dnf install {package})"


def _tun_line(error: OSError) -> str:
    line = "modprobe tun" if isinstance(error, FileNotFoundError) else "chmod 0666 /dev/net/tun"
    return f"ask the administrator for: {line}"


def _tun_remedy() -> str | None:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as e:
        return _tun_line(e)
    return None
