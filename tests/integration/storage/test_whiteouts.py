"""Whiteouts of what no layer below has: usual in squashed images, and never to be seen."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

from rootless.host import userns
from rootless.storage.layers import worker_client
from rootless.storage.layers.jobs import VerifyJob
from rootless.storage.store.store import Store

from .conftest import Archive, Mounted, Unpacker


def names_in(target: str) -> str:
    """All that `find -ls` would look at below the root of a container: a name without a file raises."""
    found = []
    for directory, names, files in os.walk(target):
        for name in (*names, *files):
            os.lstat(os.path.join(directory, name))
            found.append(os.path.relpath(os.path.join(directory, name), target))
    return " ".join(sorted(found))


def test_nothing_shows_of_a_whiteout_that_deletes_nothing(mounted: Mounted) -> None:
    unpacker = mounted.unpacker
    unpacker.layer(Archive().directory("q").file("q/a").file("q/.wh.never").file(".wh.none"))
    assert mounted.run(names_in) == "q q/a"
    unpacker.layer(Archive().directory("r").file("r/.wh.never").file("s/.wh.never").file("q/.wh.never"))
    assert mounted.run(names_in) == "q q/a r s"
    # a layer between has deleted it: by its directory, by its name, or as a whole
    unpacker.layer(Archive().file("t/x").file("u/x").file("v/x"))
    unpacker.layer(Archive().file(".wh.t").file("u/.wh.x").file("v/.wh..wh..opq"))
    unpacker.layer(Archive().directory("t").file("t/.wh.x").file("u/.wh.x").file("v/.wh.x").file("v/.wh.y"))
    assert mounted.run(names_in) == "q q/a r s t u v"
    # and a mark that is needed stays, with the names of its siblings and the time of its directory
    diff = unpacker.layer(Archive().directory("q", mtime=1_500_000_000).file("q/.wh.a").file("q/.wh.b"))
    assert mounted.run(names_in) == "q r s t u v"
    assert stat.S_ISCHR(os.lstat(diff / "q/a").st_mode) and not os.path.lexists(diff / "q/b")
    assert os.stat(diff / "q").st_mtime == 1_500_000_000


def test_a_file_over_a_directory_hides_what_was_in_it(mounted: Mounted) -> None:
    unpacker = mounted.unpacker
    unpacker.layer(Archive().file("d/x").symlink("l", "d").file("f/x"))
    unpacker.layer(Archive().file("f").symlink("d", "elsewhere"))
    unpacker.layer(Archive().directory("d").file("d/.wh.x").file("f/.wh.x").directory("l").file("l/.wh.x"))
    assert mounted.run(names_in) == "d f l"


def test_check_finds_what_earlier_versions_have_left_and_repair_mends_it(unpacker: Unpacker) -> None:
    store: Store = unpacker.store
    unpacker.layer(Archive().file("deleted/x").directory("kept").file("kept/x"))
    archive = Archive().directory("q").file("q/.wh.never").file("deleted/.wh.x").file("kept/.wh.never")
    tar = archive.tar()
    diff = unpacker.layer(tar)
    chain = unpacker.chains[-1]

    def as_before() -> bytes:
        for name in ("q/never", "kept/never"):
            os.mknod(diff / name, stat.S_IFCHR, 0)
            os.utime(diff / Path(name).parent, (1_600_000_000, 1_600_000_000))
        return b""

    userns.call(store.id_map, as_before)
    record = store.layers.record(chain)
    found = worker_client.run(
        VerifyJob(store.layers.path(chain), record.content.lost, store.layers.lowers_of(record)), store.id_map
    )
    assert found.texts == ["the mark that deletes 'q/never' deletes nothing, and shows"]

    store.layers.replace(chain, record.parent, record.content.diff_id, io.BytesIO(tar))
    assert sorted(os.listdir(diff / "q")) == [] and os.listdir(diff / "deleted") == ["x"]
    unpacker.check(chain, record.content.diff_id)
