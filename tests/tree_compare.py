"""Describes a file tree and says what differs in another: owner, mode, mtime, extended attributes, links, content.

`python tests/tree_compare.py TREE` prints the description as JSON, `... TREE OTHER` the differences (exit status 1).
Run it where the owners show as they are meant: inside the user namespace of the tool that made the tree. It imports
nothing of rootless, so that any interpreter will do.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable
from typing import Any

Description = dict[str, dict[str, Any]]

_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link", stat.S_IFIFO: "pipe",
          stat.S_IFSOCK: "socket", stat.S_IFCHR: "character", stat.S_IFBLK: "block"}  # fmt: skip
_OURS = ("user.overlay.", "user.fuseoverlayfs.", "security.selinux", "trusted.")


def describe(root: str, *, skip: Callable[[str], bool] = lambda path: False) -> Description:
    """Every file below `root` by its path from there ("." is the top). skip: paths that are left out with all below."""
    found: Description = {}
    first: dict[tuple[int, int], str] = {}
    pending = ["."]
    while pending:
        path = pending.pop()
        full = os.path.join(root, path)
        status = os.lstat(full)
        kind = stat.S_IFMT(status.st_mode)
        entry: dict[str, Any] = {
            "kind": _KINDS[kind],
            "mode": f"{stat.S_IMODE(status.st_mode):04o}",
            "owner": f"{status.st_uid}:{status.st_gid}",
            "mtime": status.st_mtime_ns,
        }
        if kind == stat.S_IFREG:
            entry["size"] = status.st_size
            with open(full, "rb") as file:
                entry["content"] = hashlib.file_digest(file, "sha256").hexdigest()
        elif kind == stat.S_IFLNK:
            entry["target"] = os.readlink(full)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            entry["device"] = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        if kind != stat.S_IFDIR and status.st_nlink > 1:
            entry["linked"] = first.setdefault((status.st_dev, status.st_ino), path)
        names = [n for n in os.listxattr(full, follow_symlinks=False) if not n.startswith(_OURS)]
        if names:
            entry["xattrs"] = {n: os.getxattr(full, n, follow_symlinks=False).hex() for n in sorted(names)}
        found[path] = entry
        if kind == stat.S_IFDIR:
            inner = (name if path == "." else f"{path}/{name}" for name in sorted(os.listdir(full), reverse=True))
            pending += [name for name in inner if not skip(name)]
    return _regrouped(found)


def _regrouped(found: Description) -> Description:
    """Name each group of hard links by its first path in order, whatever the order of the walk was."""
    groups: dict[str, list[str]] = {}
    for path, entry in found.items():
        if "linked" in entry:
            groups.setdefault(entry["linked"], []).append(path)
    for paths in groups.values():
        for path in paths:
            found[path]["linked"] = min(paths)
    return found


def differences(one: Description, other: Description, *, ignore: tuple[str, ...] = ()) -> list[str]:
    """What differs, a line for each; ignore: fields (`mtime`, `owner`, ...) that do not count."""
    lines = []
    for path in sorted(one.keys() | other.keys()):
        if path not in other:
            lines.append(f"{path}: only in the first")
        elif path not in one:
            lines.append(f"{path}: only in the second")
        else:
            fields = (one[path].keys() | other[path].keys()) - set(ignore)
            lines += [
                f"{path}: {field} {one[path].get(field)} != {other[path].get(field)}"
                for field in sorted(fields)
                if one[path].get(field) != other[path].get(field)
            ]
    return lines


def main() -> int:
    """Entry point."""
    trees = [describe(path) for path in sys.argv[1:3]]
    if len(trees) == 1:
        json.dump(trees[0], sys.stdout, indent=1, sort_keys=True)
        return 0
    lines = differences(*trees)
    print("\n".join(lines).encode("utf-8", "backslashreplace").decode())
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
