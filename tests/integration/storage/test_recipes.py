"""Any archive that can be unpacked can be made again from its tree, byte by byte; a changed tree is noticed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rootless.errors import InvalidInput, RootlessError
from rootless.host import userns
from rootless.records.id_map import IdMap
from rootless.storage.layers import worker_client
from rootless.storage.layers.apply import Applier
from rootless.storage.layers.attributes import LayerAttributes
from rootless.storage.layers.jobs import VerifyJob
from rootless.storage.layers.layer_record import LostAttributes
from rootless.storage.layers.replaced import take_out
from rootless.storage.layers.verify import verify_layer
from rootless.storage.store.store import Store
from rootless.storage.tar.inflate import Inflated
from rootless.storage.tar.recipe import RecipeWriter
from rootless.storage.tar.tarstream import TarStream

from .conftest import Archive, Unpacker

NAMES = ["a", "b", "a/b", "a/b/c", "d/", "d/e", "l", "l/x", "d/l/y", "./a", "/b", "n" * 150, "d/" + "m" * 120,
         ".wh.a", "d/.wh.e", "d/.wh..wh..opq", ".wh..wh.plnk", "a/.wh.b", "é\udcff"]  # fmt: skip
TARGETS = ["a", "b", "d/e", "/a", "d", "nowhere", "../d"]
KINDS = [tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE,
         tarfile.CHRTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, b"D"]  # fmt: skip
MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from(KINDS),
        st.sampled_from([0, 1, 511, 512, 513, 70_000]),
        st.sampled_from(TARGETS),
        st.sampled_from([0o644, 0o4755, 0o1777, 0o000]),
        st.sampled_from([0, 1, 7, 1 << 21, (1 << 32) - 2]),
        st.sampled_from([0, 1_600_000_000, 1_600_000_000.25]),
    ),
    max_size=14,
)
FORMATS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
TAILS = st.sampled_from([b"", bytes(512), bytes(10_240), b"not zeros", bytes(700_000) + b"end"])


def make(members: list[Any], form: int, tail: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as tar:
        for name, kind, size, target, mode, owner, mtime in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            has_content = kind in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, b"D")
            member.size = size if has_content else 0
            member.linkname = target if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            member.mode, member.uid, member.gid = mode, owner, owner
            member.mtime = mtime  # type: ignore[assignment]
            if form == tarfile.PAX_FORMAT:
                member.pax_headers = {"SCHILY.xattr.user.test": "value"}
            try:
                tar.addfile(member, io.BytesIO(random.Random(name).randbytes(size)) if has_content else None)
            except ValueError:
                continue  # ustar cannot say it
    return out.getvalue() + tail


def round_trip(id_map: IdMap, tar: bytes, place: str) -> dict[str, Any]:
    """Unpack, make again, verify: in this process, which is inside the namespace."""
    directory = tempfile.mkdtemp(dir=place)
    try:
        os.mkdir(f"{directory}/diff", 0o755)
        uids, gids = ([(e.container, e.size) for e in ids] for ids in (id_map.uids, id_map.gids))
        attributes = LayerAttributes(uids, gids, single=id_map.kind == "single")
        root = os.open(f"{directory}/diff", os.O_RDONLY)
        with tempfile.TemporaryFile(dir=place) as file, RecipeWriter.create(directory) as recipe:
            file.write(tar)
            file.seek(0)
            source = Inflated(file.fileno(), Inflated.codec(file.fileno()), recipe)
            applier = Applier(root, attributes, recipe)
            applier.apply(TarStream(source), source)
            diff_id = source.drain()
        if applier.replaced.name:
            take_out(f"{directory}/diff", applier.replaced.name)
        if attributes.noted:
            Path(directory, "owners").write_bytes(b"".join(attributes.noted))
        assert recipe.tar_size == len(tar)
        old = os.getcwd()
        found = verify_here(VerifyJob(directory, attributes.lost, None), id_map)
        os.chdir(old)
        return {**found, "links": len(applier.links), "unpacked": diff_id}
    except InvalidInput as e:
        return {"refused": e.message}
    finally:
        os.close(root)
        shutil.rmtree(directory, ignore_errors=True)


def verify_here(job: VerifyJob, id_map: IdMap) -> dict[str, Any]:
    """`verify` goes into the directory as its root; a child of its own does."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            answer = json.dumps(verify_layer(job, id_map, lambda: os.chroot(job.directory)).to_json()).encode()
        except RootlessError as e:
            answer = json.dumps({"error": e.message}).encode()
        os.write(write, answer)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        found: dict[str, Any] = json.loads(pipe.read() or b'{"error": "died"}')
    os.waitpid(pid, 0)
    return found


