"""RUN: mounts, secrets, networks, users, heredocs, failures."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from tests.conftest import Runner, owns_range, require
from tests.integration.builder.conftest import Build, every_byte, inspect, layers, names_of_top, read_in


def test_writes_to_a_bind_are_discarded(build: Build, context: Path, busybox: Runner) -> None:
    """TRAPS CVE-2025-4953: the context is unchanged, with `rw` too."""
    (context / "dir").mkdir()
    (context / "dir/file").write_text("host")
    text = """
FROM busybox AS other
RUN mkdir /data && echo stage > /data/file
FROM busybox
RUN --mount=type=bind,source=dir,target=/mnt cat /mnt/file > /read && ! touch /mnt/new
RUN --mount=type=bind,source=dir,target=/mnt,rw echo changed > /mnt/file && cat /mnt/file >> /read && touch /mnt/new
RUN --mount=from=other,source=/data,target=/mnt,rw cat /mnt/file >> /read && rm /mnt/file
RUN --mount=from=other,source=/data/file,target=/one cat /one >> /read
"""
    build(text, "-t", "binds")
    assert read_in(busybox, "binds", "cat", "/read") == "hostchanged\nstage\nstage\n"
    assert (context / "dir/file").read_text() == "host"
    assert [path.name for path in (context / "dir").iterdir()] == ["file"]


@pytest.mark.once
def test_mounts_without_a_target_are_on_the_working_directory(build: Build, context: Path, busybox: Runner) -> None:
    (context / "file").write_text("host")
    text = """
FROM busybox
WORKDIR /src
RUN --mount=type=bind cat file > /bind
RUN --mount=rw touch new && ls > /rw
RUN --mount=type=cache,id=here touch /src/cached
RUN --mount=type=cache,target=/c,id=here ls /c > /cache
RUN --mount=type=tmpfs touch x && grep -c ' /src tmpfs' /proc/mounts > /tmpfs
RUN ls /src > /left
"""
    build(text, "-t", "targets")
    shown = read_in(busybox, "targets", "sh", "-c", "cd / && grep '' bind rw cache tmpfs left").splitlines()
    assert shown == ["bind:host", "rw:Dockerfile", "rw:file", "rw:new", "cache:cached", "tmpfs:1"]
    root = build("FROM busybox\nRUN --mount=type=bind true\n", check=False)
    assert root.returncode and "WORKDIR, which is /" in root.stderr


@pytest.mark.parametrize("source", ["../../../../../etc", "out", "out/passwd"])
def test_a_bind_s_source_stays_inside(build: Build, context: Path, source: str) -> None:
    """TRAPS CVE-2024-23651/2/3, CVE-2024-1753: `..` and links of --mount stay inside of the context."""
    (context / "out").symlink_to("/etc")
    done = build(f"FROM busybox\nRUN --mount=source={source},target=/mnt ls /mnt\n", check=False)
    assert done.returncode != 0
    assert "passwd" not in done.stdout + done.stderr.replace("out/passwd", "")


def test_cache_mounts_stay_and_are_in_no_layer(build: Build, context: Path, busybox: Runner) -> None:
    mount = "RUN --mount=type=cache,target=/cache,id=numbers,sharing={} "
    text = "FROM busybox\nARG N\n" + mount.format("locked") + "echo $N >> /cache/list; cp /cache/list /list\n"
    build(text, "--build-arg", "N=1", "-t", "one")
    build(text, "--build-arg", "N=2", "-t", "two")
    assert read_in(busybox, "two", "cat", "/list") == "1\n2\n"
    assert names_of_top(busybox, "two", context) == ["list"]
    build("FROM busybox\n" + mount.format("private") + "cat /cache/list > /list\n", "-t", "three")
    assert read_in(busybox, "three", "cat", "/list") == "1\n2\n"
    busybox("builder", "prune", "-af")
    build("FROM busybox\n" + mount.format("shared") + "ls /cache > /list\n", "-t", "four")
    assert read_in(busybox, "four", "cat", "/list") == ""


def test_a_cache_mount_s_first_content_mode_and_owner(build: Build, busybox: Runner) -> None:
    owner = "uid=7,gid=8," if owns_range() else ""
    text = f"""
