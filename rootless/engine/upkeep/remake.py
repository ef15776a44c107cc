"""Makes a container's damaged config.json, launch.json and names files again from its record.

The record holds the options and what the plan made of them. The plan is made again from the options, the image that the
record names and this host. It is used only if all that the record says of the container comes out the same; otherwise
the container would start with other ids, mounts or limits than its user chose.
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from rootless.engine import image_in_use
from rootless.engine.container import host_facts
from rootless.engine.plan import networking
from rootless.engine.plan.bundle import MARK, mark_content
from rootless.engine.plan.container_plan import plan
from rootless.errors import HostLimit, NewerFormat, NotFound, RootlessError
from rootless.image.manifest import chain_ids
from rootless.paths import sync_paths
from rootless.records.json_file import read_record, write_record
from rootless.runtime.spec.oci_config import OciConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.engine.context import Engine
    from rootless.engine.plan.container_plan import ContainerFacts, ContainerPlan, Mounts
    from rootless.records.container import ContainerRecord
    from rootless.records.container_options import ContainerOptions

_AGREE = (
    "layers", "volumes", "labels", "id_map", "exposed", "network", "host", "mounts", "driver", "stop", "restart",
    "health", "hostname", "runtime", "names_directory", "command", "default_home",
)  # fmt: skip
"""Members of record.json that follow from options, image and host. The others are what the plan is made from."""


class Damage(NamedTuple):
    """A file of a container that is damaged or missing.

    name: the file's name in the container's directory; text: what is wrong; newer: the error of a file that a newer
    version wrote, which cannot be read but is no damage and must not be replaced.
    """

    name: str
    text: str
    newer: NewerFormat | None = None


def damages(engine: Engine, record: ContainerRecord) -> list[Damage]:
    """The damaged ones of the container's files that follow from its record, and so can be made again."""
    containers = engine.store.containers
    directory = containers.path(record.id)
    found = []
    try:
        config = OciConfig.from_json(read_record(f"{directory}/config.json", what="bundle"))
        is_marked = any(mount.source == f"{directory}/{MARK}" for mount in config.mounts)
        if is_marked and not os.path.exists(f"{directory}/{MARK}"):
            found.append(Damage(MARK, f"its file {MARK} is missing"))
    except RootlessError as e:
        found.append(Damage("config.json", e.message, e if isinstance(e, NewerFormat) else None))
    try:
        containers.read_launch(record.id)
    except RootlessError as e:
        found.append(Damage("launch.json", e.message, e if isinstance(e, NewerFormat) else None))
    if record.names_directory == directory:
        for name in networking.NAMES_FILES:
            try:
                if not os.stat(f"{directory}/{name}").st_size and name != "resolv.conf":
                    found.append(Damage(name, f"its file {name} is empty"))
            except OSError:
                found.append(Damage(name, f"its file {name} is missing"))
    return found


def remake(engine: Engine, record: ContainerRecord, damaged: list[Damage], set_aside: Callable[[str], None]) -> str:
    """Make the damaged files of a container again, and return a text about what was done.

    set_aside: is called with the path of each damaged file, to keep it elsewhere. Raises NewerFormat; HostLimit, with
    the reason and what the user can do, where the files would not be what they were.
    """
    for damage in damaged:
        if damage.newer is not None:
            raise damage.newer
    names = {damage.name for damage in damaged}
    directory = engine.store.containers.path(record.id)
    if names.intersection(networking.NAMES_FILES) - {"resolv.conf"} and _is_empty(f"{directory}/resolv.conf"):
        # An empty resolv.conf may be right, so that `damages` does not report it. Beside other damaged names files it
        # is taken for damaged as well
        names.add("resolv.conf")
    if "config.json" in names and not os.path.lexists(f"{directory}/{MARK}"):
        names.add(MARK)
    options = record.options
    try:
        planned = _plan(engine, record, options)
    except RootlessError as e:
        hint = f" ({e.hint})" if e.hint else ""
        raise _refusal(record, directory, f"{e.message}{hint}") from e
    taken = _environment(record, directory, options) if "config.json" in names else ""
    for name in sorted(names):
        if os.path.lexists(f"{directory}/{name}"):
            set_aside(f"{directory}/{name}")
    try:
        if "config.json" in names:
            write_record(f"{directory}/config.json", planned.config_json())
        if "launch.json" in names:
            engine.store.containers.write_launch(record.id, planned.launch)
        if MARK in names:
            networking.write_readable(f"{directory}/{MARK}", mark_content(record))
        if record.names_directory == directory:
            networking.write_names_files(directory, planned.hostname, options, planned.facts.network, names)
            sync_paths((*(f"{directory}/{name}" for name in networking.NAMES_FILES), directory))
    except OSError as e:
        raise HostLimit(f"cannot write below '{directory}': {e.strerror}") from e
    return f"made again from its record: {', '.join(sorted(names))}{taken}"


