"""The sources of a container's mounts: volumes, host paths, images, mounts of other containers; those missing are made.

`resolve_mounts` only looks. `fetch_images`, `make_sources` and `give_to_user` change something.
"""

from __future__ import annotations

import os

from rootless.engine.plan.bundle import ResolvedMount
from rootless.engine.plan.container_plan import Mounts, NewVolume
from rootless.engine.plan.mount_flags import (
    BIND,
    IMAGE,
    TMPFS,
    VOLUME,
    MountSpec,
    parse_mount,
    parse_tmpfs,
    parse_volume,
    parse_volumes_from,
    plan_mounts,
)
from rootless.errors import HostLimit, NotFound, UsageError
from rootless.records.container import RecordedMount
from rootless.records.json_file import random_name
from rootless.records.launch import VolumeSeed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.engine.plan.users import Account
    from rootless.engine.plan.volume_backing import VolumeBacking
    from rootless.engine.types import ImageDefaults
    from rootless.records.container_options import ContainerOptions
    from rootless.records.id_map import IdMap
    from rootless.storage.store.volumes import VolumeRecord


def _asked(options: ContainerOptions) -> list[MountSpec]:
    """The mounts that -v, --mount and --tmpfs ask for. Raises UsageError."""
    cwd = os.getcwd() if options.volume or options.mount else "/"
    return [
        *(parse_volume(text, cwd) for text in options.volume),
        *(parse_mount(text, cwd) for text in options.mount),
        *(parse_tmpfs(text) for text in options.tmpfs),
    ]


def fetch_images(engine: Engine, options: ContainerOptions) -> None:
    """Pull the images that --mount names and that the store does not have. Raises what a pull raises."""
    from rootless.engine.image_in_use import image_for

    for spec in _asked(options):
        if spec.kind == IMAGE:
            image_for(engine, spec.source)


def make_sources(engine: Engine, mounts: Mounts, made: list[str]) -> None:
    """Make the volumes and host directories that are missing; the names of new volumes are added to `made`.

    Host directories are not added, and stay when the create fails, as with docker. Raises UsageError for a host path
    that cannot be made, HostLimit for a volume.
    """
    for path in mounts.new_directories:
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as e:
            raise UsageError(f"cannot make bind source '{path}': {e.strerror}") from e
    for volume in mounts.new_volumes:
        # Another command may have made a volume of this name since the plan. It is that command's: our failure may not
        # remove it
        _, is_new = engine.store.volumes.ensure(volume.name, anonymous=volume.anonymous)
        if is_new:
            made.append(volume.name)


def _has_labels() -> bool:
    from rootless.runtime.spec.process_config import selinux_is_on

    return selinux_is_on()


