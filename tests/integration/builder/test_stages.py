"""Stages, targets, arguments, triggers; what the image's config says; what comes out where."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.conftest import Runner
from tests.integration.builder.conftest import Build, cached_steps, image_id, inspect, layers, names_of_top, read_in


@pytest.mark.once
def test_unneeded_stages_are_skipped_and_a_target_is_enough(build: Build, busybox: Runner) -> None:
    text = """
FROM busybox AS broken
RUN exit 1
FROM busybox AS first
RUN echo first > /file
FROM first AS second
RUN echo second > /file
FROM busybox
COPY --from=second /file /copy
"""
    done = build(text, "-t", "stages")
    assert "exit 1" not in done.stderr
    assert read_in(busybox, "stages", "cat", "/copy") == "second\n"
    build(text, "--target", "first", "-t", "first")
    assert read_in(busybox, "first", "cat", "/file") == "first\n"
    wrong = build(text, "--target", "frist", check=False)
    assert wrong.returncode == 125 and "first" in wrong.stderr


@pytest.mark.once
def test_independent_stages_run_side_by_side(build: Build, busybox: Runner) -> None:
    """Each waits for the other one: one after the other they would never end."""
    wait = "n=0; until test -e /m/{other}; do usleep 100000; n=$((n+1)); test $n -lt 600 || exit 9; done"
    meet = "RUN --mount=type=cache,id=meeting-{run},target=/m touch /m/{me}; " + wait + "; echo {me} > /{me}"
    run = os.urandom(4).hex()
    text = f"""
FROM busybox AS left
{meet.format(run=run, me="left", other="right")}
FROM busybox AS right
{meet.format(run=run, me="right", other="left")}
FROM busybox
COPY --from=left /left /
COPY --from=right /right /
"""
    build(text, "--jobs", "2", "-t", "parallel")
    assert read_in(busybox, "parallel", "cat", "/left", "/right") == "left\nright\n"


@pytest.mark.once
def test_a_failure_ends_the_others(build: Build) -> None:
    text = """
FROM busybox AS slow
RUN sleep 1000
FROM busybox AS fails
RUN exit 3
FROM busybox
COPY --from=slow /bin /a
COPY --from=fails /bin /b
"""
    done = build(text, "--jobs", "2", check=False, timeout=90)
    assert "exit code: 3" in done.stderr


@pytest.mark.once
def test_arguments_reach_the_stages_that_stand_on_theirs(build: Build, busybox: Runner) -> None:
    text = """
FROM busybox AS a
ARG V=1 E=argument
ENV E=$V-environment
FROM a AS b
ARG W=$V-$E
RUN echo "$V $W $E" > /b
FROM b
ARG V
LABEL l=$W
ONBUILD RUN echo $V
RUN echo "$V" > /c
FROM busybox
COPY --from=b /b /
COPY --from=2 /c /
RUN echo "${V-unset}" > /d
"""
    build(text, "-t", "inherited")
    assert read_in(busybox, "inherited", "cat", "/b", "/c", "/d").splitlines() == [
        "1 1-1-environment 1-environment",
        "1",
        "unset",
    ]
    assert inspect(busybox, build(text, "-q", "--target", "2").stdout.strip())["Config"]["Labels"] == {
        "l": "1-1-environment"
    }
    build(text, "-t", "given", "--build-arg", "V=2")
    assert read_in(busybox, "given", "cat", "/b", "/c").splitlines() == ["2 2-2-environment 2-environment", "2"]


@pytest.mark.once
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_triggers_copy_from_stages_and_mount_them(build: Build, busybox: Runner, jobs: str) -> None:
    """The triggers are those of a base image, of whose needs the Dockerfile shows nothing, and of a stage."""
    build(
        """
FROM busybox
ONBUILD COPY --from=src /in /out/copied
ONBUILD ARG WHO
ONBUILD RUN --mount=from=mounted,target=/m cp /m/in /out/mounted; echo $WHO > /out/who
""",
        *("-t", "triggers"),
    )
    text = """
FROM busybox AS src
RUN echo src > /in
FROM src AS mounted
RUN echo mounted > /in
FROM busybox AS base
ONBUILD COPY --from=src /in /out/of-a-stage
FROM triggers AS whole
RUN echo own > /out/own
FROM base
COPY --from=whole /out/ /out/
"""
    done = build(text, "-t", "triggered", "--jobs", jobs, "--build-arg", "WHO=me", "--build-arg", "NOBODY=1")
    assert "'NOBODY' is not used" in done.stderr and "'WHO'" not in done.stderr
    shown = read_in(busybox, "triggered", "sh", "-c", "cd /out && grep '' *").splitlines()
    assert shown == ["copied:src", "mounted:mounted", "of-a-stage:src", "own:own", "who:me"]
    cycle = build("FROM triggers AS src\nRUN true\n", check=False)
    assert "copies from itself" in cycle.stderr and cycle.returncode == 125


@pytest.mark.once
def test_the_config(build: Build, busybox: Runner) -> None:
    text = """
