"""What the verbs of images take and give: immutable values, no behaviour, no I/O.

They stand apart from engine.types because `run` of an image that is here needs none of them.
"""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


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


class PullOptions(NamedTuple):
    """How to pull. platform: "os/architecture[/variant]" of the image (None: this host's). policy: when to ask the
    registry: always | missing | never | newer. all_platforms: bring every platform of an index."""

    platform: str | None = None
    policy: str = "always"
    all_platforms: bool = False
    registry: RegistryOptions = RegistryOptions()


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
    registry: RegistryOptions = RegistryOptions()


class Pushed(NamedTuple):
    """What is in the registry now. name: the full reference; digest: of the manifest or index there."""

    name: str
    digest: str
    size: int


class CopyOptions(NamedTuple):
    """How to copy. all: every platform of an index. platform: the one to take (None: this host's). format: oci | v2s2
    (None: as it is, byte for byte). source, destination: how to talk to the registry at that end, if one is there."""

    all: bool = False
    platform: str | None = None
    format: str | None = None
    source: RegistryOptions = RegistryOptions()
    destination: RegistryOptions = RegistryOptions()


class Copied(NamedTuple):
    """What is there now: its digest at the destination, and where."""

    digest: str
    place: str


class ImportOptions(NamedTuple):
    """What an imported image says. changes: Dockerfile lines (CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL,
    ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME, WORKDIR). message: the comment in its history ("": where it came from).
    platform: what it is for (None: this host's)."""

    changes: tuple[str, ...] = ()
    message: str = ""
    platform: str | None = None


class CommitOptions(NamedTuple):
    """How to make an image of a container. changes: Dockerfile lines, as for an import. message: the comment in the
    history. pause: freeze a running container meanwhile. squash: make one layer of the container and its whole image
    instead of one more layer. format: oci | docker, the media types of manifest and config."""

    author: str = ""
    changes: tuple[str, ...] = ()
    message: str = ""
    pause: bool = True
    squash: bool = False
    format: str = "oci"


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


class ImageTree(NamedTuple):
    """The layers of all images as trees. roots: base layers, the largest number of users first. size: bytes of all
    layers as they are; unshared: as they were if no image shared a layer with another."""

    roots: tuple[ImageTreeNode, ...]
    images: int
    layers: int
    size: int
    unshared: int


class EntryDetails(NamedTuple):
    """What an entry of a list of images says beside its digest; empty = as the image says, or as it was."""

    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()


class EntryOptions(NamedTuple):
    """How an image comes into a list. details: what its entry says. all: of an index take every platform.
    registry: how to talk to the registry that has the image."""

    details: EntryDetails = EntryDetails()
    all: bool = False
    registry: RegistryOptions = RegistryOptions()


class ListOptions(NamedTuple):
    """How to make a list of images. amend: add to one that is there. annotations: of the list itself.
    entries: how its images come into it."""

    amend: bool = False
    annotations: Mapping[str, str] = {}
    entries: EntryOptions = EntryOptions()


class ArtifactOptions(NamedTuple):
    """What is attached to an image. type: the artifact's media type ("": unknown). platform: of an index, attach to
    the image for this platform (None: to the index)."""

    type: str = ""
    annotations: Mapping[str, str] = {}
    platform: str | None = None
    registry: RegistryOptions = RegistryOptions()


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


class RepositoryTag(NamedTuple):
    """One line of `search --list-tags`."""

    name: str
    tag: str


class Change(NamedTuple):
    """One line of `diff`. kind: A (added), C (changed) or D (deleted); path: absolute."""

    kind: str
    path: str
