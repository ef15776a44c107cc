"""Finds out which storage driver works here. Each is tried once by a real mount, and the result is kept in a file.

`doctor` always tries anew and keeps what it finds; `run`, `build` and `info` read the file. So all give one answer.
A result is kept with everything that it depends on, and counts no longer when any of that has changed. Some causes of
a failure leave no trace to compare, such as a full disk or a limit of processes. So a failure counts for RETRY_AFTER
seconds at most, and drivers that are kept as failing are tried anew before a command fails for want of one.
"""

from __future__ import annotations

import json
import os
import time

from rootless.errors import HostLimit, InvalidInput
from rootless.records.fields import Fields, parse_json
from rootless.storage.drivers import all_drivers, driver_names, find_driver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.host.probes.result import Probe
    from rootless.records.id_map import IdMap
    from rootless.storage.drivers import Driver

TIMEOUT = 20.0  # seconds; a trial takes 0.1 s, but FUSE or a network file system may hang
RETRY_AFTER = 300.0  # seconds
# The sysctls on which user namespaces depend; an administrator may change them at any time
_LIMITS = (
    "user/max_user_namespaces",
    "user/max_mnt_namespaces",
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
)


class TriedDriver:
    """A driver that is tried anew whenever `doctor` asks; what is found is kept for the next command.

    cache: the directory where results are kept. The other attributes are those of storage.drivers.Driver.
    """

    __slots__ = ("_cache", "_driver", "_id_map", "loss", "name", "package", "program", "purpose")

    def __init__(self, driver: Driver, id_map: IdMap, cache: str) -> None:
        self._driver = driver
        self._id_map = id_map
        self._cache = cache
        self.name = driver.name
        self.purpose = driver.purpose
        self.loss = driver.loss
        self.program = driver.program
        self.package = driver.package

    def probe(self, directory: str) -> Probe:
        """Try the driver in `directory`, or in the nearest directory above it that is there already."""
        from rootless.host.probes.trial import existing_parent

        return KeptAnswers(existing_parent(directory), self._id_map, self._cache).try_anew(self._driver)


class KeptAnswers:
    """The results of trials below `directory`, kept in a file of the directory `cache`: read once, written after each
    trial.

    order: the names of the drivers, the best first. It is kept too, as are the names of the programs that drivers need:
    so `run` imports no driver but the one that it uses.
    """

    __slots__ = ("_cache", "_directory", "_failed_at", "_id_map", "_key", "_programs", "_reasons", "order")

    def __init__(self, directory: str, id_map: IdMap, cache: str) -> None:
        from rootless.storage.drivers.writable import is_reachable

        if not is_reachable(id_map):
            # Root of this map (`--userns=nomap`) may not enter `directory`, where the trial mounts. The default map
            # needs the same of the host.
            from rootless.host.subid import default_id_map

            id_map = default_id_map()
        self._directory = directory
        self._id_map = id_map
        self._cache = cache
        self._reasons: dict[str, str] = {}
        self._failed_at: dict[str, float] = {}
        if not self._read():
            drivers = all_drivers()
            self.order = [driver.name for driver in drivers]
            self._programs = [driver.program for driver in drivers if driver.program]
            self._key = describe_dependencies(directory, id_map, self._programs)

    def first_working(self, asked: Iterable[str]) -> str | None:
        """The first of the drivers named `asked` that works by its kept result; one without a result is tried.

        None when all fail; those that failed earlier may work again by now.
        """
        for name in asked:
            if name not in self._reasons:
                self.try_anew(find_driver(name))
            if not self._reasons[name]:
                return name
        return None

    def try_anew(self, driver: Driver) -> Probe:
        """Try the driver, and keep the result."""
        from rootless.host.probes.trial import attempt_probe

        found = attempt_probe(driver.name, lambda place: driver.probe(place, self._id_map), self._directory, TIMEOUT)
        self._reasons[driver.name] = "" if found.works else found.detail
        self._failed_at.pop(driver.name, None)
        if not found.works:
            self._failed_at[driver.name] = time.time()
        self._write()
        return found

    def _read(self) -> bool:
        """Read the kept results; False when there are none, or when anything on which they depend has changed."""
        try:
            with open(f"{self._cache}/storage-driver.json", encoding="utf-8") as file:
                fields = Fields(parse_json(file.read()), file.name)
            self.order, self._programs = fields.texts("order"), fields.texts("programs")
            self._key = describe_dependencies(self._directory, self._id_map, self._programs)
            if fields.text("key") != self._key:
                return False
            failures = fields.member("failed_at")
            for name, reason in fields.text_mapping("reasons").items():
                at = failures.number(name, 0.0) if failures is not None else 0.0
                if reason and not 0 <= time.time() - at < RETRY_AFTER:
                    continue
                self._reasons[name] = reason
                if reason:
                    self._failed_at[name] = at
        except (OSError, ValueError, InvalidInput):
            return False
        return True

    def _write(self) -> None:
        from rootless.paths import atomic_write, make_private

        content: dict[str, object] = {"key": self._key, "order": self.order, "programs": self._programs}
        content |= {"reasons": self._reasons, "failed_at": self._failed_at}
        try:
            make_private(self._cache)
            atomic_write(f"{self._cache}/storage-driver.json", json.dumps(content).encode(), durable=False)
        except OSError:
            pass  # where the cache cannot be written, the next command tries again