def _is_empty(path: str) -> bool:
    try:
        return not os.path.getsize(path)
    except OSError:
        return False


def _plan(engine: Engine, record: ContainerRecord, options: ContainerOptions) -> ContainerPlan:
    """The plan of the container as its record has it. Raises HostLimit, NotFound where it cannot be the same again.

    Where the root file system is a copy, the time of copying is lost with launch.json: `diff` then compares the bytes
    of all files, and not only of those changed since.
    """
    nodename = os.uname().nodename
    if record.host != nodename:
        raise HostLimit(f"it was made on the host '{record.host}'", hint="repair it there")
    try:
        entry = engine.store.index.load(record.manifest_digest)
    except RootlessError as e:
        raise HostLimit(
            f"the image that it was made from is not here: {e.message}", hint=f"rootless pull {record.image}"
        ) from e
    image = image_in_use.ImageInUse(
        record.image, entry, image_in_use.defaults(entry), tuple(chain_ids(entry.config.diff_ids))
    )
    known = options._replace(name=record.name, storage_driver=record.driver)
    facts = _as_recorded(engine, record, host_facts.look(engine, known, image, container_id=record.id))
    planned = plan(known, host_facts.image_facts(image), facts, engine.settings)
    now, then = (json.loads(json.dumps(each.to_json())) for each in (planned.record, record))
    if differing := [member for member in _AGREE if now[member] != then[member]]:
        raise HostLimit(f"its options would give another container now: the record differs in {', '.join(differing)}")
    return planned


def _as_recorded(engine: Engine, record: ContainerRecord, facts: ContainerFacts) -> ContainerFacts:
    """The facts with what was chosen at random when the container was made: names of anonymous volumes, host ports.

    Raises NotFound for a volume or bind source that is gone: a new one in its place would be empty.
    """
    mounts = _with_volumes(record, facts.mounts)
    for volume in mounts.volumes:
        if not engine.store.volumes.exists(volume):
            raise NotFound(f"its volume '{volume}' is gone", hint=f"rootless volume create {volume}")
    for path in mounts.new_directories:
        raise NotFound(f"its bind source '{path}' is gone", hint=f"mkdir -p {path}")
    mounts = mounts._replace(new_volumes=())
    return facts._replace(mounts=mounts, network=facts.network._replace(ports=tuple(record.network.ports)))


def _with_volumes(record: ContainerRecord, mounts: Mounts) -> Mounts:
    """The mounts, with the anonymous volumes that the container has in the place of planned new ones."""
    own = {mount.target: mount for mount in record.mounts if mount.anonymous}
    drawn = {each.source: own[each.target] for each in mounts.described if each.anonymous and each.target in own}
    names = {each.name: drawn[each.source].name for each in mounts.described if each.source in drawn}
    return mounts._replace(
        resolved=tuple(
            each._replace(source=drawn[each.source].source) if each.source in drawn else each
            for each in mounts.resolved
        ),
        described=tuple(drawn.get(each.source, each) for each in mounts.described),
        seeds=tuple(
            type(each)(drawn[each.source].source, each.target) if each.source in drawn else each
            for each in mounts.seeds
        ),
        volumes=tuple(names.get(name, name) for name in mounts.volumes),
    )


def _environment(record: ContainerRecord, directory: str, options: ContainerOptions) -> str:
    """A text that names the variables and files whose present values go into the container's environment.

    `-e NAME` takes the caller's value when the container is made, and --env-file the file's lines; config.json alone
    has kept them. Raises HostLimit for a variable that the caller does not have now.
    """
    names = [text for text in options.env if "=" not in text]
    if missing := [name for name in names if name not in os.environ]:
        raise _refusal(
            record,
            directory,
            f"the value of {', '.join(missing)} came from the environment of the command that made it "
            f"(set what it was, and repair again: {' '.join(f'{name}=…' for name in missing)} rootless system check "
            "--repair)",
        )
    sources = [*(f"{name} of your environment" for name in names), *(f"'{path}'" for path in options.env_file)]
    return f", with what {' and '.join(sources)} says now" if sources else ""


def _refusal(record: ContainerRecord, directory: str, reason: str) -> HostLimit:
    return HostLimit(
        f"it would not be made again as it was: {reason}",
        hint=f"what it has written is in '{directory}/upper'; rootless rm -f {record.id[:12]} removes it",
    )
