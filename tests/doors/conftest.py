"""What the tests of the doors share: one emulator for those that need a Discord."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.emulator import Emulator
from support.home import home as home_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.home import Home


@pytest.fixture(scope="module")
def discord(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator without rate limits, for a whole module."""
    with Emulator.start(tmp_path_factory.mktemp("discord"), rate_limits=False) as emulator:
        yield emulator


@pytest.fixture
def home(tmp_path: Path, discord: Emulator) -> Iterator[Home]:
    """A home whose commands talk to the emulator as to a Discord that somebody else runs."""
    with home_in(tmp_path, discord) as made:
        yield made
    discord.clear_faults()
