"""`image tree`: which images lie on which layers, as a picture."""

from __future__ import annotations

import sys

import click

from rootless import output
from rootless.cli.declaration import Session, command, complete_names, pass_session, switch_option, value_option
from rootless.engine import verbs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.image_types import ImageTree, ImageTreeNode

_WIDTH = 60  # characters that are shown of the step that made a layer


@command(
    ("image tree", "tree"),
    "Show which images share which layers",
    description="Each layer is shown once, below the layer that it lies on, with its bytes on disk. "
    "With IMAGE: only the images that have their base layer in common with it.",
    examples="rootless tree\nrootless image tree --no-trunc debian:12",
)
@value_option("--format", metavar="FORMAT", help="'json', or a Go template over the tree")
@switch_option("--no-trunc", help="Print whole ids and steps")
@click.argument("images", nargs=-1, metavar="[IMAGE]...", shell_complete=complete_names("images"))
@pass_session
def tree(session: Session, format: str | None, no_trunc: bool, images: tuple[str, ...]) -> None:
    """Print the tree of layers, or the document that it is drawn from."""
    found = verbs.image_tree(session.engine, images)
    if format:
        from rootless.cli.template import Row, Template

        shown = {**_object(found), "Layers": found.layers}
        # each layer lies within the one below it, and json goes down by calling itself: an image may have 1,000 layers
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 5 * found.layers + 1000))
        text = output.json_text(shown, indent=None) if format == "json" else Template(format).execute(Row(shown))
        output.line(text)
        return
    for root in found.roots:
        _print(root, no_trunc=no_trunc)
    _print_sum(found)


def _print(root: ImageTreeNode, *, no_trunc: bool) -> None:
    # Each element is a node, what stands before it, and what stands before its children; a chain of only children stays
    # in one column. No recursion: a chain may have 1000 layers, which is how deep Python lets calls go
    waiting: list[tuple[ImageTreeNode, str, str]] = [(root, "", "")]
    while waiting:
        node, before, below = waiting.pop()
        output.line(f"{before}{_text(node, no_trunc=no_trunc)}")
        children = node.children
        lines = []
        for position, child in enumerate(children):
            is_last = position == len(children) - 1
            if len(children) == 1 and not node.images:
                lines.append((child, below, below))
            else:
                lines.append((child, below + ("└─ " if is_last else "├─ "), below + ("   " if is_last else "│  ")))
        waiting += reversed(lines)


def _text(node: ImageTreeNode, *, no_trunc: bool) -> str:
    from rootless import units
    from rootless.cli.table import short_id

    if not node.chain_id:
        return f"(no layers)  {', '.join(node.images)}"
    number = node.chain_id if no_trunc else short_id(node.chain_id)
    step = " ".join(node.made_by.split())
    if not no_trunc and len(step) > _WIDTH:
        step = step[: _WIDTH - 1] + "…"
    names = f"  ◀ {', '.join(node.images)}" if node.images else ""
    return f"{number}  {units.human_size(node.size):>7}{f'  {step}' if step else ''}{names}"


def _print_sum(found: ImageTree) -> None:
    from rootless import units

    saved = f", {units.human_size(found.unshared)} without sharing" if found.unshared > found.size else ""
    images = "1 image" if found.images == 1 else f"{found.images} images"
    layers = "1 layer" if found.layers == 1 else f"{found.layers} layers"
    output.line(f"{images}, {layers}, {units.human_size(found.size)} on disk{saved}")


def _object(found: ImageTree) -> dict[str, object]:
    return {
        "Images": found.images,
        "Size": found.size,
        "Unshared": found.unshared,
        "Roots": [_layer(root) for root in found.roots],
    }


def _layer(root: ImageTreeNode) -> dict[str, object]:
    top: list[dict[str, object]] = []
    waiting = [(root, top)]
    while waiting:
        node, siblings = waiting.pop(0)
        children: list[dict[str, object]] = []
        siblings.append(
            {
                "ID": node.chain_id,
                "DiffID": node.diff_id,
                "Size": node.size,
                "CreatedBy": node.made_by,
                "Images": list(node.images),
                "Users": node.users,
                "Children": children,
            }
        )
        waiting += [(child, children) for child in node.children]
    return top[0]
