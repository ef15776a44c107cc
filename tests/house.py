"""Measures of the house: how large its rooms are, how well typed, how often a name stands for two things.

`scripts/house` prints them as a table; tests/unit/test_house.py holds those that are laws. Standard library only.
"""

from __future__ import annotations

import ast
import ctypes
import io
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rootless"


@dataclass(frozen=True)
class Row:
    """One line of the table. bound: what the house aims at, in words; names: what makes up the number."""

    point: str
    now: str
    bound: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Module:
    """One file of the package. name: as it is imported, a package by its folder's name."""

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        """The source."""
        return self.path.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        """The source, parsed."""
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the tree: walking it takes longer than looking at each."""
        return list(ast.walk(self.tree))

    @property
    def is_package(self) -> bool:
        """Whether it is the `__init__.py` of a folder."""
        return self.path.name == "__init__.py"


class House:
    """All modules below `package`, and what can be counted in them."""

    def __init__(self, package: Path = PACKAGE) -> None:
        self._package = package
        self.modules: dict[str, Module] = {}
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            self.modules[name] = Module(name, path)
        self.lines = sum(module.text.count("\n") for module in self.modules.values())

    def per_thousand(self, count: int) -> float:
        """`count` per 1,000 lines of the package."""
        return 1000 * count / max(self.lines, 1)

    def _nodes(self) -> Iterator[tuple[Module, ast.AST]]:
        for module in self.modules.values():
            for node in module.nodes:
                yield module, node

    def folder_sizes(self) -> dict[str, int]:
        """Python files of each folder, `__init__.py` not counted, largest first."""
        sizes: dict[str, int] = defaultdict(int)
        for module in self.modules.values():
            if not module.is_package:
                sizes[str(module.path.parent.relative_to(self._package.parent))] += 1
        return dict(sorted(sizes.items(), key=lambda item: -item[1]))

    def any_count(self) -> int:
        """How often `Any` is written, imports not counted."""
        return sum(isinstance(node, ast.Name) and node.id == "Any" for _, node in self._nodes())

    def any_dict_count(self) -> int:
        """How often `dict[..., Any]` is written."""
        return sum(
            isinstance(node, ast.Subscript)
            and isinstance(node.value, ast.Name)
            and node.value.id == "dict"
            and isinstance(node.slice, ast.Tuple)
            and isinstance(node.slice.elts[-1], ast.Name)
            and node.slice.elts[-1].id == "Any"
            for _, node in self._nodes()
        )

    def long_functions(self, limit: int = 5) -> list[str]:
        """Functions with more than `limit` parameters, `self`, `cls` and those of click's commands not counted."""
        found = []
        for module, node in self._nodes():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_command(node):
                own = [a for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")]
                count = len(own) + len(node.args.kwonlyargs)
                if count > limit:
                    found.append(f"{module.name}.{node.name} ({count})")
        return sorted(found)

    @cached_property
    def edges(self) -> dict[str, set[str]]:
        """Which modules each module imports: at its top, inside functions, for types only, and as the name of a module
        in a string, which is how worker processes and click groups are named."""
        return {name: set(self._imports(module)) - {name} for name, module in self.modules.items()}

    def _imports(self, module: Module) -> Iterator[str]:
        for node in module.nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name in self.modules)
            elif isinstance(node, ast.ImportFrom) and node.module in self.modules:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield inner if inner in self.modules else node.module
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                name = node.value.partition(":")[0]
                if name in self.modules and "." in name:
                    yield name

    def circles(self) -> list[list[str]]:
        """Groups of modules that all reach each other by imports, largest first."""
        return circles(self.edges)

    def folder_circles(self) -> list[list[str]]:
        """Groups of sub-rooms whose modules reach each other by imports, largest first.

        A sub-room is a folder inside a room. What lies directly in a room (its door, its types, its context) stands for
        itself: some of it is above the sub-rooms, some below.
        """
        graph: dict[str, set[str]] = defaultdict(set)
        for name, others in self.edges.items():
            for other in others:
                if self._sub_room(name) != self._sub_room(other):
                    graph[self._sub_room(name)].add(self._sub_room(other))
        return circles(graph)

    def _sub_room(self, name: str) -> str:
        return ".".join(name.split(".")[:3])

    def class_names_twice(self) -> dict[str, list[str]]:
        """Public class names at the top of more than one module, with those modules."""
        places: dict[str, list[str]] = defaultdict(list)
        for module in self.modules.values():
            for node in _top_statements(module.tree):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(module.name)
        return {name: where for name, where in sorted(places.items()) if len(set(where)) > 1}

    def file_names_twice(self) -> dict[str, list[str]]:
        """Names of files that are used in more than one folder, with those modules; `__init__.py` is none."""
        places: dict[str, list[str]] = defaultdict(list)
        for module in self.modules.values():
            if not module.is_package:
                places[module.path.name].append(module.name)
        return {name: where for name, where in sorted(places.items()) if len(where) > 1}

    def comments(self) -> int:
        """Comments that a person reads: orders to linters are none."""
        count = 0
        for module in self.modules.values():
            for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
                words = token.string.lstrip("#: ")
                if token.type == tokenize.COMMENT and not words.startswith(("noqa", "type:", "fmt:", "isort:", "!")):
                    count += 1
        return count

    def short_docstrings(self, limit: int = 3) -> list[str]:
        """Docstrings of at most `limit` words."""
        found = []
        for module, node in self._nodes():
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text is not None and len(text.split()) <= limit:
                    found.append(f"{module.name}.{getattr(node, 'name', '')}: {text}")
        return sorted(found)


