"""Profiles and compiled filters: every verdict is read from the program itself by a BPF interpreter."""

from __future__ import annotations

import errno
import json
import os
import platform
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import HostLimit, InvalidInput
from rootless.kernel import libseccomp
from rootless.runtime.capabilities import DEFAULT, NAMES
from rootless.runtime.seccomp import filter_cache, seccomp_profile
from rootless.runtime.seccomp.seccomp_profile import TIOCLINUX, TIOCSTI, all_but
from tests.conftest import require
from tests.unit.runtime.bpf import ALLOW, ERRNO, I386, verdict

EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
# x86_64 numbers
READ, IOCTL, SOCKET, CLONE, PERSONALITY, MOUNT, KEYCTL, UNSHARE, CLONE3 = 0, 16, 41, 56, 135, 165, 250, 272, 435
X32 = 0x40000000


def compile_json(profile: object) -> bytes:
    return filter_cache.compile_profile(seccomp_profile.resolve(profile))


def flags_of(profile: object) -> int:
    return filter_cache.load_flags(seccomp_profile.resolve(profile))


@pytest.fixture(autouse=True)
def _host() -> None:
    require(platform.machine() == "x86_64", "numbers in these tests are those of x86_64")
    try:
        libseccomp.load_library()
    except OSError:
        require(False, "libseccomp.so.2 is not installed")


@pytest.fixture(scope="module")
def default() -> bytes:
    return filter_cache.compile_profile(seccomp_profile.default_profile())


@pytest.mark.parametrize("number", [READ, 59, 231, 257, 319, 437, 439])
def test_everyday_calls_pass(default: bytes, number: int) -> None:
    assert verdict(default, number) == ALLOW


@pytest.mark.parametrize("number", [MOUNT, KEYCTL, 248, 249, UNSHARE, 308, 155, 169, 175, 246, 321, 323, 304, 425])
def test_dangerous_calls_fail(default: bytes, number: int) -> None:
    """mount keyctl add_key request_key unshare setns pivot_root reboot init_module kexec_load bpf ... io_uring"""
    assert verdict(default, number) == EPERM


def test_compatibility_architectures_have_the_same_rules(default: bytes) -> None:
    """TRAPS 3.14: the other ABIs of the processor are filtered as well."""
    assert verdict(default, 3, arch=I386) == ALLOW
    assert verdict(default, 21, arch=I386) == EPERM  # mount
    assert verdict(default, 54, 0, TIOCSTI, arch=I386) == EPERM
    assert verdict(default, X32 | READ) == ALLOW
    assert verdict(default, X32 | MOUNT) == EPERM
    assert verdict(default, X32 | 514, 0, TIOCSTI) == EPERM


def test_unknown_architecture_is_killed(default: bytes) -> None:
    assert verdict(default, READ, arch=0x8000_0016) == 0


def test_clone_flags(default: bytes) -> None:
    assert verdict(default, CLONE, 0x01200011) == ALLOW
    for flag in (0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x00020000):
        assert verdict(default, CLONE, 0x11 | flag) == EPERM, hex(flag)
    assert verdict(default, CLONE3) == ENOSYS


def test_capabilities_open_their_calls() -> None:
    program = filter_cache.compile_profile(seccomp_profile.default_profile([*DEFAULT, "CAP_SYS_ADMIN", "CAP_SYS_TIME"]))
    for number in (MOUNT, UNSHARE, CLONE3, 227):
        assert verdict(program, number) == ALLOW
    assert verdict(program, CLONE, 0x10000000) == ALLOW
    assert verdict(program, KEYCTL) == EPERM
    everything = filter_cache.compile_profile(seccomp_profile.default_profile(NAMES))
    assert verdict(everything, 175) == ALLOW
    assert verdict(everything, IOCTL, 0, TIOCSTI) == EPERM
    nothing = filter_cache.compile_profile(seccomp_profile.default_profile([]))
    assert verdict(nothing, 161) == EPERM  # chroot


@pytest.mark.parametrize("request_", [TIOCSTI, TIOCLINUX])
@pytest.mark.parametrize("high", [0, 1 << 32, 0xFFFFFFFF << 32, 1 << 63])
def test_terminal_injection_is_denied_whatever_the_upper_half(default: bytes, request_: int, high: int) -> None:
    """CVE-2017-5226, CVE-2019-10063: TIOCSTI and TIOCLINUX, also with bits that the kernel cuts off."""
    assert verdict(default, IOCTL, 0, high | request_) == EPERM


