"""ADD and contexts from elsewhere: http(s) downloads with a checksum, git repositories. Nothing is unpacked here.

An address in a Dockerfile is a stranger's. Downloads are refused to addresses that `connection_guard` objects to, also
after a redirection (where a proxy is set, it decides what it connects to), and have a bound in size; git follows no
transport that runs a program of the address's choice.
"""

from __future__ import annotations

import email.utils
import hashlib
import os
import posixpath
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from rootless.builder.context.contexts import is_git
from rootless.errors import DigestMismatch, HostLimit, InvalidInput, RegistryError, UsageError
from rootless.image.distribution.answers import reason_of
from rootless.image.distribution.connection_guard import guard_pool, literal_objection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_CHECKSUM = re.compile(r"(sha256|sha384|sha512):([0-9a-f]{64,128})", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", re.ASCII)
_PIECE = 1 << 18
_LIMIT = 64 << 30  # bytes of one download
_GIT_TIMEOUT = 3600.0  # seconds for one git command
_CONNECT = 30.0  # seconds for connecting, and for each read
_REDIRECTS = 10


class Fetched(NamedTuple):
    """What was fetched.

    identity: digest or commit, for cache keys; name: of the file, "" for a directory; newest: the time of the newest
    file in seconds, 0 where the server gives none.
    """

    identity: str
    name: str
    newest: int


class RemoteSource(NamedTuple):
    """What ADD takes from elsewhere.

    text: URL or git repository; checksum: `ALGORITHM:DIGITS` of the download, or the first digits of the commit, "" for
    any; keeps_git_dir: --keep-git-dir; moment: the time, in seconds, that a file gets for which the server has none.
    """

    text: str
    checksum: str
    keeps_git_dir: bool
    moment: int


def fetch(source: RemoteSource, directory: str, log: Callable[[str], None]) -> Fetched:
    """Bring `source` into the empty `directory`. log: gets lines about what takes time.

    Raises RegistryError (the source cannot be reached), DigestMismatch, UsageError, HostLimit (there is no git).
    """
    if is_git(source.text):
        return clone(source.text, directory, checksum=source.checksum, keeps_git_dir=source.keeps_git_dir, log=log)
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


def clone(
    source: str, directory: str, *, checksum: str = "", keeps_git_dir: bool = False, log: Callable[[str], None]
) -> Fetched:
    """Bring the files of a repository's commit into the empty `directory`; every file gets the commit's time.

    source: URL[#REF[:SUBDIRECTORY]]; checksum: the first digits of the commit, "" for any. A REF that begins with `-`
    would be an option for git, and is refused. Raises RegistryError, DigestMismatch, UsageError, HostLimit.
    """
    url, _, fragment = source.partition("#")
    reference, _, below = fragment.partition(":")
    if reference.startswith("-"):
        raise UsageError(f"'{reference}' cannot be a git reference")
    git = _git_program()
    work = f"{directory}.git"
    os.mkdir(work, 0o700)
    run = _Git(git, work, log)
    run("init", "-q")
    run("remote", "add", "origin", "--", url)
    try:
        run("fetch", "-q", "--depth", "1", "origin", reference or "HEAD")
    except RegistryError:
        # The server gives no single commits, or no shallow history: fetch everything
        run("fetch", "-q", "origin", *([] if _COMMIT.fullmatch(reference) else [reference or "HEAD"]))
    run("checkout", "-q", "--detach", reference if _COMMIT.fullmatch(reference) else "FETCH_HEAD")
    run("submodule", "update", "-q", "--init", "--recursive")
    commit = run("rev-parse", "HEAD").strip()
    if checksum and not commit.startswith(checksum):
        raise DigestMismatch(f"'{source}' is at commit {commit}, not at that of --checksum")
    time = int(run("show", "-s", "--format=%ct", "HEAD").strip() or 0)
    if not keeps_git_dir:
        shutil.rmtree(f"{work}/.git")
    top = _below(work, below)
    _settle(top, time)
    for name in os.listdir(top):
        os.rename(f"{top}/{name}", f"{directory}/{name}")
    return Fetched(f"git:{commit}:{below}:{keeps_git_dir}", "", time)


def _below(work: str, below: str) -> str:
    top = os.path.realpath(f"{work}/{below}")
    if os.path.commonpath([top, os.path.realpath(work)]) != os.path.realpath(work) or not os.path.isdir(top):
        raise UsageError(f"the repository has no directory '{below}'")
    return top


def _settle(top: str, time: int) -> None:
    """Give all files the time of the commit. git gives them the present time, which no two builds share."""
    for parent, directories, names in os.walk(top, topdown=False):
        for name in (*names, *directories):
            os.utime(f"{parent}/{name}", (time, time), follow_symlinks=False)


def _git_program() -> str:
    from rootless.host.facts import find_helper

    program = find_helper("git")
    if program is None:
        raise HostLimit("git is not installed", hint="ask the administrator for: apt-get install git")
    return program


class _Git:
    def __init__(self, program: str, directory: str, log: Callable[[str], None]) -> None:
        self._program = program
        self._directory = directory
        self._log = log

    def __call__(self, *arguments: str) -> str:
        kept = ("PATH", "HOME", "SSH_AUTH_SOCK", "http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1"}
        # A repository is a stranger's: no hook runs, and the transport `ext::`, whose address is a command line, is
        # off. With `file` of "user", git takes local paths from the address alone and not from a submodule
        safe = ["-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "protocol.file.allow=user"]
        safe += ["-c", "log.showSignature=false"]  # a signature would be printed before the time that is asked for
        argv = [self._program, *safe, "-C", self._directory, *arguments]
        try:
            done = subprocess.run(argv, env=environment, capture_output=True, errors="replace", timeout=_GIT_TIMEOUT)
        except (OSError, subprocess.TimeoutExpired) as e:
            raise RegistryError(f"git {arguments[0]} failed: {e}") from e
        if done.returncode:
            raise RegistryError(f"git {arguments[0]} failed: {done.stderr.strip()[-500:]}")
        return done.stdout
