"""The seccomp filter of a container: the profile's cached BPF program. It loads nothing: init does, without libseccomp.

Profiles as data are in runtime.seccomp.seccomp_profile, their compiling in runtime.seccomp.seccomp_compile
(imported only when needed: it costs libseccomp and some 10 ms).
"""

from __future__ import annotations

import json
import os
import stat

from rootless.errors import HostLimit, InvalidInput
from rootless.hashing import sha256_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.launch import RootEmulation
    from rootless.runtime.seccomp.seccomp_profile import SeccompProfile

# Both are parts of the names of cached files, and go up when the same input gives another program than before: that of
# seccomp_compile for a profile, that of emulation_filter
_FORMAT = 1
_EMULATION = 2
_MAGIC = b"rootless-bpf1\n\0\0"  # 16 bytes, then the SHA-256 of what follows, then the program
_HEADER = len(_MAGIC) + 32
_INSTRUCTION = 8
_MAX_PROGRAM = 4096 * _INSTRUCTION
NEW_LISTENER = 8
_TSYNC_ESRCH = 16
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}


def load_flags(profile: SeccompProfile) -> int:
    """`flags` of an OCI profile as the flags of seccomp(2), for kernel.process.load_filter, with that for a listener
    where a rule needs one. Raises InvalidInput."""
    value = NEW_LISTENER if profile.has_listener else 0
    for name in profile.flags:
        if name not in FLAGS:
            raise InvalidInput(f'seccomp: unknown flag "{name}"')
        value |= FLAGS[name]
    if value & NEW_LISTENER and value & FLAGS["SECCOMP_FILTER_FLAG_TSYNC"]:
        value |= _TSYNC_ESRCH  # both want the result for themselves (Linux 5.7)
    if value & FLAGS["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"] and not value & NEW_LISTENER:
        raise InvalidInput('seccomp: flag "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" needs a rule with SCMP_ACT_NOTIFY')
    return value


def compile_profile(profile: SeccompProfile) -> bytes:
    """The BPF program of an OCI profile; see seccomp_compile."""
    from rootless.runtime.seccomp.seccomp_compile import compile_profile as compiler

    return compiler(profile)


def cached(profile: SeccompProfile, cache_dir: str) -> bytes:
    """The BPF program of an OCI profile, from `<cache_dir>/seccomp/` or compiled and put there.

    The name is a digest of profile, libseccomp, architecture and kernel. A damaged file is made again; a cache that
    cannot be written only costs time.
    """
    return _program(profile, planned_path(profile, cache_dir))


def cached_path(profile: SeccompProfile, cache_dir: str, planned: str | None = None) -> str:
    """As `cached`, but the path of the file, for `read_filter` in another process. Raises OSError when not writable.

    planned: what `planned_path` has said of the profile, for whom has asked already.
    """
    path = planned or planned_path(profile, cache_dir)
    program = _program(profile, path)
    if not is_whole(path):
        _store(path, program)
    return path


def planned_emulation(cache_dir: str) -> RootEmulation:
    """What `emulation` will give; no file is written, and the files need not be there yet. Raises HostLimit."""
    return _cached_emulation(cache_dir) or _compiled_emulation(cache_dir)[0]


def emulation(cache_dir: str) -> RootEmulation:
    """The two filters of an emulated root, which are made when they are not in `<cache_dir>/seccomp/`.

    Raises OSError when the cache cannot be written, HostLimit without libseccomp.
    """
    cached = _cached_emulation(cache_dir)
    if cached is not None:
        return cached
    from rootless.paths import atomic_write

    planned, waiting, plain = _compiled_emulation(cache_dir)
    _store(planned.plain, plain)
    if planned.filter:
        _store(planned.filter, waiting)
        # last: who finds the table finds the filters that it belongs to
        atomic_write(_emulation_paths(cache_dir)[2], json.dumps(planned.calls).encode(), durable=False)
    return planned


