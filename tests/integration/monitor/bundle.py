"""A busybox container made by hand: root filesystem, config.json, launch.json. No engine, no image, no network."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

APPLETS = (
    "sh",
    "cat",
    "echo",
    "true",
    "false",
    "sleep",
    "kill",
    "stty",
    "tty",
    "id",
    "seq",
    "head",
    "tr",
    "ls",
    "ps",
    "yes",
)

_NAMESPACES = ("user", "mount", "pid", "ipc", "uts", "network", "cgroup")
_CAPABILITIES = ["CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_CHOWN", "CAP_DAC_OVERRIDE"]


def busybox() -> str | None:
    """The host's static busybox."""
    path = shutil.which("busybox")
    if path is None:
        return None
    # a program header of type 3 (PT_INTERP) names a dynamic loader, which our root filesystem has not
    image = Path(path).read_bytes()
    offset, size, count = *struct.unpack_from("<Q", image, 32), *struct.unpack_from("<HH", image, 54)
    kinds = [struct.unpack_from("<I", image, offset + size * number)[0] for number in range(count)]
    return None if 3 in kinds else path


def rootfs(path: Path) -> None:
    """A root filesystem with busybox alone."""
    program = busybox()
    assert program is not None
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc"):
        (path / name).mkdir(parents=True)
    shutil.copy(program, path / "bin/busybox")
    for applet in APPLETS:
        (path / "bin" / applet).symlink_to("busybox")
    (path / "bin/text").write_text("not a program\n")


def config(args: tuple[str, ...], *, terminal: bool) -> dict[str, Any]:
    """An OCI configuration much as the engine writes it."""
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    ]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": ["PATH=/bin", "HOME=/"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "hostname": "box",
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in _NAMESPACES]},
    }


def container(root: Path, *args: str, **launch: Any) -> str:
    """A container directory whose command is `args`; its launch.json takes `launch` over the defaults."""
    from rootless.host.subid import default_id_map

    directory = root / "containers" / "c0ffee"
    if not directory.exists():
        directory.mkdir(parents=True)
        (root / "trash").mkdir(exist_ok=True)
        rootfs(directory / "rootfs")
    terminal = bool(launch.get("terminal"))
    (directory / "config.json").write_text(json.dumps(config(args, terminal=terminal)))
    settings: dict[str, Any] = {
        "id": "c0ffee",
        "name": "test",
        "bundle": str(directory),
        "rootfs": None,
        "id_map": default_id_map().to_json(),
        "network": {"mode": "none"},
        "log": {"driver": "json-file", "path": str(directory / "log"), "max_size": 0, "max_file": 1},
        "stop_timeout": 2,
        "runtime_dir": str(root / "run"),
    }
    settings.update(launch)
    (directory / "launch.json").write_text(json.dumps(settings))
    return str(directory)


if __name__ == "__main__":  # by hand: python -m tests.integration.monitor.bundle DIRECTORY ARGS...
    os.umask(0o022)
    print(container(Path(sys.argv[1]), *sys.argv[2:]))
