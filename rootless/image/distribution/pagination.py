"""Lists of a registry that come in pages: tags, the catalog, referrers (distribution-spec "Listing Tags")."""

from __future__ import annotations

from urllib.parse import urlsplit

from rootless.errors import RegistryError
from rootless.image.distribution.answers import next_link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from urllib3 import BaseHTTPResponse

    from rootless.image.distribution.http_session import RegistrySession

_MAX_PAGES = 100  # a hostile registry could name a next page for ever


def list_pages(
    session: RegistrySession, path: str, *, absent: Sequence[int], headers: Mapping[str, str] | None = None
) -> Iterator[BaseHTTPResponse]:
    """The answers that make up a list, by their Link headers: how many entries a page has says nothing.

    The caller reads each answer to its end before it asks for the next. Each has status 200, but a first one with a
    status of `absent` is given too, as the only one: the registry has no such list. Raises RegistryError.
    """
    url = session.url_of(path)
    for page in range(_MAX_PAGES):
        response = session.send("GET", url, headers=headers)
        if response.status in absent and not page:
            yield response
            return
        if response.status != 200:
            raise session.refusal(response)
        following = next_link(response.headers.get("Link"))
        yield response
        if following is None:
            return
        url = session.url_of(following, base=url)
    raise RegistryError(f"the list of '{urlsplit(url).netloc}' has more than {_MAX_PAGES} pages")
