"""The verb `commit`: what a container has changed becomes an image on top of its own. Volumes are not part of it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from rootless.engine import events
from rootless.engine.container.pause import pause_container, unpause_container
from rootless.engine.container.reconcile import saved_options, state_of
from rootless.engine.files import snapshots
from rootless.engine.image.config_changes import apply_changes
from rootless.engine.transfer.import_tar import publish_manifest
from rootless.errors import InvalidState, UsageError
from rootless.image.convert import layer_compression, layer_type
from rootless.image.manifest import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_CONFIG, OCI_MANIFEST, Descriptor
from rootless.records.json_file import read_record
from rootless.units import whole_timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.engine.context import Engine
    from rootless.engine.files.snapshots import NewLayer
    from rootless.engine.image_types import Change, PullEvent
    from rootless.engine.types import ContainerOptions
    from rootless.image.manifest import ImageConfig
    from rootless.records.launch import LaunchPlan
    from rootless.storage.store.index import ImageEntry

FORMATS = ("oci", "docker")
_FORMS = {"oci": ("oci", OCI_MANIFEST, OCI_CONFIG), "docker": ("v2s2", DOCKER_MANIFEST, DOCKER_CONFIG)}


def commit_container(
    engine: Engine,
    container: str,
    name: str | None = None,
    *,
    author: str = "",
    changes: Sequence[str] = (),
    message: str = "",
    pause: bool = True,
    squash: bool = False,
    format: str = "oci",
    progress: Callable[[PullEvent], None] | None = None,
) -> str:
    """Make an image of a container, running or not; its id. What is in volumes is not part of it.

    changes: Dockerfile lines. pause: freeze it meanwhile. squash: one layer instead of one more. format: oci or
    docker. Raises UsageError, InvalidInput (what no layer can hold), HostLimit (no space).
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format '{format}'", hint=f"use one of: {', '.join(FORMATS)}")
    containers = engine.store.containers
    container_id = containers.find(container)
    record = containers.read(container_id)
    reference = None if name is None else _full_name(engine, name)
    state = state_of(engine, container_id)
    if state.remote:
        raise InvalidState(f"container '{container}' runs on host '{state.remote}'", hint="commit it there")
    with engine.store.using():
        base = engine.store.index.load(record["manifest_digest"])
        config = apply_changes(_config(engine, record, base.config), changes)
        must_pause = pause and state.status == "running"
        if must_pause:
            pause_container(engine, container_id)
        try:
            layer = _layer(engine, container_id, squash=squash, progress=progress)
        finally:
            if must_pause:
                unpause_container(engine, container_id)
        step: dict[str, Any] = {
            "created": whole_timestamp(time.time()),
            "created_by": " ".join(record["command"]),
            **({"author": author} if author else {}),
            **({"comment": message} if message else {}),
        }
        image_id = _store(engine, base, config, layer, step, reference, squash=squash, format=format)
    events.record_container(engine, record, "commit", comment=message, imageID=image_id, imageRef=reference or "")
    return image_id


def container_changes(engine: Engine, container: str) -> list[Change]:
    """What the container has changed in its image's files, in the order of paths."""
    container_id = engine.store.containers.find(container)
    launch, targets = plan_of(engine, container_id)
    return snapshots.changes(engine, launch.rootfs or {}, launch.id_map, targets)


def plan_of(engine: Engine, container_id: str) -> tuple[LaunchPlan, list[str]]:
    """launch.json of a container, and where things are mounted in it."""
    directory = engine.store.containers.path(container_id)
    launch = engine.store.containers.read_launch(container_id)
    config = read_record(f"{directory}/config.json", what="bundle")
    return launch, [mount["destination"] for mount in config["mounts"]]


def _full_name(engine: Engine, name: str) -> str:
    from rootless.engine.image.image_names import qualify

    reference, _ = qualify(engine, name)
    if reference.digest:
        raise UsageError(f"an image cannot be given the name '{name}'", hint="leave out the digest")
    return str(reference)


