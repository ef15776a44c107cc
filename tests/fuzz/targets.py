"""The targets: what reads bytes from outside, and what must hold for whatever it is given."""

from __future__ import annotations

import copy
import io
import os
import tarfile
import tempfile

from rootless.builder.context.ignore import Ignore
from rootless.builder.dockerfile import checks, graph
from rootless.builder.dockerfile.expand import Scope
from rootless.builder.dockerfile.parser import parse
from rootless.builder.dockerfile.problems import DockerfileError
from rootless.errors import RootlessError
from rootless.image.manifest import parse_manifest
from rootless.image.platform import Platform
from rootless.image.reference import parse_reference
from tests.fuzz.engine import Target

_LINUX = Platform("linux", "amd64")


def dockerfile(content: bytes) -> None:
    """Parse, check, plan and expand everything."""
    parsed = parse(content)
    checks.chosen(checks.findings_in(parsed), parsed.directives.checks)
    found = graph.plan(parsed, graph.Wanted(_LINUX, _LINUX))
    for node in found.order:
        scope = Scope(
            escape=parsed.directives.escape, environment={"PATH": "/bin"}, global_args=found.global_args, build_args={}
        )
        checks.findings_in_stage(node.instructions, copy.deepcopy(scope), lambda path: path.endswith("x"))
        for instruction in node.instructions:
            scope.enter(scope.expand(instruction))


def dockerignore(content: bytes) -> None:
    """Parse, then ask; what is excluded above must be walked when something below is not."""
    ignore = Ignore.parse(content)
    for path in ("a", "a/b", "a/b/c.go", ".git/x", "\udce9"):
        excluded = ignore.excludes(path)
        above = path.rpartition("/")[0]
        assert excluded or not above or not ignore.excludes(above) or ignore.may_hold(above)


def reference(content: bytes) -> None:
    """What is taken comes back the same from its own text."""
    found = parse_reference(content.decode("utf-8", "surrogateescape"))
    again = parse_reference(str(found))
    assert str(again) == str(found)
    assert str(parse_reference(found.familiar())) == str(found)


def manifest(content: bytes) -> None:
    """The bytes are kept as they are."""
    assert parse_manifest(content).raw == content


def tar(content: bytes) -> None:
    """Nothing appears, changes or vanishes outside of the directory."""
    from rootless.storage.layers.apply import Applier
    from rootless.storage.layers.attributes import LayerAttributes
    from rootless.storage.tar.inflate import Inflated
    from rootless.storage.tar.recipe import RecipeWriter
    from rootless.storage.tar.tarstream import TarStream

    mask = os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="rootless-fuzz-") as place, tempfile.TemporaryFile() as archive:
        root, beside = f"{place}/a/root", f"{place}/a/beside"
        os.makedirs(root)
        with open(beside, "w") as f:
            f.write("untouched")
        before = os.stat(beside)
        archive.write(content)
        archive.seek(0)
        directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with RecipeWriter.create(f"{place}/a") as recipe:
                notes = set(os.listdir(f"{place}/a"))
                source = Inflated(archive.fileno(), Inflated.codec(archive.fileno()), recipe)
                ids = [(os.getuid(), 1)], [(os.getgid(), 1)]
                try:
                    Applier(directory, LayerAttributes(*ids, single=True), recipe).apply(TarStream(source), source)
                    source.drain()
                finally:
                    source.stop()
        finally:
            os.close(directory)
            os.umask(mask)
            after = os.stat(beside)
            assert (after.st_mtime_ns, after.st_mode, after.st_nlink) == (before.st_mtime_ns, before.st_mode, 1)
            assert set(os.listdir(f"{place}/a")) == notes and os.listdir(place) == ["a"]
            _unlock(root)


def _unlock(root: str) -> None:
    """Modes from the archive must not keep the directory from being removed."""
    for directory, _, _ in os.walk(root, onerror=None):
        for entry in os.scandir(directory):
            if entry.is_dir(follow_symlinks=False):
                os.chmod(entry.path, 0o700)