FROM busybox AS base
RUN mkdir -p /seed/x && echo seeded > /seed/x/file
FROM busybox
RUN --mount=type=cache,target=/c,id=seeded,from=base,source=/seed/x cat /c/file > /file
RUN --mount=type=cache,target=/d,id=owned,{owner}mode=0711 stat -c '%a %u %g' /d > /mode
"""
    build(text, "-t", "seeded")
    assert read_in(busybox, "seeded", "cat", "/file") == "seeded\n"
    assert read_in(busybox, "seeded", "cat", "/mode") == ("711 7 8\n" if owns_range() else "711 0 0\n")


def test_each_user_of_a_cache_has_one_that_he_can_write_to(build: Build, busybox: Runner) -> None:
    """Owner and mode are part of a cache's identity, as in BuildKit; the same owner meets his files again."""
    require(owns_range(), "one id per container: every user of a step is the same one")
    mount = "RUN --mount=type=cache,target=/c,id=shared,"
    text = f"""
FROM busybox
RUN --mount=type=cache,target=/c,id=shared touch /c/root
USER 5
{mount}uid=5 touch /c/five
USER 6
{mount}uid=6 touch /c/six
{mount}uid=6,mode=0755,gid=0 ls /c > /tmp/six
{mount}uid=6,mode=0700 ls /c > /tmp/private
USER 0
RUN --mount=type=cache,target=/c,id=shared ls /c > /tmp/root
"""
    build(text, "-t", "users")
    lists = read_in(busybox, "users", "sh", "-c", "cd /tmp; grep . six private root")
    assert lists.splitlines() == ["six:six", "root:root"]


def test_a_cache_directory_s_links_lead_nowhere(build: Build, context: Path) -> None:
    """TRAPS CVE-2024-23651: what one step put into a cache directory does not move another step's mount."""
    build("FROM busybox\nRUN --mount=type=cache,target=/c,id=trap rm -rf /c/door; ln -s /etc /c/door\n")
    text = (
        "FROM busybox\nRUN --mount=type=cache,target=/c/door,id=trap,source=root/door ls /c/door > /seen; ls /c/door\n"
    )
    done = build(text, "--progress=plain", check=False)
    assert "passwd" not in done.stderr


def test_one_cache_mounted_twice(build: Build, busybox: Runner) -> None:
    """A step does not wait for itself."""
    twice = " ".join(f"--mount=type=cache,id=twice,target=/{name},sharing=locked" for name in ("a", "b"))
    build(f"FROM busybox\nRUN {twice} echo x > /a/file; cat /b/file > /seen\n", "-t", "twice")
    assert read_in(busybox, "twice", "cat", "/seen") == "x\n"


def test_tmpfs_and_shm(build: Build, busybox: Runner) -> None:
    text = (
        "FROM busybox\nRUN --mount=type=tmpfs,target=/t,size=1m grep ' /t tmpfs' /proc/mounts > /mounts; touch /t/x\n"
    )
    text += "RUN --mount=type=tmpfs,target=/t,ro ! touch /t/x\n"
    build(text + "RUN ls / > /top; grep ' /dev/shm ' /proc/mounts > /shm\n", "--shm-size", "2m", "-t", "tmpfs")
    assert "size=1024k" in read_in(busybox, "tmpfs", "cat", "/mounts")
    assert "size=2048k" in read_in(busybox, "tmpfs", "cat", "/shm")
    assert "t" not in read_in(busybox, "tmpfs", "cat", "/top").split()


