"""The verb `bootstrap`: base images made with no registry.

busybox is made here, a Debian system in engine.transfer.bootstrap_debian.
"""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess

from rootless.engine import events
from rootless.engine.image.image_names import qualify
from rootless.engine.transfer.import_tar import image_config, make_image, store_layer
from rootless.errors import HostLimit, UsageError
from rootless.image.platform import host_platform
from rootless.image.tarwriter import TarWriter
from rootless.units import whole_timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.engine.context import Engine
    from rootless.engine.image_types import PullEvent
    from rootless.image.fields import Fields

_PLACES = ("/bin/busybox", "/usr/bin/busybox", "/usr/lib/initramfs-tools/bin/busybox")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SIZE_LIMIT = 64 << 20  # bytes of a busybox, which has about two million; the archive is made in memory
_VERSION = re.compile(r"BusyBox v([0-9][0-9A-Za-z.]*)", re.ASCII)
_DIRECTORIES = ("bin", "dev", "etc", "home", "proc", "root", "sbin", "sys", "tmp", "usr", "usr/bin", "usr/sbin", "var")
_MODES = {"root": 0o700, "tmp": 0o1777, "var/tmp": 0o1777}
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    "www-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    "etc/group": "root:x:0:\ndaemon:x:1:\ntty:x:5:\nusers:x:100:\nwww-data:x:33:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*::0:::::\nnobody:*::0:::::\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def bootstrap_image(
    engine: Engine,
    what: str,
    *,
    tag: str | None = None,
    mirror: str | None = None,
    progress: Callable[[PullEvent], None] | None = None,
) -> str:
    """Make a base image without a registry, and return its id.

    what: "busybox" or "debian[:SUITE]". tag: name of the image (default: docker.io/library/busybox:latest,
    docker.io/library/debian:SUITE). mirror: for debian, the archive's URL to use instead of the host's apt sources.
    progress is called from this thread only. Raises UsageError, HostLimit with the remedy.
    """
    kind, _, suite = what.partition(":")
    if kind == "debian":
        from rootless.engine.transfer.bootstrap_debian import bootstrap_debian

        image_id = bootstrap_debian(engine, suite, tag=tag, mirror=mirror, progress=progress)
    elif kind != "busybox" or suite or mirror:
        hint = "use busybox, debian or debian:SUITE; --mirror is for debian"
        raise UsageError(f"cannot bootstrap '{what}'", hint=hint)
    else:
        image_id = _bootstrap_busybox(engine, tag, progress)
    events.record_image(engine, "import", image_id, tag or what)
    return image_id


def _bootstrap_busybox(engine: Engine, tag: str | None, progress: Callable[[PullEvent], None] | None) -> str:
    path, content = _busybox()
    archive = busybox_archive(content, _applets(path))
    name = str(qualify(engine, tag or "docker.io/library/busybox:latest")[0])
    store = engine.store
    with store.using():
        layer = store_layer(store, io.BytesIO(archive), progress)
        config: Fields = {"Cmd": ["sh"], "Env": [_PATH]}
        # The image's time is that of the program's file, so that the same busybox makes the same image again
        created = whole_timestamp(os.stat(path).st_mtime)
        steps: list[Fields] = [{"created": created, "created_by": "rootless image bootstrap busybox"}]
        document = image_config(host_platform(), config, [layer.digest], steps)
        if tag is None and (version := _version(content)):
            make_image(store, layer, document, f"docker.io/library/busybox:{version}")
        return make_image(store, layer, document, name)


def busybox_archive(content: bytes, applets: list[str]) -> bytes:
    """The root file system as a tar, of the same bytes whenever program and applets are the same.

    content: the program; applets: paths such as `bin/sh`, which become hard links to it.
    """
    buffer = io.BytesIO()
    tar = TarWriter(buffer.write)
    for directory in [*_DIRECTORIES, "var/tmp", "var/www"]:
        tar.directory(directory, mode=_MODES.get(directory, 0o755))
    for name, text in sorted(_FILES.items()):
        tar.file(name, text.encode(), mode=0o640 if name == "etc/shadow" else 0o644)
    tar.file("bin/busybox", content, mode=0o755)
    for applet in sorted(set(applets) - {"bin/busybox"}):
        tar.hard_link(applet, "bin/busybox")
    tar.finish()
    return buffer.getvalue()


def _busybox() -> tuple[str, bytes]:
    """The path and content of the host's static busybox. Raises HostLimit with the remedy."""
    problem = "there is no busybox on this host"
    for path in _PLACES:
        try:
            with open(path, "rb") as file:
                content = file.read(_SIZE_LIMIT)
        except OSError:
            continue
        if not is_static(content):
            problem = f"'{path}' is not statically linked, so it cannot run alone in an image"
            continue
        return path, content
    raise HostLimit(problem, hint="install it: apt-get install busybox-static")


def _version(content: bytes) -> str | None:
    """The version in the program's own texts, such as "1.35.0"; None where there is none."""
    match = _VERSION.search(content.decode("latin-1"))
    return match[1] if match else None


def is_static(program: bytes) -> bool:
    """Whether an ELF program is statically linked: no segment PT_INTERP names a dynamic linker (elf(5)).

    A program with one could not start in an image without that linker and its libraries.
    """
    if program[:4] != b"\x7fELF" or len(program) < 64:
        return False
    order = "<" if program[5] == 1 else ">"
    try:
        if program[4] == 2:
            offset, size, count = struct.unpack_from(f"{order}Q", program, 32) + struct.unpack_from(
                f"{order}HH", program, 54
            )
        else:
            offset, size, count = struct.unpack_from(f"{order}I", program, 28) + struct.unpack_from(
                f"{order}HH", program, 42
            )
        kinds = [struct.unpack_from(f"{order}I", program, offset + size * number)[0] for number in range(count)]
    except struct.error:
        return False
    return 3 not in kinds


def _applets(path: str) -> list[str]:
    """The paths by which the program can be called, without the leading slash, from `busybox --list-full`."""
    try:
        listing = subprocess.run(
            [path, "--list-full"], capture_output=True, timeout=10, check=True, env={"PATH": os.defpath}
        ).stdout.decode("ascii", "replace")
    except (OSError, subprocess.SubprocessError) as e:
        raise HostLimit(f"cannot run '{path}': {e}", hint="apt-get install --reinstall busybox-static") from e
    applets = [line for line in listing.split() if all(part not in ("", ".", "..") for part in line.split("/"))]
    if "bin/sh" not in applets:
        applets.append("bin/sh")
    return applets
