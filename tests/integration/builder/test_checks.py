"""What the checks of a build find, and who may turn them off."""

from __future__ import annotations

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
