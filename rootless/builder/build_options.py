"""What `rootless build` takes and gives: immutable values, no behaviour."""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from rootless.errors import UsageError


class BuildOptions(NamedTuple):
    """The flags of `rootless build`, one field each. Repeatable flags are tuples; texts are as the user typed them.

    context: directory, `-` (a tar or a Dockerfile on stdin), git or http(s) URL. file: Dockerfile, `-` for stdin, ""
    for the usual one. cache_from, cache_to, output, secret, ssh: docker's `type=...,key=value`. timestamp: seconds
    since the epoch, None without; jobs: stages at a time, 0 for as many as there are processors.
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
    """What a build has made.

    image_id: of the image, of the first one of several platforms, "" when none was stored; manifest_digest: of its
    manifest, or of the index of several platforms; names: the full references that it was given.
    """

    image_id: str
    manifest_digest: str
    names: tuple[str, ...] = ()


def parse_fields(text: str, flag: str, known: Set[str]) -> dict[str, str]:
    """The fields of `text`, a line of CSV as docker's flags have it: `key=value,"key=value, with a comma"`.

    A key without `=` has the value "". known: keys that there are. Raises UsageError that names the flag.
    """
    import csv

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as e:
        raise UsageError(f"{flag}: '{text}': {e}") from None
    fields: dict[str, str] = {}
    for word in rows[0] if rows else []:
        name, _, value = word.partition("=")
        name = name.strip().lower()
        if name not in known:
            raise UsageError(
                f"{flag}: unknown field '{name}' in '{text}'", hint=f"known are {', '.join(sorted(known))}"
            )
        fields[name] = value
    return fields
