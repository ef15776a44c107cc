"""`linux.netDevices` (runtime-spec 1.3): interfaces that move into the container's network namespace.

Moving one needs CAP_NET_ADMIN over the namespace that it leaves. An ordinary user has that where the namespace is his
own: the interfaces of a pod's, of podman's or of `unshare --net`.
"""

from __future__ import annotations

import errno
import os

from rootless.errors import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def move(config: dict[str, Any], pid: int) -> list[dict[str, Any]]:
    """Move the interfaces of the configuration, from outside, to the network namespace of `pid`, or that of the path.

    Returns what `settle` has to do inside. Raises RuntimeFailure naming the property.
    """
    wanted = (config.get("linux") or {}).get("netDevices") or {}
    if not wanted:
        return []
    from rootless.kernel.netlink import Routing

    path = next((n.get("path") for n in config["linux"]["namespaces"] if n["type"] == "network"), None)
    namespace = os.open(path or f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    routing = Routing()
    moved = []
    try:
        for name, device in wanted.items():
            new_name = (device or {}).get("name") or name
            try:
                index = routing.index(name)
                addresses = routing.addresses(index)
                routing.move(index, namespace, new_name)
            except OSError as e:
                raise _refused(name, new_name, e) from e
            kept = [(a.family, a.prefix, a.attributes) for a in addresses]
            moved.append({"index": index, "old": name, "name": new_name, "addresses": kept})
    finally:
        routing.close()
        os.close(namespace)
    return moved


def settle(moved: list[dict[str, Any]]) -> None:
    """Give the interfaces their addresses again and switch them on, in their new namespace."""
    if not moved:
        return
    from rootless.kernel.netlink import Address, Routing

    routing = Routing()
    try:
        for device in moved:
            name = device["name"]
            try:
                # the number may be another one here; that of a name with %d is all we know
                index = device["index"] if "%" in name else routing.index(name)
                for family, prefix, attributes in device["addresses"]:
                    routing.add(index, Address(family, prefix, {int(k): v for k, v in attributes.items()}))
                routing.up(index)
            except OSError as e:
                raise _refused(device["old"], name, e) from e
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
