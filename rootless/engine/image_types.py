"""What the verbs of images take and give: immutable values, no behaviour, no I/O.

They stand apart from engine.types because `run` of an image that is here needs none of them.
"""

from __future__ import annotations

from typing import NamedTuple


class PullEvent(NamedTuple):
    """One step of a pull, load or import, for the progress display.

    id: short digest of the layer (12 hex), or "" for a line about the whole image. status: docker's words
    ("Pulling fs layer", "Already exists", "Waiting", "Downloading", "Extracting", "Pull complete", or a free line such
    as "Pulling from library/debian" when id is ""). current, total: bytes; total 0 = unknown.
    """

    id: str
    status: str
    current: int = 0
    total: int = 0


class RegistryOptions(NamedTuple):
    """How to talk to the registry of one command.

    tls_verify: None = registries.conf decides; False = this registry's certificate is not checked, and plain HTTP is
    tried when it speaks no TLS. authfile: path of a docker config.json (None: the usual places). credentials:
    "user:password". certificates: directory with *.crt, *.cert and *.key.
    """

    tls_verify: bool | None = None
    authfile: str | None = None
    credentials: str | None = None
    certificates: str | None = None


class ImageSummary(NamedTuple):
    """One image as `image ls` shows it; one row per name (untagged: one row with "<none>").

    created: seconds since the epoch (0.0 = unknown). size: bytes of the unpacked layers.
    """

    id: str  # sha256:<hex> of the config
    repository: str  # familiar ("debian", "ghcr.io/a/b") or "<none>"
    tag: str  # or "<none>"
    digest: str  # manifest digest sha256:<hex>
    created: float
    size: int
    labels: dict[str, str]
    containers: int  # containers made from it
    architecture: str
    os: str


class HistoryEntry(NamedTuple):
    """One row of `image history`, newest first."""

    id: str  # image id on the newest row, "<missing>" below, as docker
    created: float
    created_by: str
    size: int
    comment: str
    empty_layer: bool


class RemovedImage(NamedTuple):
    """What `rm` did: names untagged ("debian:12", "debian@sha256:...") and image or layer ids deleted, in order."""

    untagged: tuple[str, ...]
    deleted: tuple[str, ...]


class LoadedImage(NamedTuple):
    """One image that `load` brought: its names now (empty: loaded by id) and the names taken from another image."""

    id: str
    names: tuple[str, ...]
    replaced: tuple[tuple[str, str], ...] = ()  # (name, id of the image that had it)


class SaveOptions(NamedTuple):
    """How to save. format: docker-archive | oci-archive | oci-dir.

    compression: gzip, zstd or none, of the layers in OCI formats (None: as they were), of the whole docker-archive
    (None: not at all). level: of the compression.
    """

    format: str = "docker-archive"
    compression: str | None = None
    level: int | None = None


class PushOptions(NamedTuple):
    """How to push. format: oci | v2s2 (None: as the image is). compression: gzip | zstd | none for all layers (None:
    gzip for those that are not compressed). all: every platform of an index. chunk_size: bytes per request at most."""

    format: str | None = None
    compression: str | None = None
    compression_level: int | None = None
    all: bool = False
    chunk_size: int | None = None


class Pushed(NamedTuple):
    """What is in the registry now. name: the full reference; digest: of the manifest or index there."""

    name: str
    digest: str
    size: int


class CopyOptions(NamedTuple):
    """all: every platform of an index. platform: the one to take (None: this host's). format: oci | v2s2 (None: as it
    is, byte for byte)."""

    all: bool = False
    platform: str | None = None
    format: str | None = None


class Copied(NamedTuple):
    """What is there now: its digest at the destination, and where."""

    digest: str
    place: str


class ImageTreeNode(NamedTuple):
    """One layer. size: bytes on disk; made_by: the step of the history; images: names (or ids) of images that end here;
    users: number of images that need it; children: layers on top of it."""

    chain_id: str
    diff_id: str
    size: int
    made_by: str
    images: tuple[str, ...]
    users: int
    children: tuple[ImageTreeNode, ...]


class Tree(NamedTuple):
    """roots: base layers, the largest number of users first; bytes of all layers as they are, and as they were without
    sharing."""

    roots: tuple[ImageTreeNode, ...]
    images: int
    layers: int
    size: int
    unshared: int


class Details(NamedTuple):
    """What an entry says beside the digest; empty = as the image says, or as it was."""

    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()


class Attached(NamedTuple):
    """An artifact that was pushed: its full name by digest, and what it refers to."""

    name: str
    digest: str
    subject: str


class LoggedIn(NamedTuple):
    """What `login` did. program: the credential helper that keeps the password; "" = it lies in clear in `path`."""

    registry: str
    path: str
    program: str


class SearchResult(NamedTuple):
    """One line of `search`. stars: -1 = the registry does not say."""

    registry: str
    name: str
    description: str
    stars: int
    official: bool
    automated: bool


class Tag(NamedTuple):
    """One line of `search --list-tags`."""

    name: str
    tag: str


class Change(NamedTuple):
    """One line of `diff`. kind: A (added), C (changed) or D (deleted); path: absolute."""

    kind: str
    path: str
