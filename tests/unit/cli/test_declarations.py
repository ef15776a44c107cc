"""The one declaration of commands and flags: nothing out of step, nothing without effect, docker's ways of spelling."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from rootless.cli.command_tree import COMMANDS
from rootless.cli.container.run import create, explain, run
from rootless.cli.declaration import Command, LazyGroup, Session
from rootless.cli.main import cli
from rootless.cli.run_flags import options_from_flags
from rootless.records.container_options import ContainerOptions

REPOSITORY = Path(__file__).resolve().parents[3]


def load(place: str) -> click.Command:
    module, _, attribute = place.partition(":")
    found = getattr(importlib.import_module(f"rootless.cli.{module}"), attribute)
    assert isinstance(found, click.Command)
    return found


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in COMMANDS for name in COMMANDS[group]])
def test_every_command_is_found_by_its_words_and_says_its_line(group: str, name: str) -> None:
    place, line = COMMANDS[group][name]
    found = load(place)
    assert isinstance(found, Command)
    assert found.short_help == line
    context = click.Context(cli)
    noun = cli.get_command(context, group) if group else cli
    assert isinstance(noun, click.Group)
    assert noun.get_command(context, name) is found


def test_the_tree_is_what_the_commands_declare() -> None:
    """A subcommand is its declaration and its test; the tree, the man pages and completion follow by one command."""
    assert (REPOSITORY / "rootless/cli/command_tree.py").read_text() == generator().tree(), "run scripts/man"


def test_every_group_is_a_noun_and_the_other_way_round() -> None:
    assert set(COMMANDS) - {""} == set(cli.commands)


def test_every_alias_leads_somewhere() -> None:
    for group in (cli, *cli.commands.values()):
        assert isinstance(group, LazyGroup)
        known = {*group.entries, *group.commands}
        assert set(group.aliases.values()) <= known
        assert not set(group.aliases) & known


def test_every_option_of_the_engine_is_a_flag_and_the_other_way_round() -> None:
    fields = set(ContainerOptions._fields) - {"more_networks"}  # --network after the first
    own = {"run": {"detach", "quiet", "detach_keys", "sig_proxy"}, "create": {"quiet"}, "explain": {"json"}}
    for command in (run, create, explain):
        names = {parameter.name for parameter in command.params}
        assert names - own[command.name or ""] == fields


def parse(*words: str) -> ContainerOptions:
    flags = dict(run.make_context("run", list(words)).params)
    for name in ("detach", "quiet", "detach_keys", "sig_proxy"):
        flags.pop(name)
    return options_from_flags(flags)


def test_untouched_flags_are_the_engine_s_defaults() -> None:
    assert parse("image") == ContainerOptions(image="image")


def test_everything_after_the_image_is_the_container_s() -> None:
    assert parse("-i", "image", "-t", "--rm", "--", "-x").command == ("-t", "--rm", "--", "-x")
    assert parse("-i", "--", "image", "ls").command == ("ls",)


def test_docker_s_spellings() -> None:
    options = parse(
        "-itw/x",
        "-p80:80",
        "-p=81:81",
        "-eA=b",
        "-e=C=d",
        "--env=E",
        "--env",
        "F=",
        "--net=none",
        "--entrypoint=",
        "image",
    )
    assert options.interactive and options.tty
    assert options.workdir == "/x"
    assert options.publish == ("80:80", "81:81")
    assert options.env == ("A=b", "C=d", "E", "F=")
    assert options.network == "none"
    assert options.entrypoint == ""


@pytest.mark.parametrize(("word", "rm"), [("--rm", True), ("--rm=true", True), ("--rm=1", True), ("--rm=false", False)])
def test_switches_take_a_value(word: str, rm: bool) -> None:
    assert parse(word, "image").rm is rm


def test_the_last_switch_counts() -> None:
    assert parse("--rm", "--rm=false", "image").rm is False
    assert parse("--rm=false", "--rm", "image").rm is True


def test_sig_proxy_is_on_unless_said_otherwise() -> None:
    assert run.make_context("run", ["image"]).params["sig_proxy"] is True
    assert run.make_context("run", ["--sig-proxy", "image"]).params["sig_proxy"] is True
    assert run.make_context("run", ["--sig-proxy=false", "image"]).params["sig_proxy"] is False


@pytest.mark.parametrize("flag", ["--kernel-memory", "--cpu-rt-runtime", "--pod", "--link"])
def test_flags_of_docker_that_do_nothing_here_are_errors(flag: str) -> None:
    with pytest.raises(click.NoSuchOption):
        run.make_context("run", [flag, "1", "image"])


def test_help_imports_no_command() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from rootless.cli.main import run; run(['--help']);"
        "print(*[name for name in sys.modules if name.startswith(('rootless.cli.', 'rootless.engine'))])"
    )
    printed = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(printed.splitlines()[-1].split())
    assert loaded == {"rootless.cli.main", "rootless.cli.declaration", "rootless.cli.command_tree"}


def test_run_imports_little() -> None:
    """What `run` costs before the engine works: click, and our own few modules."""
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import click; before = set(sys.modules);"
        "import rootless.cli.main, rootless.cli.container.run; print(*sorted(set(sys.modules) - before))"
    )
    printed = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert {name for name in printed.split() if not name.startswith("rootless")} <= {"gc", "locale", "_locale"}
    assert {name for name in printed.split() if name.startswith("rootless")} == {
        "rootless",
        "rootless.cli",
        "rootless.cli.declaration",
        "rootless.cli.container",
        "rootless.cli.container.run",
        "rootless.cli.main",
        "rootless.cli.run_flags",
        "rootless.cli.command_tree",
        "rootless.host",
        "rootless.host.facts",
        "rootless.network",
        "rootless.network.mode",
        "rootless.network.modes",
        "rootless.engine",
        "rootless.storage",
        "rootless.storage.drivers",
        "rootless.engine.types",
        "rootless.engine.verbs",
        "rootless.errors",
        "rootless.output",
        "rootless.records",
        "rootless.records.container_options",
    }


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["r"], {"restart", "rm", "rmi", "run", "rename"}),
        (["image", "p"], {"prune", "pull", "push"}),
        (["run", "--pu"], {"--publish", "--publish-all", "--pull"}),
        (["run", "--pull", ""], {"always", "missing", "never", "newer"}),
    ],
)
def test_completion_of_commands_and_flags(words: list[str], wanted: set[str]) -> None:
    from click.shell_completion import ShellComplete

    completer = ShellComplete(cli, {"obj": Session()}, "rootless", "_ROOTLESS_COMPLETE")
    assert {item.value for item in completer.get_completions(words[:-1], words[-1])} == wanted


def generator() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("generate_man", str(REPOSITORY / "scripts/man"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # no file beside the script
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes
    return module


def test_man_pages_and_completions_are_up_to_date() -> None:
    wanted = generator().pages()
    present = {
        str(path.relative_to(REPOSITORY))
        for pattern in ("docs/man/*.1", "contrib/completions/*/*")
        for path in REPOSITORY.glob(pattern)
    }
    assert present == set(wanted), "run scripts/man"
    stale = [name for name, text in wanted.items() if (REPOSITORY / name).read_text() != text]
    assert not stale, "run scripts/man"


def test_every_page_is_installed() -> None:
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    patterns = [pattern for found in project["tool"]["setuptools"]["data-files"].values() for pattern in found]
    installed = {path for pattern in patterns for path in REPOSITORY.glob(pattern)}
    assert installed == {*REPOSITORY.glob("docs/man/*.1"), *REPOSITORY.glob("contrib/completions/*/*")}
