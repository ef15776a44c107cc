"""Environment variables and labels from flags and files, in docker's formats. It reads only the files it is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rootless.errors import UsageError

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_FILE = 1 << 20  # bytes of an --env-file or --label-file: /dev/zero given by mistake may not fill the memory


def read_lines(path: str, flag: str) -> list[str]:
    """The lines of an --env-file or --label-file without blank ones and comments (those that begin with #).

    Values keep their spaces and quotes, as with docker. Raises UsageError, naming the file and line, for a file that
    cannot be read, is larger than 1 MiB or is not UTF-8, and for a name that is empty or has white space.
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
    """(name, value) pairs of --env-file, then of -e; of two with one name the later counts (merge_env).

    A NAME without "=" takes the value that it has in `host`, the caller's environment; this is the only way in for a
    variable of the caller. Its value is None when the caller has no such variable. Raises UsageError.
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
    """NAME=VALUE texts in order of first mention, with the value of the last layer that has the name.

    The value None removes the name: with docker, `-e NAME` of a variable that the caller does not have takes the
    image's away.
    """
    merged: dict[str, str | None] = {}
    for layer in layers:
        merged.update(layer)
    return [f"{name}={value}" for name, value in merged.items() if value is not None]


def split_env(entries: Iterable[str]) -> list[tuple[str, str | None]]:
    """The NAME=VALUE texts of an image's "Env" as pairs; those without a name are dropped."""
    return [(name, value) for name, _, value in (entry.partition("=") for entry in entries) if name]


def parse_labels(values: Iterable[str], files: Iterable[str] = ()) -> dict[str, str]:
    """The labels of --label-file, then of -l; a label without "=" has the value "". Raises UsageError."""
    labels = {}
    for text in [line for path in files for line in read_lines(path, "--label-file")] + list(values):
        name, _, value = text.partition("=")
        if not name:
            raise UsageError(f"invalid label '{text}' (--label)", hint="write KEY=VALUE or KEY")
        labels[name] = value
    return labels
