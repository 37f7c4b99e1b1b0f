"""A file system without a kernel, over the real metadata store and over its model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.filesystem_world import World
from support.memory_metadata import MemoryMetadataStore

from disfs.metadata.store import SqliteMetadataStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["memory", "sqlite"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A new, empty file system."""
    if request.param == "memory":
        yield World(MemoryMetadataStore())
        return
    store = SqliteMetadataStore.open(tmp_path / "volume.db", create=True, now_ns=0)
    yield World(store)
    store.close()
