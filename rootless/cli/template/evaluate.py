"""Carries out the tree of a Go template over dicts, lists and plain values.

It never reads attributes of objects: a template reaches what it was given, and nothing of the interpreter behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rootless.cli.template import functions, printing
from rootless.cli.template.lexer import TemplateError, fail
from rootless.cli.template.nil import with_type
from rootless.cli.template.nodes import (
    Action,
    Block,
    Chain,
    Dot,
    Function,
    Insertion,
    Jump,
    Literal,
    Node,
    Operand,
    Pipeline,
    TemplateCommand,
    Text,
    Variable,
)
from rootless.cli.template.parser import parse

Scope = list[tuple[str, object]]
_DEEPEST = 50  # templates within templates; Go stops at 100,000, where our own calls would long have run out
_GO_NAMES = {
    "ID": "Id",
    "DNS": "Dns",
    "DNSOptions": "DnsOptions",
    "DNSSearch": "DnsSearch",
}  # Go's field: its JSON name


class Row(dict[str, object]):
    """What Go would pass as a struct: a map whose unknown fields are errors, and whose methods take arguments."""

    def __init__(
        self, fields: Mapping[str, object], methods: Mapping[str, Callable[..., object]] | None = None
    ) -> None:
        super().__init__(fields)
        self.methods = methods or {}

    def __bool__(self) -> bool:
        return True


class Template:
    """A parsed template. Raises TemplateError for what is wrong in its text."""

    def __init__(self, source: str, *, heading: bool = False) -> None:
        self.source = source
        self._functions = functions.HEADING_FUNCTIONS if heading else functions.FUNCTIONS
        self._parsed = parse(source, self._functions.keys())

    def execute(self, value: object) -> str:
        """The text that the template makes of `value`. Raises TemplateError with the place that failed."""
        run = _Run(self.source, self._functions, self._parsed.defined)
        run.walk(self._parsed.body, value, [("$", value)])
        return "".join(run.printed)


class _LoopJump(Exception):
    def __init__(self, keyword: str) -> None:
        super().__init__(keyword)
        self.keyword = keyword


_NOTHING = object()  # stands for "no last argument": nil (None) is a value that a pipeline may pass on


class _Run:
    def __init__(
        self, source: str, known: Mapping[str, Callable[..., object]], defined: Mapping[str, Sequence[Node]]
    ) -> None:
        self.source = source
        self.functions = known
        self.defined = defined
        self.depth = 0
        self.printed: list[str] = []

    def fail(self, node: Operand, problem: str) -> TemplateError:
        return fail(self.source, node.position, f"executing at <{node.text}>: {problem}")

    # Methods on the nodes of the tree

    def walk(self, nodes: Sequence[Node], dot: object, scope: Scope) -> None:
        for node in nodes:
            if isinstance(node, Text):
                self.printed.append(node.text)
            elif isinstance(node, Action):
                value = self.pipeline(node.pipeline, dot, scope)
                if not node.pipeline.variables:
                    self.printed.append("<no value>" if value is None else printing.text(value))
            elif isinstance(node, Jump):
                raise _LoopJump(node.keyword)
            elif isinstance(node, Insertion):
                self.insert(node, dot, scope)
            else:
                inner = list(scope)
                try:
                    if node.keyword == "range":
                        self.loop(node, dot, inner)
                    else:
                        self.branch(node, dot, inner)
                finally:
                    self.keep(scope, inner)

    def insert(self, node: Insertion, dot: object, scope: Scope) -> None:
        """Carry out a template that has a name; it sees no variable of this one."""
        if self.depth >= _DEEPEST:
            raise fail(self.source, node.position, f"exceeded maximum template depth ({_DEEPEST})")
        value = None if node.pipeline is None else self.pipeline(node.pipeline, dot, scope)
        self.depth += 1
        self.walk(self.defined[node.name], value, [("$", value)])
        self.depth -= 1

    @staticmethod
    def keep(scope: Scope, inner: Scope) -> None:
        """Take what `=` changed inside a block; what `:=` declared there ends with it."""
        scope[:] = inner[: len(scope)]

    def branch(self, node: Block, dot: object, scope: Scope) -> None:
        value = self.pipeline(node.pipeline, dot, scope)
        if functions.is_true(value):
            self.walk(node.body, value if node.keyword == "with" else dot, scope)
        else:
            self.walk(node.otherwise, dot, scope)

    def loop(self, node: Block, dot: object, scope: Scope) -> None:
        pipeline = node.pipeline
        value = self.pipeline(Pipeline(pipeline.commands), dot, scope)
        pairs = self.pairs(node, value)
        if not pairs:
            self.walk(node.otherwise, dot, scope)
            return
        for key, item in pairs:
            inner = list(scope)
            names = pipeline.variables
            for name, bound in zip(names, (item,) if len(names) == 1 else (key, item), strict=False):
                self.bind(inner, name, bound, assigns=pipeline.assigns)
            try:
                self.walk(node.body, item, inner)
            except _LoopJump as jump:
                if jump.keyword == "break":
                    break
            finally:
                self.keep(scope, inner)

    def pairs(self, node: Block, value: object) -> list[tuple[object, object]]:
        if isinstance(value, Mapping):
            return [(key, value[key]) for key in sorted(value)]
        if isinstance(value, list | tuple):
            return list(enumerate(value))
        if value is None:
            return []
        if isinstance(value, int) and not isinstance(value, bool):
            return [(number, number) for number in range(value)]
        raise fail(self.source, node.position, f"range can't iterate over {printing.text(value)}")

    # Methods on pipelines, commands and operands

    @staticmethod
    def bind(scope: Scope, name: str, value: object, *, assigns: bool) -> None:
        if assigns:
            for at in range(len(scope) - 1, -1, -1):
                if scope[at][0] == name:
                    scope[at] = (name, value)
                    return
        scope.append((name, value))

    def pipeline(self, pipeline: Pipeline, dot: object, scope: Scope) -> object:
        value: object = _NOTHING
        for command in pipeline.commands:
            value = self.command(command, dot, scope, value)
        for name in pipeline.variables:
            self.bind(scope, name, value, assigns=pipeline.assigns)
        return value

    def command(self, command: TemplateCommand, dot: object, scope: Scope, last: object) -> object:
        first, arguments = command.operands[0], command.operands[1:]
        if isinstance(first, Function):
            return self.call(first, arguments, dot, scope, last)
        values = [self.operand(argument, dot, scope) for argument in arguments]
        if last is not _NOTHING:
            values.append(last)
        if isinstance(first, Literal) and first.text == "nil":
            raise self.fail(first, "nil is not a command")
        return self.operand(first, dot, scope, values)

    def call(self, node: Function, arguments: Sequence[Operand], dot: object, scope: Scope, last: object) -> object:
        if node.name in ("and", "or"):
            return self.decide(node, arguments, dot, scope, last)
        values = [self.operand(argument, dot, scope) for argument in arguments]
        if last is not _NOTHING:
            values.append(last)
        return self.apply(node, self.functions[node.name], values)

    def decide(self, node: Function, arguments: Sequence[Operand], dot: object, scope: Scope, last: object) -> object:
        value: object = _NOTHING
        for argument in arguments:
            value = self.operand(argument, dot, scope)
            if functions.is_true(value) == (node.name == "or"):
                return value
        if last is not _NOTHING:
            value = last
        if value is _NOTHING:
            raise self.fail(node, f"wrong number of args for {node.name}: want at least 1 got 0")
        return value

    def apply(self, node: Operand, function: Callable[..., object], values: list[object]) -> object:
        name = node.text
        try:
            return function(*values)
        except functions.FunctionError as e:
            raise self.fail(node, f"error calling {name}: {e}") from None
        except TypeError as e:
            if _takes(function, len(values)):
                raise self.fail(node, f"error calling {name}: {e}") from None
            raise self.fail(node, f"wrong number of args for {name}: got {len(values)}") from None

    def operand(self, node: Operand, dot: object, scope: Scope, arguments: list[object] | None = None) -> object:
        if isinstance(node, Literal):
            return node.value
        if isinstance(node, Function):
            return self.call(node, (), dot, scope, _NOTHING)
        if isinstance(node, Dot):
            value = dot
        elif isinstance(node, Variable):
            value = next(bound for name, bound in reversed(scope) if name == node.name)
        else:
            value = self.pipeline(node.pipeline, dot, scope)
        names = node.names
        if not names and arguments:
            raise self.fail(node, f"can't give argument to non-function {node.text}")
        for at, name in enumerate(names):
            value = self.field(node, value, name, (arguments or []) if at == len(names) - 1 else [])
        return value

    def field(self, node: Dot | Variable | Chain, value: object, name: str, arguments: list[object]) -> object:
        if isinstance(value, Row) and name in value.methods:
            return self.apply(node, value.methods[name], arguments)
        if isinstance(value, Mapping) and name not in value and _GO_NAMES.get(name) in value:
            name = _GO_NAMES[name]
        if isinstance(value, Row) and name not in value:
            import difflib

            close = difflib.get_close_matches(name, value, 1, 0.5)
            error = self.fail(node, f"can't evaluate field {name}")
            error.hint = f"did you mean '.{close[0]}'?" if close else f"fields are {', '.join(sorted(value))}"
            raise error
        if not isinstance(value, Mapping):
            if value is None:
                raise self.fail(node, f"nil pointer evaluating field {name}")
            raise self.fail(node, f"can't evaluate field {name} in type {printing.type_name(value)}")
        if arguments:
            raise self.fail(node, f"{name} is not a method but has arguments")
        return with_type(name, value[name]) if name in value else None


def _takes(function: Callable[..., object], count: int) -> bool:
    """Whether `function` takes so many values: Python raises one exception for their number and for their types."""
    import inspect

    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:
        pass  # the function is one of the interpreter's own, which does not say what it takes
    return True
