"""Image references, by the rules of docker's reference grammar. Pure: nothing is looked up here."""

from __future__ import annotations

import re

from rootless.errors import UsageError
from rootless.image.digest import is_digest

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
MAX_NAME = 255  # characters of registry and repository together

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?", re.ASCII)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}", re.ASCII)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}", re.ASCII)


class Reference:
    """A name that says where an image comes from: `registry/repository[:tag][@digest]`, never abbreviated."""

    __slots__ = ("digest", "registry", "repository", "tag")

    def __init__(self, registry: str, repository: str, tag: str | None, digest: str | None) -> None:
        self.registry = registry
        self.repository = repository
        self.tag = tag
        self.digest = digest

    @property
    def name(self) -> str:
        """Registry and repository without tag and digest, such as `docker.io/library/debian`."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar_name(self) -> str:
        """The name without the registry and the `library/` that docker supplies, such as `debian`."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        head, _, rest = self.repository.partition("/")
        if head == "library" and rest and "/" not in rest:
            return rest
        # `docker.io/my.org/x` keeps its registry: whoever reads `my.org/x` takes `my.org` for a registry
        return self.name if rest and ("." in head or head == "localhost") else self.repository

    def familiar(self) -> str:
        """The whole reference as docker shows it: `debian:12`, `debian@sha256:…`."""
        return self.familiar_name + self._suffix()

    def with_digest(self, digest: str) -> Reference:
        """The same repository at `digest`, without a tag."""
        return Reference(self.registry, self.repository, None, digest)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix()

    def __repr__(self) -> str:
        return f"Reference({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def parse_reference(text: str, *, default_tag: str | None = DEFAULT_TAG) -> Reference:
    """The reference that `text` means to docker: docker.io, `library/` and `:latest` are supplied.

    default_tag: used when `text` has neither tag nor digest. Raises UsageError.
    """
    # Docker's grammar forbids such names, since every command would take them for the id of an image
    if _IDENTIFIER.fullmatch(text):
        raise UsageError(f"'{text}' is an image id, not a name")
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _invalid(text, "the part after '@' is not a digest")
    head, colon, tag = rest.rpartition(":")
    if colon and "/" not in tag and not _DOMAIN_ONLY_PORT.fullmatch(rest):
        rest = head
        if not _TAG.fullmatch(tag):
            raise _invalid(text, f"'{tag}' is not a tag")
    else:
        tag = ""
    registry, repository = _split_registry(rest)
    if not _DOMAIN.fullmatch(registry):
        raise _invalid(text, f"'{registry}' is not a registry")
    if not _PATH.fullmatch(repository):
        if repository != repository.lower():
            raise _invalid(text, "a repository name must be lower case")
        raise _invalid(text, f"'{repository}' is not a repository name")
    if len(registry) + 1 + len(repository) > MAX_NAME:
        raise _invalid(text[:40] + "…", f"the name is longer than {MAX_NAME} characters")
    if not tag and not digest and default_tag:
        tag = default_tag
    return Reference(registry, repository, tag or None, digest or None)


# A registry alone, such as "[::1]:5000", would otherwise be read as a name with the tag 5000
_DOMAIN_ONLY_PORT = re.compile(r"\[[a-fA-F0-9:]+\](?::[0-9]+)?", re.ASCII)


def is_short(text: str) -> bool:
    """Whether `text` names no registry, so that registries.conf (or docker.io) decides."""
    rest = text.partition("@")[0]
    head, slash, _ = rest.partition("/")
    return not (slash and _is_registry(head))


def _is_registry(head: str) -> bool:
    # Docker takes the first component of a name for a registry when it is `localhost`, or has a dot, a port, or an
    # upper-case letter, which no repository may have
    return "." in head or ":" in head or head == "localhost" or head != head.lower()


def _split_registry(name: str) -> tuple[str, str]:
    head, slash, rest = name.partition("/")
    if slash and _is_registry(head):
        registry, repository = head, rest
    else:
        registry, repository = DEFAULT_REGISTRY, name
    # Both are further names of docker's hub: kept as they are, they would make three names of every image there
    if registry in ("index.docker.io", "registry-1.docker.io"):
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and repository and "/" not in repository:
        repository = f"library/{repository}"
    return registry, repository


def _invalid(text: str, why: str) -> UsageError:
    return UsageError(
        f"invalid image reference '{text}': {why}", hint="write [REGISTRY/]REPOSITORY[:TAG][@DIGEST], lower case"
    )
