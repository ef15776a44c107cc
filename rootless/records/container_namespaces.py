"""Which namespaces are a container's, noted at its start, as its files have them. It looks at no process."""

from __future__ import annotations

from rootless.records.fields import Fields


class ContainerNamespaces:
    """The mount and the user namespace of a container that runs: by them its processes are found.

    Each is (inode, id): the number that /proc/PID/ns shows, which the kernel gives again to another namespace once the
    first is gone; and the number that it never gives twice in one boot (Linux 6.11 for mount namespaces), 0 before.
    makes_user: the user namespace is the container's alone; shares_processes: its pid namespace is another's, so that
    processes may outlive its first one.
    """

    __slots__ = ("makes_user", "mount", "shares_processes", "user")

    def __init__(self, mount: tuple[int, int], user: tuple[int, int]) -> None:
        self.mount = mount
        self.user = user
        self.makes_user = False
        self.shares_processes = False

    @property
    def is_unique(self) -> bool:
        """Whether no other container can be taken for this one, however long ago it has ended."""
        return bool(self.mount[1]) and bool(self.user[1] or not self.makes_user)

    def to_json(self) -> dict[str, object]:
        """The member "namespaces" of a state.json."""
        return {
            "mount": [self.mount],
            "user": [self.user],
            "makes_user": self.makes_user,
            "shares_processes": self.shares_processes,
        }

    @classmethod
    def from_json(cls, fields: Fields | None) -> ContainerNamespaces | None:
        """What `to_json` wrote, read back. Raises InvalidInput naming the file and the key.

        None for a container of an earlier version, which noted no namespaces.
        """
        if fields is None:
            return None
        mount, user = fields.integer_pairs("mount"), fields.integer_pairs("user")
        if len(mount) != 1 or len(user) != 1:
            return None
        found = cls(mount[0], user[0])
        found.makes_user = fields.flag("makes_user")
        found.shares_processes = fields.flag("shares_processes")
        return found
