"""The mount option table of runtime-spec's config.md: words to kernel flags. It mounts nothing."""

from __future__ import annotations

from rootless.kernel.mounts import (
    MOUNT_ATTR__ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    MS_UNBINDABLE,
)

_SET = {
    "ro": MOUNT_ATTR_RDONLY,
    "nosuid": MOUNT_ATTR_NOSUID,
    "nodev": MOUNT_ATTR_NODEV,
    "noexec": MOUNT_ATTR_NOEXEC,
    "nodiratime": MOUNT_ATTR_NODIRATIME,
    "nosymfollow": MOUNT_ATTR_NOSYMFOLLOW,
}
_CLEAR = {
    "rw": MOUNT_ATTR_RDONLY,
    "suid": MOUNT_ATTR_NOSUID,
    "dev": MOUNT_ATTR_NODEV,
    "exec": MOUNT_ATTR_NOEXEC,
    "diratime": MOUNT_ATTR_NODIRATIME,
    "symfollow": MOUNT_ATTR_NOSYMFOLLOW,
}
_ATIME = {
    "noatime": MOUNT_ATTR_NOATIME,
    "strictatime": MOUNT_ATTR_STRICTATIME,
    "relatime": 0,
    "atime": 0,
    "norelatime": MOUNT_ATTR_STRICTATIME,
    "nostrictatime": 0,
}
_PROPAGATION = {
    "shared": MS_SHARED,
    "rshared": MS_SHARED | MS_REC,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC,
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "unbindable": MS_UNBINDABLE,
    "runbindable": MS_UNBINDABLE | MS_REC,
}
# of the whole filesystem: the new mount API takes them as flags of the superblock, a bind cannot change them
_SUPERBLOCK = {"sync", "async", "dirsync", "mand", "nomand", "lazytime", "nolazytime"}
# words of fstab(5) and mount(8) that are accepted, as runc does, and mean nothing for a mount in a container
_NOTHING = {"defaults", "loud", "silent", "iversion", "noiversion", "remount", "nofail", "_netdev", "auto", "noauto"}

KNOWN = sorted(
    {*_SET, *_CLEAR, *_ATIME, *_PROPAGATION, *_SUPERBLOCK, *_NOTHING}
    | {"r" + name for name in (*_SET, *_CLEAR, "noatime", "relatime", "strictatime")}
    | {"bind", "rbind", "tmpcopyup", "copy-symlink", "idmap", "ridmap"}
)
"""What `features` reports as mountOptions."""


class MountOptions:
    """The options of one mount, sorted by who carries them out.

    set, clear: MOUNT_ATTR_* bits of the mount itself; recursive_set, recursive_clear: of it and all mounts below;
    propagation: MS_* words in order; superblock: flag names; filesystem: words for the filesystem (`size=64k`).
    copy_link: a source that is a symbolic link is not followed, but made again at the destination (crun's option).
    """

    __slots__ = (
        "bind",
        "clear",
        "copy_link",
        "copy_up",
        "filesystem",
        "idmap",
        "propagation",
        "recursive",
        "recursive_clear",
        "recursive_set",
        "set",
        "superblock",
    )

    def __init__(self) -> None:
        self.bind = False
        self.recursive = False
        self.copy_link = False
        self.copy_up = False
        self.idmap: str | None = None
        self.set = 0
        self.clear = 0
        self.recursive_set = 0
        self.recursive_clear = 0
        self.propagation: list[int] = []
        self.superblock: list[str] = []
        self.filesystem: list[str] = []


def parse_mount_options(words: list[str]) -> MountOptions:
    """Sort option words; a later word wins over an earlier one; unknown words go to the filesystem."""
    options = MountOptions()
    for word in words:
        if word in ("bind", "rbind"):
            options.bind = True
            options.recursive = options.recursive or word == "rbind"
        elif word == "tmpcopyup":
            options.copy_up = True
        elif word == "copy-symlink":
            options.copy_link = True
        elif word in ("idmap", "ridmap"):
            options.idmap = word
        elif word in _PROPAGATION:
            options.propagation.append(_PROPAGATION[word])
        elif word in _SUPERBLOCK:
            options.superblock.append(word)
        elif not _attribute(options, word) and word not in _NOTHING:
            options.filesystem.append(word)
    return options


def _attribute(options: MountOptions, word: str) -> bool:
    """Note `word` if it is an attribute of a mount (`ro`) or of a whole tree (`rro`)."""
    name, recursive = word, False
    if not _is_attribute(word) and word.startswith("r") and _is_attribute(word[1:]):
        name, recursive = word[1:], True
    if name in _SET:
        gained, lost = _SET[name], 0
    elif name in _CLEAR:
        gained, lost = 0, _CLEAR[name]
    elif name in _ATIME:
        # the kernel wants the whole field cleared when it is set
        gained, lost = _ATIME[name], MOUNT_ATTR__ATIME
    else:
        return False
    if recursive:
        options.recursive_set = (options.recursive_set & ~lost) | gained
        options.recursive_clear = (options.recursive_clear & ~gained) | lost
    else:
        options.set = (options.set & ~lost) | gained
        options.clear = (options.clear & ~gained) | lost
    return True


def _is_attribute(word: str) -> bool:
    return word in _SET or word in _CLEAR or word in _ATIME
