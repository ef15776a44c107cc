"""What `explain` shows: the plan of a container in words, step by step in the order in which a start carries it out."""

from __future__ import annotations

import json

from rootless.engine.report_types import Explanation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.plan.container_plan import ContainerPlan
    from rootless.records.launch import CgroupPlan, LaunchPlan
    from rootless.runtime.spec.oci_config import OciConfig


def explain_plan(planned: ContainerPlan) -> Explanation:
    """The files of a planned container, and one line for each step that the monitor would take with them.

    Nothing is made. What only the start finds out (free ports, the cgroup's path below a scope) is not in it.
    """
    from rootless.runtime.spec.oci_config import OciConfig

    # Written and read again, as the monitor will find them: JSON makes lists of tuples
    config, launch = json.loads(json.dumps([planned.config_json(), planned.launch.to_json()]))
    return Explanation(config, launch, tuple(_steps(OciConfig.from_json(config), planned.launch)))


def _steps(config: OciConfig, launch: LaunchPlan) -> list[str]:
    from rootless.runtime import plan

    process = config.first_process()
    id_map = launch.id_map
    steps = [f"start the monitor of '{launch.name}'"]
    steps += [
        f"map {kind} ids: "
        + ", ".join(f"{one.container}-{one.container + one.size - 1} to {one.host}" for one in extents)
        for kind, extents in (("user", id_map.uids), ("group", id_map.gids))
    ]
    for namespace in config.linux.namespaces:
        where = f"join '{namespace.path}'" if namespace.path else "new"
        steps.append(f"{namespace.kind} namespace: {where}")
    if (root := launch.rootfs) is not None:
        steps.append(f"mount the root by {root.driver}: {len(root.lowerdirs)} layers below '{root.upper}'")
    # runtime.process.launch makes its operations by this same call from this same configuration, so that the steps
    # shown cannot differ from those that are taken
    facts = plan.RootFacts(launch.bundle, lambda gid: id_map.to_host_gid(gid) is not None, root_is_mounted=True)
    steps += plan.describe(plan.operations(config, facts))
    steps += _cgroup_steps(launch.cgroup)
    network = launch.network
    ports = "".join(f", port {one.host_port} to {one.container_port}/{one.protocol}" for one in network.ports)
    words = f" with options {' '.join(network.options)}" if network.options else ""
    steps.append(f"network {network.mode}{words}{ports}")
    steps.append(f"become user {process.user.uid}, group {process.user.gid}")
    steps.append("capabilities: " + (", ".join(process.bounding_set()) or "none"))
    if process.no_new_privileges:
        steps.append("no new privileges")
    steps.append(f"seccomp filter '{launch.seccomp_bpf}'" if launch.seccomp_bpf else "no seccomp filter of ours")
    if launch.root_emulation:
        steps.append("emulate root: changes of ids succeed, a supervisor notes owners and devices that the map has not")
    if launch.outer_map:
        steps.append("enter the container's own user namespace, below the one in which all this was made")
    steps.append(f"execute {' '.join(process.args)}")
    return steps


def _cgroup_steps(cgroup: CgroupPlan) -> list[str]:
    from rootless.host import cgroups
    from rootless.runtime.cgroups import version1, version2

    if cgroup.mode == "disabled":
        return ["stay in the caller's cgroup"]
    found = cgroups.find_delegation(parent=cgroup.parent, current=cgroup.mode == "split")
    steps = {
        "scope": f"cgroup in a scope of your systemd, below {cgroup.parent or 'rootless.slice'}",
        "directory": f"cgroup below '{found.path}'",
        "v1": f"cgroups below {', '.join(sorted(found.directories.values()))}",
    }
    if found.kind not in steps:
        return [f"no cgroup: {found.reason}"]
    if cgroup.resources is None:
        return [steps[found.kind]]
    settings = (version1 if found.kind == "v1" else version2).settings(cgroup.resources)
    return [steps[found.kind], *(f"limit {setting!r}" for setting in settings)]