def choose_driver(name: str, directory: str, id_map: IdMap, cache: str) -> str:
    """The name of the driver to use below `directory`: `name` when that works there; for "auto" the best that works.

    cache: the directory where results are kept. Raises UsageError for an unknown name, HostLimit with the reason and
    its remedy when the driver, or for "auto" any driver, does not work.
    """
    if name != "auto":
        find_driver(name)
    answers = KeptAnswers(directory, id_map, cache)
    asked = answers.order if name == "auto" else [name]
    chosen = answers.first_working(asked)
    if chosen is not None:
        return chosen
    failures = []
    for driver in map(find_driver, asked):
        found = answers.try_anew(driver)
        if found.works:
            return driver.name
        failures.append(found)
    if len({failure.detail for failure in failures}) == 1:  # the fault lies in something that all drivers need
        raise HostLimit(failures[0].detail, hint=failures[0].remedy or "see `rootless doctor`")
    reasons = "; ".join(f"{failure.name}: {failure.detail}" for failure in failures)
    raise HostLimit(f"storage driver '{name}' does not work in '{directory}': {reasons}", hint="see `rootless doctor`")


def describe_dependencies(directory: str, id_map: IdMap, programs: Iterable[str]) -> str:
    """Everything that may repair or break a driver below `directory`, as one text. programs: those that drivers need.

    In it are the names of the drivers; the boot and the file system; the id map, and the files and programs that it
    comes from; /dev/fuse; the limits on namespaces; and what this session may do: its user namespace, ids, groups and
    confinement.
    """
    from rootless.host.facts import apparmor_profile, describe_file, find_helper, has_no_new_privs, read_sysctl
    from rootless.host.subid import MAP_PROGRAMS
    from rootless.kernel.procfs import boot_id

    described = [
        *driver_names(),
        boot_id(),
        str(os.stat(directory).st_dev),
        id_map.key(),
        os.readlink("/proc/self/ns/user"),
    ]
    described += [os.environ.get("PATH", ""), f"{os.geteuid()}:{os.getegid()}:{sorted(os.getgroups())}"]
    # In a sandbox with no_new_privs, newuidmap gets no privileges from its set-uid bit; the next session may be outside
    described += [str(has_no_new_privs()), apparmor_profile()]
    paths = [find_helper(name) for name in (*MAP_PROGRAMS, *programs)]
    files = (*paths, "/etc/subuid", "/etc/subgid", "/etc/nsswitch.conf")
    described += [*map(describe_file, files), describe_file("/dev/fuse", with_times=False)]
    described.extend(read_sysctl(name) or "-" for name in _LIMITS)
    return " ".join(described)
