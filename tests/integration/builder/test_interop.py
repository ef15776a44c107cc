"""The same Dockerfile built by buildah gives the same tree: names, kinds, modes, owners, contents, links."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.conftest import Runner, owns_range, require
from tests.integration.builder.conftest import Build

DOCKERFILE = """
FROM localhost/base:latest
ARG WORD=word
ENV PLACE=/opt/app
WORKDIR $PLACE/deep
COPY a.txt b.md ./
COPY tree /copied
COPY tree/ /slash/
COPY a.txt /new/dir/name
COPY *.txt /wild/
COPY --chown=12:34 tree /owned/tree
COPY --chown=56 a.txt /owned/
COPY --chmod=0711 a.txt /mode
ADD files.tar.gz /unpacked/
RUN mkdir -p /run/made && echo $WORD > /run/made/word && chmod 2750 /run/made && ln -s ../tree /run/made/link
RUN rm /copied/one && rm -r /slash/sub && mkdir /slash/sub && touch /slash/sub/again && chown 7:7 /slash/sub/again
USER 99:98
RUN touch /tmp/mine
WORKDIR /last
"""
# what each tool leaves at places where it mounts something while a step runs
SKIPPED = ("etc/hosts", "etc/resolv.conf", "etc/hostname", "proc", "sys", "dev", "run", "etc/mtab", "run/.containerenv")
SKIPPED_BELOW = ("proc/", "sys/", "dev/", "run/secrets")


def foreign(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Of another user."""
    member.uid, member.gid, member.mtime = 5, 6, 1000
    return member


def make_context(context: Path) -> None:
    (context / "tree/sub").mkdir(parents=True)
    for name, mode in (("a.txt", 0o640), ("b.md", 0o600), ("tree/one", 0o644), ("tree/sub/two", 0o755)):
        (context / name).write_text(f"content of {name}")
        (context / name).chmod(mode)
    (context / "tree").chmod(0o750)
    (context / "tree/sub").chmod(0o711)
    (context / "tree/link").symlink_to("sub/two")
    os.link(context / "tree/one", context / "tree/hard")
    with tarfile.open(context / "files.tar.gz", "w:gz") as archive:
        archive.add(context / "tree", "packed", filter=foreign)


def tree(path: Path) -> dict[str, tuple]:
    """Everything in a tar that both tools must agree on."""
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.rstrip("/")
            if name in SKIPPED or name.startswith(SKIPPED_BELOW):
                continue
            file = archive.extractfile(member) if member.isreg() or member.islnk() else None
            content = hashlib.sha256(file.read()).hexdigest() if file is not None else ""
            kind = "file" if member.isreg() or member.islnk() else member.type
            link = member.linkname if member.issym() else ""
            found[name] = kind, member.mode, member.uid, member.gid, link, content
    return found


def test_buildah_makes_the_same_tree(build: Build, context: Path, busybox: Runner) -> None:
    require(owns_range(), "files of several owners need a user that has a range of ids")
    require(shutil.which("buildah"), "no buildah on this host (apt-get install buildah)")
    make_context(context)
    home = context / "home"
    home.mkdir()
    environment = {"HOME": str(home), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "XDG_RUNTIME_DIR": str(home)}

    def buildah(*arguments: str) -> None:
        done = subprocess.run(
            ["buildah", "--storage-driver", "vfs", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr

    busybox("tag", "busybox", "localhost/base:latest")
    busybox("save", "-o", str(context / "base.tar"), "localhost/base:latest")
    (context / ".dockerignore").write_text("home\n*.tar\n")
    try:
        buildah("pull", f"docker-archive:{context / 'base.tar'}")
        (context / "Dockerfile").write_text(DOCKERFILE)
        buildah("bud", "--isolation=chroot", "-q", "-t", "localhost/theirs", str(context))
        buildah("push", "-q", "localhost/theirs", f"docker-archive:{context / 'theirs.tar'}:localhost/theirs:latest")
    finally:
        subprocess.run(["buildah", "unshare", "rm", "-rf", str(home)], env=environment, timeout=100)
    busybox("load", "-i", str(context / "theirs.tar"))
    build(DOCKERFILE, "-t", "localhost/ours", "--network=none")
    for name in ("ours", "theirs"):
        output = f"type=tar,dest={context / f'{name}-tree.tar'}"
        busybox("build", "-q", "-o", output, "-", input=f"FROM localhost/{name}:latest\n")
    ours, theirs = tree(context / "ours-tree.tar"), tree(context / "theirs-tree.tar")
    differences = {
        name: (ours.get(name), theirs.get(name))
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    }
    assert not differences
