"""Each warning by BuildKit's name, with the line it is about, and how a Dockerfile turns it off."""

from __future__ import annotations

import pytest

from rootless.builder.dockerfile import check_options, checks, expand
from rootless.builder.dockerfile.checks import RULES, Finding
from rootless.builder.dockerfile.parser import parse
from rootless.builder.dockerfile.problems import DockerfileError


def check(text: str) -> tuple[Finding, ...]:
    """What is found in the file alone, and wanted by its directive and its comments."""
    dockerfile = parse(text)
    found = checks.chosen(checks.findings_in(dockerfile), dockerfile.directives.checks)
    if dockerfile.directives.checks.is_error:
        checks.refuse(found)
    return found


def check_stage(text: str, *ignored: str, env: dict[str, str] | None = None) -> list[tuple[str, int, str]]:
    """Rule, line and text of what is found in the first stage, when its instructions are expanded."""
    dockerfile = parse(text)
    scope = expand.Scope(escape="\\", environment=env or {}, global_args={"GLOBAL": "g"}, build_args={})
    is_ignored = set(ignored).__contains__ if ignored else None
    found = checks.findings_in_stage(dockerfile.stages[0].instructions, scope, is_ignored)
    return [(one.rule, one.place.first, one.text) for one in checks.chosen(found, dockerfile.directives.checks)]


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
    ("FROM a:x$TAG\n", "UndefinedArgInFrom", 1),
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
    ("ARG TAG\nFROM a:$TAG\n", "InvalidDefaultArgInFrom", 2),
    ("ARG BASE=Upper\nFROM ${BASE}\n", "InvalidDefaultArgInFrom", 2),
    ("FROM --platform=linux/amd64 a AS build\n", "FromPlatformFlagConstDisallowed", 1),
    ("FROM a\nEXPOSE 80/TCP\n", "ExposeProtoCasing", 2),
    ("FROM a\nEXPOSE 127.0.0.1:80:80\n", "ExposeInvalidFormat", 2),
    ("FROM a\nEXPOSE 8080:80/udp 9\n", "ExposeInvalidFormat", 2),
]


@pytest.mark.parametrize(("text", "rule", "line"), CASES)
def test_a_warning_and_its_line(text: str, rule: str, line: int) -> None:
    assert [(found.rule, found.place.first) for found in check(text)] == [(rule, line)]
    assert f"({rule})" in str(check(text)[0])


@pytest.mark.parametrize(("text", "rule", "line"), CASES)
def test_a_directive_turns_it_off_or_makes_it_an_error(text: str, rule: str, line: int) -> None:
    assert check(f"# check=skip=Other,{rule.lower()}\n{text}") == ()
    assert check(f"# check=skip=all\n{text}") == ()
    with pytest.raises(DockerfileError) as caught:
        check(f"# check=error=true\n{text}")
    assert str(caught.value).startswith(f"Dockerfile:{line + 1}: ") and rule in str(caught.value)
    assert check(f"# check=skip={rule};error=true\n{text}") == ()


@pytest.mark.parametrize(
    "text",
    [
        'ARG TAG=1\nFROM --platform=$BUILDPLATFORM a:$TAG AS x\nSHELL ["/bin/bash", "-c"]\nCMD x\n',
        "FROM a\nWORKDIR /a\nWORKDIR b\n",
        "FROM a\nENV PUBLIC_KEY=x MONKEY=y KEYBOARD=z\nWORKDIR $HOME\n",
        'from a as b\nrun x\ncmd ["a"]\n',
        "FROM a\nENV DB_PASSWORD_FILE=/run/x SECRET_VERSION=2 VERSION_TOKEN=3\n",
        "ARG TAG=1\nFROM a:$TAG\nFROM scratch\n",
        "FROM --platform=linux/amd64 a AS build-amd64\nFROM --platform=linux/arm64 a AS linux\n",
        "ARG P=linux/amd64\nFROM --platform=$P a\nEXPOSE 80 81/udp $PORT\n",
    ],
)
def test_nothing_to_say(text: str) -> None:
    assert check(text) == ()


