"""The user of a container's process: USER and --user, resolved by the image's own passwd and group files. Pure.

`rootless.engine.image.image_files` reads these files. The host's user database is never asked, as the names belong to
the image, and a name may have another number there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rootless.errors import UsageError
from rootless.units import whole_number

# Docker's bound. Ids beyond it may wrap around to 0, which is root, where a program holds them in 32 bits
# (CVE-2024-40635), and 2**32 - 1 is (uid_t) -1, which tells setresuid(2) and chown(2) to change nothing
MAX_ID = (1 << 31) - 1


class Account(NamedTuple):
    """The identity of a process: ids inside the container, and where its home is.

    groups: supplementary gids, of which the primary gid is always one. Otherwise a setgid program would rid the process
    of that group, and it could read a file whose mode denies it to the group and allows it to others (CVE-2022-2989).
    name: that of the passwd file, None where it has no entry.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    name: str | None = None


def resolve(user: str, passwd: str, group: str, group_add: Iterable[str] = ()) -> Account:
    """The account that `user` ("", "name", "uid", "name:group", "uid:gid") means in the image.

    passwd, group: contents of the image's files ("" when it has none). Raises UsageError for a name that is not there
    and for numbers that are no ids. It never falls back to root, which would give a process more rights than its image
    or user asked for (CVE-2026-30892).
    """
    user_part, colon, group_part = (user or "0").partition(":")
    if not user_part:
        user_part = "0"
    entry = _passwd_entry(user_part, passwd)
    uid: int | None = _number(user_part, "user") if entry is None else entry[1]
    if uid is None:
        raise UsageError(
            f"unable to find user '{user_part}': no matching entries in passwd file",
            hint="give a numeric uid, or add the user to the image",
        )
    gid = entry[2] if entry else 0
    groups: list[int] = []
    if colon and group_part:
        gid = _group_id(group_part, group)
    elif entry:
        groups = _groups_of(entry[0], group)
    extra = [_group_id(name, group) for name in group_add]
    members = tuple(dict.fromkeys([gid, *groups, *extra]))
    return Account(uid, gid, members, (entry[3] if entry else "") or "/", entry[0] if entry else None)


def _number(text: str, kind: str) -> int | None:
    """The id that `text` spells, None when it is a name. Raises UsageError for a number that is no id."""
    if text.isascii() and text.isdigit():
        number = parse_id(text)
        if number is None:
            raise UsageError(f"{kind} id '{text[:20]}' is out of range 0 to {MAX_ID}")
        return number
    if text[:1] in ("+", "-") and text[1:].isdigit():
        raise UsageError(f"{kind} id '{text[:20]}' is out of range 0 to {MAX_ID}")
    return None


def parse_id(text: str) -> int | None:
    """The uid or gid from 0 to MAX_ID that `text` writes in decimal digits; None for every other text."""
    return whole_number(text, MAX_ID)


def _passwd_entry(user: str, passwd: str) -> tuple[str, int, int, str] | None:
    number = _number(user, "user")
    for fields in _entries(passwd, 6):
        uid, gid = parse_id(fields[2]), parse_id(fields[3])
        if uid is None or gid is None:
            continue
        if fields[0] == user or uid == number:
            return fields[0], uid, gid, fields[5]
    return None


def _group_id(name: str, group: str) -> int:
    for fields in _entries(group, 3):
        gid = parse_id(fields[2])
        if fields[0] == name and gid is not None:
            return gid
    number = _number(name, "group")
    if number is None:
        raise UsageError(
            f"unable to find group '{name}': no matching entries in group file",
            hint="give a numeric gid, or add the group to the image",
        )
    return number


def _groups_of(user: str, group: str) -> list[int]:
    found = [parse_id(fields[2]) for fields in _entries(group, 4) if user in fields[3].split(",")]
    return [gid for gid in found if gid is not None]


def _entries(text: str, least: int) -> Iterable[Sequence[str]]:
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) >= least and fields[0] and not line.startswith("#"):
            yield fields
