"""When a step is done again: content, mode and owner of files count, their times do not; digests are the same again."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import Runner, make_runner
from tests.integration.builder.conftest import Build, cached_steps, image_id, read_in

pytestmark = pytest.mark.once

DOCKERFILE = "FROM busybox\nCOPY file /copied\nRUN cat /copied > /seen\n"


def test_a_second_build_does_nothing(build: Build, context: Path) -> None:
    (context / "file").write_text("one")
    first = build(DOCKERFILE, "-t", "cached")
    assert cached_steps(first) == 0
    second = build(DOCKERFILE, "-t", "cached")
    assert cached_steps(second) == 2


def test_times_are_in_no_key_but_content_and_mode_are(build: Build, context: Path, busybox: Runner) -> None:
    file = context / "file"
    file.write_text("keyed")
    build(DOCKERFILE, "-t", "keyed")
    os.utime(file, (1, 1))
    assert cached_steps(build(DOCKERFILE, "-t", "keyed")) == 2
    file.write_text("other")
    assert cached_steps(build(DOCKERFILE, "-t", "keyed")) == 0
    assert read_in(busybox, "keyed", "cat", "/seen") == "other"
    file.write_text("keyed")
    assert cached_steps(build(DOCKERFILE, "-t", "keyed")) == 2
    assert read_in(busybox, "keyed", "cat", "/seen") == "keyed"
    file.chmod(0o755)
    assert cached_steps(build(DOCKERFILE, "-t", "keyed")) == 0
    assert read_in(busybox, "keyed", "stat", "-c", "%a", "/copied").strip() == "755"


def test_a_change_below_is_a_change_above(build: Build, context: Path, busybox: Runner) -> None:
    """TRAPS GO-2024-2512: the key covers the whole parent, so nothing below can be swapped."""
    build("FROM busybox\nRUN echo a > /below\nRUN cat /below > /above\n", "-t", "chain")
    again = build("FROM busybox\nRUN echo b > /below\nRUN cat /below > /above\n", "-t", "chain")
    assert cached_steps(again) == 0
    assert read_in(busybox, "chain", "cat", "/above") == "b\n"
    scratch = build(
        "FROM scratch\nCOPY --from=busybox /bin/busybox /bin/cat\nCOPY --from=chain /below /\n", "-t", "own"
    )
    assert cached_steps(scratch) == 0
    assert read_in(busybox, "own", "/bin/cat", "/below") == "b\n"


def test_arguments_user_and_directory_are_in_the_key(build: Build, busybox: Runner) -> None:
    text = "FROM busybox\nARG WHO\nRUN echo $WHO > /who; pwd > /where; id -u > /user\n"
    build(text, "--build-arg", "WHO=a", "-t", "args")
    assert cached_steps(build(text, "--build-arg", "WHO=a", "-t", "args")) == 1
    assert cached_steps(build(text, "--build-arg", "WHO=b", "-t", "args")) == 0
    assert read_in(busybox, "args", "cat", "/who") == "b\n"
    assert cached_steps(build(text.replace("RUN", "WORKDIR /tmp\nRUN"), "--build-arg", "WHO=b", "-t", "args")) == 0
    assert read_in(busybox, "args", "cat", "/where") == "/tmp\n"
    # an ARG that is declared after the step is none of its business
    late = "FROM busybox\nRUN echo early\nARG LATE\n"
    build(late, "--build-arg", "LATE=1")
    assert cached_steps(build(late, "--build-arg", "LATE=2")) == 1


def test_no_cache_does_all_again_with_the_same_digest(build: Build, context: Path, busybox: Runner) -> None:
    (context / "file").write_text("same")
    text = DOCKERFILE + "RUN mkdir /new && date +%N > /dev/null && echo x > /new/x && touch /bin/busybox\nWORKDIR /w\n"
    settled = {"ROOTLESS_BUILD_TIMES": "settled"}
    build(text, "-t", "first", env=settled)
    again = build(text, "--no-cache", "-t", "second", env=settled)
    assert cached_steps(again) == 0
    assert image_id(busybox, "first") == image_id(busybox, "second")
    only = build(text, "--no-cache-filter", "0", "-t", "third", env=settled)
    assert cached_steps(only) == 0


def test_what_run_writes_keeps_its_time(build: Build, context: Path, busybox: Runner) -> None:
    """A .pyc holds the time of its source: with another time in the image, every start would compile it again."""
    (context / "file").write_text("old")
    os.utime(context / "file", (1_500_000_000, 1_500_000_000))
    text = "FROM busybox\nCOPY file /\nRUN echo > /source && stat -c %Y /source > /compiled\n"
    build(text, "-t", "written")
    assert read_in(busybox, "written", "stat", "-c", "%Y", "/source") == read_in(busybox, "written", "cat", "/compiled")
    settled = build(text, "-t", "settled", env={"ROOTLESS_BUILD_TIMES": "settled"})
    assert cached_steps(settled) == 1  # the COPY: the RUN has another result
    found = read_in(busybox, "settled", "sh", "-c", "stat -c %Y /source; cat /compiled").split()
    assert found[0] != found[1] and int(found[0]) < int(found[1])
    assert cached_steps(build(text, "-t", "written")) == 2


def test_source_date_epoch_and_timestamp_bound_every_time(build: Build, context: Path, busybox: Runner) -> None:
    (context / "file").write_text("dated")
    text = DOCKERFILE + "ARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH > /epoch\n"
    build(text, "-t", "dated", "--timestamp", "1000000000")
    assert read_in(busybox, "dated", "stat", "-c", "%Y", "/copied", "/seen", "/epoch").split() == ["1000000000"] * 3
    assert read_in(busybox, "dated", "cat", "/epoch") == "1000000000\n"
    (context / "file").touch()
    build(text, "-t", "again", "--no-cache", env={"SOURCE_DATE_EPOCH": "1000000000"})
    assert image_id(busybox, "dated") == image_id(busybox, "again")


def test_source_date_epoch_of_the_dockerfile(build: Build, busybox: Runner) -> None:
    text = "ARG AT=1000000000\nARG SOURCE_DATE_EPOCH=$AT\nFROM busybox\n"
    text += "ARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH > /e\n"
    for flags, expected in (
        ((), "1000000000"),
        (("--build-arg", "AT=1100000000"), "1100000000"),
        (("--build-arg", "SOURCE_DATE_EPOCH=1200000000"), "1200000000"),
        (("--timestamp", "1300000000"), "1300000000"),
    ):
        build(text, "-t", "epoch", *flags)
        assert read_in(busybox, "epoch", "sh", "-c", "stat -c %Y /e; cat /e").split() == [expected] * 2
    # A context of this host has no time of its own
    build(text, "-t", "epoch", "--build-arg", "SOURCE_DATE_EPOCH=context")
    assert int(read_in(busybox, "epoch", "stat", "-c", "%Y", "/e")) > 1300000000
    for value in ("soon", "253402300800"):
        refused = build(text, "--build-arg", f"AT={value}", check=False)
        assert refused.returncode == 125
        assert f"SOURCE_DATE_EPOCH is not a number of seconds: '{value}'" in refused.stderr
    refused = build(text, "--timestamp", "253402300800", check=False)
    assert refused.returncode == 125 and "--timestamp is later than the year 9999" in refused.stderr


def test_a_copied_file_keeps_its_time(build: Build, context: Path, busybox: Runner) -> None:
    (context / "file").write_text("kept")
    os.utime(context / "file", (1234567890, 1234567890))
    build(DOCKERFILE, "-t", "kept")
    assert read_in(busybox, "kept", "stat", "-c", "%Y", "/copied").strip() == "1234567890"


def test_copy_from_a_stage_is_known_by_content(build: Build, busybox: Runner) -> None:
    text = "FROM busybox AS made\nRUN echo {} > /log; echo result > /result\nFROM busybox\nCOPY --from=made /result /\n"
    build(text.format("one"), "-t", "stages")
    again = build(text.format("two"), "-t", "stages")
    assert "[stage-1 2/2] COPY --from=made /result /\n#" in again.stderr
    assert cached_steps(again) == 1


def test_a_mount_from_a_stage_is_known_by_the_content_of_its_source(build: Build) -> None:
    text = """
