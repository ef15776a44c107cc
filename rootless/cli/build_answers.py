"""What `build --call` and `build --check` print: buildx' texts and JSON documents, which other tools read."""

from __future__ import annotations

import base64
from typing import NamedTuple

from rootless import output
from rootless.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.builder.build_options import BuildOptions
    from rootless.builder.dockerfile.problems import Place
    from rootless.builder.inquiry import CheckAnswer, DockerfileSource, MountEntry, OutlineAnswer, TargetsAnswer
    from rootless.engine.context import Engine

METHODS = ("build", "check", "outline", "targets")
_SINGLE, _SEVERAL = 4, 2  # lines of context around an excerpt of one line, and of several, that are asked for


class Call(NamedTuple):
    """What --call asks for.

    method: one of METHODS; is_json: a JSON document and no text; ignores_status: findings leave the exit code at 0.
    """

    method: str
    is_json: bool = False
    ignores_status: bool = False

    @classmethod
    def parse(cls, text: str) -> Call:
        """The call in `METHOD[,format=text|json][,ignorestatus]`. Raises UsageError."""
        call = cls("")
        for field in text.split(","):
            name, _, value = field.partition("=")
            if name == "format" and value in ("json", "text"):
                call = call._replace(is_json=value == "json")
            elif name == "ignorestatus" and value.lower() in ("", "true", "1", "false", "0"):
                call = call._replace(ignores_status=value.lower() in ("", "true", "1"))
            elif field in (*METHODS, "lint") and not call.method:
                call = call._replace(method="check" if field == "lint" else field)
            else:
                hint = f"write one of {', '.join(METHODS)}, and after a comma format=json or ignorestatus"
                raise UsageError(f"--call: '{field}' in '{text}' is not known", hint=hint)
        return call._replace(method=call.method or "build")


def answer(engine: Engine, options: BuildOptions, call: Call) -> int:
    """Print the answer to `call`, whose method is not "build"; return the exit code: 1 for findings of a check.

    Raises what `rootless.builder.inquiry` raises, and DockerfileError for an error that a check has found.
    """
    from rootless.builder import inquiry

    if call.method == "outline":
        outline = inquiry.outline(engine, options)
        _print(_outline_document(outline) if call.is_json else _outline_text(outline))
        return 0
    if call.method == "targets":
        targets = inquiry.targets(engine, options)
        _print(_targets_document(targets) if call.is_json else _targets_text(targets))
        return 0
    found = inquiry.check(engine, options)
    _print(_check_document(found) if call.is_json else _check_text(found))
    if found.error is not None:
        raise found.error
    return 1 if found.findings and not call.ignores_status else 0


def _print(shown: str | dict[str, object]) -> None:
    if isinstance(shown, str):
        output.raw(output.escape_block(shown))  # the Dockerfile may be a stranger's
    else:
        output.line(output.json_text(shown, indent=2))


# JSON: the members, their names and their order are those of BuildKit's subrequests


def _location(place: Place) -> dict[str, object]:
    return {"ranges": [{"start": {"line": place.first}, "end": {"line": place.last}}]}


def _encoded(source: DockerfileSource) -> str:
    return base64.b64encode(source.content).decode()


def _without_empty(**members: object) -> dict[str, object]:
    """The members that say something: those that are empty or false are left out."""
    return {name: value for name, value in members.items() if value}


def _check_document(found: CheckAnswer) -> dict[str, object]:
    from rootless.builder.dockerfile.checks import RULES

    warnings = [
        {
            "ruleName": each.rule,
            "description": RULES[each.rule],
            "url": each.url,
            "detail": each.text,
            "location": _location(each.place),
        }
        for each in found.findings
    ]
    source = {"filename": found.source.name, "language": "Dockerfile", "data": _encoded(found.source)}
    document: dict[str, object] = {"warnings": warnings or None, "sources": [source]}
    if found.error is not None:
        document["buildError"] = {"message": found.error.problem, "location": _location(found.error.place)}
    return document


