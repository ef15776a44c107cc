"""What the sources of a COPY or ADD are: files of a context or stage, inline files, downloads, git repositories."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Any

from rootless.builder.context.context_files import without_depth
from rootless.builder.context.contexts import Context, is_git, is_url, item
from rootless.builder.dockerfile.instructions import Add, Copy

if TYPE_CHECKING:
    from rootless.builder.session.build_session import BuildSession
    from rootless.builder.session.build_state import BuildState
    from rootless.builder.session.tracker import Step
    from rootless.builder.steps.run_mounts import Finder


class Taken:
    """items: for the worker; facts: for the cache key; newest: the time of the newest file in seconds.

    fds, trees: the roots of the items, fds first; trees are lists of lowerdirs. is_changeable: files of the user's own
    are among them, which may change meanwhile. other_facts: facts without those of trees.
    """

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.facts: list[Any] = []
        self.other_facts: list[Any] = []
        self.newest = 0
        self.fds: list[int] = []
        self.trees: list[list[str]] = []
        self.is_changeable = False

    @property
    def items_of_trees(self) -> list[dict[str, Any]]:
        """The items that take files of a stage."""
        return [each for each in self.items if each["kind"] == "files" and each["root"] >= len(self.fds)]

    def close(self) -> None:
        """Close the contexts."""
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()


def take(
    session: BuildSession, instruction: Copy | Add, finder: Finder, destination: str, state: BuildState, step: Step
) -> Taken:
    """Find out what is taken. Raises NotFound, UsageError, RegistryError; nothing is open then."""
    taken = Taken()
    try:
        remote = [s for s in instruction.sources if isinstance(instruction, Add) and (is_url(s) or is_git(s))]
        plain = [s for s in instruction.sources if s not in remote]
        if not (isinstance(instruction, Copy) and instruction.is_parents):
            plain = [without_depth(s) for s in plain]
        for source in remote:
            assert isinstance(instruction, Add)
            _remote(session, taken, instruction, source, destination, state, step)
        if plain:
            origin = finder(instruction.from_ if isinstance(instruction, Copy) else "")
            if isinstance(origin, Context):
                _context(session, taken, instruction, origin, plain, destination)
            else:
                _tree(session, taken, instruction, origin, plain, destination)
        for heredoc in instruction.heredocs:
            content = heredoc.content.encode("utf-8", "surrogateescape")
            fact = [heredoc.name, heredoc.content]
            taken.facts.append(fact)
            taken.other_facts.append(fact)
            taken.items.append(
                {
                    "kind": "content",
                    "destination": destination,
                    "name": heredoc.name,
                    "content": base64.b64encode(content).decode(),
                    "mode": 0o644,
                    "time": None,
                }
            )
    except BaseException:
        taken.close()
        raise
    return taken


def _settings(instruction: Copy | Add) -> dict[str, Any]:
    unpack = isinstance(instruction, Add) and instruction.unpack is not False
    parents = isinstance(instruction, Copy) and instruction.is_parents
    return {"exclude": list(instruction.excludes), "unpack": unpack, "parents": parents}


def _context(
    session: BuildSession, taken: Taken, instruction: Copy | Add, source: Context, sources: list[str], destination: str
) -> None:
    digest = source.digest(sources, instruction.excludes, session.known(source), wildcards=True)
    settings = _settings(instruction)
    fact = ["context", digest.hexdigest, settings["unpack"], settings["parents"]]
    taken.facts.append(fact)
    taken.other_facts.append(fact)
    taken.newest = max(taken.newest, digest.newest)
    taken.is_changeable = True
    taken.items.append(item(len(taken.fds), sources, destination, ignore=source.ignore, **settings))
    taken.fds.append(source.open())


def _tree(
    session: BuildSession,
    taken: Taken,
    instruction: Copy | Add,
    source: BuildState,
    sources: list[str],
    destination: str,
) -> None:
    settings = _settings(instruction)
    taken.facts.append(["tree", source.chain, sources, settings])
    taken.other_facts.append(["tree", settings["parents"]])
    taken.newest = max(taken.newest, source.moment)
    # only one source of an instruction is a tree, and no context is beside it
    taken.items.append(item(len(taken.fds), sources, destination, **settings))
    taken.trees.append(session.lowerdirs(source))


def _remote(
    session: BuildSession, taken: Taken, instruction: Add, source: str, destination: str, state: BuildState, step: Step
) -> None:
    from rootless.builder.context.remote import fetch

    directory = session.make_directory("files")
    moment = state.moment if session.latest is None else session.latest
    fetched = fetch(
        source,
        f"{directory}/files",
        checksum=instruction.checksum,
        keeps_git_dir=instruction.keeps_git_dir,
        moment=moment,
        log=step.log,
    )
    unpack = bool(instruction.unpack)
    fact = ["remote", fetched.identity, fetched.name, unpack, list(instruction.excludes)]
    taken.facts.append(fact)
    taken.other_facts.append(fact)
    taken.newest = max(taken.newest, fetched.newest)
    name = fetched.name or "."
    settings = {"exclude": list(instruction.excludes), "unpack": unpack, "wildcards": False}
    taken.items.append(item(len(taken.fds), [name], destination, **settings))
    taken.fds.append(os.open(f"{directory}/files", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
