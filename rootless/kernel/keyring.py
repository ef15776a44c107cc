"""keyctl(2): the session keyring. When to join a new one, and what a failure means, is decided elsewhere."""

from __future__ import annotations

from rootless.kernel.libc import syscall, syscall_number

_JOIN_SESSION_KEYRING = 1


def join_session_keyring(name: str | None) -> int:
    """Join (or make) session keyring `name`, an anonymous new one for None; return its serial number.

    EDQUOT: the user has too many keys; ENOSYS or EPERM: keys are forbidden here.
    """
    return syscall(syscall_number("keyctl"), _JOIN_SESSION_KEYRING, None if name is None else name.encode(), 0, 0, 0)
