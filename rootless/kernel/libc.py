"""The one handle on the C library, raw system calls and their error check. It holds no policy and wraps no call."""

from __future__ import annotations

import ctypes
import os

# use_errno: ctypes keeps a copy of errno, which no other code of the interpreter overwrites before it is read here
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

# Only what neither Python nor the C libraries (glibc and musl) export, and what is older than the numbers that all
# architectures share (424 and up). Source: the kernel's arch/*/syscalls tables.
_GENERIC = {
    "pivot_root": 41,
    "keyctl": 219,
    "seccomp": 277,
    "renameat2": 276,
    "sched_setattr": 274,
    "ioprio_set": 30,
    "set_mempolicy": 237,
}
_NUMBERS = {
    "x86_64": {
        "pivot_root": 155,
        "keyctl": 250,
        "seccomp": 317,
        "renameat2": 316,
        "sched_setattr": 314,
        "ioprio_set": 251,
        "set_mempolicy": 238,
    },
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
    "loongarch64": _GENERIC,
    "ppc64le": {
        "pivot_root": 203,
        "keyctl": 271,
        "seccomp": 358,
        "renameat2": 357,
        "sched_setattr": 355,
        "ioprio_set": 273,
        "set_mempolicy": 261,
    },
    "s390x": {
        "pivot_root": 217,
        "keyctl": 280,
        "seccomp": 348,
        "renameat2": 347,
        "sched_setattr": 345,
        "ioprio_set": 282,
        "set_mempolicy": 270,
    },
    "armv7l": {
        "pivot_root": 218,
        "keyctl": 311,
        "seccomp": 383,
        "renameat2": 382,
        "sched_setattr": 380,
        "ioprio_set": 314,
        "set_mempolicy": 321,
    },
}
# Asked once, before anything else: personality(2) with PER_LINUX32 makes uname(2) name a 32-bit machine, while this
# process goes on making its calls by the numbers of the 64-bit one.
_MACHINE = os.uname().machine


def syscall_number(name: str) -> int:
    """The number of system call `name` on this machine; raises OSError ENOSYS where we do not know it."""
    try:
        return _NUMBERS[_MACHINE][name]
    except KeyError:
        import errno

        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), name) from None


def check_result(result: int, what: str, *args: object) -> int:
    """Return `result`, or raise OSError from errno when it is -1.

    The call goes into the exception's notes; the first one or two of `args` that are texts become its file names,
    so that messages read as those of Python's own os module.
    """
    if result != -1:
        return result
    code = ctypes.get_errno()
    names = [a for a in args if isinstance(a, str)]
    if len(names) > 1:
        error = OSError(code, os.strerror(code), names[0], None, names[1])
    elif names:
        error = OSError(code, os.strerror(code), names[0])
    else:
        error = OSError(code, os.strerror(code))
    error.add_note(f"{what}({', '.join(repr(a) for a in args)})")
    raise error


def syscall(number: int, *args: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make system call `number`; bytes and buffers pass as pointers, None as NULL. Raises OSError."""
    words: list[object] = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    return check_result(int(libc.syscall(ctypes.c_long(number), *words)), f"syscall {number}", *args)
