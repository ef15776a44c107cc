"""The grammar of -v, --mount, --tmpfs and --volumes-from: from texts to MountSpec. Pure: no source is looked at."""

from __future__ import annotations

import os
import posixpath
from typing import NamedTuple

from rootless.errors import UsageError
from rootless.units import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

BIND, VOLUME, TMPFS, IMAGE = "bind", "volume", "tmpfs", "image"

_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_FLAGS = ("exec", "noexec", "suid", "nosuid", "dev", "nodev")
# Docker Desktop for macOS chose by these words how to keep files alike; docker on Linux takes and ignores them too
_CONSISTENCY = ("consistent", "cached", "delegated", "default")


class MountSpec(NamedTuple):
    """One mount that the user (or the image's VOLUME) asked for.

    source: absolute host path of a bind; name of a volume ("" for an anonymous one) or of an image; "" for tmpfs.
    target: absolute, normalised path inside. recursive: what is mounted below the source comes along. propagation: a
    word of mount(8), "" = rprivate. nocopy: an empty volume is not filled with the image's files. chown: the option U
    gives the files to the container's user. relabel: z or Z was asked for. make_source: a missing host directory is
    made, as by docker's -v. options: further words for the mount (noexec, nosuid, size=, mode=).
    """

    kind: str
    source: str
    target: str
    read_only: bool = False
    recursive: bool = True
    propagation: str = ""
    nocopy: bool = False
    chown: bool = False
    idmap: bool = False
    relabel: bool = False
    make_source: bool = False
    options: tuple[str, ...] = ()
    from_image: bool = False  # it stands in the image's VOLUME: any other mount of the same target replaces it


def clean_target(target: str, flag: str) -> str:
    """The absolute path `target` without `.`, `..` and doubled slashes.

    Raises UsageError, naming `flag`, for a relative one, and for `/`: a mount on it would hide the image.
    """
    if not target.startswith("/") or "\0" in target:
        raise UsageError(f"invalid mount path '{target}' ({flag}): it must be absolute")
    cleaned = posixpath.normpath("/" + target.lstrip("/"))
    if cleaned == "/":
        raise UsageError(f"invalid mount path '{target}' ({flag}): the root itself cannot be covered")
    return cleaned


def parse_volume(text: str, working_directory: str) -> MountSpec:
    """The mount that a text `[SOURCE:]TARGET[:OPTION,...]` of -v asks for.

    A SOURCE that begins with a slash, dot or tilde is a host path, a relative one below `working_directory`. Any other
    is the name of a volume. Raises UsageError.
    """
    fields = text.split(":")
    if len(fields) > 3 or not all(fields[:2]):
        raise UsageError(f"invalid volume specification '{text}' (--volume)", hint="write [SOURCE:]TARGET[:OPTIONS]")
    if len(fields) == 1:
        return MountSpec(VOLUME, "", clean_target(fields[0], "--volume"))
    source, target = fields[0], clean_target(fields[1], "--volume")
    is_path = source.startswith(("/", ".", "~")) or "/" in source
    if is_path and not source.startswith(("/", ".", "~")):
        raise UsageError(
            f"invalid volume name '{source}' (--volume)",
            hint=f"a path on the host begins with '/' or './': -v ./{source}:{target}",
        )
    spec = (
        MountSpec(BIND, host_path(source, working_directory), target, make_source=True)
        if is_path
        else MountSpec(VOLUME, source, target)
    )
    options = fields[2].split(",") if len(fields) == 3 else []
    for option in options:
        spec = _volume_option(spec, option, text)
    clash = _find_clash(options)
    if clash is not None:
        raise UsageError(f"invalid mode: {fields[2]} (--volume)", hint=clash)
    return spec


# Words of -v, and names of fields of --mount. A mount has one word of each group at most; any other word may be given
# only once, too
_EXCLUSIVE = (
    ("ro", "rw"),
    ("z", "Z"),
    ("copy", "nocopy", "volume-nocopy"),
    ("bind", "rbind"),
    _PROPAGATIONS,
    _CONSISTENCY,
    ("exec", "noexec"),
    ("suid", "nosuid"),
    ("dev", "nodev"),
    ("readonly", "readwrite"),
    ("bind-recursive", "bind-nonrecursive"),
)


def _find_clash(options: Iterable[str]) -> str | None:
    """A sentence about the first option that is given twice or excludes an earlier one; None when there is none."""
    seen: dict[tuple[str, ...], str] = {}
    for option in options:
        group = next((each for each in _EXCLUSIVE if option in each), (option,))
        first = seen.get(group)
        if first is not None:
            return f"'{option}' is given twice" if first == option else f"'{first}' and '{option}' exclude each other"
        seen[group] = option
    return None


