"""`login`, `logout` and `search`: where credentials go, who sees them, and who may not."""

from __future__ import annotations

import base64
import json
import os
import pty
import select
import stat
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Runner, command_path
from tests.integration.engine.transfer.faulty_registry import Front, Handler, Tokens
from tests.integration.image.conftest import PASSWORD, Registry

pytestmark = pytest.mark.once

HELPER = """#!/bin/sh
# a credential helper of the tests: keeps what it is given beside itself
case $1 in
store) cat > "$0.kept" ;;
get) read host; cat "$0.kept" 2>&- || { echo credentials not found in native keychain; exit 1; } ;;
erase) read host; echo "$host" > "$0.erased"; rm -f "$0.kept" ;;
esac
"""


def own(tmp_path: Path) -> dict[str, str]:
    """A home of the test's own."""
    return {
        "REGISTRY_AUTH_FILE": "",
        "XDG_RUNTIME_DIR": "",
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "DOCKER_CONFIG": str(tmp_path / "docker"),
    }


def certificates(registry: Registry) -> tuple[str, str]:
    return ("--cert-dir", str(registry.directory / "certs"))


def test_a_password_is_tried_kept_used_and_forgotten(rl: Runner, password_registry: Registry, tmp_path: Path) -> None:
    address, env = password_registry.address, own(tmp_path)
    kept = tmp_path / "config" / "containers" / "auth.json"
    login = ("login", *certificates(password_registry), "-u", "me", "--password-stdin", address)
    wrong = rl(*login, input="wr0ng", check=False, env=env)
    assert wrong.returncode == 1 and "does not accept the credentials" in wrong.stderr and "wr0ng" not in wrong.stderr
    assert not kept.exists()
    done = rl(*login, input=f"{PASSWORD}\n", env=env)
    assert done.stdout == "Login Succeeded\n" and "unencrypted" in done.stderr and PASSWORD not in done.stderr
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    packed = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    assert json.loads(kept.read_text()) == {"auths": {address: {"auth": packed}}}
    assert rl("login", "--get-login", address, env=env).stdout == "me\n"
    rl("push", "-q", *certificates(password_registry), "small:1", f"{address}/login:1", env=env)
    # others read it too
    skopeo = ["skopeo", "list-tags", "--tls-verify=false", "--authfile", str(kept), f"docker://{address}/login"]
    assert '"1"' in subprocess.run(skopeo, capture_output=True, text=True, timeout=60).stdout
    assert rl("logout", address, env=env).stdout == f"Removed login credentials for {address}\n"
    assert json.loads(kept.read_text()) == {"auths": {}}
    assert "not logged in" in rl("logout", address, check=False, env=env).stderr
    assert "not logged in" in rl("login", "--get-login", address, check=False, env=env).stderr


