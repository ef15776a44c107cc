"""The digest that a copy makes on the way is the one that reading the same files would make."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rootless.builder.context.context_files import Match
from rootless.builder.context.digests import Content, Known
from rootless.builder.context.ignore import Exclusions
from rootless.builder.worker.placed_attributes import Rules
from rootless.builder.worker.placing import Placer
from rootless.errors import InvalidInput


def test_a_copy_makes_the_digest_of_what_it_copies(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "dir/inner").mkdir(parents=True)
    (target / "to").mkdir(parents=True)  # a directory that the copy makes would be root's, which only root may give
    (source / "dir/small").write_text("small")
    (source / "dir/empty").touch()
    (source / "dir/large").write_bytes(os.urandom(300_000))
    with open(source / "dir/holes", "wb") as file:
        file.truncate(50_000)
    os.link(source / "dir/small", source / "dir/inner/second name")
    (source / "dir/link").symlink_to("small")
    os.mkfifo(source / "dir/pipe")
    (source / "dir/small").chmod(0o751)
    (source / "dir/excluded").touch()
    (source / "single").write_text("one")
    fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    matches = [Match("dir", "dir", "dir", True), Match("single", "single", "single", False)]
    exclusions = Exclusions("", ("dir/excluded",))

    read = Content(Known(None), owned=True)
    for match in matches:
        read.add(fd, match, exclusions)
    copied = Content(Known(None), owned=True)
    rules = Rules(None, None, 0, is_owned=True)
    placer = Placer(os.open(target, os.O_RDONLY | os.O_DIRECTORY), rules, copied)
    for match in matches:
        placer.copy(fd, match, "/to/", parents=False, exclusions=exclusions)
    placer.finish()

    assert copied.hexdigest() == read.hexdigest()
    for name in ("dir/small", "dir/empty", "dir/large", "dir/holes", "dir/inner/second name", "single"):
        made, given = target / "to" / name.removeprefix("dir/"), source / name
        assert made.read_bytes() == given.read_bytes()
        assert made.stat().st_mode == given.stat().st_mode
        assert made.stat().st_mtime_ns == given.stat().st_mtime_ns
    assert (target / "to/holes").stat().st_blocks == 0


@pytest.mark.parametrize("kind", ["file", "link", "pipe"])
def test_an_owner_out_of_the_range_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))  # chown(2) for an id that the namespace does not map

    monkeypatch.setattr(os, "chown", refuse)
    monkeypatch.setattr(os, "fchown", refuse)
    source, target = (os.open(each, os.O_RDONLY | os.O_DIRECTORY) for each in (tmp_path, tmp_path / "to"))
    placer = Placer(target, Rules((4_000_000_000, 1), None, 0))
    with pytest.raises(InvalidInput, match="owner 4000000000:1 is not in your range") as raised:
        placer.copy(source, Match(kind, kind, kind, False), "/", parents=False, exclusions=Exclusions("", ()))
    assert raised.value.hint
