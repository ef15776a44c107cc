"""The verb `commit`: what a container has changed becomes an image on top of its own. Volumes are left out."""

from __future__ import annotations

import json
import time
from typing import NamedTuple

from rootless.engine import events
from rootless.engine.container.pause import pause_container, unpause_container
from rootless.engine.container.reconcile import state_of
from rootless.engine.files import snapshots
from rootless.engine.image.config_changes import apply_changes
from rootless.engine.image_types import CommitOptions, PullEvent
from rootless.engine.transfer.import_tar import publish_manifest
from rootless.errors import InvalidState, UsageError
from rootless.image.convert import in_form
from rootless.image.manifest import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_CONFIG, OCI_MANIFEST, Descriptor
from rootless.records.json_file import read_record
from rootless.storage.layers.layer_store import LayerOptions
from rootless.units import whole_timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.engine.context import Engine
    from rootless.engine.files.snapshots import NewLayer
    from rootless.engine.image_types import Change
    from rootless.image.fields import Fields
    from rootless.image.manifest import ImageConfig
    from rootless.records.container import ContainerRecord
    from rootless.records.container_options import ContainerOptions
    from rootless.records.launch import HealthPlan, LaunchPlan
    from rootless.runtime.spec.oci_config import OciConfig
    from rootless.storage.store.index import ImageEntry

_FORMS = {"oci": ("oci", OCI_MANIFEST, OCI_CONFIG), "docker": ("v2s2", DOCKER_MANIFEST, DOCKER_CONFIG)}


class _Commit(NamedTuple):
    """One commit while it runs. base: the container's image; reference: the new image's full name, None for none."""

    engine: Engine
    base: ImageEntry
    options: CommitOptions
    reference: str | None


def commit_container(
    engine: Engine,
    container: str,
    name: str | None = None,
    options: CommitOptions | None = None,
    *,
    progress: Callable[[PullEvent], None] | None = None,
) -> str:
    """Make an image of a container, running or not, and return the image's id. Files in volumes are not part of it.

    progress is called when the layer has been made. Raises NotFound, UsageError, InvalidState for a container that runs
    on another host, InvalidInput for files that no layer can hold, HostLimit (no space).
    """
    options = options or CommitOptions()
    if options.format not in _FORMS:
        raise UsageError(f"unknown format '{options.format}'", hint=f"use one of: {', '.join(_FORMS)}")
    containers = engine.store.containers
    container_id = containers.find(container)
    record = containers.read(container_id)
    reference = None if name is None else _full_name(engine, name)
    state = state_of(engine, container_id)
    if state.remote:
        raise InvalidState(f"container '{container}' runs on host '{state.remote}'", hint="commit it there")
    with engine.store.using():
        base = engine.store.index.load(record.manifest_digest)
        config = apply_changes(_config(engine, record, base.config), options.changes)
        must_pause = options.pause and state.status == "running"
        if must_pause:
            pause_container(engine, container_id)
        try:
            layer = _layer(engine, container_id, squash=options.squash)
        finally:
            if must_pause:
                unpause_container(engine, container_id)
        if layer is not None and progress is not None:
            progress(PullEvent(layer.diff_id.partition(":")[2][:12], "Pull complete"))
        commit = _Commit(engine, base, options, reference)
        image_id = _store(commit, config, layer, " ".join(record.command))
    events.record_container(
        engine, record, "commit", comment=options.message, imageID=image_id, imageRef=reference or ""
    )
    return image_id


def container_changes(engine: Engine, container: str) -> list[Change]:
    """The files in which the container differs from its image, in the order of paths."""
    container_id = engine.store.containers.find(container)
    launch, targets = plan_of(engine, container_id)
    return snapshots.list_changes(engine, launch.require_rootfs(), launch.id_map, targets)


def plan_of(engine: Engine, container_id: str) -> tuple[LaunchPlan, list[str]]:
    """The content of a container's launch.json, and the paths in it on which something is mounted.

    What lies below those paths belongs to the mounts, and not to the container's own root.
    """
    directory = engine.store.containers.path(container_id)
    launch = engine.store.containers.read_launch(container_id)
    return launch, [mount.destination for mount in _bundle_config(directory).mounts]


def _bundle_config(directory: str, *, without_devices: bool = False) -> OciConfig:
    """The container's configuration. without_devices: before what devices of CDI change, which are this host's."""
    from rootless.runtime.spec.oci_config import OciConfig

    config = read_record(f"{directory}/config.json", what="bundle")
    if without_devices:
        from rootless.engine.plan.device_edits import take_back

        take_back(config)
    return OciConfig.from_json(config)