ARG VERSION=1
FROM busybox AS base
ENTRYPOINT ["/inherited"]
CMD ["inherited"]
FROM base
ARG VERSION
ENV A="b c" D=e
LABEL one=1 two="$VERSION"
EXPOSE 80 53/udp
VOLUME ["/data", "/more"]
USER 0:0
WORKDIR /w
WORKDIR sub
STOPSIGNAL SIGINT
SHELL ["/bin/sh", "-e", "-c"]
HEALTHCHECK --interval=5s --retries=2 CMD test -e /ok
MAINTAINER somebody
ENTRYPOINT echo entry
ONBUILD RUN echo triggered > /triggered
"""
    build(text, "--label", "three=3", "--annotation", "an=notation", "-t", "config", "-t", "config:second")
    found = inspect(busybox, "config")
    config = found["Config"]
    assert {"A=b c", "D=e"} <= set(config["Env"])
    assert config["Labels"] == {"one": "1", "two": "1", "three": "3"}
    assert config["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert config["Volumes"] == {"/data": {}, "/more": {}}
    assert config["WorkingDir"] == "/w/sub"
    assert config["StopSignal"] == "SIGINT"
    assert config["Entrypoint"] == ["/bin/sh", "-e", "-c", "echo entry"]
    assert not config.get("Cmd")
    assert config["Healthcheck"]["Test"] == ["CMD-SHELL", "test -e /ok"]
    assert config["Healthcheck"]["Interval"] == 5_000_000_000
    assert found["Author"] == "somebody"
    assert {"config:latest", "config:second"} <= {name.rpartition("/")[2] for name in found["RepoTags"]}
    history = busybox("history", "--no-trunc", "--format", "{{.CreatedBy}}", "config").stdout.splitlines()
    assert history[0] == "ONBUILD RUN echo triggered > /triggered"
    assert 'ENTRYPOINT ["/bin/sh", "-e", "-c", "echo entry"]' in history
    assert "ENV A=b c D=e" in history
    build("FROM config\nRUN cat /triggered\n", "-t", "triggered")
    assert not inspect(busybox, "triggered")["Config"].get("OnBuild")
    shown = busybox("run", "--rm", "--network=none", "--entrypoint=cat", "triggered", "/triggered").stdout
    assert shown == "triggered\n"


@pytest.mark.once
def test_stdin(busybox: Runner, context: Path) -> None:
    busybox("build", "-q", "-t", "stdin", "-", input="FROM busybox\nRUN echo stdin > /file\n")
    assert read_in(busybox, "stdin", "cat", "/file") == "stdin\n"
    (context / "file").write_text("f")
    busybox("build", "-q", "-t", "stdin2", "-f", "-", str(context), input="FROM busybox\nCOPY file /\n")
    assert read_in(busybox, "stdin2", "cat", "/file") == "f"
    (context / "Dockerfile").write_text("FROM busybox\nCOPY file /packed\n")
    packed = subprocess.run(["tar", "-C", str(context), "-cz", "."], capture_output=True, check=True).stdout
    busybox("build", "-q", "-t", "stdin3", "-", input=packed)
    assert read_in(busybox, "stdin3", "cat", "/packed") == "f"


@pytest.mark.once
def test_named_contexts(build: Build, context: Path, busybox: Runner) -> None:
    (context / "more").mkdir()
    (context / "more/file").write_text("more")
    build(
        "FROM base\nCOPY --from=extra file /\nRUN --mount=from=extra,target=/m cat /m/file > /seen\n",
        "--build-context",
        f"extra={context / 'more'}",
        "--build-context",
        "base=docker-image://busybox",
        "-t",
        "named",
    )
    assert read_in(busybox, "named", "cat", "/file", "/seen") == "moremore"


def test_outputs(build: Build, context: Path, busybox: Runner) -> None:
    text = "FROM busybox AS made\nRUN mkdir /d && echo out > /d/file && ln -s file /d/link\n"
    text += "FROM scratch\nCOPY --from=made /d /d\n"
    before = busybox("images", "-q").stdout
    build(text, "-o", str(context / "out"))
    assert (context / "out/d/file").read_text() == "out\n"
    assert os.readlink(context / "out/d/link") == "file"
    assert (context / "out/d/file").stat().st_uid == os.getuid()
    build(text, "-o", f"type=tar,dest={context / 'out.tar'}")
    with tarfile.open(context / "out.tar") as archive:
        assert archive.getnames() == ["d", "d/file", "d/link"]
    build(text, "-o", f"type=oci,dest={context / 'oci.tar'}")
    build(text, "-o", f"type=docker,dest={context / 'docker.tar'}", "-t", "exported")
    assert busybox("images", "-q").stdout == before
    # the archive has the name, the store's image of that name stays what it was
    busybox("tag", "busybox", "exported")
    build(text, "-o", f"type=docker,dest={context / 'docker.tar'}", "-t", "exported", "-q")
    assert image_id(busybox, "exported") == image_id(busybox, "busybox")
    assert "exported" in busybox("load", "-i", str(context / "docker.tar")).stdout
    build(text, "--iidfile", str(context / "id"), "--metadata-file", str(context / "meta"), "-t", "filed")
    assert (context / "id").read_text() == image_id(busybox, "filed")
    assert json.loads((context / "meta").read_text())["containerimage.config.digest"] == image_id(busybox, "filed")
    assert build(text, "-q").stdout.strip() == image_id(busybox, "filed")


def test_squash(build: Build, context: Path, busybox: Runner) -> None:
    text = """
