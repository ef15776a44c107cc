"""--userns=nomap: a container without the caller's own ids, whose files it therefore cannot reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Runner, owns_range, require

pytestmark = pytest.mark.usefixtures("ranged")


@pytest.fixture
def ranged() -> None:
    require(owns_range(), "this user has no range of ids, of which nomap needs one (a test has a range)")


WORDS = ("--userns", "nomap", "--network", "none")


@pytest.mark.parametrize("driver", ["overlay", "fuse-overlayfs", "copy"])
def test_root_owns_the_image_and_what_it_makes(busybox: Runner, driver: str) -> None:
    script = """
        test "$(id -u)" = 0; test "$(stat -c %u:%g /etc/passwd)" = 0:0; test "$(stat -c %u /)" = 0
        touch /x; chown 7:8 /x; stat -c %u:%g /x; su daemon -s /bin/sh -c 'id -u'; echo again > /dev/stdout
    """
    words = ("run", "--rm", *WORDS, "--storage-driver", driver, "busybox", "sh", "-ec", script)
    done = busybox(*words, check=False)
    require("does not work in" not in done.stderr, f"driver {driver}: {done.stderr}")
    assert done.stdout.split() == ["7:8", "1", "again"]


def test_the_callers_id_is_nobody(busybox: Runner, tmp_path: Path) -> None:
    """What podman's nomap is for: files of the user's own are out of reach, whatever is mounted."""
    (tmp_path / "secret").write_text("s")
    (tmp_path / "secret").chmod(0o600)
    tmp_path.chmod(0o755)
    script = "stat -c %u /v/secret; cat /v/secret; touch /v/new; cat /proc/self/uid_map"
    done = busybox("run", "--rm", *WORDS, "-v", f"{tmp_path}:/v", "busybox", "sh", "-c", script)
    assert done.stdout.split()[0] == "65534"
    assert done.stderr.count("Permission denied") == 2 and not (tmp_path / "new").exists()
    # the outer namespace, in which the user is 0, is not mapped
    assert all(int(line.split()[1]) > 0 for line in done.stdout.splitlines()[1:])


def test_no_way_to_the_outer_namespace(busybox: Runner) -> None:
    """Its root has no capability over mounts and names, which belong to the outer namespace, even when privileged."""
    script = "umount /dev/shm; mount -t tmpfs t /tmp; mount --bind /etc /tmp; hostname x"
    done = busybox("run", "--rm", *WORDS, "--privileged", "busybox", "sh", "-c", script, check=False)
    assert done.stdout == "" and done.stderr.count("ermi") == 4, done.stderr


def test_low_ports(busybox: Runner) -> None:
    script = 'nc -l -p 80 -w 1 & sleep 0; wait; test "$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start)" = 0'
    busybox("run", "--rm", *WORDS, "busybox", "sh", "-c", script)


def test_volumes_exec_restart_and_removal(busybox: Runner) -> None:
    busybox("run", "-d", "--name", "n", *WORDS, "-v", "nomap:/var", "busybox", "sleep", "600")
    done = busybox("exec", "n", "sh", "-ec", "touch /var/x; stat -c %u:%g /var /var/x; echo again > /dev/stdout; id -u")
    assert done.stdout.split() == ["0:0", "0:0", "again", "0"]
    assert busybox("exec", "-u", "5:6", "n", "sh", "-c", "id -u; echo x > /dev/stderr").stdout.strip() == "5"
    busybox("restart", "-t", "0", "n")
    busybox("exec", "n", "test", "-e", "/var/x")
    done = busybox("create", "--network", "container:n", "busybox", check=False)
    assert done.returncode != 0 and "nomap" in done.stderr
    assert busybox("rm", "-f", "n").stderr == ""
    busybox("volume", "rm", "nomap")


def test_terminal(busybox: Runner) -> None:
    """The pty belongs to the container's user."""
    done = busybox("run", "--rm", "-t", *WORDS, "busybox", "sh", "-c", "tty; stat -c %u:%g $(tty); echo x > /dev/tty")
    assert done.stdout.split() == ["/dev/pts/0", "0:5", "x"]


def test_not_with_another_runtime(busybox: Runner) -> None:
    done = busybox("create", *WORDS, "--runtime", "/bin/true", "busybox", check=False)
    assert done.returncode == 125 and "own runtime" in done.stderr
