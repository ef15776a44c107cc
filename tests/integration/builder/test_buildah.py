"""The same Dockerfile through buildah: equal image configs, equal files."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Runner, make_private_directory, owns_range, remove_private_directory, require

CONFIG = r"""
ARG BASE=scratch
FROM ${BASE}
ARG A=one
ENV X=1 Y="a b" Z='$A' W="$A" V=a\ b U=${A:-d} T=${N:-d} S=${A:+s} R=x$A.y Q="\$A" P='it"s' O="\"q\"" \
    # a comment between

    M=last
ENV old  some value  with "quotes" 90
LABEL "com.example.vendor"="ACME \
Inc" multi="x \
y" plain=v esc="a\\b" nl="a\nb"
EXPOSE 80 443/tcp 53/udp 8000
VOLUME ["/data", "/x y"]
VOLUME /v1 /v2
WORKDIR /a
WORKDIR b
WORKDIR ../c/$A
USER 1000:$X
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=1m --retries=2 CMD curl -f "http://$A"
CMD echo $A "b c"
ENTRYPOINT ["/e", "$A"]
ONBUILD RUN echo "x  y"
MAINTAINER me
"""

FILES = r"""
FROM scratch AS first
COPY --chown=3:4 . /all/
FROM scratch
COPY --from=first /all /all
COPY a* "/plain/"
COPY ["[b-d]/*.txt", "/sp ace/"]
COPY b? /question/
"""

IGNORE = """
# a comment
**/*.o
!keep/x.o
out
!out/in
*/temp?
Dockerfile*
"""


class Buildah:
    """buildah with a home of its own."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def __call__(self, *arguments: str | Path) -> str:
        done = subprocess.run(
            ["buildah", "--storage-driver", "vfs", *map(str, arguments)],
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(self._home)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def buildah() -> Iterator[Buildah]:
    require(shutil.which("buildah"), "no buildah on this host (apt-get install buildah)")
    require(owns_range(), "buildah needs a user that has a range of ids")
    home = make_private_directory("b")
    yield Buildah(home)
    subprocess.run(
        ["buildah", "unshare", "rm", "-rf", str(home / ".local")], env={"PATH": "/usr/bin:/bin", "HOME": str(home)}
    )
    remove_private_directory(home)


def context(directory: Path) -> Path:
    for name in ("a1", "a2/x", "b/one.txt", "b/two.txt", "c/three.txt", "c/s.o", "keep/x.o", "keep/y.o", "out/in/f",
                 "out/g", "d/temp1", "d/temp", "b1/f", "e/deep/er/file", "bc d.txt", "[x].txt"):  # fmt: skip
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (directory / "a1").chmod(0o6751)
    (directory / "e/deep").chmod(0o3750)
    (directory / "link").symlink_to("b/one.txt")
    (directory / "e/dangling").symlink_to("/nowhere")
    return directory


def test_equal_configs(rootless: Runner, buildah: Buildah, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(CONFIG)
    rootless("build", "-q", "-t", "x", str(tmp_path))
    buildah("bud", "--isolation", "chroot", "-q", "--format", "docker", "-t", "x", tmp_path)
    ours: dict[str, Any] = json.loads(rootless("image", "inspect", "x").stdout)[0]
    theirs: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", "x"))["Docker"]
    del theirs["config"]["Labels"]["io.buildah.version"]
    for name in ("Env", "Labels", "ExposedPorts", "Volumes", "WorkingDir", "User", "StopSignal", "Healthcheck", "Cmd",
                 "Entrypoint", "OnBuild"):  # fmt: skip
        assert ours["Config"][name] == theirs["config"][name], name
    assert ours["Author"] == theirs["author"]


def listing(archive: tarfile.TarFile) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for member in archive:
        name = member.name.removeprefix("./").strip("/")
        content = archive.extractfile(member) if member.isreg() else None
        if name and name != ".":
            found[name] = (member.type, oct(member.mode & 0o7777), member.uid, member.gid, member.linkname,
                           content.read() if content else b"")  # fmt: skip
    return found


def test_equal_files(rootless: Runner, buildah: Buildah, tmp_path: Path) -> None:
    directory = context(tmp_path / "context")
    (directory / "Dockerfile").write_text(FILES)
    (directory / ".dockerignore").write_text(IGNORE)
    rootless("build", "-q", "-o", f"type=tar,dest={tmp_path / 'ours.tar'}", str(directory))
    with tarfile.open(tmp_path / "ours.tar") as archive:
        ours = listing(archive)
    buildah("bud", "--isolation", "chroot", "-q", "-t", "x", directory)
    buildah("push", "-q", "x", f"oci:{tmp_path / 'theirs'}")
    blobs = tmp_path / "theirs/blobs/sha256"
    index = json.loads((tmp_path / "theirs/index.json").read_text())
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    theirs: dict[str, tuple[object, ...]] = {}
    for layer in manifest["layers"]:
        with tarfile.open(blobs / layer["digest"][7:]) as archive:
            theirs |= listing(archive)
    assert sorted(ours) == sorted(theirs)
    assert ours == theirs
