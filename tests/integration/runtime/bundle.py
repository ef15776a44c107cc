"""Real bundles made of the host's static busybox, and rootless-oci run on them as this user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from rootless.host.subid import default_id_map
from rootless.runtime.oci.template import default_config
from tests.conftest import oci_command_path

BUSYBOX = Path("/bin/busybox")
APPLETS = (
    "sh", "true", "false", "ls", "cat", "id", "mount", "ps", "env", "echo", "sleep", "tty", "stat", "touch", "grep",
    "mkdir", "ln", "rm", "pwd", "kill", "hostname", "readlink", "stty", "head", "wc", "test", "chmod", "sed", "od",
    "dd", "umask", "mknod", "cp", "find", "seq", "nproc", "umount", "printf", "sort", "tail", "xargs", "usleep",
)  # fmt: skip


def make_root(root: Path) -> Path:
    """A root file system with busybox."""
    for name in ("bin", "etc", "tmp", "root"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    return root


def configuration() -> dict[str, Any]:
    """The configuration of `rootless-oci spec` with a writable root, no terminal and all ids that this user has."""
    config = default_config(os.geteuid(), os.getegid())
    config["process"]["terminal"] = False
    config["root"]["readonly"] = False
    ids = default_id_map()
    for key, extents in (("uidMappings", ids.uids), ("gidMappings", ids.gids)):
        config["linux"][key] = [{"containerID": e.container, "hostID": e.host, "size": e.size} for e in extents]
    return config


class Bundle:
    """One bundle directory with its records' root. `config` is written before each run."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "bundle"
        self.path.mkdir()
        self.root = make_root(self.path / "rootfs")
        self.records = directory / "records"
        self.config = configuration()
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(directory / "cache")}

    def oci(
        self,
        *words: str,
        check: bool = True,
        env: dict[str, str] | None = None,
        pass_fds: tuple[int, ...] = (),
        input: str = "",
        timeout: float = 60,
        flags: tuple[str, ...] = (),
        text: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run `rootless-oci WORDS...`."""
        done = subprocess.run(
            [*oci_command_path(), "--root", str(self.records), *flags, *words],
            cwd=self.path,
            capture_output=True,
            text=text,
            input=input,
            env={**self.environment, **(env or {})},
            pass_fds=pass_fds,
            timeout=timeout,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def save(self) -> None:
        """Write config.json."""
        (self.path / "config.json").write_text(json.dumps(self.config))

    def run(self, *arguments: str, check: bool = True, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in a new container; its output and exit status."""
        self.config["process"]["args"] = list(arguments)
        self.save()
        return self.oci("run", *settings.pop("options", ()), "c", check=check, **settings)

    def sh(self, script: str, check: bool = True, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run a shell script in a new container."""
        return self.run("sh", "-c", script, check=check, **settings)

    def up(self, script: str = "sleep 60") -> dict[str, Any]:
        """Create and start a container `c` in the background; its state."""
        self.config["process"]["args"] = ["sh", "-c", script]
        self.save()
        with (self.path / "out").open("wb") as out:
            for verb in ("create", "start"):
                done = subprocess.run(
                    [*oci_command_path(), "--root", str(self.records), verb, "c"],
                    cwd=self.path,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=self.environment,
                    timeout=60,
                )
                assert done.returncode == 0, (self.path / "out").read_text()
        state: dict[str, Any] = json.loads(self.oci("state", "c").stdout)
        return state

    def mount(self, source: Path | str, destination: str, *options: str) -> None:
        """Add a bind mount."""
        self.config["mounts"].append(
            {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", *options]}
        )

    def close(self) -> None:
        """Delete what a test left running."""
        self.oci("delete", "--force", "c", check=False)
