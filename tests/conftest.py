"""What every test shares: a private store, the real command run as this user, and skips that say why."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
Runner = Callable[..., "subprocess.CompletedProcess[str]"]


def require(condition: object, reason: str) -> None:
    """Skip the test unless `condition`; with REQUIRE=1 (CI) a skip is a failure.

    REQUIRE_EXCEPT is a regular expression: reasons that come from who runs the suite, not from what is missing.
    """
    if condition:
        return
    exempt = os.environ.get("REQUIRE_EXCEPT")
    if os.environ.get("REQUIRE") == "1" and not (exempt and re.search(exempt, reason)):
        pytest.fail(f"the host lacks what CI must have: {reason}")
    pytest.skip(reason)


def owns_range() -> bool:
    """Whether newuidmap would give this user more than one id."""
    if Path("/proc/self/uid_map").read_text().split()[2] == "1":
        return False  # inside `unshare -r`: one id, whatever /etc/subuid says
    import pwd

    user = pwd.getpwuid(os.getuid()).pw_name
    return any(
        line.startswith((f"{user}:", f"{os.getuid()}:")) for line in Path("/etc/subuid").read_text().splitlines()
    )


@pytest.fixture(scope="session")
def has_range() -> bool:
    """Whether this user has a subordinate id range."""
    return owns_range()


def _entry_point(name: str, module: str) -> list[str]:
    boot = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); sys.argv[0] = {name!r}; from {module} import main; "
    return [sys.executable, "-I", "-c", boot + "sys.exit(main())"]


def command_path() -> list[str]:
    """The `rootless` command under test, in an isolated interpreter as its console script has."""
    return _entry_point("rootless", "rootless.cli.entry")


def oci_command_path() -> list[str]:
    """The `rootless-oci` command under test."""
    return _entry_point("rootless-oci", "rootless.runtime.oci.main")


def make_private_directory(prefix: str) -> Path:
    """A directory on a disk file system below the user's home (/tmp may be tmpfs), short for socket paths."""
    base = Path(os.environ.get("ROOTLESS_TEST_DIR") or Path.home() / ".rootless-tests")
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=prefix, dir=base))


def remove_private_directory(directory: Path) -> None:
    """Remove a store with files of mapped ids, then the directory itself."""
    from rootless.host import idmap, subid, userns

    def remove() -> bytes:
        for parent, names, _ in os.walk(directory):
            for name in names:
                entry = Path(parent, name)
                if not entry.is_symlink():
                    entry.chmod(0o700)
        shutil.rmtree(directory)
        return b""

    ids = subid.subordinate_ids() if owns_range() else None
    userns.call_in_new_namespace(idmap.default_map(ids, os.getuid(), os.getgid()), remove)


@pytest.fixture
def store_root() -> Iterator[Path]:
    """An empty store directory of this test's own."""
    root = make_private_directory("s")
    yield root
    remove_private_directory(root)


def runs(pid: int | str) -> bool:
    """Whether a process is there and no zombie: this one may have become the reaper of others' children."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def make_runner(root: Path) -> Runner:
    """A function that runs `rootless ARGS...` on the store `root` and returns the finished process (text)."""
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": os.environ.get("HOME", "/nonexistent"),
        "ROOTLESS_ROOT": str(root),
        "XDG_RUNTIME_DIR": os.environ.get("XDG_RUNTIME_DIR", ""),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", ""),
    }

    def run(
        *arguments: str,
        input: str | bytes | None = None,
        check: bool = True,
        env: dict[str, str] | None = None,
        timeout: float = 120,
        cwd: str | Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        completed = subprocess.run(
            [*command_path(), *arguments],
            input=input.encode() if isinstance(input, str) else (input if input is not None else b""),
            capture_output=True,
            env={**environment, **(env or {})},
            timeout=timeout,
            cwd=cwd,
        )
        result = subprocess.CompletedProcess(
            completed.args,
            completed.returncode,
            completed.stdout.decode("utf-8", "surrogateescape"),
            completed.stderr.decode("utf-8", "surrogateescape"),
        )
        assert "Traceback (most recent call last)" not in result.stderr, result.stderr
        if check and result.returncode:
            pytest.fail(f"rootless {' '.join(arguments)}: exit {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result

    return run


@pytest.fixture
def rootless(store_root: Path) -> Runner:
    """Run `rootless ARGS...` on an empty store of this test's own."""
    return make_runner(store_root)


@pytest.fixture(scope="module")
def shared_root() -> Iterator[Path]:
    """A store shared by the tests of one module, with the busybox image already in it."""
    require(Path("/bin/busybox").exists(), "no /bin/busybox on this host (apt-get install busybox-static)")
    root = make_private_directory("m")
    make_runner(root)("image", "bootstrap", "busybox")
    yield root
    run = make_runner(root)
    names = run("ps", "-aq", check=False).stdout.split()
    if names:
        run("rm", "-f", *names, check=False)
    remove_private_directory(root)


@pytest.fixture
def busybox(shared_root: Path) -> Runner:
    """Run `rootless ARGS...` on the module's store, where the image `busybox` is."""
    return make_runner(shared_root)


@pytest.fixture
def busybox_image(shared_root: Path) -> str:
    """The name of the bootstrapped image in the module's store."""
    return "busybox"