def _tar_samples() -> tuple[bytes, ...]:
    samples = []
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
            for name, kind, target in (
                ("d", tarfile.DIRTYPE, ""), ("d/f", tarfile.REGTYPE, ""), ("d/s", tarfile.SYMTYPE, "../../beside"),
                ("d/s2", tarfile.SYMTYPE, "/"), ("d/h", tarfile.LNKTYPE, "d/f"), ("d/s/x", tarfile.REGTYPE, ""),
                ("../beside", tarfile.REGTYPE, ""), ("d/" + "n" * 150, tarfile.REGTYPE, ""),
                ("d/.wh.f", tarfile.REGTYPE, ""), ("d/.wh..wh..opq", tarfile.REGTYPE, ""), ("p", tarfile.FIFOTYPE, ""),
            ):  # fmt: skip
                member = tarfile.TarInfo(name)
                member.type, member.linkname, member.mode = kind, target, 0o755
                member.uid, member.gid = os.getuid(), os.getgid()
                member.size = 5 if kind == tarfile.REGTYPE and ".wh." not in name else 0
                archive.addfile(member, io.BytesIO(b"12345"))
        samples.append(stream.getvalue())
    whole = samples[0]
    benign = whole[: 5 * 512]  # up to the first link that leads out
    return (*samples, whole[:512] + bytes(1024), whole[512:1536] + bytes(1024), benign + bytes(1024))


TARGETS = {
    "dockerfile": Target(
        dockerfile,
        (DockerfileError,),
        (
            b"# syntax=x\n# escape=`\nARG A=1\nFROM a:$A AS b\nRUN --mount=type=cache,target=/c x `\n y\n",
            b"FROM a\nCOPY --from=b --chown=1:2 <<EOF <<-'X' f /d/\na $A ${A:-b}\nEOF\n\tq\n\tX\nFROM a AS b\n",
            b'FROM a\nENV A=1 B="x y" C=$A${B#x}\nENV D e f\nLABEL "a.b"=\'c\'\nCMD ["a"]\nONBUILD RUN <<E\nx\nE\n',
            b"FROM a\nHEALTHCHECK --interval=5s --retries=3 CMD x\nEXPOSE 80 90-99/udp\nVOLUME /a\nUSER ${X:-1}\n",
        ),
        tuple(
            b"FROM RUN COPY ADD ENV ARG LABEL CMD ENTRYPOINT ONBUILD HEALTHCHECK SHELL VOLUME EXPOSE USER WORKDIR AS "
            b"scratch --from=a --mount=type=bind,target=/x --chmod= --link --exclude=* <<EOF <<-\"X\" EOF $A ${A} "
            b"${A:-b} ${A##*/} ${A//x/y} ${A:?} [\"a\"] \\ ` \n # = ' \" \t \r\n \xff \x00 \xef\xbb\xbf".split(b" ")
        ),
    ),
    "dockerignore": Target(
        dockerignore,
        (DockerfileError,),
        (b"*\n!a/b\n**/*.go\n# x\n[a-c]?\n", b"a/**/b\n!**/c\n\\!x\n/d/\n", b"**foo\nfoo**\n*a*a*a*a*b\n"),
        (b"**", b"*", b"!", b"/", b"[", b"]", b"[^a-b]", b"\\", b"?", b"\n", b"..", b"a", b"\xe9", b"#"),
    ),
    "reference": Target(
        reference,
        (RootlessError,),
        (b"debian", b"docker.io/library/debian:12", b"[::1]:5000/a/b@sha256:" + b"a" * 64, b"host:5/x_y/z--w:t"),
        (b":", b"/", b"@", b"sha256:", b".", b"..", b"-", b"__", b"localhost", b"A", b"\xff", b"f" * 64, b"[", b"]"),
    ),
    "manifest": Target(
        manifest,
        (RootlessError,),
        (
            b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":'
            b'"application/vnd.oci.image.config.v1+json","digest":"sha256:' + b"a" * 64 + b'","size":2},"layers":[]}',
            b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":'
            b'"application/vnd.oci.image.manifest.v1+json","digest":"sha256:' + b"b" * 64 + b'","size":3,"platform":'
            b'{"os":"linux","architecture":"amd64"},"annotations":{"a":"b"}}]}',
        ),
        (b'"', b"{", b"}", b"[", b"]", b",", b"null", b"1e999", b"-1", b'"layers"', b'"manifests"', b'"size"', b"NaN",
         b'"\\ud800"', b'"sha512:"', b"9" * 30, b"[" * 300, b'"urls":["x"]', b"\xff"),
    ),
    "tar": Target(
        tar,
        (RootlessError,),
        _tar_samples(),
        (b"../", b"/", b"..", b".wh.", b".wh..wh..opq", b"\0" * 512, b"ustar\x0000", b"ustar  \0", b"0", b"1", b"2",
         b"5", b"x", b"L", b"K", b"g", b"12 path=../x\n", b"20 SCHILY.xattr.a=b\n", b"\x80", b"7777777"),
    ),
}  # fmt: skip
