"""Three projects built from Dockerfiles as people write them, run, and asked over HTTP.

Only the images named in FROM are ours: one Debian with python, node and gcc, under the names that the projects use.
"""

from __future__ import annotations

import json
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Runner, make_runner, owns_range, require

PROJECTS = Path(__file__).parent / "projects"
NAMES = ("python:3.11-slim", "node:18-slim", "gcc:12")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
SETTLED = {"ROOTLESS_BUILD_TIMES": "settled"}
MIRRORS = ("deb.debian.org", "pypi.org", "registry.npmjs.org")


def reachable(host: str) -> bool:
    try:
        socket.create_connection((host, 443), 20).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def bases(shared_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """The module's store with the base images in it."""
    require(owns_range(), "a Debian system needs a user that has a range of ids")
    require(shutil.which("mmdebstrap"), "no mmdebstrap on this host (apt-get install mmdebstrap)")
    require(CERTIFICATES.exists(), f"no {CERTIFICATES} on this host (apt-get install ca-certificates)")
    missing = [host for host in MIRRORS if not reachable(host)]
    require(not missing, f"not reachable: {', '.join(missing)}")
    run = make_runner(shared_root)
    run("image", "bootstrap", "debian:bookworm", timeout=400)
    context = tmp_path_factory.mktemp("base")
    shutil.copy(CERTIFICATES, context)
    tags = [word for name in NAMES for word in ("-t", name)]
    run("build", "-q", *tags, "-f", str(PROJECTS / "base.Dockerfile"), str(context), timeout=600)
    yield run


def ask(run: Runner, container: str, path: str = "/") -> str:
    """What the container's port 8080 answers, once it does."""
    address = run("port", container, "8080").stdout.split()[0]
    deadline = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, ConnectionError, TimeoutError) as e:
            if time.monotonic() > deadline:
                logs = run("logs", container, check=False)
                pytest.fail(f"{container} does not answer: {e}\n{logs.stdout}{logs.stderr}")
            time.sleep(0.2)


def serve(run: Runner, name: str) -> None:
    run("build", "-t", name, str(PROJECTS / name), timeout=400, env=SETTLED)
    run("run", "-d", "--name", name, "-p", "127.0.0.1::8080", name)


def config(run: Runner, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(run("image", "inspect", name).stdout)[0]["Config"]
    return found


def test_a_pip_installed_web_service(bases: Runner) -> None:
    serve(bases, "web")
    answer = json.loads(ask(bases, "web"))
    # .dockerignore leaves the rest out
    assert answer == {"service": "web", "uid": 10001, "files": ["app.py", "requirements.txt"]}
    assert config(bases, "web")["User"] == "app"
    again = bases("build", "-t", "web:again", str(PROJECTS / "web"), env=SETTLED).stderr
    assert again.count(" CACHED") == 4
    first, second = bases("image", "inspect", "-f", "{{.Id}}", "web", "web:again").stdout.split()
    assert first == second
    bases("rm", "-f", "web")


def test_an_npm_front_end_served_from_another_stage(bases: Runner) -> None:
    serve(bases, "front")
    assert "<div id=" in ask(bases, "front", "/index.html")
    script = ask(bases, "front", "/main.js")
    assert "hello from" in script and "import" not in script  # bundled: preact is in it
    assert bases("exec", "front", "ls", "/www").stdout.split() == ["index.html", "main.js"]
    assert "node" not in bases("exec", "front", "ls", "/usr/bin", "/bin", check=False).stdout
    bases("rm", "-f", "front")


def test_a_c_program_copied_to_scratch(bases: Runner) -> None:
    serve(bases, "scratch")
    assert ask(bases, "scratch") == "hello from nothing else\n"
    anew = bases("build", "-q", "--no-cache", str(PROJECTS / "scratch"), timeout=400, env=SETTLED).stdout
    assert bases("image", "inspect", "-f", "{{.Id}}", "scratch").stdout == anew
    layers = json.loads(bases("image", "inspect", "scratch").stdout)[0]["RootFS"]["Layers"]
    assert len(layers) == 2  # a COPY each, and nothing of the compiler
    assert config(bases, "scratch")["Labels"] == {"org.opencontainers.image.title": "serve"}
    bases("rm", "-f", "scratch")