def test_which_file(rl: Runner, password_registry: Registry, tmp_path: Path) -> None:
    """The first file that is read and is there; --authfile and REGISTRY_AUTH_FILE before it."""
    address, env = password_registry.address, own(tmp_path)
    login = ("login", *certificates(password_registry), "-u", "me", "--password-stdin")
    docker = tmp_path / "docker" / "config.json"
    docker.parent.mkdir()
    real = tmp_path / "dotfiles.json"
    real.write_text('{"psFormat": "kept", "auths": {"https://' + address + '/v1/": {"auth": "eDp5"}}}')
    docker.symlink_to(real)
    rl(*login, address, input=PASSWORD, env=env)
    document = json.loads(real.read_text())
    assert docker.is_symlink() and document["psFormat"] == "kept" and list(document["auths"]) == [address]
    rl(*login, "--authfile", str(tmp_path / "a.json"), address, input=PASSWORD, env=env)
    rl(*login, f"{address}/team", input=PASSWORD, env={**env, "REGISTRY_AUTH_FILE": str(tmp_path / "b.json")})
    assert list(json.loads((tmp_path / "a.json").read_text())["auths"]) == [address]
    assert list(json.loads((tmp_path / "b.json").read_text())["auths"]) == [f"{address}/team"]
    assert rl("logout", "--all", "--authfile", str(tmp_path / "b.json"), env=env).returncode == 0
    assert json.loads((tmp_path / "b.json").read_text()) == {"auths": {}}


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_credential_helpers(rl: Runner, password_registry: Registry, tmp_path: Path, key: str) -> None:
    address = password_registry.address
    program = tmp_path / "docker-credential-test"
    program.write_text(HELPER)
    program.chmod(0o755)
    env = {**own(tmp_path), "PATH": f"{tmp_path}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    docker = tmp_path / "docker" / "config.json"
    docker.parent.mkdir()
    docker.write_text(json.dumps({key: "test" if key == "credsStore" else {address: "test"}}))
    login = ("login", *certificates(password_registry), "-u", "me", "--password-stdin", address)
    done = rl(*login, input=PASSWORD, env=env)
    assert "unencrypted" not in done.stderr and PASSWORD not in docker.read_text()
    kept = Path(f"{program}.kept")
    assert json.loads(kept.read_text()) == {"ServerURL": address, "Username": "me", "Secret": PASSWORD}
    assert rl("login", "--get-login", address, env=env).stdout == "me\n"
    rl("push", "-q", *certificates(password_registry), "small:1", f"{address}/helper:1", env=env)
    rl("logout", address, env=env)
    assert not kept.exists() and Path(f"{program}.erased").read_text().strip() == address
    program.unlink()
    assert "is not installed" in rl(*login, input=PASSWORD, check=False, env=env).stderr


def test_the_prompt_shows_no_password(password_registry: Registry, tmp_path: Path, image_root: Path) -> None:
    env = {**os.environ, **own(tmp_path), "ROOTLESS_ROOT": str(image_root)}
    command = [*command_path(), "login", *certificates(password_registry), password_registry.address]
    pid, terminal = pty.fork()
    if not pid:
        os.execve(command[0], command, env)
    shown = ""

    def wait_for(words: str) -> None:
        nonlocal shown
        deadline = time.monotonic() + 60
        while words not in shown:
            assert time.monotonic() < deadline, shown
            if select.select([terminal], [], [], 1)[0]:
                try:
                    shown += os.read(terminal, 4096).decode()
                except OSError:
                    pytest.fail(shown)

    wait_for("Username:")
    os.write(terminal, b"me\n")
    wait_for("Password:")
    os.write(terminal, PASSWORD.encode() + b"\n")
    wait_for("Login Succeeded")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0  # a terminal that is closed before sends SIGHUP
    os.close(terminal)
    assert PASSWORD not in shown


def test_flags_that_do_not_go_together(rl: Runner, tmp_path: Path) -> None:
    env = own(tmp_path)
    for flags, words in (
        (("--password-stdin", "localhost:1"), "needs --username"),
        (("-u", "me", "-p", "x", "--password-stdin", "localhost:1"), "do not go together"),
        (("-u", "me", "localhost:1"), "no terminal"),
        (("-u", "me", "-p", "x", "Bad/Name:1"), "not a registry"),
        (("-u", "a:b", "-p", "x", "localhost:1"), "has no ':'"),
        (("-u", "me", "-p", "x", "localhost:1"), "connection refused"),
    ):
        refused = rl("login", *flags, check=False, env=env)
        assert refused.returncode in (1, 125) and words in refused.stderr, refused.stderr


def test_token_servers(rl: Runner, front: Front, tmp_path: Path) -> None:
    tokens = Tokens()
    front.faults.append(tokens.fault(front))
    env = own(tmp_path)
    login = ("login", "-u", "me", "--password-stdin", front.address)
    assert "does not accept" in rl(*login, input="wr0ng", check=False, env=env).stderr
    rl(*login, input="secret", env=env)
    rl("push", "-q", "small:1", f"{front.address}/token-login:1", env=env)


def test_a_web_page_is_no_registry(rl: Runner, front: Front, tmp_path: Path) -> None:
    front.faults.append(lambda handler: not handler.answer(404, b"<html>"))
    refused = rl("login", "-u", "me", "-p", "x", front.address, check=False, env=own(tmp_path))
    assert refused.returncode == 1 and "is no registry" in refused.stderr
    # The page of a captive portal, with a status that means success: the password was kept for it
    page = b"<!DOCTYPE html><html><title>Log in</title></html>"
    front.faults[:] = [lambda handler: not handler.answer(200, page, {"Content-Type": "text/html"})]
    refused = rl("login", "-u", "me", "-p", "x", front.address, check=False, env=own(tmp_path))
    assert refused.returncode == 1 and "a web page" in refused.stderr and refused.stdout == ""
    assert not (tmp_path / "config" / "containers" / "auth.json").exists()


def test_search_in_the_catalog_and_tags(rl: Runner, front: Front) -> None:
    for name in ("find/me:1", "find/me:2", "other:1"):
        rl("push", "-q", "small:1", f"{front.address}/{name}")
    found = rl("search", "--format", "{{.Name}}", f"{front.address}/find").stdout.split()
    assert found == [f"{front.address}/find/me"]
    tags = rl("search", "--list-tags", f"{front.address}/find/me").stdout.splitlines()
    assert tags[0].split() == ["NAME", "TAG"] and sorted(line.split()[1] for line in tags[1:]) == ["1", "2"]
    assert "no repository" in rl("search", "--list-tags", f"{front.address}/none", check=False).stderr
    front.faults.append(lambda handler: "_catalog" in handler.path and not handler.answer(404, b"{}"))
    assert "cannot be searched" in rl("search", f"{front.address}/find", check=False).stderr


def test_search_by_dockers_index(rl: Runner, front: Front) -> None:
    results = [
        {"name": "one", "description": "first", "star_count": 5, "is_official": True},
        {"name": "two", "star_count": 1},
    ]

    def index(handler: Handler) -> bool:
        if not handler.path.startswith("/v1/search?"):
            return False
        handler.answer(200, json.dumps({"results": results}).encode())
        return True

    front.faults.append(index)
    assert len(rl("search", f"{front.address}/x").stdout.splitlines()) == 3
    shown = rl("search", "--filter", "stars=2", "--filter", "is-official=true", f"{front.address}/x").stdout
    assert "one" in shown and "two" not in shown and "[OK]" in shown
    assert len(rl("search", "--limit", "1", f"{front.address}/x").stdout.splitlines()) == 2
    assert "q=x" in front.seen[-1].path and "n=1" in front.seen[-1].path
    assert rl("search", "--limit", "0", "x", check=False).returncode == 125


def test_the_catalog_is_read_page_by_page(rl: Runner, front: Front) -> None:
    def page(handler: Handler) -> bool:
        if "_catalog" not in handler.path:
            return False
        last = "last=b" in handler.path
        headers = {} if last else {"Link": '</v2/_catalog?last=b>; rel="next"'}
        handler.answer(200, json.dumps({"repositories": ["x-c"] if last else ["x-a", "x-b"]}).encode(), headers)
        return True

    front.faults.append(page)
    assert len(rl("search", f"{front.address}/x").stdout.splitlines()) == 4