def _top_statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements of a module, those inside of its `if` and `try` too."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        yield node
        if isinstance(node, ast.If | ast.Try):
            waiting += [inner for inner in ast.iter_child_nodes(node) if isinstance(inner, ast.stmt)]


def _is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether click calls it: its parameters are the options of the command line, and it passes them on."""
    return any(
        "command" in ast.unparse(decorator) or "option" in ast.unparse(decorator) for decorator in node.decorator_list
    )


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected parts of `graph` that have more than one member, largest first (Tarjan's algorithm)."""
    found: list[list[str]] = []
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    for start in graph:
        if start in index:
            continue
        work: list[tuple[str, Iterator[str]]] = []
        following: str | None = start
        while following is not None or work:
            if following is not None:
                index[following] = low[following] = len(index)
                stack.append(following)
                work.append((following, iter(sorted(graph.get(following, ())))))
            node, rest = work[-1]
            following = None
            for other in rest:
                if other not in index:
                    following = other
                    break
                if other in stack:
                    low[node] = min(low[node], index[other])
            if following is not None:
                continue
            work.pop()
            if work:
                low[work[-1][0]] = min(low[work[-1][0]], low[node])
            if low[node] == index[node]:
                at = stack.index(node)
                if len(stack) - at > 1:
                    found.append(sorted(stack[at:]))
                del stack[at:]
    return sorted(found, key=lambda members: (-len(members), members))


def table(house: House) -> list[Row]:
    """What can be counted without running anything."""
    folder, largest = next(iter(house.folder_sizes().items()))
    rings, folder_rings = house.circles(), house.folder_circles()
    classes, files = house.class_names_twice(), house.file_names_twice()
    functions, docstrings = house.long_functions(), house.short_docstrings()
    return [
        Row("biggest folder", f"{largest} ({folder})", "25"),
        Row("Any per 1,000 lines", f"{house.per_thousand(house.any_count()):.1f}", "4"),
        Row("dict[..., Any] per 1,000 lines", f"{house.per_thousand(house.any_dict_count()):.1f}", "2"),
        Row("functions with more than 5 parameters", str(len(functions)), "25", tuple(functions)),
        Row("circles of modules", _sizes(rings), "0", tuple(" ".join(ring) for ring in rings)),
        Row("circles of sub-rooms", _sizes(folder_rings), "0", tuple(" ".join(ring) for ring in folder_rings)),
        Row("public class names used twice", str(len(classes)), "0", _places(classes)),
        Row("file names used twice", str(len(files)), "10", _places(files)),
        Row("comments per 100 lines", f"{house.per_thousand(house.comments()) / 10:.1f}", "where they decide the code"),
        Row("docstrings of three words or fewer", str(len(docstrings)), "0", tuple(docstrings)),
        Row("files · lines", f"{len(house.modules)} · {house.lines}", ""),
    ]


