"""`create`: plan, then acquire what the plan counts on, then publish; the name is written last.

On any error all that was made so far is removed again. A kill leaves a directory without a name, which is no container
and which `prune` removes.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from rootless.engine import events, image_in_use
from rootless.engine.container import host_facts
from rootless.engine.plan import launchfile, networking
from rootless.engine.plan.bundle import MARK, mark_content
from rootless.engine.plan.container_plan import plan
from rootless.engine.plan.security import filter_path
from rootless.errors import AlreadyExists, HostLimit, NotFound, RootlessError, UsageError
from rootless.records.container_options import ContainerOptions
from rootless.storage.store.containers import suggest_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.engine.image_in_use import ImageInUse
    from rootless.engine.plan.container_plan import ContainerPlan

_NAME_ATTEMPTS = 20


class Made:
    """What a create has made so far and must remove when it fails."""

    __slots__ = ("directory", "volumes")

    def __init__(self) -> None:
        self.directory: str | None = None
        self.volumes: list[str] = []


class Created(NamedTuple):
    """A container that was made. id: 64 hexadecimal digits; directory: where its files are."""

    id: str
    directory: str


def create_container(engine: Engine, options: ContainerOptions) -> str:
    """Make a container that is not started, write --cidfile, and return its id (64 hexadecimal digits).

    Raises as `make` does, and leaves nothing then.
    """
    return make(engine, options).id


def make(engine: Engine, options: ContainerOptions, *, starts: bool = False) -> Created:
    """Make a container. starts: it is started next, so that its ports must be free now.

    Raises UsageError for wrong options, ImageNotFound and the errors of a pull, AlreadyExists for a name in use,
    HostLimit for what the host cannot do. Nothing of the container is left then.
    """
    store = engine.store
    if options.cidfile and os.path.lexists(options.cidfile):
        raise UsageError(
            f"container ID file found, make sure the other container isn't running or delete '{options.cidfile}'"
        )
    if options.replace and options.name is None:
        raise UsageError("--replace needs the name of the container to replace", hint="give --name")
    launchfile.restart_policy(options.restart, rm=options.rm)
    # Until the name is written no file refers to the layers and volumes of this container. Garbage collection would
    # remove them, so it takes the same lock exclusively
    with store.using():
        image = image_in_use.image_for(engine, options.image, pull=options.pull, platform=options.platform)
        if options.mount:
            from rootless.engine.plan.mount_sources import fetch_images

            fetch_images(engine, options)
        if options.replace:
            _remove_replaced(engine, options, image)
        planned = plan_container(engine, options, image, starts=starts)
        made = Made()
        try:
            acquire(engine, planned, made)
            publish(engine, planned)
            if options.cidfile:
                from rootless.engine.id_file import write_id_file

                write_id_file(options.cidfile, planned.record.id, option="--cidfile", exclusive=True)
            if engine.debug is not None:
                from rootless.engine.plan.explanation import explain_plan

                for step in explain_plan(planned).steps:
                    engine.debug(step)
        except BaseException:
            _undo(engine, planned.record.id, made)
            raise
    events.record_container(engine, planned.record, "create")
    return Created(planned.record.id, planned.launch.bundle)


def _remove_replaced(engine: Engine, options: ContainerOptions, image: ImageInUse) -> None:
    """Remove the container that has the name of a new one of --replace, if there is one, even while it runs.

    This is before the plan, since the old container may have the ports of the new one. A plan that does not look at
    ports comes before it, and is dropped: an option that is wrong must not cost the old container.
    """
    from rootless.engine.container.container_removal import remove_container

    containers, name = engine.store.containers, (options.name or "").removeprefix("/")
    try:
        container_id = containers.find(name)
        if containers.read(container_id).name != name:
            return  # what was found is the beginning of an id
    except NotFound:
        return
    plan(options, host_facts.image_facts(image), host_facts.look(engine, options, image), engine.settings)
    try:
        remove_container(engine, container_id, force=True)
    except NotFound:
        pass  # it was one of --rm, and has ended meanwhile


def plan_container(
    engine: Engine, options: ContainerOptions, image: ImageInUse, *, starts: bool = False
) -> ContainerPlan:
    """The plan of a container of an image in the store. It makes nothing. The plan's warnings go to the user.

    starts: the container is started next, so that its ports must be free now. Raises UsageError, HostLimit, NotFound,
    InvalidState for another container that an option names.
    """
    facts = host_facts.look(engine, options, image, starts=starts)
    planned = plan(options, host_facts.image_facts(image), facts, engine.settings)
    for warning in planned.warnings:
        engine.warn(warning)
    return planned


def acquire(engine: Engine, planned: ContainerPlan, made: Made) -> None:
    """Make what the plan counts on: the directory, volumes, layers for the id map, the root filesystem's directories.

    made: is filled with what this has made, so that the caller can remove it when this or what follows fails. Raises
    AlreadyExists for a name that is in use, UsageError, HostLimit.
    """
    from rootless.storage import drivers

    store, facts, launch = engine.store, planned.facts, planned.launch
    made.directory = directory = _make_directory(engine, planned)
    try:
        os.mkdir(f"{directory}/rootfs", 0o755)
    except OSError as e:
        raise HostLimit(f"cannot make '{directory}/rootfs': {e.strerror}") from e
    if planned.has_own_names:
        networking.write_names_files(directory, planned.hostname, planned.options, facts.network)
    networking.write_readable(f"{directory}/{MARK}", mark_content(planned.record))
    if facts.mounts.resolved:
        from rootless.engine.plan.mount_sources import make_sources

        make_sources(engine, facts.mounts, made.volumes)
    if facts.rootfs.content:
        store.layers.make_view(planned.record.layers, launch.id_map)
    else:
        store.layers.lowerdirs(planned.record.layers, None if facts.rootfs.owners is not None else launch.id_map)
    for chain_ids in facts.mounts.images:
        store.layers.lowerdirs(chain_ids, launch.id_map)
    drivers.prepare_root(facts.rootfs, launch.id_map)
    if planned.has_apt_file:
        from rootless.engine.plan import root_emulation

        root_emulation.write_apt_file(directory)
    if launch.root_emulation is not None:
        from rootless.engine.plan import root_emulation

        launch.root_emulation = root_emulation.filters(engine)
    if launch.seccomp_bpf is not None:
        launch.seccomp_bpf = filter_path(engine, facts.process.profile, launch.seccomp_bpf)
    if facts.mounts.chown:
        from rootless.engine.plan.mount_sources import give_to_user

        give_to_user(engine, facts.mounts, facts.identity.account, launch.id_map)


def _make_directory(engine: Engine, planned: ContainerPlan) -> str:
    for attempt in range(_NAME_ATTEMPTS):
        try:
            return engine.store.containers.create(planned.record)
        except AlreadyExists:
            if planned.options.name is not None:
                if attempt == 0 and _has_gone(engine, planned.options.name):
                    continue
                raise
            planned.rename(suggest_name(attempt + 1))
    return engine.store.containers.create(planned.record)


def _has_gone(engine: Engine, name: str) -> bool:
    """Whether the container that had `name` is no more.

    One of --rm whose monitor was killed is still there until some command asks for its state, which removes it.
    """
    from rootless.engine.container.reconcile import state_of

    try:
        state_of(engine, engine.store.containers.find(name))
    except NotFound:
        return True
    except RootlessError:
        pass  # The container is damaged, and keeps its name until its user removes it
    return False


def publish(engine: Engine, planned: ContainerPlan) -> None:
    """Write the plan's files, and the name last: from then on the container exists.

    The files are not synced one by one: publishing syncs them together before it writes the name, so that after a power
    cut no name stands for files that are empty. A container of --rm is not synced, as no boot starts it again. Raises
    AlreadyExists for a name that another command took first.
    """
    from rootless.records.json_file import write_record

    containers, launch = engine.store.containers, planned.launch
    write_record(f"{launch.bundle}/config.json", planned.config_json(), durable=False)
    for attempt in range(_NAME_ATTEMPTS):
        containers.write_launch(launch.id, launch, durable=False)
        try:
            containers.publish(launch.id, durable=not planned.options.rm)
            break
        except AlreadyExists:
            if planned.options.name is not None or attempt == _NAME_ATTEMPTS - 1:
                raise
            planned.rename(suggest_name(attempt + 1))
            containers.update(planned.record, durable=False)


def _undo(engine: Engine, container_id: str, made: Made) -> None:
    """Remove what `acquire` has made. An error of that is only a warning, so that the user sees the first error."""
    store = engine.store
    try:
        if made.directory is not None:
            store.containers.remove(container_id, store.id_map)
        for name in made.volumes:
            store.volumes.remove(name)
    except RootlessError as e:
        engine.warn(f"left-overs of the failed container stay until the next `rootless system prune`: {e.message}")
