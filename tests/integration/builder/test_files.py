"""COPY and ADD by docker's rules, and what hostile contexts and archives try."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from tests.conftest import Runner
from tests.integration.builder.conftest import Build, inspect, layers, names_of_top, read_in


def listing(busybox: Runner, name: str, *paths: str) -> list[str]:
    """Mode, owner and name of everything below paths."""
    lines = read_in(busybox, name, "find", *paths, "-exec", "stat", "-c", "%a %u:%g %n", "{}", ";").splitlines()
    return sorted(lines, key=lambda line: line.split()[-1])


def fill(context: Path) -> None:
    (context / "dir/sub").mkdir(parents=True)
    (context / "dir").chmod(0o755)
    (context / "dir/sub").chmod(0o750)
    for name, mode in (("a.txt", 0o644), ("b.md", 0o600), ("dir/c.txt", 0o644), ("dir/sub/d.sh", 0o755)):
        (context / name).write_text(name)
        (context / name).chmod(mode)
    (context / "dir/link").symlink_to("c.txt")


def test_where_files_go(build: Build, context: Path, busybox: Runner) -> None:
    fill(context)
    build(
        """
FROM busybox
WORKDIR /work/deep
COPY a.txt b.md relative/
COPY a.txt /new/name
COPY dir /whole
COPY dir/ /whole2/
COPY *.txt *.md /wild/
COPY --parents dir/sub/d.sh /kept/
COPY --parents ./dir/./sub/d.sh /pivot/
COPY --exclude=**/*.sh --exclude=link dir /most
COPY --chown=7:8 --chmod=640 a.txt /owned
COPY --chmod=u=rwX,go= dir /changed
COPY --chown=root:root a.txt /named
COPY <<one <<-two /inline/
first $HOME
one
	second
two
""",
        "-t",
        "places",
    )
    whole = [("755", ""), ("644", "/c.txt"), ("777", "/link"), ("750", "/sub"), ("755", "/sub/d.sh")]
    expected = {
        "/kept": [("755", ""), ("755", "/dir"), ("750", "/dir/sub"), ("755", "/dir/sub/d.sh")],
        "/most": [("755", ""), ("644", "/c.txt"), ("750", "/sub")],
        "/new": [("755", ""), ("644", "/name")],
        "/pivot": [("755", ""), ("750", "/sub"), ("755", "/sub/d.sh")],
        "/whole": whole,
        "/whole2": whole,
        "/wild": [("755", ""), ("644", "/a.txt"), ("600", "/b.md")],
        "/work": [
            ("755", ""),
            ("755", "/deep"),
            ("755", "/deep/relative"),
            ("644", "/deep/relative/a.txt"),
            ("600", "/deep/relative/b.md"),
        ],
    }
    for top, entries in expected.items():
        assert listing(busybox, "places", top) == [f"{mode} 0:0 {top}{path}" for mode, path in entries]
    assert [line.split()[0] for line in listing(busybox, "places", "/changed")] == ["700", "600", "777", "700", "700"]
    assert read_in(busybox, "places", "cat", "/inline/one", "/inline/two") == "first \nsecond\n"


def test_chmod_is_for_the_directories_that_are_made(build: Build, context: Path, busybox: Runner) -> None:
    """As BuildKit since 2025 (fsutil's #228), and not for those that are there."""
    fill(context)
    lines = ("COPY --chmod=750 a.txt /m/n/a.txt", "ADD --chmod=u=rwx,go= b.md /m/o/", "COPY --chmod=711 <<x /p/x", "x")
    build("\n".join(("FROM busybox", *lines)) + "\n", "-t", "modes")
    assert listing(busybox, "modes", "/m", "/p") == [
        *(f"750 0:0 {path}" for path in ("/m", "/m/n", "/m/n/a.txt")),
        "700 0:0 /m/o",
        "700 0:0 /m/o/b.md",
        "711 0:0 /p",
        "711 0:0 /p/x",
    ]


def test_owners_reach_the_layers(build: Build, context: Path, busybox: Runner) -> None:
    """With one id they cannot be on disk, and are in the layer all the same."""
    fill(context)
    build("FROM busybox\nCOPY --chown=7:8 --chmod=640 a.txt /owned\nCOPY --chown=9 dir/ /tree/\n", "-t", "owners")
    *_, first, second = layers(busybox, "owners", context)
    owned = first.getmember("owned")
    assert (owned.uid, owned.gid, owned.mode) == (7, 8, 0o640)
    assert {(member.uid, member.gid) for member in second.getmembers()} == {(9, 9)}


def test_dockerignore_and_its_own_file(build: Build, context: Path, busybox: Runner) -> None:
    fill(context)
    (context / ".dockerignore").write_text("# secret things\n*.md\ndir\n!dir/sub\n")
    build("FROM busybox\nCOPY . /all/\n", "-t", "ignored")
    assert [line.split()[-1] for line in listing(busybox, "ignored", "/all")] == [
        "/all",
        "/all/.dockerignore",
        "/all/Dockerfile",
        "/all/a.txt",
        "/all/dir",
        "/all/dir/sub",
        "/all/dir/sub/d.sh",
    ]
    refused = build("FROM busybox\nCOPY b.md /\n", check=False)
    assert refused.returncode == 1
    assert "b.md" in refused.stderr and ".dockerignore" in refused.stderr and "Dockerfile:2" in refused.stderr
    (context / "other.dockerignore").write_text("a.txt\n")
    (context / "other").write_text("FROM busybox\nCOPY . /all/\n")
    busybox("build", "-f", str(context / "other"), "-t", "other", str(context))
    assert "/all/a.txt" not in read_in(busybox, "other", "find", "/all")
    # what is mounted is hidden as well
    build("FROM busybox\nRUN --mount=target=/mnt find /mnt > /seen\n", "-t", "mounted")
    seen = read_in(busybox, "mounted", "cat", "/seen").split()
    assert "/mnt/dir/sub/d.sh" in seen and "/mnt/b.md" not in seen and "/mnt/dir/c.txt" not in seen


@pytest.mark.parametrize("source", ["out/passwd", "../../../../../etc/passwd", "absolute", "out"])
def test_a_context_s_links_lead_nowhere_else(build: Build, context: Path, busybox: Runner, source: str) -> None:
    """TRAPS CVE-2024-1753 and its kin: sources stay inside of the context."""
    (context / "out").symlink_to("/etc")
    (context / "absolute").symlink_to("/etc/passwd")
    done = build(f"FROM busybox\nCOPY {source} /stolen\n", check=False)
    assert done.returncode == 1
    assert "no such file" in done.stderr


def test_links_that_are_copied_stay_links(build: Build, context: Path, busybox: Runner) -> None:
    (context / "tree").mkdir()
    (context / "tree/out").symlink_to("/etc/hostname")
    build("FROM busybox\nCOPY tree /tree\n", "-t", "links")
    assert read_in(busybox, "links", "readlink", "/tree/out") == "/etc/hostname\n"


def test_copy_from_stays_in_the_stage(build: Build, busybox: Runner) -> None:
    """TRAPS: COPY --from with `..` and with a link of the stage that leads to the host's files."""
    text = """
FROM busybox AS evil
RUN ln -s /proc/1/root /escape; ln -s ../../../../../../etc/shadow- /up; echo inside > /etc/inside
FROM busybox
COPY --from=evil ../../../../etc/inside /ok
"""
    build(text, "-t", "from")
    assert read_in(busybox, "from", "cat", "/ok") == "inside\n"
    for source in ("/escape/etc/shadow", "/up"):
        done = build(text + f"COPY --from=evil {source} /stolen\n", check=False)
        assert done.returncode == 1
        assert "no such file" in done.stderr


def test_a_destination_behind_a_link_stays_in_the_image(build: Build, context: Path, busybox: Runner) -> None:
    """TRAPS: the link is followed inside the root, never on the host."""
    (context / "file").write_text("x")
    target = context / "victim"
    target.mkdir()
    build(f"FROM busybox\nRUN ln -s {target} /door; mkdir -p {target}\nCOPY file /door/\n", "-t", "door")
    assert not list(target.iterdir())
    assert read_in(busybox, "door", "cat", f"{target}/file") == "x"


@pytest.mark.once
def test_links_at_the_destination_lead_to_what_is_written(build: Build, context: Path, busybox: Runner) -> None:
    """As in a chroot; a link that dangles gets what it leads to, and a link to a file stays one."""
    (context / "a").write_text("new")
    (context / "tree").mkdir()
    (context / "tree/leaf").write_text("leaf")
    (context / "tree/inner").symlink_to("leaf")
    text = r"""
FROM busybox
WORKDIR /d
RUN ln -s data /d/1; ln -s ../far/off /d/2; ln -s /d/3-file 3; echo old > 3-file; ln 3-file 3-other; \
    ln -s /made/file 4; ln -s 6 5; ln -s 5 6; ln -s data/. 7; ln -s /etc/../made/tree 8; ln -s leaf inner
COPY a /d/1/
COPY a /d/2/b
COPY a 3
COPY a 4
COPY a 7
COPY tree 8
COPY tree .
COPY <<EOF 4
inline
EOF
"""
    build(text, "-t", "at-links")
    shown = read_in(busybox, "at-links", "sh", "-c", "cd /; grep -r '' d/data d/3-file d/3-other made far; ls -l d")
    contents = [line for line in shown.splitlines() if "->" not in line and ":" in line.split()[0]]
    assert sorted(contents) == [
        "d/3-file:new",
        "d/3-other:old",
        "d/data/a:new",
        "far/off/b:new",
        "made/file:inline",
        "made/tree/inner:leaf",
        "made/tree/leaf:leaf",
    ]
    links = dict(line.split()[-3::2] for line in shown.splitlines() if " -> " in line)
    assert (links["3"], links["4"], links["inner"]) == ("/d/3-file", "/made/file", "leaf")
    for destination in ("5", "5/", "6/x"):
        endless = build(f"{text}COPY a {destination}\n", check=False)
        assert endless.returncode == 1 and "links" in endless.stderr


@pytest.mark.once
def test_a_pattern_without_a_match_copies_nothing(build: Build, context: Path, busybox: Runner) -> None:
    (context / "a").write_text("a")
    done = build("FROM busybox\nCOPY *.none /none/\nCOPY a *.none /some/\nADD ?? x* /none/\n", "-t", "unmatched")
    assert "nothing matches '*.none'" in done.stderr and "nothing matches '?? x*'" in done.stderr
    shown = read_in(busybox, "unmatched", "sh", "-c", "ls /some; test ! -e /none && echo none")
    assert shown.split() == ["a", "none"]
    stage = build("FROM busybox AS s\nFROM busybox\nCOPY --from=s /none* /x/\n", check=False)
    assert stage.returncode == 0
    assert build("FROM busybox\nCOPY nodir/*.none /x/\n", check=False).returncode == 1


@pytest.mark.once
def test_words_that_became_empty(build: Build, context: Path, busybox: Runner) -> None:
    (context / "a").write_text("a")
    text = "FROM busybox\nARG NO\nUSER nobody\nWORKDIR /w\nCOPY a $NO\nWORKDIR $NO\nEXPOSE $NO\nUSER $NO\n"
    build(f"{text}RUN id -u > u\n", "-t", "empty")
    assert read_in(busybox, "empty", "cat", "/w/a", "/w/u") == "a0\n"
    config = inspect(busybox, "empty")["Config"]
    assert config["WorkingDir"] == "/w" and not config.get("User") and not config.get("ExposedPorts")
    source = build("FROM busybox\nARG NO\nCOPY $NO /all/\n", check=False)
    assert source.returncode == 1 and "a source: '$NO' is empty" in source.stderr
    user = build("FROM busybox\nCOPY --chown=stranger a /\n", check=False)
    assert user.returncode == 1 and "stranger" in user.stderr


def test_set_id_bits_of_a_context_are_dropped(build: Build, context: Path, busybox: Runner) -> None:
    """They are kept where files keep their owners, in a whole root, and where --chmod asks for them."""
    (context / "d").mkdir()
    (context / "d/f").write_text("f")
    (context / "d/f").chmod(0o6755)
    (context / "d").chmod(0o3775)
    text = """
FROM root AS root
FROM busybox
COPY d/f /one
COPY . /whole
COPY --chmod=4711 d/f /asked
COPY --from=root /d /kept
"""
    build(text, "-t", "set-id", "--build-context", f"root={context}")
    paths = ("/one", "/whole/d", "/whole/d/f", "/asked", "/kept/f")
    shown = read_in(busybox, "set-id", "stat", "-c", "%a", *paths).split()
    assert shown == ["755", "1775", "755", "4711", "6755"]


def archive(path: Path, *members: tuple[str, dict]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, settings in members:
            content = settings.pop("content", b"")
            member = tarfile.TarInfo(name)
            for key, value in settings.items():
                setattr(member, key, value)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_add_unpacks_archives(build: Build, context: Path, busybox: Runner) -> None:
    archive(
        context / "files.tgz",
        ("top", {"type": tarfile.DIRTYPE, "mode": 0o750, "mtime": 1000}),
        ("top/file", {"content": b"packed", "mode": 0o4711, "mtime": 2000}),
        ("top/hard", {"type": tarfile.LNKTYPE, "linkname": "top/file"}),
        ("top/soft", {"type": tarfile.SYMTYPE, "linkname": "file", "mtime": 3000}),
        ("bin/new", {"content": b"n", "mode": 0o755}),
        ("top/pipe", {"type": tarfile.FIFOTYPE, "mode": 0o666, "uid": 7, "gid": 8, "mtime": 4000}),
        ("top/owned", {"type": tarfile.SYMTYPE, "linkname": "file", "uid": 7, "gid": 8, "mtime": 5000}),
    )
    (context / "plain.gz").write_bytes(b"\x1f\x8bno archive")
    build("FROM busybox\nADD files.tgz /\nADD plain.gz /\nADD --unpack=false files.tgz /whole/\n", "-t", "unpacked")
    shown = read_in(busybox, "unpacked", "stat", "-c", "%a %h %Y %n", "/top", "/top/file", "/top/soft").splitlines()
    assert shown == ["750 2 1000 /top", "4711 2 2000 /top/file", "777 1 3000 /top/soft"]
    members = {each.name: each for layer in layers(busybox, "unpacked", context) for each in layer.getmembers()}
    pipe, owned = members["top/pipe"], members["top/owned"]
    assert (pipe.mode, pipe.uid, pipe.gid, owned.uid, owned.gid) == (0o666, 7, 8, 7, 8)
    assert read_in(busybox, "unpacked", "ls", "/plain.gz", "/whole", "/bin/busybox", "/bin/new").split() == [
        "/bin/busybox",
        "/bin/new",
        "/plain.gz",
        "/whole:",
        "files.tgz",
    ]


@pytest.mark.once
def test_an_archive_replaces_what_is_in_its_place(build: Build, context: Path, busybox: Runner) -> None:
    """A directory of both is merged; anything else goes, be it a whole directory or a link to one."""
    archive(
        context / "over.tar.gz",
        ("file", {"content": b"new"}),
        ("link", {"type": tarfile.SYMTYPE, "linkname": "file"}),
        ("hard", {"type": tarfile.LNKTYPE, "linkname": "file"}),
        ("dir", {"type": tarfile.DIRTYPE, "mode": 0o700, "mtime": 1000}),
        ("dir/new", {"content": b"new"}),
        ("was-link", {"type": tarfile.DIRTYPE, "mtime": 2000, "mode": 0o755}),
        ("was-link/new", {"content": b"new"}),
        ("was-file", {"type": tarfile.DIRTYPE, "mode": 0o755}),
        ("twice", {"type": tarfile.DIRTYPE, "mtime": 3000}),
        ("twice/in", {"content": b"x"}),
        ("twice", {"content": b"a file in the end"}),
        ("through/new", {"content": b"new"}),
    )
    text = """
FROM busybox
RUN mkdir -p /o/file/deep/er /o/link/x /o/hard /o/dir/old /o/target && cd /o && touch file/deep/er/f target/stays && \\
    ln -s target was-link && ln -s target through && touch was-file
ADD over.tar.gz /o/
"""
    build(text, "-t", "over")
    show = "cd /o && find . -type d | sort && cat file link hard twice target/new && ls target"
    shown = read_in(busybox, "over", "sh", "-c", show).split("\n")
    assert shown == [
        *(".", "./dir", "./dir/old", "./target", "./was-file", "./was-link"),
        *("newnewnewa file in the endnewnew", "stays", ""),
    ]
    times = read_in(busybox, "over", "stat", "-c", "%Y %a", "/o/dir", "/o/was-link").splitlines()
    assert times == ["1000 700", "2000 755"]


@pytest.mark.parametrize(
    "members",
    [
        [("../../escape", {"content": b"x"})],
        [("link", {"type": tarfile.SYMTYPE, "linkname": "CONTEXT"}), ("link/escape", {"content": b"x"})],
        [("hard", {"type": tarfile.LNKTYPE, "linkname": "../../../../etc/passwd"})],
    ],
    ids=["dots", "through a link", "hard link"],
)
def test_a_hostile_archive_leaves_the_host_alone(build: Build, context: Path, members: list) -> None:
    """TRAPS: a tar with `..`, with a link out, with a hard link out."""
    for _, settings in members:
        if settings.get("linkname") == "CONTEXT":
            settings["linkname"] = str(context)
    archive(context / "evil.tar.gz", *members)
    done = build("FROM busybox\nADD evil.tar.gz /\n", check=False)
    assert not (context / "escape").exists() and not (context.parent / "escape").exists()
    assert done.returncode == 1
    assert "archive" in done.stderr or "dangling link" in done.stderr or "no directory" in done.stderr


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("time", {"pax_headers": {"mtime": "nan"}}, "malformed mtime"),
        ("owner", {"uid": 1 << 40}, "impossible entry"),
        ("long", {"pax_headers": {"comment": "x" * (2 << 20)}}, "header of"),
    ],
)
def test_an_archive_with_impossible_values_is_refused(
    build: Build, context: Path, name: str, settings: dict, words: str
) -> None:
    """TRAPS: caps on what an archive makes us keep in memory; what no system can hold is told in one line."""
    archive(context / "odd.tar.gz", (name, {"content": b"x", **settings}))
    done = build("FROM busybox\nADD odd.tar.gz /odd/\n", check=False)
    assert done.returncode == 1
    assert words in done.stderr and "Traceback" not in done.stderr


def test_hard_links_of_a_file_that_another_source_replaces(build: Build, context: Path, busybox: Runner) -> None:
    for directory in ("one", "two"):
        (context / directory).mkdir()
    (context / "one/x").write_text("first")
    (context / "two/x").write_text("second")
    os.link(context / "one/x", context / "two/y")
    build("FROM busybox\nCOPY one/ two/ /both/\n", "-t", "links")
    assert read_in(busybox, "links", "cat", "/both/x", "/both/y") == "secondfirst"


def test_a_pipe_can_be_added(build: Build, context: Path, busybox: Runner) -> None:
    os.mkfifo(context / "pipe")
    build("FROM busybox\nADD pipe /pipe\n", "-t", "pipe")
    assert read_in(busybox, "pipe", "stat", "-c", "%F", "/pipe") == "fifo\n"


def test_a_layer_holds_what_changed_and_nothing_else(build: Build, context: Path, busybox: Runner) -> None:
    """Generated files and mount points are in no layer, and a directory that was there is not copied for them."""
    (context / "file").write_text("f")
    build(
        "FROM busybox\nRUN --mount=target=/fresh/mnt --mount=type=tmpfs,target=/tmp/t echo x > /result\n", "-t", "clean"
    )
    assert names_of_top(busybox, "clean", context) == ["result"]
    build("FROM scratch\nCOPY --from=busybox /bin/busybox /bin/sh\nRUN echo x > /result\n", "-t", "bare")
    assert names_of_top(busybox, "bare", context) == ["result"]


def test_copy_link_does_not_follow(build: Build, context: Path, busybox: Runner) -> None:
    (context / "file").write_text("f")
    build("FROM busybox\nRUN ln -s /elsewhere /door && mkdir /elsewhere\nCOPY --link file /door/\n", "-t", "linked")
    assert read_in(busybox, "linked", "find", "/door", "/elsewhere").split() == ["/door", "/door/file", "/elsewhere"]
