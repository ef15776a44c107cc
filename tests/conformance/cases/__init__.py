"""The cases, one module per chapter of the specification; importing this package registers them all."""

from tests.conformance.cases import (
    commands,
    devices,
    filters,
    hooks,
    lifecycle,
    linux,
    mounts,
    process,
    spaces,
)

__all__ = ["commands", "devices", "filters", "hooks", "lifecycle", "linux", "mounts", "process", "spaces"]
