"""ADD and contexts from elsewhere, pushing, caches in a registry, and builds that are interrupted."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Runner, command_path, make_runner, require
from tests.integration.builder.conftest import Build, cached_steps, read_in
from tests.integration.image import conftest as registries
from tests.integration.image.conftest import Registry

registry = registries.registry


@pytest.fixture
def served(context: Path) -> Iterator[tuple[Path, str]]:
    """A directory that an HTTP server shows, and its URL."""
    directory = context / "served"
    directory.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(directory)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield directory, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_add_from_an_url(build: Build, served: tuple[Path, str], busybox: Runner) -> None:
    directory, url = served
    (directory / "file").write_text("fetched")
    os.utime(directory / "file", (1234567890, 1234567890))
    digest = hashlib.sha256(b"fetched").hexdigest()
    text = f"FROM busybox\nADD {url}/file /into/\nADD --checksum=sha256:{digest} --chmod=644 {url}/file /as\n"
    build(text, "-t", "url")
    shown = read_in(busybox, "url", "stat", "-c", "%a %Y %n", "/into/file", "/as").splitlines()
    assert shown == ["600 1234567890 /into/file", "644 1234567890 /as"]
    assert cached_steps(build(text)) == 2
    (directory / "file").write_text("another")
    wrong = build(text, check=False)
    assert wrong.returncode and "sha256" in wrong.stderr and "Dockerfile:3" in wrong.stderr
    missing = build(f"FROM busybox\nADD {url}/none /\n", check=False)
    assert missing.returncode and "404" in missing.stderr


def test_a_context_behind_an_url(busybox: Runner, served: tuple[Path, str], context: Path) -> None:
    directory, url = served
    (context / "inner").mkdir()
    (context / "inner/file").write_text("packed")
    (context / "inner/Dockerfile").write_text("FROM busybox\nCOPY file /\n")
    subprocess.run(["tar", "-C", str(context / "inner"), "-cf", str(directory / "c.tar"), "."], check=True)
    busybox("build", "-q", "-t", "remote", f"{url}/c.tar")
    assert read_in(busybox, "remote", "cat", "/file") == "packed"
    os.utime(directory / "c.tar", (1234567890, 1234567890))  # the server sends it as Last-Modified
    epoch = ("--build-arg", "SOURCE_DATE_EPOCH=context")
    text = "FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH > /epoch\n"
    busybox("build", "-q", "-t", "remote", *epoch, "-f", "-", f"{url}/c.tar", input=text)
    assert read_in(busybox, "remote", "cat", "/epoch") == "1234567890\n"


def test_a_git_repository(busybox: Runner, build: Build, served: tuple[Path, str], context: Path) -> None:
    require(shutil.which("git"), "no git on this host (apt-get install git)")
    directory, url = served
    work = context / "work"
    (work / "sub").mkdir(parents=True)
    (work / "sub/file").write_text("committed")
    (work / "Dockerfile").write_text("FROM busybox\nCOPY sub/file /\n")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_COMMITTER_DATE": "1500000000 +0000"}

    def git(*arguments: str, cwd: Path = work) -> None:
        options = ["-c", "user.name=n", "-c", "user.email=e@example.test", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *options, *arguments], cwd=cwd, env=environment, check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one", "--date", "1500000000 +0000")
    git("clone", "-q", "--bare", str(work), str(directory / "r.git"), cwd=context)
    git("update-server-info", cwd=directory / "r.git")
    busybox("build", "-q", "-t", "cloned", f"{url}/r.git#main")
    assert read_in(busybox, "cloned", "stat", "-c", "%Y", "/file") == "1500000000\n"
    text = "ARG SOURCE_DATE_EPOCH=context\nFROM busybox\nRUN echo > /made\n"
    busybox("build", "-q", "-t", "cloned", "-f", "-", f"{url}/r.git#main", input=text)
    assert read_in(busybox, "cloned", "stat", "-c", "%Y", "/made") == "1500000000\n"
    build(f"FROM busybox\nADD {url}/r.git#main:sub /tree\n", "-t", "added")
    assert read_in(busybox, "added", "find", "/tree").split() == ["/tree", "/tree/file"]
    text = "FROM busybox\nCOPY . /all\nRUN hostname > /name\n"
    command = ("-f", "-", "-t", "kept", "--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=box")
    for tail, argument, listed in (
        ("?branch=main", "1", [".git", "Dockerfile", "sub"]),
        ("?ref=main&keep-git-dir=false", "1", ["Dockerfile", "sub"]),
        ("?subdir=sub", "0", ["file"]),
    ):
        keeps = ("--build-arg", f"BUILDKIT_CONTEXT_KEEP_GIT_DIR={argument}")
        busybox("build", *command, *keeps, f"{url}/r.git{tail}", input=text)
        assert read_in(busybox, "kept", "ls", "-A", "/all").split() == listed
    assert read_in(busybox, "kept", "cat", "/name") == "box\n"
    build(f"FROM busybox\nADD {url}/r.git?branch=main&keep-git-dir=1 /tree\n", "-t", "added")
    assert ".git" in read_in(busybox, "added", "ls", "-A", "/tree").split()
    (directory / "f").write_text("fetched")
    text = f"FROM scratch\nADD {url}/f /\nADD {url}/r.git#main:sub /tree\n"
    for address, is_complete in ((f"{url}/r.git#main", True), (str(context), False)):
        given = ["-f", "-"] if is_complete else []
        (context / "Dockerfile").write_text(text)
        where = f"type=local,dest={context}/out"
        busybox("build", "--provenance=true", "-o", where, *given, address, input=text)
        predicate = json.loads((context / "out/provenance.json").read_text())["predicate"]
        found = {each["uri"]: each["digest"] for each in predicate["materials"]}
        assert found[f"{url}/f"] == {"sha256": hashlib.sha256(b"fetched").hexdigest()}
        assert len(found[f"{url}/r.git#main:sub"]["sha1"]) == 40
        assert predicate["metadata"]["completeness"]["materials"] is False  # the Dockerfile is the user's own
        source = predicate["invocation"]["configSource"]
        assert source.get("uri") == (address if is_complete else None)
        assert source.get("digest") == found.get(address)
    busybox("build", "--provenance=true", "-o", f"type=local,dest={context}/out", f"{url}/r.git#main")
    predicate = json.loads((context / "out/provenance.json").read_text())["predicate"]
    assert predicate["metadata"]["completeness"]["materials"] is True
    assert predicate["metadata"]["https://mobyproject.org/buildkit@v1#hermetic"] is True
    assert "locals" not in predicate["invocation"]["parameters"]


def test_push_and_a_cache_in_a_registry(
    busybox: Runner,
    build: Build,
    context: Path,
    registry: Registry,
    store_root: Path,
) -> None:
    text = "FROM busybox\nRUN echo pushed > /file\nRUN cat /file > /copy\n"
    name = f"{registry.address}/built:1"
    build(text, "-t", name, "--push", "--cache-to", f"type=registry,ref={registry.address}/cache:1")
    elsewhere = make_runner(store_root)
    elsewhere("pull", "-q", name)
    assert read_in(elsewhere, name, "cat", "/copy") == "pushed\n"
    busybox("save", "-o", str(context / "base.tar"), "busybox")
    elsewhere("load", "-i", str(context / "base.tar"))
    done = elsewhere("build", "--cache-from", f"{registry.address}/cache:1", str(context))
    assert cached_steps(done) == 2


def test_an_interrupt_ends_what_runs(shared_root: Path, build: Build, context: Path) -> None:
    mark = f"sleep 98765{os.getpid()}"
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN {mark}\n")
    process = subprocess.Popen(
        [*command_path(), "build", str(context)],
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "ROOTLESS_ROOT": str(shared_root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        wait_until(lambda: sleepers(mark))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    finally:
        process.kill()
    wait_until(lambda: not sleepers(mark))
    assert not list((shared_root / "incoming").iterdir())


def test_a_killed_build_leaves_only_garbage(shared_root: Path, busybox: Runner, context: Path) -> None:
    mark = f"sleep 87654{os.getpid()}"
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN {mark}\n")
    process = subprocess.Popen(
        [*command_path(), "build", str(context)],
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "ROOTLESS_ROOT": str(shared_root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: sleepers(mark))
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not sleepers(mark))
    busybox("system", "prune", "-f")
    assert not list((shared_root / "incoming").iterdir())


def test_debug_shell_enters_the_state_before(shared_root: Path, busybox: Runner, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo before > /state\nRUN exit 5\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "ROOTLESS_ROOT": str(shared_root),
        "XDG_RUNTIME_DIR": os.environ.get("XDG_RUNTIME_DIR", ""),
        "TERM": "xterm",
    }
    before = busybox("images", "-aq").stdout
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*command_path(), "build", "--progress=plain", "--debug-shell", str(context)],
        env=environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    shown = b""
    os.write(master, b"echo in-$(cat /state)-shell; exit\n")
    deadline = time.monotonic() + 60
    try:
        while process.poll() is None and time.monotonic() < deadline:
            if select.select([master], [], [], 0.2)[0]:
                try:
                    shown += os.read(master, 65536)
                except OSError:
                    break
        process.wait(timeout=120)
    finally:
        process.kill()
        os.close(master)
    assert b"in-before-shell" in shown, shown
    assert b"exit code: 5" in shown
    assert busybox("images", "-aq").stdout == before


def sleepers(mark: str) -> list[str]:
    """Pids of processes with this command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().replace(b"\0", b" ").strip() == mark.encode():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)
