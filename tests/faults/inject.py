"""Failing system calls: strace lets the nth call of a kind fail, with ENOSPC, EIO, EINTR and the like.

Only the command itself is traced: strace takes from setuid programs, newuidmap for one, what they are installed for,
and it would stay for as long as a monitor lives.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess

from tests.faults.campaign import Campaign, Trial
from tests.faults.operations import Operations
from tests.faults.scene import Broken, Done, Scene

_MAKE = "write,pwrite64,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,ftruncate,fallocate"
_SYNC = "fsync,fdatasync,syncfs"
_INJECTIONS = (
    ("ENOSPC", _MAKE),
    ("ENOSPC", f"{_MAKE},{_SYNC}"),
    ("EDQUOT", _MAKE),
    ("EIO", f"write,pwrite64,pread64,{_SYNC}"),
    ("EIO", "unlink,unlinkat,rmdir,rename,renameat,renameat2"),
    ("EIO", _SYNC),
    ("EINTR", "write,read,poll,ppoll,select,pselect6,epoll_wait,wait4,waitid,flock,connect,accept4,sendto,recvfrom"),
    ("EMFILE", "socket,socketpair,pipe2,accept4,dup,dup3,epoll_create1,pidfd_open,memfd_create"),
    ("EAGAIN", "clone,clone3,fork,vfork"),
    ("ENOMEM", "clone,clone3,fork,vfork"),
    ("EPERM", "chmod,fchmod,fchmodat,fchown,fchownat,utimensat,setxattr,fsetxattr,kill,pidfd_send_signal"),
    ("ECONNRESET", "sendto,recvfrom,sendmsg,recvmsg,connect"),
)  # fmt: skip
_DURABLE = {"create", "run_detached", "run_kept", "rename", "update", "tag", "volume_create"}
"""Operations that promise to be on the disk; where a sync of theirs failed, they may not say that they are done."""
_MOST = 60


class Injections(Campaign):
    """A command whose calls fail says so in a line, or does its work; nothing that was there before is lost."""

    name = "inject"

    def why_not(self) -> str:
        """strace is needed, and ptrace."""
        if shutil.which("strace") is None:
            return "no strace on this host (apt-get install strace)"
        tried = subprocess.run(
            ["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False
        )
        return f"strace does not work here: {tried.stderr.strip()}" if tried.returncode else ""

    def trials(self, scene: Scene, rng: random.Random) -> Trial:
        """Trials with one store, which is cleared at the end."""
        operations = Operations(scene)
        log = scene.files / "strace.log"
        for number in range(1, _MOST + 1):
            name, operation = operations.pick(rng)
            error, calls = rng.choice(_INJECTIONS)
            at = int(2 ** (rng.random() * 5))
            when = f"{at}+" if error in ("ENOSPC", "EDQUOT", "EMFILE") and rng.random() < 0.5 else str(at)
            inject = f"inject={calls}:error={error}:when={when}"
            prefix = ["strace", "-qq", "-o", str(log), "-e", f"trace={calls}", "-e", inject, "-e", "signal=none"]
            self.says(f"{' '.join(operation.words)} · {inject}")
            done = scene.run(operation, prefix)
            injected = [line for line in log.read_text(errors="replace").splitlines() if "(INJECTED)" in line]
            self.count(f"{error}", "failed in a call" if injected else "not reached")
            self._judge(name, done, injected)
            scene.done(operation, done)
            if number % 10:
                scene.look()
            else:
                scene.look_deeper()
            yield
        scene.clear()

    def _judge(self, name: str, done: Done, injected: list[str]) -> None:
        hits = "\n".join(injected[:5])
        if done.code < 0:
            raise Broken(f"ended by a signal: {done}\n{hits}")
        if done.code and not injected:
            raise Broken(str(done))
        if done.code and not done.stderr.strip() and not any(re.search(r"write\(2,", line) for line in injected):
            raise Broken(f"it failed and says nothing: {done}\n{hits}")
        synced = [line for line in injected if re.search(r"(fsync|fdatasync|syncfs)\(.* (EIO|ENOSPC)", line)]
        if synced and not done.code and name in _DURABLE:
            raise Broken(f"it says that it is done, and what it wrote is not on the disk: {done}\n{hits}")
