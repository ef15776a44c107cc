"""Jobs of the build's workers: what is given is what arrives, and what is no job is refused by its key."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from rootless.builder.worker import job_channel
from rootless.builder.worker.file_jobs import (
    FILE_JOB_READERS,
    CopyAnswer,
    CopyJob,
    DigestJob,
    InlineFile,
    NewDirectory,
    TakenFiles,
)
from rootless.builder.worker.step_jobs import (
    STEP_JOB_READERS,
    BoundPart,
    ExportedStatement,
    ExportJob,
    LayerTree,
    MountedSecret,
    RunAnswer,
    RunJob,
    SquashJob,
    StepRoot,
    UnpackContextJob,
)
from rootless.errors import InvalidInput
from rootless.host.idmap import single_map
from rootless.records.fields import Fields
from rootless.records.rootfs import RootfsPlan
from rootless.storage.worker_jobs import read_answer, read_job

if TYPE_CHECKING:
    from rootless.builder.worker.job_channel import AnyJob

ID_MAP = single_map(0, 0, 1000, 1000)
PLAN = RootfsPlan("overlay", "/step", ["/two", "/one"], volatile=True)
TREE = LayerTree(PLAN, "/step/merged")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The build's end and the worker's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        yield ours, theirs


def run_job() -> RunJob:
    """RUN with one of each mount."""
    job = RunJob(StepRoot("/step", ID_MAP, PLAN), {"process": {"args": ["true"]}}, "none", 7)
    job.seccomp = "/filter"
    job.targets = ["/etc/hosts", "/cache"]
    job.trees = [TREE]
    made, there = BoundPart("/data", "root", "/cache", read_only=False), BoundPart("/x", "", "/y", read_only=True)
    made.make = 1, 2, 0o755
    job.binds = [made, there]
    secret = MountedSecret("/run/secrets/a", b"\0\xff", "/step/secret")
    secret.uid, secret.gid, secret.mode = 3, 4, 0o440
    job.secrets = [secret]
    return job


def copy_job() -> CopyJob:
    """COPY with one of each item."""
    files = TakenFiles(1, ["a", "b*"], "/to/", wildcards=False)
    files.ignore, files.exclude, files.parents, files.unpack = "*.o\n", ["x"], True, True
    job = CopyJob("/step", ID_MAP, [NewDirectory("/w"), InlineFile("/to", "name", b"\0text"), files])
    job.rootfs, job.trees, job.owner, job.chmod = PLAN, [TREE], (5, 6), "u+x"
    job.is_owned, job.timestamp, job.latest = True, 8, 0
    return job


def stated_job() -> ExportJob:
    job = ExportJob(ID_MAP, TREE)
    job.statement = ExportedStatement("provenance.json", "{}", 5)
    return job


@pytest.mark.parametrize(
    "job",
    [
        run_job(),
        RunJob(StepRoot("/step", ID_MAP, PLAN), {}, "host", 0),
        copy_job(),
        CopyJob("/data", ID_MAP, []),
        DigestJob(ID_MAP, [TREE], [TakenFiles(0, ["/"], "/")]),
        UnpackContextJob(ID_MAP, "/into"),
        SquashJob(ID_MAP, ["/bottom", "/top"], "/upper"),
        ExportJob(ID_MAP, TREE, "/out"),
        ExportJob(ID_MAP, TREE),
        stated_job(),
    ],
    ids=lambda job: job.operation,
)
def test_a_job_arrives_as_it_was_given(job: AnyJob, ends: tuple[socket.socket, socket.socket]) -> None:
    with open(os.devnull, "rb") as file:
        job_channel.send_job(ends[0], job, [file.fileno()])
        arrived, fds = job_channel.receive_job(ends[1])
    assert type(arrived) is type(job)
    assert arrived is not None and arrived.to_json() == job.to_json()
    assert len(fds) == 1 and not os.get_inheritable(fds[0])
    os.close(fds[0])
    if isinstance(arrived, RunJob) and arrived.secrets:
        assert arrived.secrets[0].content == b"\0\xff" and arrived.binds[0].make == (1, 2, 0o755)
        assert arrived.binds[1].make is None
    if isinstance(arrived, CopyJob) and arrived.items:
        assert (arrived.owner, arrived.latest) == ((5, 6), 0)
        assert [type(each) for each in arrived.items] == [NewDirectory, InlineFile, TakenFiles]


def test_answers_arrive_as_they_were_given() -> None:
    ran = read_answer(run_job(), RunAnswer(3, ["weaker"]).to_json())
    assert (ran.exit_code, ran.warnings) == (3, ["weaker"])
    copied = read_answer(copy_job(), CopyAnswer(1, 2).to_json())
    assert (copied.skipped, copied.changed) == (1, 2)


def test_an_end_is_no_job(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[0].close()
    assert job_channel.receive_job(ends[1]) == (None, [])
    assert job_channel.receive_answer(ends[1]) is None


def test_a_wrong_value_is_named() -> None:
    value = run_job().to_json()
    with pytest.raises(InvalidInput, match=r"'binds\[0\]\.read_only'"):
        RunJob.from_json(Fields({**value, "binds": [{"root": "", "source": "", "target": "", "read_only": 1}]}, "job"))
    with pytest.raises(InvalidInput, match="'network'"):
        RunJob.from_json(Fields({**value, "network": None}, "job"))
    with pytest.raises(InvalidInput, match="'id_map'"):
        UnpackContextJob.from_json(Fields({"into": "/x"}, "job"))


@pytest.mark.parametrize(
    "message",
    [{"operation": "none", "job": {}}, {"operation": "copy"}, {"job": {}}],
    ids=["unknown", "without-job", "no-operation"],
)
def test_a_message_that_is_no_job_is_invalid_input(message: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        read_job(Fields(message, "test"), {**STEP_JOB_READERS, **FILE_JOB_READERS})
