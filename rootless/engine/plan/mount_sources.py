"""What stands behind a container's mounts: volumes, host paths, images, and --volumes-from."""

from __future__ import annotations

import os
from typing import NamedTuple

from rootless.engine.plan.bundle import ResolvedMount
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
from rootless.errors import HostLimit, UsageError
from rootless.records.container import RecordedMount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.engine.plan.users import Account
    from rootless.engine.types import ContainerOptions, ImageDefaults
    from rootless.records.id_map import IdMap


class Made:
    """What a create has made so far and must remove when it fails."""

    __slots__ = ("directory", "volumes")

    def __init__(self) -> None:
        self.directory: str | None = None
        self.volumes: list[str] = []


class Mounts(NamedTuple):
    """resolved: for the bundle; seeds: launch.json's; volumes: names used; anonymous: of them, made for this container;
    chown: sources to give to the container's user."""

    resolved: tuple[ResolvedMount, ...]
    described: tuple[RecordedMount, ...]
    seeds: tuple[dict[str, str], ...]
    volumes: tuple[str, ...]
    anonymous: tuple[str, ...]
    chown: tuple[str, ...]


def resolve_mounts(
    engine: Engine, options: ContainerOptions, image: ImageDefaults, id_map: IdMap, made: Made
) -> Mounts:
    """All mounts with their sources; missing volumes are made, and noted in `made`."""
    cwd = os.getcwd() if options.volume or options.mount else "/"
    asked = [
        *(parse_volume(text, cwd) for text in options.volume),
        *(parse_mount(text, cwd) for text in options.mount),
        *(parse_tmpfs(text) for text in options.tmpfs),
    ]
    inherited = [spec for text in options.volumes_from for spec in _inherited(engine, text)]
    resolved, described, seeds, volumes, anonymous, chown = [], [], [], [], [], []
    for spec in plan_mounts(asked, inherited, list(image.volumes)):
        if spec.relabel:
            engine.warn(f"mount '{spec.target}': z and Z have no effect, no SELinux label is ever set")
        words = _words(spec)
        if spec.kind == TMPFS:
            resolved.append(ResolvedMount("tmpfs", "", spec.target, words))
            described.append(_describe(spec, "", ""))
            continue
        if spec.kind == IMAGE:
            mount = _image(engine, spec, id_map)
            resolved.append(mount)
            described.append(_describe(spec, "", spec.source))
            continue
        name = ""
        if spec.kind == VOLUME:
            name, source, is_anonymous = _volume(engine, spec, made)
            volumes.append(name)
            if is_anonymous:
                anonymous.append(name)
            if not spec.nocopy and _may_be_empty(source):
                seeds.append({"source": source, "target": spec.target})
            described.append(_describe(spec, name, source, anonymous=is_anonymous))
        else:
            source = _bind_source(spec)
            described.append(_describe(spec, "", source))
        if spec.chown:
            chown.append(source)
        resolved.append(ResolvedMount("bind", source, spec.target, words))
    return Mounts(
        tuple(resolved), tuple(described), tuple(seeds), tuple(dict.fromkeys(volumes)), tuple(anonymous), tuple(chown)
    )


def _words(spec: MountSpec) -> tuple[str, ...]:
    """The OCI option words of a mount."""
    access = "ro" if spec.read_only else "rw"
    if spec.kind == TMPFS:
        return (*spec.options, *(() if any(o.startswith("mode=") for o in spec.options) else ("mode=1777",)), access)
    if spec.kind == IMAGE:
        return spec.options
    # a volume never brings devices or setuid programs that its files' owner could not have anyway; docker allows both
    words = ["rbind" if spec.recursive else "bind", spec.propagation or "rprivate", *spec.options]
    if spec.idmap:
        # mount_setattr(2): CAP_SYS_ADMIN in the user namespace that owns the file system, which is the host's
        raise HostLimit(
            f"cannot idmap the mount on '{spec.target}': the kernel gives idmapped mounts only to the host's root",
            hint="use the option U, which changes the files' owner, or --userns=keep-id",
        )
    if spec.read_only:
        # recursive, or a mount below the source stays writable (docker since 25)
        words.append("rro" if spec.recursive else "ro")
    else:
        words.append(access)
    return tuple(words)


