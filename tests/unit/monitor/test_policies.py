"""Restart and health decisions, without a container."""

import pytest

from rootless.monitor.health import HealthStatus
from rootless.monitor.launch_spec import RestartPolicy
from rootless.records.state import HealthResult


@pytest.mark.parametrize(
    ("name", "code", "starts"),
    [
        ("no", 1, False),
        ("", 1, False),
        ("on-failure", 0, False),
        ("on-failure", 1, True),
        ("always", 0, True),
        ("unless-stopped", 3, True),
    ],
)
def test_when_a_container_starts_again(name: str, code: int, starts: bool) -> None:
    assert (RestartPolicy(name).next_delay(code, 1.0, stop_requested=False) is not None) is starts


@pytest.mark.parametrize("name", ["on-failure", "always", "unless-stopped"])
def test_asked_to_stop_it_stays_stopped(name: str) -> None:
    assert RestartPolicy(name).next_delay(1, 1.0, stop_requested=True) is None


def test_on_failure_counts() -> None:
    policy = RestartPolicy("on-failure", 2)
    assert [policy.next_delay(1, 0.1, stop_requested=False) is None for _ in range(3)] == [False, False, True]
    assert policy.count == 2


def test_delay_doubles_up_to_a_minute_and_begins_anew_after_a_good_run() -> None:
    policy = RestartPolicy("always")
    delays = [policy.next_delay(1, 0.1, stop_requested=False) for _ in range(12)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 60.0
    assert policy.next_delay(1, 10.0, stop_requested=False) == 0.1


def result(code: int) -> dict[str, object]:
    return HealthResult("", "", code, "")


def test_health_turns_after_retries_failures_in_a_row() -> None:
    status = HealthStatus(3, 0)
    seen = []
    for code in (1, 1, 0, 1, 1, 1, 0):
        status.add(result(code), age=99)
        seen.append(status.status)
    assert seen == ["starting", "starting", "healthy", "healthy", "healthy", "unhealthy", "healthy"]


def test_failures_in_the_start_period_do_not_count() -> None:
    status = HealthStatus(1, 10)
    status.add(result(1), age=5)
    assert (status.status, status.streak) == ("starting", 0)
    status.add(result(1), age=11)
    assert status.status == "unhealthy"


def test_a_success_ends_the_start_period() -> None:
    status = HealthStatus(1, 10)
    status.add(result(0), age=1)
    status.add(result(1), age=2)
    assert status.status == "unhealthy"


def test_only_five_results_are_kept() -> None:
    status = HealthStatus(3, 0)
    for code in range(9):
        status.add(result(code), age=1)
    assert [r.exit_code for r in status.facts().log] == [4, 5, 6, 7, 8]
