"""The images of a store and their names. The file `index.json` of an OCI image layout says both (image-layout.md).

Each name is one descriptor with the annotation `org.opencontainers.image.ref.name`, whose value is the full reference.
An image without a name has one descriptor without the annotation. Every change reads the file, changes it and renames a
new one into its place, under the index lock. A name may mean an index of several platforms; where an image is asked
for, it stands for the one of this host. No blob is removed here.
"""

from __future__ import annotations

import errno
import json
import os
from typing import NamedTuple

from rootless.errors import InvalidInput, NotFound, RootlessError, UsageError
from rootless.image.digest import hex_of
from rootless.image.fields import as_mapping, load_json, text_member
from rootless.image.manifest import (
    CONFIG_TYPES,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    parse_manifest,
    select_manifest,
)
from rootless.paths import Lock, atomic_write, overwrite_file, sync_paths
from rootless.storage.store.blobs import Blobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rootless.image.fields import Fields

REF_NAME = "org.opencontainers.image.ref.name"
_MADE = "rootless.made"  # annotation: when this store made the image, in whole seconds since the epoch
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_LIMIT = 8 << 20
CONFIG_LIMIT = 8 << 20
_HEX = frozenset("0123456789abcdef")
_LEAST_RESERVE = 1 << 16  # bytes of the file that keeps room for changes on a full disk


class ImageEntry(NamedTuple):
    """One image of the store.

    config_digest: the image id; names: full references, sorted; index_digest: digest of the index that has the names,
    when the image is one platform of it, else ""; made: when it was built here, in seconds since the epoch, 0.0 when it
    was not.
    """

    manifest_digest: str
    config_digest: str
    names: tuple[str, ...]
    manifest: Manifest
    config: ImageConfig
    index_digest: str = ""
    made: float = 0.0

    @property
    def created_time(self) -> float:
        """When the image came into being, in seconds since the epoch: lists and `until` filters go by this time.

        It is the time of the build for an image that was built here. The config of such an image has the time of its
        base, so that the same build gives the same digest.
        """
        return self.made or self.config.created_time

    @property
    def named_digest(self) -> str:
        """The digest that the names mean: of the index to which the manifest belongs, else of the manifest."""
        return self.index_digest or self.manifest_digest


class NamedIndex(NamedTuple):
    """An index of several platforms with its names."""

    document: Index
    names: tuple[str, ...]


class _Listed:
    """A descriptor of index.json. Members of it that are not known here, as other tools write them, are kept."""

    __slots__ = ("_members", "digest")

    def __init__(self, members: Fields) -> None:
        self._members = members
        self.digest = text_member(members, "digest")
        hex_of(self.digest)

    @classmethod
    def of_descriptor(cls, descriptor: Descriptor, reference: str | None, made: float = 0.0) -> _Listed:
        """A descriptor with the full name `reference`, or without a name for None. made: as in ImageEntry."""
        members: Fields = {
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
        }
        annotations: Fields = {} if reference is None else {REF_NAME: reference}
        if made:
            annotations[_MADE] = str(int(made))
        if annotations:
            members["annotations"] = annotations
        return cls(members)

    @property
    def name(self) -> str | None:
        """The full name; None when the descriptor has none."""
        annotations = self._members.get("annotations")
        name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
        return name if isinstance(name, str) and name else None

    @property
    def made(self) -> float:
        """When the image was built here, as in ImageEntry."""
        annotations = self._members.get("annotations")
        made = annotations.get(_MADE) if isinstance(annotations, dict) else None
        return float(made) if isinstance(made, str) and len(made) <= 12 and made.isascii() and made.isdigit() else 0.0

    def without_name(self) -> _Listed:
        """The same image without its name."""
        annotations = as_mapping(self._members.get("annotations"), "annotations")
        others = {key: value for key, value in annotations.items() if key != REF_NAME}
        members = {key: value for key, value in self._members.items() if key != "annotations"}
        return _Listed({**members, "annotations": others} if others else members)

    def to_json(self) -> Fields:
        """The descriptor as JSON values."""
        return self._members


