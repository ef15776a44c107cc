"""The verbs that show images: `ls`, `inspect`, `history`. They change nothing."""

from __future__ import annotations

import fnmatch

from rootless.engine.image.image_names import familiar, find, repo_digests, require, tags
from rootless.engine.image_types import HistoryEntry, ImageSummary
from rootless.errors import RootlessError, UsageError
from rootless.image.manifest import chain_ids
from rootless.image.reference import parse_reference
from rootless.units import parse_image_time, timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rootless.engine.context import Engine
    from rootless.image.fields import Fields
    from rootless.storage.store.index import ImageEntry
    from rootless.storage.store.store import Store

FILTERS = ("dangling", "label", "reference", "before", "since", "until")
_NONE = "<none>"


def list_images(
    engine: Engine, *, filters: Mapping[str, Sequence[str]] | None = None, names: Sequence[str] = ()
) -> list[ImageSummary]:
    """The images of the store, newest first; one row for each name.

    filters: dangling (true or false), label, reference (a glob), before, since, until, as docker has them. names: only
    these repositories, or REPOSITORY:TAG (`image ls debian`). Raises UsageError, ImageNotFound for one in a filter.
    """
    filters = filters or {}
    unknown = set(filters) - set(FILTERS)
    if unknown:
        raise UsageError(f"invalid filter '{min(unknown)}'", hint=f"use one of: {', '.join(FILTERS)}")
    store = engine.store
    entries = store.index.entries()
    for digest, error in store.index.broken():
        engine.warn(f"image '{digest[:19]}' is damaged: {error.message}")
    users = users_by_image(store)
    rows = []
    for entry in entries:
        if matches(engine, entry, filters):
            rows += _rows(store, entry, len(users.get(entry.config_digest, ())), filters, names)
    return sorted(rows, key=lambda row: (-row.created, row.repository, row.tag))


def users_by_image(store: Store) -> dict[str, list[str]]:
    """The names of the containers that were made from each image, by the image's id."""
    users: dict[str, list[str]] = {}
    for container_id in store.containers.list():
        try:
            record = store.containers.read(container_id)
        except RootlessError:
            continue
        users.setdefault(record.image_id, []).append(record.name)
    return users


def matches(engine: Engine, entry: ImageEntry, filters: Mapping[str, Sequence[str]]) -> bool:
    """Whether the image passes the filters about images themselves (not `reference`, which is about their names).

    Raises UsageError, ImageNotFound for an image that `before` or `since` names.
    """
    for value in filters.get("dangling", ()):
        if value.lower() not in ("true", "1", "false", "0"):
            raise UsageError(f"invalid filter 'dangling={value}'", hint="use true or false")
        if (value.lower() in ("true", "1")) == bool(tags(entry)):
            return False
    if not all(has_label(entry.config.labels, value) for value in filters.get("label", ())):
        return False
    created = entry.created_time
    for key in ("before", "since"):
        for value in filters.get(key, ()):
            other = require(engine, value).created_time
            if not (created < other if key == "before" else created > other):
                return False
    if filters.get("until"):
        from rootless.units import parse_moment

        return all(created < parse_moment(value, "--filter until") for value in filters["until"])
    return True


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """Whether `wanted` (NAME or NAME=VALUE) is among the labels."""
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)


def image_size(store: Store, entry: ImageEntry) -> int:
    """The bytes of the image's unpacked layers."""
    total = 0
    for chain_id in chain_ids(entry.config.diff_ids):
        try:
            total += store.layers.size(chain_id)
        except RootlessError:
            continue  # `system check` reports a layer that is missing or damaged
    return total


def _rows(
    store: Store,
    entry: ImageEntry,
    containers: int,
    filters: Mapping[str, Sequence[str]],
    names: Sequence[str],
) -> list[ImageSummary]:
    shown = tags(entry) or repo_digests(entry) or [""]
    patterns = filters.get("reference", ())
    size = image_size(store, entry)
    rows: dict[tuple[str, str], ImageSummary] = {}
    for name in shown:
        reference = parse_reference(name) if name else None
        if patterns and not (name and any(_fits_pattern(name, pattern) for pattern in patterns)):
            continue
        if names and not (name and any(_is_named(name, wanted) for wanted in names)):
            continue
        repository = reference.familiar_name if reference else _NONE
        tag = (reference.tag if reference else None) or _NONE
        config = entry.config
        rows[repository, tag] = ImageSummary(
            entry.config_digest,
            repository,
            tag,
            entry.manifest_digest,
            entry.created_time,
            size,
            config.labels,
            containers,
            config.architecture,
            config.os,
        )
    return list(rows.values())


