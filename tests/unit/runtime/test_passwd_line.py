"""The line of the container's user in its passwd and group files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rootless.records.launch import LoginEntry
from rootless.runtime.operations.base import RootContext
from rootless.runtime.operations.passwd_line import AddLogin

ME = LoginEntry("me", 1234, 1235, "/work")


def add(root: Path, login: LoginEntry = ME) -> None:
    context = RootContext(str(root), lambda _: None)
    context.root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        AddLogin(login).apply(context)
    finally:
        os.close(context.root_fd)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/etc").mkdir(parents=True)
    return tmp_path / "root"


def test_a_line_is_added_once(root: Path) -> None:
    passwd, group = root / "etc/passwd", root / "etc/group"
    passwd.write_text("root:x:0:0:root:/root:/bin/sh")  # without a line end
    group.write_text("")
    for _ in range(2):
        add(root)
        assert passwd.read_text() == "root:x:0:0:root:/root:/bin/sh\nme:x:1234:1235::/work:/bin/sh\n"
        assert group.read_text() == "me:x:1235:\n"


def test_ids_and_names_of_the_image_stay(root: Path) -> None:
    passwd, group = root / "etc/passwd", root / "etc/group"
    passwd.write_text("node:x:1234:1234::/home/node:/bin/sh\n")
    group.write_text("me:x:7:\n")
    add(root)
    assert passwd.read_text() == "node:x:1234:1234::/home/node:/bin/sh\n"
    assert group.read_text() == "me:x:7:\nuser1235:x:1235:\n"


def test_what_is_no_such_file_stays(root: Path, tmp_path: Path) -> None:
    """A container that is started again may have put a link or a FIFO there: the link leads to a file of its own root,
    and nothing waits for a writer."""
    outside = tmp_path / "passwd"
    outside.write_text("of the host\n")
    (root / "etc/passwd").symlink_to(outside)
    os.mkfifo(root / "etc/group")
    add(root)
    assert outside.read_text() == "of the host\n"
    (root / "etc/passwd").unlink()
    add(root)
    assert not (root / "etc/passwd").exists()
