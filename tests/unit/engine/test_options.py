"""The small grammars: signals, policies, env files, filters, settings, columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootless.engine.container.listing import status_text
from rootless.engine.container.top import parse_columns
from rootless.engine.filters import Filters
from rootless.engine.plan import launchfile
from rootless.engine.plan.environment import merge_env, parse_env, parse_labels, read_lines
from rootless.engine.plan.identity import parse_userns
from rootless.engine.plan.networking import exposed_ports
from rootless.engine.plan.security import parse_device
from rootless.engine.plan.signal_names import parse_signal, signal_name
from rootless.engine.settings import Settings, load_settings
from rootless.errors import InvalidInput, UsageError
from rootless.records.container_options import ContainerOptions
from rootless.records.state import ContainerState
from rootless.storage.store.containers import check_name, suggest_name
from rootless.units import timestamp


def test_status_words() -> None:
    def shown(now: float, **facts: object) -> str:
        base = {"started_at": timestamp(1000), "finished_at": timestamp(2000), "exit_code": 3, "health": None}
        return status_text(ContainerState.from_json({**base, **facts}), now)

    assert shown(1010, status="running") == "Up 10 seconds"
    assert shown(1010, status="running", health={"status": "healthy"}) == "Up 10 seconds (healthy)"
    assert shown(2120, status="exited") == "Exited (3) 2 minutes ago"
    assert shown(2001, status="restarting") == "Restarting (3) 1 second ago"
    assert shown(0, status="created") == "Created"
    remote = ContainerState.from_json({"status": "running", "started_at": timestamp(1000)})
    remote.remote = "node7"
    assert status_text(remote, 1010) == "Up 10 seconds on node7"


def test_signals() -> None:
    assert [parse_signal(t, "x") for t in ("TERM", "sigterm", "9", "SIGRTMIN+3", "RTMAX-1", "RTMIN")] == [
        15,
        15,
        9,
        37,
        63,
        34,
    ]
    assert signal_name(37) == "SIGRTMIN+3"
    assert signal_name(15) == "SIGTERM"
    for text in ("", "0", "65", "FOO", "RTMIN+99", "-9", "_DFL"):
        with pytest.raises(UsageError):
            parse_signal(text, "--signal")


def test_restart_policies() -> None:
    assert launchfile.restart_policy("on-failure:3", rm=False).to_json() == {
        "name": "on-failure",
        "maximum_retry_count": 3,
    }
    for text in ("sometimes", "always:3", "on-failure:x", "on-failure:-1"):
        with pytest.raises(UsageError):
            launchfile.restart_policy(text, rm=False)
    with pytest.raises(UsageError, match="--rm"):
        launchfile.restart_policy("always", rm=True)


def test_health_checks() -> None:
    image = {"Test": ["CMD", "true"], "Interval": 5_000_000_000, "Retries": 7}
    options = ContainerOptions("i")
    found = launchfile.health_check(options, image)
    assert found is not None
    assert (found.test, found.interval, found.timeout, found.retries) == (["CMD", "true"], 5.0, 30.0, 7)
    changed = launchfile.health_check(options._replace(health_cmd="x y", health_timeout="2s"), image)
    assert changed is not None
    assert (changed.test, changed.timeout) == (["CMD-SHELL", "x y"], 2.0)
    assert launchfile.health_check(options._replace(no_healthcheck=True), image) is None
    assert launchfile.health_check(options, {"Test": ["NONE"]}) is None
    assert launchfile.health_check(options, None) is None
    with pytest.raises(UsageError):
        launchfile.health_check(options._replace(no_healthcheck=True, health_cmd="x"), image)


def test_stop_settings() -> None:
    options = ContainerOptions("i")
    stop = launchfile.stop_settings(options, "SIGINT", Settings())
    assert (stop.signal, stop.timeout) == (2, 10)
    given = options._replace(stop_signal="USR1", stop_timeout=-1)
    stop = launchfile.stop_settings(given, "SIGINT", Settings())
    assert (stop.signal, stop.timeout) == (10, -1)


def test_env_files(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_bytes("\ufeff# comment\n  A=1 # kept\r\nB\nC=\n\nD='q'\n".encode())
    host = {"B": "host"}
    pairs = parse_env(["A=2", "E"], [str(path)], host)
    assert pairs == [("A", "1 # kept"), ("B", "host"), ("C", ""), ("D", "'q'"), ("A", "2"), ("E", None)]
    assert merge_env([("E", "old")], pairs) == ["A=2", "B=host", "C=", "D='q'"]
    for text in ("=x\n", "A B=1\n"):
        path.write_text(text)
        with pytest.raises(UsageError):
            read_lines(str(path), "--env-file")
    with pytest.raises(UsageError):
        read_lines(str(tmp_path / "none"), "--env-file")


def test_labels() -> None:
    assert parse_labels(["a=b=c", "d"]) == {"a": "b=c", "d": ""}
    with pytest.raises(UsageError):
        parse_labels(["=x"])


def test_filters() -> None:
    filters = Filters({"label": ["a", "b=1"]}, ("label", "until"))
    assert filters.has_labels({"a": "", "b": "1"})
    assert not filters.has_labels({"a": "", "b": "2"})
    with pytest.raises(UsageError, match="invalid filter"):
        Filters({"nope": ["x"]}, ("label",))
    assert not Filters({"until": ["1h"]}, ("until",)).is_before(4e9)
    assert Filters({"until": ["1h"]}, ("until",)).is_before(0)


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(str(tmp_path), {}) == Settings()
    (tmp_path / "config.toml").write_text('storage_driver = "copy"\nlog_max_size = "1m"\nstop_timeout = 3\n')
    assert load_settings(str(tmp_path), {}).log_max_size == 1 << 20
    monkeypatch.setenv("ROOTLESS_STORAGE_DRIVER", "overlay")
    assert load_settings(str(tmp_path), {}).storage_driver == "overlay"
    assert load_settings(str(tmp_path), {"storage_driver": "fuse-overlayfs"}).storage_driver == "fuse-overlayfs"
    with pytest.raises(UsageError, match="cannot be"):
        load_settings(str(tmp_path), {"storage_driver": "zfs"})
    for text, words in (
        ("bogus = 1", "bogus"),
        ("stop_timeout = true", "number"),
        ("= 1", "not TOML"),
        ("network = 5", "text"),
    ):
        (tmp_path / "config.toml").write_text(text)
        with pytest.raises(InvalidInput, match=words):
            load_settings(str(tmp_path), {})


def test_userns_modes() -> None:
    assert parse_userns(None)[0] == "default"
    assert parse_userns("keep-id:uid=5,gid=6") == ("keep-id", (5, 6))
    for text in ("bogus", "keep-id:uid=x", "keep-id:foo=1", "host:1"):
        with pytest.raises(UsageError):
            parse_userns(text)


def test_devices() -> None:
    assert parse_device("/dev/fuse") == ("/dev/fuse", "/dev/fuse", "rwm")
    assert parse_device("/dev/fuse:r") == ("/dev/fuse", "/dev/fuse", "r")
    assert parse_device("/dev/fuse:/dev/x:rw") == ("/dev/fuse", "/dev/x", "rw")
    for text in ("fuse", "/dev/a:/dev/b:x", "/dev/a:/../etc", "/dev/a:b"):
        with pytest.raises(UsageError):
            parse_device(text)


def test_exposed_ports() -> None:
    assert exposed_ports(("80", "80/tcp", "53/udp", "1-3")) == [
        (80, "tcp"),
        (53, "udp"),
        (1, "tcp"),
        (2, "tcp"),
        (3, "tcp"),
    ]
    for text in ("x", "80/foo", "0", "70000", "5-2"):
        with pytest.raises(UsageError):
            exposed_ports((text,))


def test_top_columns() -> None:
    assert [title for title, _ in parse_columns(["-o", "pid,args"])] == ["PID", "COMMAND"]
    assert [title for title, _ in parse_columns([])][:3] == ["USER", "PID", "PPID"]
    with pytest.raises(UsageError):
        parse_columns(["-o", "bogus"])
    with pytest.raises(UsageError):
        parse_columns(["-Z"])


def test_made_up_names_are_names() -> None:
    for attempt in range(6):
        check_name(suggest_name(attempt))
