"""What a container gets when it cannot have a keyring of its own."""

from __future__ import annotations

import errno

import pytest

from rootless.kernel import process as kernel_process
from rootless.runtime.process import session_keyring
from tests.unit.runtime.bpf import AARCH64, ALLOW, ERRNO, I386, X86_64, verdict

DENIED = ERRNO | errno.ENOSYS


@pytest.mark.parametrize("code", [errno.EDQUOT, errno.ENOSYS, errno.EPERM])
def test_no_keyring_means_no_key_calls(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """runc#582, podman#13363: a full quota of keys does not stop a container."""

    def fail(name: str | None) -> int:
        raise OSError(code, "x")

    monkeypatch.setattr(kernel_process, "join_session_keyring", fail)
    warnings: list[str] = []
    assert session_keyring.join_own_keyring("c", warn=warnings.append) == session_keyring.deny_filter()
    assert bool(warnings) is (code == errno.EDQUOT)  # without keys altogether nothing is lost


def test_other_errors_stay_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str | None) -> int:
        raise OSError(errno.EFAULT, "x")

    monkeypatch.setattr(kernel_process, "join_session_keyring", fail)
    with pytest.raises(OSError):
        session_keyring.join_own_keyring("c")


@pytest.mark.parametrize(
    ("arch", "numbers"),
    [
        (X86_64, (248, 249, 250)),
        (X86_64, (0x400000F8, 0x400000F9, 0x400000FA)),
        (I386, (286, 287, 288)),
        (AARCH64, (217, 218, 219)),
    ],
)
def test_the_deny_filter(arch: int, numbers: tuple[int, ...]) -> None:
    program = session_keyring.deny_filter()
    for number in numbers:
        assert verdict(program, number, arch=arch) == DENIED
    for number in (0, numbers[0] - 1, numbers[-1] + 1, 500, 0x40000000):
        assert verdict(program, number, arch=arch) == ALLOW
    assert verdict(program, 250, arch=0x12345678) == ALLOW
