"""The shortest way through a mount."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def test_written_file_is_read_back(here: Path) -> None:
    """What is written to a new file is read from it."""
    (here / "a").write_bytes(b"hello")
    assert b"hello" == (here / "a").read_bytes()
    assert ["a"] == os.listdir(here)
