"""The law of the house: imports go down only, ctypes stays in kernel, and the start-up path stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "rootless"
BASE = {"errors", "hashing", "paths", "output", "units", "records"}  # every room may import them
ALLOWED = {
    "kernel": set(),
    "host": {"kernel"},
    "image": {"host", "kernel"},
    "storage": {"host", "kernel", "image"},
    "network": {"host", "kernel"},
    "runtime": {"host", "kernel"},
    "monitor": {"network", "runtime", "storage", "host", "kernel"},
    "engine": {"image", "storage", "network", "runtime", "host", "kernel", "monitor"},
    "builder": {"engine", "image", "storage", "network", "runtime", "host", "kernel"},
    "cli": {"builder", "engine", "image", "storage", "network", "runtime", "host", "kernel"},
}
# The sub-rooms of storage, lowest first: each imports only those before it, lazily and for types too
STORAGE = ("tar", "owners", "files", "drivers", "changes", "roots", "layers", "store")
# The sub-rooms of builder, the lowest first: a module sees its own room, those before it and, of the modules that lie
# directly in builder, those before it. `build_options` is below all rooms, the verbs are above them.
BUILDER = ("build_options", "dockerfile", "context", "worker", "session", "steps", "cache",
           "provenance", "outputs", "inputs", "inquiry", "solver", "api")  # fmt: skip
# The modules and sub-rooms of runtime, by the same rule
RUNTIME = ("spec", "mount_options", "capabilities", "channel", "operations", "plan", "cgroups", "seccomp", "process",
           "oci")  # fmt: skip
# engine shares only the words of the attach protocol and the repair of dead monitors; it never runs a monitor itself
ENGINE_SEES_OF_MONITOR = {
    "protocol",
    "reap",
    "stop_request",
}  # frames, what the dead leave, and the mark that both sides know
HOT = ("errors", "hashing", "paths", "kernel", "records", "host", "runtime", "network", "monitor",
       "storage/drivers",
       "storage/files/removal")  # fmt: skip
HEAVY = {"dataclasses", "typing", "inspect", "subprocess", "logging", "argparse", "pathlib", "contextlib", "click",
         "tempfile", "shutil", "enum", "urllib", "sh", "rich", "urllib3", "tomllib"}  # fmt: skip
# Commands of their own or done in the foreground only: not on the way of `run`.
NOT_HOT = ("runtime/oci", "records/container_options", "host/doctor", "host/probes", "runtime/seccomp/seccomp_profile")


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(tree: ast.AST, *, top_level: bool) -> set[str]:
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                found.add(child.module)
                found.update(f"{child.module}.{alias.name}" for alias in child.names)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                for other in child.orelse:
                    visit(other)
            elif top_level and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            else:
                visit(child)

    visit(tree)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    room = relative.parts[0] if len(relative.parts) > 1 else relative.stem
    for name in imports(ast.parse(path.read_text()), top_level=False):
        if name == "ctypes" or name.startswith("ctypes."):
            assert room == "kernel", f"{relative} imports ctypes; only rootless.kernel may"
        if not name.startswith("rootless."):
            continue
        other = name.split(".")[1]
        if other in BASE or other == room or other == "__version__" or room in BASE | {"__init__"}:
            assert room not in BASE or other in BASE, f"{relative} (base) imports {name}"
            continue
        assert other in ALLOWED[room], f"{relative} imports {name}: {room} may see only {sorted(ALLOWED[room])}"
        if room == "engine" and other == "monitor" and name.count(".") == 2:
            assert name.split(".")[2] in ENGINE_SEES_OF_MONITOR, f"{relative} imports {name}"


def type_only_imports(tree: ast.AST) -> set[str]:
    """What is imported below `if TYPE_CHECKING`, which `imports` leaves out."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    return {name for block in blocks for name in imports(ast.Module(block.body, []), top_level=False)}


def test_every_sub_room_of_storage_has_its_place() -> None:
    assert {path.parent.name for path in (PACKAGE / "storage").glob("*/__init__.py")} == set(STORAGE)


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "storage").glob("*/*.py")), ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_the_sub_rooms_of_storage_import_downwards_only(path: Path) -> None:
    tree, own = ast.parse(path.read_text()), STORAGE.index(path.parent.name)
    for name in imports(tree, top_level=False) | type_only_imports(tree):
        room = name.removeprefix("rootless.storage.").partition(".")[0]
        if name.startswith("rootless.storage.") and room in STORAGE:
            assert STORAGE.index(room) <= own, f"storage.{path.parent.name} imports {name}, which stands above it"


@pytest.mark.parametrize(
    ("room", "order", "path"),
    [
        pytest.param(room, order, path, id=str(path.relative_to(PACKAGE)))
        for room, order in (("builder", BUILDER), ("runtime", RUNTIME))
        for path in sorted((PACKAGE / room).rglob("*.py"))
    ],
)
def test_the_rooms_of_builder_and_runtime_see_only_what_is_below_them(
    room: str, order: tuple[str, ...], path: Path
) -> None:
    own = path.relative_to(PACKAGE / room).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    assert own in order, f"{path} lies in no room whose place is known"
    tree = ast.parse(path.read_text())
    for name in imports(tree, top_level=False) | type_only_imports(tree):
        other = name.removeprefix(f"rootless.{room}.").partition(".")[0]
        # what stands in the __init__.py of the room itself, which imports nothing, is below all
        if not name.startswith(f"rootless.{room}.") or not _is_module(room, other):
            continue
        assert other in order[: order.index(own) + 1], (
            f"{own} imports {name}: it may see {order[: order.index(own) + 1]}"
        )


def _is_module(room: str, name: str) -> bool:
    return (PACKAGE / room / name).is_dir() or (PACKAGE / room / f"{name}.py").exists()


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_way_of_run_imports_nothing_heavy(path: Path) -> None:
    relative = str(path.relative_to(PACKAGE).with_suffix(""))
    if not relative.startswith(HOT) or relative.startswith(NOT_HOT):
        return
    heavy = {name for name in imports(ast.parse(path.read_text()), top_level=True) if name.split(".")[0] in HEAVY}
    assert not heavy, f"{relative} imports {sorted(heavy)} at module level; the monitor and init of each container pay"


def test_the_command_line_starts_light() -> None:
    """`rootless run` pays for click and our own modules, not for libraries that only pulls or progress bars use."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import rootless.cli.main; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", code, str(PACKAGE.parent)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"urllib3", "rich", "sh", "zstandard", "isal", "tomllib", "ssl", "logging"} & set(loaded)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_says_what_it_owns(path: Path) -> None:
    """One noun a module, however long: its docstring names it."""
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"
