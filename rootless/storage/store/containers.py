"""The records of containers: directory, name, state. It starts and stops no container.

A container exists from the moment at which its name file exists (`publish`). A rename that was killed half way leaves
two name files that lead to one container: the name in its record is the one that counts. A container whose name file
was lost, by a damaged file system, gets it again by its record (`recover`); a directory that never had a name is
garbage.

What `publish`, `rename` and `update` have done survives a power cut: files are on the disk before the name that leads
to them. Containers of `--rm` are not synced, since a power cut ends them anyway.
"""

from __future__ import annotations

import os

from rootless.errors import AlreadyExists, HostLimit, InvalidInput, InvalidState, NotFound, RootlessError, UsageError
from rootless.paths import Lock, make_new_private, sync_paths
from rootless.records.container import ContainerNeeds, ContainerRecord
from rootless.records.fields import Fields
from rootless.records.json_file import random_name, read_record, write_record
from rootless.records.launch import LaunchPlan
from rootless.records.state import ContainerState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.records.id_map import IdMap

    Ids = list[str]
    Names = list[str]

_MARK = "name"  # a file in the container's directory, which says that the container was published
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_OTHER = _FIRST | frozenset("_.-")
_HEX = frozenset("0123456789abcdef")
_ADJECTIVES = (
    "able amber awake brave breezy bright brisk calm candid cheerful clever cosy crisp curious daring "
    "dapper eager earnest fair fearless fleet fond frank gentle glad golden grand handy happy hardy "
    "hearty honest humble jolly keen kind lively lucid lucky mellow merry mild modest neat nimble noble "
    "patient placid plucky polite proud quick quiet ready robust rosy sharp shy silent silver simple "
    "sincere smart snug sober solid spry steady stout sunny swift tender thrifty tidy trusty upbeat "
    "valiant vivid warm wise witty zesty"
)
_NOUNS = (
    "acorn alder anchor ant apple aspen badger barge bay beacon beaver beech birch bison brook canoe "
    "cedar clover comet coral cove crane creek daisy dolphin dove dune eagle elm falcon fern finch fjord "
    "fox gannet geyser glacier grove gull harbor hare hawk hazel heron hill iris island ivy jay kestrel "
    "kite lagoon lake lark laurel lemur lily linden lynx maple marten meadow mesa moon moss newt oak "
    "olive orchid osprey otter owl panda pebble pine plover pond poppy puffin quail raven reef river "
    "robin rowan seal sparrow spruce star stork swan thrush tide tulip walnut willow wren"
)


def check_name(name: str, *, what: str = "container") -> str:
    """`name` when it is `[a-zA-Z0-9][a-zA-Z0-9_.-]*` (docker's rule) of at most 128 characters; else UsageError."""
    if not name or len(name) > 128 or name[0] not in _FIRST or not _OTHER.issuperset(name):
        raise UsageError(f"invalid {what} name '{name}', only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 128 at most")
    return name


def suggest_name(attempt: int = 0) -> str:
    """A made-up name, "adjective_noun"; later attempts add a digit, as docker does."""
    first, second = os.urandom(2)
    adjectives, nouns = _ADJECTIVES.split(), _NOUNS.split()
    name = f"{adjectives[first % len(adjectives)]}_{nouns[second % len(nouns)]}"
    return name if attempt == 0 else f"{name}{int.from_bytes(os.urandom(2), 'big') % 10 ** min(attempt, 4)}"


