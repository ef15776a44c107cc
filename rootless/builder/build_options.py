"""What `rootless build` takes and gives, as immutable values; values of flags that are refused."""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from typing import NamedTuple

from rootless.errors import UsageError


class BuildOptions(NamedTuple):
    """The flags of `rootless build`, one field each. Repeatable flags are tuples; texts are as the user typed them.

    context: directory, `-` (a tar or a Dockerfile on stdin), git or http(s) URL. file: Dockerfile, `-` for stdin, ""
    for the usual one. cache_from, cache_to, output, secret, ssh: docker's `type=...,key=value`. timestamp: seconds
    since the epoch, None without; jobs: stages at a time, 0 for as many as there are processors. format: oci or docker,
    the manifest's; volume: podman's, host directories for RUN. builder, rm, force_rm, userns, provenance, sbom and
    attest are docker's and podman's, whose values `check_foreign` checks.
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
    format: str = "oci"
    layers: bool = True
    volume: tuple[str, ...] = ()
    builder: str = ""
    rm: bool = True
    force_rm: bool = False
    userns: str = ""
    provenance: str = ""
    sbom: str = ""
    attest: tuple[str, ...] = ()


class BuildResult(NamedTuple):
    """What a build has made.

    image_id: of the image, of the first one of several platforms, "" when none was stored; manifest_digest: of its
    manifest, or of the index of several platforms; names: the full references that it was given.
    """

    image_id: str
    manifest_digest: str
    names: tuple[str, ...] = ()


def given_build_args(options: BuildOptions) -> dict[str, str]:
    """The values of --build-arg by name. NAME alone takes its value from the environment, if that has it.

    Raises UsageError.
    """
    found = {}
    for text in options.build_arg:
        name, equals, value = text.partition("=")
        if not name:
            raise UsageError(f"invalid --build-arg '{text}'", hint="write NAME=VALUE, or NAME for your own variable")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


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


_TRUE, _FALSE = ("true", "1", "t"), ("false", "0", "f")


def parse_truth(fields: Mapping[str, str], name: str, flag: str, *, default: bool) -> bool:
    """The field `name` as a boolean, which is true where it has no value. Raises UsageError that names the flag."""
    text = fields.get(name)
    if text is None:
        return default
    if text.lower() not in ("", *_TRUE, *_FALSE):
        raise UsageError(f"{flag}: {name} is true or false, not '{text}'")
    return text.lower() not in _FALSE


def check_foreign(options: BuildOptions) -> None:
    """Raise UsageError where a flag of buildx or podman asks for something else than what a build does here."""
    if options.builder not in ("", "default"):
        hint = "there is one builder, called default: leave --builder away"
        raise UsageError(f"no builder '{options.builder}'", hint=hint)
    if not options.rm:
        hint = "`--debug-shell` enters the state before a step that fails"
        raise UsageError("--rm=false: a step leaves no container behind that could be kept", hint=hint)
    if options.userns not in ("", "host", "private", "container"):
        hint = "leave --userns away: root in a step is you, and its other ids are your range"
        raise UsageError(f"--userns={options.userns} is not for builds", hint=hint)
    if options.format == "docker" and options.annotation:
        hint = "use --label, or --format oci"
        raise UsageError("--annotation: docker's manifest has no annotations", hint=hint)
    for flag, text in (("--provenance", options.provenance), ("--sbom", options.sbom)):
        if text and text.lower() not in _FALSE:
            raise _no_attestation(f"{flag}={text}")
    for text in options.attest:
        _check_attestation(text)


def _check_attestation(text: str) -> None:
    """Raise UsageError for a text of --attest that does not turn an attestation off: `type=sbom,disabled=true`."""
    values = dict(part.partition("=")[::2] for part in text.split(","))
    if values.get("type") not in ("provenance", "sbom"):
        raise UsageError(f"--attest: '{text}' has no known type", hint="write type=provenance or type=sbom")
    if values.get("disabled", "").lower() not in _TRUE:
        raise _no_attestation(f"--attest={text}")


def _no_attestation(flag: str) -> UsageError:
    hint = "turn it off with --provenance=false and --sbom=false; `rootless image attach` attaches your own"
    return UsageError(f"{flag}: a build makes no attestations", hint=hint)
