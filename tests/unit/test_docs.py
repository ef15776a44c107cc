"""What the documentation promises exists: error texts, commands and links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SOURCES = "\n".join(path.read_text() for path in sorted((REPOSITORY / "rootless").rglob("*.py")))
JOINED = re.sub(r'"\s*\n\s*f?"', "", SOURCES)  # implicitly joined strings
TROUBLES = re.findall(r"^### `(.+)`$", (REPOSITORY / "docs/troubleshooting.md").read_text(), re.MULTILINE)
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


@pytest.mark.parametrize("text", TROUBLES)
def test_troubleshooting_is_keyed_by_our_own_error_texts(text: str) -> None:
    for fragment in text.split("…"):
        assert fragment.strip() in JOINED, f"no error of ours says {fragment!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_names_commands_that_exist() -> None:
    import click

    from rootless.cli.main import cli

    readme = (REPOSITORY / "README.md").read_text()
    context = click.Context(cli)
    names = set(cli.list_commands(context))
    for used in re.findall(r"^(?:rootless) ([a-z]+)|; rootless ([a-z]+)", readme, re.MULTILINE):
        word = used[0] or used[1]
        assert word in names, f"README uses `rootless {word}`"