def host_path(source: str, working_directory: str) -> str:
    """The absolute host path that `source` means. A leading ~ is $HOME, as shells leave it alone in --volume=~/x:/y."""
    if source == "~" or source.startswith("~/"):
        source = os.environ.get("HOME", "/") + source[1:]
    return os.path.normpath(os.path.join(working_directory, source))


def _volume_option(spec: MountSpec, option: str, text: str) -> MountSpec:
    if option in ("ro", "rw"):
        return spec._replace(read_only=option == "ro")
    if option in ("z", "Z"):
        return spec._replace(relabel=True)
    if option == "U":
        return spec._replace(chown=True)
    if option == "idmap":
        return spec._replace(idmap=True)
    if option in ("nocopy", "copy") and spec.kind == VOLUME:
        return spec._replace(nocopy=option == "nocopy")
    if option in _PROPAGATIONS and spec.kind == BIND:
        return spec._replace(propagation=option)
    if option in ("bind", "rbind") and spec.kind == BIND:
        return spec._replace(recursive=option == "rbind")
    if option in _FLAGS:
        return spec._replace(options=(*spec.options, option))
    if option in _CONSISTENCY:
        return spec
    if option == "O" or option.startswith(("upperdir=", "workdir=")):
        raise UsageError(
            f"volume specification '{text}': there are no overlay volumes (--volume)",
            hint="mount it with ro, or copy it to a volume: rootless volume import",
        )
    raise UsageError(f"invalid option '{option}' in volume specification '{text}' (--volume)")


def parse_tmpfs(text: str) -> MountSpec:
    """The mount that a text `TARGET[:OPTION,...]` of --tmpfs asks for. Docker's defaults are rw,noexec,nosuid,nodev.

    Raises UsageError.
    """
    target, _, words = text.partition(":")
    options = ["noexec", "nosuid", "nodev"]
    read_only = False
    for word in words.split(",") if words else ():
        name, equals, value = word.partition("=")
        if word in ("ro", "rw"):
            read_only = word == "ro"
        elif word in _FLAGS:
            opposite = word.removeprefix("no") if word.startswith("no") else f"no{word}"
            options = [o for o in options if o not in (opposite, word)] + [word]
        elif equals and name in ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"):
            options.append(_tmpfs_value(name, value, "--tmpfs"))
        elif word in ("noatime", "relatime", "strictatime", "nodiratime"):
            options.append(word)
        else:
            raise UsageError(f"invalid tmpfs option '{word}' (--tmpfs)")
    return MountSpec(TMPFS, "", clean_target(target, "--tmpfs"), read_only=read_only, options=tuple(options))


def _tmpfs_value(name: str, value: str, flag: str) -> str:
    if name == "size" and not value.endswith("%"):
        return f"size={parse_size(value, flag)}"
    if name == "mode":
        if not (value.isascii() and value.isdigit() and len(value) <= 5 and all(c < "8" for c in value)):
            raise UsageError(f"invalid tmpfs mode '{value}' ({flag})", hint="write it in octal, like 1777")
        return f"mode={value}"
    number = value.removesuffix("%") if name == "size" else value
    if not (number.isascii() and number.isdigit()):
        raise UsageError(f"invalid tmpfs option '{name}={value}' ({flag})")
    return f"{name}={value}"


def parse_mount(text: str, working_directory: str) -> MountSpec:
    """The mount that a text `type=bind|volume|tmpfs|image,source=...,target=...,...` of --mount asks for.

    The fields are CSV (RFC 4180), so that quotes allow a comma in a path. Raises UsageError.
    """
    import csv

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as e:
        raise UsageError(f"invalid mount '{text}' (--mount): {e}") from e
    pairs = [
        (_ALIASES.get(name.strip().lower(), name.strip().lower()), equals, value)
        for name, equals, value in (field.partition("=") for field in (rows[0] if rows else []))
    ]
    clash = _find_clash(name for name, _, _ in pairs)
    if clash is not None:
        raise UsageError(f"invalid mount '{text}' (--mount): {clash}")
    given = {name: value for name, _, value in pairs}
    flags = {name for name, equals, _ in pairs if not equals}
    kind = given.pop("type", VOLUME)
    if kind not in (BIND, VOLUME, TMPFS, IMAGE):
        raise UsageError(f"invalid mount type '{kind}' (--mount)", hint="use bind, volume, tmpfs or image")
    target = given.pop("target", "")
    if not target:
        raise UsageError(f"invalid mount '{text}' (--mount): target is required")
    source = given.pop("source", "")
    if kind in (BIND, IMAGE) and not source:
        raise UsageError(f"invalid mount '{text}' (--mount): source is required for type {kind}")
    if kind == TMPFS and source:
        raise UsageError(f"invalid mount '{text}' (--mount): a tmpfs has no source")
    if kind == BIND:
        source = host_path(source, working_directory)
    spec = MountSpec(kind, source, clean_target(target, "--mount"))
    if kind == TMPFS:
        spec = spec._replace(options=("noexec", "nosuid", "nodev"))
    for name, value in given.items():
        spec = _mount_field(spec, name, "true" if name in flags else value)
    return spec


