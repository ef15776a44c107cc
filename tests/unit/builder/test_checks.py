"""Each warning by BuildKit's name, with the line it is about, and how a Dockerfile turns it off."""

from __future__ import annotations

import pytest

from rootless.builder.dockerfile.checks import check
from rootless.builder.dockerfile.parser import parse
from rootless.builder.dockerfile.problems import DockerfileError

CASES = [
    ("FROM a\nrun x\nRUN y\n", "ConsistentInstructionCasing", 2),
    ("from a\nrun x\nRUN y\n", "ConsistentInstructionCasing", 3),
    ("FROM a as b\n", "FromAsCasing", 1),
    ("FROM a AS Build\n", "StageNameCasing", 1),
    ("FROM a AS scratch\n", "ReservedStageName", 1),
    ("FROM a AS x\nFROM a AS x\n", "DuplicateStageName", 2),
    ("FROM a\nCMD x\n", "JSONArgsRecommended", 2),
    ("FROM a\nENTRYPOINT x\n", "JSONArgsRecommended", 2),
    ("FROM a\nMAINTAINER x\n", "MaintainerDeprecated", 2),
    ("FROM a:$TAG\n", "UndefinedArgInFrom", 1),
    ("FROM --platform=$PLAT a\n", "UndefinedArgInFrom", 1),
    ("FROM --platform=$TARGETPLATFORM a\n", "RedundantTargetPlatform", 1),
    ("FROM a\nWORKDIR x\n", "WorkdirRelativePath", 2),
    ('FROM a\nCMD ["x"]\nCMD ["y"]\n', "MultipleInstructionsDisallowed", 2),
    ("FROM a\nHEALTHCHECK NONE\nHEALTHCHECK CMD x\n", "MultipleInstructionsDisallowed", 2),
    ("FROM a\nENV k v\n", "LegacyKeyValueFormat", 2),
    ("FROM a\nLABEL k v\n", "LegacyKeyValueFormat", 2),
    ("FROM a\nENV AWS_SECRET_ACCESS_KEY=x\n", "SecretsUsedInArgOrEnv", 2),
    ("ARG npm_token\nFROM a\n", "SecretsUsedInArgOrEnv", 1),
    ("FROM a\nRUN x \\\n\n y\n", "NoEmptyContinuation", 2),
]


@pytest.mark.parametrize(("text", "rule", "line"), CASES)
def test_a_warning_and_its_line(text: str, rule: str, line: int) -> None:
    assert [(found.rule, found.place.first) for found in check(parse(text))] == [(rule, line)]
    assert f"({rule})" in str(check(parse(text))[0])


@pytest.mark.parametrize(("text", "rule", "line"), CASES)
def test_a_directive_turns_it_off_or_makes_it_an_error(text: str, rule: str, line: int) -> None:
    assert check(parse(f"# check=skip=Other,{rule.lower()}\n{text}")) == ()
    assert check(parse(f"# check=skip=all\n{text}")) == ()
    with pytest.raises(DockerfileError) as caught:
        check(parse(f"# check=error=true\n{text}"))
    assert str(caught.value).startswith(f"Dockerfile:{line + 1}: ") and rule in str(caught.value)
    assert check(parse(f"# check=skip={rule};error=true\n{text}")) == ()


@pytest.mark.parametrize(
    "text",
    [
        'ARG TAG=1\nFROM --platform=$BUILDPLATFORM a:$TAG AS x\nSHELL ["/bin/bash", "-c"]\nCMD x\n',
        "FROM a\nWORKDIR /a\nWORKDIR b\n",
        "FROM a\nENV PUBLIC_KEY=x MONKEY=y KEYBOARD=z\nWORKDIR $HOME\n",
        'from a as b\nrun x\ncmd ["a"]\n',
    ],
)
def test_nothing_to_say(text: str) -> None:
    assert check(parse(text)) == ()


def test_warnings_come_by_line() -> None:
    found = check(parse("FROM a as b\nMAINTAINER x\nCMD x\n"))
    assert [one.place.first for one in found] == [1, 2, 3]
