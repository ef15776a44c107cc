"""One way of connecting a container's network: what it needs and what follows from it. The table is network.modes."""

from __future__ import annotations

from rootless.errors import HostLimit
from rootless.host.facts import find_helper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Protocol

    from rootless.host.probes.result import Probe
    from rootless.kernel.namespaces import OpenNetwork
    from rootless.network.helper import Helper
    from rootless.records.port import Port

    class HelperModule(Protocol):
        """What the module of a helper program offers. The table loads it only when the helper is wanted."""

        def start(
            self, program: str, target: OpenNetwork, ports: Iterable[Port], options: Sequence[str] = ()
        ) -> Helper:
            """Connect the network namespace `target` with the helper at path `program`, and publish `ports`.

            target: stays the caller's, who may close it as soon as this returns. options: words that `check_options`
            accepted. Returns at once; `ready()` of the result waits. Raises HostLimit: no /dev/net/tun, a port that is
            taken.
            """

        def check_options(self, options: Sequence[str]) -> None:
            """Raise UsageError, saying what is accepted, unless the helper may be called with these words."""

        def connect_once(self, program: str) -> Probe:
            """Connect a network namespace to this host's network for a moment with the helper at path `program`."""


class HelperProgram:
    """The program that connects a network namespace without privilege; its mode has its name.

    package: Debian's package of it. purpose and loss: what `rootless doctor` says it is for, and what is lost with it
    ("" = nothing). load: imports the program's module, which costs time only where it is wanted. publishes_ipv6: it can
    publish ports on IPv6 addresses of the host.
    """

    __slots__ = ("load", "loss", "name", "package", "publishes_ipv6", "purpose")

    def __init__(
        self, name: str, package: str, purpose: str, load: Callable[[], HelperModule], *, loss: str = ""
    ) -> None:
        self.name = name
        self.package = package
        self.purpose = purpose
        self.load = load
        self.loss = loss
        self.publishes_ipv6 = False

    def with_ipv6_ports(self) -> HelperProgram:
        """This program, which can publish ports on IPv6 addresses of the host."""
        self.publishes_ipv6 = True
        return self

    @property
    def speciality(self) -> str:
        """What it is used for where another helper is the usual one; "" for nothing."""
        return "ports on IPv6 addresses of this host (-p '[::1]:8080:80')" if self.publishes_ipv6 else ""

    def path(self) -> str | None:
        """The absolute path of the program; None where it is not installed."""
        return find_helper(self.name)

    def start(self, target: OpenNetwork, ports: Iterable[Port], options: Sequence[str] = ()) -> Helper:
        """As HelperModule.start. Raises HostLimit also when the program is not installed."""
        program = self.path()
        if program is None:
            raise HostLimit(
                f'the network helper "{self.name}" is not installed',
                hint=f"as root: apt install {self.package} (dnf install {self.package}); or use --network=host or "
                "--network=none",
            )
        return self.load().start(program, target, ports, options)


class Mode:
    """A network mode. name: as records hold it; syntax: as the user types it; helper: what connects it, or None.

    has_names: the container is on networks with names, which are chosen beside the mode; has_own_namespace: it has a
    network namespace of its own, and so interfaces and ports of its own; uses_host_names: /etc/hosts and resolv.conf
    are the host's, and no host name is set; joins_another: the network, and with it the names and the ports, belong to
    another container. warning: printed whenever the mode is used; discards: printed when ports are published that the
    mode cannot publish ("" = nothing is printed).
    """

    __slots__ = (
        "discards",
        "has_names",
        "has_own_namespace",
        "helper",
        "joins_another",
        "name",
        "syntax",
        "uses_host_names",
        "warning",
    )

    def __init__(self, name: str) -> None:
        """A mode with a network namespace of its own, which nothing connects and which warns of nothing."""
        self.name = self.syntax = name
        self.helper: HelperProgram | None = None
        self.has_own_namespace = True
        self.has_names = False
        self.uses_host_names = self.joins_another = False
        self.warning = self.discards = ""

    @classmethod
    def of_helper(cls, helper: HelperProgram, *, takes_options: bool = False) -> Mode:
        """A mode whose network namespace `helper` connects. takes_options: the user may pass it some of its own."""
        mode = cls(helper.name)
        if takes_options:
            mode.syntax = f"{helper.name}[:OPTIONS]"
        mode.helper = helper
        return mode

    @classmethod
    def of_host(cls, name: str, *, warning: str, discards: str) -> Mode:
        """A mode that has the host's network namespace and names."""
        mode = cls(name)
        mode.has_own_namespace, mode.uses_host_names = False, True
        mode.warning, mode.discards = warning, discards
        return mode

    @classmethod
    def of_another(cls, name: str, argument: str) -> Mode:
        """A mode that joins the network namespace of another container, which the user names after a colon."""
        mode = cls(name)
        mode.syntax = f"{name}:{argument}"
        mode.has_own_namespace, mode.joins_another = False, True
        return mode

    @classmethod
    def of_networks(cls, name: str) -> Mode:
        """The mode of a container on networks with names, which one process serves for all of them."""
        mode = cls(name)
        mode.has_names = True
        return mode

    @property
    def is_connected(self) -> bool:
        """Do its own interfaces lead outside, so that it has an address and a way to the host?"""
        return self.helper is not None or self.has_names

    @property
    def can_publish(self) -> bool:
        """Can ports of the container be published? That is a helper's work."""
        return self.is_connected

    @property
    def counts_own_traffic(self) -> bool:
        """Do the interfaces that the container sees count its traffic, and not nothing or that of the whole host?"""
        return self.is_connected or self.joins_another

    def start(self, target: OpenNetwork, ports: Iterable[Port] = (), options: Sequence[str] = ()) -> Helper | None:
        """Begin, without waiting, to connect the network namespace `target`; None where no helper is needed.

        Raises HostLimit: the helper is not installed, there is no /dev/net/tun, a port is taken.
        """
        return None if self.helper is None else self.helper.start(target, ports, options)