def test_warnings_come_by_line() -> None:
    found = check("FROM a as b\nMAINTAINER x\nCMD x\n")
    assert [one.place.first for one in found] == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("FROM a\nCOPY $FOO /\n", [("UndefinedVar", 2, "$FOO")]),
        ("FROM a\nENV PATH=$PAHT:/bin\n", [("UndefinedVar", 2, "did you mean PATH?")]),
        ("FROM a\nARG V=$FOO\nLABEL x=$V\n", [("UndefinedVar", 2, "$FOO")]),
        ("FROM a\nCOPY <<EOF /x\n$FOO\nEOF\n", [("UndefinedVar", 2, "$FOO")]),
        ("FROM a\nENV A=${FOO%x} B=${BAR/x/y}\n", [("UndefinedVar", 2, "$BAR"), ("UndefinedVar", 2, "$FOO")]),
        # A declared ARG may be empty, a default stands in, and the shell expands RUN and CMD
        ("FROM a\nARG FOO\nARG GLOBAL\nENV X=$FOO$GLOBAL$PATH Y=${Z:-1} W=${Z+1}\nRUN $Q\nCMD $Q\n", []),
        ("FROM a\nCOPY <<'EOF' /x\n$FOO\nEOF\n", []),
        ("# check=skip=UndefinedVar\nFROM a\nCOPY $FOO /\n", []),
        ("FROM a\n# check=skip=UndefinedVar the base has it\nCOPY $FOO /\n", []),
    ],
)
def test_a_variable_that_nothing_defines(text: str, found: list[tuple[str, int, str]]) -> None:
    made = check_stage(text, env={"PATH": "/bin"})
    assert [(rule, line) for rule, line, _ in made] == [(rule, line) for rule, line, _ in found]
    assert all(part in text for (_, _, text), (_, _, part) in zip(made, found, strict=True))


def test_hints_for_many_variables_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def compare(word: str, known: list[str], **_: object) -> list[str]:
        asked.append(len(known))
        return known[:1]

    monkeypatch.setattr("difflib.get_close_matches", compare)
    count = 2000
    text = f"FROM a\nENV {'L' * 65}=1\n" + "".join(f"ENV V{n}=1\n" for n in range(count))
    found = check_stage(text + f"LABEL x={''.join(f'$W{n}' for n in range(count))}\n")
    assert len(found) == count and "did you mean V0?" in found[0][2] and "did you mean" not in found[-1][2]
    assert sum(asked) <= 20 * 500


def test_a_file_that_is_copied_and_ignored() -> None:
    text = "FROM a\nCOPY ./x /\nADD sub/../x /\nCOPY y /\nCOPY --from=b x /\nADD https://h/x /\n"
    assert [each[:2] for each in check_stage(text, "x")] == [("CopyIgnoredFile", 2), ("CopyIgnoredFile", 3)]
    assert check_stage(text) == []


COMMENTED = "# base is here\nFROM a AS base\n# other words\nARG X=1\n\n# parted\n\nARG Y=1\n"


def test_an_experimental_rule_is_off_until_it_is_asked_for() -> None:
    assert check(COMMENTED) == check(f"# check=experimental=Other\n{COMMENTED}") == ()
    for options in ("experimental=all", "skip=all;experimental=InvalidDefinitionDescription"):
        found = check(f"# check={options}\n{COMMENTED}")
        assert [(one.rule, one.place.first) for one in found] == [("InvalidDefinitionDescription", 5)]


def test_a_comment_above_an_instruction_turns_rules_off_for_it_alone() -> None:
    text = "FROM a\n# it is fine\n# check=skip=JSONArgsRecommended because of tini\nCMD x\n"
    assert check(text) == ()
    assert [one.rule for one in check(text.replace("tini\n", "tini\n\n"))] == ["JSONArgsRecommended"]
    assert [one.rule for one in check(text.replace("skip=JSON", "skip=;JSON"))] == ["JSONArgsRecommended"]
    on = "FROM a\n# check=experimental=all\n# words\nARG X=1\n# words\nARG Z=1\n"
    assert [one.place.first for one in check(on)] == [4]


def test_options() -> None:
    parse_options = check_options.parse
    assert parse_options(" skip = A, B ;error=T") == (frozenset("ab"), frozenset(), True)
    assert parse_options("") == check_options.CheckOptions()
    for text in ("nothing", "error=perhaps", "skip", "other=1"):
        with pytest.raises(ValueError, match="invalid check option"):
            parse_options(text)
    with pytest.raises(DockerfileError, match="Dockerfile:1: invalid check option"):
        parse("# check=other=1\nFROM a\n")


def test_every_rule_has_a_page_and_a_sentence() -> None:
    assert {rule for _, rule, _ in CASES} <= RULES.keys()
    page = Finding("JSONArgsRecommended", parse("FROM a").stages[0].start.place, "").url
    assert page == "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"


def test_descriptions() -> None:
    base = parse(COMMENTED).stages[0]
    assert checks.description(base.start.place, "base") == "is here"
    assert checks.description(base.instructions[0].place, "X") == ""
    assert parse("# syntax=x\n# base y\nFROM a AS base\n").stages[0].start.place.comments == ("base y",)
