"""Where other runtimes are known to deviate, and why: found by this suite, never silently passed over."""

from __future__ import annotations

import fnmatch
from typing import NamedTuple


class Known(NamedTuple):
    """What was found in some versions (a shell pattern) of a runtime: reasons by case."""

    versions: str
    reasons: dict[str, str]


_CRUN_1_8: dict[str, str] = {
    "commands.broken_cpu_affinity_is_an_error": "execCPUAffinity is of runtime-spec 1.2, and ignored",
    "commands.exec_cpu_affinity": "execCPUAffinity is of runtime-spec 1.2, and ignored",
    "commands.exec_capability": "exec --cap replaces the configuration's capabilities in place of adding one",
    "commands.exec_is_the_containers_process": "exec without flags starts in / without no_new_privs",
    "commands.list_and_ps": "ps reads the cgroup, and there is none (--cgroup-manager=disabled)",
    "devices.fifo": "mode and owner of a fifo are not applied",
    "filters.flags": "an unknown seccomp flag is ignored",
    "hooks.failing_create_hook_runs_poststop": "poststop hooks are not run when create fails",
    "hooks.failing_poststart": "that a failed poststart hook stops the container is of runtime-spec 1.3",
    "hooks.failing_start_container": "start only opens the gate: what fails behind it shows as a stopped container",
    "hooks.namespaces_of_hooks": "on this hybrid host it runs inside the suite's own surroundings, and its hooks too",
    "hooks.state_on_stdin": "the state of createContainer hooks has pid 0",
    "hooks.status_in_the_state": "the state of hooks during create says created, not creating",
    "hooks.timeout_of_nothing_is_an_error": "a hook with a timeout of 0 is killed or not, by chance",
    "lifecycle.annotation_without_a_name_is_an_error": "an empty name is taken",
    "lifecycle.delete_of_created_is_refused": "delete kills a container that is only created",
    "lifecycle.features_are_told": "features came with crun 1.8.7",
    "lifecycle.newer_minor_version_is_taken": "minor versions are judged; crun 1.14.2 gave that up",
    "linux.memory_policy": "memoryPolicy is of runtime-spec 1.3, and ignored",
    "linux.unknown_memory_policy_is_an_error": "memoryPolicy is of runtime-spec 1.3, and ignored",
    "linux.network_device_that_is_missing_is_an_error": "netDevices is of runtime-spec 1.3, and ignored",
    "linux.personality_flags_are_an_error": "flags of personality are ignored",
    "linux.relative_masked_path_is_an_error": "relative paths are taken as relative to the root",
    "linux.resctrl_is_refused_or_given": "intelRdt is ignored where there is no resctrl",
    "linux.unknown_root_propagation_is_an_error": "an unknown propagation is ignored",
    "mounts.harmless_words": "loud, noiversion and symfollow go to the filesystem, which refuses them",
    "mounts.no_links_followed": "nosymfollow is not known, and ignored on binds",
    "mounts.opposites": "rw, suid and exec do not undo an earlier ro, nosuid, noexec",
    "mounts.propagation_words": "the word shared of a new filesystem is without effect",
    "mounts.recursive_rnoatime": "mount_setattr is called without clearing the access time field: EINVAL",
    "mounts.recursive_rnodiratime": "mount_setattr is called without clearing the access time field: EINVAL",
    "mounts.recursive_strictatime": "mount_setattr is called without clearing the access time field: EINVAL",
    "process.duplicate_rlimit_is_an_error": "the last entry for an rlimit wins",
    "process.impossible_ids_are_errors": "ids beyond 32 bits are cut",
    "process.io_priority": "ioPriority is of runtime-spec 1.1, and ignored",
    "process.scheduler": "scheduler is of runtime-spec 1.1, and ignored",
    "process.refused_scheduler_is_an_error": "scheduler is of runtime-spec 1.1, and ignored",
    "process.relative_working_directory_is_an_error": "a relative cwd is taken as relative to the root",
    "spaces.duplicate_type_is_an_error": "a namespace type may be listed twice",
    "spaces.foreign_ids_are_refused": "in the suite's surroundings on a hybrid host id 0 is this user's own",
    "spaces.namespaces_by_path": "from the suite's surroundings on a hybrid host namespaces outside cannot be opened",
    "spaces.time_offsets": "timeOffsets are ignored",
    "spaces.time_offsets_need_a_namespace": "timeOffsets are ignored",
}
_RUNC_1_1: dict[str, str] = {
    "commands.broken_cpu_affinity_is_an_error": "execCPUAffinity is of runtime-spec 1.2, and ignored",
    "commands.exec_cpu_affinity": "execCPUAffinity is of runtime-spec 1.2, and ignored",
    "commands.exec_process_file": "user.umask of exec --process is ignored",
    "commands.list_and_ps": "ps reads the cgroup, which an ordinary user does not get on a hybrid host",
    "devices.fifo": "a rootless fifo is bound from the host, where there is none",
    "filters.errno_beside_an_action_without_one_is_an_error": "errnoRet beside an action without errno is ignored",
    "filters.filter_without_no_new_privileges": "it panics: the capability that loading needs is dropped by then",
    "filters.flags": "seccomp flags came with runc 1.2",
    "hooks.failing_poststart": "poststart hooks run in create",
    "hooks.order_of_all_kinds": "poststart hooks run in create",
    "hooks.status_in_the_state": "poststart hooks run in create, with the status created",
    "hooks.failing_poststop": "after a failed poststop hook the later ones are not run",
    "hooks.failing_start_container": "start only opens the gate: what fails behind it shows as a stopped container",
    "hooks.timeout_of_nothing_is_an_error": "a hook with a timeout of 0 is killed or not, by chance",
    "lifecycle.annotation_without_a_name_is_an_error": "an empty name is taken",
    "lifecycle.delete_of_created_is_refused": "delete kills a container that is only created",
    "lifecycle.foreign_version_is_an_error": "ociVersion is not looked at",
    "linux.memory_policy": "memoryPolicy is of runtime-spec 1.3, and ignored",
    "linux.unknown_memory_policy_is_an_error": "memoryPolicy is of runtime-spec 1.3, and ignored",
    "linux.network_device_that_is_missing_is_an_error": "netDevices is of runtime-spec 1.3, and ignored",
    "linux.personality": "personality came with runc 1.2",
    "linux.personality_flags_are_an_error": "personality came with runc 1.2",
    "linux.relative_masked_path_is_an_error": "relative paths are taken as relative to the root",
    "linux.root_propagation_shared": "the root itself is private whatever rootfsPropagation says",
    "linux.root_propagation_unbindable": "an unbindable root cannot be bound on itself any more: create fails",
    "mounts.filesystem_options": "a tmpfs on an existing directory gets that directory's mode in place of mode=",
    "process.additional_groups": "no additional groups in a rootless container",
    "process.duplicate_rlimit_is_an_error": "the last entry for an rlimit wins",
    "process.io_priority": "ioPriority came with runc 1.2",
    "process.scheduler": "scheduler came with runc 1.2",
    "process.refused_scheduler_is_an_error": "scheduler came with runc 1.2",
    "spaces.domain_name": "domainname came with runc 1.2",
    "spaces.namespaces_by_path": "a user namespace by path needs mappings beside it",
    "spaces.time_offsets": "time namespaces came with runc 1.2",
    "spaces.time_offsets_need_a_namespace": "time namespaces came with runc 1.2",
}
_KNOWN = {"crun": Known("1.8.*", _CRUN_1_8), "runc": Known("1.1.*", _RUNC_1_1)}


def is_validated(runtime: str, version: str) -> bool:
    """Whether this version of another runtime is one that the suite was tried on."""
    known = _KNOWN.get(runtime)
    return known is not None and fnmatch.fnmatchcase(version, known.versions)


def expected(runtime: str, version: str, case_id: str) -> str | None:
    """The reason why this runtime of this version is known not to pass, or None."""
    return _KNOWN[runtime].reasons.get(case_id) if is_validated(runtime, version) else None


def stale(case_ids: set[str]) -> set[str]:
    """Entries about cases that do not exist."""
    return {name for known in _KNOWN.values() for name in known.reasons} - case_ids
