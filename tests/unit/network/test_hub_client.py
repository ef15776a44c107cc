"""What a monitor hears of the process that serves networks when that cannot do what it was asked for."""

from __future__ import annotations

import errno

from rootless.errors import HostLimit, InvalidState
from rootless.network.shared import hub_client


def test_errors_of_the_kernel_name_the_file_and_what_to_do() -> None:
    own = InvalidState("Address already in use")
    assert hub_client._as_ours(own) is own
    read_only = hub_client._as_ours(OSError(errno.EROFS, "Read-only file system", "/proc/sys/net/ipv4/ip_forward"))
    assert isinstance(read_only, HostLimit)
    assert "Read-only file system ('/proc/sys/net/ipv4/ip_forward')" in read_only.message
    assert "inside another container" in str(read_only.hint)
    no_module = hub_client._as_ours(OSError(errno.EOPNOTSUPP, "Operation not supported"))
    assert (no_module.message.endswith("networks: Operation not supported"), no_module.hint) == (True, None)
