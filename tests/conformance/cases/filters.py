"""config-linux.md, seccomp: actions, errnos, arguments, architectures, flags. System calls are made by number."""

from __future__ import annotations

import array
import errno
import json
import os
import socket

from tests.conformance.harness import Box, NotApplicable, case

SECCOMP = "config-linux.md#seccomp"
NUMBERS = {"x86_64": {"getppid": 110, "getpgid": 121, "personality": 135, "dup3": 292},
           "aarch64": {"getppid": 173, "getpgid": 155, "personality": 92, "dup3": 24}}  # fmt: skip


def _number(name: str) -> str:
    try:
        return str(NUMBERS[os.uname().machine][name])
    except KeyError:
        raise NotApplicable("the numbers of this processor's system calls are not known here") from None


def _filter(box: Box, *rules: dict[str, object], **others: object) -> None:
    box.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules), **others}


def _calls(box: Box, *calls: str) -> list[int]:
    answer: list[int] = json.loads(box.must_run("/bin/probe", "calls", *calls).out)
    return answer


@case(SECCOMP)
def errno_is_eperm(box: Box) -> None:
    """SCMP_ACT_ERRNO answers EPERM, other calls go on"""
    _filter(box, {"names": ["getppid"], "action": "SCMP_ACT_ERRNO"})
    assert _calls(box, _number("getppid"), _number("getpgid")) == [errno.EPERM, 0]


@case(SECCOMP)
def errno_of_its_own(box: Box) -> None:
    """errnoRet is the errno"""
    _filter(box, {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV})
    assert _calls(box, _number("getppid")) == [errno.EXDEV]


