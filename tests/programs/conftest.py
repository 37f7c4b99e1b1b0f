"""One mounted volume for all programs of a module: each works in a directory of its own."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from support.product import product

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.product import Product


@pytest.fixture(scope="module")
def shared_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A mounted emulator volume."""
    with product(tmp_path_factory.mktemp("programs")) as running:
        running.mount()
        yield running


@pytest.fixture
def here(shared_disk: Product, request: pytest.FixtureRequest) -> Path:
    """An empty directory on the mount."""
    directory: Path = shared_disk.mountpoint / request.node.name.replace("/", "_")
    directory.mkdir()
    return directory


@pytest.fixture(autouse=True)
def needed_programs(request: pytest.FixtureRequest) -> None:
    """`@pytest.mark.needs("nano")`: skip where it is not installed; with CI set, where ./check installs it, fail."""
    markers = request.node.iter_markers("needs")
    missing = [name for marker in markers for name in marker.args if shutil.which(name) is None]
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {' and '.join(missing)}, which ./check installs")
