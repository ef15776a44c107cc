"""COPY, ADD and WORKDIR inside the worker: a child mounts the step's tree and the sources' trees, and places files.

The child is root of the shared user namespace in a mount namespace of its own; the kernel takes the mounts away when
the child ends, however that happens. The answer is what the child writes to a pipe.
"""

from __future__ import annotations

import json
import os

from rootless.builder.worker.file_jobs import CopyAnswer, InlineFile, NewDirectory
from rootless.builder.worker.worker_session import MountedTree, own_mounts
from rootless.errors import InvalidInput
from rootless.storage.worker_jobs import read_answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.builder.context.context_files import Match
    from rootless.builder.context.ignore import Exclusions
    from rootless.builder.worker.file_jobs import CopyJob, DigestJob, TakenFiles
    from rootless.builder.worker.placing import Placer
    from rootless.builder.worker.worker_session import WorkerSession


def copy(session: WorkerSession, job: CopyJob, fds: list[int]) -> CopyAnswer:
    """Place the items of `job` in its tree. fds: the first roots that items name; the job's trees are the next ones.

    Raises InvalidInput, NotFound, HostLimit.
    """
    from rootless.storage import drivers

    plan = job.rootfs if job.into is None else None
    mounter = drivers.make_mounter(plan) if plan is not None else None
    sources = [MountedTree(source) for source in job.trees]

    def inside() -> bytes:
        own_mounts(session.pid)
        target = job.into or f"{job.directory}/rootfs"
        if mounter is not None:
            mounter(target)
        roots = [*fds, *(source.open() for source in sources)]
        root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return json.dumps(_place(root, roots, job).to_json()).encode()

    try:
        return read_answer(job, json.loads(session.call(job.id_map, inside)))
    finally:
        if mounter is not None and plan is not None:
            mounter.close()
            drivers.unmount_root(plan)
        for source in sources:
            source.close()


def digest(session: WorkerSession, job: DigestJob, fds: list[int]) -> str:
    """The digest, in hexadecimal digits, of what the items of `job` take. fds: as with `copy`.

    Raises InvalidInput, NotFound.
    """
    sources = [MountedTree(source) for source in job.trees]

    def inside() -> bytes:
        from rootless.builder.context.digests import Content, Known

        own_mounts(session.pid)
        roots = [*fds, *(source.open() for source in sources)]
        content = Content(Known(None), owned=True)
        for item in job.items:
            exclusions = _exclusions(item)
            for match in _matches(roots[item.root], item, exclusions):
                content.add(roots[item.root], match, exclusions)
                if item.parents:
                    content.directories(roots[item.root], match)
        return content.hexdigest().encode()

    try:
        return session.call(job.id_map, inside).decode()
    finally:
        for source in sources:
            source.close()


def _exclusions(item: TakenFiles) -> Exclusions:
    from rootless.builder.context.ignore import Exclusions

    return Exclusions(item.ignore, item.exclude)


def _matches(root: int, item: TakenFiles, exclusions: Exclusions) -> list[Match]:
    from rootless.builder.context.ignore import all_matches

    return all_matches(root, item.sources, exclusions, wildcards=item.wildcards)


def _place(root: int, roots: list[int], job: CopyJob) -> CopyAnswer:
    from rootless.builder.context.digests import Content, Known
    from rootless.builder.dockerfile.modes import parse_chmod
    from rootless.builder.worker.placed_attributes import Rules
    from rootless.builder.worker.placing import Placer

    rules = Rules(
        owner=job.owner,
        chmod=parse_chmod(job.chmod) if job.chmod else None,
        timestamp=job.timestamp,
        latest=job.latest,
        is_owned=job.is_owned,
        keeps_set_id=job.keeps_set_id,
        single=job.id_map.kind == "single",
        table=job.directory,
    )
    content = Content(Known(None), owned=True) if job.with_digest else None
    placer = Placer(root, rules, content)
    archives: list[tuple[int, str]] = []
    unmatched: list[str] = []
    for item in job.items:
        if isinstance(item, NewDirectory):
            placer.directories(item.path)
        elif isinstance(item, InlineFile):
            where, name = placer.place(item.destination, item.name)
            placer.write(where, name, item.content, mode=0o644)
        else:
            exclusions = _exclusions(item)
            found = _matches(roots[item.root], item, exclusions)
            unmatched += [] if found else item.sources
            archives += _place_files(placer, roots[item.root], item, found, exclusions)
    placer.finish()
    skipped = placer.skipped
    if archives:
        from rootless.builder.worker.unpacking import unpack

        skipped += unpack(root, archives, rules)
    digest = "" if content is None else content.hexdigest()
    return CopyAnswer(skipped, placer.latest_change, digest, unmatched)


def _place_files(
    placer: Placer, root: int, item: TakenFiles, found: list[Match], exclusions: Exclusions
) -> list[tuple[int, str]]:
    """Place the files of one item, which `found` are. Returns the archives among them that are to be unpacked, as (fd,
    directory).

    Archives are unpacked after everything else, for `unpack` makes the step's tree the root of this process, where no
    source has a name any more.
    """
    from rootless.kernel.files import open_in_root

    destination = item.destination
    files = [match for match in found if not match.is_directory]
    if (
        len(found) > 1
        and files
        and not destination.endswith("/")
        and not item.parents
        and not placer.is_directory(destination)
    ):
        raise InvalidInput(f"when more than one file is copied, the destination '{destination}' must end with a '/'")
    archives = []
    for match in found:
        if item.unpack and not match.is_directory:
            from rootless.builder.worker.unpacking import is_archive

            # O_NONBLOCK: the file of a context may have become a FIFO by now, whose open would wait for a writer
            fd = open_in_root(root, match.path, os.O_RDONLY | os.O_NONBLOCK)
            if is_archive(fd):
                archives.append((fd, placer.directories(destination, chmod=False)))
                continue
            os.close(fd)
        placer.copy(root, match, destination, parents=item.parents, exclusions=exclusions)
    return archives
