"""registries.conf (version 2): which registry a short name means, and where a registry's images really are.

Read only; no network. Files and grammar: containers-registries.conf(5) and containers-registries.conf.d(5).
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from rootless.errors import InvalidInput, RegistryError, UsageError
from rootless.image.reference import DEFAULT_REGISTRY, Reference, is_short, parse_reference
from rootless.paths import atomic_write

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOOPBACK_NAMES = ("localhost", "ip6-localhost")


class Endpoint(NamedTuple):
    """One place to ask for an image: `host[:port]`, the repository there, and whether its TLS may be unchecked."""

    host: str
    repository: str
    insecure: bool
    is_mirror: bool


class Registries:
    """The merged registries.conf of this user. document: {"search": [...], "aliases": {...}, "registries": [...]}."""

    __slots__ = ("_document",)

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def qualify(self, text: str, *, default_tag: str | None = "latest") -> tuple[Reference, str | None]:
        """The full reference that `text` means, and why, in words, when a short name was decided by registries.conf.

        An alias wins, then the only search registry, then docker.io (when it is searched, or nothing is configured).
        Raises UsageError: malformed, or several registries could be meant.
        """
        reference = parse_reference(text, default_tag=default_tag)
        if not is_short(text):
            return reference, None
        short = reference.repository.removeprefix("library/") if "/" not in text.partition("@")[0] else None
        alias = self._document["aliases"].get(short or reference.repository)
        if alias:
            target = parse_reference(alias, default_tag=None)
            found = Reference(target.registry, target.repository, reference.tag, reference.digest)
            return found, None if str(found) == str(reference) else "an alias of registries.conf"
        search = self._document["search"]
        if not search or DEFAULT_REGISTRY in search:
            return reference, "docker.io is searched by registries.conf" if len(search) > 1 else None
        if len(search) > 1:
            choices = ", ".join(f"{registry}/{short or reference.repository}" for registry in search)
            raise UsageError(
                f"short name '{text}' could mean several registries of registries.conf", hint=f"write one of: {choices}"
            )
        found = parse_reference(f"{search[0]}/{text}", default_tag=default_tag)
        return found, "the search registry of registries.conf"

    def endpoints(self, reference: Reference) -> list[Endpoint]:
        """Where to ask for `reference`, in order: mirrors, then the registry itself.

        Raises RegistryError when registries.conf blocks it.
        """
        name = reference.name
        entry, prefix = self._match(str(reference), name)
        if entry is None:
            return [Endpoint(reference.registry, reference.repository, False, False)]
        if entry.get("blocked") is True:
            raise RegistryError(
                f"registry '{prefix}' is blocked by registries.conf", hint="use another registry, or ask who blocked it"
            )
        found = []
        for mirror in entry.get("mirror") or []:
            only = mirror.get("pull-from-mirror", "all")
            if reference.digest is None and (entry.get("mirror-by-digest-only") is True or only == "digest-only"):
                continue
            if reference.digest is not None and only == "tag-only":
                continue
            found.append(_endpoint(name, prefix, str(mirror["location"]), mirror.get("insecure") is True, mirror=True))
        insecure = entry.get("insecure") is True
        location = entry.get("location")
        if location and not prefix.startswith("*."):
            found.append(_endpoint(name, prefix, str(location), insecure, mirror=False))
        else:
            found.append(Endpoint(reference.registry, reference.repository, insecure, False))
        return found

    def _match(self, text: str, name: str) -> tuple[dict[str, Any] | None, str]:
        """The entry with the longest matching prefix, and that prefix (the wildcard's text for wildcards)."""
        best: tuple[int, dict[str, Any] | None, str] = (0, None, "")
        host = name.partition("/")[0].partition(":")[0]
        for entry in self._document["registries"]:
            prefix = str(entry.get("prefix") or entry.get("location") or "")
            if prefix.startswith("*."):
                matches = host.endswith(prefix[1:])
            else:
                # Components are compared, not characters: "example.com/foo" is not a prefix of "example.com/foobar"
                matches = text.startswith(prefix) and text[len(prefix) : len(prefix) + 1] in ("", "/", ":", "@")
            if prefix and matches and len(prefix) > best[0]:
                best = (len(prefix), entry, prefix)
        return best[1], best[2]


def _endpoint(name: str, prefix: str, location: str, insecure: bool, *, mirror: bool) -> Endpoint:
    rest = name[len(prefix) :] if not prefix.startswith("*.") else "/" + name.partition("/")[2]
    host, _, repository = (location + rest).partition("/")
    return Endpoint(host, repository, insecure, mirror)


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is this machine by its literal name: only then plain HTTP needs no permission."""
    import ipaddress

    name = host_name(host)
    if name in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """`host[:port]` without port and brackets, lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def configuration_files() -> list[str]:
    """The files that count, weakest first: one main file, then the drop-ins of the system and of the user."""
    chosen = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    if chosen:
        return [chosen]
    user = f"{os.environ.get('XDG_CONFIG_HOME') or os.path.expanduser('~/.config')}/containers"
    mains = [path for path in (f"{user}/registries.conf", "/etc/containers/registries.conf") if os.path.isfile(path)]
    files = mains[:1]
    for directory in ("/etc/containers/registries.conf.d", f"{user}/registries.conf.d"):
        try:
            files += [f"{directory}/{name}" for name in sorted(os.listdir(directory)) if name.endswith(".conf")]
        except OSError:
            continue
    return files


def load_registries(cache_directory: str | None = None, files: Sequence[str] | None = None) -> Registries:
    """Read registries.conf and its drop-ins. cache_directory: keeps the parsed form there, since TOML is slow to read.

    Raises InvalidInput for a file that is not as registries.conf(5) says.
    """
    files = configuration_files() if files is None else list(files)
    stamps = [_stamp(path) for path in files]
    cache = f"{cache_directory}/registries.json" if cache_directory else None
    if cache:
        try:
            with open(cache, "rb") as file:
                kept = json.loads(file.read())
            if kept["stamps"] == stamps:
                return Registries(kept["document"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # absent or of an older version: made again below
    document: dict[str, Any] = {"search": [], "aliases": {}, "registries": []}
    for path in files:
        _merge(document, path)
    if cache:
        try:
            os.makedirs(os.path.dirname(cache), mode=0o700, exist_ok=True)
            atomic_write(cache, json.dumps({"stamps": stamps, "document": document}).encode(), durable=False)
        except OSError:
            pass  # a cache that cannot be written only costs time
    return Registries(document)


def _stamp(path: str) -> list[Any]:
    try:
        status = os.stat(path)
    except OSError:
        return [path, None, None, None]
    return [path, status.st_ino, status.st_size, status.st_mtime_ns]


def _merge(document: dict[str, Any], path: str) -> None:
    import tomllib

    try:
        with open(path, "rb") as file:
            read = tomllib.load(file)
    except FileNotFoundError as e:
        raise InvalidInput(f"'{path}' (CONTAINERS_REGISTRIES_CONF) does not exist") from e
    except PermissionError:
        return
    except (OSError, ValueError) as e:
        raise InvalidInput(f"cannot read '{path}': {e}", hint="correct the file: containers-registries.conf(5)") from e
    search = read.get("unqualified-search-registries")
    aliases = read.get("aliases", {})
    registries = read.get("registry", [])
    if search is not None and not (isinstance(search, list) and all(isinstance(each, str) for each in search)):
        raise InvalidInput(f"'unqualified-search-registries' in '{path}' is not a list of registries")
    if not isinstance(aliases, dict) or not all(isinstance(each, str) for each in aliases.values()):
        raise InvalidInput(f"'aliases' in '{path}' is not a table of names")
    if not isinstance(registries, list):
        raise InvalidInput(f"'registry' in '{path}' is not a list of tables, as [[registry]] makes")
    if search is not None:
        document["search"] = search
    document["aliases"].update(aliases)
    for entry in registries:
        key = entry.get("prefix") or entry.get("location")
        if not key:
            raise InvalidInput(f"a [[registry]] in '{path}' has neither 'prefix' nor 'location'")
        for mirror in entry.get("mirror", []):
            if not mirror.get("location"):
                raise InvalidInput(f"a [[registry.mirror]] in '{path}' has no 'location'")
        kept = [each for each in document["registries"] if (each.get("prefix") or each.get("location")) != key]
        document["registries"] = [*kept, entry]