_ALIASES = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    "chown": "u",
    "rw": "readwrite",
}


def _mount_field(spec: MountSpec, name: str, value: str) -> MountSpec:
    kind = spec.kind
    if name in ("readonly", "readwrite"):
        return spec._replace(read_only=_boolean(name, value) == (name == "readonly"))
    if name == "u" and kind != TMPFS:
        return spec._replace(chown=_boolean("U", value))
    if name == "bind-propagation" and kind == BIND and value in _PROPAGATIONS:
        return spec._replace(propagation=value)
    if name == "bind-recursive" and kind == BIND and value in ("enabled", "disabled", "writable", "readonly"):
        return spec._replace(recursive=value != "disabled")
    if name == "bind-nonrecursive" and kind == BIND:
        return spec._replace(recursive=not _boolean(name, value))
    if name == "bind-create-src" and kind == BIND:
        return spec._replace(make_source=_boolean(name, value))
    if name == "consistency" and value in _CONSISTENCY:
        return spec
    if name == "idmap" and kind in (BIND, VOLUME):
        if value not in ("true", "1"):
            raise UsageError(f"mount option 'idmap={value}' is not supported (--mount)", hint="write idmap alone")
        return spec._replace(idmap=True)
    if name == "relabel" and kind in (BIND, VOLUME):
        return spec._replace(relabel=True)
    if name in ("volume-nocopy", "nocopy") and kind == VOLUME:
        return spec._replace(nocopy=_boolean(name, value))
    if name in ("tmpfs-size", "tmpfs-mode") and kind == TMPFS:
        return spec._replace(options=(*spec.options, _tmpfs_value(name.removeprefix("tmpfs-"), value, "--mount")))
    if name in _FLAGS and _boolean(name, value):
        opposite = name.removeprefix("no") if name.startswith("no") else f"no{name}"
        return spec._replace(options=(*(o for o in spec.options if o != opposite), name))
    if name in ("volume-subpath", "subpath"):
        raise UsageError(
            f"cannot mount '{value}' of '{spec.source}' alone (--mount)",
            hint="a container that has the volume could lead the path elsewhere: mount the whole volume",
        )
    raise UsageError(f"invalid field '{name}={value}' for a mount of type {kind} (--mount)")


def _boolean(name: str, value: str) -> bool:
    if value.lower() in ("true", "1", ""):
        return True
    if value.lower() in ("false", "0"):
        return False
    raise UsageError(f"invalid value '{value}' for field '{name}' (--mount)", hint="write true or false")


def parse_volumes_from(text: str) -> tuple[str, bool | None]:
    """The container that a text `CONTAINER[:ro|rw]` of --volumes-from names, and whether its mounts are read-only here.

    None instead of that says that each mount is as the other container has it. Raises UsageError.
    """
    name, colon, mode = text.partition(":")
    if not name or (colon and mode not in ("ro", "rw", "z", "Z")):
        raise UsageError(f"invalid --volumes-from '{text}'", hint="write CONTAINER, CONTAINER:ro or CONTAINER:rw")
    return name, {"ro": True, "rw": False}.get(mode)


def plan_mounts(asked: list[MountSpec], inherited: list[MountSpec], image_volumes: list[str]) -> list[MountSpec]:
    """One mount per target, parents before what lies below them.

    The user's own mounts replace those of --volumes-from, which replace the image's VOLUMEs. Raises UsageError for a
    target that the user named twice (docker: duplicate mount point), and for one in /proc that is no bind: the
    container could write there what its later processes, and ours that join it, take for the kernel's answers
    (CVE-2019-16884). Binds in /proc are left to the runtime's judgement, as that of another procfs, or of one file such
    as /proc/cpuinfo, is harmless.
    """
    by_target: dict[str, MountSpec] = {}
    for spec in asked:
        if spec.target in by_target:
            raise UsageError(f"duplicate mount point: '{spec.target}'")
        by_target[spec.target] = spec
    own = set(by_target)
    for spec in inherited:
        if spec.target not in own:
            by_target[spec.target] = spec
    for target in image_volumes:
        cleaned = clean_target(target if target.startswith("/") else "/" + target, "the image's VOLUME")
        by_target.setdefault(cleaned, MountSpec(VOLUME, "", cleaned, from_image=True))
    for spec in by_target.values():
        if spec.kind != BIND and (spec.target == "/proc" or spec.target.startswith("/proc/")):
            what = "the image's VOLUME" if spec.from_image else f"a mount of type {spec.kind}"
            raise UsageError(f"cannot mount on '{spec.target}' ({what}): it is inside /proc")
    return sorted(by_target.values(), key=lambda s: (s.target.count("/"), s.target))
