"""Who owns what a build makes, with a range of ids and with one: the layers are the same."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Runner

from .conftest import Build, layers

SETUP = """FROM busybox
RUN echo app:x:1234:1234::/home/app:/bin/sh >> /etc/passwd; mkdir /home/app; chown 1234:1234 /home/app
RUN mkdir /srv && chown app:1234 /srv && mknod /pipe p && chown 7 /pipe
RUN cd /srv && echo x > x && chown app x && sed -i s/x/y/ x && ln -s x l && chown -h app:1234 l
USER app
RUN echo mine > /home/app/mine && mkdir /home/app/d && touch /tmp/t && ln -s mine /home/app/l
USER root
RUN touch /root/x
"""


def test_owners_are_those_of_the_users(build: Build, context: Path, busybox: Runner) -> None:
    build(SETUP, "-t", "owners")
    found: dict[str, tuple[int, int]] = {}
    for layer in layers(busybox, "owners", context):
        found.update({m.name.strip("/").removeprefix("./"): (m.uid, m.gid) for m in layer})
    wanted = {
        "home/app": (1234, 1234),
        "home/app/mine": (1234, 1234),
        "home/app/d": (1234, 1234),
        "home/app/l": (1234, 1234),
        "tmp/t": (1234, 1234),
        "tmp": (0, 0),
        "srv": (1234, 1234),
        "srv/x": (1234, 0),
        "srv/l": (1234, 1234),
        "pipe": (7, 0),
        "etc/passwd": (0, 0),
        "root/x": (0, 0),
    }
    assert {name: found[name] for name in wanted} == wanted
