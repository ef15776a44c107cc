"""From an OCI bundle to a running process: the OCI runtime, as a library and as rootless-oci."""

SPECIFICATION_VERSION = "1.3.0"
"""The version of the OCI runtime specification that this runtime implements; minor and patch of a configuration are not
judged."""
CONFIG_VERSION = "1.0.2"
"""The version that the configurations which we write declare. It is the newest that crun of Debian 12 (1.8) takes:
other runtimes shall run what is written here, some judge the minor version, and nothing newer is used."""

# Docker's lists. These files are not namespaced: through them the kernel shows things of the whole host (keys, timers
# of all processes, the power draw, from which secrets of other programs can be computed: CVE-2020-8694), or lets them
# be changed (/proc/sys, /proc/sysrq-trigger). Most deny that to an ordinary user; the lists hold where one does not
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