def test_a_secret_leaks_nowhere(build: Build, context: Path, busybox: Runner, shared_root: Path) -> None:
    """TRAPS CVE-2021-3602 and kin: not in layers, history, config, cache records, logs of another kind."""
    secret = f"s3cr3t-{os.urandom(8).hex()}"
    (context.parent / f"{context.name}.secret").write_text(secret)
    text = """
FROM busybox
RUN --mount=type=secret,id=token test $(wc -c < /run/secrets/token) = 23 && stat -c %a /run/secrets/token > /mode
RUN --mount=type=secret,id=token,target=/etc/token,mode=0440 cat /etc/token | wc -c > /count
RUN --mount=type=secret,id=variable,env=TOKEN test ${#TOKEN} = 23 && ! test -e /run/secrets
ARG TOKEN_ARG
RUN test -n "$TOKEN_ARG"
"""
    build(
        text,
        "--secret",
        f"id=token,src={context.parent / f'{context.name}.secret'}",
        "--secret",
        "id=variable,env=MY_TOKEN",
        "--build-arg",
        f"TOKEN_ARG={secret}",
        "-t",
        "secret",
        env={"MY_TOKEN": secret},
    )
    (context.parent / f"{context.name}.secret").unlink()
    assert read_in(busybox, "secret", "cat", "/mode", "/count").split() == ["400", "23"]
    assert secret not in busybox("history", "--no-trunc", "secret").stdout
    assert secret not in str(inspect(busybox, "secret"))
    assert secret.encode() not in every_byte(shared_root)
    assert names_of_top(busybox, "secret", context) == ["count"]


def test_a_required_secret(build: Build) -> None:
    text = "FROM busybox\nRUN --mount=type=secret,id=none{} ls /run/secrets\n"
    done = build(text.format(",required=true"), check=False)
    assert done.returncode == 1 or done.returncode == 125
    assert "secret 'none' is required" in done.stderr and "Dockerfile:2" in done.stderr
    assert build(text.format(""), check=False).returncode != 0  # it runs, and there is no such directory


def test_an_agent_is_forwarded(build: Build, context: Path, busybox: Runner) -> None:
    path = context / "agent"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(connection.recv(100).upper())

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    text = "FROM busybox\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo hello | nc local:$SSH_AUTH_SOCK > /said\n"
    done = build(text, "--ssh", f"default={path}", "-t", "ssh", check=False)
    listener.close()
    if done.returncode:  # this busybox knows no local sockets: the socket is there at least
        build("FROM busybox\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK\n", "--ssh", f"default={path}")
    else:
        assert read_in(busybox, "ssh", "cat", "/said") == "HELLO\n"


def test_the_socket_of_an_agent_has_the_owner_and_mode_of_its_mount(
    build: Build, context: Path, busybox: Runner
) -> None:
    """0:0 and 0600 when nothing else is asked for, as in BuildKit: another user of the step cannot use the keys."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(context / "agent"))
        listener.listen()
        text = """
FROM busybox
RUN --mount=type=ssh stat -c '%u %g %a' $SSH_AUTH_SOCK > /sockets
RUN --mount=type=ssh,mode=0640 stat -c '%u %g %a' $SSH_AUTH_SOCK >> /sockets
RUN --mount=type=ssh,uid=7,gid=8,mode=0666 stat -c '%u %g %a' $SSH_AUTH_SOCK >> /sockets
"""
        build(text, "--ssh", f"default={context}/agent", "-t", "sockets")
    other = "7 8" if owns_range() else "0 0"
    assert read_in(busybox, "sockets", "cat", "/sockets").splitlines() == ["0 0 600", "0 0 640", f"{other} 666"]


def test_networks(build: Build, busybox: Runner) -> None:
    text = "FROM busybox\nRUN --network={} ls /sys/class/net > /net\n"
    build(text.format("none"), "-t", "none")
    assert read_in(busybox, "none", "cat", "/net").split() == ["lo"]
    refused = build(text.format("host"), check=False)
    assert "--allow network.host" in refused.stderr
    build(text.format("host"), "--allow", "network.host", "-t", "host")
    assert read_in(busybox, "host", "cat", "/net").split() == sorted(os.listdir("/sys/class/net"))
    build("FROM busybox\nRUN grep one.test /etc/hosts > /hosts\n", "--add-host", "one.test:10.1.2.3", "-t", "hosts")
    assert read_in(busybox, "hosts", "cat", "/hosts").split() == ["10.1.2.3", "one.test"]


def test_security(build: Build, busybox: Runner) -> None:
    text = "FROM busybox\nRUN --security=insecure grep CapEff /proc/self/status > /caps\n"
    assert "--allow security.insecure" in build(text, check=False).stderr
    build(text, "--allow", "security.insecure", "-t", "insecure")
    build("FROM busybox\nRUN grep CapEff /proc/self/status > /caps\n", "-t", "usual")
    wide, usual = (int(read_in(busybox, name, "cat", "/caps").split()[1], 16) for name in ("insecure", "usual"))
    assert wide & usual == usual and wide != usual


def test_heredocs(build: Build, busybox: Runner) -> None:
    text = """
