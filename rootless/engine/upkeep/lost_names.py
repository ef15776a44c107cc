"""The names that images had, as other files tell them, for the case that index.json is lost. It changes nothing."""

from __future__ import annotations

from rootless.engine import events
from rootless.engine.image.image_names import qualify
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine

_GIVES = ("tag", "import", "load")


def image_names(engine: Engine) -> dict[str, list[str]]:
    """Full names of images, by the digest of a config or a manifest.

    They are those that events gave, and those that containers were made from. The event of a pull has no id, so that a
    pulled image without a container gets no name back.
    """
    owners: dict[str, str] = {}
    for entry in events.stream_events(engine, since="0", follow=False, filters={"type": ["image"]}):
        name = _full(engine, entry.attributes.get("name", ""))
        if entry.action in _GIVES and name:
            owners[name] = entry.id
        elif entry.action == "untag" and owners.get(name) == entry.id:
            del owners[name]
        elif entry.action == "delete":
            owners = {each: owner for each, owner in owners.items() if owner != entry.id}
    for container_id in engine.store.containers.list():
        try:
            record = engine.store.containers.read(container_id)
        except RootlessError:
            continue
        name = _full(engine, record.image)
        if name and record.manifest_digest and not record.image_id.removeprefix("sha256:").startswith(record.image):
            owners.setdefault(name, record.manifest_digest)
    names: dict[str, list[str]] = {}
    for name, owner in owners.items():
        names.setdefault(owner, []).append(name)
    return names


def _full(engine: Engine, text: str) -> str:
    """The full name that `text` means, "" for a text that is no name."""
    if not text or text.startswith("sha256:"):
        return ""
    try:
        return str(qualify(engine, text)[0])
    except RootlessError:
        return ""
