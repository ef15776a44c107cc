"""Answers chown and mknod in place of the kernel where a container has one id only, and notes what they asked for.

It is a process of its own: inside of the container's user and mount namespace, with no more rights than root of the
container, and outside of its pid namespace, where nobody inside can see or trace it. A call waits while this process
does what can be done. The kernel never carries out a call that is answered here, so a caller that changes the path in
its memory after it was read here changes nothing but its own result. Which calls come here, the filter decides.
"""

from __future__ import annotations

import errno
import os
import select
import stat

from rootless.kernel import seccomp_notify
from rootless.kernel.files import RESOLVE_NO_MAGICLINKS, open_in_root, openat2
from rootless.storage.owners import overrides
from rootless.storage.owners.overrides import Override

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.kernel.seccomp_notify import Notice
    from rootless.records.launch import RootEmulation
    from rootless.records.rootfs import RootfsPlan

_AT_FDCWD = -100
_NOFOLLOW = 0x100  # AT_SYMLINK_NOFOLLOW
_EMPTY_PATH = 0x1000  # AT_EMPTY_PATH
_CAP_CHOWN, _CAP_MKNOD = 0, 27
_UNCHANGED = 0xFFFFFFFF
_PATH_MAX = 4096
_REFUSED = (errno.EPERM, errno.EACCES, errno.ENOTSUP)
# /proc/self and /dev/stdout lead to the process that looks them up: this one's streams, in place of the caller's
_OWN = (b"/proc/", b"/dev/")


