"""What the steps of one build share (engine, workers, directories, the cache), and one step of any instruction."""

from __future__ import annotations

import os
import threading
import time
from typing import NamedTuple, Protocol

from rootless.builder.dockerfile import checks
from rootless.builder.dockerfile.check_options import CheckOptions
from rootless.builder.session.build_state import BuildState
from rootless.builder.session.materials import Materials
from rootless.builder.worker.client import Worker, Workers
from rootless.builder.worker.step_jobs import LayerTree
from rootless.errors import HostLimit
from rootless.paths import make_new_private
from rootless.records.json_file import random_name
from rootless.storage.store.step_records import BuildCache, CacheRecord, StepLayer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType
    from typing import TypeVar

    from rootless.builder.build_options import BuildOptions
    from rootless.builder.context.contexts import Context
    from rootless.builder.context.digests import Known
    from rootless.builder.dockerfile.checks import Finding
    from rootless.builder.session.tracker import Step, Tracker
    from rootless.engine.context import Engine
    from rootless.engine.plan.bundle import ResolvedMount
    from rootless.records.rootfs import RootfsPlan

    Answer = TypeVar("Answer")


class LayersMissing(Exception):
    """Files of a state are wanted whose layers are only known and not in the store. state: None where it is not there.

    It is no RootlessError, so that no step takes it for its failure. The solver then builds the layers.
    """

    def __init__(self, state: BuildState | None) -> None:
        super().__init__("the layers of a state are not in the store")
        self.state = state


class RecordSource(Protocol):
    """A source of records of steps that this store does not have: the caches of --cache-from."""

    def find(self, key: str, state: BuildState, step: Step, *, may_be_absent: bool) -> CacheRecord | None:
        """The record of the step with this key, once the layers that it names are in the store; None without one.

        may_be_absent: they need not be there. Raises LayersMissing.
        """

    def has(self, key: str) -> bool:
        """Whether there is a record with this key. Nothing is fetched."""


class RunningAgent(Protocol):
    """An ssh-agent that holds keys for this build. socket: its path."""

    socket: str

    def close(self) -> None:
        """End the agent, whose keys are gone then."""


