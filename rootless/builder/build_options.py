"""What `rootless build` takes and gives: immutable values, no behaviour."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class BuildOptions(NamedTuple):
    """One field per flag; lists as tuples, texts as the user typed them.

    context: directory, `-` (a tar or a Dockerfile on stdin), git or http(s) URL. file: Dockerfile, `-` for stdin, ""
    for the usual one. cache_from, cache_to, output, secret, ssh: docker's `type=...,key=value`.
    """

    context: str = "."
    file: str = ""
    tag: tuple[str, ...] = ()
    target: str = ""
    build_arg: tuple[str, ...] = ()
    build_context: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    annotation: tuple[str, ...] = ()
    secret: tuple[str, ...] = ()
    ssh: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    add_host: tuple[str, ...] = ()
    ulimit: tuple[str, ...] = ()
    shm_size: str | None = None
    network: str | None = None
    security_opt: tuple[str, ...] = ()
    platform: tuple[str, ...] = ()
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    pull: bool = False
    output: tuple[str, ...] = ()
    push: bool = False
    load: bool = False
    iidfile: str = ""
    metadata_file: str = ""
    squash: bool = False
    timestamp: int | None = None
    jobs: int = 0
    debug_shell: bool = False


class BuildResult(NamedTuple):
    """image_id: of the (first) image, "" when none was stored; names: full references given to it."""

    image_id: str
    manifest_digest: str
    names: tuple[str, ...] = ()


class StepEvent(NamedTuple):
    """Something that happened in a step, for the progress display.

    number: from 1 in order of appearance; kind: "start" (text: the step's title), "output" (bytes of the command),
    "log" (text), "cached", "done" (text: "" or a remark), "error" (text), "total" (number: steps in all).
    """

    number: int
    kind: str
    text: str = ""
    output: bytes = b""


Report = Callable[[StepEvent], None]
