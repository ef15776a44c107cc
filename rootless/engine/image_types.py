"""What the verbs of images take and give: immutable values, no behaviour, no I/O.

They stand apart from engine.types because `run` of an image that is in the store needs none of them, and each costs
time to make.
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
    tried when it speaks no TLS, so that anybody on the way can read the credentials. authfile: path of a docker
    config.json (None: the usual places). credentials: "user:password". certificates: directory with *.crt, *.cert and
    *.key.
    """

    tls_verify: bool | None = None
    authfile: str | None = None
    credentials: str | None = None
    certificates: str | None = None


class PullOptions(NamedTuple):
    """How to pull an image.

    platform: "os/architecture[/variant]" of the image (None: this host's). policy: when to ask the registry: always |
    missing | never | newer. all_platforms: bring the images for all platforms of an index.
    """

    platform: str | None = None
    policy: str = "always"
    all_platforms: bool = False
    registry: RegistryOptions = RegistryOptions()


class PulledImage(NamedTuple):
    """What a pull has brought. id: the image's ("sha256:…"), or with all_platforms the digest of the index; name: the
    full name that it has now, which of a short name registries.conf has decided."""

    id: str
    name: str


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
    """What `image rm` did, in order: the names removed ("debian:12", "debian@sha256:...") and the image and layer ids
    deleted."""

    untagged: tuple[str, ...]
    deleted: tuple[str, ...]


class LoadedImage(NamedTuple):
    """One image that `load` brought. names: those that it has now (none if the archive has none); replaced: those of
    them that another image had before."""

    id: str
    names: tuple[str, ...]
    replaced: tuple[tuple[str, str], ...] = ()  # (name, id of the image that had it)


class SaveOptions(NamedTuple):
    """How to save images. format: docker-archive | oci-archive | oci-dir.

    compression: gzip, zstd or none; in OCI formats that of the layers (None: as they were), of a docker-archive that of
    the whole (None: it is not compressed). level: that of the compression (None: its default). tag: for oci-dir, what
    the layout calls the image: with a tag the directory may be a layout already, in which the image that had this tag
    gives way ("": the directory has to be new, and the image has its own names). platform: the one to save of an index
    (None: this host's).
    """

    format: str = "docker-archive"
    compression: str | None = None
    level: int | None = None
    tag: str = ""
    platform: str | None = None


class PushOptions(NamedTuple):
    """How to push an image.

    format: oci | v2s2 (None: that of the image). compression: gzip | zstd | none for all layers (None: gzip for those
    that are not compressed). all: push the images for all platforms of an index. chunk_size: bytes per request at most
    (None: no limit). platform: push only the image for it (None: this host's), without the index that it is in.
    """

    format: str | None = None
    compression: str | None = None
    compression_level: int | None = None
    all: bool = False
    chunk_size: int | None = None
    registry: RegistryOptions = RegistryOptions()
    platform: str | None = None


class Pushed(NamedTuple):
    """What a push has put into the registry. name: the full reference; digest, size: those of the manifest or index."""

    name: str
    digest: str
    size: int


class CopyOptions(NamedTuple):
    """How to copy an image.

    all: copy the images for all platforms of an index. platform: the one to copy (None: this host's). format: oci |
    v2s2 (None: as it is, byte for byte). source, destination: how to talk to the registry at that end, if it is one.
    """

    all: bool = False
    platform: str | None = None
    format: str | None = None
    source: RegistryOptions = RegistryOptions()
    destination: RegistryOptions = RegistryOptions()


class Copied(NamedTuple):
    """What a copy has put at its destination. digest: that of the manifest or index there; place: the destination."""

    digest: str
    place: str


class ImportOptions(NamedTuple):
    """The config of an image that is imported.

    changes: lines of a Dockerfile (CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER,
    VOLUME, WORKDIR). message: the comment in its history ("": where it was imported from). platform: the one it is for
    (None: this host's).
    """

    changes: tuple[str, ...] = ()
    message: str = ""
    platform: str | None = None


class CommitOptions(NamedTuple):
    """How to make an image of a container.

    changes: lines of a Dockerfile, as of ImportOptions. message: the comment in the history. pause: pause a running
    container meanwhile, as its files could change while they are read. squash: make one layer of the container and its
    whole image, instead of one more layer. format: oci | docker, the media types of manifest and config.
    """

    author: str = ""
    changes: tuple[str, ...] = ()
    message: str = ""
    pause: bool = True
    squash: bool = False
    format: str = "oci"


class ImageTreeNode(NamedTuple):
    """One layer in the tree of images.

    size: bytes on disk; made_by: the step of the history that made it; images: names (or ids) of the images whose last
    layer it is; users: how many images need it; children: the layers on top of it.
    """

    chain_id: str
    diff_id: str
    size: int
    made_by: str
    images: tuple[str, ...]
    users: int
    children: tuple[ImageTreeNode, ...]


class ImageTree(NamedTuple):
    """The layers of all images as trees.

    roots: the lowest layers, those with the most users first; images, layers: how many there are; size: bytes of all
    layers; unshared: the bytes that they would take if no image shared a layer with another.
    """

    roots: tuple[ImageTreeNode, ...]
    images: int
    layers: int
    size: int
    unshared: int


class EntryDetails(NamedTuple):
    """The details of an entry in a list of images. An empty one is taken from the image, or stays as it was."""

    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()


class EntryOptions(NamedTuple):
    """How an image is added to a list.

    details: those of its entry. all: of an index, add the images for all platforms. registry: how to talk to the
    registry that has the image.
    """

    details: EntryDetails = EntryDetails()
    all: bool = False
    registry: RegistryOptions = RegistryOptions()


class ListOptions(NamedTuple):
    """How to make a list of images.

    amend: add to a list that exists already. annotations: those of the list itself. entries: how its images are added.
    """

    amend: bool = False
    annotations: Mapping[str, str] = {}
    entries: EntryOptions = EntryOptions()


class ArtifactOptions(NamedTuple):
    """An artifact that is to be attached to an image.

    type: its media type ("": unknown). annotations: those of its manifest. platform: of an index, attach it to the
    image for this platform (None: to the index itself).
    """

    type: str = ""
    annotations: Mapping[str, str] = {}
    platform: str | None = None
    registry: RegistryOptions = RegistryOptions()


class Attached(NamedTuple):
    """An artifact that was pushed. name: in full, by its digest; subject: the digest of the image that it refers to."""

    name: str
    digest: str
    subject: str


class LoggedIn(NamedTuple):
    """What `login` did.

    path: the file that was written; program: the credential helper that keeps the password ("": nothing does, and it
    stands in `path` in clear).
    """

    registry: str
    path: str
    program: str


class SearchResult(NamedTuple):
    """One line of `search`. stars: -1 where the registry does not tell them."""

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
