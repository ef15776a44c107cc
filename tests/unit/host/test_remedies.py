"""host.remedies and host.mapping: what is said when the host refuses."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rootless.host import mapping, remedies
from rootless.host.facts import find_helper, kernel_version
from rootless.records.id_map import Extent


def refusal(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def with_sysctls(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    monkeypatch.setattr(remedies, "read_sysctl", lambda name: values.get(name.rpartition("/")[2]))


def test_namespaces_set_to_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with_sysctls(monkeypatch, max_user_namespaces="0")
    error = remedies.namespace_error(refusal(errno.ENOSPC))
    assert "user.max_user_namespaces is 0" in error.message
    assert error.hint and "sysctl -w user.max_user_namespaces=65536" in error.hint


def test_debian_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    with_sysctls(monkeypatch, unprivileged_userns_clone="0")
    error = remedies.namespace_error(refusal(errno.EPERM))
    assert error.hint and "sysctl -w kernel.unprivileged_userns_clone=1" in error.hint


def test_ubuntu_apparmor(monkeypatch: pytest.MonkeyPatch) -> None:
    with_sysctls(monkeypatch, apparmor_restrict_unprivileged_userns="1")
    error = remedies.namespace_error(refusal(errno.EPERM))
    assert error.hint and "AppArmor" in error.hint and "apparmor_restrict_unprivileged_userns=0" in error.hint


def test_inside_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    with_sysctls(monkeypatch)
    error = remedies.namespace_error(refusal(errno.EPERM))
    assert error.hint and "seccomp" in error.hint


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EUSERS, errno.EINVAL, errno.EPERM])
def test_messages_follow_the_house_rules(code: int) -> None:
    error = remedies.namespace_error(refusal(code))
    assert error.message[0].islower()
    assert not error.message.endswith(".")
    assert error.hint
    assert error.exit_code == 125


def test_range_that_is_not_owned() -> None:
    error = mapping.explain_failure("/usr/bin/newuidmap", 1, "newuidmap: uid range [0-1) -> [5000-5001) not allowed")
    assert "[5000-5001) not allowed" in error.message
    assert error.hint and "usermod --add-subuids" in error.hint


def test_helper_without_setuid_bit(tmp_path: Path) -> None:
    program = tmp_path / "newuidmap"
    program.write_text("")
    program.chmod(0o755)
    error = mapping.explain_failure(str(program), 1, "newuidmap: write to uid_map failed: Operation not permitted")
    assert "neither the setuid bit nor file capabilities" in error.message
    assert error.hint and f"chmod u+s {program}" in error.hint


def test_map_text() -> None:
    assert mapping.map_text([Extent(0, 1001, 1), Extent(1, 100000, 65536)]) == "0 1001 1\n1 100000 65536\n"


def test_find_helper_prefers_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2026-41567: a program of the same name in the current directory or a relative PATH entry is never found."""
    for name in ("sh", "rootless-test-program"):
        (tmp_path / name).write_text("#!/bin/false\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f".::{tmp_path.name}")
    assert find_helper("sh") == "/usr/bin/sh"
    assert find_helper("rootless-test-program") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_helper("rootless-test-program") == f"{tmp_path}/rootless-test-program"
    assert find_helper("no-such-program") is None


def test_kernel_version() -> None:
    assert kernel_version() >= (4, 0)
