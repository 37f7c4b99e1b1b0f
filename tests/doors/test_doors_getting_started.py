"""docs/getting-started.md says and shows what the program does."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from disfs.chunkstore.transport.permissions import NAMES, invite_url
from disfs.cli.commands import disfs

DOCS = Path(__file__).parent.parent.parent / "docs"
TEXT = (DOCS / "getting-started.md").read_text()
PICTURES = re.findall(r"\]\((pictures/[a-z-]+\.svg)\)", TEXT)


def words(picture: str) -> str:
    """What can be read in a picture of a terminal."""
    lines = re.findall(r"<text [^>]*>(.*?)</text>", (DOCS / picture).read_text(), re.DOTALL)
    return " ".join(html.unescape(" ".join(lines)).replace("\xa0", " ").split())


def test_commands_exist() -> None:
    """Each `disfs` command that it names is one."""
    named = set(re.findall(r"[`\n]disfs ([a-z-]+)", TEXT))
    assert {"setup", "doctor", "passwd", "key", "delete-volume"} <= named
    assert named <= set(disfs.commands)


def test_permissions_are_all_explained() -> None:
    """Those that the invitation asks for."""
    assert all(name in TEXT for name in NAMES.values())


def test_pictures_show_the_set_up_of_today() -> None:
    """All steps, the invitation, nothing of the machine that drew them. scripts/setup_pictures.py draws them anew."""
    shown = " ".join(words(picture) for picture in PICTURES)
    guide = (DOCS.parent / "disfs" / "cli" / "guide.py").read_text()
    setup = (DOCS.parent / "disfs" / "cli" / "setup.py").read_text()
    titles = re.findall(r'f"Step (\d) of \{(?:guide\.)?STEPS\}: ([^"]+)"', guide + setup)
    assert {"1", "2", "3", "4", "5"} == {number for number, _ in titles}
    for number, title in titles:
        assert f"Step {number} of 5: {title}" in shown
    assert invite_url(123456789012345678) in shown
    assert "/tmp" not in shown


@pytest.mark.parametrize("picture", PICTURES)
def test_pictures_ask_nobody_for_anything(picture: str) -> None:
    """No fonts or pictures from elsewhere."""
    assert not re.search(r"url\((?!#)|(?:href|src)=|@import|<script", (DOCS / picture).read_text())
