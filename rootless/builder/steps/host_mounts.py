"""--volume, as podman's build has it: directories and files of the host that each RUN sees. They get into no layer."""

from __future__ import annotations

from rootless.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.builder.session.build_session import BuildSession
    from rootless.engine.plan.bundle import ResolvedMount


def resolve(session: BuildSession) -> tuple[ResolvedMount, ...]:
    """The mounts that the texts of --volume ask for.

    Raises UsageError for a source that is missing, and for what is no path of the host: a volume that a step fills
    would outlive the build.
    """
    from rootless.engine.plan.mount_sources import resolve_mounts
    from rootless.engine.types import ImageDefaults
    from rootless.records.container_options import ContainerOptions

    options = ContainerOptions(image="", volume=session.options.volume)
    found = resolve_mounts(session.engine, options, ImageDefaults(), session.id_map)
    if found.volumes:
        hint = "write DIRECTORY:PATH; RUN --mount=type=cache keeps files between builds"
        raise UsageError("--volume: a build mounts directories of the host, and no volumes", hint=hint)
    if found.chown:
        hint = "give the files to the user of the step yourself"
        raise UsageError("--volume: the option U is not for builds", hint=hint)
    for path in found.new_directories:
        raise UsageError(f"--volume: '{path}' does not exist")
    for warning in found.warnings:
        session.engine.warn(warning)
    return found.resolved
