"""The door to the engine: its table, what type checkers read, and the modules agree."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys

import pytest

from rootless.engine import verbs


def type_checkers_view() -> dict[str, str]:
    """Module, below rootless.engine, by the name that the imports under TYPE_CHECKING give."""
    tree = ast.parse(inspect.getsource(verbs))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    found = {}
    for node in imports:
        if node.module and node.module.startswith("rootless.engine."):
            for alias in node.names:
                assert alias.asname == alias.name
                found[alias.name] = node.module.removeprefix("rootless.engine.")
    return found


def test_python_and_type_checkers_see_the_same_verbs() -> None:
    assert type_checkers_view() == verbs.MODULES


@pytest.mark.parametrize("name", verbs.MODULES)
def test_each_verb_is_a_function_of_its_module(name: str) -> None:
    verb = getattr(verbs, name)
    assert inspect.isfunction(verb)
    assert verb.__name__ == name
    assert verb.__module__ == f"rootless.engine.{verbs.MODULES[name]}"
    assert verb.__doc__


def test_an_unknown_verb_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'pull'"):
        getattr(verbs, "pull")  # noqa: B009


def test_the_door_imports_no_verb_by_itself() -> None:
    script = (
        "import sys, rootless.engine.verbs; print(sorted(m for m in sys.modules if m.startswith('rootless.engine.')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['rootless.engine.verbs']"