FROM busybox AS made
RUN echo {log} > /log; mkdir -m {mode} /out; echo {result} > /out/result
FROM busybox
RUN --mount=from=made,source=/out,target=/in cat /in/result
RUN --mount=type=cache,from=made,source=/out,target=/in,id=content ls /in
"""
    build(text.format(log="one", mode="755", result="a"))
    assert cached_steps(build(text.format(log="two", mode="755", result="a"))) == 2
    assert cached_steps(build(text.format(log="two", mode="700", result="a"))) == 0
    assert cached_steps(build(text.format(log="three", mode="700", result="a"))) == 2
    assert cached_steps(build(text.format(log="three", mode="700", result="b"))) == 0


def test_pruning_forgets(store_root: Path, rootless: Runner, context: Path) -> None:
    rootless("image", "bootstrap", "busybox")
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo pruned > /file\n")
    rootless("build", "-q", str(context))
    rootless("image", "prune", "-f")
    # the image is gone, its layer is the cache's
    assert len(rootless("images", "-q").stdout.split()) == len(rootless("images", "-q", "busybox").stdout.split())
    assert cached_steps(rootless("build", str(context))) == 1
    listing = rootless("builder", "du").stdout
    assert "RUN /bin/sh -c echo pruned > /file" in listing
    before = len(list((store_root / "layers").iterdir()))
    rootless("image", "prune", "-af")
    assert "echo pruned" in rootless("builder", "prune", "-af").stdout
    assert rootless("builder", "du").stdout == "Total:\t0B\n"
    assert len(list((store_root / "layers").iterdir())) < before
    assert not list((store_root / "build-cache").iterdir())
    assert not list((store_root / "incoming").iterdir())


def test_a_cache_in_a_directory(busybox: Runner, build: Build, context: Path, store_root: Path) -> None:
    text = "FROM busybox\nRUN echo travelled > /file\nRUN cat /file > /copy\n"
    cache = context / "cache"
    build(text, "--cache-to", f"type=local,dest={cache}", "-q")
    archive = context / "busybox.tar"
    busybox("save", "-o", str(archive), "busybox")
    elsewhere = make_runner(store_root)
    elsewhere("load", "-i", str(archive))
    done = elsewhere("build", "--cache-from", f"type=local,src={cache}", "-t", "there", str(context))
    assert cached_steps(done) == 2
    assert read_in(elsewhere, "there", "cat", "/copy") == "travelled\n"


def test_an_image_that_carries_its_cache(busybox: Runner, build: Build, context: Path) -> None:
    text = "FROM busybox\nRUN echo inline > /file\n"
    build(text, "--cache-to", "type=inline", "-t", "carrier")
    busybox("builder", "prune", "-af")
    assert cached_steps(build(text, "--cache-from", "carrier", "-t", "again")) == 1
    busybox("builder", "prune", "-af")
    assert cached_steps(build(text)) == 0


STAGES = """
FROM busybox AS below
RUN echo "$(cat /proc/uptime)" > /noise; echo secret-word > /result
FROM below AS made
RUN cp /result /{taken}
FROM busybox
COPY --from=made /{taken} /{taken}
RUN cat /{taken} > /copy; echo {last} >> /copy
"""


@pytest.mark.parametrize("kind", ["inline", "min", "max"])
def test_a_cache_of_several_stages(busybox: Runner, build: Build, context: Path, store_root: Path, kind: str) -> None:
    """The stages that are only copied from are not built, although no image has their layers."""
    cache = context / "cache"
    first = STAGES.format(taken="taken", last="one")
    target = "type=inline" if kind == "inline" else f"type=local,dest={cache},mode={kind}"
    build(first, "--cache-to", target, "-t", "carrier")
    archive = context.parent / f"{context.name}.tar"
    busybox("save", "-o", str(archive), "busybox", *(["carrier"] if kind == "inline" else []))
    elsewhere = make_runner(store_root)
    elsewhere("load", "-i", str(archive))
    archive.unlink()
    source = "carrier" if kind == "inline" else f"type=local,src={cache}"

    def again(text: str) -> tuple[int, str]:
        (context / "Dockerfile").write_text(text)
        done = elsewhere("build", "--cache-from", source, "-t", "there", "--cache-to", "type=inline", str(context))
        return cached_steps(done), read_in(elsewhere, "there", "cat", "/copy")

    before = len(list((store_root / "layers").iterdir()))
    assert again(first) == (4, "secret-word\none\n")
    assert len(list((store_root / "layers").iterdir())) == before + (0 if kind == "inline" else 2)
    # Files of `made` are wanted, so it is built, or fetched where the cache has its layers
    assert again(first.replace("COPY --from=made", "COPY --from=made --chmod=600"))[1] == "secret-word\none\n"
    if kind != "inline":
        return
    assert again(first.replace("one", "two")) == (3, "secret-word\ntwo\n")
    assert again(STAGES.format(taken="other", last="two"))[1] == "secret-word\ntwo\n"
    config = elsewhere("image", "inspect", "there").stdout + elsewhere("history", "--no-trunc", "there").stdout
    assert "secret-word" not in config
    # What was built from a cache carries that cache on
    elsewhere("builder", "prune", "-af")
    (context / "Dockerfile").write_text(STAGES.format(taken="other", last="two"))
    assert cached_steps(elsewhere("build", "--cache-from", "there", str(context))) == 4


def test_builds_and_garbage_collection_at_once(build: Build, context: Path, busybox: Runner) -> None:
    """The same steps by several builds end in the same layers, and collection takes none of them."""
    (context / "file").write_text("at once")
    (context / "Dockerfile").write_text(DOCKERFILE + "RUN mkdir /d && cp /copied /d/\n")
    with ThreadPoolExecutor(4) as pool:
        words = ("build", "-q", "--no-cache", "--timestamp=1500000000")
        builds = [pool.submit(busybox, *words, "-t", f"once:{n}", str(context)) for n in range(3)]
        prune = pool.submit(busybox, "system", "prune", "-f")
        ids = {each.result().stdout for each in builds}
        prune.result()
    assert len(ids) == 1
    assert read_in(busybox, "once:1", "cat", "/d/copied") == "at once"