@case(SECCOMP)
def arguments(box: Box) -> None:
    """args compare: EQ, NE, LT, LE, GT, GE, MASKED_EQ; several of one rule are all wanted"""
    number = _number("dup3")
    for operator, value, second, hit, miss in (
        ("EQ", 900, 0, 900, 901), ("NE", 900, 0, 901, 900), ("LT", 900, 0, 899, 900), ("LE", 900, 0, 900, 901),
        ("GT", 900, 0, 901, 900), ("GE", 900, 0, 900, 899), ("MASKED_EQ", 0xF0, 0x80, 0x8F, 0x9F),
    ):  # fmt: skip
        test = {"index": 0, "value": value, "valueTwo": second, "op": f"SCMP_CMP_{operator}"}
        _filter(box, {"names": ["dup3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV, "args": [test]})
        # without the filter: EBADF
        assert _calls(box, f"{number}:{hit}:1000", f"{number}:{miss}:1000") == [errno.EXDEV, errno.EBADF], operator


@case(SECCOMP)
def wide_arguments(box: Box) -> None:
    """values beyond 32 bits are compared in full"""
    number, value = _number("getpgid"), 1 << 33
    test = {"index": 1, "value": value, "op": "SCMP_CMP_EQ"}
    _filter(box, {"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV, "args": [test]})
    assert _calls(box, f"{number}:0:{value}", f"{number}:0:0") == [errno.EXDEV, 0]


@case(SECCOMP)
def default_errno(box: Box) -> None:
    """defaultErrnoRet is the errno of what is not listed"""
    number = _number("personality")
    names = [n for n in _everything() if n != "personality"]
    box.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno.EXDEV,
                            "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]}  # fmt: skip
    assert _calls(box, f"{number}:0xffffffff") == [errno.EXDEV]


def _everything() -> list[str]:
    from rootless.runtime.seccomp.seccomp_profile import default_profile

    return [name for rule in default_profile().rules for name in rule.names]


@case(SECCOMP)
def kill(box: Box) -> None:
    """SCMP_ACT_KILL_PROCESS ends the process by SIGSYS"""
    # one that no shell makes by itself
    _filter(box, {"names": ["personality"], "action": "SCMP_ACT_KILL_PROCESS"})
    box.up("/bin/sh", "-c", f"probe calls {_number('personality')}; echo $? > /tmp/status")
    box.until_status("stopped")
    assert (box.root / "tmp/status").read_text() == "159\n"


@case(SECCOMP)
def unknown_calls_are_skipped(box: Box) -> None:
    """names of calls that this kernel does not have are no error"""
    _filter(box, {"names": ["moon_landing", "getppid"], "action": "SCMP_ACT_ERRNO"})
    assert _calls(box, _number("getppid")) == [errno.EPERM]


@case(SECCOMP)
def architectures(box: Box) -> None:
    """architectures are taken; an unknown one is an error"""
    names = {"x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "aarch64": ["SCMP_ARCH_AARCH64"]}
    rule = {"names": ["getppid"], "action": "SCMP_ACT_ERRNO"}
    _filter(box, rule, architectures=names.get(os.uname().machine, []))
    assert _calls(box, _number("getppid")) == [errno.EPERM]
    _filter(box, rule, architectures=["SCMP_ARCH_MOON"])
    box.must_fail()


@case(SECCOMP)
def flags(box: Box) -> None:
    """flags LOG and SPEC_ALLOW are taken; an unknown one is an error"""
    rule = {"names": ["getppid"], "action": "SCMP_ACT_ERRNO"}
    _filter(box, rule, flags=["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])
    assert _calls(box, _number("getppid")) == [errno.EPERM]
    _filter(box, rule, flags=["SECCOMP_FILTER_FLAG_MOON"])
    box.must_fail()


@case(SECCOMP)
def errno_beside_an_action_without_one_is_an_error(box: Box) -> None:
    """errnoRet with an action that has no errno is an error"""
    _filter(box, {"names": ["getppid"], "action": "SCMP_ACT_KILL", "errnoRet": 1})
    box.must_fail()


@case(SECCOMP)
def unknown_action_is_an_error(box: Box) -> None:
    """an action or an operator that does not exist is an error"""
    _filter(box, {"names": ["getppid"], "action": "SCMP_ACT_MOON"})
    box.must_fail()
    test = {"index": 0, "value": 1, "op": "SCMP_CMP_MOON"}
    _filter(box, {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "args": [test]})
    box.must_fail()


@case(SECCOMP)
def filter_without_no_new_privileges(box: Box) -> None:
    """the filter is loaded without noNewPrivileges too"""
    box.process["noNewPrivileges"] = False
    _filter(box, {"names": ["getppid"], "action": "SCMP_ACT_ERRNO"})
    assert _calls(box, _number("getppid")) == [errno.EPERM]
    assert box.probe()["no_new_privs"] == 0


@case(f"{SECCOMP} (listenerPath)")
def listener(box: Box) -> None:
    """SCMP_ACT_NOTIFY with listenerPath: the listener's fd and the state of process and container go to the socket"""
    path = str(box.directory / "agent")
    rule = {"names": ["personality"], "action": "SCMP_ACT_NOTIFY"}
    _filter(box, rule, listenerPath=path, listenerMetadata="opaque")
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(path)
        agent.listen(1)
        agent.settimeout(60)
        box.up("/bin/sh", "-c", f"probe calls {_number('personality')}:0xffffffff > /tmp/answer")
        connection, _ = agent.accept()
        with connection:
            connection.settimeout(60)
            words, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(4))
    state = json.loads(words)
    assert state["fds"] == ["seccompFd"] and state["metadata"] == "opaque" and state["pid"] > 0
    assert state["state"]["id"] == box.id and state["ociVersion"]
    # nobody listens any more: the call is answered with ENOSYS
    os.close(array.array("i", ancillary[0][2])[0])
    box.until_status("stopped")
    assert json.loads((box.root / "tmp/answer").read_text()) == [errno.ENOSYS]


@case(SECCOMP)
def no_filter(box: Box) -> None:
    """without linux.seccomp there is no filter"""
    status = box.probe()["status"]
    with open("/proc/self/status") as file:
        ours = next(line for line in file if line.startswith("Seccomp:"))
    assert ours in status
