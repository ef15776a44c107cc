"""The session keyring of a container: a fresh one, or a filter that hides the caller's. It loads nothing itself.

Keys are not namespaced: without a keyring of its own a container sees and uses those of the user's login session (krb5
tickets, fscrypt). runc#582, runc#726, podman#13363.
"""

from __future__ import annotations

import errno
import struct

from rootless.kernel import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LD_WORD, _JEQ, _JGE, _RET = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NR, _ARCH = 0, 4  # offsets in struct seccomp_data
# (AUDIT_ARCH, numbers of add_key, request_key, keyctl), adjacent on every architecture
_CALLS = (
    (0xC000003E, 248),  # x86_64; x32 has the same with bit 30 set
    (0x40000003, 286),  # i386
    (0xC00000B7, 217),  # aarch64
    (0x40000028, 309),  # arm
    (0xC00000F3, 217),  # riscv64
    (0x80000016, 278),  # s390x
    (0xC0000015, 269),  # ppc64le
)
_X32 = 0x40000000


def join_own_keyring(name: str | None = None, *, warn: Callable[[str], None] | None = None) -> bytes | None:
    """Give this process a new session keyring: None when that worked, else a BPF filter that init must load.

    EDQUOT (the user's quota of keys is used up: 200 by default, shared by all his containers), ENOSYS and EPERM (a
    kernel without keys, or an outer sandbox) do not stop the container: the filter denies the three key system calls,
    which hides the old keyring as well. Load it with kernel.process.load_filter beside the main one, also when that is
    absent. Raises OSError for any other errno.
    """
    try:
        process.join_session_keyring(name)
    except OSError as e:
        if e.errno not in (errno.EDQUOT, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.ENOMEM):
            raise
        if e.errno == errno.EDQUOT and warn is not None:
            warn("the quota of keys is used up (/proc/key-users): the container has no keyring and may not use keys")
        return deny_filter()
    return None


def deny_filter() -> bytes:
    """A seccomp program: add_key, request_key and keyctl fail with ENOSYS, everything else passes.

    Filters add up and the strictest answer wins, so it needs no knowledge of the main profile.
    """
    program: list[tuple[int, int, int, int]] = [(_LD_WORD, 0, 0, _ARCH)]
    for arch, first in _CALLS:
        bases = (first, first | _X32) if arch == 0xC000003E else (first,)
        body: list[tuple[int, int, int, int]] = [(_LD_WORD, 0, 0, _NR)]
        for base in bases:
            body.append((_JGE, 0, 2, base))  # below the first one: try the next base
            body.append((_JGE, 1, 0, base + 3))  # above the last one: try the next base
            body.append((_RET, 0, 0, _ERRNO | errno.ENOSYS))
        body.append((_RET, 0, 0, _ALLOW))
        program.append((_JEQ, 0, len(body), arch))
        program.extend(body)
    program.append((_RET, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
