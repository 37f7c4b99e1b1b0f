"""Listings that the kernel keeps, in the installed program."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.product import product

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("options", "opened_count"),
    [
        # The first proves that it works, the second is told that opendir is not needed.
        ((), 2),
        (("-o", "kernel_listings=off"), 5),
    ],
    ids=["kept", "switched off"],
)
def test_listings_are_kept_unless_switched_off(tmp_path: Path, options: tuple[str, ...], opened_count: int) -> None:
    """The daemon sees the first two of five listings, and with kernel_listings=off all of them; they are the same."""
    with product(tmp_path) as running:
        running.mount("--debug", *options)
        (running.mountpoint / "name").touch()
        for _ in range(5):
            assert ["name"] == os.listdir(running.mountpoint)  # noqa: PTH208 - a path that is a string
        [log] = running.home.glob("state/volumes/*/*.log")
        assert opened_count == log.read_text().count("opendir(1")