FROM busybox
RUN <<EOF
echo one > /one
echo "$0" > /shell
EOF
RUN <<EOF
#!/bin/cat
not a command
EOF
RUN cat <<A <<B > /two
a $HOME
A
b
B
"""
    done = build(text, "-t", "heredocs")
    assert "not a command" in done.stderr
    assert read_in(busybox, "heredocs", "cat", "/one", "/shell") == "one\n/bin/sh\n"
    assert read_in(busybox, "heredocs", "cat", "/two") == "b\n"


def test_users_and_environment(build: Build, busybox: Runner) -> None:
    require(owns_range(), "another user in the container needs a user that has a range of ids")
    text = """
FROM busybox
RUN echo 'app:x:1234:1234::/home/app:/bin/sh' >> /etc/passwd; mkdir -p /home/app; chown 1234:1234 /home/app
USER app
ENV A=1
ARG A=2
ARG B=3
RUN echo "$(id -u) $HOME $A $B" > /home/app/seen
COPY --chown=app:1234 Dockerfile /home/app/
"""
    build(text, "-t", "user")
    assert read_in(busybox, "user", "cat", "/home/app/seen") == "1234 /home/app 2 3\n"
    assert read_in(busybox, "user", "stat", "-c", "%u:%g", "/home/app/Dockerfile") == "1234:1234\n"


def test_owners_that_a_step_asks_for_are_in_the_layer(build: Build, context: Path, busybox: Runner) -> None:
    """With one id root is emulated: chown works, and the owner lands in the layer."""
    build("FROM busybox\nRUN echo x > /file && chown 12:34 /file && chmod 4755 /file\n", "-t", "chowned")
    member = layers(busybox, "chowned", context)[-1].getmember("file")
    assert (member.uid, member.gid, member.mode) == (12, 34, 0o4755)


def test_the_environment_of_the_host_stays_outside(build: Build, busybox: Runner) -> None:
    """TRAPS CVE-2020-14370, CVE-2021-3602."""
    build("FROM busybox\nRUN env > /env\n", "-t", "env", env={"HOST_ONLY": "leak"})
    names = {line.partition("=")[0] for line in read_in(busybox, "env", "cat", "/env").splitlines()}
    assert names <= {"PATH", "HOME", "PWD", "SHLVL", "SOURCE_DATE_EPOCH", "APT_CONFIG"}


def test_a_failed_step_tells_where(build: Build, shared_root: Path) -> None:
    done = build("FROM busybox\n\nRUN echo before; \\\n  exit 42\n", check=False)
    assert done.returncode == 1
    assert "exit code: 42" in done.stderr
    assert "Dockerfile:3" in done.stderr and "[2/2] RUN echo before" in done.stderr
    assert ">    3 | RUN echo before" in done.stderr
    assert "--debug-shell" in done.stderr
    missing = build('FROM busybox\nRUN ["/no/such"]\n', check=False)
    assert missing.returncode and "no such file" in missing.stderr
    assert not list((shared_root / "incoming").iterdir())