def _describe(spec: MountSpec, name: str, source: str, *, anonymous: bool = False) -> RecordedMount:
    mount = RecordedMount(spec.kind, source, spec.target, name=name, read_only=spec.read_only)
    mount.propagation, mount.options, mount.nocopy = spec.propagation, spec.options, spec.nocopy
    mount.anonymous = anonymous
    return mount


def _volume(engine: Engine, spec: MountSpec, made: Made) -> tuple[str, str, bool]:
    """(name, directory, whether it was made for this container without a name)."""
    volumes = engine.store.volumes
    if not spec.source:
        volume = volumes.create()
        made.volumes.append(volume.name)
        return volume.name, volume.path, True
    volume, fresh = volumes.ensure(spec.source)
    if fresh:
        made.volumes.append(volume.name)
    return volume.name, volume.path, False


def _may_be_empty(directory: str) -> bool:
    """Whether a volume has no files; one that is closed to us belongs to a container's user, so it was used."""
    try:
        with os.scandir(directory) as entries:
            return next(entries, None) is None
    except PermissionError:
        return False
    except OSError as e:
        raise HostLimit(f"cannot read volume directory '{directory}': {e.strerror}") from e


def _bind_source(spec: MountSpec) -> str:
    """The host path, made if -v names one that is missing (as docker). Raises UsageError."""
    try:
        os.stat(spec.source)
    except FileNotFoundError:
        if not spec.make_source:
            raise UsageError(
                f"invalid mount config for type 'bind': bind source path does not exist: '{spec.source}'",
                hint="create it, or use -v, which makes a missing directory",
            ) from None
        try:
            os.makedirs(spec.source)
        except OSError as e:
            raise UsageError(f"cannot make bind source '{spec.source}': {e.strerror}") from e
    except OSError as e:
        raise UsageError(f"cannot use bind source '{spec.source}': {e.strerror}") from e
    return spec.source


def _image(engine: Engine, spec: MountSpec, id_map: IdMap) -> ResolvedMount:
    """An image's root file system, read-only: its one layer bound, several as an overlay."""
    from rootless.engine.image_in_use import image_for

    if not spec.read_only and spec.options:
        engine.warn(f"mount '{spec.target}': an image is always mounted read-only")
    image = image_for(engine, spec.source)
    lowerdirs = engine.store.layers.lowerdirs(image.chain_ids, id_map)
    if len(lowerdirs) == 1:
        return ResolvedMount("bind", lowerdirs[0], spec.target, ("bind", "rprivate", "ro", *spec.options))
    return ResolvedMount("overlay", "\0".join(lowerdirs), spec.target, ("ro", *spec.options))


def _inherited(engine: Engine, text: str) -> list[MountSpec]:
    """The binds and volumes of another container (--volumes-from)."""
    name, read_only = parse_volumes_from(text)
    containers = engine.store.containers
    return [
        MountSpec(
            mount.kind,
            mount.name or mount.source,
            mount.target,
            read_only=mount.read_only if read_only is None else read_only or mount.read_only,
            propagation=mount.propagation,
            nocopy=True,
            options=mount.options,
        )
        for mount in containers.read(containers.find(name)).mounts
        if mount.kind in (BIND, VOLUME)
    ]


def give_to_user(engine: Engine, mounts: Mounts, account: Account, id_map: IdMap) -> None:
    """Carry out `U`: every file of those sources becomes the container user's, without following a link.

    Raises HostLimit naming the path, and nothing of it is undone then.
    """
    if not mounts.chown:
        return
    from rootless.host import userns
    from rootless.storage.drivers.writable import is_reachable

    own = engine.store.id_map
    user = account.uid, account.gid
    if not is_reachable(id_map):
        # seen from the default map, in whose namespace the work is done
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
        userns.call(id_map, chown)
    except OSError as e:
        raise HostLimit(
            f"cannot give '{e.filename or mounts.chown[0]}' to the container's user (U): {e.strerror}",
            hint="the files must be yours, or your subordinate ids'",
        ) from e
