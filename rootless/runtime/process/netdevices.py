"""`linux.netDevices` (runtime-spec 1.3): interfaces that move into the container's network namespace.

Moving one needs CAP_NET_ADMIN over the namespace that it leaves. An ordinary user has that where the namespace is his
own: the interfaces of a pod's, of podman's or of `unshare --net`.
"""

from __future__ import annotations

import errno
import os

from rootless.errors import RuntimeFailure
from rootless.runtime.channel import MovedDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.runtime.spec.oci_config import LinuxConfig


def move(linux: LinuxConfig, pid: int) -> list[MovedDevice]:
    """Move the interfaces of the configuration, from outside, to the network namespace of `pid`, or that of the path.

    Returns what `settle` has to do inside. Raises RuntimeFailure naming the property.
    """
    if not linux.net_devices:
        return []
    from rootless.kernel.netlink import Routing

    joined = linux.namespace("network")
    path = joined.path if joined is not None else ""
    namespace = os.open(path or f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    routing = Routing()
    moved = []
    try:
        for wanted in linux.net_devices:
            try:
                device = MovedDevice(routing.index(wanted.name), wanted.name, wanted.new_name)
                device.addresses = list(routing.addresses(device.index))
                routing.move(device.index, namespace, device.name)
            except OSError as e:
                raise _refused(wanted.name, wanted.new_name, e) from e
            moved.append(device)
    finally:
        routing.close()
        os.close(namespace)
    return moved


def settle(moved: list[MovedDevice]) -> None:
    """Give the interfaces their addresses again and switch them on, in their new namespace."""
    if not moved:
        return
    from rootless.kernel.netlink import Routing

    routing = Routing()
    try:
        for device in moved:
            try:
                # an interface may get another number in the new namespace; where the kernel chose its name (%d), the
                # old number is all that is known, and the kernel keeps it unless it is taken
                index = device.index if "%" in device.name else routing.index(device.name)
                for address in device.addresses:
                    routing.add(index, address)
                routing.up(index)
            except OSError as e:
                raise _refused(device.old, device.name, e) from e
    finally:
        routing.close()


def _refused(name: str, new_name: str, error: OSError) -> RuntimeFailure:
    hint = None
    reason = error.strerror
    if error.errno == errno.ENODEV:
        reason = "there is no such interface"
    elif error.errno == errno.EEXIST:
        reason = f"the container has a '{new_name}' already"
    elif error.errno == errno.EPERM:
        hint = "that needs CAP_NET_ADMIN over the network namespace it is in: only interfaces of your own can be moved"
    return RuntimeFailure(f"config property 'linux.netDevices.{name}': cannot move the interface: {reason}", hint=hint)
