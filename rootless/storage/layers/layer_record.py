"""The content of `layer.json`, the record beside an unpacked layer's tree. It neither reads nor writes the file."""

from __future__ import annotations

from rootless.records.fields import Fields


class LostAttributes:
    """How much of an archive could not be kept on disk: owners that the id map lacks, devices, extended attributes."""

    __slots__ = ("devices", "owners", "xattrs")

    def __init__(self, devices: int = 0, owners: int = 0, xattrs: int = 0) -> None:
        self.devices = devices
        self.owners = owners
        self.xattrs = xattrs

    def to_json(self) -> dict[str, object]:
        """The member "lost" of layer.json."""
        return {"devices": self.devices, "owners": self.owners, "xattrs": self.xattrs}

    @classmethod
    def from_json(cls, fields: Fields | None) -> LostAttributes:
        """The reverse of `to_json`; nothing was lost where nothing is said."""
        if fields is None:
            return cls()
        return cls(fields.integer("devices", 0), fields.integer("owners", 0), fields.integer("xattrs", 0))


class LayerContent:
    """What is in a layer, as it was found when its tree was made.

    diff_id: digest of the uncompressed tar; tar_size: bytes of that tar, 0 in layers made before there were recipes;
    size: bytes of its files; entries: members of the tar; markers: how the tree says what is deleted, "overlay"
    (devices 0:0 and extended attributes) or "names" (`.wh.` files).
    """

    __slots__ = ("diff_id", "entries", "lost", "markers", "size", "tar_size")

    def __init__(self, diff_id: str, tar_size: int, size: int, entries: int, markers: str) -> None:
        self.diff_id = diff_id
        self.tar_size = tar_size
        self.size = size
        self.entries = entries
        self.markers = markers
        self.lost = LostAttributes()

    def to_json(self) -> dict[str, object]:
        """The members of layer.json that tell of the content."""
        return {
            "diff_id": self.diff_id,
            "tar_size": self.tar_size,
            "size": self.size,
            "entries": self.entries,
            "markers": self.markers,
            "lost": self.lost.to_json(),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> LayerContent:
        """The reverse of `to_json`. Raises InvalidInput."""
        content = cls(
            fields.text("diff_id"),
            fields.integer("tar_size", 0),
            fields.integer("size"),
            fields.integer("entries", 0),
            fields.text("markers", "overlay"),
        )
        content.lost = LostAttributes.from_json(fields.member("lost"))
        return content


class LayerRecord:
    """The record layer.json.

    parent: chain id of the layer below, None at the bottom; id_map: key of the id map by which files have their owners;
    has_recipe: whether its tar can be made again. Layers made before there were recipes have their blob instead.
    """

    __slots__ = ("content", "has_recipe", "id_map", "parent")

    def __init__(self, content: LayerContent, parent: str | None, id_map: str, *, has_recipe: bool = True) -> None:
        self.content = content
        self.parent = parent
        self.id_map = id_map
        self.has_recipe = has_recipe

    def to_json(self) -> dict[str, object]:
        """The record as JSON values."""
        return {
            **self.content.to_json(),
            "parent": self.parent,
            "id_map": self.id_map,
            "recipe": self.has_recipe,
        }

    @classmethod
    def from_json(cls, known: object, file: str) -> LayerRecord:
        """The record in the file named `file`. Raises InvalidInput."""
        fields = Fields(known, file, hint="`rootless system check --repair` unpacks the layer anew")
        return cls(
            LayerContent.from_json(fields),
            fields.optional_text("parent"),
            fields.text("id_map", ""),
            has_recipe=fields.flag("recipe"),
        )
