"""A host without the tun module: neither pasta nor slirp4netns can connect a container."""

from __future__ import annotations

from tests.conftest import Runner


def test_no_network_is_one_line_with_the_remedy(here: Runner) -> None:
    here("image", "bootstrap", "busybox")
    outcome = here("run", "--rm", "busybox", "true", check=False)
    assert outcome.returncode == 125
    assert outcome.stderr.count("\n") == 1
    assert "/dev/net/tun" in outcome.stderr


def test_host_and_none_work(here: Runner) -> None:
    for mode in ("host", "none"):
        assert here("run", "--rm", f"--network={mode}", "busybox", "echo", "hi").stdout == "hi\n"