def _full_name(engine: Engine, name: str) -> str:
    from rootless.engine.image.image_names import qualify

    reference, _ = qualify(engine, name)
    if reference.digest:
        raise UsageError(f"an image cannot be given the name '{name}'", hint="leave out the digest")
    return str(reference)


def _layer(engine: Engine, container_id: str, *, squash: bool) -> NewLayer | None:
    launch, targets = plan_of(engine, container_id)
    options = LayerOptions(exclude=targets, squash=squash)
    return snapshots.commit_layer(engine, launch.require_rootfs(), launch.id_map, options)


def _config(engine: Engine, record: ContainerRecord, image: ImageConfig) -> Fields:
    """The image's config, changed by the options of the container, as docker merges the two."""
    directory = engine.store.containers.path(record.id)
    options = record.options
    process = _bundle_config(directory, without_devices=True).first_process()
    config: Fields = dict(image.config)
    config["Env"] = _env(process.env, image, options, default_home=record.default_home)
    if options.entrypoint is not None:
        config["Entrypoint"] = [options.entrypoint] if options.entrypoint else None
        config["Cmd"] = None
    if options.command:
        config["Cmd"] = list(options.command)
    if options.user is not None:
        config["User"] = options.user
    if options.workdir:
        config["WorkingDir"] = process.cwd
    config["Labels"] = record.labels
    config["ExposedPorts"] = {port: {} for port in record.exposed}
    if options.stop_signal:
        config["StopSignal"] = options.stop_signal
    if options.no_healthcheck:
        config["Healthcheck"] = {"Test": ["NONE"]}
    elif any(getattr(options, field) is not None for field in options._fields if field.startswith("health_")):
        config["Healthcheck"] = _health(record.health)
    return {key: value for key, value in config.items() if value not in (None, {}, [], "")}


def _env(env: Sequence[str], image: ImageConfig, options: ContainerOptions, *, default_home: bool) -> list[str]:
    """The process's environment without the variables that were set for this one container (HOSTNAME, TERM, HOME)."""
    wanted = {entry.partition("=")[0] for entry in (*image.env, *options.env)}
    own = {"HOSTNAME", "TERM", *(("HOME",) if default_home else ())} - wanted
    return [entry for entry in env if entry.partition("=")[0] not in own]


def _health(health: HealthPlan | None) -> Fields:
    if health is None:
        return {"Test": ["NONE"]}
    seconds = {
        "Interval": health.interval,
        "Timeout": health.timeout,
        "StartPeriod": health.start_period,
        "StartInterval": health.start_interval,
    }
    nanoseconds = {name: int(value * 1_000_000_000) for name, value in seconds.items() if value}
    return {"Test": health.test, **nanoseconds, "Retries": health.retries}


def _store(commit: _Commit, config: Fields, layer: NewLayer | None, command: str) -> str:
    """Write config and manifest, then the name, and return the image's id.

    command: the container's, which the image's history then has as the step that made the layer.
    """
    store, base = commit.engine.store, commit.base
    squash, author, message = commit.options.squash, commit.options.author, commit.options.message
    form, manifest_type, config_type = _FORMS[commit.options.format]
    step: Fields = {
        "created": whole_timestamp(time.time()),
        "created_by": command,
        **({"author": author} if author else {}),
        **({"comment": message} if message else {}),
        **({"empty_layer": True} if layer is None else {}),
    }
    document: Fields = dict(base.config.document)
    below: Sequence[Descriptor] = () if squash else base.manifest.layers
    diff_ids = [] if squash else list(base.config.diff_ids)
    history = [] if squash else list(base.config.history)
    layers = [*below, *([layer.descriptor] if layer else ())]
    document |= {
        "created": step["created"],
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [*diff_ids, *([layer.diff_id] if layer else ())]},
        "history": [*history, step],
    }
    # In these members docker and BuildKit note how they made the image below, which is not true of this one
    for key in ("container", "container_config", "parent", "id", "docker_version", "moby.buildkit.buildinfo.v1"):
        document.pop(key, None)
    document.pop("author", None)
    if author:
        document["author"] = author
    raw = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    image_id = store.blobs.put(raw)
    typed = [in_form(each, form) for each in layers]
    publish_manifest(store, manifest_type, [Descriptor(config_type, image_id, len(raw)), *typed], commit.reference)
    return image_id
