"""A product of its own for each end-to-end test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.product import product

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.product import Product


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Product]:
    """A mounted emulator volume."""
    with product(tmp_path) as running:
        running.mount()
        yield running
