"""What rootless-oci tells: containers, their processes, its own features. It changes nothing."""

from __future__ import annotations

import os

from rootless.errors import HostLimit, UsageError
from rootless.kernel import procfs
from rootless.runtime import SPECIFICATION_VERSION, mount_options
from rootless.runtime.oci.life_verbs import processes
from rootless.runtime.oci.oci_records import OciRecord, Records
from rootless.runtime.process.command import DEFAULT_PATH
from rootless.runtime.spec.oci_config import MEMORY_FLAGS, MEMORY_MODES, NAMESPACES, STAGES
from rootless.runtime.spec.process_config import apparmor_is_on, selinux_is_on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.runtime.spec.oci_state import OciState

_ACTIONS = (
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
)
_OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")


def states(records: Records) -> list[OciState]:
    """The states of all containers, by id."""
    return [record.oci_state() for record in records.all()]


def table(listed: list[OciState]) -> str:
    """The containers as a table."""
    lines = [("ID", "PID", "STATUS", "BUNDLE", "CREATED")]
    lines += [(state.id, str(state.pid), state.status, state.bundle, state.created) for state in listed]
    return aligned(lines)


def aligned(lines: Sequence[tuple[str, ...]]) -> str:
    """Columns padded to their widest cell."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def process_ids(record: OciRecord) -> list[int]:
    """Pids of a container, as we see them; of a stopped one there are none."""
    return processes(record)


def process_table(pids: list[int], options: list[str]) -> str:
    """The processes, as the host's `ps` with `options` (`-ef` without any) shows them, as with runc.

    Nothing of the image runs for that (CVE-2022-1227). Where the host has no `ps`, the usual columns are read from
    /proc. Raises HostLimit for `options` there, and UsageError for options without a column PID.
    """
    import shutil
    import subprocess

    program = shutil.which("ps", path=DEFAULT_PATH)
    if program is None:
        if options:
            raise HostLimit("options of ps(1) need the host's `ps`, which it does not have")
        return _own_table(pids)
    done = subprocess.run(
        [program, *(options or ["-ef"])], capture_output=True, text=True, errors="replace", check=False
    )
    head, *lines = done.stdout.splitlines() or [""]
    if done.returncode != 0 or "PID" not in head.split():
        said = done.stderr.strip().partition("\n")[0] or "its output has no column PID"
        raise UsageError(f"cannot list processes with `ps {' '.join(options or ['-ef'])}`: {said}")
    column, wanted = head.split().index("PID"), set(map(str, pids))
    return "\n".join([head, *(line for line in lines if wanted.intersection(line.split()[column : column + 1]))])


def _own_table(pids: list[int]) -> str:
    lines = [("UID", "PID", "PPID", "CMD")]
    for pid in pids:
        try:
            status = procfs.read_stat(pid)
            uid = procfs.status_field(pid, "Uid").split()[1]
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read(4096).replace(b"\0", b" ").decode(errors="replace").strip()
        except (OSError, KeyError):
            continue  # it ended meanwhile
        lines.append((uid, str(pid), str(status.parent), command or f"[{status.command}]"))
    return aligned(lines)


def features() -> dict[str, object]:
    """The features structure (features.md, features-linux.md)."""
    from rootless.runtime.capabilities import NAMES
    from rootless.runtime.seccomp.filter_cache import FLAGS as SECCOMP_FLAGS

    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPECIFICATION_VERSION,
        "hooks": list(STAGES),
        "mountOptions": mount_options.KNOWN,
        "linux": {
            "namespaces": sorted(NAMESPACES),
            "capabilities": list(NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": True, "rdma": True},
            "seccomp": {
                "enabled": os.path.exists("/proc/sys/kernel/seccomp"),
                "actions": list(_ACTIONS),
                "operators": [f"SCMP_CMP_{name}" for name in _OPERATORS],
                "knownFlags": list(SECCOMP_FLAGS),
                "supportedFlags": list(SECCOMP_FLAGS),
            },
            "apparmor": {"enabled": apparmor_is_on()},
            "selinux": {"enabled": selinux_is_on()},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
            "memoryPolicy": {"modes": list(MEMORY_MODES), "flags": list(MEMORY_FLAGS)},
        },
        "annotations": {"org.opencontainers.runc.checkpoint.enabled": "false"},
        "potentiallyUnsafeConfigAnnotations": ["run.oci.keep_original_groups"],
    }
