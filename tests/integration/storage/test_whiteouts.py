"""Whiteouts of what no layer below has: usual in squashed images, and never to be seen."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from pathlib import Path

from rootless.host import userns
from rootless.storage.layers import worker_client
from rootless.storage.layers.jobs import VerifyJob
from rootless.storage.store.store import Store
from tests.conftest import Runner, require

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

    userns.call_in_new_namespace(store.id_map, as_before)
    record = store.layers.record(chain)
    found = worker_client.run_job(
        VerifyJob(store.layers.path(chain), record.content.lost, store.layers.lowers_of(record)), store.id_map
    )
    assert found.texts == ["the mark that deletes 'q/never' deletes nothing, and shows"]

    store.layers.replace(chain, record.parent, record.content.diff_id, io.BytesIO(tar))
    assert sorted(os.listdir(diff / "q")) == [] and os.listdir(diff / "deleted") == ["x"]
    unpacker.check(chain, record.content.diff_id)


def test_commands_walk_a_directory_of_needless_whiteouts(rootless: Runner, tmp_path: Path) -> None:
    """`ls`, `cp -r`, a new volume, `cp` and COPY --from looked at the name that could not be looked at, and failed."""
    require(Path("/bin/busybox").exists(), "no /bin/busybox on this host (apt-get install busybox-static)")
    base = Archive().file("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755)
    layers = [base.tar(), Archive().directory("q").file("q/a", b"a").file("q/.wh.never").tar()]
    diff_ids = [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in layers]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    with tarfile.open(tmp_path / "image.tar", "w") as archive:
        contents = {f"{number}.tar": tar for number, tar in enumerate(layers)}
        contents["c.json"] = json.dumps(config).encode()
        listed = [{"Config": "c.json", "RepoTags": ["squashed:1"], "Layers": ["0.tar", "1.tar"]}]
        contents["manifest.json"] = json.dumps(listed).encode()
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    rootless("load", "-i", str(tmp_path / "image.tar"))
    command = "/bin/busybox ls -l /q && /bin/busybox cp -r /q /copy && /bin/busybox ls /copy"
    done = rootless("run", "--name", "c", "-v", "v:/q", "squashed:1", "/bin/busybox", "sh", "-c", command)
    assert done.stdout.split()[-1] == "a" and "never" not in done.stderr
    rootless("cp", "c:/copy", str(tmp_path / "out"))
    assert os.listdir(tmp_path / "out") == ["a"]
    (tmp_path / "Dockerfile").write_text(
        'FROM squashed:1\nCOPY --from=squashed:1 /q /r\nRUN ["/bin/busybox", "cp", "-r", "/q", "/s"]\n'
    )
    rootless("build", "-t", "built", str(tmp_path))
    done = rootless("run", "--rm", "built", "/bin/busybox", "ls", "/q", "/r", "/s")
    assert done.stdout.split().count("a") == 3
