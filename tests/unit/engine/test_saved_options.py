"""The options in a container's record: each comes back as it was given, and a wrong one is named."""

from __future__ import annotations

import json

import pytest

from rootless.engine.container.reconcile import saved_options
from rootless.engine.types import ContainerOptions
from rootless.errors import InvalidInput
from rootless.host.idmap import single_map
from rootless.records.container import ContainerRecord


def make_record(options: dict[str, object]) -> ContainerRecord:
    record = ContainerRecord("c0ffee", "web", single_map(0, 0, 1, 1))
    return ContainerRecord.from_json({**record.to_json(), "options": options}, "/c/record.json")


def test_options_come_back() -> None:
    given = ContainerOptions(
        "busybox", ("sh", "-c", "x"), rm=True, env=("A=1",), oom_score_adj=-5, strict_limits=False, entrypoint=""
    )
    assert saved_options(make_record(json.loads(json.dumps(given._asdict())))) == given


def test_options_of_an_older_program_have_their_defaults() -> None:
    assert saved_options(make_record({"image": "busybox", "gone": 1})) == ContainerOptions("busybox")


@pytest.mark.parametrize(("name", "value"), [("env", "A=1"), ("rm", "yes"), ("oom_score_adj", "5"), ("image", None)])
def test_a_wrong_option_is_named(name: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=f"'options.{name}.*' in '/c/record.json' is not "):
        saved_options(make_record({"image": "busybox", name: value}))
