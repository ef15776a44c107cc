"""The Dockerfile parser against the reference, line by line, and against whatever bytes hypothesis finds."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.builder.dockerfile import lines
from rootless.builder.dockerfile.instructions import (
    Add,
    Cmd,
    CommandLine,
    Copy,
    Dockerfile,
    Env,
    HealthCheck,
    Heredoc,
    Instruction,
    Label,
    OnBuild,
    Pair,
    Run,
    Shell,
    Volume,
)
from rootless.builder.dockerfile.parser import parse, parse_triggers
from rootless.builder.dockerfile.problems import DockerfileError


def body(text: str) -> tuple[Instruction, ...]:
    return parse(f"FROM scratch\n{text}").stages[0].instructions


def one(text: str) -> Instruction:
    (instruction,) = body(text)
    return instruction


def problem(text: str) -> DockerfileError:
    with pytest.raises(DockerfileError) as caught:
        parse(text)
    return caught.value


def test_an_unknown_instruction_names_line_and_neighbour() -> None:
    error = problem("FROM scratch\n\n# a comment\nRUN a \\\n  b\nRUNN echo\n")
    assert error.message == "Dockerfile:6: unknown instruction 'RUNN' (did you mean RUN?)"
    assert error.excerpt == ">    6 | RUNN echo\n"


def test_an_unknown_flag_names_its_neighbour_and_the_others() -> None:
    error = problem("FROM scratch\nCOPY --chwon=1 a b")
    assert error.problem == "unknown flag '--chwon' of COPY (did you mean --chown?)"
    assert error.hint and "--chmod" in error.hint


def test_an_error_in_a_continued_instruction_shows_its_lines() -> None:
    error = problem("FROM scratch\nRUN --network=blue \\\n  true \\\n # why\n  false\n")
    assert (error.place.first, error.place.last) == (2, 5)
    assert error.excerpt.splitlines()[0] == ">    2 | RUN --network=blue \\"
    assert error.excerpt.splitlines()[-1] == "     5 |   false"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no instructions"),
        ("# only a comment\n", "no instructions"),
        ("ARG A\n", "no FROM"),
        ("RUN true\n", "only ARG may stand before"),
        ("FROM", "FROM needs an argument"),
        ("FROM a b", "'AS NAME'"),
        ("FROM a as 1x", "invalid name for a build stage: '1x'"),
        ("FROM a\nFROM --platform b", "needs a value"),
        ("FROM a\nRUN", "RUN needs an argument"),
        ("FROM a\nRUN []", "RUN needs a command"),
        ('FROM a\nRUN ["a", 1]', "holds strings only"),
        ("FROM a\nCMD", "CMD needs an argument"),
        ("FROM a\nCOPY a", "needs a source and a destination"),
        ("FROM a\nCOPY --link=maybe a b", "is true or false"),
        ("FROM a\nCOPY --chown=1 --chown=2 a b", "given twice"),
        ("FROM a\nCOPY --from=$X a b", "--from takes no variables"),
        ("FROM a\nCOPY <<EOF\nEOF\n", "needs a source and a destination"),
        ("FROM a\nCOPY a <<EOF\nEOF\n", "cannot be the destination"),
        ("FROM a\nCOPY <<a/b /x\na/b\n", "cannot be a file's name"),
        ("FROM a\nRUN <<EOF\nx\n", "unterminated heredoc"),
        ("FROM a\nENV a", "ENV needs a name and a value"),
        ("FROM a\nENV a=b c", "no '=' in 'c'"),
        ("FROM a\nENV =b", "names cannot be blank"),
        ("FROM a\nARG =b", "names cannot be blank"),
        ("FROM a\nLABEL", "LABEL needs an argument"),
        ("FROM a\nSHELL /bin/sh", "SHELL takes a JSON array"),
        ("FROM a\nSHELL []", "SHELL takes a JSON array"),
        ('FROM a\nVOLUME [""]', "a path is empty"),
        ("FROM a\nHEALTHCHECK", "HEALTHCHECK needs an argument"),
        ("FROM a\nHEALTHCHECK CMD", "needs a command"),
        ("FROM a\nHEALTHCHECK NONE x", "takes no arguments"),
        ("FROM a\nHEALTHCHECK TEST x", "is not CMD or NONE"),
        ("FROM a\nHEALTHCHECK --interval=soon CMD x", "is not a duration"),
        ("FROM a\nHEALTHCHECK --interval=1us CMD x", "cannot be less than 1ms"),
        ("FROM a\nHEALTHCHECK --retries=-1 CMD x", "is a number"),
        ("FROM a\nONBUILD ONBUILD RUN x", "cannot hold another ONBUILD"),
        ("FROM a\nONBUILD FROM x", "FROM cannot be an ONBUILD trigger"),
        ("FROM a\nONBUILD MAINTAINER x", "MAINTAINER cannot be"),
        ("FROM a\nONBUILD RUNN x", "unknown instruction 'RUNN'"),
        ("FROM a\nRUN --mount=type=blind,target=/x true", "(did you mean bind?)"),
        ("FROM a\nRUN --mount=type=bind,target= true", "'target' of a bind mount is empty"),
        ("FROM a\nRUN --mount=target=/a,dst=/b true", "'target' is given twice"),
        ("FROM a\nRUN --mount=target=/a,ro,rw true", "contradict each other"),
        ("FROM a\nRUN --mount=target=/a,ro=false,rw=false true", "contradict each other"),
        ("FROM a\nRUN --mount=type=ssh,source=a true", "unexpected key 'source'"),
        ("FROM a\nADD --checksum= http://a/b /", "--checksum is empty"),
        ("FROM a\nRUN --mount=type=tmpfs,target=/x,sharing=shared true", "unexpected key 'sharing'"),
        ("FROM a\nRUN --mount=type=cache,target=/x,sharing=loked true", "(did you mean locked?)"),
        ("FROM a\nRUN --mount=type=cache,target=/x,mode=999 true", "invalid value for mode"),
        ("FROM a\nRUN --mount=type=secret true", "needs an 'id'"),
        ("FROM a\nRUN --mount=type=secret,id=a,source=b true", "not both"),
        ("FROM a\nRUN --mount=type=bind,from=$X,target=/x true", "'from' takes no variables"),
        ("FROM a\nRUN --mount=type=cache,target=/x,trget=/y true", "(did you mean target?)"),
        ("FROM a\nRUN --mount=type=cache,target true", "must be a key=value pair"),
        ("FROM a\nRUN --security=none true", "unknown security mode"),
        ("# escape=x\nFROM a", "invalid escape 'x'"),
        ("# escape=`\n# escape=`\nFROM a", "only one 'escape'"),
        ("# check=skip=A\nFROM a\n# check=x", ""),
        ("# check=fast=true\nFROM a", "invalid check option"),
        ("FROM a\nRUN a\0b", "NUL"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, words: str) -> None:
    if not words:
        parse(text)
        return
    error = problem(text)
    assert words in str(error)
    assert str(error).startswith(f"Dockerfile:{error.place.first}: ")


def test_directives_are_only_at_the_top() -> None:
    text = "#!/usr/bin/env x\n# Syntax = docker/dockerfile:1 \n# check=skip=A, B;error=true\n# escape=`\nFROM a\n"
    assert parse(text).directives == ("docker/dockerfile:1", "`", (frozenset("ab"), frozenset(), True))
    assert parse("# hello\n# escape=`\nFROM a\n").directives == ("", "\\", (frozenset(), frozenset(), False))
    assert parse("\n# escape=`\nFROM a\n").directives.escape == "\\"


def test_the_escape_directive_leaves_backslashes_alone() -> None:
    found = parse("# escape=`\nFROM a\nCOPY a c:\\\nRUN x `\n  y\n").stages[0].instructions
    assert isinstance(found[0], Copy) and found[0].destination == "c:\\"
    assert isinstance(found[1], Run) and found[1].command.words == ("x   y",)


def test_a_doubled_escape_does_not_continue_a_line() -> None:
    found = body("COPY a b\\\\\nRUN true\n")
    assert [type(one) for one in found] == [Copy, Run]


def test_byte_order_mark_and_windows_line_ends() -> None:
    found = parse(b"\xef\xbb\xbfFROM a\r\nRUN x \\\r\n  y\r\nCOPY <<EOF /f\r\nline\r\nEOF\r\n").stages[0].instructions
    assert isinstance(found[0], Run) and found[0].command.words == ("x   y",)
    assert isinstance(found[1], Copy) and found[1].heredocs[0].content == "line\r\n"  # content is content


def test_comments_and_blank_lines_inside_a_continued_instruction() -> None:
    found = parse("FROM a\nRUN a \\\n# comment\n\n  # another\n b\n")
    (run,) = found.stages[0].instructions
    assert isinstance(run, Run) and run.command.words == ("a  b",)
    assert run.place.joined == "RUN a  b"
    assert (run.place.first, run.place.last) == (2, 6)
    assert [text for _, text in found.remarks] == ["empty line inside a continued instruction"]


def test_latin1_in_a_comment_is_nobodys_business() -> None:
    assert parse(b"# Jos\xe9\nFROM a\n").stages
    with pytest.raises(DockerfileError, match="not UTF-8"):
        parse(b"FROM a\nLABEL a=Jos\xe9\n")


def test_stages_and_their_names() -> None:
    found = parse("ARG V=1\nFROM --platform=linux/amd64 a:$V AS Build\nFROM build\nFROM scratch as c\n")
    assert [(s.position, s.start.base, s.name, s.start.platform) for s in found.stages] == [
        (0, "a:$V", "build", "linux/amd64"),
        (1, "build", "", ""),
        (2, "scratch", "c", ""),
    ]
    assert found.global_args[0].pairs == (Pair("V", "1"),)


def test_environment_old_and_new_form() -> None:
    assert one('ENV a=1 b="x y" c=x\\ y d=\'"\'') == Env(
        one('ENV a=1 b="x y" c=x\\ y d=\'"\'').place,
        (Pair("a", "1"), Pair("b", '"x y"'), Pair("c", "x\\ y"), Pair("d", "'\"'")),
    )
    old = one('ENV name  a "b"  c=d ')
    assert isinstance(old, Env) and old.pairs == (Pair("name", 'a "b"  c=d'),)
    label = one('LABEL "com.example.x"="y" a=')
    assert isinstance(label, Label) and label.pairs == (Pair('"com.example.x"', '"y"'), Pair("a", ""))


def test_exec_and_shell_form() -> None:
    commands = body('CMD ["a", "b c"]\nCMD [ "x"]\nCMD [a]\nCMD a "b"\nCMD []\n')
    assert [one.command for one in commands if isinstance(one, Cmd)] == [
        CommandLine(("a", "b c"), True),
        CommandLine(("x",), True),
        CommandLine(("[a]",), False),
        CommandLine(('a "b"',), False),
        CommandLine((), True),
    ]
    shell = one('SHELL ["/bin/bash", "-ec"]')
    assert isinstance(shell, Shell) and shell.words == ("/bin/bash", "-ec")
    volumes = body('VOLUME ["/a b"]\nVOLUME /a /b\n')
    assert [v.paths for v in volumes if isinstance(v, Volume)] == [("/a b",), ("/a", "/b")]


def test_flags_of_copy_and_add() -> None:
    copy = one("COPY --from=b --chown=1:2 --chmod=u+x --link --parents=false --exclude=*.o --exclude=x a b /c/")
    assert isinstance(copy, Copy)
    assert copy[1:] == (("a", "b"), (), "/c/", "b", "1:2", "u+x", True, False, ("*.o", "x"))
    add = one('ADD --checksum=sha256:00 --keep-git-dir=true --unpack=false ["a b", "/c"]')
    assert isinstance(add, Add)
    assert (add.sources, add.checksum, add.keeps_git_dir, add.unpack) == (("a b",), "sha256:00", True, False)
    plain = one("ADD a b")
    assert isinstance(plain, Add) and plain.unpack is None


def test_flags_end_at_the_first_word_without_dashes() -> None:
    run = one("RUN --network=none -- --mount=x")
    assert isinstance(run, Run) and run.command.words == ("--mount=x",) and run.network == "none"
    run = one("RUN tar --help")
    assert isinstance(run, Run) and run.command.words == ("tar --help",)


def test_run_mounts() -> None:
    run = one(
        "RUN --mount=type=cache,id=x,dst=/c,sharing=locked,mode=0750,uid=1,gid=2,ro "
        "--mount=type=secret,id=s,env=TOKEN,required --mount=src=a,target=/b,rw "
        "--mount=type=tmpfs,target=/t,size=64m --mount=type=ssh --mount=from=st,target=/x,source=/y cmd"
    )
    assert isinstance(run, Run)
    cache, secret, bind, tmpfs, ssh, stage = run.mounts
    assert (cache.id, cache.target, cache.sharing, cache.mode, cache.uid, cache.gid) == (
        "x",
        "/c",
        "locked",
        0o750,
        1,
        2,
    )
    assert cache.is_read_only and not tmpfs.is_read_only and not bind.is_read_only and stage.is_read_only
    assert (secret.id, secret.env, secret.is_required) == ("s", "TOKEN", True)
    assert (tmpfs.size, ssh.kind, stage.from_, stage.source) == (64 << 20, "ssh", "st", "/y")


def test_a_quoted_mount_may_hold_commas_and_spaces() -> None:
    run = one("""RUN --mount='type=bind,target=/a b,"source=x,y"' cmd""")
    assert isinstance(run, Run) and (run.mounts[0].target, run.mounts[0].source) == ("/a b", "x,y")


def test_heredocs_of_run() -> None:
    alone = one("RUN <<EOF\necho $X\n# no comment\nEOF\n")
    assert isinstance(alone, Run) and alone.command == CommandLine(("echo $X\n# no comment\n",), False)
    script = one("RUN <<EOF\n#!/usr/bin/env python3\nprint(1)\nEOF\n")
    assert isinstance(script, Run) and script.script and script.script.content.startswith("#!/usr/bin/env python3\n")
    several = one("RUN cat <<A >x && cat <<-'B'\na\nA\n\tb $X\n\tB\n")
    assert isinstance(several, Run)
    assert several.command.words == ("cat <<A >x && cat <<-'B'\na\nA\n\tb $X\nB",)
    assert [(h.name, h.content, h.is_expanded) for h in several.heredocs] == [
        ("A", "a\n", True),
        ("B", "b $X\n", False),
    ]


@pytest.mark.parametrize("gap", ["", " ", "  ", "\t"])
def test_a_space_may_part_the_name_of_a_heredoc(gap: str) -> None:
    """BuildKit since 0.22 (its #5817): after `<<`, not after `<<-`."""
    alone = one(f"RUN <<{gap}EOF\necho $X\nEOF\n")
    assert isinstance(alone, Run) and alone.command == CommandLine(("echo $X\n",), False)
    quoted = one(f"RUN cat <<{gap}'E F' > foo\na\nE F\n")
    assert isinstance(quoted, Run) and quoted.heredocs == (Heredoc("E F", "a\n", False, "a\n"),)
    dashed = one(f"RUN << -EOF\n\ta\n-EOF{gap.strip()}\n")
    assert isinstance(dashed, Run) and dashed.command == CommandLine(("\ta\n",), False)


def test_where_no_space_may_be() -> None:
    assert "unknown instruction 'a'" in str(problem("FROM x\nRUN <<- EOF\na\nEOF\n"))
    assert "write <<EOF" in str(problem("FROM x\nCOPY << EOF /f\na\nEOF\n"))
    assert "unknown instruction 'a'" in str(problem("FROM x\nRUN cat <<< EOF\na\nEOF\n"))
    (both,) = body("RUN cat<< <<EOF\n")
    assert isinstance(both, Run) and not both.heredocs


def test_what_looks_like_a_heredoc_and_is_none() -> None:
    for text in (
        'RUN ["a", "<<EOF"]',
        "RUN cat <<<word",
        "RUN echo $((1 << 2))",
        "RUN echo 'a <<EOF'",
        "CMD cat <<EOF",
    ):
        (found,) = body(f"{text}\n")
        assert not getattr(found, "heredocs", ())


def test_heredocs_of_copy() -> None:
    copy = one('COPY --chmod=600 <<a.txt b <<"c" <<d /x/\n1\na.txt\n2\nc\nd\n')
    assert isinstance(copy, Copy)
    assert copy.sources == ("b",) and copy.destination == "/x/"
    assert [(h.name, h.content, h.is_expanded) for h in copy.heredocs] == [
        ("a.txt", "1\n", True),
        ("c", "2\n", False),
        ("d", "", True),
    ]


def test_health_checks() -> None:
    found = one(
        "HEALTHCHECK --interval=1m30s --timeout=3s --start-period=1h --start-interval=500ms --retries=4 CMD a b"
    )
    assert isinstance(found, HealthCheck)
    assert found[1:] == (CommandLine(("a b",), False), 90 * 10**9, 3 * 10**9, 3600 * 10**9, 5 * 10**8, 4)
    none = one("HEALTHCHECK none")
    assert isinstance(none, HealthCheck) and none.command is None


def test_triggers_come_back_as_instructions() -> None:
    trigger = one("ONBUILD COPY <<EOF /a\nhello\nEOF\n")
    assert isinstance(trigger, OnBuild) and trigger.trigger == "COPY <<EOF /a\nhello\nEOF"
    copy, run = parse_triggers([trigger.trigger, "RUN a \\\n b"], "base")
    assert isinstance(copy, Copy) and copy.heredocs[0].content == "hello\n" and isinstance(run, Run)
    for bad in ("ONBUILD RUN x", "FROM x", "RUN a\nRUN b", ""):
        with pytest.raises(DockerfileError, match="ONBUILD of base"):
            parse_triggers([bad], "base")


def test_sizes_are_bounded() -> None:
    assert "larger than 4 MiB" in str(problem("FROM a\n" + "#" * lines.MAX_BYTES))
    assert "more than 100000 lines" in str(problem("FROM a\n" + "\n" * lines.MAX_LINES))
    assert "more than 256 heredocs" in str(problem("FROM a\nRUN " + "<<A " * 300))
    assert "ONBUILD" in str(problem("FROM a\n" + "ONBUILD " * 100_000))
    assert isinstance(one("CMD " + "[" * 100_000), Cmd)  # nested JSON must not exhaust the stack
    assert "needs a source" in str(problem("FROM a\nADD " + "[" * 100_000))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_give_a_dockerfile_or_the_typed_error(content: bytes) -> None:
    for text in (content, b"FROM a\n" + content):
        try:
            assert isinstance(parse(text), Dockerfile)
        except DockerfileError as e:
            assert e.place.first >= 1 and e.excerpt


_WORDS = st.sampled_from(
    ["FROM", "RUN", "COPY", "ADD", "ENV", "ARG", "LABEL", "CMD", "ONBUILD", "HEALTHCHECK", "SHELL", "VOLUME", "EXPOSE",
     "AS", "scratch", "a=b", "--from=x", "--mount=type=bind", "--chown=1", "<<EOF", "<<-'X'", "EOF", "X", "[", "]", '"',
     "'", "\\", "$A", "${A:-b}", "#", "/", "\t"]
)  # fmt: skip


@given(st.lists(st.lists(_WORDS, max_size=6).map(" ".join), max_size=12).map("\n".join))
def test_arbitrary_words_give_a_dockerfile_or_the_typed_error(text: str) -> None:
    try:
        found = parse(f"FROM a\n{text}")
    except DockerfileError:
        return
    shown = [one.place for stage in found.stages for one in (stage.start, *stage.instructions)]
    assert all(a.last < b.first for a, b in itertools.pairwise(shown))  # in order, no line twice
    source = f"FROM a\n{text}".split("\n")
    assert all(place.text == "\n".join(source[place.first - 1 : place.last]) for place in shown)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r")), min_size=1))
def test_exec_forms_round_trip(words: list[str]) -> None:
    run = one(f"RUN {json.dumps(words)}")
    assert isinstance(run, Run) and list(run.command.words) == words and run.command.is_exec


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r"), max_size=20), max_size=5))
def test_heredocs_round_trip(content: list[str]) -> None:
    text = "".join(f"{line}\n" for line in content if line != "EOF")
    copy = one(f"COPY <<'EOF' /x\n{text}EOF\n")
    assert isinstance(copy, Copy) and copy.heredocs[0].content == text