@given(st.integers(min_value=0, max_value=(1 << 64) - 1))
def test_every_other_ioctl_passes(value: int) -> None:
    expected = EPERM if value & 0xFFFFFFFF in (TIOCSTI, TIOCLINUX) else ALLOW
    assert verdict(_compiled(), IOCTL, 0, value) == expected


@pytest.mark.parametrize("request_", [TIOCSTI - 1, TIOCSTI + 1, TIOCLINUX - 1, TIOCLINUX + 1, 0x5401, 0x5413, 0])
def test_neighbours_of_the_denied_ioctls_pass(default: bytes, request_: int) -> None:
    assert verdict(default, IOCTL, 0, request_) == ALLOW


def _compiled(store: list[bytes] = []) -> bytes:  # noqa: B006 - compiled once for all of hypothesis' examples
    if not store:
        store.append(filter_cache.compile_profile(seccomp_profile.default_profile()))
    return store[0]


@given(st.sets(st.integers(0, 255), min_size=1, max_size=5))
def test_all_but_covers_exactly_the_complement(values: set[int]) -> None:
    rules = all_but(0, tuple(values), 8)
    for value in range(256):
        matching = [r for r in rules if value & r.value == r.value_two]
        assert len(matching) == (0 if value in values else 1)


def test_sockets(default: bytes) -> None:
    for family in (1, 2, 10, 16, 17):
        assert verdict(default, SOCKET, family, 1) == ALLOW
    for family in (38, 40, 40 | 1 << 32):  # AF_ALG, AF_VSOCK
        assert verdict(default, SOCKET, family, 1) == EPERM


def test_personality(default: bytes) -> None:
    for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert verdict(default, PERSONALITY, value) == ALLOW
    for value in (0x0400000, 0x0040000, 0x1_0000_0000):  # READ_IMPLIES_EXEC, ADDR_NO_RANDOMIZE
        assert verdict(default, PERSONALITY, value) == EPERM


def test_calls_newer_than_libseccomp(default: bytes) -> None:
    assert verdict(default, 462) == ALLOW  # mseal
    assert verdict(default, 452) == ALLOW  # fchmodat2
    assert verdict(default, 500) == ENOSYS  # not EPERM, which glibc takes for an answer


def test_newer_call_denied_by_a_profile_that_allows_by_default() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mseal", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}],
    }
    program = compile_json(profile)
    assert verdict(program, 462) == ERRNO | 5
    assert verdict(program, 500) == ALLOW


def test_all_architectures_of_a_profile_by_number_of_machine() -> None:
    arm = seccomp_profile.default_profile(machine="aarch64")
    assert arm.architectures == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    names = {n for rule in arm.rules for n in rule.names}
    assert "arch_prctl" not in names
    assert "sync_file_range2" in names
    assert seccomp_profile.default_profile().architectures == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]


def test_old_kernel_does_not_allow_ptrace() -> None:
    def has_ptrace(release: str) -> bool:
        profile = seccomp_profile.default_profile(release=release)
        return any("ptrace" in rule.names for rule in profile.rules)

    assert not has_ptrace("4.7.10-generic")
    assert has_ptrace("4.8.0")
    assert has_ptrace("6.1.0-rc1+")


@pytest.mark.parametrize("action", ["SCMP_ACT_ALLOW", "SCMP_ACT_KILL", "SCMP_ACT_LOG", "SCMP_ACT_TRAP"])
def test_errno_with_an_action_that_has_none_is_an_error(action: str) -> None:
    """runtime-spec: errnoRet beside an action that does not support it MUST be refused."""
    with pytest.raises(InvalidInput, match="errnoRet"):
        compile_json({"defaultAction": action, "defaultErrnoRet": 1, "syscalls": []})
    with pytest.raises(InvalidInput, match="errnoRet"):
        rule = {"names": ["read"], "action": action, "errnoRet": 1}
        compile_json({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]})


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        ({"names": [], "action": "SCMP_ACT_ALLOW"}, "names"),
        ({"names": ["read"], "action": "SCMP_ACT_NONSENSE"}, "unknown action"),
        ({"names": ["read"], "action": None}, "unknown action"),
        ({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}, "0..5"),
        ({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "EQ"}]}, "operator"),
        (
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": -1}]},
            "64-bit",
        ),
        ({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000}, "0..4095"),
    ],
)
def test_wrong_rules_are_named(rule: dict[str, object], word: str) -> None:
    with pytest.raises(InvalidInput, match=word):
        compile_json({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]})