class BuildSession:
    """One build. To be used in a `with`, which ends the workers and removes the build's directories.

    latest: --timestamp or SOURCE_DATE_EPOCH in seconds, None without, and until the context is there whose time it may
    be; contexts: the named ones, and the main one as ""; materials: what of elsewhere was used for the present
    platform; used: the records that the build has used or made, with the
    layers that each needs, for --cache-to; checks: which build checks are wanted; mounts: those of --volume; agents:
    those with keys of --ssh, by the keys' files; lock: guards what the threads of the stages share. Raises HostLimit
    when the directory cannot be made.
    """

    def __init__(self, engine: Engine, options: BuildOptions, tracker: Tracker, *, latest: int | None) -> None:
        from rootless.storage.drivers.choice import choose_driver

        self.engine = engine
        self.options = options
        self.tracker = tracker
        self.latest = latest
        self.store = engine.store
        self.id_map = engine.store.id_map
        self.cache = BuildCache(engine.store.root)
        self.workers = Workers()
        self.contexts: dict[str, Context] = {}
        self.materials = Materials()
        self.imported: RecordSource | None = None
        self.used: dict[str, tuple[CacheRecord, tuple[StepLayer, ...]]] = {}
        self.checks = CheckOptions()
        self.mounts: tuple[ResolvedMount, ...] = ()
        self.agents: dict[tuple[str, ...], RunningAgent] = {}
        self.lock = threading.Lock()
        self._reported: set[Finding] = set()
        self._number = 0
        self._known: dict[str, Known] = {}
        self.driver = choose_driver(
            engine.settings.storage_driver, self.store.containers.directory, self.id_map, engine.directories.cache
        )
        self.directory = self.store.path("incoming", f"build-{random_name()[:16]}")
        try:
            make_new_private(self.directory)
        except OSError as e:
            raise HostLimit(f"cannot make '{self.directory}': {e.strerror}") from e

    def __enter__(self) -> BuildSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from rootless.storage.files.removal import remove_tree

        self.workers.close()
        for agent in self.agents.values():
            agent.close()
        for known in self._known.values():
            known.save()
        remove_tree(self.directory, self.id_map)

    def report(self, found: Iterable[Finding]) -> None:
        """Warn of those of `found` that are wanted, each once for all platforms; raise DockerfileError for the first
        where the checks are errors."""
        wanted = checks.chosen(found, self.checks)
        if self.checks.is_error:
            checks.refuse(wanted)
        for finding in wanted:
            with self.lock:
                is_new = finding not in self._reported
                self._reported.add(finding)
            if is_new:
                self.engine.warn(str(finding))

    @property
    def settles_times(self) -> bool:
        """Whether what RUN writes gets the time of its inputs, for equal digests, and not the time of its writing."""
        return self.latest is not None or self.engine.settings.build_times == "settled"

    # Directories and trees

    def make_directory(self, *names: str) -> str:
        """Make a new directory of this build with the directories `names` in it; return its path. Raises HostLimit."""
        with self.lock:
            self._number += 1
            path = f"{self.directory}/{self._number}"
        try:
            os.mkdir(path, 0o700)
            for name in names:
                os.mkdir(f"{path}/{name}", 0o755)
                os.chmod(f"{path}/{name}", 0o755)  # noqa: S103 - some show in the container; their parent is 0700
        except OSError as e:
            raise HostLimit(f"cannot make '{path}': {e.strerror}") from e
        return path

    def plan(self, state: BuildState, directory: str) -> RootfsPlan:
        """The driver's plan of a writable tree on top of `state`, in `directory`. Raises LayersMissing."""
        return self.plan_of(self.lowerdirs(state), directory)

    def plan_of(self, lowerdirs: list[str], directory: str) -> RootfsPlan:
        """The driver's plan of a writable tree on top of the directories `lowerdirs`, topmost first."""
        from rootless.storage import drivers

        plan = drivers.plan_root(self.driver, directory, lowerdirs, volatile=True)
        drivers.prepare_root(plan, self.id_map)
        return plan

    def tree(self, lowerdirs: list[str]) -> LayerTree:
        """A tree of the directories `lowerdirs`, topmost first, for a worker to mount.

        What is written to it is dropped.
        """
        directory = self.make_directory("merged")
        return LayerTree(self.plan_of(lowerdirs, directory), f"{directory}/merged")

    def done_with(self, directory: str) -> None:
        """Remove the directory of a step that has ended, where the driver has put a whole copy of the image into it.

        Other drivers' directories are small and go with the build; copies of each step's image would fill the disk.
        """
        from rootless.storage.drivers import find_driver

        if find_driver(self.driver).form.holds_whole_tree:
            from rootless.storage.files.removal import remove_tree

            remove_tree(directory, self.id_map, trash=self.store.path("trash"))

    def lowerdirs(self, state: BuildState) -> list[str]:
        """The directories of a state's layers, topmost first. Raises LayersMissing."""
        self.require_layers(state)
        return self.store.layers.lowerdirs(state.chain_ids, self.id_map)

    def has_layers(self, chains: Iterable[str]) -> bool:
        """Whether the layers with these chain ids are in the store."""
        return all(map(self.store.layers.has, chains))

    def require_layers(self, state: BuildState) -> None:
        """Raise LayersMissing where layers of `state` are not in the store: only a cache from elsewhere knows them."""
        if self.imported is not None and not self.has_layers(state.chain_ids):
            raise LayersMissing(state)

    # Workers

    def on_worker(self, work: Callable[[Worker], Answer]) -> Answer:
        """Call `work` with an idle worker, and return its result. Raises what `work` raises, HostLimit."""
        worker = self.workers.take()
        try:
            return work(worker)
        finally:
            self.workers.give_back(worker)

    # Layers and the cache

    def known(self, context: Context) -> Known:
        """The content digests of one context's files. Those of a lasting context are kept for later builds."""
        with self.lock:
            found = self._known.get(context.path)
            if found is None:
                import hashlib

                from rootless.builder.context.digests import Known

                name = hashlib.sha256(os.fsencode(context.path)).hexdigest()[:32]
                path = f"{self.engine.directories.cache}/build/contexts/{name}.json" if context.is_lasting else None
                found = self._known[context.path] = Known(path)
            return found

    def commit(self, plan: RootfsPlan, user: tuple[int, int] | None = None) -> tuple[StepLayer, int] | None:
        """Make the writable directory of `plan` a layer: (layer, bytes of its files); None without a change.

        user: (uid, gid) of a user for whom root stood in, because the id map has one id: files whose owner is not noted
        belong to that user. None else.
        """
        from rootless.engine.files.snapshots import commit_layer
        from rootless.host.idmap import single_map
        from rootless.storage.layers.layer_store import LayerOptions

        id_map = self.id_map if user is None else single_map(*user)
        new = commit_layer(self.engine, plan, id_map, LayerOptions(move=True, timestamp=self.latest))
        if new is None:
            return None
        found = new.descriptor
        return StepLayer(new.chain_id, new.diff_id, found.media_type, found.digest, found.size), new.size


