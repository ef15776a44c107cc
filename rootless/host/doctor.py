"""The report of `rootless doctor`: probes by subject, and for each what is used and what is lost. It mends nothing."""

from __future__ import annotations

from rootless.host.facts import find_helper, is_real_root
from rootless.host.probes import probe
from rootless.host.probes.result import Probe
from rootless.host.subid import MAP_PROGRAMS, default_id_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    class Candidate(Protocol):
        """A network helper or a storage driver, which rooms above this one know.

        purpose: what it is for; loss: what is lost with it, "" for nothing; package: Debian's package of its program.
        """

        name: str
        package: str
        purpose: str
        loss: str

        def probe(self, directory: str) -> Probe:
            """Try it for real, below `directory` where it needs files. Never raises for what the host lacks."""

    class NetworkHelper(Candidate, Protocol):
        """A network helper. speciality: what it is used for where another one is the usual one, "" for nothing."""

        @property
        def speciality(self) -> str: ...

    class StorageDriver(Candidate, Protocol):
        """A storage driver. program: the host program that it needs, "" for none."""

        program: str


# Each row is a program, Debian's package of it, and what it is for
_ID_PROGRAMS = tuple((name, "uidmap", "more than one id in containers") for name in MAP_PROGRAMS)
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

    def to_json(self) -> dict[str, object]:
        """The section as JSON values."""
        return {
            "title": self.title,
            "verdict": self.verdict,
            "usable": self.is_usable,
            "probes": [p.to_json() for p in self.probes],
        }


def run_probes(
    data_directory: str,
    helpers: Sequence[NetworkHelper],
    drivers: Sequence[StorageDriver],
    *,
    storage_driver: str = "auto",
) -> list[Section]:
    """Run every probe (about 0.3 s) and sum them up.

    helpers: what can connect a network, drivers: what can make a root filesystem of layers, the best first;
    storage_driver: the one that the user's settings ask for.
    """
    return [
        _section("user namespaces and ids", ("user_namespaces", "id_ranges"), data_directory, _ids),
        _layers(drivers, data_directory, storage_driver),
        _network(helpers, data_directory),
        _section("confinement", ("seccomp", "seccomp_listener", "keyring", "cgroup"), data_directory, _confinement),
        _section("directories", ("data_directory", "runtime_directory", "lingering"), data_directory, _directories),
        _section(
            "kernel",
            ("openat2", "mount_setattr", "mount_api", "pidfd", "close_range", "time_namespace"),
            data_directory,
            _kernel,
        ),
        _programs(helpers, drivers),
    ]


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
        if default_id_map().kind != "single":
            # The ranges and the programs are there, so containers would be given them, and fail
            return "nothing can run: the id map with your ranges cannot be written", False
        return "one id per container: no other users inside, files of all owners are yours", True
    return "containers have users of their own", True


def _layers(drivers: Sequence[StorageDriver], directory: str, wanted: str) -> Section:
    tried = [driver.probe(directory) for driver in drivers]
    asked = [one for one in zip(drivers, tried, strict=True) if wanted in ("auto", one[0].name)]
    used = next((driver for driver, found in asked if found.works), None)
    verdict = f"nothing can run: storage driver '{wanted}' does not work"
    if used is not None:
        verdict = _verdict(used)
    return Section("image layers", [*tried, probe("reflink", directory)], verdict, is_usable=used is not None)


def _network(helpers: Sequence[NetworkHelper], directory: str) -> Section:
    tried = [(helper, helper.probe(directory)) for helper in helpers]
    working = sorted((one for one in tried if one[1].works), key=lambda one: bool(one[1].flaw))
    verdict = "only --network=host and --network=none work"
    if working:
        used, found = working[0]
        clauses = [_verdict(used), found.flaw]
        if not used.speciality:
            clauses += [f"{helper.name} for {helper.speciality}" for helper, _ in working[1:] if helper.speciality]
        verdict = "; ".join(filter(None, clauses))
    probes = [found for _, found in tried]
    return Section("network", [*probes, *(probe(name, directory) for name in ("tun", "low_ports"))], verdict)


def _verdict(used: Candidate) -> str:
    return f"{used.name} is used: {used.loss}" if used.loss else f"{used.name} is used"


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


def _programs(helpers: Sequence[Candidate], drivers: Sequence[StorageDriver]) -> Section:
    probes = []
    layers = [(driver.program, driver.package, driver.purpose) for driver in drivers if driver.program]
    networks = [(helper.name, helper.package, helper.purpose) for helper in helpers]
    for name, package, purpose in (*_ID_PROGRAMS, *layers, *networks, *_BOOTSTRAP_PROGRAMS):
        path = find_helper(name)
        remedy = None if path else f"ask the administrator for: apt install {package}"
        probes.append(Probe(name, path is not None, path or f"missing: needed for {purpose}", remedy))
    missing = [p.name for p in probes if not p.works]
    return Section("programs", probes, f"missing: {', '.join(missing)}" if missing else "all are there")
