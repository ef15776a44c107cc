"""--help and the man pages: examples that work, flags in groups, pages that say more and that apropos finds."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from rootless.cli.declaration import Command, Session
from rootless.cli.examples import EXAMPLES
from rootless.cli.main import cli
from rootless.cli.option_groups import GROUPS, OTHERS
from rootless.runtime.oci.main import cli as oci_cli
from tests.conftest import require
from tests.unit.cli.test_declarations import REPOSITORY, generator


def commands(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for found, command, _ in generator().walk(group, words, None):
        if not isinstance(command, click.Group):
            yield found, command


ALL = [*commands(cli, ("rootless",)), *commands(oci_cli, ("rootless-oci",))]


def help_of(words: tuple[str, ...], command: click.Command) -> str:
    context = click.Context(command, info_name=" ".join(words), obj=Session(), **command.context_settings)
    return command.get_help(context)


def calls_in(text: str) -> Iterator[list[str]]:
    """The words of each call of our programs in lines of shell."""
    for line in text.splitlines():
        # `$(...)` and `|`, `&&`, `;`, `<`, `>` begin or end a command; a quoted word keeps them
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = "#"
        call: list[str] = []
        for word in [*lexer, ";"]:
            if re.fullmatch(r"[();<>|&]+", word):
                if call:
                    yield call
                call = []
            elif call or word in ("rootless", "rootless-oci"):
                call.append(word)


@pytest.mark.parametrize(("words", "command"), ALL, ids=[" ".join(words) for words, _ in ALL])
def test_every_command_has_examples_that_are_commands(words: tuple[str, ...], command: click.Command) -> None:
    shown = help_of(words, command).partition("Examples:\n")[2]
    assert shown, f"no examples of {' '.join(words)}"
    calls = list(calls_in(shown.replace("$(", "; ").replace("`", "; ")))
    assert calls
    own = False
    for program, *rest in calls:
        group: click.Command = cli if program == "rootless" else oci_cli
        context = click.Context(group, info_name=program, obj=Session())
        while isinstance(group, click.Group) and rest:
            while rest and rest[0].startswith("-"):
                del rest[0]  # a flag for all commands
            name, *rest = rest
            found = group.get_command(context, name)
            assert found is not None, f"{program} {name} is no command"
            group = found
        own = own or group is command
        known = {name for option in group.params for name in (*option.opts, *option.secondary_opts)}
        for word in rest:
            if word in ("--help", "--", "-"):
                break
            if word.startswith("--"):
                assert word.partition("=")[0] in known, f"{word} is no flag of {group.name}"
            elif not word.startswith("-") and getattr(group, "rules", None) and group.rules.command_first:  # type: ignore[attr-defined]
                break  # what follows may be the container's command
    assert own, "no example calls the command itself"


def test_no_example_is_of_a_command_that_is_gone() -> None:
    places = {command.places[0]: command for _, command in ALL if isinstance(command, Command)}
    assert set(EXAMPLES) <= set(places)


@pytest.mark.parametrize("name", ["run", "create", "explain"])
def test_flags_are_in_groups_and_the_everyday_ones_come_first(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert isinstance(command, Command)
    text = help_of(("rootless", name), command)
    titles = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert titles == [*(title for title in GROUPS if title != "Image" or "Image:" in text), OTHERS]
    everyday = text.partition("Everyday:")[2].partition("Image:")[0]
    for flag in ("--interactive", "--rm", "--name", "--env", "--volume", "--publish"):
        assert flag in everyday
    others = text.partition(f"{OTHERS}:")[2].partition("Examples:")[0]
    assert set(re.findall(r"--[a-z-]+", others)) <= {"--help", "--json"}, "a flag has no group"
    flags = {option.opts[-1] for option in command.params if isinstance(option, click.Option)}
    assert flags <= set(re.findall(r"--[a-z-]+", text))


def test_every_name_in_a_group_is_a_flag() -> None:
    run = cli.get_command(click.Context(cli), "run")
    assert run is not None
    named = [name for members in GROUPS.values() for name in members.split()]
    assert len(named) == len(set(named))
    assert set(named) == {option.name for option in run.params if isinstance(option, click.Option)}


def test_a_start_loads_neither_examples_nor_groups() -> None:
    script = (
        "import sys, rootless.cli.main, rootless.cli.container.run, rootless.cli.container.life; print([n for n in "
    )
    script += "('rootless.cli.examples', 'rootless.cli.option_groups') if n in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True, cwd=REPOSITORY) == "[]\n"


def test_pages_say_more_than_the_help() -> None:
    pages = generator().pages()
    for words, command in commands(cli, ("rootless",)):
        page = pages[f"docs/man/{'-'.join(words)}.1"]
        if not page.startswith(".so "):
            assert ".SH EXIT STATUS" in page and ".SH EXAMPLES" in page and ".SH SEE ALSO" in page, command.name
    assert ".SS Everyday" in pages["docs/man/rootless-run.1"]
    assert pages["docs/man/rootless-run.1"].count(".SH ") > 10
    written = {path.stem for path in (REPOSITORY / "docs/man/more").iterdir()}
    assert {f"docs/man/{name}.1" for name in written} <= set(pages)


def test_references_lead_to_pages() -> None:
    pages = generator().pages()
    own = {path.removeprefix("docs/man/").removesuffix(".1") for path in pages if path.startswith("docs/man/")}
    for path, page in pages.items():
        for name in re.findall(r"\\fB(rootless[a-z\\-]*)\\fR\(1\)", page):
            assert name.replace("\\-", "-") in own, f"{path} refers to {name}(1)"
        for name in re.findall(r"(rootless[a-z-]+)\(1\)", page.replace("\\-", "-").replace("\\fR", "")):
            assert name in own, f"{path} refers to {name}(1)"


def test_apropos_finds_every_page(tmp_path: Path) -> None:
    """The line below NAME must have the form that lexgrog(1) reads: without it a page is in no index."""
    require(shutil.which("lexgrog") and shutil.which("mandb"), "no man-db on this host (apt-get install man-db)")
    directory = tmp_path / "man1"
    shutil.copytree(REPOSITORY / "docs/man", directory, ignore=shutil.ignore_patterns("more"))
    names = sorted(path.name for path in directory.iterdir())
    real = [name for name in names if not (directory / name).read_text().startswith(".so ")]
    read = subprocess.check_output(["lexgrog", *real], text=True, cwd=directory)
    assert [line.partition(":")[0] for line in read.splitlines()] == real
    for line in read.splitlines():
        page, _, about = line.partition(": ")
        assert re.fullmatch(rf'"{page.removesuffix(".1")} - [^"]{{10,}}"', about), line
    subprocess.check_call(["mandb", "--quiet", "--create", "--user-db", str(tmp_path)], stderr=subprocess.DEVNULL)
    found = subprocess.check_output(["apropos", "-M", str(tmp_path), "rootless"], text=True)
    listed = {line.split()[0] for line in found.splitlines()}
    assert {name.removesuffix(".1") for name in names} <= listed