class StepResult(NamedTuple):
    """What carrying out a step made.

    layer: None where nothing changed; size: bytes of the layer's files; moment: the time of the step in seconds.
    """

    layer: StepLayer | None
    size: int
    moment: int


class StepRun(NamedTuple):
    """One step that is carried out on `state`.

    created_by: the step's line in the image's history; stage: the stage's name or number, for --no-cache-filter;
    progress: by which its events are reported; may_be_absent: the layer of its result need not be in the store, because
    perhaps nobody will read it.
    """

    session: BuildSession
    state: BuildState
    created_by: str
    stage: str
    progress: Step
    may_be_absent: bool = False

    @property
    def timestamp(self) -> int:
        """The time, in seconds, that what has no time of its own gets."""
        return self.state.moment if self.session.latest is None else self.session.latest

    @property
    def _may_use_cache(self) -> bool:
        options = self.session.options
        return not options.no_cache and self.stage not in options.no_cache_filter

    def find(self, key: str) -> CacheRecord | None:
        """The record with `key`, where the step was carried out before and its layers are still in the store.

        None where there is none, or no cache is wanted: a worker is started then, which loads while the step is
        planned. Raises LayersMissing where the step must be carried out and the layers below it are not in the store.
        """
        session = self.session
        record = None
        if self._may_use_cache:
            record = session.cache.find(key)
            if record is not None and not session.has_layers(record.chains):
                record = None
            if record is None and session.imported is not None:
                record = session.imported.find(key, self.state, self.progress, may_be_absent=self.may_be_absent)
        if record is None:
            session.require_layers(self.state)
            session.workers.prepare()
        return record

    def knows(self, key: str) -> bool:
        """Whether there is a record with `key`, here or in a cache of --cache-from. No layer is fetched for it."""
        session = self.session
        if not self._may_use_cache:
            return False
        return session.cache.has(key) or (session.imported is not None and session.imported.has(key))

    def remember(self, key: str, result: StepResult, others: Sequence[str] = ()) -> CacheRecord:
        """Write the record of this step, which was carried out, into the cache under `key`, and return it.

        others: further keys of the same result. Their records are used too, but no bytes are counted for them.
        """
        layer, now = result.layer, time.time()
        chains = (*self.state.chain_ids, layer.chain_id) if layer is not None else tuple(self.state.chain_ids)
        record = CacheRecord(key, layer, chains, result.moment, result.size, self.created_by, now, now)
        self.session.cache.put(record)
        for each in others:
            other = record._replace(key=each, size=0)
            self.session.cache.put(other)
            with self.session.lock:
                self.session.used[each] = other, self.state.grown("", layer, 0).layers
        return record

    def after(self, record: CacheRecord) -> BuildState:
        """The state after this step by its record, which is noted as used for --cache-to."""
        session = self.session
        moment = record.moment if session.latest is None else session.latest
        result = self.state.grown(self.created_by, record.layer, moment)
        with session.lock:
            session.used[record.key] = record, result.layers
        return result
