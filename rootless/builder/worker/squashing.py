"""Layers merged into one, in overlayfs' own form.

What an upper layer deletes goes, and stays deleted for the layers below the merged one.
This runs as root of the user namespace, on directories of the store that nobody else changes.
"""

from __future__ import annotations

import os
import stat

from rootless.kernel.files import is_whiteout
from rootless.storage.files.tree_copy import (
    OPAQUE_NAME,
    PATH_DIRECTORY,
    WHITEOUT,
    Copier,
    is_opaque,
    remove_entry,
    strip_attributes,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_OPAQUE = "user.overlay.opaque"


def merge(layers: Sequence[str], upper: str) -> None:
    """Apply the trees of `layers` (directories, bottom first) to the empty directory `upper`. Raises OSError."""
    target = os.open(upper, PATH_DIRECTORY)
    try:
        for layer in layers:
            source = os.open(layer, PATH_DIRECTORY)
            strip_attributes(target)
            try:
                _Merge(target).merge(source, target, "")
            finally:
                os.close(source)
    finally:
        os.close(target)


class _Merge:
    """Applies one layer to the tree whose top is the fd `base`."""

    __slots__ = ("_base", "_copier")

    def __init__(self, base: int) -> None:
        self._base = base
        self._copier = Copier(marks=True)

    def merge(self, source: int, target: int, prefix: str) -> None:
        if is_opaque(source):
            for name in os.listdir(target):
                remove_entry(target, name)
        with os.scandir(source) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            name = entry.name
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                self._directory(source, target, name, prefix)
                continue
            if name.startswith(WHITEOUT) and name != OPAQUE_NAME:
                remove_entry(target, name[len(WHITEOUT) :])
            # A whiteout too is put in the place of what it deletes, for layers below may have it
            remove_entry(target, name)
            if is_whiteout(status) or not self._copier.link(status, self._base, f"{prefix}{name}", target):
                self._copier.entry(source, name, target, name, status)
        self._copier.attributes(source, target, os.fstat(source))

    def _directory(self, source: int, target: int, name: str, prefix: str) -> None:
        inner = os.open(name, PATH_DIRECTORY, dir_fd=source)
        try:
            covers = False
            try:
                there = os.stat(name, dir_fd=target, follow_symlinks=False)
                if not stat.S_ISDIR(there.st_mode):
                    # A file hid any directory of this name in the layers below. The directory that takes its place
                    # would be merged with those by overlayfs, unless it is marked opaque as well
                    covers = True
                    remove_entry(target, name)
                    os.mkdir(name, 0o700, dir_fd=target)
            except FileNotFoundError:
                os.mkdir(name, 0o700, dir_fd=target)
            made = os.open(name, PATH_DIRECTORY, dir_fd=target)
            try:
                was_opaque = is_opaque(made)
                strip_attributes(made)
                self.merge(inner, made, f"{prefix}{name}/")
                if covers or was_opaque:
                    os.setxattr(made, _OPAQUE, b"y")
            finally:
                os.close(made)
        finally:
            os.close(inner)
