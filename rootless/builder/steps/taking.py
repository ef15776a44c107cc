"""What the sources of a COPY or ADD are: files of a context or stage, inline files, downloads, git repositories."""

from __future__ import annotations

import os

from rootless.builder.context.context_files import without_depth
from rootless.builder.context.contexts import Context, is_git, is_url
from rootless.builder.dockerfile.instructions import Add, Copy
from rootless.builder.worker.file_jobs import InlineFile, TakenFiles
from rootless.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.builder.session.build_session import StepRun
    from rootless.builder.session.build_state import BuildState
    from rootless.builder.steps.run_mounts import Finder
    from rootless.builder.worker.file_jobs import Item


class TakenSources:
    """What one step takes.

    items: for the worker's job; fds, trees: the roots that items name by position, fds first, each tree as the state of
    a stage. facts: for the cache key; other_facts: the same for a key in which trees are known by the content of what
    is taken, and not by their chain. newest: the time of the newest file in seconds. is_changeable: files of the user's
    own are among them, which may change while they are read.
    """

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.facts: list[object] = []
        self.other_facts: list[object] = []
        self.newest = 0
        self.fds: list[int] = []
        self.trees: list[BuildState] = []
        self.is_changeable = False

    @property
    def items_of_trees(self) -> list[TakenFiles]:
        """The items that take files of a stage."""
        return [each for each in self.items if isinstance(each, TakenFiles) and each.root >= len(self.fds)]

    def note(self, fact: object, other: object = None) -> None:
        """Add `fact` to the cache key. other: what stands for it in `other_facts`; None means the fact itself."""
        self.facts.append(fact)
        self.other_facts.append(fact if other is None else other)

    def close(self) -> None:
        """Close the fds of the roots; a second call does nothing."""
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()


def take_sources(run: StepRun, instruction: Copy | Add, finder: Finder, destination: str) -> TakenSources:
    """Find out what `instruction` takes, and fetch what is elsewhere. The caller closes the result.

    destination: the absolute path. Raises NotFound, UsageError, RegistryError, DigestMismatch; nothing is open then.
    """
    check_flags(instruction)
    taker = _Taker(run, instruction, destination)
    try:
        remote = [s for s in instruction.sources if isinstance(instruction, Add) and (is_url(s) or is_git(s))]
        plain = [s for s in instruction.sources if s not in remote]
        if not (isinstance(instruction, Copy) and instruction.is_parents):
            plain = [without_depth(s) for s in plain]
        for source in remote:
            assert isinstance(instruction, Add)
            taker.take_remote(instruction, source)
        if plain:
            origin = finder(instruction.from_ if isinstance(instruction, Copy) else "")
            if isinstance(origin, Context):
                taker.take_from_context(origin, plain)
            else:
                taker.take_from_state(origin, plain)
        for heredoc in instruction.heredocs:
            content = heredoc.content.encode("utf-8", "surrogateescape")
            taker.taken.note([heredoc.name, heredoc.content])
            taker.taken.items.append(InlineFile(destination, heredoc.name, content))
    except BaseException:
        taker.taken.close()
        raise
    return taker.taken


def check_flags(instruction: Copy | Add) -> None:
    """Raise UsageError for a flag that none of the sources could obey.

    A checksum that verifies nothing looks like one that was verified; other flags without an effect are mistakes.
    """
    sources = instruction.sources
    if isinstance(instruction, Add):
        repositories = [source for source in sources if is_git(source)]
        if instruction.checksum and (len(sources) != 1 or not (repositories or is_url(sources[0]))):
            raise UsageError("--checksum is for one source, which is a URL or a git repository")
        if instruction.keeps_git_dir and not repositories:
            raise UsageError("--keep-git-dir is for git repositories", hint="a repository's URL ends with .git")
        if instruction.unpack and len(repositories) == len(sources):
            raise UsageError("--unpack is for files and URLs, of which there is none")
    if not sources:
        given = {"--exclude": bool(instruction.excludes)}
        if isinstance(instruction, Copy):
            given |= {"--from": bool(instruction.from_), "--parents": instruction.is_parents}
        for flag, is_given in given.items():
            if is_given:
                raise UsageError(f"{flag} has no meaning for a heredoc")


class _Taker:
    """Takes the sources of one instruction, one after the other."""

    def __init__(self, run: StepRun, instruction: Copy | Add, destination: str) -> None:
        self.taken = TakenSources()
        self._run = run
        self._destination = destination
        self._exclude = list(instruction.excludes)
        self._unpack = isinstance(instruction, Add) and instruction.unpack is not False
        self._parents = isinstance(instruction, Copy) and instruction.is_parents

    def take_from_context(self, source: Context, sources: list[str]) -> None:
        taken = self.taken
        digest = source.digest(sources, self._exclude, self._run.session.known(source), wildcards=True)
        taken.note(["context", digest.hexdigest, self._unpack, self._parents])
        taken.newest = max(taken.newest, digest.newest)
        taken.is_changeable = True
        self._add_files(sources).ignore = source.ignore
        taken.fds.append(source.open())

    def take_from_state(self, source: BuildState, sources: list[str]) -> None:
        taken = self.taken
        settings = {"exclude": self._exclude, "unpack": self._unpack, "parents": self._parents}
        taken.note(["tree", source.chain, sources, settings], ["tree", self._parents])
        taken.newest = max(taken.newest, source.moment)
        # An instruction has one --from: where that is a tree, the instruction has no other tree and no context
        self._add_files(sources)
        taken.trees.append(source)

    def _add_files(self, sources: list[str]) -> TakenFiles:
        files = TakenFiles(len(self.taken.fds), sources, self._destination)
        files.exclude, files.unpack, files.parents = self._exclude, self._unpack, self._parents
        self.taken.items.append(files)
        return files

    def take_remote(self, instruction: Add, source: str) -> None:
        from rootless.builder.context.remote import RemoteSource, fetch

        taken = self.taken
        directory = self._run.session.make_directory("files")
        wanted = RemoteSource(source, instruction.checksum, instruction.keeps_git_dir, self._run.timestamp)
        fetched = fetch(wanted, f"{directory}/files", self._run.progress.log)
        self._run.session.materials.add_fetched(source, fetched.identity)
        unpack = bool(instruction.unpack)  # a download is unpacked only where --unpack asks for it
        taken.note(["remote", fetched.identity, fetched.name, unpack, self._exclude])
        taken.newest = max(taken.newest, fetched.newest)
        files = TakenFiles(len(taken.fds), [fetched.name or "."], self._destination, wildcards=False)
        files.exclude, files.unpack = self._exclude, unpack
        taken.items.append(files)
        taken.fds.append(os.open(f"{directory}/files", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
