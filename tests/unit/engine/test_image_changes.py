"""`import --change`: Dockerfile lines and what they make of a config."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rootless.engine.image.config_changes import apply_changes
from rootless.errors import UsageError


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('CMD ["a", "b c"]', {"Cmd": ["a", "b c"]}),
        ("cmd a b", {"Cmd": ["/bin/sh", "-c", "a b"]}),
        ("CMD=/bin/sh", {"Cmd": ["/bin/sh", "-c", "/bin/sh"]}),
        ('ENTRYPOINT ["/x"]', {"Entrypoint": ["/x"]}),
        ('ENV A=1 B="2 3"', {"Env": ["A=1", "B=2 3"]}),
        ("ENV A the rest", {"Env": ["A=the rest"]}),
        ("LABEL a=b c=d", {"Labels": {"a": "b", "c": "d"}}),
        ("EXPOSE 80 53/udp 8000-8001", {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}}}),
        ('VOLUME ["/a", "/b"]', {"Volumes": {"/a": {}, "/b": {}}}),
        ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
        ("WORKDIR x/../y", {"WorkingDir": "/y"}),
        ("USER 1:2", {"User": "1:2"}),
        ("STOPSIGNAL SIGRTMIN+3", {"StopSignal": "SIGRTMIN+3"}),
        ("ONBUILD RUN x", {"OnBuild": ["RUN x"]}),
        ('SHELL ["/bin/bash", "-c"]', {"Shell": ["/bin/bash", "-c"]}),
        ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
        (
            "HEALTHCHECK --interval=1m30s --retries=3 CMD true",
            {"Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 90 * 10**9, "Retries": 3}},
        ),
        ('HEALTHCHECK CMD ["a"]', {"Healthcheck": {"Test": ["CMD", "a"]}}),
    ],
)
def test_instructions(line: str, expected: dict[str, Any]) -> None:
    assert apply_changes({}, [line]) == expected


def test_changes_add_to_what_is_there() -> None:
    before = {"Env": ["A=1", "B=2"], "Labels": {"x": "y"}}
    after = apply_changes(before, ["ENV B=3", "LABEL z=1"])
    assert after == {"Env": ["A=1", "B=3"], "Labels": {"x": "y", "z": "1"}}
    assert before == {"Env": ["A=1", "B=2"], "Labels": {"x": "y"}}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "RUN x",
        "CMD",
        "ENV =x",
        'ENV A="x',
        "EXPOSE x",
        "EXPOSE 0",
        "EXPOSE 70000",
        "VOLUME rel",
        "USER a b",
        "STOPSIGNAL ;",
        "SHELL x",
        "HEALTHCHECK x",
        "ONBUILD FROM x",
        "HEALTHCHECK --bad=1 CMD x",
        "HEALTHCHECK --retries=x CMD x",
    ],
)
def test_bad_lines(line: str) -> None:
    with pytest.raises(UsageError):
        apply_changes({}, [line])


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        (['ENTRYPOINT ["/new"]'], None),
        (["ENTRYPOINT /new"], None),
        (['ENTRYPOINT ["/new"]', 'CMD ["own"]'], ["own"]),
        (['CMD ["own"]', 'ENTRYPOINT ["/new"]'], ["own"]),
        (["ENTRYPOINT []"], ["old"]),
        (["USER a"], ["old"]),
    ],
    ids=lambda value: json.dumps(value),
)
def test_a_new_entrypoint_drops_the_command_of_the_old_one(changes: list[str], command: list[str] | None) -> None:
    """docker commit --change: its BuildFromConfig, and what is merged after it."""
    assert apply_changes({"Entrypoint": ["/e"], "Cmd": ["old"]}, changes).get("Cmd") == command
