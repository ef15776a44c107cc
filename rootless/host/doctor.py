"""The report of `rootless doctor`: probes by subject, and for each what is used and what is lost. It mends nothing."""

from __future__ import annotations

from rootless.host.facts import find_helper, is_real_root
from rootless.host.probes import TIMEOUT, probe, remember
from rootless.host.probes.result import Probe
from rootless.host.probes.trial import attempt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    class NetworkHelper(Protocol):
        """A program that connects containers' networks, as the network room knows it and this room does not.

        purpose: what it is for; loss: what is lost with it, "" for nothing; probe: tries it.
        """

        name: str
        package: str
        purpose: str
        loss: str

        def probe(self, directory: str) -> Probe:
            """Try it once."""


# program, Debian package, what it is for
_ID_AND_LAYER_PROGRAMS = (
    ("newuidmap", "uidmap", "more than one id in containers"),
    ("newgidmap", "uidmap", "more than one id in containers"),
    ("fuse-overlayfs", "fuse-overlayfs", "layers where the kernel's overlayfs does not work"),
)
_BOOTSTRAP_PROGRAMS = (
    ("busybox", "busybox-static", "`rootless image bootstrap busybox`"),
    ("mmdebstrap", "mmdebstrap", "`rootless image bootstrap debian`"),
)


class Section:
    """Probes of one subject. verdict: what is used and what is lost, in one line; is_usable: containers can run so."""

    __slots__ = ("is_usable", "probes", "title", "verdict")

    def __init__(self, title: str, probes: list[Probe], verdict: str, *, is_usable: bool = True) -> None:
        self.title = title
        self.probes = probes
        self.verdict = verdict
        self.is_usable = is_usable

    def to_json(self) -> dict[str, Any]:
        """The section as JSON values."""
        return {
            "title": self.title,
            "verdict": self.verdict,
            "usable": self.is_usable,
            "probes": [p.to_json() for p in self.probes],
        }


def examine(data_directory: str, helpers: Sequence[NetworkHelper], cache: str | None = None) -> list[Section]:
    """Run every probe (about 0.2 s) and sum them up.

    helpers: what can connect a network, the best first; cache: directory where the results are kept for `cached`.
    """
    sections = [
        _section("user namespaces and ids", ("user_namespaces", "id_ranges"), data_directory, _ids),
        _section("image layers", ("overlay", "fuse_overlayfs", "reflink"), data_directory, _layers),
        _network(helpers, data_directory),
        _section("confinement", ("seccomp", "seccomp_listener", "keyring", "cgroup"), data_directory, _confinement),
        _section("directories", ("data_directory", "runtime_directory", "lingering"), data_directory, _directories),
        _section(
            "kernel",
            ("openat2", "mount_setattr", "mount_api", "pidfd", "close_range", "time_namespace"),
            data_directory,
            _kernel,
        ),
        _programs(helpers),
    ]
    if cache is not None:
        remember([p for s in sections for p in s.probes if s.title != "programs"], data_directory, cache)
    return sections


def _section(
    title: str, names: tuple[str, ...], directory: str, judge: Callable[[dict[str, Probe]], tuple[str, bool]]
) -> Section:
    probes = {name: probe(name, directory) for name in names}
    verdict, is_usable = judge(probes)
    return Section(title, list(probes.values()), verdict, is_usable=is_usable)


def _ids(found: dict[str, Probe]) -> tuple[str, bool]:
    if not found["user_namespaces"].works:
        return "nothing can run: this host forbids user namespaces", False
    if is_real_root():
        return "running as root: an ordinary user is safer, and all that is needed", True
    if not found["id_ranges"].works:
        return "one id per container: no other users inside, files of all owners are yours", True
    return "containers have users of their own", True


def _layers(found: dict[str, Probe]) -> tuple[str, bool]:
    if found["overlay"].works:
        return "the kernel's overlayfs is used", True
    if found["fuse_overlayfs"].works:
        return "fuse-overlayfs is used: opening and removing many files takes longer", True
    if found["reflink"].works:
        return "layers are copied by reflink: creating a container takes as long as its number of files", True
    return "layers are copied: every container takes the time and the room of its whole image", True


def _network(helpers: Sequence[NetworkHelper], directory: str) -> Section:
    tried = [attempt(helper.name, helper.probe, directory, TIMEOUT) for helper in helpers]
    used = next((helper for helper, found in zip(helpers, tried, strict=True) if found.works), None)
    verdict = "only --network=host and --network=none work"
    if used is not None:
        verdict = f"{used.name} is used: {used.loss}" if used.loss else f"{used.name} is used"
    return Section("network", [*tried, *(probe(name, directory) for name in ("tun", "low_ports"))], verdict)


def _confinement(found: dict[str, Probe]) -> tuple[str, bool]:
    lost = []
    if not found["seccomp"].works:
        lost.append("no system call filter (only --security-opt seccomp=unconfined runs)")
    if not found["seccomp_listener"].works:
        lost.append("no record of owners where root is emulated")
    if not found["keyring"].works:
        lost.append("no keyring of their own")
    if not found["cgroup"].works:
        lost.append("no resource limits")
    return ("containers have " + ", ".join(lost) if lost else "all of it works"), True


def _directories(found: dict[str, Probe]) -> tuple[str, bool]:
    data = found["data_directory"]
    return ("objects are kept in " if data.works else "not fit for objects: ") + data.detail, data.works


def _kernel(found: dict[str, Probe]) -> tuple[str, bool]:
    missing = [p.name for p in found.values() if not p.works]
    if missing:
        return f"older ways are used for {', '.join(missing)}", True
    return "all system calls of the quickest way are there", True


def _programs(helpers: Sequence[NetworkHelper]) -> Section:
    probes = []
    networks = [(helper.name, helper.package, helper.purpose) for helper in helpers]
    for name, package, purpose in (*_ID_AND_LAYER_PROGRAMS, *networks, *_BOOTSTRAP_PROGRAMS):
        path = find_helper(name)
        remedy = None if path else f"ask the administrator for: apt install {package}"
        probes.append(Probe(name, path is not None, path or f"missing: needed for {purpose}", remedy))
    missing = [p.name for p in probes if not p.works]
    return Section("programs", probes, f"missing: {', '.join(missing)}" if missing else "all are there")
