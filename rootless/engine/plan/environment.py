"""Environment variables and labels from flags and files, in docker's formats. It reads only the files it is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rootless.errors import UsageError

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_FILE = 1 << 20  # bytes of an --env-file


def read_lines(path: str, flag: str) -> list[str]:
    """The lines of an --env-file or --label-file that say something: comments (# at the start) and blanks are dropped.

    Raises UsageError naming the file and line as docker does; values keep their spaces and quotes.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_FILE + 1)
    except OSError as e:
        raise UsageError(f"cannot read '{path}' ({flag}): {e.strerror}") from e
    if len(content) > _MAX_FILE:
        raise UsageError(f"'{path}' ({flag}) is larger than 1 MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise UsageError(f"'{path}' ({flag}) is not UTF-8 text") from e
    lines = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        name = line.partition("=")[0]
        if not name or any(c.isspace() for c in name):
            raise UsageError(f"'{path}' line {number} ({flag}): variable name '{name}' is empty or has white space")
        lines.append(line)
    return lines


def parse_env(values: Iterable[str], files: Iterable[str], host: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """(name, value) of --env-file, then -e: the last one wins. None: named without a value and unset on the host.

    A bare NAME takes the host's value, docker's one way for a variable of the host to get in.
    """
    lines = [line for path in files for line in read_lines(path, "--env-file")]
    pairs: list[tuple[str, str | None]] = []
    for text in [*lines, *values]:
        name, equals, value = text.partition("=")
        if not name or "\0" in text:
            raise UsageError(f"invalid environment variable '{text}' (--env)", hint="write NAME=VALUE or NAME")
        pairs.append((name, value if equals else host.get(name)))
    return pairs


def merge_env(*layers: Iterable[tuple[str, str | None]]) -> list[str]:
    """NAME=VALUE in order of first mention, later values winning; None removes a name (docker's `-e NAME` unset)."""
    merged: dict[str, str | None] = {}
    for layer in layers:
        merged.update(layer)
    return [f"{name}={value}" for name, value in merged.items() if value is not None]


def split_env(entries: Iterable[str]) -> list[tuple[str, str | None]]:
    """An image's Env list as pairs."""
    return [(name, value) for name, _, value in (entry.partition("=") for entry in entries) if name]


def parse_labels(values: Iterable[str], files: Iterable[str] = ()) -> dict[str, str]:
    """Labels of --label-file, then -l. A label without = has the value ""."""
    labels = {}
    for text in [line for path in files for line in read_lines(path, "--label-file")] + list(values):
        name, _, value = text.partition("=")
        if not name:
            raise UsageError(f"invalid label '{text}' (--label)", hint="write KEY=VALUE or KEY")
        labels[name] = value
    return labels
