"""libseccomp.so.2 by ctypes: rules in, BPF program out. It knows no profile and loads nothing into the kernel."""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

ACT_KILL_PROCESS = 0x80000000
ACT_KILL_THREAD = 0x00000000
ACT_TRAP = 0x00030000
ACT_NOTIFY = 0x7FC00000
ACT_LOG = 0x7FFC0000
ACT_ALLOW = 0x7FFF0000


def act_errno(number: int) -> int:
    """The action that fails a call with errno `number` (SCMP_ACT_ERRNO, seccomp_rule_add(3))."""
    return 0x00050000 | number & 0xFFFF


def act_trace(number: int) -> int:
    """The action that tells a tracer of the call, with message `number` (SCMP_ACT_TRACE, seccomp_rule_add(3))."""
    return 0x7FF00000 | number & 0xFFFF


# enum scmp_compare
COMPARE = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
# enum scmp_filter_attr
ATTR_ACT_BADARCH = 2
ATTR_CTL_OPTIMIZE = 8

_NR_ERROR = -1


class _Comparison(ctypes.Structure):
    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    ]


class _Version(ctypes.Structure):
    _fields_ = [("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint)]


_library: ctypes.CDLL | None = None


def load_library() -> ctypes.CDLL:
    """The loaded library; OSError (ENOENT) when the host has none."""
    global _library
    if _library is None:
        try:
            lib = ctypes.CDLL("libseccomp.so.2")
        except OSError as e:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), "libseccomp.so.2") from e
        context = ctypes.c_void_p
        lib.seccomp_init.restype = context
        lib.seccomp_init.argtypes = (ctypes.c_uint32,)
        lib.seccomp_release.argtypes = (context,)
        lib.seccomp_release.restype = None
        lib.seccomp_arch_add.argtypes = (context, ctypes.c_uint32)
        lib.seccomp_arch_remove.argtypes = (context, ctypes.c_uint32)
        lib.seccomp_arch_resolve_name.argtypes = (ctypes.c_char_p,)
        lib.seccomp_arch_resolve_name.restype = ctypes.c_uint32
        lib.seccomp_arch_native.restype = ctypes.c_uint32
        lib.seccomp_attr_set.argtypes = (context, ctypes.c_int, ctypes.c_uint32)
        lib.seccomp_rule_add_array.argtypes = (
            context,
            ctypes.c_uint32,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.POINTER(_Comparison),
        )
        lib.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
        lib.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
        lib.seccomp_export_bpf.argtypes = (context, ctypes.c_int)
        lib.seccomp_export_pfc.argtypes = (context, ctypes.c_int)
        lib.seccomp_version.restype = ctypes.POINTER(_Version)
        _library = lib
    return _library


def library_version() -> tuple[int, int, int]:
    """Version of the library on this host."""
    v = load_library().seccomp_version().contents
    return v.major, v.minor, v.micro


def syscall_resolve(name: str) -> int | None:
    """Number of system call `name` for rule_add (a pseudo number where this architecture lacks it); None: unknown."""
    number = int(load_library().seccomp_syscall_resolve_name(name.encode()))
    return None if number == _NR_ERROR else number


def syscall_resolve_in(arch: int, name: str) -> int | None:
    """The same for the architecture of a token."""
    number = int(load_library().seccomp_syscall_resolve_name_arch(arch, name.encode()))
    return None if number == _NR_ERROR else number


def arch_resolve(name: str) -> int | None:
    """Token of architecture `name` as libseccomp spells it (`x86_64`, `x86`, `x32`, `aarch64`); None: unknown."""
    return int(load_library().seccomp_arch_resolve_name(name.encode())) or None


def arch_native() -> int:
    """Token of the architecture we run on."""
    return int(load_library().seccomp_arch_native())


def _check(code: int, what: str) -> None:
    # libseccomp returns negative errno values
    if code < 0:
        error = OSError(-code, os.strerror(-code), what)
        raise error


class Filter:
    """A filter under construction; use it in a `with`. Errors are OSError with libseccomp's errno."""

    __slots__ = ("_context", "_lib")

    def __init__(self, default_action: int) -> None:
        self._lib = load_library()
        self._context = self._lib.seccomp_init(default_action)
        if not self._context:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), "seccomp_init")

    def __enter__(self) -> Filter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Free the filter in the library; it must not be used afterwards."""
        if self._context:
            self._lib.seccomp_release(self._context)
            self._context = None

    def arch_add(self, token: int) -> None:
        """Add an architecture; one that is there already is fine."""
        code = self._lib.seccomp_arch_add(self._context, token)
        if code != -errno.EEXIST:
            _check(code, "seccomp_arch_add")

    def attr_set(self, attribute: int, value: int) -> None:
        """Set one of ATTR_*; EOPNOTSUPP or EINVAL when the library or the kernel lacks it."""
        _check(self._lib.seccomp_attr_set(self._context, attribute, value), "seccomp_attr_set")

    def rule_add(self, action: int, syscall: int, comparisons: list[tuple[int, int, int, int]] | None = None) -> None:
        """Add a rule: `action` when all `comparisons` (argument 0..5, COMPARE value, datum a, datum b) hold.

        EACCES: the action is the filter's default one, so the rule says nothing.
        """
        wanted = comparisons or []
        array = (_Comparison * len(wanted))(*(_Comparison(*c) for c in wanted))
        code = self._lib.seccomp_rule_add_array(self._context, action, syscall, len(wanted), array)
        _check(code, "seccomp_rule_add_array")

    def export_bpf(self) -> bytes:
        """The finished program: struct sock_filter, 8 bytes each."""
        return self._export("seccomp_export_bpf")

    def _export(self, function: str) -> bytes:
        fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        try:
            _check(getattr(self._lib, function)(self._context, fd), function)
            size = os.fstat(fd).st_size
            content = b""
            while len(content) < size:
                content += os.pread(fd, size - len(content), len(content))
            return content
        finally:
            os.close(fd)
