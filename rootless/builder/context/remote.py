"""ADD and contexts from elsewhere: http(s) downloads with a checksum, and the choice between these and repositories.

Nothing is unpacked here. An address in a Dockerfile is a stranger's. Downloads are refused to addresses that
`connection_guard` objects to, also after a redirection (where a proxy is set, it decides what it connects to), and have
a bound in size.
"""

from __future__ import annotations

import email.utils
import hashlib
import os
import posixpath
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from rootless.builder.context.contexts import is_git
from rootless.builder.context.repository import Fetched, Repository, clone
from rootless.errors import DigestMismatch, InvalidInput, RegistryError, UsageError
from rootless.image.distribution.answers import reason_of
from rootless.image.distribution.connection_guard import guard_pool, literal_objection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_CHECKSUM = re.compile(r"(sha256|sha384|sha512):([0-9a-f]{64,128})", re.ASCII)
_PIECE = 1 << 18
_LIMIT = 64 << 30  # bytes of one download
_CONNECT = 30.0  # seconds for connecting, and for each read
_REDIRECTS = 10


class RemoteSource(NamedTuple):
    """What ADD takes from elsewhere.

    text: URL or git repository; checksum: `ALGORITHM:DIGITS` of the download, or the first digits of the commit, "" for
    any; keeps_git_dir: --keep-git-dir, None without; moment: the time, in seconds, that a file gets for which the
    server has none.
    """

    text: str
    checksum: str
    keeps_git_dir: bool | None
    moment: int


def fetch(source: RemoteSource, directory: str, log: Callable[[str], None]) -> Fetched:
    """Bring `source` into the empty `directory`. log: gets lines about what takes time.

    Raises RegistryError (the source cannot be reached), DigestMismatch, UsageError, HostLimit (there is no git).
    """
    if is_git(source.text):
        wanted = Repository.parse(source.text).with_flags(source.checksum, source.keeps_git_dir)
        return clone(wanted, directory, log)
    return download(source.text, directory, checksum=source.checksum, moment=source.moment)


def download(url: str, directory: str, *, checksum: str = "", moment: int = 0) -> Fetched:
    """Download one file into `directory`. Its mode is 0600, its time the server's Last-Modified, `moment` without that.

    The name comes from the URL and is refused where it is no plain file name. Raises RegistryError, DigestMismatch,
    UsageError, InvalidInput (the file is too large).
    """
    algorithm, wanted = "sha256", ""
    if checksum:
        found = _CHECKSUM.fullmatch(checksum)
        if found is None:
            raise UsageError(f"ADD --checksum '{checksum[:100]}' is not valid", hint="write sha256:<64 digits>")
        algorithm, wanted = found[1], found[2]
    try:
        name = posixpath.basename(unquote(urlsplit(url).path)) or "download"
    except ValueError as e:
        raise UsageError(f"'{url}' is not a URL: {e}") from None
    if name in (".", "..") or "\0" in name or "/" in name:
        raise UsageError(f"the URL '{url}' names no file")
    hashes = {"sha256": hashlib.sha256(), algorithm: hashlib.new(algorithm)}
    path = f"{directory}/{name}"
    with _response(url) as response:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            size = 0
            for piece in _pieces(response, url):
                size += len(piece)
                if size > _LIMIT:
                    raise InvalidInput(f"'{url}' is larger than {_LIMIT >> 30} GiB")
                for one in hashes.values():
                    one.update(piece)
                file.write(piece)
        modified = _moment(response.headers.get("Last-Modified", ""))
    if wanted and hashes[algorithm].hexdigest() != wanted:
        raise DigestMismatch(f"'{url}' has {algorithm} {hashes[algorithm].hexdigest()}, not the one of --checksum")
    time = modified if modified is not None else moment
    os.utime(path, (time, time))
    return Fetched(f"sha256:{hashes['sha256'].hexdigest()}", name, modified or 0)


def _pieces(response: BaseHTTPResponse, url: str) -> Iterator[bytes]:
    """The pieces of the body. Raises RegistryError for a connection that breaks off, so that half a file is no file."""
    from urllib3.exceptions import HTTPError

    try:
        yield from response.stream(_PIECE)
    except HTTPError as e:
        raise RegistryError(f"cannot download '{url}': {reason_of(e)}") from e


def _response(url: str) -> BaseHTTPResponse:
    import urllib3

    objected = literal_objection(urlsplit(url).hostname or "")
    if objected:
        raise RegistryError(f"cannot download '{url}': refused, {objected}")
    pool = guard_pool(
        urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=_CONNECT, read=_CONNECT), retries=urllib3.Retry(3, redirect=_REDIRECTS)
        )
    )
    proxy = _proxy(url)
    if proxy:
        pool = urllib3.ProxyManager(proxy, timeout=urllib3.Timeout(connect=_CONNECT, read=_CONNECT))
    try:
        response = pool.request(
            "GET", url, preload_content=False, headers={"User-Agent": "rootless-build", "Accept-Encoding": "identity"}
        )
    except urllib3.exceptions.HTTPError as e:
        raise RegistryError(f"cannot download '{url}': {e}") from e
    if response.status != 200:
        response.release_conn()
        raise RegistryError(f"cannot download '{url}': the server answers {response.status} {response.reason}")
    return response


def _proxy(url: str) -> str:
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    if parts.hostname and proxy_bypass(parts.hostname):
        return ""
    return getproxies().get(parts.scheme, "")


def _moment(text: str) -> int | None:
    try:
        return int(email.utils.parsedate_to_datetime(text).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None
