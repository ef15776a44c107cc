"""A Debian base image: mmdebstrap makes it in a user namespace of ours, and its output is imported while it is written.

Nothing of it is kept as a file, so that no disk needs room for a system twice.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time

from rootless.engine.image.image_names import qualify
from rootless.engine.image_types import PullEvent
from rootless.engine.transfer.import_tar import image_config, make_image, store_layer
from rootless.errors import HostLimit, UsageError
from rootless.host.facts import find_helper
from rootless.image.platform import host_platform
from rootless.units import whole_timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rootless.engine.context import Engine
    from rootless.image.fields import Fields

_SUITE = re.compile(r"[a-z][a-z0-9-]*", re.ASCII)
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SOURCE_DATE_EPOCH")
_SHOWN = 10  # so many of the last lines of mmdebstrap are shown in an error


def bootstrap_debian(
    engine: Engine,
    suite: str,
    *,
    tag: str | None,
    mirror: str | None,
    progress: Callable[[PullEvent], None] | None,
) -> str:
    """Make the image, name it, and return its id. suite: a code name, "" for the host's own.

    tag, mirror, progress: as of `bootstrap_image`. Raises UsageError, HostLimit with the remedy.
    """
    suite = suite or host_suite()
    if not _SUITE.fullmatch(suite):
        raise UsageError(f"'{suite}' is not a Debian suite", hint="use a code name such as bookworm")
    name = str(qualify(engine, tag or f"docker.io/library/debian:{suite}")[0])
    program = find_helper("mmdebstrap")
    if program is None:
        raise HostLimit("mmdebstrap is not installed", hint="install it: apt-get install mmdebstrap")
    store = engine.store
    if store.id_map.kind == "single":
        raise HostLimit(
            "a Debian system cannot be made with a single user id: its packages own files as several users",
            hint=f"ask the administrator for a range: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "
            f"{os.environ.get('USER') or os.geteuid()}",
        )
    command = [program, "--mode=root", "--variant=minbase", "--format=tar", *_apt_options(), suite, "-"]
    command += [mirror] if mirror else host_sources(suite)
    if progress is not None:
        progress(PullEvent("", f"Running mmdebstrap for {suite}"))
    with store.using():
        made = _Mmdebstrap(engine, command)
        try:
            layer = store_layer(store, made, progress)
        finally:
            made.close()
        created = whole_timestamp(time.time())
        steps: list[Fields] = [{"created": created, "created_by": f"rootless image bootstrap debian:{suite}"}]
        config: Fields = {"Cmd": ["bash"], "Env": [_PATH]}
        return make_image(store, layer, image_config(host_platform(), config, [layer.digest], steps), name)


class _Mmdebstrap:
    """The running program. `read` gives its tar, and raises at the end if the program failed.

    Without that a tar that an error cut short, at the border of two entries, would become an image.
    """

    def __init__(self, engine: Engine, command: list[str]) -> None:
        from rootless.host.interpreter import worker_command

        environment = {key: os.environ[key] for key in _PROXIES if key in os.environ}
        environment |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}
        # Its chroot is a whole system. /tmp may be in memory; the store is on a disk
        environment["TMPDIR"] = engine.store.path("incoming")
        self._words: list[str] = []
        self._process = subprocess.Popen(
            worker_command(
                "rootless.engine.transfer.bootstrap_worker", json.dumps(engine.store.id_map.to_json()), *command
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            process_group=0,  # see `worker_command`
        )
        # Its messages are read by a thread of their own: a full pipe of them would stop the program, while we wait for
        # its tar
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes of the tar, empty at its end. Raises HostLimit with the program's last lines if it failed."""
        assert self._process.stdout is not None
        piece = self._process.stdout.read(size)
        if not piece:
            status = self._process.wait()
            self._listener.join(5)
            if status:
                words = "\n".join(self._words[-_SHOWN:])
                raise HostLimit(
                    f"mmdebstrap failed with exit status {status}:\n{words}",
                    hint="is the Debian archive reachable? --mirror URL names another one",
                )
        return piece

    def close(self) -> None:
        """End the program if it still runs."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for raw in self._process.stderr:
            line = raw.decode("utf-8", "replace").strip()
            if line and not line.startswith("["):
                self._words.append(line)
                del self._words[:-50]


def host_suite() -> str:
    """The code name of the host when it is Debian, else the stable release of this program's time."""
    try:
        with open("/etc/os-release", encoding="utf-8", errors="replace") as file:
            fields = dict(line.strip().partition("=")[::2] for line in file if "=" in line)
    except OSError:
        fields = {}
    if fields.get("ID", "").strip('"') == "debian" and fields.get("VERSION_CODENAME"):
        return fields["VERSION_CODENAME"].strip('"')
    return "bookworm"


def host_sources(suite: str) -> list[str]:
    """The host's own apt sources of `suite`, its updates and its security fixes, as arguments of mmdebstrap.

    Where there are none the list is empty, and mmdebstrap takes its own default.
    """
    wanted = (suite, f"{suite}-updates", f"{suite}-security", f"{suite}/updates")
    lines = []
    for path in _source_files():
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read(1 << 20)
        except OSError:
            continue
        lines += [line for line in (_deb822(text) if path.endswith(".sources") else _one_line(text)) if line]
    chosen = []
    for line in lines:
        _, line_suite, *components = line.rpartition("] ")[2].removeprefix("deb ").split()
        if line_suite in wanted and "main" in components:
            chosen.append(line)
    return list(dict.fromkeys(chosen))


def _source_files() -> Iterator[str]:
    yield "/etc/apt/sources.list"
    directory = "/etc/apt/sources.list.d"
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return
    yield from (f"{directory}/{name}" for name in names if name.endswith((".list", ".sources")))


def _one_line(text: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line.startswith("deb ") and len(line.rpartition("] ")[2].split()) > 2]


def _deb822(text: str) -> list[str]:
    """The stanzas of a .sources file (deb822, sources.list(5)) as lines of a sources.list."""
    lines = []
    for stanza in re.split(r"\n\s*\n", "\n".join(line for line in text.splitlines() if not line.startswith("#"))):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields[key] = f"{fields.get(key, '')} {line.strip()}"
            else:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        signed = fields.get("signed-by", "")
        option = f"[signed-by={signed}] " if signed.startswith("/") and " " not in signed else ""
        lines += [
            f"deb {option}{uri} {suite} {fields.get('components', 'main')}"
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        ]
    return lines


def _apt_options() -> list[str]:
    """Options of mmdebstrap for the proxies of the host's apt, whose configuration its own apt does not read."""
    program = find_helper("apt-config")
    if program is None:
        return []
    try:
        dump = subprocess.run([program, "dump"], capture_output=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    wanted = re.compile(r'Acquire::https?::(?:Proxy|[^ ]*::Proxy) "[^"]+";', re.IGNORECASE)
    lines = dump.decode("utf-8", "replace").splitlines()
    return [f"--aptopt={line.rstrip(';')}" for line in lines if wanted.fullmatch(line)]