NOTIFY = {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}


def test_an_agent_gets_the_calls_of_its_rules() -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x", "listenerMetadata": "m", "syscalls": [NOTIFY]}
    program = compile_json(profile)
    assert verdict(program, libseccomp.syscall_resolve("mkdir") or 0) == 0x7FC00000
    assert verdict(program, libseccomp.syscall_resolve("rmdir") or 0) == ALLOW
    assert flags_of(profile) == 8
    flags = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    assert flags_of({**profile, "flags": flags}) == 8 | 1 | 16 | 32


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"syscalls": [NOTIFY]}, "needs a listenerPath"),
        ({"listenerMetadata": "m"}, "listenerMetadata"),
        ({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"}, "defaultAction"),
        ({"listenerPath": "/x", "syscalls": [{**NOTIFY, "names": ["sendmsg"]}]}, "sendmsg"),
        ({"listenerPath": "/x", "syscalls": [{**NOTIFY, "errnoRet": 1}]}, "errnoRet"),
    ],
)
def test_an_agent_without_what_it_needs_is_an_error(change: dict[str, object], word: str) -> None:
    with pytest.raises(InvalidInput, match=word):
        compile_json({"defaultAction": "SCMP_ACT_ALLOW", **change})


def test_a_flag_of_listeners_needs_one() -> None:
    with pytest.raises(InvalidInput, match="WAIT_KILLABLE_RECV"):
        flags_of({"flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]})


def test_unknown_architecture_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="SCMP_ARCH_PDP11"):
        compile_json({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"]})


def test_one_argument_compared_twice_means_either() -> None:
    """As runc: libseccomp cannot hold both in one rule."""
    arguments = [{"index": 0, "op": "SCMP_CMP_EQ", "value": v} for v in (7, 9)]
    rule = {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": arguments}
    program = compile_json({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]})
    assert [verdict(program, PERSONALITY, v) for v in (7, 8, 9)] == [ALLOW, EPERM, ALLOW]


def test_the_profile_of_containers_common() -> None:
    path = "/usr/share/containers/seccomp.json"
    require(Path(path).exists(), "no /usr/share/containers/seccomp.json (golang-github-containers-common)")
    program = filter_cache.compile_profile(seccomp_profile.read_profile(path, []))
    assert verdict(program, READ) == ALLOW
    assert verdict(program, 246) == EPERM  # kexec_load
    assert verdict(program, 999) == ENOSYS
    assert verdict(program, SOCKET, 16, 0, 9) == ERRNO | errno.EINVAL  # audit


def test_profile_formats(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    old = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "defaultErrno": None,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"name": "chmod", "action": "SCMP_ACT_ERRNO", "errno": "ENOENT", "args": None}],
    }
    file.write_text(json.dumps(old))
    profile = seccomp_profile.option(str(file))
    assert profile is not None
    assert profile.to_json()["syscalls"] == [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOENT}]
    assert seccomp_profile.option("unconfined") is None
    builtin = seccomp_profile.option("builtin")
    assert builtin is not None and builtin.to_json() == seccomp_profile.default_profile().to_json()
    for one in (profile, builtin):  # an OCI profile is its own resolution
        assert seccomp_profile.resolve(one.to_json()).to_json() == one.to_json()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "not JSON"),
        ('{"archMap": [{"architecture": "x"}], "architectures": ["y"]}', "exclude each other"),
        ('{"syscalls": [{"name": "a", "names": ["b"]}]}', "exclude each other"),
        ('{"syscalls": [{"name": "a", "errno": "EWHAT"}]}', "EWHAT"),
        ('{"syscalls": [{"name": "a", "includes": {"minKernel": "new"}}]}', "kernel version"),
        ('{"syscalls": [1]}', "syscalls"),
        ('{"syscalls": 1}', "list"),
        ('{"defaultErrnoRet": "x"}', "defaultErrnoRet"),
        ('{"syscalls": [{"names": "read"}]}', "list"),
        ('{"syscalls": [{"names": ["read"], "includes": [1]}]}', "includes"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, word: str) -> None:
    file = tmp_path / "p.json"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=word):
        seccomp_profile.read_profile(str(file))


