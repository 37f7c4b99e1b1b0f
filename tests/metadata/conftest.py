"""Stores to test: the real one, and where the contract alone is tested, the fake too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.memory_metadata import MemoryMetadataStore

from disfs.metadata.store import SqliteMetadataStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from disfs.metadata.base import MetadataStore


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[SqliteMetadataStore]:
    """A new volume."""
    store = SqliteMetadataStore.open(tmp_path / "volume.db", create=True, now_ns=0)
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest) -> MetadataStore:
    """Every metadata store there is, with a root directory that was made at time 0."""
    if request.param == "memory":
        return MemoryMetadataStore()
    real: SqliteMetadataStore = request.getfixturevalue("sqlite_store")
    return real
