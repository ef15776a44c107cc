"""The groups in which --help and the man pages list the flags of `run`, `create` and `explain`: what most people need
comes first. Only these load it, so that no start waits for it."""

from __future__ import annotations

GROUPS: dict[str, str] = {
    "Everyday": "interactive tty detach rm name env volume publish workdir user entrypoint",
    "Image": "pull platform quiet",
    "Network": "network network_alias ip mac_address publish_all expose hostname domainname add_host dns dns_search "
    "dns_option",
    "Files and volumes": "mount tmpfs volumes_from read_only shm_size device gpus storage_driver",
    "Environment and labels": "env_file tz umask label label_file annotation cidfile",
    "Users and ids": "userns uidmap gidmap group_add root_emulation",
    "Life": "restart replace init stop_signal stop_timeout attach detach_keys sig_proxy log_driver log_opt",
    "Health check": "health_cmd health_interval health_retries health_start_interval health_start_period "
    "health_timeout no_healthcheck",
    "Limits": "memory memory_swap memory_reservation memory_swappiness cpus cpu_shares cpu_quota cpu_period "
    "cpuset_cpus cpuset_mems pids_limit ulimit oom_score_adj oom_kill_disable blkio_weight blkio_weight_device "
    "device_read_bps device_read_iops device_write_bps device_write_iops cgroup_parent cgroup_conf cgroups "
    "strict_limits",
    "Security": "cap_add cap_drop privileged security_opt sysctl",
    "Namespaces and runtime": "pid ipc uts cgroupns runtime",
}
"""{title: the names of the flags' parameters, the most used first}"""
OTHERS = "Other"
"""The title of the group of all other flags: those of one command alone, and --help."""


def grouped(names: list[str]) -> list[tuple[str, list[int]]]:
    """(title, positions in `names`) of each group that has any of the parameters `names`, in the order to show them."""
    found: list[tuple[str, list[int]]] = []
    left = dict(zip(names, range(len(names)), strict=True))
    for title, members in GROUPS.items():
        here = [left.pop(name) for name in members.split() if name in left]
        if here:
            found.append((title, here))
    if left:
        found.append((OTHERS, list(left.values())))
    return found
