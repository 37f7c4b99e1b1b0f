"""Links between the pages lead somewhere, and the index knows every page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from support.documentation import PAGES, ROOT, name_of

if TYPE_CHECKING:
    from pathlib import Path

LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """What can stand behind `#`: the headings, as they are turned into names."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link names a file of the repository, and a heading of that file if it names one."""
    lost = []
    for target in LINK.findall(page.read_text()):
        path, _, heading = target.partition("#")
        file = page.parent / path if path else page
        if target.startswith(("http", "mailto:")):
            continue
        if not file.exists() or (heading and heading not in anchors(file)):
            lost.append(target)
    assert [] == lost


def test_the_index_names_every_page() -> None:
    """docs/README.md links every page of `docs` and of the root but itself."""
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target in LINK.findall(index.read_text())}
    assert [] == [name_of(page) for page in PAGES if page != index and page not in linked]


def test_the_readme_stays_short() -> None:
    """README is what a newcomer reads: less than 180 lines; what is longer stands in `docs`."""
    assert len((ROOT / "README.md").read_text().splitlines()) < 180
