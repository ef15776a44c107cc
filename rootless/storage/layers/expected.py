"""Works out from an archive alone what the tree of its layer must look like. It touches no file.

It follows the same rules as `storage.layers.apply`, also for members whose path leads through a link of the archive.
"""

from __future__ import annotations

from rootless.errors import InvalidInput
from rootless.storage.files.link_resolution import resolve_links
from rootless.storage.tar.layer_rules import OPAQUE_NAME, WHITEOUT, show_path, split_path
from rootless.storage.tar.tarstream import DIRECTORY, FILE, LINK, SYMLINK, TarStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.storage.tar.inflate import Inflated
    from rootless.storage.tar.tarstream import TarEntry


class Expected:
    """The tree that an archive makes.

    entries: the entry that counts for each path (b"" is the root); a hard link has that of the file that it links to;
    lower: paths of hard links to files of lower layers; whiteouts: paths that hide what lower layers have there;
    opaque: directories that hide everything that lower layers have in them.
    """

    __slots__ = ("_parents", "_real", "entries", "lower", "opaque", "whiteouts")

    def __init__(self) -> None:
        self.entries: dict[bytes, TarEntry] = {}
        self.lower: set[bytes] = set()
        self.whiteouts: set[bytes] = set()
        self.opaque: set[bytes] = set()
        self._parents: set[bytes] = set()
        self._real: dict[bytes, bytes] = {}

    def read(self, source: Inflated) -> None:
        """Take all entries of an archive. Raises InvalidInput."""
        archive = TarStream(source)
        while (entry := archive.next()) is not None:
            self._add(entry)
            if entry.type == FILE and entry.stored:
                source.skip(entry.stored + TarStream.padding(entry))
            entry.segments = None

    def is_parent(self, path: bytes) -> bool:
        """Whether entries below `path` make it a directory."""
        return path in self._parents

    def is_hidden(self, path: bytes) -> bool:
        """Whether a directory above `path` hides everything of the lower layers already."""
        while path:
            path = path.rpartition(b"/")[0]
            if path in self.opaque:
                return True
        return False

    def _add(self, entry: TarEntry) -> None:
        names = split_path(entry.name)
        if not names:
            self.entries[b""] = entry
            return
        if any(name.startswith(WHITEOUT) for name in names):
            self._whiteout(names)
            return
        path = self._place(names)
        self.lower.discard(path)
        before = self.entries.get(path)
        if entry.type == LINK:
            target = split_path(entry.linkname)
            wanted = self._below(self._resolve(target[:-1]), target[-1]) if target else b""
            if wanted == path:
                return
            self._clear(path, before)
            if wanted in self.entries:
                self.entries[path] = self.entries[wanted]
            else:
                self.lower.add(path)
            return
        if entry.type != DIRECTORY:
            self._clear(path, before)
        elif path in self.whiteouts or (before is not None and before.type != DIRECTORY):
            self._clear(path, before)
            self.opaque.add(path)
        self.entries[path] = entry

    def _place(self, names: list[bytes]) -> bytes:
        """The path at which an entry comes to lie; the directories above it are noted as parents."""
        directory = self._resolve(names[:-1])
        above = directory
        while above and above not in self._parents:
            self._parents.add(above)
            if above in self.whiteouts:
                self.whiteouts.discard(above)
                self.opaque.add(above)
            above = above.rpartition(b"/")[0]
        return self._below(directory, names[-1])

    def _clear(self, path: bytes, before: TarEntry | None) -> None:
        """Forget what was at `path`, and below it, because something else takes its place. before: its entry."""
        self.whiteouts.discard(path)
        is_directory = path in self._parents or (before is not None and before.type == DIRECTORY)
        if before is None and not is_directory:
            return
        self.entries.pop(path, None)
        self._real.clear()
        if is_directory:
            prefix = path + b"/"
            for gone in [p for p in self.entries if p.startswith(prefix)]:
                del self.entries[gone]
            for paths in (self.lower, self.whiteouts, self.opaque, self._parents):
                paths.difference_update([p for p in paths if p == path or p.startswith(prefix)])

    def _whiteout(self, names: list[bytes]) -> None:
        hidden = names[-1][len(WHITEOUT) :]
        if hidden.startswith(WHITEOUT) and names[-1] != OPAQUE_NAME:
            return  # one of AUFS' own files, which `apply` skips too
        path = self._place([*names[:-1], hidden])
        if names[-1] == OPAQUE_NAME:
            self.opaque.add(self._resolve(names[:-1]))
            return
        before = self.entries.get(path)
        if path in self._parents or (before is not None and before.type == DIRECTORY):
            self.opaque.add(path)
        elif before is None and path not in self.lower:
            self.whiteouts.add(path)

    @staticmethod
    def _below(directory: bytes, name: bytes) -> bytes:
        return directory + b"/" + name if directory else name

    def _resolve(self, names: list[bytes]) -> bytes:
        """The path of the directory `names` when links of the archive are followed with the tree as the root."""
        wanted = b"/".join(names)
        found = self._real.get(wanted)
        if found is None:
            try:
                found = resolve_links(wanted, self._link_target)
            except OSError as e:
                raise InvalidInput(f"layer has a path '{show_path(wanted)}' that leads nowhere: {e.strerror}") from e
            self._real[wanted] = found
        return found

    def _link_target(self, path: bytes) -> bytes | None:
        entry = self.entries.get(path)
        return entry.linkname if entry is not None and entry.type == SYMLINK else None
