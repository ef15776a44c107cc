"""How this interpreter is started: the command line of a fresh, isolated one, and what keeps its file unharmed.

CVE-2019-5736: inside a container `/proc/self/exe`, as a command, a script's interpreter or an ELF interpreter, names
the file that our process was executed from, and a process that lives on there can write to it once nobody executes it
any more. A distribution's Python belongs to root, which no container is. One in the user's home (conda, pyenv, uv, a
venv of copies) belongs to the container's root. That one is never executed where a container could see it: the kernel
executes the C library's loader, which is root's, and the loader maps Python as it maps a library. /proc leads to mapped
files (map_files) only with a capability of the host's root.
"""

from __future__ import annotations

import os
import sys

_BOOT = "import sys;sys.path+=sys.argv.pop(1).split(':');from {} import main;sys.exit(main())"
_SELF = "/proc/self/exe"
_OVERFLOW_ID = 65534  # the owner of a file of the host's root, seen from a user namespace that has no such id
_MFD_EXEC = 0x10
_CHUNK = 1 << 24
_ARGV0_SINCE = (2, 33)  # glibc's loader has --argv0
_PT_INTERP = 3
_MOST_HEADERS = 128  # program headers of an ELF file that are looked at; usual are 13

_copies: dict[str, str] = {}  # path of a loader: path of this process's sealed copy


def worker_command(module: str, *args: str, site_packages: bool = False) -> list[str]:
    """The argv of a fresh interpreter that runs `main()` of `module`, which finds `args` in sys.argv[1:].

    Isolated (-I: no PYTHON* variables, no current directory; -S: no site, no .pth files), so that nothing of a hostile
    directory or environment is imported. The package's own parent directory goes behind the standard library;
    site_packages: the directories of installed packages too. Everybody can read argv: pass secrets by fd.

    A worker that ends with its caller is started in a process group of its own (posix_spawn's setpgroup=0): Ctrl-C goes
    to the whole foreground group of the terminal, and Python that is interrupted while it imports prints a traceback.
    The caller alone hears the signal, and ends its workers.
    """
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = [here]
    if site_packages:
        paths += [p for p in sys.path if os.path.basename(p) in ("site-packages", "dist-packages") and p != here]
    return [*_program(), "-I", "-S", "-c", _BOOT.format(module), ":".join(paths), *args]


def is_out_of_reach(path: str) -> bool:
    """Whether no container of this user can write to the file at `path`: it belongs to the host's root, which we are
    not, or is not there. Who owns a file that he may not write to can allow it to himself."""
    try:
        status = os.stat(path)
    except OSError:
        return True
    return status.st_uid in (0, _OVERFLOW_ID) and status.st_uid != os.geteuid() and not os.access(path, os.W_OK)


def _program() -> list[str]:
    """The words that start this interpreter and put nothing into a container's reach.

    A Python without a loader is started as it is: a static one cannot load the C library that the kernel room calls.
    """
    if is_out_of_reach(sys.executable):
        return [sys.executable]
    program = os.path.realpath(sys.executable)
    loader = _loader(program)
    return [program] if loader is None else [loader, program]


def restart_by_loader() -> None:
    """Start this process again by the loader where a container could write to the file that it was executed from.

    For a process that itself forks what enters a container. Returns where there is nothing to do.
    """
    try:
        if is_out_of_reach(_SELF) or os.readlink(_SELF).startswith("/memfd:"):
            return
    except OSError:
        return  # no /proc: the start of a container will say so
    loader = _loader(_SELF)
    if loader is not None:
        os.execv(loader, [*_restart_words(loader, sys.executable), *sys.orig_argv[1:]])  # noqa: S606 - no shell


def _restart_words(loader: str, executable: str) -> list[str]:
    """The words that start `executable` and let it see the name it has: beside that name a venv has pyvenv.cfg."""
    program = os.path.realpath(executable)
    if program == os.path.abspath(executable):
        return [loader, program]
    if _glibc_version() >= _ARGV0_SINCE:
        return [loader, "--argv0", executable, program]
    # A loader without --argv0 takes $ORIGIN for the directory of the link, where no libpython is
    library = os.path.join(os.path.dirname(os.path.dirname(program)), "lib")
    given = os.environ.get("LD_LIBRARY_PATH")
    return [loader, "--library-path", f"{library}:{given}" if given else library, executable]


def _glibc_version() -> tuple[int, ...]:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return tuple(map(int, version.split(".")[:2])) if name == "glibc" else ()
    except (OSError, ValueError):
        return ()  # this is another C library, which has no such version


def _loader(program: str) -> str | None:
    """The loader of the ELF file `program`, at a path where no container can write to it; None when it needs none.

    Where the loader is the user's too (a C library below his home), this is a sealed copy in memory, a quarter of a
    megabyte, which is there as long as this process is.
    """
    fd = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
    try:
        loader = program_interpreter(fd)
    finally:
        os.close(fd)
    if loader is None or is_out_of_reach(loader):
        return loader
    if loader not in _copies:
        _copies[loader] = f"/proc/{os.getpid()}/fd/{_sealed_copy(loader)}"
    return _copies[loader]


def _sealed_copy(path: str) -> int:
    """A memfd with the content of `path`, which nobody can change any more."""
    import errno
    import fcntl

    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        copy = os.memfd_create("rootless-loader", flags | _MFD_EXEC)
    except OSError as e:
        if e.errno != errno.EINVAL:  # Linux before 6.3 has no MFD_EXEC, and makes all of them executable
            raise
        copy = os.memfd_create("rootless-loader", flags)
    with open(path, "rb") as origin:
        while os.sendfile(copy, origin.fileno(), None, _CHUNK):
            pass
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, seals)
    return copy


def program_interpreter(fd: int) -> str | None:
    """The file that execve(2) starts for the program `fd`: what a script names after `#!`, or PT_INTERP of an ELF file.

    None where it names none, or is no program. Of 64 and 32 bits, in this machine's byte order.
    """
    head = os.pread(fd, 512, 0)
    if head[:2] == b"#!":
        words = head[2:256].split(b"\n")[0].split()
        return os.fsdecode(words[0]) if words else None
    if len(head) < 64 or head[:4] != b"\x7fELF":
        return None

    def number(data: bytes, at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], sys.byteorder)

    # The numbers are the word size, the places of e_phoff, e_phentsize and e_phnum in the file's header, and those of
    # p_offset and p_filesz in a program header (elf(5))
    word, table, step, count, offset, length = (8, 32, 54, 56, 8, 32) if head[4] == 2 else (4, 28, 42, 44, 4, 16)
    size = number(head, step, 2)
    try:
        headers = os.pread(fd, size * min(number(head, count, 2), _MOST_HEADERS), number(head, table, word))
        for at in range(0, len(headers), size):
            if number(headers, at, 4) == _PT_INTERP:
                name = os.pread(fd, min(number(headers, at + length, word), 4096), number(headers, at + offset, word))
                return os.fsdecode(name.split(b"\0")[0])
    except (OSError, OverflowError, ValueError):
        pass  # no program: execve will say so
    return None
