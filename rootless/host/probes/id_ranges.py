"""Probes of user namespaces, and of the ranges of ids that they can have."""

from __future__ import annotations

import os

from rootless.host import subid, userns
from rootless.host.facts import INITIAL_USER_NAMESPACE, find_helper, is_privileged, is_real_root, user_name
from rootless.host.idmap import SubordinateIds, default_map, single_map
from rootless.host.mapping import PACKAGE_HINT, range_hint
from rootless.host.probes.result import Probe
from rootless.host.subid import MAP_PROGRAMS, read_ranges, subordinate_ids

ENOUGH = 65536  # images use ids up to 65534 (nobody)


def user_namespaces(directory: str) -> Probe:
    """Make a user and mount namespace with one id, and a mount in it: AppArmor may allow the one and not the other."""
    from rootless.host.remedies import restriction_hint
    from rootless.kernel import mounts

    def mount_something() -> bytes:
        mounts.mount("tmpfs", "/proc", "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, "size=4k")
        return b""

    try:
        userns.call_in_new_namespace(single_map(0, 0), mount_something)
    except OSError as e:
        return Probe("user_namespaces", False, f"no mount in a user namespace: {e.strerror}", restriction_hint())
    if is_real_root():
        return Probe("user_namespaces", True, "made one as root", "work as an ordinary user: nothing here needs root")
    return Probe("user_namespaces", True, "made one, with a mount in it")


def id_ranges(directory: str) -> Probe:
    """Make a namespace with all ids that /etc/subuid and /etc/subgid give, and take on the highest one."""
    ids = subordinate_ids()
    if os.readlink("/proc/self/ns/user") != INITIAL_USER_NAMESPACE and is_privileged():
        return _nested()
    if ids is None:
        return Probe(
            "id_ranges",
            False,
            f"no range of subordinate ids for user '{user_name()}': containers have one id, and files of other users in"
            " images become yours",
            range_hint(),
        )
    if not is_privileged():
        for program in MAP_PROGRAMS:
            if find_helper(program) is None:
                return Probe("id_ranges", False, f"program '{program}' is missing", PACKAGE_HINT)
    id_map = default_map(ids, os.geteuid(), os.getegid())
    last_uid = max(e.container + e.size - 1 for e in id_map.uids)
    last_gid = max(e.container + e.size - 1 for e in id_map.gids)

    def become_last() -> bytes:
        os.setgroups([])
        os.setresgid(last_gid, last_gid, last_gid)
        os.setresuid(last_uid, last_uid, last_uid)
        return b""

    userns.call_in_new_namespace(id_map, become_last)
    detail = f"{last_uid} user ids and {last_gid} group ids"
    if min(last_uid, last_gid) + 1 < ENOUGH:
        return Probe("id_ranges", True, f"{detail}: images with ids up to 65534 need more", range_hint())
    rival = _rival(ids)
    if rival is not None:
        return Probe(
            "id_ranges",
            True,
            f"{detail}, which user '{rival}' owns too: each can reach the other's containers",
            "ask the administrator to give every user a range of his own in /etc/subuid and /etc/subgid",
        )
    return Probe("id_ranges", True, detail)


def _nested() -> Probe:
    """The probe for root inside another user namespace, who can hand on the ids of that one without newuidmap."""
    id_map = subid.default_id_map()
    userns.call_in_new_namespace(id_map, lambda: b"")
    if id_map.kind == "single":
        detail = "this session is in a user namespace with one id, and so are its containers"
        return Probe("id_ranges", False, detail, "leave that namespace, or make it with a range of ids")
    return Probe("id_ranges", True, f"{sum(e.size for e in id_map.uids)} user ids, those of this user namespace")


def _rival(ids: SubordinateIds, etc: str = "/etc") -> str | None:
    """Another user of /etc/subuid or /etc/subgid whose range overlaps with one of `ids`, None when there is none."""
    own = (user_name(), str(os.geteuid()))
    for name, ranges in (("subuid", ids.uids), ("subgid", ids.gids)):
        for owner, low, count in read_ranges(f"{etc}/{name}"):
            if owner not in own and any(low < a + n and a < low + count for a, n in ranges):
                return owner
    return None
