"""Capabilities: their names, docker's default set, and the order in which a container's init takes them on.

It decides and applies sets; it changes no user id and loads no filter.
"""

from __future__ import annotations

import errno

from rootless.errors import UsageError
from rootless.kernel import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.runtime.spec.process_config import CapabilityNames

# capabilities(7): the position is the bit
NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
_BITS = 64  # of a capability set
BITS = {name: bit for bit, name in enumerate(NAMES)}
# what docker gives a container that asks for nothing
DEFAULT = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)


class CapabilitySets:
    """The five sets of a process as 64-bit masks. warnings: a line for each capability asked for that cannot be had."""

    __slots__ = ("ambient", "bounding", "effective", "inheritable", "permitted", "warnings")

    def __init__(
        self,
        *,
        bounding: int,
        effective: int,
        permitted: int,
        inheritable: int = 0,
        ambient: int = 0,
    ) -> None:
        self.bounding = bounding
        self.effective = effective
        self.permitted = permitted
        self.inheritable = inheritable
        self.ambient = ambient
        self.warnings: list[str] = []

    def to_oci(self) -> dict[str, list[str]]:
        """The `process.capabilities` object of the runtime specification."""
        return {
            "bounding": capability_names(self.bounding),
            "effective": capability_names(self.effective),
            "permitted": capability_names(self.permitted),
            "inheritable": capability_names(self.inheritable),
            "ambient": capability_names(self.ambient),
        }


def last_capability() -> int:
    """The highest capability of the running kernel, which the kernel itself is asked for: in a container that was
    joined, /proc/sys/kernel/cap_last_cap would be the container's answer."""
    known, unknown = 0, _BITS
    while unknown - known > 1:
        middle = (known + unknown) // 2
        try:
            process.cap_bound_read(middle)
        except OSError as e:
            if e.errno != errno.EINVAL:
                raise
            unknown = middle
        else:
            known = middle
    return known


def normalise_capability(name: str) -> str:
    """`net_raw`, `NET_RAW`, `cap_net_raw` → `CAP_NET_RAW`; `all` → `ALL`. Raises UsageError for a name nobody knows."""
    upper = name.strip().upper()
    if upper in ("ALL", "CAP_ALL"):
        return "ALL"
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in BITS:
        raise UsageError(f'unknown capability "{name}"', hint="see capabilities(7) for the names; CAP_ may be left out")
    return full


def capability_mask(wanted: Iterable[str]) -> int:
    """The 64-bit mask of canonical names."""
    value = 0
    for name in wanted:
        value |= 1 << BITS[name]
    return value


def capability_names(value: int) -> list[str]:
    """Canonical names of the bits in `value`, sorted; bits without a name are left out."""
    return sorted(name for bit, name in enumerate(NAMES) if value >> bit & 1)


def effective_names(add: Iterable[str] = (), drop: Iterable[str] = (), *, privileged: bool = False) -> list[str]:
    """Names a container gets for `--cap-add` and `--cap-drop`, by docker's rules; sorted.

    `--cap-add ALL` starts from everything, `--cap-drop ALL` from nothing; then drops are taken away and adds given; a
    name in both is added. `--privileged` gives everything whatever else is said. Raises UsageError for unknown names.
    """
    added = {normalise_capability(n) for n in add}
    dropped = {normalise_capability(n) for n in drop}
    if privileged:
        return sorted(NAMES)
    if "ALL" in added:
        return sorted(set(NAMES) - (dropped - {"ALL"}))
    if "ALL" in dropped:
        return sorted(added)
    return sorted((set(DEFAULT) - dropped) | added)


