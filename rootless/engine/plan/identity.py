"""Id map and account of a new container: --userns, --uidmap, --user, and what the host allows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from rootless.engine.image.image_files import read_from_layers
from rootless.engine.plan.users import Account, parse_id, resolve
from rootless.errors import UsageError
from rootless.host.idmap import SubordinateIds, custom_map, keep_id_map, nomap_map, single_map
from rootless.records.container_options import ContainerOptions
from rootless.records.id_map import IdMap


class Identity(NamedTuple):
    """The id map of a container and the account of its first process.

    warnings: one line each about ids that the container cannot have; login_name: the caller's, where he is the account
    and the image's passwd file does not know him; "" otherwise.
    """

    id_map: IdMap
    account: Account
    warnings: tuple[str, ...] = ()
    login_name: str = ""


def identify(
    options: ContainerOptions, image_user: str, lowerdirs: Sequence[str], joined: IdMap | None, own: IdMap
) -> Identity:
    """The map and account of a container.

    lowerdirs: the image's layers, topmost first; joined: the map of the container whose user namespace is shared;
    own: the user's default map. Where the user has no range of ids, the one id of the map is that of the container's
    process, whatever USER it has. Raises UsageError for unknown users and bad modes, HostLimit for modes that need a
    range of ids.
    """
    mode, keep = parse_userns(options.userns)
    custom = bool(options.uidmap or options.gidmap)
    if custom and (mode != "default" or joined is not None):
        raise UsageError("--uidmap and --gidmap cannot be combined with --userns or a shared namespace")
    user_text = options.user if options.user is not None else image_user
    if mode == "keep-id" and options.user is None:
        user_text = f"{keep[0]}:{keep[1]}"
    account = account_of(user_text, lowerdirs, options.group_add)
    if joined is not None:
        if mode in ("keep-id", "nomap"):
            raise UsageError(f"--userns={mode} cannot be combined with a namespace shared with a container")
        return Identity(joined, account)
    if own.kind == "single":
        return _with_one_id(mode, account, custom=custom, options=options)
    ids = _ids(own)
    uid, gid = os.geteuid(), os.getegid()
    if custom:
        return Identity(custom_map(options.uidmap, options.gidmap, ids, uid, gid), account)
    if mode == "keep-id" or _means_the_caller(options):
        id_map = keep_id_map(ids, uid, gid, *keep)
        return Identity(id_map, account, login_name=_login_name(id_map, account))
    if mode == "nomap":
        return Identity(nomap_map(ids, uid, gid), account)
    return Identity(own, account)


def _means_the_caller(options: ContainerOptions) -> bool:
    """Whether --user names the caller's own uid beside a mount of the host's files, and no map is asked for.

    Whoever writes `-u $(id -u):$(id -g) -v "$PWD:/work"` wants to be the owner of those files. In the default map that
    number is a subordinate id, for which the mounted directory is another user's, and each write fails (EACCES). With
    keep-id it is the caller. Without such a mount nothing depends on the map, and the default map needs no second copy
    or view of the image with other owners.
    """
    if options.userns is not None or not options.user or os.geteuid() == 0:
        return False
    user, _, group = options.user.partition(":")
    if parse_id(user) != os.geteuid() or (group and parse_id(group) is None):
        return False
    named = (text.split(",") for text in options.mount)
    bound = any(text.startswith(("/", ".", "~")) for text in options.volume)
    return bound or any("type=bind" in fields for fields in named)


def _with_one_id(mode: str, account: Account, *, custom: bool, options: ContainerOptions) -> Identity:
    uid, gid = os.geteuid(), os.getegid()
    if custom:
        return Identity(custom_map(options.uidmap, options.gidmap, None, uid, gid), account)
    if mode == "nomap":
        nomap_map(None, uid, gid)  # It raises HostLimit with the remedy, as there is no range of ids
    id_map = single_map(account.uid, account.gid)
    warning = (
        f"you have one id only: user {account.uid} of the container is you, and it can have no other users; "
        "`rootless doctor` tells how to get a range"
    )
    return Identity(id_map, account, (warning,), _login_name(id_map, account))


def _login_name(id_map: IdMap, account: Account) -> str:
    """The caller's name, if `account` is him and has none in the image.

    A program asks for the name of its own uid (getpwuid(3)), and many fail without one: git, ssh, pip, Java.
    """
    if account.name is not None or id_map.to_host_uid(account.uid) != os.geteuid():
        return ""
    import pwd

    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "user"
    # A name from a directory service may hold what would begin a new field or line of the file
    return name if name.isprintable() and not set(name) & set(": #") else "user"


def outer_map(own: IdMap, id_map: IdMap, runtime: str) -> IdMap | None:
    """The map of the user namespace in which a container without the user's own ids (nomap) is set up; else None.

    In a namespace that does not map the user, the kernel gives no power over the user's own files: layers, volumes and
    the container's directory would be a stranger's. So all is made in the default map `own`, and the container's own
    user namespace is entered below it at the end. Raises UsageError with --runtime, as only our runtime does that.
    """
    from rootless.storage.drivers.writable import is_reachable

    if is_reachable(id_map):
        return None
    if runtime:
        raise UsageError(
            "a container without your own ids (--userns=nomap) works with this tool's own runtime only",
            hint="leave --runtime out, or use --userns keep-id or the default map",
        )
    return own


def _ids(own: IdMap) -> SubordinateIds:
    """The caller's subordinate ids, which are those of the default map without id 0, for that is the caller."""
    return SubordinateIds(
        [(e.host, e.size) for e in own.uids if e.container != 0 or e.size > 1],
        [(e.host, e.size) for e in own.gids if e.container != 0 or e.size > 1],
    )


