"""The tricks of rootless.cli.entry and the privates of click that we lean on: each still applies, and still helps."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from rootless.cli import entry
from rootless.cli.container.run import run

REPOSITORY = Path(__file__).resolve().parents[3]
# the modules that `run` has loaded before the engine works
IMPORTS = "import rootless.cli.main, rootless.cli.container.run, rootless.engine.container.create"


def printed_by(code: str) -> str:
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); {code}"
    return subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def loaded(prepare: str) -> set[str]:
    """Names of the real modules that are there when `run` has done its imports."""
    names = "name for name, module in sys.modules.items() if type(module).__name__ != '_StandIn'"
    return set(printed_by(f"{prepare}; {IMPORTS}; print(*({names}))").split())


def test_what_has_a_stand_in_is_loaded_without_it_and_not_with_it() -> None:
    usual = loaded("pass")
    hastened = loaded("from rootless.cli.entry import hasten_imports; hasten_imports()")
    for name in entry._LOADED_AT_FIRST_USE:
        assert name in usual, f"nothing loads {name} any more: take its stand-in away"
        assert name not in hastened, f"{name} is used at import: its stand-in helps no longer"
    assert {"ast", "dis", "tokenize"} & usual > {"ast", "dis", "tokenize"} & hastened


def test_a_stand_in_becomes_the_module_at_its_first_use() -> None:
    code = (
        "from rootless.cli.entry import hasten_imports; hasten_imports(); import inspect; early = inspect;"
        "print(early.cleandoc('  x'), sys.modules['inspect'] is not early, early.signature(print) is not None)"
    )
    assert printed_by(code).split() == ["x", "True", "True"]


def test_a_module_that_is_there_gets_no_stand_in() -> None:
    code = (
        "import inspect; from rootless.cli.entry import hasten_imports; hasten_imports();"
        "print(sys.modules['inspect'] is inspect, type(inspect).__name__)"
    )
    assert printed_by(code).split() == ["True", "module"]


def test_the_threshold_spares_the_imports_their_collections() -> None:
    count = "import gc; collections = []; gc.callbacks.append(lambda phase, _: collections.append(phase))"
    usual = printed_by(f"{count}; {IMPORTS}; print(len(collections))")
    hasten = "from rootless.cli.entry import hasten_imports; hasten_imports()"
    hastened = printed_by(f"{hasten}; {count}; {IMPORTS}; print(len(collections))")
    assert int(usual) >= 20, "the imports make no garbage collections any more: take the threshold away"
    assert int(hastened) == 0


@pytest.mark.parametrize("code", [0, 125])
def test_the_end_flushes_what_was_printed_and_takes_nothing_apart(code: int) -> None:
    script = (
        f"import sys, atexit; sys.path.insert(0, {str(REPOSITORY)!r}); from rootless.cli.entry import end_process;"
        f"atexit.register(print, 'torn down'); print('said'); end_process({code})"
    )
    ended = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "said\n", "")


def test_the_privates_of_click_s_parser_are_there() -> None:
    context = run.make_context("run", ["image"])
    parser = super(type(run), run).make_parser(context)
    for name in ("_match_long_opt", "_match_short_opt", "_long_opt", "_short_opt"):
        assert hasattr(parser, name), f"click {version('click')} has no parser.{name}: see Command.make_parser"
    option = parser._long_opt["--rm"]
    assert (option.takes_value, option.obj.name) == (False, "rm") and option.dest


def test_click_is_pinned_below_the_next_minor() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (requirement,) = (one for one in project["dependencies"] if one.startswith("click"))
    bound = tuple(int(part) for part in requirement.partition("<")[2].split("."))
    major, minor = (int(part) for part in version("click").split(".")[:2])
    assert (major, minor) < bound, "this click is newer than what the bound was tried with"
    assert len(bound) == 2