def effective_sets(
    add: Iterable[str] = (), drop: Iterable[str] = (), *, privileged: bool = False, uid: int = 0
) -> CapabilitySets:
    """The five sets of a container's first process that will run as `uid` (container id).

    Root has the whole set effective. Another user starts with none, as after a setuid(2) from root, but what was asked
    for by name with `--cap-add`: that goes to the ambient set too, without which it would vanish at exec (podman does
    the same; docker gives nothing). Inheritable stays empty otherwise (CVE-2022-24769, CVE-2022-27649, CVE-2022-29162).
    """
    added = [normalise_capability(n) for n in add]
    granted = capability_mask(effective_names(added, drop, privileged=privileged))
    if uid == 0:
        return CapabilitySets(bounding=granted, effective=granted, permitted=granted)
    kept = 0 if privileged or "ALL" in added else capability_mask(n for n in added if n != "ALL") & granted
    return CapabilitySets(bounding=granted, effective=kept, permitted=kept, inheritable=kept, ambient=kept)


def from_oci(capabilities: CapabilityNames | None) -> CapabilitySets:
    """Sets from `process.capabilities`; None means none at all.

    What cannot be granted MUST be a warning and SHOULD NOT fail the start (config.md, Linux Process): names that the
    kernel, or we, do not know, and what the kernel refuses to make effective or ambient (capabilities(7)).
    """
    if capabilities is None:
        return CapabilitySets(bounding=0, effective=0, permitted=0)
    highest = last_capability()
    unknown: dict[str, None] = {}

    def read(names: list[str]) -> int:
        value = 0
        for name in names:
            bit = BITS.get(name.upper())
            if bit is None or bit > highest:
                unknown[name] = None
            else:
                value |= 1 << bit
        return value

    bounding, effective = read(capabilities.bounding), read(capabilities.effective)
    permitted, inheritable = read(capabilities.permitted), read(capabilities.inheritable)
    ambient = read(capabilities.ambient)
    sets = CapabilitySets(
        bounding=bounding,
        # what the kernel would refuse: effective beyond permitted; ambient beyond permitted and inheritable
        effective=effective & permitted,
        permitted=permitted,
        inheritable=inheritable,
        ambient=ambient & permitted & inheritable,
    )
    if unknown:
        sets.warnings.append(f"capabilities not known to this kernel: {', '.join(unknown)}")
    sets.warnings += [
        f"can't make capability {name} effective: it is not in the permitted set"
        for name in capability_names(effective & ~permitted)
    ]
    for name in capability_names(ambient & ~sets.ambient):
        lacking = "inheritable" if permitted >> BITS[name] & 1 else "permitted"
        sets.warnings.append(f"can't raise ambient capability {name}: it is not in the {lacking} set")
    return sets


def not_held(sets: CapabilitySets) -> list[str]:
    """Names of the capabilities in `sets` that this process does not have itself, so that `apply` leaves them out."""
    _, permitted, _ = process.capget()
    return capability_names((sets.permitted | sets.inheritable) & ~permitted)


def drop_bounding(keep: int) -> None:
    """Drop every capability outside mask `keep` from the bounding set. Needs CAP_SETPCAP: before `apply`."""
    for bit in range(last_capability() + 1):
        if not keep >> bit & 1 and process.cap_bound_read(bit):
            process.cap_bound_drop(bit)


def keep_over_setuid() -> None:
    """Keep the permitted set when the user ids change from 0; `apply` gives the flag back. OSError."""
    process.set_keepcaps(True)


def apply(sets: CapabilitySets) -> None:
    """Take on `sets`: after setgroups, setgid and setuid, before no_new_privs. OSError.

    The order of init is: groups, `drop_bounding`, `keep_over_setuid`, gid, uid, `apply`. Ambient capabilities come last
    because the kernel wants them permitted and inheritable first. Sets are cut to what this process has: in a user
    namespace that is nested (or after a bounding drop) the rest cannot be granted and is no reason to fail.
    """
    _, permitted, _ = process.capget()
    allowed = sets.permitted & permitted
    inheritable = sets.inheritable & permitted
    process.cap_ambient_clear()
    process.capset(sets.effective & allowed, allowed, inheritable)
    process.set_keepcaps(False)
    for bit in range(len(NAMES)):
        if sets.ambient & allowed & inheritable & (1 << bit):
            process.cap_ambient_raise(bit)