class Containers:
    """The containers of a store: its directories `containers` and `names`."""

    __slots__ = ("directory", "names", "root")

    def __init__(self, root: str) -> None:
        self.root = root
        self.directory = f"{root}/containers"
        self.names = f"{root}/names"

    @staticmethod
    def new_id() -> str:
        """A fresh id: 64 hexadecimal digits."""
        return random_name()

    def path(self, container_id: str, *names: str) -> str:
        """The directory of a container, or a file in it."""
        return "/".join((self.directory, container_id, *names))

    def create(self, record: ContainerRecord) -> str:
        """Make the directory of a new container with its record, and return its path. `publish` takes the name later.

        From then on garbage collection keeps the image and the layers that the record names, and its volumes count as
        in use. Raises UsageError for a bad name, AlreadyExists when the name or the id is in use, HostLimit.
        """
        name, container_id = check_name(record.name), record.id
        owner = self._owner(name)
        if owner is not None:
            raise _in_use(name, owner)
        directory = self.path(container_id)
        try:
            make_new_private(directory)
            write_record(f"{directory}/record.json", record.to_json(), durable=False)
        except FileExistsError as e:
            raise AlreadyExists(f"a container with id '{container_id}' exists") from e
        except OSError as e:
            raise HostLimit(f"cannot make container directory '{directory}': {e.strerror}") from e
        return directory

    def publish(self, container_id: str, *, durable: bool = True) -> None:
        """Give the container its name: from here on it exists. Raises AlreadyExists when another has taken the name.

        durable: whether its files, and after them its name, are on the disk when this returns.
        """
        name = check_name(self._name(container_id))
        self._take(name, container_id, durable=durable)

    def update(self, record: ContainerRecord, *, durable: bool = True) -> None:
        """Replace the record of a container that keeps its id and its name."""
        write_record(self.path(record.id, "record.json"), record.to_json(), durable=durable)

    def find(self, text: str) -> str:
        """The id of the container that has the name `text`, or the only id that begins with `text`.

        A name may have the slash at its start that docker's API and `inspect` show. Raises NotFound; UsageError when
        several ids begin so.
        """
        text = text.removeprefix("/")
        if text and text[0] in _FIRST and _OTHER.issuperset(text):
            owner = self._owner(text)
            if owner is not None:
                return owner
            if _HEX.issuperset(text):
                matches = [name for name in os.listdir(self.directory) if name.startswith(text)]
                matches = [name for name in matches if self._is_published(name)]
                if len(matches) == 1:
                    return matches[0]
                if matches:
                    raise UsageError(f"several containers have ids that begin with '{text}'", hint="give more digits")
        if self.recover():
            return self.find(text)
        raise NotFound(f"no such container: '{text}'", hint="`rootless ps -a` lists them")

    def read(self, container_id: str) -> ContainerRecord:
        """The container's record, with paths as they are since the store was moved. Raises NotFound, InvalidInput."""
        path = self.path(container_id, "record.json")
        record = ContainerRecord.from_json(read_record(path, what="container record"), path)
        if not record.names_directory.startswith(f"{self.directory}/"):
            from rootless.storage.store import moved_paths

            if old := moved_paths.old_root_of_record(record):
                moved_paths.move_record(record, moved_paths.move_from(old, self.root))
        return record

    def read_needs(self, container_id: str) -> ContainerNeeds:
        """What garbage collection must keep for the container; `layers` has those of images that it mounts, too.

        Raises NotFound; InvalidInput where damaged files leave unknown what it needs.
        """
        path = self.path(container_id, "record.json")
        needs = ContainerNeeds.from_json(read_record(path, what="container record"), path)
        if needs.mounts_images:
            needs.layers += self.mounted_layers(container_id)
        return needs

    def mounted_layers(self, container_id: str) -> Ids:
        """The chain ids of the layers that config.json mounts: those of the images of --mount type=image.

        Raises NotFound, InvalidInput.
        """
        from rootless.storage.store.moved_paths import LOWERDIR

        path = self.path(container_id, "config.json")
        found: dict[str, None] = {}
        for mount in Fields(self.read_config(container_id), path).objects("mounts"):
            # The paths may be those of before the store was moved: the name of a layer's directory says enough
            overlaid = [word.removeprefix(LOWERDIR) for word in mount.texts("options") if word.startswith(LOWERDIR)]
            for directory in (mount.text("source", ""), *overlaid):
                above, _, name = directory.removesuffix("/diff").rpartition("/")
                layer = name.partition("+")[0]
                is_layer = len(layer) == 64 and _HEX.issuperset(layer)
                if is_layer and above.endswith("/layers") and directory.endswith("/diff"):
                    found[f"sha256:{layer}"] = None
        return list(found)

    def _name(self, container_id: str) -> str:
        """The name in the record. Nothing else of the record is read, so that a damaged value in it does not matter."""
        path = self.path(container_id, "record.json")
        return Fields(read_record(path, what="container record"), path).text("name")

    def list(self) -> list[str]:
        """The ids of all containers that exist, in no order."""
        return [*self._named(), *self.recover()]

    def _named(self) -> Ids:
        return [owner for name in os.listdir(self.names) if (owner := self._owner(name)) is not None]

    def recover(self) -> Ids:
        """Give containers that have lost their name file the name in their record again; returns their ids.

        Where another container has the name by now, this one gets a name with the first digits of its id at the end.
        Those whose record is damaged stay without.
        """
        named = set(self._named())
        return [each for each in os.listdir(self.directory) if each not in named and self._recover(each)]

    def _recover(self, container_id: str) -> bool:
        if not self.was_published(container_id):
            return False
        try:
            record = self.read(container_id)
            if record.options.rm or record.id != container_id:
                return False
            try:
                self._take(check_name(record.name), container_id)
            except AlreadyExists:
                record.name = f"{record.name[:100]}-{container_id[:12]}"
                self._take(record.name, container_id)
                self.update(record)
        except (RootlessError, OSError):
            return False  # it is damaged, which `system check` reports, or just being removed, or the disk is full
        return True

    def was_published(self, container_id: str) -> bool:
        """Whether the directory belongs to a container that has existed, whether it has a name now or not.

        Earlier versions did not write the mark: their containers are recognised only when they were started.
        """
        return any(os.path.lexists(self.path(container_id, each)) for each in (_MARK, "monitor.lock", "state.json"))

    def rename(self, container_id: str, name: str) -> None:
        """Change the name. Raises UsageError, AlreadyExists, NotFound."""
        check_name(name)
        record = self.read(container_id)
        old = record.name
        if name == old:
            raise InvalidState(f"container '{old}' has that name already")
        self._take(name, container_id)
        # Until the old name file is removed, two name files lead to this container. The name in the record counts, so
        # the rename happens at the moment at which the record is replaced.
        record.name = name
        write_record(self.path(container_id, "record.json"), record.to_json())
        self._drop(old, container_id)

    def discard(self, container_id: str, target: str | None = None) -> str:
        """End the container's existence in one step, and return where its files are now, for removal.delete_tree.

        target: the path to which its directory is renamed, by default one in the trash. A process that is killed here
        leaves trash, or a name file that leads to no container: garbage collection removes both.
        """
        directory, moved = self.path(container_id), target or f"{self.root}/trash/{random_name()}"
        lock = Lock(f"{self.root}/locks/names")
        try:
            lock.acquire()  # nobody may take the name between the look at its file and the removal of that file
        except OSError:
            pass  # a full disk has no inode for the lock's file, or `locks` is lost: removing must work all the same
        try:
            names = self._names_of(container_id)
            try:
                os.rename(directory, moved)
            except OSError:
                if target is not None:
                    raise
                # There is no `trash`, no room in it, or the directory is a mount point. Without the files that say that
                # the container has existed, its directory is garbage where it is.
                moved = directory
                for name in (_MARK, "monitor.lock", "state.json", "record.json"):
                    try:
                        os.unlink(f"{directory}/{name}")
                    except OSError:
                        continue
            for name in names:
                self._drop(name, container_id)
        finally:
            lock.release()
        return moved

    def _names_of(self, container_id: str) -> Names:
        """The name in the record; for a damaged record the names of all name files that lead to the container."""
        try:
            return [self._name(container_id)]
        except (NotFound, InvalidInput):
            return [name for name in os.listdir(self.names) if self._leads_to(name) == container_id]

    def remove(self, container_id: str, id_map: IdMap) -> None:
        """Remove the container's name and directory. id_map: the map by whose ids its files were written."""
        from rootless.storage.files.removal import delete_tree

        delete_tree(self.discard(container_id), id_map)

    def read_state(self, container_id: str) -> ContainerState | None:
        """The state that the container's monitor wrote last, None before the first start. Raises InvalidInput."""
        path = self.path(container_id, "state.json")
        try:
            return ContainerState.from_json(read_record(path, what="container state"), path)
        except NotFound:
            return None

    def read_launch(self, container_id: str) -> LaunchPlan:
        """What the container's monitor is asked to do, with paths as they are since the store was moved.

        Raises NotFound, InvalidInput.
        """
        launch = self._launch(container_id)
        if launch.log.path != self.path(container_id, "log"):
            from rootless.storage.store import moved_paths

            if old := moved_paths.old_root_of_launch(launch):
                moved_paths.move_launch(launch, moved_paths.move_from(old, self.root))
        return launch

    def _launch(self, container_id: str) -> LaunchPlan:
        """The content of launch.json, with paths as they were when it was written."""
        path = self.path(container_id, "launch.json")
        return LaunchPlan.from_json(read_record(path, what="launch record"), path)

    def read_config(self, container_id: str) -> dict[str, object]:
        """The OCI configuration, with paths into the store as they are now. Raises NotFound, InvalidInput."""
        config = read_record(self.path(container_id, "config.json"), what="bundle")
        try:
            launch = self._launch(container_id)
        except (NotFound, InvalidInput):
            return config  # launch.json is damaged, and nothing else says whether the store was moved
        if launch.log.path != self.path(container_id, "log"):
            from rootless.storage.store import moved_paths

            if old := moved_paths.old_root_of_launch(launch):
                moved_paths.move_config(config, moved_paths.move_from(old, self.root))
        return config

    def write_moved(self, container_id: str) -> None:
        """If the store was moved, write the container's files with paths as they are now.

        This is needed before a start, because the monitor uses the paths as they are written, and before any change of
        launch.json, because that file says where the store was.
        """
        if self._launch(container_id).log.path == self.path(container_id, "log"):
            return
        launch, config, record = self.read_launch(container_id), self.read_config(container_id), self.read(container_id)
        self.update(record)
        write_record(self.path(container_id, "config.json"), config)
        # launch.json comes last: until it is written, it says that the other two are still to be changed
        self.write_launch(container_id, launch)

    def write_launch(self, container_id: str, plan: LaunchPlan, *, durable: bool = True) -> None:
        """Replace launch.json, which says what the container's monitor is to do."""
        write_record(self.path(container_id, "launch.json"), plan.to_json(), durable=durable)

    def drop_stale(self, name: str) -> None:
        """Remove a name file that leads to no container, as a removal that was killed leaves it."""
        if self._owner(name) is not None:
            return
        with Lock(f"{self.root}/locks/names"):
            if self._owner(name) is None:
                try:
                    os.unlink(f"{self.names}/{name}")
                except FileNotFoundError:
                    pass

    def _owner(self, name: str) -> str | None:
        """The id of the container that has the name; None when no name file is there, or when it was left over.

        Where the record is damaged, the name file alone counts, so that the container can be seen and removed.
        """
        container_id = self._leads_to(name)
        if container_id is None:
            return None
        try:
            return container_id if self._name(container_id) == name else None
        except NotFound:
            return None
        except InvalidInput:
            return container_id

    def _leads_to(self, name: str) -> str | None:
        """The id in the name file of `name`; None when there is no such file, or no id in it."""
        try:
            with open(f"{self.names}/{name}", encoding="ascii", errors="replace") as file:
                container_id = file.read(65).strip()
        except (FileNotFoundError, IsADirectoryError):
            return None
        except OSError as e:
            raise HostLimit(f"cannot read '{self.names}/{name}': {e.strerror}") from e
        return container_id if container_id and _HEX.issuperset(container_id) else None

    def _is_published(self, container_id: str) -> bool:
        try:
            return self._owner(self._name(container_id)) == container_id
        except NotFound:
            return False
        except InvalidInput:
            return any(self._leads_to(name) == container_id for name in os.listdir(self.names))

    def _take(self, name: str, container_id: str, *, durable: bool = True) -> None:
        """Make the name file of `name`, which must be whole when it appears, and must replace no other.

        link(2) does both in one step, also on NFS, where open(2) with O_EXCL and then a write would not. The file's
        second name stays in the container's directory, as the mark that the container has existed.
        """
        directory = self.path(container_id)
        temporary = f"{directory}/.{_MARK}"
        path = f"{self.names}/{name}"
        try:
            # A publish that was killed may have left the file, perhaps linked as the name file already: it must not be
            # opened and written, but made anew
            if os.path.exists(temporary):
                os.unlink(temporary)
            with open(temporary, "x", encoding="ascii") as file:
                file.write(f"{container_id}\n")
            try:
                if durable:
                    sync_paths((*self._plain_files(directory), directory, self.directory))
                self._link(temporary, name)
                os.rename(temporary, f"{directory}/{_MARK}")
            except BaseException:
                os.unlink(temporary)
                raise
            if durable:
                sync_paths((directory, self.names))
        except OSError as e:
            raise HostLimit(f"cannot write container name '{path}': {e.strerror}") from e

    @staticmethod
    def _plain_files(directory: str) -> Names:
        """The files to sync before the name: all files of a new container. Of one that has run only its records, since
        its log may be long."""
        names = [f".{_MARK}", "record.json", "launch.json", "config.json"]
        if not os.path.lexists(f"{directory}/{_MARK}"):
            with os.scandir(directory) as entries:
                names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        return [f"{directory}/{name}" for name in names]

    def _link(self, temporary: str, name: str) -> None:
        """Link the file `temporary` as the name file. Raises AlreadyExists when a container has the name."""
        path = f"{self.names}/{name}"
        try:
            os.link(temporary, path)
        except FileExistsError:
            with Lock(f"{self.root}/locks/names"):
                owner = self._owner(name)
                if owner is not None:
                    raise _in_use(name, owner) from None
                # A removal that was killed, or the loss of a container's directory, has left the name file
                if os.path.exists(path):
                    os.unlink(path)
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    raise _in_use(name, self._owner(name) or "") from None

    def _drop(self, name: str, container_id: str) -> None:
        path = f"{self.names}/{name}"
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                mine = file.read(65).strip() == container_id
            if mine:
                os.unlink(path)
        except FileNotFoundError:
            pass


def _in_use(name: str, owner: str) -> AlreadyExists:
    return AlreadyExists(
        f"the container name '{name}' is already in use by container '{owner[:12]}'",
        hint="remove or rename that container, or choose another name",
    )
