"""Git repositories as contexts and as sources of ADD: what an address asks for, and the files of that commit.

An address in a Dockerfile is a stranger's: git follows no transport that runs a program of the address's choice.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import parse_qsl

from rootless.builder.dockerfile.problems import did_you_mean
from rootless.errors import DigestMismatch, HostLimit, RegistryError, UsageError

_COMMIT = re.compile(r"[0-9a-f]{7,64}", re.ASCII)  # whole (40 digits, or 64 by SHA-256) or its first digits
_SHA256_DIGITS = 64
_GIT_TIMEOUT = 3600.0  # seconds for one git command
_KEYS = ("ref", "tag", "branch", "commit", "checksum", "subdir", "keep-git-dir", "submodules")
_FLAGS = ("keep-git-dir", "submodules")  # the keys that may stand without a value, which is true then


class Fetched(NamedTuple):
    """What was fetched.

    identity: digest or commit, for cache keys; name: of the file, "" for a directory; newest: the time of the newest
    file in seconds, 0 where the server gives none.
    """

    identity: str
    name: str
    newest: int


class Repository(NamedTuple):
    """What an address asks for.

    text: the whole address, for messages; url: of the repository; reference: branch, tag or commit, "" for HEAD;
    subdirectory: the one whose files are wanted, "" for all; checksum: the first digits of the commit, "" for any;
    keeps_git_dir: whether `.git` comes too, None where nothing is said; has_submodules: whether submodules come too.
    """

    text: str
    url: str
    reference: str = ""
    subdirectory: str = ""
    checksum: str = ""
    keeps_git_dir: bool | None = None
    has_submodules: bool = True

    @staticmethod
    def parse(text: str) -> Repository:
        """The parts of URL[?KEY=VALUE&...][#REFERENCE[:SUBDIRECTORY]], by BuildKit's rules. Raises UsageError."""
        address, _, fragment = text.partition("#")
        url, _, query = address.partition("?")
        reference, _, subdirectory = fragment.partition(":")
        values = _query(text, query)
        tag, branch = (_whole(kind, values.get(name, "")) for name, kind in (("tag", "tags"), ("branch", "heads")))
        checksum = _one(text, "commit", values.get("commit", ""), values.get("checksum", ""))
        reference = _one(text, "reference", reference, values.get("ref", ""), tag, branch) or checksum
        if reference.startswith("-"):
            raise UsageError(f"'{reference}' cannot be a git reference")  # it would be an option for git
        return Repository(
            text,
            url,
            reference,
            _one(text, "directory", subdirectory, values.get("subdir", "")),
            checksum,
            _flag(text, values, "keep-git-dir"),
            _flag(text, values, "submodules") is not False,
        )

    def with_flags(self, checksum: str, keeps_git_dir: bool | None) -> Repository:
        """The same with the flags of ADD, which must not contradict the address. Raises UsageError."""
        if None not in (keeps_git_dir, self.keeps_git_dir) and keeps_git_dir != self.keeps_git_dir:
            raise UsageError(f"'{self.text}' and --keep-git-dir contradict each other")
        return self._replace(
            checksum=_one(self.text, "commit", self.checksum, checksum),
            keeps_git_dir=self.keeps_git_dir if keeps_git_dir is None else keeps_git_dir,
        )


def _query(text: str, query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _KEYS:
            hint = f"known are {', '.join(_KEYS)}"
            raise UsageError(f"'{text}': unknown key '{name}'{did_you_mean(name, _KEYS)}", hint=hint)
        if name in found:
            raise UsageError(f"'{text}': '{name}' is given twice")
        if not value and name not in _FLAGS:
            raise UsageError(f"'{text}': '{name}' has no value")
        found[name] = value
    return found


def _whole(kind: str, name: str) -> str:
    """The full name of a tag or branch, so that one of the other kind with the same name is not meant."""
    prefix = f"refs/{kind}/"
    return f"{prefix}{name.removeprefix(prefix)}" if name else ""


def _one(text: str, what: str, *values: str) -> str:
    """The value among `values` that is not empty, "" for none. Raises UsageError for two that differ."""
    given = list(dict.fromkeys(value for value in values if value))
    if len(given) > 1:
        raise UsageError(f"'{text}' asks for more than one {what}: '{given[0]}' and '{given[1]}'")
    return given[0] if given else ""


def _flag(text: str, values: dict[str, str], name: str) -> bool | None:
    if name not in values:
        return None
    return parse_flag(values[name] or "true", f"'{text}': '{name}'")


def parse_flag(value: str, what: str) -> bool:
    """The boolean that `value` means, in the words that Go's ParseBool knows. what: for errors. Raises UsageError."""
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise UsageError(f"{what} is true or false, not '{value[:100]}'")


def clone(source: Repository, directory: str, log: Callable[[str], None]) -> Fetched:
    """Bring the files of the commit that `source` means into the empty `directory`; all get the commit's time.

    log: gets lines about what takes time. Raises RegistryError, DigestMismatch, UsageError, HostLimit (there is no
    git).
    """
    work = f"{directory}.git"
    git = _Git(_git_program(), work, log)
    _begin(git, work, source, is_sha256=len(_digits(source.reference)) == _SHA256_DIGITS)
    wanted = _fetch(git, work, source)
    git("checkout", "-q", "--detach", wanted)
    if source.has_submodules:
        git("submodule", "update", "-q", "--init", "--recursive")
    commit = git("rev-parse", "HEAD").strip()
    if source.checksum and not commit.startswith(source.checksum):
        tag = git("rev-parse", wanted).strip()  # an annotated tag is an object of its own, and may be what is meant
        if not tag.startswith(source.checksum):
            raise DigestMismatch(f"'{source.text}' is at commit {commit}, not at '{source.checksum}' as is asked for")
    time = int(git("show", "-s", "--format=%ct", "HEAD").strip() or 0)
    if not source.keeps_git_dir:
        shutil.rmtree(f"{work}/.git")
    top = _below(work, source.subdirectory)
    _settle(top, time)
    for name in os.listdir(top):
        os.rename(f"{top}/{name}", f"{directory}/{name}")
    parts = f"git:{commit}:{source.subdirectory}:{bool(source.keeps_git_dir)}"
    return Fetched(parts if source.has_submodules else f"{parts}:without submodules", "", time)


def _digits(reference: str) -> str:
    return reference if _COMMIT.fullmatch(reference) else ""


def _begin(git: _Git, work: str, source: Repository, *, is_sha256: bool) -> None:
    """Make the empty repository `work`, in the place of one that was begun with the other hash."""
    if os.path.isdir(work):
        shutil.rmtree(work)
    os.mkdir(work, 0o700)
    git("init", "-q", f"--object-format={'sha256' if is_sha256 else 'sha1'}")
    git("remote", "add", "origin", "--", source.url)


def _fetch(git: _Git, work: str, source: Repository) -> str:
    """Fetch what is needed of `source`, and return the name of what is to be checked out. Raises RegistryError."""
    reference = source.reference or "HEAD"
    if _fetch_shallow(git, reference):
        return "FETCH_HEAD"
    # Which hash names the objects of a repository is known by the server alone, and asked where something failed
    listed = git("ls-remote", "origin", "HEAD", reference)
    if any(len(line.split("\t")[0]) == _SHA256_DIGITS for line in listed.splitlines()):
        _begin(git, work, source, is_sha256=True)
        if _fetch_shallow(git, reference):
            return "FETCH_HEAD"
    # The server gives no single commits, or no shallow history: fetch everything
    if not _digits(reference):
        git("fetch", "-q", "origin", reference)
        return "FETCH_HEAD"
    git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
    try:
        git("rev-parse", "-q", "--verify", f"{reference}^{{commit}}")
    except RegistryError:
        hint = "there may be none, or several that begin so: write all digits, or name a branch or tag"
        raise RegistryError(f"'{source.text}': no branch or tag has the commit '{reference}'", hint=hint) from None
    return reference


def _fetch_shallow(git: _Git, reference: str) -> bool:
    try:
        git("fetch", "-q", "--depth", "1", "origin", reference)
    except RegistryError:
        return False
    return True


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