def test_files_that_are_none(tmp_path: Path) -> None:
    """CVE-2024-9341 and kin: a FIFO does not hang us."""
    with pytest.raises(InvalidInput, match="cannot read"):
        seccomp_profile.read_profile(str(tmp_path / "absent"))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidInput, match="regular file"):
        seccomp_profile.read_profile(str(tmp_path / "fifo"))
    with pytest.raises(InvalidInput, match="regular file"):
        seccomp_profile.read_profile(str(tmp_path))
    with pytest.raises(InvalidInput, match="regular file"):
        filter_cache.read_filter(str(tmp_path))
    (tmp_path / "large").write_bytes(b" " * (1 << 21))
    with pytest.raises(InvalidInput, match="larger"):
        seccomp_profile.read_profile(str(tmp_path / "large"))


def test_a_container_never_runs_without_the_filter_it_is_to_have(tmp_path: Path) -> None:
    with pytest.raises(HostLimit, match="cannot read the seccomp filter") as caught:
        filter_cache.require_filter(f"{tmp_path}/absent.bpf", hint="build again")
    assert caught.value.hint == "build again"


def test_flags() -> None:
    assert flags_of({}) == 0
    assert flags_of({"flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}) == 6
    with pytest.raises(InvalidInput, match="FLAG_X"):
        flags_of({"flags": ["FLAG_X"]})


def test_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default: bytes) -> None:
    profile = seccomp_profile.default_profile()
    path = filter_cache.cached_path(profile, str(tmp_path))
    assert filter_cache.read_filter(path) == default
    with monkeypatch.context() as patch:
        patch.setattr(filter_cache, "compile_profile", lambda profile: pytest.fail("compiled again"))
        assert filter_cache.cached(profile, str(tmp_path)) == default
    for damage in (b"", b"x", Path(path).read_bytes()[:-8], Path(path).read_bytes()[:-1] + b"\xff"):
        Path(path).write_bytes(damage)
        with pytest.raises(InvalidInput, match="damaged"):
            filter_cache.read_filter(path)
        assert filter_cache.cached(profile, str(tmp_path)) == default
        assert filter_cache.read_filter(path) == default
    assert filter_cache.cached_path(seccomp_profile.default_profile([]), str(tmp_path)) != path


@pytest.mark.parametrize("damage", [b"", b"\0" * 300])
def test_a_filter_that_a_power_cut_emptied_is_made_again(tmp_path: Path, default: bytes, damage: bytes) -> None:
    profile = seccomp_profile.default_profile()
    path = filter_cache.cached_path(profile, str(tmp_path))
    assert filter_cache.is_whole(path)
    Path(path).write_bytes(damage)
    assert not filter_cache.is_whole(path)
    assert filter_cache.cached_path(profile, str(tmp_path)) == path
    assert filter_cache.read_filter(path) == default


def test_the_planned_emulation_of_root_is_the_one_that_is_made(tmp_path: Path) -> None:
    planned = filter_cache.planned_emulation(str(tmp_path))
    assert planned.calls and not list(tmp_path.iterdir()), "a plan knows the calls and writes nothing"
    made = filter_cache.emulation(str(tmp_path))
    assert made.to_json() == planned.to_json() == filter_cache.planned_emulation(str(tmp_path)).to_json()
    assert all(filter_cache.read_filter(path) for path in made.paths())
    for table in tmp_path.glob("seccomp/*-calls.json"):
        table.write_text('{"c000003e:92": 1}')
    assert filter_cache.emulation(str(tmp_path)).to_json() == planned.to_json(), "a damaged table is made again"


def test_cache_that_cannot_be_written(default: bytes) -> None:
    assert filter_cache.cached(seccomp_profile.default_profile(), "/proc/nowhere") == default
