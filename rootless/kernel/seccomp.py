"""Loading of a finished seccomp filter. It compiles nothing and knows no profile."""

from __future__ import annotations

import ctypes
import struct

from rootless.kernel.libc import syscall, syscall_number

_SET_MODE_FILTER = 1
FILTER_FLAG_NEW_LISTENER = 8
FILTER_FLAG_WAIT_KILLABLE_RECV = 32
_INSTRUCTION = 8  # sizeof(struct sock_filter)


def load_filter(bpf: bytes, flags: int = 0) -> int | None:
    """Load BPF program `bpf` (struct sock_filter each) on this thread; the listener fd with FILTER_FLAG_NEW_LISTENER.

    seccomp(2): the thread needs no_new_privs or CAP_SYS_ADMIN in its user namespace (else EACCES), since a filter could
    make a setuid program believe that it has dropped its rights. No filter can be taken off again.
    """
    program = ctypes.create_string_buffer(bpf, len(bpf))
    # struct sock_fprog { unsigned short len; struct sock_filter *filter; } with native alignment
    header = struct.pack("@HP", len(bpf) // _INSTRUCTION, ctypes.addressof(program))
    result = syscall(syscall_number("seccomp"), _SET_MODE_FILTER, flags, header)
    return result if flags & FILTER_FLAG_NEW_LISTENER else None