def account_of(user: str, lowerdirs: Sequence[str], group_add: Sequence[str] = ()) -> Account:
    """The account that `user` (as in --user) means by the passwd and group files of the image in `lowerdirs`.

    group_add: further groups; "keep-groups" is none of them, and must stand alone. Raises UsageError.
    """
    extra = [name for name in group_add if name != "keep-groups"]
    if len(extra) != len(group_add) and extra:
        raise UsageError("--group-add keep-groups cannot be combined with other groups")
    named = any(parse_id(part) is None for part in (*user.split(":"), *extra) if part)
    passwd = read_from_layers(lowerdirs, "etc/passwd")
    group = read_from_layers(lowerdirs, "etc/group") if named or passwd else ""
    return resolve(user, passwd, group, extra)


def parse_userns(text: str | None) -> tuple[str, tuple[int, int]]:
    """The mode of --userns (default, host, keep-id or nomap), and the uid and gid that keep-id gives to the caller.

    Raises UsageError for any other text.
    """
    mode, _, rest = (text or "").partition(":")
    uid, gid = os.geteuid(), os.getegid()
    if mode == "keep-id":
        for word in rest.split(",") if rest else ():
            name, _, value = word.partition("=")
            number = parse_id(value)
            if name not in ("uid", "gid") or number is None:
                raise UsageError(f"invalid --userns '{text}'", hint="write keep-id or keep-id:uid=1000,gid=1000")
            uid, gid = (number, gid) if name == "uid" else (uid, number)
        return mode, (uid, gid)
    if mode == "container":
        return "default", (uid, gid)
    if rest or mode not in ("", "default", "private", "host", "nomap"):
        raise UsageError(f"invalid --userns '{text}'", hint="use default, keep-id[:uid=N,gid=N], host or nomap")
    # An ordinary user cannot stay in the host's user namespace: mounts need a namespace in which he has capabilities.
    # So `host` gives the default map, in which he is root inside and is himself to the host
    return {"": "default", "private": "default"}.get(mode, mode), (uid, gid)
