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
    attest are docker's and podman's; `check_foreign` checks the values of these, of allow and of network.
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


class ProvenanceOptions(NamedTuple):
    """What --provenance asks for.

    version: of SLSA's provenance, v0.2 or v1; builder_id: who builds, a URI, "" where nobody says; filename: of the
    provenance that is written beside files; is_inline_only: it goes into images alone; is_reproducible: the user states
    that the result is; is_reduced: mode=max was asked for, in the form in which docker/build-push-action does so by
    itself, and mode=min is made.
    """

    version: str = "v0.2"
    builder_id: str = ""
    filename: str = "provenance.json"
    is_inline_only: bool = False
    is_reproducible: bool = False
    is_reduced: bool = False


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
_ENTITLEMENTS = ("network.host", "security.insecure")


def parse_truth(fields: Mapping[str, str], name: str, flag: str, *, default: bool) -> bool:
    """The field `name` as a boolean, which is true where it has no value. Raises UsageError that names the flag."""
    text = fields.get(name)
    if text is None:
        return default
    if text.lower() not in ("", *_TRUE, *_FALSE):
        raise UsageError(f"{flag}: {name} is true or false, not '{text}'")
    return text.lower() not in _FALSE


def check_foreign(options: BuildOptions) -> None:
    """Raise UsageError where a flag of docker, buildx or podman asks for what no build does here."""
    if options.builder not in ("", "default"):
        hint = "there is one builder, called default: leave --builder away"
        raise UsageError(f"no builder '{options.builder}'", hint=hint)
    if not options.rm:
        hint = "`--debug-shell` enters the state before a step that fails"
        raise UsageError("--rm=false: a step leaves no container behind that could be kept", hint=hint)
    if options.userns not in ("", "host", "private", "container"):
        hint = "leave --userns away: root in a step is you, and its other ids are your range"
        raise UsageError(f"--userns={options.userns} is not for builds", hint=hint)
    for text in options.allow:
        if text not in _ENTITLEMENTS:
            raise UsageError(f"--allow: '{text}' is not known", hint=f"known are {', '.join(_ENTITLEMENTS)}")
    if options.network is not None:
        _check_network(options.network)
    if options.format == "docker" and options.annotation:
        hint = "use --label, or --format oci"
        raise UsageError("--annotation: docker's manifest has no annotations", hint=hint)
    parse_provenance(options)


def parse_provenance(options: BuildOptions) -> ProvenanceOptions | None:
    """What --provenance, --sbom and --attest ask for; None where no provenance is wanted, as without them.

    Raises UsageError, also for attestations that are not made here: an SBOM, and provenance of mode=max.
    """
    asked: dict[str, tuple[str, str]] = {}
    for kind, text in (("provenance", options.provenance), ("sbom", options.sbom)):
        if text:
            is_word = text.lower() in (*_TRUE, *_FALSE)
            asked[kind] = (f"--{kind}={text}", f"disabled={text.lower() in _FALSE}" if is_word else text)
    for text in options.attest:
        # What else stands there is checked below, by the type
        kind = dict(part.partition("=")[::2] for part in text.split(",")).get("type", "")
        if kind not in ("provenance", "sbom"):
            raise UsageError(f"--attest: '{text}' has no known type", hint="write type=provenance or type=sbom")
        if kind in asked:
            raise UsageError(f"{asked[kind][0]} and --attest={text} ask for the same attestation", hint="give one")
        asked[kind] = (f"--attest={text}", text)
    if "sbom" in asked and not _is_off(*asked["sbom"]):
        hint = "make it with a scanner of your choice; `rootless image attach` attaches it to the image"
        raise UsageError(f"{asked['sbom'][0]}: a build makes no SBOM, as it runs no scanner's image", hint=hint)
    if "provenance" not in asked or _is_off(*asked["provenance"]):
        return None
    if options.format == "docker":
        raise UsageError("--provenance: docker's manifests hold no attestations", hint="use --format oci")
    return _provenance(*asked["provenance"])


def check_step_flags(options: BuildOptions) -> None:
    """Raise UsageError for a flag for RUN whose value cannot be, also where no RUN or only cached ones would use it."""
    if options.ulimit or options.security_opt:
        from rootless.engine.plan.security import hard_limits, parse_security_options, parse_ulimits

        parse_ulimits(options.ulimit, hard_limits())
        parse_security_options(options.security_opt)
    if options.shm_size is not None:
        from rootless.units import parse_size

        parse_size(options.shm_size, "--shm-size")
    if options.add_host:
        from rootless.network.resolv import add_host

        for text in options.add_host:
            add_host(text)


def _check_network(text: str) -> None:
    """Raise UsageError for a text of --network that is no mode: a network with a name would not connect the steps."""
    from rootless.network.modes import is_mode_name, list_choices

    if not is_mode_name(text.partition(":")[0]):
        hint = f"use {list_choices(with_joining=False)}"
        raise UsageError(f"--network={text}: the steps of a build can be on no network with a name", hint=hint)


def _is_off(flag: str, text: str) -> bool:
    """Whether an attestation is turned off: `type=sbom,disabled=true`. flag: as the user gave it, for errors."""
    values = {name.strip().lower(): value for name, _, value in (part.partition("=") for part in text.split(","))}
    return parse_truth(values, "disabled", flag, default=False)


def _provenance(flag: str, text: str) -> ProvenanceOptions:
    known = {"type", "disabled", "mode", "version", "builder-id", "filename", "inline-only", "reproducible"}
    fields = parse_fields(text, flag, known)
    mode, version = fields.get("mode", "min"), fields.get("version", "v0.2")
    if mode not in ("min", "max"):
        raise UsageError(f"{flag}: mode is min, not '{mode}'")
    # docker/build-push-action asks for mode=max by itself for public repositories, and always gives its run as the
    # builder. Its users would have to learn of the flag only to turn it off
    is_reduced = mode == "max" and bool(fields.keys() & {"builder-id", "inline-only"})
    if mode == "max" and not is_reduced:
        why = "its steps are in BuildKit's own format, which there is none of here"
        raise UsageError(f"{flag}: provenance of mode=max is not made: {why}", hint="use mode=min")
    if version not in ("v0.2", "v1"):
        raise UsageError(f"{flag}: version is v0.2 or v1, not '{version}'")
    filename = fields.get("filename", "provenance.json")
    if filename in ("", ".", "..") or "/" in filename or "\0" in filename:
        raise UsageError(f"{flag}: filename is a plain file name, not '{filename}'")
    return ProvenanceOptions(
        version,
        fields.get("builder-id", ""),
        filename,
        parse_truth(fields, "inline-only", flag, default=False),
        parse_truth(fields, "reproducible", flag, default=False),
        is_reduced,
    )