def _fits_pattern(name: str, pattern: str) -> bool:
    """Whether docker's filter `reference` takes this name.

    The pattern is a glob of the familiar or the full name, with or without a tag, and its `*` stops at a slash.
    """
    reference = parse_reference(name)
    candidates = (reference.familiar(), reference.familiar_name, str(reference), reference.name)
    parts = pattern.split("/")
    return any(
        len(parts) == len(candidate.split("/"))
        and all(fnmatch.fnmatchcase(*each) for each in zip(candidate.split("/"), parts, strict=True))
        for candidate in candidates
    )


def _is_named(name: str, wanted: str) -> bool:
    """Whether `image ls WANTED` shows this name: it is in that repository, and has the tag if WANTED has one."""
    if any(character in wanted for character in "*?["):
        return _fits_pattern(name, wanted)
    try:
        reference, asked = parse_reference(name), parse_reference(wanted, default_tag=None)
    except UsageError:
        return False
    return (
        reference.name == asked.name
        and (asked.tag in (None, reference.tag))
        and asked.digest
        in (
            None,
            reference.digest,
        )
    )


def image_exists(engine: Engine, name: str) -> bool:
    """Whether there is an image of that name or id. Raises UsageError when digits or a short name are ambiguous."""
    return find(engine, name) is not None


def inspect_image(engine: Engine, name: str) -> Fields:
    """One image in the shape of docker's `GET /images/NAME/json`. Raises ImageNotFound."""
    entry = require(engine, name)
    store, config = engine.store, entry.config
    chain = chain_ids(config.diff_ids)
    document: Fields = {
        "Id": entry.config_digest,
        "RepoTags": [familiar(each) for each in tags(entry)],
        "RepoDigests": [familiar(each) for each in repo_digests(entry)],
        "Parent": "",
        "Comment": str(config.history[-1].get("comment") or "") if config.history else "",
        "Created": config.created or None,
        "DockerVersion": str(config.document.get("docker_version") or ""),
        "Author": config.author,
        "Config": _docker_config(config.config),
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": image_size(store, entry),
        "GraphDriver": {
            "Name": "overlay",
            "Data": {
                "LowerDir": ":".join(f"{store.layers.path(each)}/diff" for each in chain[-2::-1]),
                "UpperDir": f"{store.layers.path(chain[-1])}/diff",
            }
            if chain
            else {},
        },
        "RootFS": {"Type": "layers", "Layers": list(config.diff_ids)},
        "Metadata": {"LastTagTime": timestamp(entry.made) if entry.made else "0001-01-01T00:00:00Z"},
        "Descriptor": {
            "mediaType": entry.manifest.media_type,
            "digest": entry.manifest_digest,
            "size": len(entry.manifest.raw),
            "annotations": entry.manifest.annotations,
        },
    }
    if config.variant:
        document["Variant"] = config.variant
    return document


def _docker_config(config: Fields) -> Fields:
    """The config with all members that docker always shows: programs that read its output count on them."""
    shown: Fields = {
        "Hostname": "",
        "Domainname": "",
        "User": "",
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": None,
        "Cmd": None,
        "Image": "",
        "Volumes": None,
        "WorkingDir": "",
        "Entrypoint": None,
        "OnBuild": None,
        "Labels": None,
    }
    return {**shown, **{key: value for key, value in config.items() if value is not None}}


def image_history(engine: Engine, name: str) -> list[HistoryEntry]:
    """The steps that made the image, the newest first. Raises ImageNotFound."""
    entry = require(engine, name)
    config = entry.config
    chain = iter(chain_ids(config.diff_ids))
    steps = config.history or [{} for _ in config.diff_ids]
    rows = []
    for step in steps:
        is_empty = step.get("empty_layer") is True
        chain_id = None if is_empty else next(chain, None)
        size = 0
        if chain_id is not None:
            try:
                size = engine.store.layers.size(chain_id)
            except RootlessError:
                size = 0  # The layer is missing or damaged, but how it was made is known and shown
        rows.append(
            HistoryEntry(
                "<missing>",
                parse_image_time(str(step.get("created") or "")),
                str(step.get("created_by") or ""),
                size,
                str(step.get("comment") or ""),
                is_empty,
            )
        )
    rows.reverse()
    if rows:
        rows[0] = rows[0]._replace(id=entry.config_digest)
    return rows
