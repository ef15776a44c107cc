"""The tree of a parsed Go template: its parts, without what is done with them.

position: the offset in the template's text, and text: the spelling there, both for messages.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dot:
    """`.`, the value that the template is applied to, or a field of it: `.A.B` (names: A and B)."""

    names: tuple[str, ...]
    position: int
    text: str


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable, or a field reached from it: `$x` or `$x.A.B`."""

    name: str
    names: tuple[str, ...]
    position: int
    text: str


@dataclass(frozen=True, slots=True)
class Function:
    """A function's name, in command position or as an argument."""

    name: str
    position: int
    text: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant of the template's text: a string, number, character, true, false or nil."""

    value: object
    position: int
    text: str


@dataclass(frozen=True, slots=True)
class Chain:
    """`(pipeline).A.B`: fields of a pipeline's value."""

    pipeline: Pipeline
    names: tuple[str, ...]
    position: int
    text: str


Operand = Dot | Variable | Function | Literal | Chain


@dataclass(frozen=True, slots=True)
class TemplateCommand:
    """A command of a pipeline: an operand, which may be a function, and its arguments."""

    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands joined by `|`; `variables` are declared (`:=`), or set when `assigns` (`=`)."""

    commands: tuple[TemplateCommand, ...]
    variables: tuple[str, ...] = ()
    assigns: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """Text outside of the braces, which is printed as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """`{{pipeline}}`: its value is printed."""

    pipeline: Pipeline


@dataclass(frozen=True, slots=True)
class Block:
    """`if`, `with` or `range` (the `keyword`), its body and its `else` part."""

    keyword: str
    pipeline: Pipeline
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Jump:
    """`{{break}}` or `{{continue}}`: a jump within a loop."""

    keyword: str


@dataclass(frozen=True, slots=True)
class Insertion:
    """`{{template "name" pipeline}}`: the template of that name is carried out here, on the pipeline's value or nil."""

    name: str
    pipeline: Pipeline | None
    position: int


Node = Text | Action | Block | Jump | Insertion


@dataclass(frozen=True, slots=True)
class Parsed:
    """A whole template: its body, and the templates that it defines, by name."""

    body: tuple[Node, ...]
    defined: dict[str, tuple[Node, ...]]