@given(members=MEMBERS, form=FORMATS, tail=TAILS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_unpacked_and_made_again(store: Store, members: list[Any], form: int, tail: bytes) -> None:
    tar = make(members, form, tail)
    place = store.path("incoming")
    found = json.loads(
        userns.call_in_new_namespace(store.id_map, lambda: json.dumps(round_trip(store.id_map, tar, place)).encode())
    )
    if "refused" in found:
        return
    assert found.get("diff_id") == found["unpacked"] == f"sha256:{hashlib.sha256(tar).hexdigest()}", found
    if not found["links"]:  # what lower layers would have is made afterwards
        assert found["texts"] == []


def test_replaced_content_is_kept_for_the_recipe(unpacker: Unpacker) -> None:
    """Files, whole directories, through links of the layer itself, several times."""
    archive = (
        Archive()
        .directory("real")
        .symlink("link", "real")
        .file("link/a", b"one" * 1000)
        .file("real/a", b"two" * 1000)
        .file("link/a", b"three" * 1000)
        .directory("gone")
        .file("gone/x", b"x" * 3000)
        .link("gone/y", "gone/x")
        .symlink("gone", "real")
        .file("gone/a", b"four" * 1000)
        .file("big", b"B" * 300_000)
        .file("big", b"")
    )
    diff = unpacker.layer(archive)
    assert (diff / "real/a").read_bytes() == b"four" * 1000
    assert sorted(os.listdir(diff)) == ["big", "gone", "link", "real"]
    assert sorted(os.listdir(diff.parent)) == ["diff", "layer.json", "recipe.zst", "replaced"]


def test_an_archive_cannot_reach_what_was_replaced(unpacker: Unpacker) -> None:
    archive = Archive().file("a", b"1" * 600).file("a", b"2" * 600).symlink("l", ".wh..wh.replaced").file("l/0", b"3")
    with pytest.raises(InvalidInput):
        unpacker.layer(archive)


def test_no_compressed_bytes_and_a_small_recipe(unpacker: Unpacker, store: Store) -> None:
    archive = Archive()
    for number in range(500):
        archive.file(f"d/{number}", os.urandom(400))
    diff = unpacker.layer(archive)
    assert os.listdir(store.blobs.directory) == []
    assert (diff.parent / "recipe.zst").stat().st_size < 500 * 60


def damage(path: Path, how: str) -> None:
    target = path / "d/f"
    if how == "content":
        status = target.stat()
        target.write_bytes(b"X" * status.st_size)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif how == "short":
        os.truncate(target, 3)
    elif how == "missing":
        target.unlink()
    elif how == "mode":
        target.chmod(0o600)
    elif how == "time":
        os.utime(target, (1, 1))
    elif how == "xattr":
        os.removexattr(target, "user.kept")
    elif how == "more xattr":
        os.setxattr(target, "user.more", b"1")
    elif how == "kind":
        target.unlink()
        target.symlink_to("elsewhere")
    elif how == "more":
        (path / "d/more").write_text("x")
    elif how == "whiteout":
        next(entry for entry in path.glob("*gone")).unlink()
    elif how == "link":
        (path / "s").unlink()
        (path / "s").symlink_to("other")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("content", "its content has changed"),
        ("short", "has 3 bytes instead of 1000"),
        ("missing", "'d/f' is missing"),
        ("mode", "mode 0600 instead of 0644"),
        ("time", "has another time"),
        ("xattr", "lacks the attribute user.kept"),
        ("more xattr", "user.more that is not of the layer"),
        ("kind", "another kind of file"),
        ("more", "'d/more' is not of the layer"),
        ("whiteout", "the mark that deletes 'gone' is missing"),
        ("link", "'s' is a link to something else"),
    ],
)
def test_damage_is_noticed(unpacker: Unpacker, store: Store, how: str, words: str) -> None:
    archive = (
        Archive()
        .directory("d")
        .file("d/f", b"abcde" * 200, pax_headers={"SCHILY.xattr.user.kept": "1"})
        .symlink("s", "d/f")
        .file(".wh.gone")
    )
    lower = unpacker.layer(Archive().file("gone"))
    diff = unpacker.layer(archive)
    damage(diff, how)
    job = VerifyJob(store.layers.path(unpacker.chains[1]), LostAttributes(), [str(lower)])
    found = worker_client.run_job(job, store.id_map)
    assert found.count and any(words in text for text in found.texts), found.texts


def test_a_damaged_tree_makes_no_archive(unpacker: Unpacker, store: Store) -> None:
    """A reader of the tar hears of it: a missing file at once, changed bytes by the digest."""
    diff = unpacker.layer(Archive().file("f", b"x" * 500_000).file("g", b"y" * 100))
    (diff / "g").unlink()
    tar = worker_client.Rebuilt([store.layers.path(unpacker.chains[0])], store.id_map)
    with pytest.raises(InvalidInput, match="'g'"):
        while tar.read(1 << 16):
            pass
    tar.close()


def test_a_reader_may_stop_early(unpacker: Unpacker, store: Store) -> None:
    unpacker.layer(Archive().file("f", os.urandom(5 << 20)))
    tar = worker_client.Rebuilt([store.layers.path(unpacker.chains[0])], store.id_map)
    assert tar.read(100)
    tar.close()
    tar.close()