def _outline_document(outline: OutlineAnswer) -> dict[str, object]:
    arguments = [
        {
            "name": each.name,
            **_without_empty(description=each.description, value=each.value),
            "location": _location(each.place),
        }
        for each in outline.arguments
    ]
    return _without_empty(
        name=outline.name,
        description=outline.description,
        args=arguments,
        secrets=[_mount_document(each) for each in outline.secrets],
        ssh=[_mount_document(each) for each in outline.agents],
        sources=[_encoded(outline.source)],
    )


def _mount_document(mount: MountEntry) -> dict[str, object]:
    return {"name": mount.name, **_without_empty(required=mount.is_required), "location": _location(mount.place)}


def _targets_document(targets: TargetsAnswer) -> dict[str, object]:
    entries = [
        {
            **_without_empty(
                name=each.name,
                default=each.is_default,
                description=each.description,
                base=each.base,
                platform=each.platform,
            ),
            "location": _location(each.place),
        }
        for each in targets.targets
    ]
    return {"targets": entries, "sources": [_encoded(targets.source)]}


# Texts


def _table(rows: Sequence[Sequence[str]], gap: int) -> str:
    """`rows` in columns, each but the last as wide as its widest cell and `gap` spaces."""
    widths = [max(map(len, column)) + gap for column in zip(*rows, strict=True)][:-1]
    lines = ("".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)) for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _outline_text(outline: OutlineAnswer) -> str:
    parts = []
    if outline.name or outline.description:
        rows = [("TARGET:", outline.name or "(default)")]
        if outline.description:
            rows.append(("DESCRIPTION:", outline.description))
        parts.append(_table(rows, 1))
    if outline.arguments:
        arguments = [(each.name, each.value, each.description) for each in outline.arguments]
        parts.append(_table([("BUILD ARG", "VALUE", "DESCRIPTION"), *arguments], 3))
    for title, mounts in (("SECRET", outline.secrets), ("SSH", outline.agents)):
        if mounts:
            entries = [(each.name, "true" if each.is_required else "") for each in mounts]
            parts.append(_table([(title, "REQUIRED"), *entries], 3))
    return "".join(f"{part}\n" for part in parts)


def _targets_text(targets: TargetsAnswer) -> str:
    rows = [("TARGET", "DESCRIPTION")]
    for each in targets.targets:
        name = f"{each.name} (default)" if each.name and each.is_default else each.name
        rows.append((name or ("(default)" if each.is_default else ""), each.description))
    return _table(rows, 1)


def _check_text(found: CheckAnswer) -> str:
    lines = found.source.content.decode("utf-8", "replace").split("\n")
    count = len(found.findings)
    if not count:
        return "" if found.error is not None else "Check complete, no warnings found.\n"
    counted = "1 warning has been found!" if count == 1 else f"{count} warnings have been found!"
    shown = "".join(
        f"\nWARNING: {each.rule} - {each.url}\n{each.text}\n{_excerpt(each.place, lines)}" for each in found.findings
    )
    return f"Check complete, {counted}\n{shown}"


def _excerpt(place: Place, lines: Sequence[str]) -> str:
    """The lines of `place`, marked, with those around them: one step adds a line at each end while there is one."""
    first, last = place.first, min(place.last, len(lines))
    wanted = _SINGLE if place.first == place.last else _SEVERAL
    added = 0
    while added < wanted:
        added += 1
        if first > 1:
            first -= 1
            added += 1
        if last < len(lines):
            last += 1
            added += 1
    rule = "-" * 20
    shown = [
        f" {number:3d} | {'>>>' if place.first <= number <= place.last else '   '} {lines[number - 1]}\n"
        for number in range(first, last + 1)
    ]
    return f"{place}\n{rule}\n{''.join(shown)}{rule}\n"
