"""A host with systemd's hybrid layout: a cgroup2 mount without controllers beside v1."""

from __future__ import annotations

from tests.vm.test_v1 import (  # noqa: F401
    test_a_limit_is_one_warning,
    test_stats_pause_and_top_work_without_a_cgroup,
    test_strict_limits_make_it_an_error,
)
