"""A product of its own for each end-to-end test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.product import product

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.product import Product


@pytest.fixture(scope="module")
def shared_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """One mounted volume for all tests of a module: each uses files of its own, and leaves Discord as it should be."""
    with product(tmp_path_factory.mktemp("shared")) as running:
        running.mount()
        yield running


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Product]:
    """A mounted emulator volume."""
    with product(tmp_path) as running:
        running.mount()
        yield running