class ImageIndex:
    """The file `index.json`, and the manifests and configs to which it leads."""

    __slots__ = ("_blobs", "_lock", "_reserve", "path")

    def __init__(self, root: str, blobs: Blobs) -> None:
        self.path = f"{root}/index.json"
        self._lock = f"{root}/locks/index"
        self._reserve = f"{root}/locks/reserve"
        self._blobs = blobs

    def entries(self) -> list[ImageEntry]:
        """All images that can be read, in the order of the index; `broken` returns the others."""
        found = []
        for digest, listed in self._by_digest(self._descriptors()).items():
            try:
                entry = self._entry(digest, listed, any_platform=True)
            except RootlessError:
                continue  # `broken` returns it: one damaged image must not hide the others
            if entry is not None:
                found.append(entry)
        return found

    def indexes(self) -> list[NamedIndex]:
        """The indexes of several platforms that can be read."""
        found = []
        for digest, names in self._names(self._descriptors()).items():
            try:
                document = self.document(digest)
            except RootlessError:
                continue
            if isinstance(document, Index):
                found.append(NamedIndex(document, tuple(sorted(names))))
        return found

    def names(self) -> dict[str, list[str]]:
        """The full names of each digest."""
        return self._names(self._descriptors())

    def find_index(self, name: str) -> Index | None:
        """The index that the full name (or digest) `name` means; None when it means no index."""
        for digest, names in self._names(self._descriptors()).items():
            if name in names or name == digest:
                document = self.document(digest)
                return document if isinstance(document, Index) else None
        return None

    def document(self, digest: str) -> Manifest | Index:
        """A manifest or index whose bytes are here. Raises NotFound, InvalidInput, DigestMismatch."""
        return parse_manifest(self._blobs.read(digest, MANIFEST_LIMIT))

    def broken(self) -> list[tuple[str, RootlessError]]:
        """Images whose manifest or config is missing or damaged: (manifest digest, error)."""
        found = []
        for digest, listed in self._by_digest(self._descriptors()).items():
            try:
                self._entry(digest, listed, any_platform=True)
            except RootlessError as e:
                found.append((digest, e))
        return found

    def resolve(self, text: str) -> ImageEntry | None:
        """The image that `text` means; None when there is none.

        text: a full name; or `repository@digest`; or the digest, or enough of its first digits, of a config, a manifest
        or an index, with or without `sha256:`. Raises UsageError when several images have these digits; DigestMismatch,
        NotFound, InvalidInput for a damaged store.
        """
        grouped = self._by_digest(self._descriptors())
        for digest, here in grouped.items():
            if text in _names_of(here):
                return self._entry(digest, here)
        repository, at, wanted = text.partition("@")
        if at:
            # The digest alone is not enough: the image must have a name in the repository that was asked for
            here = grouped.get(wanted, [])
            if any(_repository(name) == _repository(repository) for name in _names_of(here)):
                return self._entry(wanted, here)
            return None
        digits = text.removeprefix("sha256:")
        if not digits or len(digits) > 64 or not _HEX.issuperset(digits):
            return None
        matches: dict[str, ImageEntry] = {}
        for entry in self.entries():
            ids = (entry.config_digest, entry.manifest_digest, entry.index_digest)
            if any(each[7:].startswith(digits) for each in ids if each):
                matches.setdefault(entry.config_digest, entry)
        if len(matches) > 1:
            raise UsageError(f"several images have ids that begin with '{text}'", hint="give more digits")
        return next(iter(matches.values()), None)

    def tag(self, reference: str, descriptor: Descriptor, *, made: float = 0.0) -> str | None:
        """Let the full name `reference` mean the manifest `descriptor`, whose blobs must all be here.

        made: when it was built here, in seconds since the epoch; an image that was here before keeps its time. Returns
        the digest of the other manifest that had the name before, which stays, perhaps without a name; None for none.
        """
        hex_of(descriptor.digest)
        with Lock(self._lock):
            descriptors = self._descriptors()
            same = [each for each in descriptors if each.digest == descriptor.digest]
            made = max(each.made for each in same) if same else made
            previous = self._take_name(descriptors, reference)
            descriptors[:] = [d for d in descriptors if d.digest != descriptor.digest or d.name is not None]
            descriptors.append(_Listed.of_descriptor(descriptor, reference, made))
            self._write(descriptors)
        return previous if previous != descriptor.digest else None

    def add(self, descriptor: Descriptor, *, made: float = 0.0) -> None:
        """Add an image without a name; nothing happens when it is here. made: as for `tag`."""
        hex_of(descriptor.digest)
        with Lock(self._lock):
            descriptors = self._descriptors()
            if all(d.digest != descriptor.digest for d in descriptors):
                descriptors.append(_Listed.of_descriptor(descriptor, None, made))
                self._write(descriptors)

    def untag(self, reference: str) -> str:
        """Take the full name `reference` away, and return the digest that it meant. The image stays, without a name if
        this was its last one. Raises NotFound."""
        with Lock(self._lock):
            descriptors = self._descriptors()
            digest = self._take_name(descriptors, reference)
            if digest is None:
                raise NotFound(f"no image is named '{reference}'", hint="`rootless images` lists them")
            self._write(descriptors, frees=True)
        return digest

    def remove(self, manifest_digest: str) -> None:
        """Remove the image and all its names from the index: its blobs and layers are garbage then. Nothing happens
        when it is not here."""
        with Lock(self._lock):
            descriptors = self._descriptors()
            self._write([d for d in descriptors if d.digest != manifest_digest], frees=True)

    def rebuild(self, known: Mapping[str, Sequence[str]]) -> int:
        """Write a damaged index anew from the manifests among the blobs, and return the number of images in it.

        known: the full names that each digest of a config, a manifest or an index is to have.
        """
        with Lock(self._lock):
            documents = [each for digest in self._blobs.digests() if (each := self._manifest(digest)) is not None]
            children = {child.digest for each in documents if isinstance(each, Index) for child in each.manifests}
            descriptors: list[_Listed] = []
            given: set[str] = set()
            for document in sorted(documents, key=lambda each: (isinstance(each, Manifest), each.digest)):
                ids = (document.digest, document.config.digest if isinstance(document, Manifest) else "")
                names = [name for each in ids for name in known.get(each, ()) if name not in given]
                given.update(names)
                if names or document.digest not in children:
                    descriptors += [
                        _Listed.of_descriptor(document.descriptor, name) for name in (dict.fromkeys(names) or (None,))
                    ]
            self._write(descriptors)
        return len({each.digest for each in descriptors})

    def _manifest(self, digest: str) -> Manifest | Index | None:
        """The manifest or index that the blob is; None for any other content."""
        try:
            with open(self._blobs.path(digest), "rb") as file:
                if file.read(1) != b"{" or os.fstat(file.fileno()).st_size > MANIFEST_LIMIT:
                    return None
            return self.document(digest)
        except (RootlessError, OSError):
            return None

    def load(self, manifest_digest: str) -> ImageEntry:
        """The image with exactly this manifest, named or not. Raises NotFound, InvalidInput, DigestMismatch."""
        entry = self._entry(manifest_digest, self._by_digest(self._descriptors()).get(manifest_digest, []))
        if entry is None:
            raise NotFound(f"no image of the index '{manifest_digest}' is here for this host's platform")
        return entry

    def manifest_digests(self) -> list[str]:
        """The digests of all images, readable or not."""
        return list(self._names(self._descriptors()))

    @staticmethod
    def _take_name(descriptors: list[_Listed], reference: str) -> str | None:
        """Remove the name `reference` from the list, in place, and return the digest that it meant; None for none."""
        for position, descriptor in enumerate(descriptors):
            if descriptor.name == reference:
                del descriptors[position]
                if all(d.digest != descriptor.digest for d in descriptors):
                    descriptors.insert(position, descriptor.without_name())
                return descriptor.digest
        return None

    def _descriptors(self) -> list[_Listed]:
        try:
            with open(self.path, "rb") as file:
                listed = load_json(file.read(), "the index")["manifests"]
            if not isinstance(listed, list):
                raise InvalidInput("'manifests' is not a list")
            return [_Listed(as_mapping(each, "manifests")) for each in listed]
        except (OSError, KeyError, InvalidInput) as e:
            raise InvalidInput(
                f"image index '{self.path}' is damaged: {e}",
                hint="`rootless system check --repair` makes it again from the manifests that are here",
            ) from e

    def _write(self, descriptors: list[_Listed], *, frees: bool = False) -> None:
        """Replace index.json. frees: whether the change lets something be removed, so that on a full disk the reserve
        may be used for it."""
        manifests = [descriptor.to_json() for descriptor in descriptors]
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}
        content = json.dumps(index, indent=1).encode() + b"\n"
        if frees:
            write_freeing(self.path, content, self._reserve)
            return
        # The content of blobs and layers is on the disk already (`BlobWriter.commit`, `unpack_worker`). Their names
        # must be there before the image's name is: after a power cut it would lead to nothing.
        sync_paths((self._blobs.directory, os.path.join(os.path.dirname(self.path), "layers")))
        atomic_write(self.path, content)
        keep_reserve(self._reserve, len(content))

    @staticmethod
    def _by_digest(descriptors: list[_Listed]) -> dict[str, list[_Listed]]:
        grouped: dict[str, list[_Listed]] = {}
        for descriptor in descriptors:
            grouped.setdefault(descriptor.digest, []).append(descriptor)
        return grouped

    @staticmethod
    def _names(descriptors: list[_Listed]) -> dict[str, list[str]]:
        grouped = ImageIndex._by_digest(descriptors)
        return {digest: _names_of(listed) for digest, listed in grouped.items()}

    def _entry(self, digest: str, listed: list[_Listed], *, any_platform: bool = False) -> ImageEntry | None:
        """The image of a manifest; of an index the image for this host, when it is here. any_platform: if it is not,
        the first one that is."""
        document = self.document(digest)
        index_digest = ""
        if isinstance(document, Index):
            index_digest = digest
            child = self._child(document, any_platform)
            if child is None:
                return None
            document = child
        config = ImageConfig(self._blobs.read(document.config.digest, CONFIG_LIMIT))
        names = tuple(sorted(_names_of(listed)))
        made = max((each.made for each in listed), default=0.0)
        return ImageEntry(document.digest, document.config.digest, names, document, config, index_digest, made)

    def _child(self, index: Index, any_platform: bool) -> Manifest | None:
        try:
            from rootless.image.platform import host_platform

            wanted = [select_manifest(index, host_platform())]
        except InvalidInput:
            # One image with its attestations is that image, for whatever platform it is
            images = [each for each in index.manifests if not each.is_attestation]
            wanted = images if len(images) == 1 < len(index.manifests) else []
        for descriptor in [*wanted, *(index.manifests if any_platform else ())]:
            if self._blobs.has(descriptor.digest):
                document = self.document(descriptor.digest)
                if isinstance(document, Manifest) and is_image(document):
                    return document
        return None