def resolve_mounts(engine: Engine, options: ContainerOptions, image: ImageDefaults, id_map: IdMap) -> Mounts:
    """All mounts of a container with their sources, and which of these are missing. It makes nothing.

    Raises UsageError, HostLimit for what the kernel denies to an ordinary user, ImageNotFound for an image to mount
    that the store does not have.
    """
    inherited = [spec for text in options.volumes_from for spec in _inherited(engine, text)]
    resolved, described, seeds, volumes, chown, warnings = [], [], [], [], [], []
    new_volumes: dict[str, NewVolume] = {}
    new_directories, images = [], []
    for spec in plan_mounts(_asked(options), inherited, list(image.volumes)):
        if spec.relabel and _has_labels():
            warnings.append(f"mount '{spec.target}': z and Z have no effect, no SELinux label is ever set")
        words = _words(spec)
        if spec.kind == TMPFS:
            resolved.append(ResolvedMount("tmpfs", "", spec.target, words))
            described.append(_describe(spec, "", ""))
            continue
        if spec.kind == IMAGE:
            if not spec.read_only and spec.options:
                warnings.append(f"mount '{spec.target}': an image is always mounted read-only")
            chain_ids, mount = _image(engine, spec, id_map)
            images.append(chain_ids)
            resolved.append(mount)
            described.append(_describe(spec, "", spec.source))
            continue
        name = ""
        volume = _find_volume(engine, spec.source) if spec.kind == VOLUME and spec.source else None
        backing = None if volume is None else _backing(volume)
        if backing is not None:
            # The volume's own options are the base, and the container's can only narrow them: who made a volume
            # read-only does not expect a container to write there
            volumes.append(spec.source)
            backed = spec._replace(
                kind=backing.kind,
                source=backing.source,
                read_only=spec.read_only or backing.read_only,
                recursive=spec.recursive and backing.recursive,
                propagation=spec.propagation or backing.propagation,
                options=(*backing.options, *spec.options),
            )
            if backing.kind == BIND:
                _check_device(spec.source, backed)
            resolved.append(ResolvedMount(backing.kind, backing.source, spec.target, _words(backed)))
            described.append(_describe(backed, spec.source, backing.source))
            if spec.chown and backing.kind == BIND:
                chown.append(backing.source)
            continue
        if spec.kind == VOLUME:
            name, source = spec.source, engine.store.volumes.data_path(spec.source)
            if volume is None:
                name = name or random_name()
                source = engine.store.volumes.data_path(name)
                new_volumes[name] = NewVolume(name, os.path.dirname(source), anonymous=not spec.source)
            volumes.append(name)
            if not spec.nocopy and (name in new_volumes or _may_be_empty(source)):
                seeds.append(VolumeSeed(source, spec.target))
            described.append(_describe(spec, name, source, anonymous=not spec.source))
        else:
            source = spec.source
            if _is_missing(spec):
                new_directories.append(source)
            described.append(_describe(spec, "", source))
        if spec.chown:
            chown.append(source)
        resolved.append(ResolvedMount("bind", source, spec.target, words))
    return Mounts(
        resolved=tuple(resolved),
        described=tuple(described),
        seeds=tuple(seeds),
        volumes=tuple(dict.fromkeys(volumes)),
        new_volumes=tuple(new_volumes.values()),
        new_directories=tuple(new_directories),
        images=tuple(images),
        chown=tuple(chown),
        warnings=tuple(warnings),
    )


def _find_volume(engine: Engine, name: str) -> VolumeRecord | None:
    """The volume `name`; None for one that is to be made. Raises UsageError for a name that no volume can have."""
    from rootless.storage.store.containers import check_name

    check_name(name, what="volume")
    try:
        return engine.store.volumes.get(name)
    except NotFound:
        return None


def _backing(volume: VolumeRecord) -> VolumeBacking | None:
    """The mount that the volume's own options ask for; None where it has none. Raises UsageError for wrong ones."""
    if not volume.options:
        return None
    from rootless.engine.plan.volume_backing import parse_backing

    return parse_backing(volume.options)


def _words(spec: MountSpec) -> tuple[str, ...]:
    """The "options" of a mount in config.json. Raises HostLimit for an idmapped mount."""
    access = "ro" if spec.read_only else "rw"
    if spec.kind == TMPFS:
        return (*spec.options, *(() if any(o.startswith("mode=") for o in spec.options) else ("mode=1777",)), access)
    if spec.kind == IMAGE:
        return spec.options
    # As with docker neither nosuid nor nodev is added: in a user namespace a setuid program gives no other ids than the
    # container's own, and a device node opens only for a user whom its mode lets open it on the host as well
    words = ["rbind" if spec.recursive else "bind", spec.propagation or "rprivate", *spec.options]
    if spec.idmap:
        # mount_setattr(2): an idmapped mount needs CAP_SYS_ADMIN in the user namespace that owns the file system, which
        # is the host's own for everything that a user can name here
        raise HostLimit(
            f"cannot idmap the mount on '{spec.target}': the kernel gives idmapped mounts only to the host's root",
            hint="use the option U, which changes the files' owner, or --userns=keep-id",
        )
    if spec.read_only:
        # The option `ro` is about one mount alone: what is mounted below the source would stay writable. Docker makes
        # all of it read-only since version 25
        words.append("rro" if spec.recursive else "ro")
    else:
        words.append(access)
    return tuple(words)


def _describe(spec: MountSpec, name: str, source: str, *, anonymous: bool = False) -> RecordedMount:
    mount = RecordedMount(spec.kind, source, spec.target, name=name, read_only=spec.read_only)
    mount.propagation, mount.options, mount.nocopy = spec.propagation, spec.options, spec.nocopy
    mount.anonymous = anonymous
    return mount


