"""The groups of commands, one per noun. Their commands are in rootless.cli.tree."""

from __future__ import annotations

from rootless.cli import command_tree as tree
from rootless.cli.declaration import LazyGroup

container = LazyGroup(
    "container",
    entries=tree.CONTAINER,
    aliases=tree.CONTAINER_ALIASES,
    help=tree.NOUNS["container"][1] + ".",
)
image = LazyGroup("image", entries=tree.IMAGE, aliases=tree.IMAGE_ALIASES, help=tree.NOUNS["image"][1] + ".")
manifest = LazyGroup("manifest", entries=tree.MANIFEST, help=tree.NOUNS["manifest"][1] + ".")
builder = LazyGroup("builder", entries=tree.BUILDER, help=tree.NOUNS["builder"][1] + ".")
volume = LazyGroup(
    "volume",
    entries=tree.VOLUME,
    aliases=tree.VOLUME_ALIASES,
    help=tree.NOUNS["volume"][1] + ".",
)
system = LazyGroup("system", entries=tree.SYSTEM, help=tree.NOUNS["system"][1] + ".")