def _layer(
    engine: Engine, container_id: str, *, squash: bool, progress: Callable[[PullEvent], None] | None
) -> NewLayer | None:
    launch, targets = plan_of(engine, container_id)
    id_map = launch.id_map
    return snapshots.commit_layer(
        engine, launch.rootfs or {}, id_map, exclude=targets, squash=squash, progress=progress
    )


def _config(engine: Engine, record: dict[str, Any], image: ImageConfig) -> dict[str, Any]:
    """The image's config with what the container was given on top, as docker merges them."""
    directory = engine.store.containers.path(record["id"])
    process = read_record(f"{directory}/config.json", what="bundle")["process"]
    options = saved_options(record)
    config: dict[str, Any] = json.loads(json.dumps(image.config))
    config["Env"] = _env(process["env"], image, options, default_home=bool(record.get("default_home")))
    if options.entrypoint is not None:
        config["Entrypoint"] = [options.entrypoint] if options.entrypoint else None
        config["Cmd"] = None
    if options.command:
        config["Cmd"] = list(options.command)
    if options.user is not None:
        config["User"] = options.user
    if options.workdir:
        config["WorkingDir"] = process["cwd"]
    config["Labels"] = record["labels"]
    config["ExposedPorts"] = {port: {} for port in record["exposed"]}
    if options.stop_signal:
        config["StopSignal"] = options.stop_signal
    if options.no_healthcheck:
        config["Healthcheck"] = {"Test": ["NONE"]}
    elif any(getattr(options, field) is not None for field in options._fields if field.startswith("health_")):
        config["Healthcheck"] = _health(record["health"])
    return {key: value for key, value in config.items() if value not in (None, {}, [], "")}


def _env(env: Sequence[str], image: ImageConfig, options: ContainerOptions, *, default_home: bool) -> list[str]:
    """The process's environment without what only belongs to this container."""
    wanted = {entry.partition("=")[0] for entry in (*image.env, *options.env)}
    own = {"HOSTNAME", "TERM", *(("HOME",) if default_home else ())} - wanted
    return [entry for entry in env if entry.partition("=")[0] not in own]


def _health(health: dict[str, Any] | None) -> dict[str, Any]:
    if not health:
        return {"Test": ["NONE"]}
    names = {"interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod",
             "start_interval": "StartInterval"}  # fmt: skip
    nanoseconds = {shown: int(health[name] * 1_000_000_000) for name, shown in names.items() if health[name]}
    return {"Test": health["test"], **nanoseconds, "Retries": health["retries"]}


def _store(
    engine: Engine,
    base: ImageEntry,
    config: dict[str, Any],
    layer: NewLayer | None,
    step: dict[str, Any],
    reference: str | None,
    *,
    squash: bool,
    format: str,
) -> str:
    """Write config and manifest, then the name; the image's id."""
    store = engine.store
    form, manifest_type, config_type = _FORMS[format]
    document: dict[str, Any] = json.loads(base.config.raw)
    if layer is None:
        step["empty_layer"] = True
    below: Sequence[Descriptor] = () if squash else base.manifest.layers
    diff_ids = [] if squash else list(base.config.diff_ids)
    history = [] if squash else list(document.get("history") or [])
    layers = [*below, *([layer.descriptor] if layer else ())]
    document |= {
        "created": step["created"],
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [*diff_ids, *([layer.diff_id] if layer else ())]},
        "history": [*history, step],
    }
    # docker's own notes of how the image came about: they are not true of this one
    for key in ("container", "container_config", "parent", "id", "docker_version", "moby.buildkit.buildinfo.v1"):
        document.pop(key, None)
    document.pop("author", None)
    if step.get("author"):
        document["author"] = step["author"]
    raw = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    image_id = store.blobs.put(raw)
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": {"mediaType": config_type, "digest": image_id, "size": len(raw)},
        "layers": [
            {
                "mediaType": layer_type(each, layer_compression(each.media_type), form),
                "digest": each.digest,
                "size": each.size,
            }
            for each in layers
        ],
    }
    publish_manifest(store, manifest, reference)
    return image_id
