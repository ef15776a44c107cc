"""The file `blobs.json` beside a layer's tree: which compressed forms of it were made, and where they were pushed.

It only saves work. It may be missing or out of date, so a registry is always asked whether it has a form.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from rootless.image.digest import is_digest
from rootless.paths import Lock, atomic_write
from rootless.records.fields import parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.storage.store.store import Store

_MAX_FORMS = 20
_MAX_PLACES = 20
_LIMIT = 1 << 20


class Form(NamedTuple):
    """One compressed form of a layer. repositories: `registry/repository` of those that have it, the latest first."""

    digest: str
    size: int
    repositories: tuple[str, ...] = ()


def read_forms(store: Store, chain_id: str) -> dict[str, Form]:
    """The forms of the layer, by the key of their compression."""
    try:
        with open(_path(store, chain_id), "rb") as file:
            document = parse_json(file.read(_LIMIT))
    except (OSError, ValueError):
        return {}
    found = {}
    for key, form in document.items() if isinstance(document, dict) else ():
        try:
            if is_digest(form["digest"]):
                found[str(key)] = Form(form["digest"], int(form["size"]), tuple(map(str, form["repositories"])))
        except (TypeError, KeyError, ValueError, OverflowError):
            continue
    return found


def remember_form(store: Store, chain_id: str, key: str, form: Form) -> None:
    """Note that compressing the layer by `key` gives `form`, and that the repositories of `form` have it."""
    with Lock(store.path("locks", "forms")):
        known = read_forms(store, chain_id)
        before = known.pop(key, None)
        places = (*form.repositories, *(before.repositories if before and before.digest == form.digest else ()))
        kept = {key: form._replace(repositories=tuple(dict.fromkeys(places))[:_MAX_PLACES])}
        kept |= list(known.items())[: _MAX_FORMS - 1]
        document = {name: form._asdict() for name, form in kept.items()}
        try:
            atomic_write(_path(store, chain_id), json.dumps(document).encode(), durable=False)
        except OSError:
            pass  # the layer is being removed, or the disk is full: the next push compresses the layer again


def _path(store: Store, chain_id: str) -> str:
    return f"{store.layers.path(chain_id)}/blobs.json"
