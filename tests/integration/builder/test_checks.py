"""What the checks of a build find, and who may turn them off."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.conftest import Runner
from tests.integration.builder.conftest import Build

pytestmark = pytest.mark.once


def test_variables_of_the_base_and_of_stages_are_defined(build: Build, busybox: Runner) -> None:
    build("FROM busybox\nENV FROM_BASE=1\n", "-t", "vars:1")
    text = "FROM vars:1 AS a\nARG NONE\nENV OWN=$FROM_BASE\nFROM a\nENV A=$OWN B=$FROM_BASE C=$OWM D=$NONE\n"
    made = build(text, "-t", "vars:2")
    warnings = [line for line in made.stderr.splitlines() if "UndefinedVar" in line]
    assert len(warnings) == 1 and "Dockerfile:5: " in warnings[0] and "'$OWM'" in warnings[0]


def test_a_warning_that_is_an_error_comes_before_the_first_step(build: Build) -> None:
    text = "# check=error=true\nFROM busybox\nRUN echo began\nENV X=$NONE\n"
    made = build(text, check=False)
    assert made.returncode and "Dockerfile:4" in made.stderr and "began\n" not in made.stderr
    assert build(text.replace("ENV X", "# check=skip=UndefinedVar\nENV X")).returncode == 0


def test_the_build_argument_replaces_the_directive(build: Build, context: Path) -> None:
    (context / ".dockerignore").write_text("left-out\n")
    text = "# check=skip=all\nFROM busybox\nENV X=$NONE\nRUN true\nCMD true\n"
    assert "warning" not in build(text).stderr.lower()
    made = build(text, "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=JSONArgsRecommended")
    assert "UndefinedVar" in made.stderr and "JSONArgs" not in made.stderr
    made = build(text, "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true", check=False)
    assert made.returncode and "JSONArgsRecommended" in made.stderr
    made = build(text, "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=wrong", check=False)
    assert made.returncode == 125 and "invalid check option 'wrong'" in made.stderr
    made = build("FROM busybox\nCOPY left-out /\n", check=False)
    assert "CopyIgnoredFile" in made.stderr


DESCRIBED = """# VERSION of the base
ARG VERSION=latest
ARG UNUSED=3

# build makes everything
FROM busybox:$VERSION AS build
ARG VERSION
# TOKEN_FILE is where the token lies
ARG TOKEN_FILE=/$VERSION
ARG NONE
ENV A=$PATH B=$NOPE
RUN --mount=type=secret,id=key,required --mount=type=ssh exit 1

FROM scratch
COPY --from=build /x /
"""


def test_a_check_builds_nothing_and_says_what_is_wrong(build: Build) -> None:
    made = build(DESCRIBED, "--check", check=False)
    assert made.returncode == 1 and not made.stderr
    first, blank, warning, text, place, rule, *lines = made.stdout.splitlines()
    assert (first, blank) == ("Check complete, 1 warning has been found!", "")
    assert warning == "WARNING: UndefinedVar - https://docs.docker.com/go/dockerfile/rule/undefined-var/"
    assert "'$NOPE'" in text and place == "Dockerfile:11" and rule == "-" * 20 == lines[-1]
    assert lines[2] == "  11 | >>> ENV A=$PATH B=$NOPE" and [line[:7] for line in lines[:-1]] == [
        f"  {number:2d} | "[:7] for number in range(9, 14)
    ]
    assert build(DESCRIBED, "--call=check,ignorestatus").returncode == 0
    made = build("FROM scratch\n", "--call", "check")
    assert made.stdout == "Check complete, no warnings found.\n"


def test_a_check_as_json(build: Build) -> None:
    made = build(DESCRIBED, "--call=lint,format=json", check=False)
    shown = json.loads(made.stdout)
    assert made.returncode == 1 and [each["ruleName"] for each in shown["warnings"]] == ["UndefinedVar"]
    assert shown["warnings"][0]["location"] == {"ranges": [{"start": {"line": 11}, "end": {"line": 11}}]}
    assert base64.b64decode(shown["sources"][0]["data"]).decode() == DESCRIBED
    made = build("FROM scratch\nRUNN x\n", "--call=check,format=json", check=False)
    shown = json.loads(made.stdout)
    assert made.returncode and shown["warnings"] is None and "Dockerfile:2" in made.stderr
    assert shown["buildError"]["location"]["ranges"][0]["start"] == {"line": 2}


def test_a_check_fails_where_warnings_are_errors(build: Build) -> None:
    made = build(f"# check=error=true\n{DESCRIBED}", "--check", check=False)
    assert made.returncode and "1 warning has been found" in made.stdout and "UndefinedVar" in made.stderr


def test_an_outline_says_what_a_target_takes(build: Build) -> None:
    made = build(DESCRIBED, "--call=outline", "--target=build", "--build-arg", "NONE=some")
    assert made.stdout == (
        "TARGET:      build\nDESCRIPTION: makes everything\n\n"
        "BUILD ARG    VALUE     DESCRIPTION\n"
        "VERSION      latest    of the base\n"
        "TOKEN_FILE   /latest   is where the token lies\n"
        "NONE         some      \n\n"
        "SECRET   REQUIRED\nkey      true\n\n"
        "SSH       REQUIRED\ndefault   \n\n"
    )
    shown = json.loads(build(DESCRIBED, "--call=outline,format=json").stdout)
    assert "name" not in shown and [each["name"] for each in shown["args"]] == ["VERSION", "TOKEN_FILE", "NONE"]
    assert shown["secrets"][0]["required"] and "required" not in shown["ssh"][0]


def test_targets(build: Build) -> None:
    assert (
        build(DESCRIBED, "--call=targets").stdout == "TARGET    DESCRIPTION\nbuild     makes everything\n(default) \n"
    )
    first, last = json.loads(build(DESCRIBED, "--call=targets,format=json").stdout)["targets"]
    assert (first["name"], first["base"], first["description"]) == ("build", "busybox:$VERSION", "makes everything")
    assert last == {
        "default": True,
        "base": "scratch",
        "location": {"ranges": [{"start": {"line": 14}, "end": {"line": 14}}]},
    }


def test_an_unknown_call_is_refused(build: Build) -> None:
    for call in ("subrequests.describe", "check,format=yaml", "check,outline", "check,ignorestatus=maybe"):
        made = build("FROM scratch\n", f"--call={call}", check=False)
        assert made.returncode == 125 and "--call" in made.stderr