def _sizes(rings: list[list[str]]) -> str:
    return f"{len(rings)} (of {', '.join(str(len(ring)) for ring in rings)})" if rings else "0"


def _places(names: dict[str, list[str]]) -> tuple[str, ...]:
    return tuple(f"{name}: {' '.join(where)}" for name, where in names.items())


class OpenedModules:
    """Which files of the package any process opens while this is entered; Python opens a module once a process.

    inotify sees children, monitors and workers alike, whatever environment they were started with.
    """

    _OPEN, _IS_DIRECTORY = 0x20, 0x40000000

    def __init__(self, package: Path = PACKAGE) -> None:
        self._package = package
        self._folders: dict[int, str] = {}
        self._fd = -1

    def __enter__(self) -> OpenedModules:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        for folder, _, _ in os.walk(self._package):
            watch = libc.inotify_add_watch(self._fd, os.fsencode(folder), self._OPEN)
            if watch < 0:
                raise OSError(ctypes.get_errno(), "inotify_add_watch", folder)
            self._folders[watch] = os.path.relpath(folder, self._package).removesuffix("__pycache__").rstrip("/")
        return self

    def __exit__(self, *unused: object) -> None:
        os.close(self._fd)

    def read(self) -> set[str]:
        """The modules opened since the last call, as paths without suffix."""
        found: set[str] = set()
        while True:
            try:
                content = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                return found
            while content:
                watch, mask, _, length = struct.unpack_from("iIII", content)
                name = content[16 : 16 + length].rstrip(b"\0").decode()
                content = content[16 + length :]
                if not mask & self._IS_DIRECTORY and ".py" in name:
                    found.add(os.path.normpath(f"{self._folders[watch]}/{name.partition('.')[0]}"))


class TracedCopy:
    """A copy of the package, whose commands tell which files they execute. Others may use the package meanwhile.

    A file counts once for a command, whichever of its processes execute it, and a folder's `__init__.py` counts like
    any other, for it too is found, opened and unmarshalled. The issue that asked for fewer counted differently: its 108
    for `run` (at 1a9c4d5, where this counts 141) are the files that exactly one of the two processes executes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._package = folder / PACKAGE.name
        shutil.copytree(PACKAGE, self._package, ignore=shutil.ignore_patterns("__pycache__"))

    def executed_by(self, *words: str, environment: Mapping[str, str] | None = None) -> set[str]:
        """The files, as paths below the package without suffix, that `rootless WORDS` executes in all its processes.

        Raises CalledProcessError when the command fails.
        """
        boot = f"import sys; sys.path.insert(0, {str(self._folder)!r}); from rootless.cli.entry import main; main()"
        with OpenedModules(self._package) as opened:
            command = [sys.executable, "-I", "-c", boot, *words]
            subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=300)
            return opened.read()


def executed_table(image: str) -> list[Row]:
    """How many files `run`, `pull` and `build` execute. image: is in the store, and its registry can be reached."""
    with tempfile.TemporaryDirectory() as folder:
        traced = TracedCopy(Path(folder))
        Path(folder, "context").mkdir()
        Path(folder, "context", "Dockerfile").write_text(f"FROM {image}\nRUN true\n")
        store = ("--root", f"{folder}/store")
        try:
            return [
                _executed("run", traced, ("run", "--rm", image, "true"), 75),
                _executed("pull", traced, (*store, "pull", "-q", image), 40),
                _executed("build", traced, ("build", "--no-cache", "-q", f"{folder}/context"), 95),
            ]
        finally:
            traced.executed_by(*store, "system", "reset", "--force")


def _executed(word: str, traced: TracedCopy, words: Sequence[str], bound: int) -> Row:
    point = f"files executed by {word}"
    try:
        files = traced.executed_by(*words)
    except subprocess.CalledProcessError as e:
        return Row(point, f"not measured: {e.stderr.strip()[-200:]}", str(bound))
    return Row(point, str(len(files)), str(bound), tuple(sorted(files)))
