"""A login node that gave its users no subordinate ids: one id, and everything that can be had with it."""

from __future__ import annotations

import tarfile
from pathlib import Path

from tests.conftest import Runner


def test_images_containers_and_volumes_with_one_id(here: Runner, home: Path) -> None:
    here("image", "bootstrap", "busybox")
    seen = here(
        "run", "--rm", "-v", "data:/data", "busybox", "sh", "-c", "id -u; echo kept > /data/f; cat /proc/self/uid_map"
    )
    assert seen.stdout.split()[0] == "0"
    assert seen.stdout.split()[-1] == "1"
    assert here("run", "--rm", "-v", "data:/data:ro", "busybox", "cat", "/data/f").stdout == "kept\n"
    foreign = [path for path in home.rglob("*") if path.lstat().st_uid != home.stat().st_uid]
    assert not foreign


def test_doctor_says_what_is_lost_and_how_to_get_it(here: Runner) -> None:
    said = here("doctor", check=False).stdout
    assert "does not id_ranges" in said
    assert "usermod --add-subuids" in said or "/etc/subuid" in said


def test_what_a_build_chowns_is_so_in_the_image(here: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN touch /f && chown 5:60 /f\n")
    here("build", "-t", "owned", str(tmp_path))
    archive = tmp_path / "owned.tar"
    here("save", "-o", str(archive), "owned")
    owners = {}
    with tarfile.open(archive) as image:
        for member in image:
            if member.name.endswith(".tar"):
                with tarfile.open(fileobj=image.extractfile(member)) as layer:
                    owners.update({entry.name.lstrip("./"): (entry.uid, entry.gid) for entry in layer})
    assert owners["f"] == (5, 60)
