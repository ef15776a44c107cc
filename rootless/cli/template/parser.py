"""Makes a tree of the tokens of a Go template. Undefined functions and variables are errors here, before printing."""

from __future__ import annotations

from collections.abc import Collection

from rootless.cli.template import lexer
from rootless.cli.template.lexer import Token, fail
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
    Parsed,
    Pipeline,
    TemplateCommand,
    Text,
    Variable,
)

_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_KEYWORDS = {"if", "with", "range", "else", "end", "break", "continue", "define", "template", "block"}
_CONSTANTS: dict[str, object] = {"true": True, "false": False, "nil": None}


def parse(source: str, functions: Collection[str]) -> Parsed:
    """The tree of a template. functions: the names that it may call. Raises TemplateError with line and column."""
    parser = _Parser(source, functions)
    body, closing = parser.body(("$",), in_range=False)
    if closing is not None:
        raise fail(source, closing.position, f"unexpected {{{{{closing.text}}}}}")
    for wanted in parser.inserted:
        if wanted.name not in parser.defined:
            raise fail(source, wanted.position, f'no such template "{wanted.name}"')
    return Parsed(body, parser.defined)


class _Parser:
    def __init__(self, source: str, functions: Collection[str]) -> None:
        self.source = source
        self.functions = functions
        self.pieces = iter(lexer.pieces(source))
        self.tokens: tuple[Token, ...] = ()
        self.at = 0
        self.scope: list[str] = ["$"]
        self.depth = 0  # of blocks around the action that is being read
        self.defined: dict[str, tuple[Node, ...]] = {}
        self.inserted: list[Insertion] = []

    # Methods on the tokens of the action that is being read

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.token
        self.at += 1
        return token

    def unexpected(self, context: str) -> lexer.TemplateError:
        token = self.token
        if token.kind == "end":
            return fail(self.source, token.position, f"missing value for {context}")
        return fail(self.source, token.position, f'unexpected "{token.text}" in {context}')

    def finish(self, context: str) -> None:
        if self.token.kind != "end":
            raise self.unexpected(context)

    # Methods on the structure of text, actions and blocks

    def body(self, variables: tuple[str, ...], *, in_range: bool) -> tuple[tuple[Node, ...], Token | None]:
        """The nodes up to `end` or `else`, and the token of that word; None at the end of the text.

        The tokens of that action are still current, so that the caller can read on in it (`else if`).
        """
        nodes: list[Node] = []
        visible = len(self.scope)
        self.scope.extend(variables)
        for piece in self.pieces:
            if piece.tokens is None:
                nodes.append(Text(piece.text))
                continue
            self.tokens, self.at = piece.tokens, 0
            first = self.token
            if first.kind != "identifier" or first.text not in _KEYWORDS:
                nodes.append(Action(self.pipeline("command", declares=1)))
            elif first.text in ("end", "else"):
                self.take()
                del self.scope[visible:]
                return tuple(nodes), first
            elif first.text in ("break", "continue"):
                self.take()
                self.finish(first.text)
                if not in_range:
                    raise fail(self.source, first.position, f"{{{{{first.text}}}}} outside {{{{range}}}}")
                nodes.append(Jump(first.text))
            elif first.text in ("if", "with", "range"):
                self.take()
                nodes.append(self.block(first, in_range=in_range))
            elif first.text == "define":
                self.take()
                self.definition(first)
            else:
                self.take()
                nodes.append(self.insertion(first))
        del self.scope[visible:]
        return tuple(nodes), None

    def definition(self, keyword: Token) -> None:
        """`{{define "name"}}…{{end}}`, which prints nothing where it stands."""
        if self.depth:
            raise fail(self.source, keyword.position, "unexpected {{define}}")
        name = self.name(keyword)
        self.finish("define clause")
        self.defined[name] = self.named_body(keyword)

    def insertion(self, keyword: Token) -> Insertion:
        """`{{template "name" pipeline}}`, or `{{block "name" pipeline}}…{{end}}`, which defines that template too."""
        name = self.name(keyword)
        pipeline = None if self.token.kind == "end" else self.pipeline(keyword.text, declares=1)
        if keyword.text == "block":
            if pipeline is None:
                raise fail(self.source, keyword.position, "missing value for block clause")
            self.defined[name] = self.named_body(keyword)
        found = Insertion(name, pipeline, keyword.position)
        self.inserted.append(found)
        return found

    def name(self, keyword: Token) -> str:
        token = self.take()
        if token.kind != "string":
            raise fail(self.source, token.position, f'unexpected "{token.text}" in {keyword.text} clause')
        return str(self.quoted(token))

    def named_body(self, keyword: Token) -> tuple[Node, ...]:
        """The body of a template of its own, which sees no variable but `$`."""
        outside, self.scope = self.scope, ["$"]
        self.depth += 1
        body, closing = self.body((), in_range=False)
        self.depth -= 1
        self.scope = outside
        if closing is None or closing.text != "end":
            raise fail(
                self.source, keyword.position, f"unexpected end of template: {{{{{keyword.text}}}}} has no {{{{end}}}}"
            )
        self.finish("end")
        return body

    def block(self, keyword: Token, *, in_range: bool) -> Block:
        outside = len(self.scope)
        is_range = keyword.text == "range"
        pipeline = self.pipeline(keyword.text, declares=2 if is_range else 1)
        self.depth += 1
        body, closing = self.body((), in_range=in_range or is_range)
        otherwise: tuple[Node, ...] = ()
        if closing is not None and closing.text == "else":
            chained = self.token
            if chained.kind == "identifier" and chained.text == keyword.text and not is_range:
                # {{else if x}}…{{end}} is an if inside the else; it consumes the one {{end}}
                self.take()
                otherwise = (self.block(chained, in_range=in_range),)
                closing = Token("identifier", "end", closing.position, False)
            else:
                self.finish("else")
                otherwise, closing = self.body((), in_range=in_range)
                if closing is not None and closing.text == "else":
                    raise fail(self.source, closing.position, "expected end; found {{else}}")
                if closing is not None:
                    self.finish("end")
        elif closing is not None:
            self.finish("end")
        if closing is None:
            raise fail(
                self.source, keyword.position, f"unexpected end of template: {{{{{keyword.text}}}}} has no {{{{end}}}}"
            )
        self.depth -= 1
        del self.scope[outside:]
        return Block(keyword.text, pipeline, body, otherwise, keyword.position)

    # Methods on pipelines, inside an action

    def pipeline(self, context: str, *, declares: int, closing: str = "end") -> Pipeline:
        variables, assigns = self.declaration(declares)
        commands: list[TemplateCommand] = []
        while True:
            commands.append(self.command(context))
            if self.token.text == "|":
                self.take()
                continue
            break
        if closing == "end":
            self.finish(context)
        for command in commands[1:]:
            first = command.operands[0]
            if isinstance(first, Literal) or (isinstance(first, Dot) and not first.names):
                raise fail(self.source, first.position, f"non executable command in pipeline stage: {first.text}")
        if not assigns:
            self.scope.extend(variables)
        return Pipeline(tuple(commands), variables, assigns)

    def declaration(self, most: int) -> tuple[tuple[str, ...], bool]:
        """`$x :=`, `$x =` or, in range, `$i, $e :=`; nothing is taken when the pipeline just begins with a variable."""
        here = self.at
        names: list[Token] = []
        while self.token.kind == "variable":
            names.append(self.take())
            if self.token.text in (":=", "="):
                if len(names) > most:
                    raise fail(self.source, names[-1].position, "too many declarations in command")
                assigns = self.take().text == "="
                if assigns:
                    for name in names:
                        self.check_variable(name)
                return tuple(name.text for name in names), assigns
            if self.token.text != ",":
                break
            self.take()
        if len(names) > 1:
            raise fail(self.source, names[0].position, "expected := after the variables")
        self.at = here
        return (), False

    def check_variable(self, token: Token) -> None:
        if token.text not in self.scope:
            raise fail(self.source, token.position, f'undefined variable "{token.text}"')

    def command(self, context: str) -> TemplateCommand:
        operands: list[Operand] = []
        while self.token.kind != "end" and self.token.text not in ("|", ")"):
            if operands and not self.token.spaced:
                raise self.unexpected("operand")
            operands.append(self.operand())
        if not operands:
            raise self.unexpected(context)
        first = operands[0]
        if isinstance(first, Literal) and len(operands) > 1:
            raise fail(self.source, first.position, f"can't give argument to non-function {first.text}")
        return TemplateCommand(tuple(operands))

    def operand(self) -> Operand:
        token = self.take()
        position = token.position
        if token.kind == "field":
            names = (token.text[1:], *self.fields())
            return Dot(names, position, self.spelled(position))
        if token.kind == "variable":
            self.check_variable(token)
            return Variable(token.text, self.fields(), position, self.spelled(position))
        if token.text == "." and token.kind == "punctuation":
            return Dot((), position, ".")
        if token.kind == "identifier":
            if token.text in _CONSTANTS:
                return Literal(_CONSTANTS[token.text], position, token.text)
            if token.text not in self.functions:
                raise fail(self.source, position, f'function "{token.text}" not defined')
            return Function(token.text, position, token.text)
        if token.kind == "number":
            return Literal(self.number(token), position, token.text)
        if token.kind in ("string", "char"):
            return Literal(self.quoted(token), position, token.text)
        if token.text == "(":
            pipeline = self.pipeline("parenthesized pipeline", declares=0, closing=")")
            if self.token.text != ")":
                raise fail(self.source, position, "unclosed left paren")
            self.take()
            return Chain(pipeline, self.fields(), position, self.spelled(position))
        self.at -= 1
        raise self.unexpected("operand")

    def fields(self) -> tuple[str, ...]:
        names: list[str] = []
        while self.token.kind == "field" and not self.token.spaced:
            names.append(self.take().text[1:])
        return tuple(names)

    def spelled(self, start: int) -> str:
        last = self.tokens[self.at - 1]
        return self.source[start : last.position + len(last.text)]

    # Methods on constants

    def number(self, token: Token) -> int | float:
        digits = token.text.replace("_", "")
        try:
            if digits.lstrip("+-")[:1] == "0" and digits.lstrip("+-").isdigit():
                return int(digits, 8)  # in Go a number with a leading zero is octal
            return int(digits, 0)
        except ValueError:
            pass
        try:
            number = float(digits)
        except ValueError:
            raise fail(self.source, token.position, f'bad number syntax: "{token.text}"') from None
        if number - number:  # not zero for infinity alone
            raise fail(self.source, token.position, f"number overflow: {token.text}")
        return number

    def quoted(self, token: Token) -> str | int:
        if token.text[0] == "`":
            return token.text[1:-1]
        text: list[str] = []
        inner = token.text[1:-1]
        at = 0
        while at < len(inner):
            if inner[at] != "\\":
                text.append(inner[at])
                at += 1
                continue
            letter = inner[at + 1]
            width = {"x": 2, "u": 4, "U": 8}.get(letter)
            if letter in _ESCAPES:
                text.append(_ESCAPES[letter])
                at += 2
            elif letter in "\\'\"":
                text.append(letter)
                at += 2
            elif width is not None or letter in "01234567":
                start, width, base = (at + 2, width, 16) if width is not None else (at + 1, 3, 8)
                try:
                    text.append(chr(int(inner[start : start + width], base)))
                except (ValueError, OverflowError):
                    raise fail(self.source, token.position, f"invalid escape in {token.text}") from None
                at = start + width
            else:
                raise fail(self.source, token.position, f"invalid escape in {token.text}")
        if token.kind == "char":
            if len(text) != 1:
                raise fail(self.source, token.position, f"malformed character constant: {token.text}")
            return ord(text[0])
        return "".join(text)