class EmulationSupervisor:
    """Answers the calls of one container. It is made outside of the container, and `serve` is called inside.

    directory: the container's, with the table of owners; upper: the writable directory of its root file system;
    calls: the name of the call by `"ARCH:NUMBER"`: chown, lchown, fchown, fchownat, mknod, mknodat, rename, renameat or
    renameat2, with "16" at the end where ids have 16 bits. Raises OSError.
    """

    __slots__ = ("_calls", "_log", "_mount", "_proc", "_root", "_table", "_upper", "_users")

    def __init__(self, directory: str, upper: str, calls: dict[str, str]) -> None:
        self._calls = calls
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._upper = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._log = overrides.append_to(directory)
        self._table = overrides.open_table(directory)
        self._root = -1
        self._mount = -1
        self._users = -1

    def fds(self) -> tuple[int, ...]:
        """The descriptors that have to stay open until `serve`."""
        return self._proc, self._upper, self._log

    def close(self) -> None:
        """Close the descriptors, in the process that has made this object and does not serve."""
        for fd in self.fds():
            os.close(fd)

    def serve(self, listener: int, root: int) -> None:
        """Answer calls until no process with the filter is left. root: O_PATH fd of the container's root directory."""
        self._root = root
        self._go_home()
        self._mount = self._mount_of(root)
        self._users = os.stat("self/ns/user", dir_fd=self._proc).st_ino
        os.umask(0)
        poller = select.poll()
        poller.register(listener, select.POLLIN)
        while True:
            for _, events in poller.poll():
                if not events & select.POLLIN:
                    return
                notice = seccomp_notify.receive_notice(listener)
                if notice is not None:
                    self._answer(listener, notice)

    def _answer(self, listener: int, notice: Notice) -> None:
        if self._calls[f"{notice.arch}:{notice.nr}"].startswith("rename"):
            self._before_rename(listener, notice)
            seccomp_notify.let_proceed(listener, notice.id)
            return
        error = 0
        mine = True
        try:
            process = os.open(str(notice.pid), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._proc)
            try:
                # The caller may have ended, and its pid may be another process's. While the call still waits, the
                # caller has not ended, so the directory that was opened before is the caller's (seccomp_unotify(2)).
                if seccomp_notify.is_waiting(listener, notice.id):
                    mine = self._act(process, notice)
            finally:
                os.close(process)
        except OSError as e:
            error = e.errno or errno.EIO
        except (ValueError, OverflowError):
            error = errno.EINVAL
        if mine:
            seccomp_notify.answer_call(listener, notice.id, error)
        else:
            seccomp_notify.let_proceed(listener, notice.id)

    def _act(self, process: int, notice: Notice) -> bool:
        """Carry out one call; False where the caller lacks the right to it, so that the kernel is to refuse it."""
        call = self._calls[f"{notice.arch}:{notice.nr}"]
        narrow = call.endswith("16")
        name = call.removesuffix("16")
        args = [argument & 0xFFFFFFFF for argument in notice.args]
        capabilities, mask = self._rights(process)
        if not capabilities >> (_CAP_MKNOD if name.startswith("mknod") else _CAP_CHOWN) & 1:
            return False
        if name.startswith("mknod"):
            at = 1 if name == "mknodat" else 0
            base = _signed(args[0]) if at else _AT_FDCWD
            mode = args[at + 1] & (~mask | stat.S_IFMT(0o777777))
            self._mknod(process, base, _text(process, notice.args[at]), mode, args[at + 2])
            return True
        follow = name == "chown"
        if name == "fchown":
            target = os.open(f"fd/{_signed(args[0])}", os.O_PATH | os.O_CLOEXEC, dir_fd=process)
            uid, gid = args[1], args[2]
        else:
            base, pointer, flags = _AT_FDCWD, 0, 0
            if name == "fchownat":
                base, pointer, flags = _signed(args[0]), 1, args[4]
                follow = not flags & _NOFOLLOW
            uid, gid = args[pointer + 1], args[pointer + 2]
            path = _text(process, notice.args[pointer])
            if not path and flags & _EMPTY_PATH:
                where = "cwd" if base == _AT_FDCWD else f"fd/{base}"
                target = os.open(where, os.O_PATH | os.O_CLOEXEC, dir_fd=process)
            else:
                try:
                    target = self._open(process, base, path, 0 if follow else os.O_NOFOLLOW)
                except OSError as e:
                    if e.errno in (errno.ENOENT, errno.ELOOP) and path.startswith(_OWN):
                        return True  # the caller means its own streams: there is nothing to note, and it succeeds
                    raise
        try:
            self._chown(target, _id(uid, narrow), _id(gid, narrow))
        finally:
            os.close(target)
        return True

    def _rights(self, process: int) -> tuple[int, int]:
        """(effective capabilities in the container's user namespace, umask) of the caller.

        This process acts with its own rights: without the check a caller that has given up CAP_CHOWN or CAP_MKNOD would
        get them back by asking here. A caller in a user namespace of its own has none in the container's.
        """
        if os.stat("ns/user", dir_fd=process).st_ino != self._users:
            return 0, 0
        capabilities = mask = 0
        with open(os.open("status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process), "rb", buffering=0) as f:
            for text in f.read(8192).splitlines():
                if text.startswith(b"CapEff:"):
                    capabilities = int(text[7:], 16)
                elif text.startswith(b"Umask:"):
                    mask = int(text[6:], 8)
        return capabilities, mask

    def _before_rename(self, listener: int, notice: Notice) -> None:
        """Give the noted owner of the file that a rename replaces to the file that replaces it, if that has none.

        Editors write a new file, give it the old one's owner and rename it. stat has told them the old file's real
        owner, not the noted one, so that the noted owner would be lost.
        """
        name = self._calls[f"{notice.arch}:{notice.nr}"]
        at = name != "rename"
        if name == "renameat2" and notice.args[4] & 0xFFFFFFFF:
            return  # RENAME_NOREPLACE replaces nothing, RENAME_EXCHANGE keeps both
        opened: list[int] = []
        try:
            process = os.open(str(notice.pid), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._proc)
            opened.append(process)
            if not seccomp_notify.is_waiting(listener, notice.id):
                return
            for first in (2, 0) if at else (1, 0):
                base = _signed(notice.args[first] & 0xFFFFFFFF) if at else _AT_FDCWD
                path = _text(process, notice.args[first + at])
                opened.append(self._open(process, base, path, os.O_NOFOLLOW))
                status = os.fstat(opened[-1])
                if not stat.S_ISREG(status.st_mode) or self._mount_of(opened[-1]) != self._mount:
                    return
                noted = self._noted(opened[-1], status)
                if len(opened) == 2:
                    if noted is None or noted.is_device:
                        return
                    replaced = noted
                elif noted is None and self._rights(process)[0] >> _CAP_CHOWN & 1:
                    self._note_on(
                        opened[-1], Override(replaced.uid, replaced.gid, stat.S_IMODE(status.st_mode), stat.S_IFREG)
                    )
        except (OSError, ValueError, OverflowError):
            pass  # the kernel will say what is wrong with the rename
        finally:
            for fd in opened:
                os.close(fd)

    def _open(self, process: int, base: int, path: bytes, flags: int) -> int:
        """O_PATH fd of what the caller means by `path`, looked up from the caller's root and directory.

        For the look-up this process makes the caller's root its own, so that no link leads out of it, and goes back
        afterwards. It has one thread only: another thread would share the root meanwhile.
        """
        if not path:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        opened = [os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=process)]
        try:
            os.fchdir(opened[0])
            os.chroot(".")
            if not path.startswith(b"/"):
                where = "cwd" if base == _AT_FDCWD else f"fd/{base}"
                opened.append(os.open(where, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=process))
                os.fchdir(opened[1])
            flags |= os.O_PATH | os.O_CLOEXEC
            try:
                # Links in /proc/PID (root, cwd, exe, fd) jump out of any root, to what the caller cannot reach itself
                return openat2(_AT_FDCWD, os.fsdecode(path), flags, resolve=RESOLVE_NO_MAGICLINKS)
            except OSError as e:
                if e.errno != errno.ENOSYS:
                    raise
                return os.open(path, flags)
        finally:
            for fd in opened:
                os.close(fd)
            self._go_home()

    def _go_home(self) -> None:
        os.fchdir(self._root)
        os.chroot(".")

    def _mount_of(self, fd: int) -> int:
        """The id of the mount on which an open file lies (proc(5), fdinfo), -1 where the kernel does not say it."""
        info = os.open(f"self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)
        try:
            for text in os.read(info, 4096).splitlines():
                if text.startswith(b"mnt_id:"):
                    return int(text[7:])
        finally:
            os.close(info)
        return -1

    def _in_upper(self, fd: int) -> int | None:
        """O_PATH fd of the same file in the driver's writable directory; None if deleted or on another mount."""
        if self._mount_of(fd) != self._mount:
            return None
        path = os.readlink(f"self/fd/{fd}", dir_fd=self._proc)
        try:
            return open_in_root(self._upper, path, os.O_PATH | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _reopen(self, fd: int) -> int:
        """Readable fd of a regular file or directory held by O_PATH."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(f"self/fd/{fd}", flags, dir_fd=self._proc)

    def _chown(self, fd: int, uid: int, gid: int) -> None:
        """Change the owner of an open file, and note the owner that the kernel does not accept."""
        before = os.fstat(fd)
        if self._mount_of(fd) != self._mount:
            self._chown_elsewhere(fd, uid, gid)
            return
        noted = self._noted(fd, before)
        try:
            os.chown(f"self/fd/{fd}", uid, gid, dir_fd=self._proc)
        except OSError as e:
            if e.errno not in (errno.EINVAL, errno.EPERM):
                raise
            # A chown to -1:-1 changes no owner and is allowed. It does the rest of what the refused one would have
            # done: overlayfs copies the file up out of its layer, so that an owner can be noted on the copy, and the
            # kernel clears set-id bits and file capabilities.
            os.chown(f"self/fd/{fd}", -1, -1, dir_fd=self._proc)
        after = os.fstat(fd)
        format = stat.S_IFMT(after.st_mode)
        mode = stat.S_IMODE(after.st_mode)
        device = (0, 0)
        if noted is not None:
            kept = noted.mode_now(before.st_mode)
            mode = mode if format != stat.S_IFDIR and before.st_mode != after.st_mode else kept
            if format == stat.S_IFREG and mode & 0o111:
                mode &= ~(stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0))
            if noted.is_device:
                format, device = noted.format, noted.device
        owner = noted if noted is not None else Override(before.st_uid, before.st_gid, 0)
        wanted = Override(owner.uid if uid < 0 else uid, owner.gid if gid < 0 else gid, mode, format, device)
        plain = (
            not wanted.is_device
            and (wanted.uid, wanted.gid) == (after.st_uid, after.st_gid)
            and mode == stat.S_IMODE(after.st_mode)
        )
        if not plain or noted is not None:
            self._note(fd, after, None if plain else wanted)

    def _chown_elsewhere(self, fd: int, uid: int, gid: int) -> None:
        """Change the owner where that is allowed: of a file of a volume or of the host, or of a pipe. Nothing is noted,
        since no layer will hold the file, and the user's own files are to get no attributes of this tool."""
        try:
            os.chown(f"self/fd/{fd}", uid, gid, dir_fd=self._proc)
        except OSError as e:
            if e.errno not in (errno.EINVAL, errno.EPERM):
                raise

    def _noted(self, fd: int, status: os.stat_result) -> Override | None:
        if stat.S_IFMT(status.st_mode) in (stat.S_IFREG, stat.S_IFDIR):
            file = self._reopen(fd)
            try:
                override = overrides.read_override(file)
            finally:
                os.close(file)
            if override is None and (upper := self._in_upper(fd)) is not None:
                try:
                    override = self._read_upper(upper)
                finally:
                    os.close(upper)
            return override if override is not None and override.applies_to(status) else None
        if not len(self._table):
            return None
        upper = self._in_upper(fd)
        if upper is None:
            return None
        try:
            return self._table.find(b"", os.fstat(upper), _target(upper, status))
        finally:
            os.close(upper)

    def _read_upper(self, upper: int) -> Override | None:
        """What is noted on the file in the driver's writable directory: fuse-overlayfs hides it in its mount."""
        file = self._reopen(upper)
        try:
            return overrides.read_override(file)
        finally:
            os.close(file)

    def _note(self, fd: int, status: os.stat_result, override: Override | None) -> None:
        if stat.S_IFMT(status.st_mode) in (stat.S_IFREG, stat.S_IFDIR):
            self._note_on(fd, override)
            return
        upper = self._in_upper(fd)
        if upper is None:
            return  # it lies on a volume or another mount, which no layer will hold
        try:
            line = overrides.table_line(os.fstat(upper).st_ino, override, _target(upper, status))
        finally:
            os.close(upper)
        os.write(self._log, line)
        self._table.add(line)

    def _note_on(self, fd: int, override: Override | None) -> None:
        file = self._reopen(fd)
        try:
            overrides.write_override(file, override)
        except OSError as e:
            if e.errno not in _REFUSED:
                raise
            upper = self._in_upper(fd)
            if upper is None:
                return  # a mount without such attributes: the call succeeds, and nothing is noted
            try:
                below = self._reopen(upper)
            finally:
                os.close(upper)
            try:
                overrides.write_override(below, override)
            finally:
                os.close(below)
        finally:
            os.close(file)

    def _mknod(self, process: int, base: int, path: bytes, mode: int, device: int) -> None:
        """Make a placeholder for a device in the container's root file system. Raises OSError EPERM on another mount.

        There no layer would hold the device, and the placeholder would stay in the user's own directory or volume as an
        empty file. A character device 0:0 is overlayfs' mark of a deleted name, which no container may plant.
        """
        format = stat.S_IFMT(mode)
        if format == stat.S_IFCHR and device == 0:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        parent, slash, name = path.rpartition(b"/")
        if name in (b"", b".", b".."):
            raise OSError(errno.EEXIST if path else errno.ENOENT, "")
        directory = self._open(process, base, parent + slash or b".", os.O_DIRECTORY)
        try:
            if self._mount_of(directory) != self._mount:
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            wanted = Override(0, 0, mode & 0o7777, format, (os.major(device), os.minor(device)))
            flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            made = os.open(name, flags, overrides.on_disk(wanted.mode, format), dir_fd=directory)
            try:
                self._note_on(made, wanted)
            except OSError:
                os.unlink(name, dir_fd=directory)
                raise
            finally:
                os.close(made)
        finally:
            os.close(directory)


def make_supervisor(
    rootfs: RootfsPlan | None, asked: RootEmulation | None, directory: str
) -> EmulationSupervisor | None:
    """The supervisor of a container; None where root is not emulated. rootfs, asked: from its launch.json; directory:
    the container's. Raises OSError."""
    if asked is None or rootfs is None:
        return None
    return EmulationSupervisor(directory, rootfs.upper, asked.calls)


def _text(process: int, address: int) -> bytes:
    """The path, ending in NUL, at `address` of the caller's memory. Raises OSError EFAULT, ENAMETOOLONG."""
    memory = os.open("mem", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    try:
        # One page at a time: the path may end in the last mapped page, and a read beyond that page would fail
        found = b""
        while len(found) < _PATH_MAX:
            piece = os.pread(memory, 4096 - (address & 4095), address)
            end = piece.find(b"\0")
            if end >= 0:
                return found + piece[:end]
            if not piece:
                raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
            found += piece
            address += len(piece)
    except (OverflowError, OSError) as e:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT)) from e
    finally:
        os.close(memory)
    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def _target(fd: int, status: os.stat_result) -> bytes:
    return os.readlink(b"", dir_fd=fd) if stat.S_ISLNK(status.st_mode) else b""


def _signed(number: int) -> int:
    return number - (1 << 32) if number & 0x80000000 else number


def _id(number: int, narrow: bool) -> int:
    """The id in an argument of chown; -1 when it says that the id is not to be changed. narrow: it has 16 bits."""
    if narrow:
        number &= 0xFFFF
        return -1 if number == 0xFFFF else number
    return -1 if number == _UNCHANGED else number
