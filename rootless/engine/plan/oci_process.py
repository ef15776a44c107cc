"""The OCI `process` of a container or exec: arguments, environment, user, capabilities. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rootless.engine.plan.environment import DEFAULT_PATH, merge_env, split_env
from rootless.engine.plan.users import Account
from rootless.engine.types import ImageDefaults
from rootless.errors import UsageError
from rootless.records.id_map import IdMap
from rootless.runtime.capabilities import CapabilitySets, effective_sets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.plan.security import ProcessLimit


UMASK = 0o022
"""That of a process where nobody asks for another."""


class ProcessUser(NamedTuple):
    """The ids of a process inside the container. groups: supplementary gids; umask: the bits that new files lack."""

    uid: int
    gid: int
    groups: list[int]
    umask: int = UMASK

    def to_json(self) -> dict[str, object]:
        """The member "user" of a process (config.md, "User")."""
        return {"uid": self.uid, "gid": self.gid, "umask": self.umask, "additionalGids": self.groups}


class ProcessPlan:
    """The `process` of a config.json that is not written yet."""

    __slots__ = (
        "arguments",
        "capabilities",
        "directory",
        "env",
        "limits",
        "no_new_privileges",
        "oom_score_adj",
        "terminal",
        "user",
    )

    def __init__(self, user: ProcessUser, arguments: list[str], capabilities: CapabilitySets) -> None:
        self.user = user
        self.arguments = arguments
        self.capabilities = capabilities
        self.env: list[str] = []
        self.directory = "/"
        self.terminal = False
        self.no_new_privileges = False
        self.limits: list[ProcessLimit] = []
        self.oom_score_adj: int | None = None

    def to_json(self) -> dict[str, object]:
        """The member "process" (config.md, "Process")."""
        members: dict[str, object] = {
            "terminal": self.terminal,
            "user": self.user.to_json(),
            "args": self.arguments,
            "env": self.env,
            "cwd": self.directory,
            "capabilities": self.capabilities.to_oci(),
            "noNewPrivileges": self.no_new_privileges,
        }
        if self.limits:
            members["rlimits"] = [limit.to_json() for limit in self.limits]
        if self.oom_score_adj is not None:
            members["oomScoreAdj"] = self.oom_score_adj
        return members


def arguments(image: ImageDefaults, entrypoint: str | None, command: Sequence[str]) -> list[str]:
    """The command line of a container by docker's rules, which are those of ENTRYPOINT and CMD.

    entrypoint: that of --entrypoint, which replaces the image's and discards its CMD ("" discards both); None leaves
    them, and `command` replaces the CMD alone. Raises UsageError when nothing is left to run.
    """
    if entrypoint is None:
        first = list(image.entrypoint or ())
        rest = list(command) or list(image.cmd or ())
    else:
        first = [entrypoint] if entrypoint else []
        rest = list(command)
    if not first + rest:
        raise UsageError("no command specified", hint="the image has none: give one after the image's name")
    if any("\0" in argument for argument in first + rest):
        raise UsageError("an argument contains a NUL byte")
    return first + rest


def environment(
    image: ImageDefaults,
    given: Iterable[tuple[str, str | None]],
    *,
    hostname: str,
    account: Account,
    terminal: bool,
) -> list[str]:
    """The environment of the process, in docker's order: PATH, HOSTNAME, TERM, the image's variables, the user's, HOME.

    given: the user's pairs; hostname: "" for no HOSTNAME; terminal: whether there is one, for which TERM is set;
    account: has the HOME where no other is set. Nothing of the caller's environment comes in but what `given` holds: it
    may have passwords and tokens, which the image's programs have no right to.
    """
    base: list[tuple[str, str | None]] = [("PATH", DEFAULT_PATH)]
    if hostname:
        base.append(("HOSTNAME", hostname))
    if terminal:
        base.append(("TERM", "xterm"))
    merged = merge_env(base, split_env(image.env), given)
    if not any(entry.startswith("HOME=") and entry != "HOME=" for entry in merged):
        merged = [entry for entry in merged if entry != "HOME="]
        merged.append(f"HOME={account.home or '/'}")
    return merged


def user(account: Account, id_map: IdMap, *, keep_groups: bool = False) -> tuple[ProcessUser, list[str]]:
    """The ids of the process, and warnings of one line each.

    A supplementary group that the id map lacks is left out with a warning. Raises UsageError for a uid or gid that it
    lacks, for the kernel refuses them (EINVAL). keep_groups: the caller's own supplementary groups stay, which an
    annotation asks of the runtime (make_config), and no others can be set beside them.
    """
    if not id_map.has_uid(account.uid):
        raise UsageError(
            f"user id {account.uid} is not in the container's id map",
            hint="widen the range in /etc/subuid, or use another --userns or --user",
        )
    if not id_map.has_gid(account.gid):
        raise UsageError(
            f"group id {account.gid} is not in the container's id map",
            hint="widen the range in /etc/subgid, or use another --userns or --user",
        )
    groups = [] if keep_groups else [g for g in account.groups if id_map.has_gid(g)]
    lost = [] if keep_groups else [g for g in account.groups if not id_map.has_gid(g)]
    warnings = []
    if lost:
        numbers = ", ".join(map(str, lost))
        warnings.append(f"supplementary groups {numbers} are not in the id map and are left out")
    return ProcessUser(account.uid, account.gid, groups), warnings


def parse_umask(text: str) -> int:
    """The mask that the octal digits of --umask mean. Raises UsageError."""
    if not 1 <= len(text) <= 4 or not set(text) <= set("01234567") or int(text, 8) > 0o777:
        raise UsageError(f"invalid --umask '{text}'", hint="write octal digits, such as 0022")
    return int(text, 8)


def capabilities(add: Iterable[str], drop: Iterable[str], *, privileged: bool, uid: int) -> CapabilitySets:
    """The five capability sets of the process by docker's rules (runtime.capabilities).

    privileged: all capabilities; uid: that of the process in the container, as another user than root starts without
    effective ones but those of `add`. Raises UsageError for an unknown name.
    """
    return effective_sets(add, drop, privileged=privileged, uid=uid)
