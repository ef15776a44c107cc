"""From options to the members of launch.json: what a container's monitor does besides what config.json says. Pure.

The format of that file is in records.launch.
"""

from __future__ import annotations

from collections.abc import Mapping

from rootless.engine.settings import Settings
from rootless.errors import UsageError
from rootless.records.container import StopSettings
from rootless.records.container_options import ContainerOptions
from rootless.records.launch import CgroupPlan, HealthPlan, LogPlan, RestartPlan
from rootless.units import parse_duration, parse_size, whole_number

_SECOND = 1_000_000_000  # nanoseconds, in which the configs of docker's images count


def restart_policy(text: str, *, rm: bool) -> RestartPlan:
    """The policy of --restart: no, on-failure[:N], always or unless-stopped.

    Raises UsageError for other texts, and as docker does for a policy together with --rm.
    """
    name, colon, count = text.partition(":")
    if name not in ("no", "", "on-failure", "always", "unless-stopped"):
        raise UsageError(f"invalid restart policy '{text}'", hint="use no, on-failure[:N], always or unless-stopped")
    number = whole_number(count, (1 << 31) - 1)
    if colon and (name != "on-failure" or number is None):
        raise UsageError(f"invalid restart policy '{text}'", hint="only on-failure takes a number: on-failure:3")
    if rm and name not in ("no", ""):
        raise UsageError("conflicting options: cannot specify both --restart and --rm")
    return RestartPlan(name or "no", number or 0)


def health_check(options: ContainerOptions, image: Mapping[str, object] | None) -> HealthPlan | None:
    """The health check of a container: the image's, changed by the flags --health-*; None when there is none.

    Times are in seconds. As with docker one below 1 ms raises UsageError: by an Interval of 1 ns the author of an image
    could keep the host busy.
    """
    asked = (
        options.health_cmd,
        options.health_interval,
        options.health_timeout,
        options.health_retries,
        options.health_start_period,
        options.health_start_interval,
    )
    if options.no_healthcheck:
        if any(value is not None for value in asked):
            raise UsageError("conflicting options: --no-healthcheck conflicts with --health-* options")
        return None
    base = image or {}
    given = base.get("Test")
    test = [str(word) for word in given] if isinstance(given, list | tuple) else []
    if options.health_cmd is not None:
        test = ["CMD-SHELL", options.health_cmd] if options.health_cmd else []
    if not test or test[0] == "NONE":
        return None

    def seconds(flag: str, text: str | None, name: str, default: float) -> float:
        if text is not None:
            value = parse_duration(text, flag)
            if 0 < value < 0.001:
                raise UsageError(f"{flag} cannot be less than 1ms")
            return value or default
        saved = base.get(name)
        if not isinstance(saved, int) or saved <= 0:
            return default
        if saved < _SECOND // 1000:
            raise UsageError(
                f"{name} in Healthcheck of the image cannot be less than 1ms", hint=f"give {flag}, or --no-healthcheck"
            )
        return min(saved, (1 << 63) - 1) / _SECOND

    if options.health_retries is not None and options.health_retries < 0:
        raise UsageError("--health-retries cannot be negative")
    retries = options.health_retries or base.get("Retries")
    plan = HealthPlan(test)
    plan.interval = seconds("--health-interval", options.health_interval, "Interval", plan.interval)
    plan.timeout = seconds("--health-timeout", options.health_timeout, "Timeout", plan.timeout)
    plan.retries = min(retries, (1 << 31) - 1) if isinstance(retries, int) and retries > 0 else plan.retries
    plan.start_period = seconds("--health-start-period", options.health_start_period, "StartPeriod", 0.0)
    start_interval = options.health_start_interval
    plan.start_interval = seconds("--health-start-interval", start_interval, "StartInterval", plan.start_interval)
    return plan


def log_settings(options: ContainerOptions, settings: Settings, directory: str) -> LogPlan:
    """The log of a container, by --log-driver and --log-opt, else by the settings.

    directory: the container's own, which holds the log. Raises UsageError for unknown drivers and options.
    """
    driver = options.log_driver or settings.log_driver
    if driver in ("local", "k8s-file"):
        driver = "json-file"  # docker's `local` and podman's `k8s-file` are files that `logs` reads, which is ours too
    if driver not in ("json-file", "none"):
        raise UsageError(f"log driver '{driver}' is not known", hint="use json-file or none")
    size, files = settings.log_max_size, settings.log_max_file
    for text in options.log_opt:
        name, _, value = text.partition("=")
        if name == "max-size":
            size = -1 if value == "-1" else parse_size(value, "--log-opt max-size")
        elif name == "max-file" and (number := whole_number(value)):
            files = number
        else:
            raise UsageError(f"unknown log opt '{text}'", hint="known are max-size=SIZE and max-file=COUNT")
    return LogPlan(driver, f"{directory}/log", size, files)


def stop_settings(options: ContainerOptions, image_signal: str, settings: Settings) -> StopSettings:
    """The signal that stops the container, and the seconds after which SIGKILL follows (-1: it never does).

    The signal is that of --stop-signal, else the image's, else SIGTERM. Raises UsageError.
    """
    number = 15
    if options.stop_signal or image_signal:
        from rootless.engine.plan.signal_names import parse_signal

        if options.stop_signal:
            number = parse_signal(options.stop_signal, "--stop-signal")
        else:
            number = parse_signal(image_signal, "the image's STOPSIGNAL")
    timeout = settings.stop_timeout if options.stop_timeout is None else options.stop_timeout
    if timeout < -1:
        raise UsageError(f"--stop-timeout {timeout} is negative", hint="-1 waits for ever")
    return StopSettings(number, timeout)


def cgroup_settings(options: ContainerOptions, settings: Settings) -> CgroupPlan:
    """The container's cgroup and its limits, by the flags, else by the settings.

    Raises UsageError for wrong limits, and for limits of a container that is to have no cgroup.
    """
    limits = None
    if _asks_limits(options):
        from rootless.engine.plan.resources import resources

        limits = resources(options)
    mode = options.cgroups or settings.cgroups
    if limits and mode == "disabled":
        raise UsageError("conflicting options: limits need a cgroup, and --cgroups is disabled")
    strict = settings.strict_limits if options.strict_limits is None else options.strict_limits
    parent = options.cgroup_parent if options.cgroup_parent is not None else settings.cgroup_parent
    return CgroupPlan(mode, parent, limits, strict=strict)


def _asks_limits(options: ContainerOptions) -> bool:
    """Whether a flag asks for a limit. Most containers have none, and their start need not load the limits' classes."""
    asked = (
        options.memory,
        options.memory_swap,
        options.memory_reservation,
        options.memory_swappiness,
        options.oom_kill_disable,
        options.cpus,
        options.cpu_period,
        options.cpu_quota,
        options.cpu_shares,
        options.cpuset_cpus,
        options.cpuset_mems,
        options.pids_limit,
        options.blkio_weight,
        options.blkio_weight_device,
        options.device_read_bps,
        options.device_write_bps,
        options.device_read_iops,
        options.device_write_iops,
        options.cgroup_conf,
    )
    return any(value is not None and value is not False and value != () for value in asked)
