"""How Go prints values: fmt's Print, Println and Printf. Pure text making; it knows nothing of templates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_VERB = re.compile(r"%(?P<flags>[-+# 0]*)(?P<width>\d+)?(?:\.(?P<precision>\d*))?(?P<verb>.)?", re.DOTALL)
_QUOTED = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


def text(value: object) -> str:
    """`value` as Go's fmt prints it with the verb %v."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{text(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, Sequence):
        return "[" + " ".join(text(item) for item in value) + "]"
    return str(value)


def quote(value: str) -> str:
    """`value` in quotes and with escapes, as Go's strconv.Quote prints it."""
    return '"' + "".join(_quoted(character) for character in value) + '"'


def _quoted(character: str) -> str:
    if character in _QUOTED:
        return _QUOTED[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def sprint(values: Sequence[object]) -> str:
    """What Go's fmt.Sprint makes of the arguments: a space stands between two of which neither is a string."""
    printed = ""
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            printed += " "
        printed += text(value)
    return printed


def sprintln(values: Sequence[object]) -> str:
    """What Go's fmt.Sprintln makes of the arguments."""
    return " ".join(text(value) for value in values) + "\n"


def sprintf(template: str, values: Sequence[object]) -> str:
    """What Go's fmt.Sprintf makes of the arguments, with Go's remarks for wrong verbs, missing and extra arguments."""
    left = list(values)

    def replace(match: re.Match[str]) -> str:
        verb = match["verb"]
        if verb is None:
            return "%!(NOVERB)"
        if verb == "%":
            return "%"
        if not left:
            return f"%!{verb}(MISSING)"
        return _formatted(match, verb, left.pop(0))

    printed = _VERB.sub(replace, template)
    if left:
        extra = ", ".join(f"{type_name(value)}={text(value)}" for value in left)
        printed += f"%!(EXTRA {extra})"
    return printed


def _formatted(match: re.Match[str], verb: str, value: object) -> str:
    flags = match["flags"]
    precision = None if match["precision"] is None else int(match["precision"] or 0)
    body = _body(verb, value, flags, precision)
    if body is None:
        return f"%!{verb}({type_name(value)}={text(value)})"
    width = int(match["width"] or 0)
    if "-" in flags:
        return body.ljust(width)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if "0" in flags and is_number and verb != "c":
        sign = body[:1] if body[:1] in "+-" and body else ""
        return sign + body[len(sign) :].rjust(width - len(sign), "0")
    return body.rjust(width)


def _character(code: int) -> str:
    """The character of a code point; as in Go U+FFFD for a number that is none."""
    return chr(code) if 0 <= code < 0x110000 else "\ufffd"


def _body(verb: str, value: object, flags: str, precision: int | None) -> str | None:
    if verb == "v":
        return quote(value) if "#" in flags and isinstance(value, str) else text(value)
    if verb == "T":
        return type_name(value)
    if verb == "t":
        return text(value) if isinstance(value, bool) else None
    if isinstance(value, bool) or value is None:
        return None
    plus = "+" if "+" in flags else ""
    if isinstance(value, int):
        if verb == "c":
            return _character(value)
        if verb == "q":
            return "'" + _character(value) + "'"
        if verb == "U":
            return f"U+{value:04X}"
        if verb in "dxXob":
            return format(value, f"{plus}{'#' if '#' in flags and verb != 'd' else ''}{verb}")
        return None
    if isinstance(value, float):
        if verb in "eEfFgG":
            shown = "" if precision is None and verb in "gG" else f".{6 if precision is None else precision}"
            return format(value, f"{plus}{shown}{verb}") if shown else plus * (value >= 0) + _float(value)
        return None
    if verb == "s":
        return text(value)[:precision]
    if isinstance(value, str):
        if verb == "q":
            return quote(value[:precision])
        if verb in "xX":
            digits = value.encode(errors="surrogateescape").hex()
            return digits.upper() if verb == "X" else digits
    return None


def _float(value: float) -> str:
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    shown = repr(value)
    return re.sub(r"e([+-])(\d)$", r"e\g<1>0\2", shown)


def type_name(value: object) -> str:
    if value is None:
        return "<nil>"
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float64"), (str, "string")):
        if isinstance(value, kind):
            return name
    return "map[string]interface {}" if isinstance(value, Mapping) else "[]interface {}"
