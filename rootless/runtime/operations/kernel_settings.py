"""What is set in the kernel for the container: names of the UTS namespace, sysctls. It touches no file of the image."""

from __future__ import annotations

import os

from rootless.errors import RuntimeFailure
from rootless.kernel.namespaces import setdomainname, sethostname
from rootless.kernel.procfs import write_proc
from rootless.runtime.operations.base import Operation, RootContext


class Hostname(Operation):
    """Host and domain name of the own UTS namespace."""

    __slots__ = ("domain", "name")

    def __init__(self, name: str | None, domain: str | None = None) -> None:
        self.name = name
        self.domain = domain

    def describe(self) -> str:
        return f"set host name '{self.name or ''}'" + (f", domain name '{self.domain}'" if self.domain else "")

    def apply(self, context: RootContext) -> None:
        if self.name:
            sethostname(self.name)
        if self.domain:
            setdomainname(self.domain)


class Sysctl(Operation):
    """One kernel parameter of a namespace that is the container's own; written through a proven procfs."""

    __slots__ = ("key", "value")

    def __init__(self, key: str, value: str) -> None:
        self.key = key
        self.value = value

    @property
    def path(self) -> str:
        return "/proc/sys/" + sysctl_path(self.key)

    def describe(self) -> str:
        return f"set sysctl '{self.key}'"

    def apply(self, context: RootContext) -> None:
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            write_proc(proc, "sys/" + sysctl_path(self.key), self.value.encode())
        except OSError as e:
            raise RuntimeFailure(f"cannot set sysctl '{self.key}' to '{self.value}': {e.strerror}") from e
        finally:
            os.close(proc)


def sysctl_path(key: str) -> str:
    """`net.ipv4.ip_forward`, or with slashes and dots in names (`net/ipv4/conf/eth0.1/forwarding`), to a path."""
    for character in key:
        if character == "/":
            return key
        if character == ".":
            break
    return key.replace("/", "\0").replace(".", "/").replace("\0", ".")
