"""How our interpreter is started: which files are out of reach, what a program's file starts, under which name."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest

from rootless.host import interpreter


def started_by(path: Path, content: bytes) -> str | None:
    path.write_bytes(content)
    with path.open("rb") as file:
        return interpreter.program_interpreter(file.fileno())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"#!/bin/sh\n", "/bin/sh"),
        (b"#! \t/usr/bin/env -S x y\nmore", "/usr/bin/env"),
        (b"#!/bin/sh", "/bin/sh"),
        (b"#!\n/bin/sh", None),
        (b"#!", None),
        (b"", None),
        (b"text", None),
        (b"\x7fELF", None),
        (b"\x7fELF\x02" + b"\xff" * 200, None),
        (b"\x7fELF\x01" + b"\0" * 200, None),
    ],
)
def test_what_a_file_starts(tmp_path: Path, content: bytes, expected: str | None) -> None:
    assert started_by(tmp_path / "file", content) == expected


@pytest.mark.parametrize("word", [4, 8])
def test_what_an_elf_file_starts(tmp_path: Path, word: int) -> None:
    if word == 8:
        head = b"\x7fELF\x02" + bytes(27) + struct.pack("=Q", 64) + bytes(14) + struct.pack("=HH", 56, 2) + bytes(6)
        entry = struct.pack("=IIQQQQ", 3, 0, 176, 0, 0, 8)
    else:
        head = b"\x7fELF\x01" + bytes(23) + struct.pack("=I", 52) + bytes(10) + struct.pack("=HH", 32, 2) + bytes(6)
        entry = struct.pack("=IIIII", 3, 116, 0, 0, 8)
    size = 56 if word == 8 else 32
    assert len(head) == (64 if word == 8 else 52)
    assert started_by(tmp_path / "file", head + bytes(size) + entry.ljust(size, b"\0") + b"/lib/ld\0") == "/lib/ld"


def test_what_is_ones_own_is_within_reach_even_when_it_cannot_be_written(tmp_path: Path) -> None:
    own = tmp_path / "python"
    own.touch(0o500)
    assert not interpreter.is_out_of_reach(str(own))
    assert interpreter.is_out_of_reach(str(tmp_path / "nothing"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to all of this")
def test_what_is_the_hosts_is_out_of_reach_unless_all_may_write() -> None:
    assert interpreter.is_out_of_reach("/bin/sh")
    assert not interpreter.is_out_of_reach("/tmp")


def test_a_worker_of_a_python_out_of_reach_is_started_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "is_out_of_reach", lambda path: True)
    assert interpreter.worker_command("rootless.x", "word")[:3] == [sys.executable, "-I", "-S"]


def test_a_worker_of_a_python_within_reach_is_started_by_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "is_out_of_reach", lambda path: path != sys.executable)
    loader, program, isolated, *_ = interpreter.worker_command("rootless.x")
    assert os.path.basename(loader).startswith("ld") and program == os.path.realpath(sys.executable)
    assert isolated == "-I"


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((2, 36), ["/ld", "--argv0", "{link}", "{file}"]),
        ((2, 31), ["/ld", "--library-path", "{lib}", "{link}"]),
    ],
)
def test_a_venv_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], expected: list[str]
) -> None:
    """Its Python is a link, and pyvenv.cfg lies beside the link."""
    (tmp_path / "base/bin").mkdir(parents=True)
    file, link = tmp_path / "base/bin/python3", tmp_path / "python"
    file.touch()
    link.symlink_to(file)
    monkeypatch.setattr(interpreter, "_glibc_version", lambda: version)
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    words = [word.format(link=link, file=file, lib=tmp_path / "base/lib") for word in expected]
    assert interpreter._restart_words("/ld", str(link)) == words
    assert interpreter._restart_words("/ld", str(file)) == ["/ld", str(file)]
