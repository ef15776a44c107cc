"""Makes a layer's tar again from its recipe and its tree. It runs in the worker, in the user namespace.

The tar is right only when the tree is unchanged: whoever relies on its bytes compares their digest with the diff_id.
Nothing on disk is changed.
"""

from __future__ import annotations

import bisect
import os

from rootless.errors import InvalidInput
from rootless.host.answer import write_all
from rootless.storage.tar.layer_rules import show_path
from rootless.storage.tar.recipe import REPLACED, crc32, find_recipe, make_opener, read_moved, read_steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rootless.storage.tar.recipe import Moved, RecipeStep

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 18  # bytes that are gathered before they are written
_LARGE = 1 << 17  # files from this size on go from file to pipe inside the kernel


class _Gathered:
    """Small pieces of the archive that leave together. size: their bytes."""

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.size = 0

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self.size += len(piece)

    def take(self) -> bytes:
        """All of them as one, which are gone then."""
        joined = b"".join(self._pieces)
        self._pieces.clear()
        self.size = 0
        return joined


class Rebuilder:
    """Plays the recipe of the layer in `directory`. It is to be made before a change of root; `enter` comes after that.

    damage: called with a description of each file whose bytes are not those that the recipe noted. What is missing is
    replaced by zeros then, so that the rest can be compared. None: the first damage raises InvalidInput.
    """

    __slots__ = ("_damage", "_diff", "_moved", "_open", "_replaced")

    def __init__(self, directory: str, damage: Callable[[str], None] | None = None) -> None:
        recipe = find_recipe(directory)
        if recipe is None:
            raise InvalidInput(f"layer '{os.path.basename(directory)}' has no recipe")
        try:
            self._open = make_opener(recipe)
        except OSError as e:
            raise InvalidInput(f"layer '{os.path.basename(directory)}' cannot be read: {e.strerror}") from e
        self._damage = damage
        self._diff = self._replaced = -1
        self._moved: _Places | None = None

    def enter(self, directory: str) -> None:
        """Open the tree; directory: where the layer's directory is now. Raises InvalidInput."""
        try:
            self._diff = os.open(f"{directory}/diff", _DIRECTORY)
            self._replaced = os.open(f"{directory}/{REPLACED}", _DIRECTORY)
        except FileNotFoundError:
            if self._diff < 0:
                raise InvalidInput("the layer has no tree any more") from None
            return
        except OSError as e:
            raise InvalidInput(f"the layer's tree cannot be read: {e.strerror}") from e
        self._moved = _Places(read_moved(self._open))

    def close(self) -> None:
        """Close the directories that `enter` has opened."""
        for fd in (self._diff, self._replaced):
            if fd >= 0:
                os.close(fd)
        self._diff = self._replaced = -1

    def pieces(self) -> Iterator[bytes]:
        """All bytes of the archive, in order. Raises InvalidInput."""
        gathered = _Gathered()
        number = 0
        for step in read_steps(self._open):
            gathered.add(step.raw)
            if step.size:
                for piece in self._payload(step, number):
                    gathered.add(piece)
                    if gathered.size >= _PIECE:
                        yield gathered.take()
                number += 1
            if gathered.size >= _PIECE:
                yield gathered.take()
        yield gathered.take()

    def write(self, out: int) -> None:
        """Write all bytes of the archive to the pipe `out`. The kernel copies large files itself (sendfile(2)).

        Raises InvalidInput, OSError.
        """
        gathered = _Gathered()
        number = 0
        for step in read_steps(self._open):
            gathered.add(step.raw)
            if step.size:
                if step.size >= _LARGE:
                    write_all(out, gathered.take())
                    self._send(out, step, number)
                else:
                    for piece in self._payload(step, number):
                        gathered.add(piece)
                number += 1
            if gathered.size >= _PIECE:
                write_all(out, gathered.take())
        write_all(out, gathered.take())

    def _payload(self, step: RecipeStep, number: int) -> Iterator[bytes]:
        """The bytes of the file that a step names, always `step.size` of them."""
        left, crc = step.size, 0
        try:
            fd = self._file(step.path, number)
            try:
                if step.offset:
                    os.lseek(fd, step.offset, os.SEEK_SET)
                while left and (piece := os.read(fd, min(left, _PIECE))):
                    left -= len(piece)
                    if self._damage is not None:
                        crc = crc32(piece, crc)
                    yield piece
            finally:
                os.close(fd)
        except OSError as e:
            self._spoiled(step, e.strerror or str(e))
        else:
            if left:
                self._spoiled(step, "it is too short")
            elif self._damage is not None and step.crc and crc != step.crc:
                self._spoiled(step, "its content has changed")
        while left:
            yield bytes(min(left, _PIECE))
            left -= min(left, _PIECE)

    def _send(self, out: int, step: RecipeStep, number: int) -> None:
        try:
            fd = self._file(step.path, number)
        except OSError as e:
            raise InvalidInput(_text(step, e.strerror or str(e))) from e
        try:
            offset, end = step.offset, step.offset + step.size
            while offset < end:
                done = os.sendfile(out, fd, offset, min(end - offset, 1 << 30))
                if not done:
                    raise InvalidInput(_text(step, "it is too short"))
                offset += done
        finally:
            os.close(fd)

    def _file(self, path: bytes, number: int) -> int:
        if self._moved is not None:
            place = self._moved.find(path, number)
            if place is not None:
                return os.open(place, _READ, dir_fd=self._replaced)
        return os.open(path, _READ, dir_fd=self._diff)

    def _spoiled(self, step: RecipeStep, why: str) -> None:
        if self._damage is None:
            raise InvalidInput(_text(step, why))
        self._damage(_text(step, why))


def _text(step: RecipeStep, why: str) -> str:
    return f"file '{show_path(step.path)}' of the layer is damaged: {why}"


class _Places:
    """Where the files lie that the archive itself has replaced."""

    __slots__ = ("_by_path",)

    def __init__(self, moved: list[Moved]) -> None:
        self._by_path: dict[bytes, list[tuple[int, int]]] = {}
        for path, steps, number in moved:
            self._by_path.setdefault(path, []).append((steps, number))

    def find(self, path: bytes, step: int) -> bytes | None:
        """The path below `replaced` of the file that payload number `step` wrote to `path`; None when it stayed there.

        Of all moves of the file, or of a directory above it, the first one after that payload has taken it away.
        """
        best: tuple[int, int, bytes] | None = None
        end = len(path)
        while end > 0:
            moves = self._by_path.get(path[:end])
            if moves is not None:
                at = bisect.bisect_left(moves, (step + 1, 0))
                if at < len(moves) and (best is None or moves[at][1] < best[1]):
                    best = (*moves[at], path[end:])
            end = path.rfind(b"/", 0, end)
        return None if best is None else b"%d%s" % (best[1], best[2])
