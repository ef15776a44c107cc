"""registries.conf (version 2): which registry a short name means, and where a registry's images really are.

Read only; no network. Files and grammar: containers-registries.conf(5) and containers-registries.conf.d(5).
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from rootless.errors import InvalidInput, RegistryError, UsageError
from rootless.image.fields import as_mapping, as_sequence, as_strings, load_json, text_member, texts_member
from rootless.image.reference import DEFAULT_REGISTRY, Reference, is_short, parse_reference
from rootless.paths import atomic_write, make_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.image.fields import Fields

_LOOPBACK_NAMES = ("localhost", "ip6-localhost")


class Endpoint(NamedTuple):
    """One place to ask for an image: a registry's `host[:port]`, and the repository as that registry calls it.

    insecure: whether registries.conf permits plain HTTP, and TLS whose certificate is not checked.
    """

    host: str
    repository: str
    insecure: bool
    is_mirror: bool


class _Mirror(NamedTuple):
    """One [[registry.mirror]]. pull: the references that it is asked for, `all`, `digest-only` or `tag-only`."""

    location: str
    insecure: bool
    pull: str

    @classmethod
    def parse(cls, table: Fields) -> _Mirror:
        """The mirror that a table of registries.conf describes. Raises InvalidInput."""
        location = text_member(table, "location")
        if not location:
            raise InvalidInput("a [[registry.mirror]] has no 'location'")
        return cls(location, table.get("insecure") is True, text_member(table, "pull-from-mirror") or "all")


class _Registry(NamedTuple):
    """One [[registry]] of registries.conf.

    prefix: the beginning of the names that the entry is about, or `*.` and a domain. location: what stands in the
    prefix's place when the registry is asked, "" = the names are true.
    """

    prefix: str
    location: str
    insecure: bool
    blocked: bool
    by_digest_only: bool
    mirrors: tuple[_Mirror, ...]

    @classmethod
    def parse(cls, value: object) -> _Registry:
        """The entry that a table of registries.conf describes. Raises InvalidInput."""
        table = as_mapping(value, "registry")
        location = text_member(table, "location")
        prefix = text_member(table, "prefix") or location
        if not prefix:
            raise InvalidInput("a [[registry]] has neither 'prefix' nor 'location'")
        return cls(
            prefix,
            location,
            table.get("insecure") is True,
            table.get("blocked") is True,
            table.get("mirror-by-digest-only") is True,
            tuple(_Mirror.parse(as_mapping(each, "mirror")) for each in as_sequence(table.get("mirror"), "mirror")),
        )

    def covers(self, name: str) -> bool:
        """Whether the entry is about the full reference `name`."""
        if self.prefix.startswith("*."):
            return name.partition("/")[0].partition(":")[0].endswith(self.prefix[1:])
        # Components are compared, not characters: "example.com/foo" is not a prefix of "example.com/foobar"
        return name.startswith(self.prefix) and name[len(self.prefix) : len(self.prefix) + 1] in ("", "/", ":", "@")


class Registries:
    """The registries.conf of this user: one file, or several that are merged, a later one winning."""

    __slots__ = ("_aliases", "_registries", "_search")

    def __init__(self) -> None:
        self._search: list[str] = []
        self._aliases: dict[str, str] = {}
        self._registries: dict[str, Fields] = {}  # by prefix

    @classmethod
    def from_json(cls, document: object) -> Registries:
        """What `to_json` has put into the cache. Raises InvalidInput."""
        registries = cls()
        registries.merge(as_mapping(document, "registries.conf"))
        return registries

    def to_json(self) -> Fields:
        """The content of one registries.conf that says the same as all files that were merged, for the cache."""
        tables = list(self._registries.values())
        return {"unqualified-search-registries": self._search, "aliases": self._aliases, "registry": tables}

    def merge(self, document: Fields) -> None:
        """Add what a further file says, which wins over the files before. Raises InvalidInput.

        Search registries and a [[registry]] of the same prefix are replaced as wholes, aliases one by one
        (containers-registries.conf.d(5)).
        """
        search = texts_member(document, "unqualified-search-registries")
        if search is not None:
            self._search = search
        self._aliases.update(as_strings(document.get("aliases"), "aliases"))
        for value in as_sequence(document.get("registry"), "registry"):
            prefix = _Registry.parse(value).prefix
            self._registries.pop(prefix, None)
            self._registries[prefix] = as_mapping(value, "registry")

    def qualify(self, name: str, *, default_tag: str | None = "latest") -> tuple[Reference, str | None]:
        """The full reference that `name` means, and the reason in words when registries.conf decided on a short name.

        An alias wins, then the only search registry, then docker.io (when it is searched, or nothing is configured).
        Raises UsageError: malformed, or several registries could be meant.
        """
        reference = parse_reference(name, default_tag=default_tag)
        if not is_short(name):
            return reference, None
        short = reference.repository.removeprefix("library/") if "/" not in name.partition("@")[0] else None
        alias = self._aliases.get(short or reference.repository)
        if alias:
            target = parse_reference(alias, default_tag=None)
            found = Reference(target.registry, target.repository, reference.tag, reference.digest)
            return found, None if str(found) == str(reference) else "an alias of registries.conf"
        search = self._search
        if not search or DEFAULT_REGISTRY in search:
            return reference, "docker.io is searched by registries.conf" if len(search) > 1 else None
        if len(search) > 1:
            choices = ", ".join(f"{registry}/{short or reference.repository}" for registry in search)
            raise UsageError(
                f"short name '{name}' could mean several registries of registries.conf", hint=f"write one of: {choices}"
            )
        found = parse_reference(f"{search[0]}/{name}", default_tag=default_tag)
        return found, "the search registry of registries.conf"

    def endpoints(self, reference: Reference) -> list[Endpoint]:
        """Where to ask for `reference`, in order: mirrors, then the registry itself.

        Raises RegistryError when registries.conf blocks it.
        """
        name = reference.name
        entry = self._match(str(reference))
        if entry is None:
            return [Endpoint(reference.registry, reference.repository, False, False)]
        prefix = entry.prefix
        if entry.blocked:
            raise RegistryError(
                f"registry '{prefix}' is blocked by registries.conf", hint="use another registry, or ask who blocked it"
            )
        found = []
        for mirror in entry.mirrors:
            if reference.digest is None and (entry.by_digest_only or mirror.pull == "digest-only"):
                continue
            if reference.digest is not None and mirror.pull == "tag-only":
                continue
            found.append(_endpoint(name, prefix, mirror.location, mirror.insecure, mirror=True))
        if entry.location and not prefix.startswith("*."):
            found.append(_endpoint(name, prefix, entry.location, entry.insecure, mirror=False))
        else:
            found.append(Endpoint(reference.registry, reference.repository, entry.insecure, False))
        return found

    def _match(self, name: str) -> _Registry | None:
        """The entry with the longest prefix that covers `name`, of equally long ones the first; None when none does."""
        covering = [entry for entry in map(_Registry.parse, self._registries.values()) if entry.covers(name)]
        return max(covering, key=lambda entry: len(entry.prefix), default=None)


def _endpoint(name: str, prefix: str, location: str, insecure: bool, *, mirror: bool) -> Endpoint:
    rest = name[len(prefix) :] if not prefix.startswith("*.") else "/" + name.partition("/")[2]
    host, _, repository = (location + rest).partition("/")
    return Endpoint(host, repository, insecure, mirror)


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is this machine, by the text alone: only then plain HTTP needs no permission.

    The name is not resolved: whoever answers for a name could let it lead to 127.0.0.1 once.
    """
    import ipaddress

    name = host_name(host)
    if name in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """The host in `host[:port]`, in lower case and without the brackets of an IPv6 address."""
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
                kept = load_json(file.read(), cache)
            if kept.get("stamps") == stamps and "merged" in kept:
                return Registries.from_json(kept["merged"])
        except (OSError, InvalidInput):
            pass  # there is no cache yet, or another version wrote it: it is made again below
    registries = Registries()
    for path in files:
        _merge(registries, path)
    if cache:
        try:
            make_private(os.path.dirname(cache))
            atomic_write(
                cache,
                json.dumps({"stamps": stamps, "merged": registries.to_json()}, default=str).encode(),
                durable=False,
            )
        except OSError:
            pass  # a cache that cannot be written only costs time
    return registries


def _stamp(path: str) -> list[object]:
    try:
        status = os.stat(path)
    except OSError:
        return [path, None, None, None]
    return [path, status.st_ino, status.st_size, status.st_mtime_ns]


def _merge(registries: Registries, path: str) -> None:
    """Add what one file says. A file that we may not read is left out, as podman does. Raises InvalidInput."""
    import tomllib

    try:
        with open(path, "rb") as file:
            document: Fields = tomllib.load(file)
    except FileNotFoundError as e:
        named = " (CONTAINERS_REGISTRIES_CONF)" if path == os.environ.get("CONTAINERS_REGISTRIES_CONF") else ""
        raise InvalidInput(f"'{path}'{named} does not exist") from e
    except PermissionError:
        return
    except (OSError, ValueError) as e:
        raise InvalidInput(f"cannot read '{path}': {e}", hint="correct the file: containers-registries.conf(5)") from e
    try:
        registries.merge(document)
    except InvalidInput as e:
        raise InvalidInput(f"'{path}': {e.message}", hint="correct the file: containers-registries.conf(5)") from e