FROM busybox
RUN echo one > /one; mkdir -p /d/e; touch /d/e/f /d/g
RUN rm /one /etc/group; rm -r /d/e; echo two > /two
RUN rm -r /home; mkdir /home; touch /home/new
"""
    build(text, "-t", "plain")
    build(text, "--squash", "-t", "squashed")
    tree = "find / -xdev | grep -v -e ^/proc -e ^/sys -e ^/dev -e ^/etc/host -e ^/etc/resolv"
    files = [sorted(read_in(busybox, name, "sh", "-c", tree).split()) for name in ("plain", "squashed")]
    assert files[0] == files[1]
    assert "/etc/group" not in files[1] and "/d/g" in files[1]
    assert len(layers(busybox, "squashed", context)) == len(layers(busybox, "busybox", context)) + 1


@pytest.mark.once
def test_several_platforms_make_an_index(build: Build, context: Path, busybox: Runner) -> None:
    (context / "file").write_text("any")
    build(
        "FROM scratch\nARG TARGETARCH\nCOPY file /$TARGETARCH\n", "--platform", "linux/amd64,linux/arm64", "-t", "multi"
    )
    shown = json.loads(busybox("manifest", "inspect", "multi").stdout)
    assert sorted(each["platform"]["architecture"] for each in shown["manifests"]) == ["amd64", "arm64"]


@pytest.mark.once
def test_errors_of_the_file_show_the_line(build: Build) -> None:
    done = build("FROM busybox\nRUM echo\n", check=False)
    assert done.returncode == 125
    assert "Dockerfile:2" in done.stderr and "RUN" in done.stderr


@pytest.mark.once
def test_progress(build: Build) -> None:
    text = "FROM busybox\nRUN printf 'a\\nb\\n'\n"
    plain = build(text, "--progress=plain", "--no-cache")
    assert "#2 [2/2] RUN" in plain.stderr and " a\n" in plain.stderr
    lines = build(text, "--progress=rawjson", "--no-cache").stderr.splitlines()
    assert {json.loads(line)["event"] for line in lines} >= {"start", "output", "done"}
    assert build(text, "--progress=quiet").stderr == ""
    assert cached_steps(build(text)) == 1


def test_every_driver_and_fall_back_gives_the_same_image(build: Build, context: Path, busybox: Runner) -> None:
    """Layers do not tell how they were made: no trace of mount points, no copied directory, no time of now."""
    (context / "file").write_text("f")
    text = (
        "FROM busybox\nCOPY file /d/\nRUN --mount=target=/new/mnt cat /new/mnt/file > /etc/seen; rm /linuxrc\nRUN ls\n"
    )
    settings = [{}, {"ROOTLESS_STORAGE_DRIVER": "copy"}, {"ROOTLESS_NO_MOUNT_API": "1", "ROOTLESS_NO_OPENAT2": "1"}]
    if shutil.which("fuse-overlayfs") and os.access("/dev/fuse", os.R_OK | os.W_OK):
        settings.append({"ROOTLESS_STORAGE_DRIVER": "fuse-overlayfs"})
    ids = {build(text, "-q", "--no-cache", env=each | {"ROOTLESS_BUILD_TIMES": "settled"}).stdout for each in settings}
    assert len(ids) == 1
    assert names_of_top(busybox, ids.pop().strip(), context) == [".wh.linuxrc", "etc", "etc/seen"]


def save_layout(build: Build, busybox: Runner, directory: Path, tags: dict[str, str]) -> dict[str, str]:
    """One layout of several scratch images, each with a file /name that holds its tag. tags: tag → platforms.

    Gives the digest of each tag's manifest or index.
    """
    for tag, platforms in tags.items():
        build(f"FROM scratch\nCOPY <<EOF /name\n{tag}\nEOF\n", "--platform", platforms, "-t", f"localhost/lay:{tag}")
        busybox("copy", "--all", f"localhost/lay:{tag}", f"oci:{directory}:{tag}")
    index = json.loads((directory / "index.json").read_text())
    return {each["annotations"]["org.opencontainers.image.ref.name"]: each["digest"] for each in index["manifests"]}


def name_in_layout(build: Build, busybox: Runner, reference: str, *arguments: str) -> tuple[str, str]:
    """(the file /name, the architecture) of an image that is built on this image of a layout."""
    text = "FROM base AS there\nFROM busybox\nCOPY --from=there /name /name\n"
    build(text, "--build-context", f"base=oci-layout://{reference}", "-t", "on-busybox")
    build("FROM base\n", "--build-context", f"base=oci-layout://{reference}", "-t", "on-layout", *arguments)
    return read_in(busybox, "on-busybox", "cat", "/name").strip(), inspect(busybox, "on-layout")["Architecture"]


@pytest.mark.once
def test_a_layout_as_base_by_digest(build: Build, busybox: Runner, context: Path) -> None:
    layout = context / "layout"
    digest = save_layout(build, busybox, layout, {"one": "linux/amd64"})["one"]
    busybox("rmi", "localhost/lay:one")
    assert name_in_layout(build, busybox, f"{layout}@{digest}") == ("one", "amd64")
    assert name_in_layout(build, busybox, f"{layout}:one@{digest}") == ("one", "amd64")
    wrong = "sha256:" + "0" * 64
    refused = build("FROM base\n", "--build-context", f"base=oci-layout://{layout}@{wrong}", check=False)
    assert refused.returncode and digest in refused.stderr and wrong in refused.stderr
    malformed = build("FROM base\n", "--build-context", f"base=oci-layout://{layout}@sha256:0", check=False)
    assert "'sha256:0'" in malformed.stderr and "is not a digest" in malformed.stderr
    assert "localhost/lay" not in busybox("images").stdout, "the base got a name in the store"
    manifest = layout / "blobs" / digest.replace(":", "/")
    manifest.write_bytes(manifest.read_bytes() + b" ")
    damaged = build("FROM base\n", "--build-context", f"base=oci-layout://{layout}@{digest}", check=False)
    assert damaged.returncode and digest in damaged.stderr


@pytest.mark.once
def test_a_layout_as_base_by_tag(build: Build, busybox: Runner, context: Path) -> None:
    layout = context / "layout"
    digests = save_layout(build, busybox, layout, {"one": "linux/amd64", "two": "linux/amd64"})
    assert name_in_layout(build, busybox, f"{layout}:two") == ("two", "amd64")
    for reference, expected in (
        (f"{layout}:three", "no image with the tag 'three'"),
        (f"{layout}:one@{digests['two']}", digests["one"]),
        (f"{layout}", "has several images"),
        (f"{context}/nowhere:one", f"there is no OCI layout '{context}/nowhere:one'"),
    ):
        refused = build("FROM base\n", "--build-context", f"base=oci-layout://{reference}", check=False)
        assert refused.returncode and expected in refused.stderr, refused.stderr
    save_layout(build, busybox, layout, {"latest": "linux/amd64"})
    assert name_in_layout(build, busybox, f"{layout}") == ("latest", "amd64")


@pytest.mark.once
def test_a_layout_as_base_for_another_platform(build: Build, busybox: Runner, context: Path) -> None:
    layout = context / "layout"
    both = "linux/amd64,linux/arm64"
    save_layout(build, busybox, layout, {"both": both, "arm": "linux/arm64", "arms": "linux/arm64,linux/arm/v7"})
    assert name_in_layout(build, busybox, f"{layout}:both") == ("both", "amd64")
    assert name_in_layout(build, busybox, f"{layout}:both", "--platform", "linux/arm64") == ("both", "arm64")
    assert name_in_layout(build, busybox, f"{layout}:arm") == ("arm", "arm64"), "nobody asked for a platform"
    base = ("--build-context", f"base=oci-layout://{layout}:arm")
    refused = build("FROM base\n", *base, "--platform", "linux/s390x", check=False)
    assert refused.returncode and "'linux/arm64', not 'linux/s390x'" in refused.stderr
    refused = build("FROM base\n", "--build-context", f"base=oci-layout://{layout}:arms", check=False)
    assert refused.returncode and "no variant for platform 'linux/amd64'" in refused.stderr