def _names_of(listed: list[_Listed]) -> list[str]:
    return [each.name for each in listed if each.name is not None]


def is_image(document: Manifest) -> bool:
    """Whether the manifest is that of a container image, and not of any other artifact.

    buildx' attestations have an image's config for old registries. What tells them is that their layers are no tars but
    documents (application/vnd.in-toto+json), which would be compressed and unpacked like layers otherwise.
    """
    has_documents = any(layer.media_type.endswith("+json") for layer in document.layers)
    return document.config.media_type in CONFIG_TYPES and not has_documents


def _repository(name: str) -> str:
    """The name without tag and digest: `docker.io/library/x:1@sha256:..` → `docker.io/library/x`."""
    name = name.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


def write_freeing(path: str, content: bytes, reserve: str) -> None:
    """Replace the JSON file `path`, for a change that lets something be removed and so must work on a full disk.

    The file `reserve` holds room for this (`keep_reserve`). A store that an earlier version made has none until its
    first change on a disk with room. There a content that is not longer is written over the old one: a kill leaves one
    of the two, but a power cut at that moment a damaged file. Raises OSError when nothing of this is possible.
    """
    try:
        atomic_write(path, content)
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        try:
            os.unlink(reserve)
        except FileNotFoundError:
            if len(content) > os.stat(path).st_size:
                raise e from None
            overwrite_file(path, content)
            return
        atomic_write(path, content)


def keep_reserve(reserve: str, wanted: int) -> None:
    """Let the file `reserve` hold at least twice `wanted` bytes, where the file system has the room."""
    size = max(_LEAST_RESERVE, 2 * wanted)
    try:
        fd = os.open(reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return
    try:
        if os.fstat(fd).st_size < size:
            os.posix_fallocate(fd, 0, size)
    except OSError:
        pass  # the disk is full, or its file system cannot allocate room in advance
    finally:
        os.close(fd)
