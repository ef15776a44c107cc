"""Jobs of workers and their answers come out of JSON as they went in, and wrong ones are refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from rootless.errors import InvalidInput, RuntimeFailure
from rootless.host.answer import encode_result
from rootless.records.fields import Fields
from rootless.records.id_map import Extent, IdMap
from rootless.records.rootfs import RootfsPlan
from rootless.storage.layers import jobs
from rootless.storage.layers.layer_record import LayerContent, LayerRecord, LostAttributes
from rootless.storage.layers.worker_client import _read

if TYPE_CHECKING:
    from rootless.storage.worker_jobs import Answer, Job

MAP = IdMap([Extent(0, 1000, 1)], [Extent(0, 1000, 1)], "single")
CONTENT = LayerContent("sha256:1", 10, 5, 2, "names")
CONTENT.lost = LostAttributes(1, 2, 3)
UNFINISHED = jobs.Unfinished([("a", "b\udc80")], ["d"], ".wh.x", ["gone"])
CHANGED = jobs.Changed(RootfsPlan("overlay", "/c", ["/l"]), MAP, ["/etc/hosts"])


@pytest.mark.parametrize(
    "job",
    [
        jobs.UnpackJob("/t", None),
        jobs.UnpackJob("/t", "sha256:1"),
        jobs.FinishJob("/t", ["/a", "/b"], UNFINISHED),
        jobs.RemapJob("/s", "/t", MAP),
        jobs.ViewJob("/layers", ["a", "b"], "/t", MAP),
        jobs.DeleteJob("/t"),
        jobs.RebuildJob("/layers", ["a", "b"], 3),
        jobs.VerifyJob("/layer", LostAttributes(xattrs=4), ["/lower"]),
        jobs.MeasureJob(["/a"]),
        jobs.CommitJob(CHANGED, "/t", None, move=True, squash=False),
        jobs.CommitJob(CHANGED, "/t", 12, move=False, squash=True),
        jobs.ChangesJob(CHANGED),
        jobs.CompareJob(["/a"], []),
    ],
    ids=lambda job: type(job).__name__,
)
def test_a_job_is_read_as_it_was_written(job: jobs.DeleteJob) -> None:
    sent = json.loads(json.dumps(job.to_json()))
    assert type(job).from_json(Fields(sent, "job")).to_json() == job.to_json()


@pytest.mark.parametrize(
    ("job", "answer"),
    [
        (jobs.UnpackJob("/t", None), jobs.Unpacked(CONTENT, UNFINISHED)),
        (jobs.RemapJob("/s", "/t", MAP), LostAttributes(xattrs=1)),
        (jobs.ViewJob("/layers", ["a", "b"], "/t", MAP), LostAttributes(xattrs=1)),
        (jobs.VerifyJob("/layer", LostAttributes(), None), jobs.Verified("sha256:1", 1, ["it differs"])),
        (jobs.MeasureJob(["/a"]), jobs.Measured([(4096, 1, 5)])),
        (jobs.CommitJob(CHANGED, "/t", None, move=False, squash=False), CONTENT),
        (jobs.ChangesJob(CHANGED), jobs.ChangeList([("A", "/a")])),
        (jobs.CompareJob([], []), jobs.ChangeList([])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_answer_is_read_as_it_was_written(job: Job[Answer], answer: Answer) -> None:
    sent = encode_result(json.dumps(answer.to_json()).encode())
    found = _read(job, sent)
    assert type(found) is type(answer)
    assert json.dumps(found.to_json()) == json.dumps(answer.to_json())


@pytest.mark.parametrize(
    "answer", [{}, {"sizes": [["much", 1, 1]]}, {"sizes": 3}, {"sizes": [[1, 2]]}], ids=lambda value: json.dumps(value)
)
def test_an_answer_that_no_worker_of_ours_gives(answer: dict[str, object]) -> None:
    sent = encode_result(json.dumps(answer).encode())
    if answer:
        with pytest.raises(RuntimeFailure, match="answer to 'measure'"):
            _read(jobs.MeasureJob(["/a"]), sent)
    else:
        with pytest.raises(RuntimeFailure, match="'diff_id'"):
            _read(jobs.VerifyJob("/layer", LostAttributes(), None), sent)


def test_a_record_of_a_layer_made_before_there_were_recipes() -> None:
    known = {"diff_id": "sha256:1", "tar_size": 1, "size": 2, "entries": 3, "markers": "overlay", "parent": None}
    record = LayerRecord.from_json({**known, "id_map": "single"}, "layer.json")
    assert (record.has_recipe, record.content.lost.to_json()) == (False, {"devices": 0, "owners": 0, "xattrs": 0})
    assert {key: record.to_json()[key] for key in known} == known


def test_a_damaged_record_says_what_mends_it() -> None:
    with pytest.raises(InvalidInput, match=r"'size' in 'layer\.json' is not a whole number") as raised:
        LayerRecord.from_json({"diff_id": "sha256:1", "tar_size": 1, "size": "2"}, "layer.json")
    assert "check --repair" in (raised.value.hint or "")
