"""Messages about a container's files come back as they were sent; what a worker cannot have written is refused."""

import json

import pytest

from rootless.errors import InvalidInput
from rootless.records.id_map import Extent, IdMap
from rootless.records.rootfs import RootfsPlan
from rootless.storage.roots.transfer_job import (
    BoundMount,
    DestinationRequest,
    ExportRequest,
    PackRequest,
    PlaceRequest,
    SourceRequest,
    TransferAnswer,
    TransferJob,
    read_request,
)


def test_the_job() -> None:
    job = TransferJob(
        "/c/1", IdMap([Extent(0, 1000, 1)], [Extent(0, 1000, 1)], "single"), RootfsPlan("copy", "/c/1", [])
    )
    job.pid, job.started, job.writes, job.read_only = 5, 77, True, True
    job.binds = [BoundMount("/host", "/inside", read_only=True)]
    job.seeds = [("/volumes/a/_data", "/data")]
    found = TransferJob.from_json(json.loads(json.dumps(job.to_json())))
    assert found.to_json() == job.to_json()
    assert (found.pid, found.seeds, found.binds[0].target) == (5, job.seeds, "/inside")


@pytest.mark.parametrize(
    "request_",
    [
        SourceRequest("/etc", follow=True),
        PackRequest("etc"),
        DestinationRequest("/etc"),
        PlaceRequest(inside=True, owners=False, overwrite=True, keep=False),
        ExportRequest(),
    ],
)
def test_each_request(request_: SourceRequest) -> None:
    found = read_request(json.loads(json.dumps(request_.to_json())))
    assert type(found) is type(request_) and found.to_json() == request_.to_json()


@pytest.mark.parametrize("known", [{"verb": "other"}, {"verb": "source"}, {"verb": "pack", "name": 1}, {}])
def test_a_request_that_nobody_knows_is_refused(known: object) -> None:
    with pytest.raises(InvalidInput):
        read_request(known)


def test_an_answer() -> None:
    answer = TransferAnswer(exists=True, name="hosts", size=7)
    assert TransferAnswer.from_json(json.loads(json.dumps(answer.to_json()))).to_json() == answer.to_json()


@pytest.mark.parametrize("known", [{"size": "7"}, {"lost": None, "name": 3}, [], {"exists": 1}])
def test_an_answer_of_a_wrong_type_is_refused(known: object) -> None:
    with pytest.raises(InvalidInput):
        TransferAnswer.from_json(known)
