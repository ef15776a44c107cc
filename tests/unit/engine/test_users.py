"""USER texts against passwd and group files."""

from __future__ import annotations

import pytest

from rootless.engine.plan.users import resolve
from rootless.errors import UsageError

PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\n"
    "bad:x:x:1:::\n# c:x:5:5:::\nhuge:x:4294967295:0::/:\n"
)
GROUP = "root:x:0:\nweb:x:1001:\nvideo:x:44:web,other\nbig:x:99999999999:web\n"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", (0, 0, (0,), "/root")),
        ("web", (1000, 1001, (1001, 44), "/home/web")),
        ("1000", (1000, 1001, (1001, 44), "/home/web")),  # docker: a number is looked up as well
        ("web:video", (1000, 44, (44,), "/home/web")),
        ("web:7", (1000, 7, (7,), "/home/web")),
        ("5000", (5000, 0, (0,), "/")),
        ("5000:6000", (5000, 6000, (6000,), "/")),
        (":44", (0, 44, (44,), "/root")),
    ],
)
def test_docker_rules(user: str, expected: tuple[object, ...]) -> None:
    """CVE-2022-2989: the primary group is always in the supplementary list."""
    account = resolve(user, PASSWD, GROUP)
    assert (account.uid, account.gid, account.groups, account.home) == expected


@pytest.mark.parametrize(
    "user", ["nobody", "bad", "huge", "-1", "+0", "0x0", "1 ", "web:none", "4294967296", "2147483648", "0:-1", "１"]
)
def test_unknown_users_are_errors_never_root(user: str) -> None:
    """CVE-2026-30892, CVE-2024-40635."""
    with pytest.raises(UsageError):
        resolve(user, PASSWD, GROUP)


def test_group_add() -> None:
    assert resolve("web", PASSWD, GROUP, ["root", "77"]).groups == (1001, 44, 0, 77)
    with pytest.raises(UsageError, match="unable to find group"):
        resolve("web", PASSWD, GROUP, ["nope"])


def test_an_image_without_files() -> None:
    assert resolve("0", "", "").home == "/"
    with pytest.raises(UsageError):
        resolve("root", "", "")


@pytest.mark.parametrize("digits", ["²", "٣", "1_0", "9" * 5000])
def test_lines_with_other_digits_are_skipped(digits: str) -> None:
    """The files are the image's: what is no id there is nobody's, and never a traceback."""
    passwd, group = f"uid:x:{digits}:7::/:\ngid:x:7:{digits}::/:\nmember:x:8:8::/:\n", f"named:x:{digits}:member\n"
    assert resolve("member", passwd, group).groups == (8,)
    for user in ("uid", "gid", "8:named", digits):
        with pytest.raises(UsageError):
            resolve(user, passwd, group)
