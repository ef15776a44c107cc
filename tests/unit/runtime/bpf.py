"""A tiny interpreter of seccomp's classic BPF: what a filter answers, without loading it."""

from __future__ import annotations

import struct

X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0


def verdict(program: bytes, number: int, *args: int, arch: int = X86_64) -> int:
    """The SECCOMP_RET_* value of `program` for one system call."""
    words = [a & 0xFFFFFFFFFFFFFFFF for a in (*args, 0, 0, 0, 0, 0, 0)[:6]]
    seccomp_data = struct.pack("<IIQ6Q", number, arch, 0, *words)
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator = position = 0
    while True:
        operation, jt, jf, k = code[position]
        position += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", seccomp_data, k)[0]
        elif operation == 0x06:
            return int(k)
        elif operation == 0x05:
            position += k
        elif operation == 0x54:
            accumulator &= k
        elif operation in (0x15, 0x25, 0x35, 0x45):
            holds = {
                0x15: accumulator == k,
                0x25: accumulator > k,
                0x35: accumulator >= k,
                0x45: bool(accumulator & k),
            }[operation]
            position += jt if holds else jf
        else:
            raise AssertionError(f"instruction {operation:#x}")
