"""Finds out which network helper is used here: each is tried once, and the result is kept in a file.

`doctor` always tries anew and keeps what it finds; `run`, `build` and `info` read the file. So all give one answer.
A result is kept with everything that it depends on, and counts no longer when any of that has changed. Some causes of
a failure leave no trace to compare, such as a host without a route: so a failure counts for RETRY_AFTER seconds at
most.
"""

from __future__ import annotations

import os
import time

from rootless.errors import InvalidInput
from rootless.host.facts import describe_file
from rootless.network.modes import HELPERS
from rootless.records.fields import Fields, parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.host.probes.result import Probe
    from rootless.network.mode import HelperProgram

RETRY_AFTER = 300.0  # seconds
_FILE = "network-helper.json"


class HelperFinding:
    """What a trial of a helper found. works: it connects a network; flaw: what it gets wrong, "" for nothing.

    at: when it was tried, in seconds since 1970.
    """

    __slots__ = ("at", "flaw", "works")

    def __init__(self, works: bool, flaw: str, at: float) -> None:
        self.works = works
        self.flaw = flaw
        self.at = at

    @property
    def is_good(self) -> bool:
        """Can the helper be used without a loss that its purpose does not say?"""
        return self.works and not self.flaw

    def to_json(self) -> dict[str, object]:
        """The finding as JSON values."""
        return {"works": self.works, "flaw": self.flaw, "at": self.at}

    @classmethod
    def from_json(cls, fields: Fields) -> HelperFinding:
        """What `to_json` wrote. Raises InvalidInput for a member that is wrong."""
        return cls(fields.flag("works"), fields.text("flaw"), fields.number("at"))


class KeptFindings:
    """The findings of trials, kept in a file of the directory `cache`: read once, written after each trial."""

    __slots__ = ("_cache", "_found", "_key")

    def __init__(self, cache: str) -> None:
        self._cache = cache
        self._found: dict[str, HelperFinding] = {}
        self._key = _describe_dependencies()
        try:
            with open(f"{cache}/{_FILE}", encoding="utf-8") as file:
                fields = Fields(parse_json(file.read()), file.name)
            if fields.text("key") == self._key:
                for helper in HELPERS:
                    member = fields.member(helper.name)
                    found = None if member is None else HelperFinding.from_json(member)
                    if found is not None and (found.works or 0 <= time.time() - found.at < RETRY_AFTER):
                        self._found[helper.name] = found
        except (OSError, ValueError, InvalidInput):
            self._found.clear()

    def known(self, helper: HelperProgram) -> HelperFinding | None:
        """What is known of `helper` without a trial."""
        return self._found.get(helper.name)

    def find(self, helper: HelperProgram) -> HelperFinding:
        """What is known of `helper`, which is tried when nothing is."""
        if helper.name not in self._found:
            self.try_anew(helper)
        return self._found[helper.name]

    def try_anew(self, helper: HelperProgram) -> Probe:
        """Try `helper` (about 0.1 s; seconds when it does not work), and keep what is found."""
        from rootless.network.helper_trial import try_helper

        found = try_helper(helper, self._cache)
        self._found[helper.name] = HelperFinding(found.works, found.flaw, time.time())
        self._write()
        return found

    def _write(self) -> None:
        import json

        from rootless.paths import atomic_write, make_private

        content: dict[str, object] = {name: found.to_json() for name, found in self._found.items()}
        try:
            make_private(self._cache)
            atomic_write(f"{self._cache}/{_FILE}", json.dumps({"key": self._key, **content}).encode(), durable=False)
        except OSError:
            pass  # where the cache cannot be written, the next command tries again


class TriedHelper:
    """A helper that is tried anew whenever `doctor` asks; what is found is kept for the next command.

    cache: the directory where findings are kept. The other attributes are those of network.mode.HelperProgram.
    """

    __slots__ = ("_cache", "_helper", "loss", "name", "package", "purpose", "speciality")

    def __init__(self, helper: HelperProgram, cache: str) -> None:
        self._helper = helper
        self._cache = cache
        self.name = helper.name
        self.package = helper.package
        self.purpose = helper.purpose
        self.loss = helper.loss
        self.speciality = helper.speciality

    def probe(self, directory: str) -> Probe:
        """Try the helper; `directory` is not needed."""
        return KeptFindings(self._cache).try_anew(self._helper)


def choose(cache: str, *, publishes_ipv6: bool = False) -> tuple[HelperProgram | None, str]:
    """The helper to use, and its flaw or ""; None where none is installed.

    It is the first of HELPERS without a flaw, else the first that works, else the first that is installed, whose
    start then says what fails. publishes_ipv6: of those that can publish an IPv6 address, if there is one. cache: the
    directory where findings are kept.
    """
    installed = [helper for helper in HELPERS if helper.path() is not None]
    if not installed:
        return None, ""
    able = [helper for helper in installed if helper.publishes_ipv6] if publishes_ipv6 else []
    return _first_good(able or installed, KeptFindings(cache))


def _first_good(candidates: Sequence[HelperProgram], kept: KeptFindings) -> tuple[HelperProgram, str]:
    flawed: tuple[HelperProgram, str] | None = None
    for helper in candidates:
        found = kept.find(helper)
        if found.is_good:
            return helper, ""
        if found.works and flawed is None:
            flawed = helper, found.flaw
    return flawed or (candidates[0], "")


def guess(cache: str) -> HelperProgram:
    """The helper that `choose` will probably name: by what is known without a trial, else the first of HELPERS."""
    kept = KeptFindings(cache)
    for helper in HELPERS:
        found = kept.known(helper)
        if found is not None and found.is_good:
            return helper
    return HELPERS[0]


def _describe_dependencies() -> str:
    """Everything that may change what a trial finds, as one text: the boot, the kernel, the user namespace and the
    user; /dev/net/tun; and the helpers' programs."""
    from rootless.kernel.procfs import boot_id

    described = [boot_id(), os.uname().release, os.readlink("/proc/self/ns/user"), str(os.geteuid())]
    described.append(describe_file("/dev/net/tun", with_times=False))
    described += [describe_file(helper.path()) for helper in HELPERS]
    return " ".join(described)