def _cached_emulation(cache_dir: str) -> RootEmulation | None:
    """What is in the cache; None where a file is missing or damaged."""
    from rootless.records.fields import Fields
    from rootless.records.launch import RootEmulation

    waiting, plain, table = _emulation_paths(cache_dir)
    try:
        for path in (waiting, plain):
            read_filter(path)
        with open(table, "rb") as f:
            calls = Fields({"calls": json.loads(f.read())}, table).text_mapping("calls")
    except (OSError, InvalidInput, ValueError):
        return None
    return RootEmulation(waiting, plain, calls)


def _compiled_emulation(cache_dir: str) -> tuple[RootEmulation, bytes, bytes]:
    """The emulation as it will be, with the programs of its two filters; the first is empty where no call can wait."""
    from rootless.records.launch import RootEmulation
    from rootless.runtime.seccomp.emulation_filter import compile_filters

    waiting, plain, calls = compile_filters()
    waiting_path, plain_path, _ = _emulation_paths(cache_dir)
    return RootEmulation(waiting_path if waiting else "", plain_path, calls), waiting, plain


def _emulation_paths(cache_dir: str) -> tuple[str, str, str]:
    """Where the filter whose calls wait, the plain one, and the table of what the calls mean are kept."""
    start = f"{cache_dir}/seccomp/{_key({'root': _EMULATION})}"
    return f"{start}-filter.bpf", f"{start}-plain.bpf", f"{start}-calls.json"


def planned_path(profile: SeccompProfile, cache_dir: str) -> str:
    """What `cached_path` will give; the file need not be there yet."""
    return f"{cache_dir}/seccomp/{_key(profile.to_json())}.bpf"


def read_filter(path: str) -> bytes:
    """The program in a file of `cached_path`, verified. Raises InvalidInput when damaged, OSError when absent."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidInput(f'seccomp filter "{path}" is not a regular file')
    with open(fd, "rb") as f:
        content = f.read(_HEADER + _MAX_PROGRAM + 1)
    program = content[_HEADER:]
    if (
        content[: len(_MAGIC)] != _MAGIC
        or not program
        or len(program) % _INSTRUCTION
        or len(program) > _MAX_PROGRAM
        or sha256_of(program) != content[len(_MAGIC) : _HEADER]
    ):
        raise InvalidInput(f'seccomp filter "{path}" is damaged', hint=f"remove it: rm {path}")
    return program


def is_whole(path: str) -> bool:
    """Whether `read_filter` gives the program. Cached files are not synced: a power cut may leave an empty one."""
    try:
        read_filter(path)
    except (OSError, InvalidInput):
        return False
    return True


def require_filter(path: str, *, hint: str) -> bytes:
    """As `read_filter` for a container that is to have it: a file that cannot be read is an error with `hint`, never a
    container without its filter. Raises HostLimit and InvalidInput."""
    try:
        return read_filter(path)
    except OSError as e:
        raise HostLimit(f"cannot read the seccomp filter '{path}': {e.strerror}", hint=hint) from e


def _program(profile: SeccompProfile, path: str) -> bytes:
    try:
        return read_filter(path)
    except (OSError, InvalidInput):
        program = compile_profile(profile)
    try:
        _store(path, program)
    except OSError:
        pass  # read-only or full: compiled again next time
    return program


def _key(content: dict[str, object]) -> str:
    uname = os.uname()
    facts = [_FORMAT, content, _library_identity(uname.machine), uname.machine, uname.release]
    return sha256_of(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hex()[:40]


def _library_identity(machine: str) -> str:
    """The libseccomp file of this host without loading it: real name, size, time; its version where it is elsewhere."""
    for directory in (f"/usr/lib/{machine}-linux-gnu", "/usr/lib64", "/usr/lib", "/lib64", "/lib"):
        path = f"{directory}/libseccomp.so.2"
        try:
            status = os.stat(path)
        except OSError:
            continue
        return f"{os.path.realpath(path)}:{status.st_size}:{status.st_mtime_ns}"
    from rootless.kernel import libseccomp

    try:
        return str(libseccomp.library_version())
    except OSError:
        return ""


def _store(path: str, program: bytes) -> None:
    from rootless.paths import atomic_write, make_private

    make_private(os.path.dirname(path))
    atomic_write(path, _MAGIC + sha256_of(program) + program, durable=False)
