"""The verb `search`: by docker's index (version 1) where a registry has one, else in its catalog; and lists of tags."""

from __future__ import annotations

from urllib.parse import urlencode

from rootless.engine.image.image_names import qualify, registries, registry_access
from rootless.engine.image_types import RegistryOptions, RepositoryTag, SearchResult
from rootless.errors import InvalidInput, RegistryError, UsageError
from rootless.image.distribution.answers import error_text
from rootless.image.distribution.pagination import list_pages
from rootless.image.fields import as_sequence, load_json
from rootless.image.manifest import MANIFEST_LIMIT
from rootless.image.reference import DEFAULT_REGISTRY, is_short, parse_reference
from rootless.units import whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from urllib3 import BaseHTTPResponse

    from rootless.engine.context import Engine
    from rootless.image.distribution.http_session import RegistrySession
    from rootless.image.fields import Fields

FILTERS = ("is-automated", "is-official", "stars")
_MAX_LIMIT = 1000
_HUB_INDEX = "index.docker.io"


def search_registry(
    engine: Engine,
    term: str,
    *,
    limit: int = 25,
    filters: Mapping[str, Sequence[str]],
    options: RegistryOptions,
) -> list[SearchResult]:
    """Repositories that match `[REGISTRY/]TERM`, at most `limit`.

    filters: docker's is-official, is-automated, stars; options: how to talk to the registry. Raises UsageError,
    RegistryError, InvalidInput.
    """
    unknown = set(filters) - set(FILTERS)
    if unknown:
        raise UsageError(f"invalid filter '{min(unknown)}'", hint=f"use one of: {', '.join(FILTERS)}")
    if not 0 < limit <= _MAX_LIMIT:
        raise UsageError(f"--limit must be between 1 and {_MAX_LIMIT}, not {limit}")
    registry, _, words = term.partition("/") if not is_short(term) else (DEFAULT_REGISTRY, "", term)
    session = _open(engine, registry, "", options)
    try:
        rows = _index_v1(session, registry, words, limit)
        if rows is None:
            rows = _catalog(session, registry, words, limit)
    finally:
        session.close()
    return [row for row in rows if _passes(row, filters)][:limit]


def list_registry_tags(engine: Engine, name: str, *, limit: int, options: RegistryOptions) -> list[RepositoryTag]:
    """The tags of a repository in the registry's order, at most `limit` (distribution-spec, "Listing Tags").

    options: how to talk to the registry. Raises UsageError, RegistryError, InvalidInput.
    """
    reference, _ = qualify(engine, name)
    session = _open(engine, reference.registry, reference.repository, options)
    tags: list[RepositoryTag] = []
    try:
        for document in _pages(session, f"{reference.repository}/tags/list", f"no repository '{reference.name}'"):
            found = [each for each in as_sequence(document.get("tags"), "tags") if isinstance(each, str)]
            tags += [RepositoryTag(reference.name, each) for each in found]
            if len(tags) >= limit:
                break
    finally:
        session.close()
    return tags[:limit]


def _open(engine: Engine, registry: str, repository: str, options: RegistryOptions) -> RegistrySession:
    from rootless.image.distribution.http_session import RegistrySession

    endpoint = registries(engine).endpoints(parse_reference(f"{registry}/{repository or 'x'}"))[-1]
    endpoint = endpoint._replace(repository=endpoint.repository if repository else "")
    return RegistrySession(endpoint, registry_access(options), warn=engine.warn)


def _index_v1(session: RegistrySession, registry: str, words: str, limit: int) -> list[SearchResult] | None:
    """The answer of docker's search, which only Docker Hub and some other registries have; None where there is none."""
    query = urlencode({"q": words, "n": limit})
    path = f"/v1/search?{query}"
    url = f"https://{_HUB_INDEX}{path}" if registry == DEFAULT_REGISTRY else session.url_of(path)
    response = session.send("GET", url)
    if response.status != 200:
        error_text(response)
        if registry == DEFAULT_REGISTRY:
            raise RegistryError(f"the search of '{registry}' answers {response.status}")
        return None
    try:
        document = _read(response)
    except InvalidInput:
        return None  # The answer is no JSON: a registry may show a web page at a path that it does not know
    rows = []
    for each in as_sequence(document.get("results"), "results"):
        if isinstance(each, dict) and isinstance(each.get("name"), str):
            stars = each.get("star_count")
            rows.append(
                SearchResult(
                    registry,
                    f"{registry}/{each['name']}",
                    str(each.get("description") or ""),
                    stars if isinstance(stars, int) else 0,
                    each.get("is_official") is True,
                    each.get("is_automated") is True,
                )
            )
    return rows


def _catalog(session: RegistrySession, registry: str, words: str, limit: int) -> list[SearchResult]:
    rows: list[SearchResult] = []
    for document in _pages(session, "_catalog?n=1000", f"registry '{registry}' cannot be searched"):
        names = [each for each in as_sequence(document.get("repositories"), "repositories") if isinstance(each, str)]
        rows += [SearchResult(registry, f"{registry}/{name}", "", -1, False, False) for name in names if words in name]
        if len(rows) >= limit:
            break
    return rows


def _pages(session: RegistrySession, path: str, missing: str) -> Iterator[Fields]:
    """The pages of a list. missing: the start of the error's text where the registry has no such list."""
    for response in list_pages(session, path, absent=(404, 405)):
        if response.status != 200:
            raise RegistryError(f"{missing}: it answers {response.status} {error_text(response)}".rstrip())
        yield _read(response)


def _read(response: BaseHTTPResponse) -> Fields:
    from rootless.image.distribution.registry import read_all

    try:
        return load_json(read_all(response, MANIFEST_LIMIT), "the registry's answer")
    finally:
        response.close()


def _passes(row: SearchResult, filters: Mapping[str, Sequence[str]]) -> bool:
    for key, fact in (("is-official", row.official), ("is-automated", row.automated)):
        for value in filters.get(key, ()):
            if value.lower() not in ("true", "false", "1", "0"):
                raise UsageError(f"invalid filter '{key}={value}'", hint="use true or false")
            if (value.lower() in ("true", "1")) != fact:
                return False
    for value in filters.get("stars", ()):
        least = whole_number(value)
        if least is None:
            raise UsageError(f"invalid filter 'stars={value}'", hint="give a number")
        if row.stars < least:
            return False
    return True
