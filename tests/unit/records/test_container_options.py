"""The options in a container's record: each comes back as it was given, and a wrong one is named."""

from __future__ import annotations

import json

import pytest

from rootless.errors import InvalidInput
from rootless.host.idmap import single_map
from rootless.records.container import ContainerRecord
from rootless.records.container_options import ContainerOptions


def make_record(options: dict[str, object]) -> ContainerRecord:
    record = ContainerRecord("c0ffee", "web", single_map(0, 0, 1, 1))
    return ContainerRecord.from_json({**record.to_json(), "options": options}, "/c/record.json")


def test_options_come_back() -> None:
    given = ContainerOptions(
        "busybox", ("sh", "-c", "x"), rm=True, env=("A=1",), oom_score_adj=-5, strict_limits=False, entrypoint=""
    )
    assert make_record(json.loads(json.dumps(given.to_json()))).options == given


def test_options_of_an_older_program_have_their_defaults() -> None:
    assert make_record({"image": "busybox", "gone": 1}).options == ContainerOptions("busybox")


@pytest.mark.parametrize(("name", "value"), [("env", "A=1"), ("rm", "yes"), ("oom_score_adj", "5"), ("image", None)])
def test_a_wrong_option_is_named(name: str, value: object) -> None:
    record = make_record({"image": "busybox", name: value})
    with pytest.raises(InvalidInput, match=f"'options.{name}.*' in '/c/record.json' is not "):
        record.options  # noqa: B018 - reading it is what fails
    assert record.to_json()["options"] == {"image": "busybox", name: value}


def test_options_that_nobody_read_are_written_as_they_were() -> None:
    record = make_record({"image": "busybox", "of_a_later_version": 1})
    assert record.to_json()["options"] == {"image": "busybox", "of_a_later_version": 1}
    record.options = record.options._replace(rm=True)
    assert record.to_json()["options"] == ContainerOptions("busybox", rm=True).to_json()