def _may_be_empty(directory: str) -> bool:
    """Whether a volume has no files, so that the image's may be copied into it.

    A directory that we may not read belongs to another id of a container, which has used the volume. Raises HostLimit.
    """
    try:
        with os.scandir(directory) as entries:
            return next(entries, None) is None
    except PermissionError:
        return False
    except OSError as e:
        raise HostLimit(f"cannot read volume directory '{directory}': {e.strerror}") from e


def _check_device(volume: str, backed: MountSpec) -> None:
    """Raise UsageError, naming the volume, where the directory of the host that it stands for is not there."""
    try:
        os.stat(backed.source)
    except OSError as e:
        hint = "create the directory, or remove the volume and make it with another device="
        raise UsageError(
            f"volume '{volume}': cannot use its directory '{backed.source}': {e.strerror}", hint=hint
        ) from e


def _is_missing(spec: MountSpec) -> bool:
    """Whether the host path of a bind is missing and is to be made, as by docker's -v.

    Raises UsageError for one that is missing and not to be made, and for one that cannot be looked at.
    """
    try:
        os.stat(spec.source)
    except FileNotFoundError:
        if not spec.make_source:
            raise UsageError(
                f"invalid mount config for type 'bind': bind source path does not exist: '{spec.source}'",
                hint="create it, or use -v, which makes a missing directory",
            ) from None
        return True
    except OSError as e:
        raise UsageError(f"cannot use bind source '{spec.source}': {e.strerror}") from e
    return False


def _image(engine: Engine, spec: MountSpec, id_map: IdMap) -> tuple[tuple[str, ...], ResolvedMount]:
    """The chain ids of the image to mount, and its read-only mount: its one layer bound, or several as an overlay."""
    from rootless.engine.image_in_use import image_for

    image = image_for(engine, spec.source, pull="never")
    lowerdirs = engine.store.layers.planned_lowerdirs(image.chain_ids, id_map)
    if len(lowerdirs) == 1:
        options = ("bind", "rprivate", "ro", *spec.options)
        return image.chain_ids, ResolvedMount("bind", lowerdirs[0], spec.target, options)
    return image.chain_ids, ResolvedMount("overlay", "\0".join(lowerdirs), spec.target, ("ro", *spec.options))


def _inherited(engine: Engine, text: str) -> list[MountSpec]:
    """The binds and volumes of the container that `text` of --volumes-from names.

    A mount that is read-only there stays so: `rw` cannot widen it.
    """
    name, read_only = parse_volumes_from(text)
    containers = engine.store.containers
    return [
        MountSpec(
            VOLUME if mount.name else mount.kind,
            mount.name or mount.source,
            mount.target,
            read_only=mount.read_only if read_only is None else read_only or mount.read_only,
            propagation=mount.propagation,
            nocopy=True,
            options=mount.options,
        )
        for mount in containers.read(containers.find(name)).mounts
        if mount.kind in (BIND, VOLUME) or mount.name
    ]


def give_to_user(engine: Engine, mounts: Mounts, account: Account, id_map: IdMap) -> None:
    """Carry out the option `U`: all files of the sources in mounts.chown become the container user's.

    No link is followed: the files may be those of a container that runs, and it could lead the change of owner to a
    file outside of the source. Raises HostLimit naming the path; owners that were changed before stay so.
    """
    from rootless.host import userns
    from rootless.storage.drivers.writable import is_reachable

    own = engine.store.id_map
    user = account.uid, account.gid
    if not is_reachable(id_map):
        # The work is done in a namespace with the default map, as one with the container's map has no power over our
        # files: so the ids of the container's user are translated to what they are called there
        host = id_map.to_host_uid(account.uid), id_map.to_host_gid(account.gid)
        user = own.to_container_uid(host[0] or 0) or 0, own.to_container_gid(host[1] or 0) or 0
        id_map = own

    def chown() -> bytes:
        for source in mounts.chown:
            for _, _, files, fd in os.fwalk(source, follow_symlinks=False):
                os.chown(fd, *user)
                for name in files:
                    os.chown(name, *user, dir_fd=fd, follow_symlinks=False)
        return b""

    try:
        userns.call_in_new_namespace(id_map, chown)
    except OSError as e:
        raise HostLimit(
            f"cannot give '{e.filename or mounts.chown[0]}' to the container's user (U): {e.strerror}",
            hint="the files must be yours, or your subordinate ids'",
        ) from e
