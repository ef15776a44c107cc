"""The options of a volume (`volume create -o type=… -o o=… -o device=…`) and the mount that they mean. Pure."""

from __future__ import annotations

from typing import NamedTuple

from rootless.engine.plan.mount_flags import BIND, TMPFS, VOLUME, MountSpec, parse_tmpfs, parse_volume
from rootless.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_KNOWN = ("type", "o", "device")


class VolumeBacking(NamedTuple):
    """The mount that a volume stands for.

    kind: volume (a directory of the store), bind (a directory of the host) or tmpfs;
    source: absolute path of a bind, "" for others. read_only, recursive, propagation, options: as in MountSpec.
    """

    kind: str = VOLUME
    source: str = ""
    read_only: bool = False
    recursive: bool = True
    propagation: str = ""
    options: tuple[str, ...] = ()


def parse_backing(options: Mapping[str, str]) -> VolumeBacking:
    """The mount that docker's options of the driver `local` ask for, as far as an ordinary user can have it.

    Raises UsageError for other options and for file systems that only the host's root may mount.
    """
    if not options:
        return VolumeBacking()
    unknown = [name for name in options if name not in _KNOWN]
    if unknown:
        raise UsageError(f"invalid volume option '{unknown[0]}'", hint=f"options are {', '.join(_KNOWN)}")
    kind, device = options.get("type", ""), options.get("device", "")
    words = [word for word in options.get("o", "").split(",") if word]
    if kind == TMPFS:
        return _backing(parse_tmpfs(f"/v:{','.join(['exec', 'suid', 'dev', *words])}"))
    if kind in ("none", "", BIND) and (kind == BIND or {"bind", "rbind"} & set(words)):
        if not device.startswith("/"):
            raise UsageError(
                f"a volume of type '{kind or 'none'}' needs the absolute path of a directory, not '{device}'",
                hint="add -o device=/path/on/the/host",
            )
        if ":" in device:
            raise UsageError(f"the device '{device}' of a volume cannot contain a colon")
        return _backing(parse_volume(f"{device}:/v:{','.join(words or ['bind'])}", "/"))
    raise UsageError(
        f"a volume of type '{kind or 'none'}' cannot be made: an ordinary user cannot mount such a file system",
        hint="use type=none with o=bind and device=/path/on/the/host, or type=tmpfs",
    )


def _backing(spec: MountSpec) -> VolumeBacking:
    return VolumeBacking(spec.kind, spec.source, spec.read_only, spec.recursive, spec.propagation, spec.options)
