"""A process belongs to a container by its namespaces, and a number that may be another's by now proves nothing."""

from __future__ import annotations

import os
import signal

from rootless.kernel import container_members
from rootless.kernel.container_members import Members, certain_namespaces, own_namespaces
from rootless.records.fields import Fields
from rootless.records.state import ContainerNamespaces


def sleeper() -> int:
    child = os.fork()
    if child == 0:
        try:
            signal.pause()
        finally:
            os._exit(0)
    return child


def test_processes_are_known_by_their_mount_namespace() -> None:
    child = sleeper()
    try:
        found = Members(own_namespaces())
        assert found.has(child) and not found.has(os.getpid()) and not found.has(1 << 22)
        assert not Members(own_namespaces(), [child]).has(child)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_an_ended_process_that_nobody_has_reaped_is_none() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert not Members(own_namespaces()).has(child)
    os.waitpid(child, 0)


def test_the_same_inode_is_not_the_same_namespace() -> None:
    namespaces = own_namespaces()
    namespaces.mount = namespaces.mount[0], 1 << 60
    child = sleeper()
    try:
        assert not Members(namespaces).has(child)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_inodes_alone_need_a_proof() -> None:
    namespaces = ContainerNamespaces((own_namespaces().mount[0], 0), (1, 0))
    namespaces.makes_user = True
    child = sleeper()
    try:
        assert certain_namespaces(namespaces, lambda top: False, lambda pid: False) is None
        sure = certain_namespaces(
            namespaces, lambda top: os.path.samestat(os.fstat(top), os.stat("/")), lambda pid: False
        )
        assert sure is not None and sure.mount == namespaces.mount and not sure.makes_user
        # A root of FUSE cannot be looked at from outside
        sure = certain_namespaces(namespaces, lambda top: False, lambda pid: pid == child)
        assert sure is not None and sure.mount == namespaces.mount
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    namespaces.mount, namespaces.user = (1, 2), (1, 2)
    assert certain_namespaces(namespaces, lambda top: False, lambda pid: False) is namespaces


def test_all_that_was_found_ends() -> None:
    children = [sleeper() for _ in range(3)]

    class Chosen(Members):
        def pids(self) -> list[int]:
            return [pid for pid in children if self.has(pid)]

    assert Chosen(own_namespaces()).end() == []
    for child in children:
        assert os.waitpid(child, 0)[1] == signal.SIGKILL


def test_they_are_written_and_read() -> None:
    namespaces = ContainerNamespaces((1, 2), (3, 0))
    namespaces.makes_user = True
    assert not namespaces.is_unique
    found = ContainerNamespaces.from_json(Fields(namespaces.to_json(), "state.json"))
    assert found is not None and found.to_json() == namespaces.to_json()
    assert ContainerNamespaces.from_json(None) is None
    assert container_members.identify_namespaces(os.getpid()) is None
