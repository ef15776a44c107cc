"""Variable expansion: BuildKit's forms, bash as the oracle where the two agree, and bounds for hostile text."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.builder.dockerfile import expand, variables
from rootless.builder.dockerfile.instructions import Add, Arg, Copy, Env, Expose, Instruction, Run
from rootless.builder.dockerfile.parser import parse
from rootless.builder.dockerfile.problems import DockerfileError
from rootless.builder.dockerfile.variables import ExpansionError
from rootless.image.platform import Platform
from tests.conftest import require

VALUES = {"A": "one", "E": "", "P": "/usr/lib/x.tar.gz", "S": "a b", "Q": "'\"", "D": "x-y-z"}


def text(word: str, escape: str = "\\") -> str:
    return variables.expand(word, VALUES, escape=escape).text


@pytest.mark.parametrize(
    ("word", "result"),
    [
        ("$A", "one"),
        ("${A}x", "onex"),
        ("$Ax", ""),
        ("x$", "x$"),
        ("$.", "$."),
        ("$1x", "x"),
        ("$$A", "A"),  # $$ is a parameter of shells; it has no value here
        ("\\$A", "$A"),
        ("'$A'", "$A"),
        ('"$A"', "one"),
        ('"\\$A\\""', '$A"'),
        ('"a\\b"', "a\\b"),
        ("a\\b", "ab"),
        ("a\\", "a"),
        ("${U:-d}", "d"),
        ("${E:-d}", "d"),
        ("${E-d}", ""),
        ("${A:-d}", "one"),
        ("${U:-$A}", "one"),
        ("${U:-${V:-${W-x}}}", "x"),
        ("${A:+d}", "d"),
        ("${E:+d}", ""),
        ("${E+d}", "d"),
        ("${U+d}", ""),
        ("${A:?no}", "one"),
        ("${P#*/}", "usr/lib/x.tar.gz"),
        ("${P##*/}", "x.tar.gz"),
        ("${P%.*}", "/usr/lib/x.tar"),
        ("${P%%.*}", "/usr/lib/x"),
        ("${P#x}", "/usr/lib/x.tar.gz"),
        ("${P#????}", "/lib/x.tar.gz"),
        ("${D/-/+}", "x+y-z"),
        ("${D//-/+}", "x+y+z"),
        ("${D//-*/+}", "x+"),
        ("${P//\\//:}", ":usr:lib:x.tar.gz"),
        ("${D//[-]/+}", "x-y-z"),  # no brackets in these patterns
        ("${E//*/y}", "y"),
        ("${U:-a\\}b}", "a}b"),
        ("${U:-'}'}", "}"),
        ("ä${A}ö", "äoneö"),
    ],
)
def test_the_forms(word: str, result: str) -> None:
    assert text(word) == result


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("${", "missing '}'"),
        ("${A", "unsupported modifier"),
        ("${}", "bad substitution"),
        ("${{A}}", "bad substitution"),
        ("${:-x}", "bad substitution"),
        ("${A:-x", "missing '}'"),
        ("${A/x}", "missing '/'"),
        ("${A/x/y", "missing '}'"),
        ("${A^^}", "unsupported modifier (^)"),
        ("${A:x}", "unsupported modifier (:x)"),
        ("${U:?tell me}", "U: tell me"),
        ("${U?}", "U: is not allowed to be unset"),
        ("${E:?}", "E: is not allowed to be empty"),
        ("${A#\\a}", "invalid escape '\\a'"),
        ("'a", "single-quote"),
        ('"a', "double-quote"),
        ("${U:-" * 100 + "}" * 100, "nested more than"),
    ],
)
def test_what_cannot_be_expanded(word: str, why: str) -> None:
    with pytest.raises(ExpansionError) as caught:
        text(word)
    assert why in str(caught.value)


def test_the_other_escape_character() -> None:
    assert text("c:\\$A`$A", escape="`") == "c:\\one$A"


def test_words_split_where_no_quote_is() -> None:
    assert variables.expand("$S '$S' x\"y z\"", VALUES).words == ["a", "b", "$S", "xy z"]


def test_heredocs_keep_their_quotes() -> None:
    assert variables.expand("a '$A' \"\\$A\"", VALUES, is_raw=True).text == "a 'one' \"$A\""


def test_names_without_a_value_are_told() -> None:
    assert variables.expand("$A ${U:-x} $V", VALUES).unset == {"U", "V"}


_PIECES = st.sampled_from(
    ["$A", "${A}", "${E:-x}", "${E-x}", "${U:-a b}", "${U-$A}", "${A:+y}", "${U+y}", "${P##*/}", "${P%.*}", "${P%%.*}",
     "${P#*/}", "${D//-/+}", "${D/y/}", "x", "-", "/", "'$A'", '"$A"', '"\\$A"', "\\$A", "$S", "'a b'"]
)  # fmt: skip


@settings(max_examples=15)
@given(st.lists(st.lists(_PIECES, min_size=1, max_size=5).map("".join), min_size=1, max_size=20))
def test_a_shell_expands_the_same(words: list[str]) -> None:
    bash = shutil.which("bash")
    require(bash, "bash is not installed")
    assert bash
    # an assignment neither splits words nor matches names of files, like a word of a Dockerfile
    script = "".join(f"v={word}\nprintf '%s\\0' \"$v\"\n" for word in words)
    done = subprocess.run([bash, "--posix", "-c", script], env=VALUES, capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == [text(word) for word in words]


@given(st.text(max_size=40), st.text("ab*?\\", max_size=8))
def test_patterns_as_regular_expressions_say(value: str, pattern: str) -> None:
    """The simulation of states against a backtracking search, on short texts."""
    try:
        compiled = variables.Pattern(pattern)
    except ValueError:
        return
    source, at = "", 0
    while at < len(pattern):
        if pattern[at] == "\\":
            at += 1
            source += re.escape(pattern[at])
        else:
            source += {"*": ".*", "?": "."}.get(pattern[at], re.escape(pattern[at]))
        at += 1
    ends = [end for end in range(len(value) + 1) if re.fullmatch(source, value[:end])]
    assert compiled.ends(value)[:2] == ((ends[0], ends[-1]) if ends else (-1, -1))


@given(st.text(max_size=60))
def test_arbitrary_text_gives_text_or_the_typed_error(word: str) -> None:
    for candidate in (word, f"${{A{word}}}", f"${{A//{word}}}"):
        try:
            assert isinstance(text(candidate), str)
        except ExpansionError as e:
            assert str(e)


def test_hostile_patterns_and_values_end() -> None:
    """A backtracking search would not come back from the first one."""
    values = {"X": "a" * 60_000}
    assert variables.expand("${X##" + "*a" * 1000 + "*b}", values).text == values["X"]
    with pytest.raises(ExpansionError, match="takes too long"):
        variables.expand("${X//a*b/c}", values)
    with pytest.raises(ExpansionError, match="longer than 1 MiB"):
        variables.expand("$X" * 1000, values)


def scope(build_args: dict[str, str] | None = None, global_args: dict[str, str] | None = None) -> expand.Scope:
    return expand.Scope(
        escape="\\",
        environment={"PATH": "/bin", "BASE": "image"},
        global_args=global_args or {},
        build_args=build_args or {},
    )


def through(where: expand.Scope, body: str) -> list[Instruction]:
    found = []
    for instruction in parse(f"FROM a\n{body}").stages[0].instructions:
        found.append(where.expand(instruction))
        where.enter(found[-1])
    return found


def test_one_env_sees_the_values_before_it() -> None:
    here = scope()
    through(here, "ENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\n")
    assert (here.environment["def"], here.environment["ghi"]) == ("hello", "bye")


def test_arguments_come_from_the_command_the_default_or_the_global_scope() -> None:
    here = scope({"A": "given", "UNDECLARED": "x"}, {"G": "global", "D": "global"})
    through(here, "ARG A=default\nARG D=default\nARG G\nARG N\nARG B=1 C=${B}2\n")
    assert here.arguments == {"A": "given", "D": "default", "G": "global", "B": "1", "C": "12"}
    assert "A" not in here.environment and here.variables["A"] == "given"


def test_the_later_of_arg_and_env_wins() -> None:
    here = scope({"X": "arg"})
    (_, _, one, _, two) = through(here, "ENV X=env\nARG X\nUSER $X\nENV X=again\nWORKDIR /$X\n")
    assert one[1] == "arg" and two[1] == "/again" and here.environment["X"] == "again"


def test_which_instructions_expand() -> None:
    here = scope({"A": "v"})
    found = through(
        here,
        "ARG A\nARG P='80 90-91/udp'\nRUN --mount=type=cache,target=/$A,uid=${U:-7} echo $A\n"
        "CMD echo $A\nENTRYPOINT $A\nHEALTHCHECK CMD $A\nSHELL [\"$A\"]\n"
        "COPY --chown=$A --exclude=$A.o $A ${A}2/ /d/$A\nADD --checksum=$A a b\nLABEL $A=$A\n"
        "VOLUME /$A\nSTOPSIGNAL ${S:-SIGTERM}\nONBUILD RUN $A\nEXPOSE $P\n",
    )  # fmt: skip
    _, _, run, cmd, entrypoint, health, shell, copy, add, label, volume, stop, on_build, expose = found
    assert isinstance(run, Run) and run.command.words == ("echo $A",)
    assert (run.mounts[0].target, run.mounts[0].uid) == ("/v", 7)
    assert cmd[1].words == ("echo $A",) and entrypoint[1].words == ("$A",) and health[1].words == ("$A",)
    assert shell[1] == ("$A",) and on_build[1] == "RUN $A"
    assert isinstance(copy, Copy)
    assert (copy.chown, copy.excludes, copy.sources, copy.destination) == ("v", ("v.o",), ("v", "v2/"), "/d/v")
    assert add[7] == "v" and label[1] == (("v", "v"),) and volume[1] == ("/v",) and stop[1] == "SIGTERM"
    assert isinstance(expose, Expose) and expose.ports == ("80/tcp", "90/udp", "91/udp")


def test_heredocs_expand_unless_quoted() -> None:
    (_, copy) = through(scope({"A": "v"}), "ARG A\nCOPY <<X <<'Y' /d/\n$A '$A' \\$A\nX\n$A\nY\n")
    assert isinstance(copy, Copy)
    assert [one.content for one in copy.heredocs] == ["v 'v' $A\n", "$A\n"]


def test_words_that_became_empty_mean_what_they_mean_to_buildkit() -> None:
    found = through(scope(), "COPY a $NOTHING\nWORKDIR $NOTHING\nUSER $NOTHING\nEXPOSE $NOTHING\nADD a ${NOTHING}\n")
    copy, workdir, user, expose, add = found
    assert isinstance(copy, Copy) and isinstance(add, Add) and copy.destination == add.destination == ""
    assert (workdir[1], user[1], expose[1]) == ("", "", ())


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("VOLUME $NOTHING", "a path: '$NOTHING' is empty"),
        ("STOPSIGNAL $NOTHING", "the signal: '$NOTHING' is empty"),
        ("LABEL $NOTHING=1", "is empty"),
        ("ARG $NOTHING=1", "is empty"),
        ("USER ${X:?give X}", "X: give X"),
        ("EXPOSE 70000", "'70000' is not a port"),
        ("EXPOSE 9-8", "is not a port"),
        ("EXPOSE 80/icmp", "is not a port"),
        ("STOPSIGNAL SIGNOTHING", "invalid signal 'SIGNOTHING'"),
        ("COPY $NOTHING /x", "'$NOTHING' is empty"),
        ("RUN --mount=type=cache,target=/x,uid=$BASE true", "invalid value for uid: 'image'"),
        ("RUN --mount=type=cache,target=$NOTHING true", "'target' of a cache mount is empty"),
        ("ADD --checksum=$NOTHING http://a/b /", "--checksum: '$NOTHING' is empty"),
        ("ENV $NOTHING=1", "is empty"),
        ("COPY <<E /x\n${A^}\nE", "heredoc 'E': unsupported modifier"),
    ],
)
def test_final_words_are_judged_with_their_line(line: str, why: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        through(scope(), f"\n{line}\n")
    assert why in str(caught.value) and str(caught.value).startswith("Dockerfile:3: ")


def test_variables_cannot_grow_without_end() -> None:
    doubling = "ENV A=" + "x" * 1000 + "\n" + "ENV A=$A$A\n" * 40
    with pytest.raises(DockerfileError, match="MiB"):
        through(scope(), doubling)
    with pytest.raises(DockerfileError, match="words hold more than"):
        through(scope(), "ENV A=" + "x" * 1_000_000 + "\n" + "LABEL a=$A\n" * 70)
    many = "ENV A=" + "x" * 500_000 + "\n" + "".join(f"ENV B{n}=$A\n" for n in range(40))
    with pytest.raises(DockerfileError, match="hold more than"):
        through(scope(), many)


def test_global_arguments_know_the_platforms() -> None:
    automatic = expand.platform_args(Platform("linux", "arm64", "v8"), Platform("linux", "amd64"), "")
    declared = parse("ARG TARGETARCH\nARG X=a-$TARGETARCH\nARG Y=$X$BUILDARCH\nARG NONE\nFROM a\n").global_args
    values = expand.global_args(declared, escape="\\", automatic=automatic, build_args={"X": "b"})
    assert (values["Y"], values["TARGETPLATFORM"], values["TARGETSTAGE"]) == ("bamd64", "linux/arm64/v8", "default")
    assert "NONE" not in values
    assert isinstance(declared[0], Arg)


def test_proxies_are_given_in_both_cases_and_need_no_arg() -> None:
    assert expand.proxy_variables({"http_proxy": "p", "X": "y", "NO_PROXY": ""}) == {
        "HTTP_PROXY": "p",
        "http_proxy": "p",
    }
    assert expand.is_predefined("https_proxy") and expand.is_predefined("BUILDKIT_INLINE_CACHE")
    assert not expand.is_predefined("VERSION") and not expand.is_predefined("BUILDKIT_SYNTAX")


def test_an_image_configs_environment() -> None:
    assert expand.environment(["A=b=c", "broken", "B="]) == {"A": "b=c", "B": ""}


def test_env_instructions_are_values() -> None:
    (env,) = through(scope(), "ENV A=$BASE")
    assert isinstance(env, Env) and env.pairs == (("A", "image"),)
