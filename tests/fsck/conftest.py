"""A volume to be damaged; made once, and copied for each test."""

from __future__ import annotations

import copy
import shutil
from typing import TYPE_CHECKING

import pytest
import trio
from support.fsck_world import FsckWorld

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> FsckWorld:
    """The volume as it is made."""
    world = FsckWorld(tmp_path_factory.mktemp("made"))
    trio.run(world.make)
    return world


@pytest.fixture
def world(made: FsckWorld, tmp_path: Path) -> FsckWorld:
    """A copy of it."""
    mine = FsckWorld(tmp_path / "volume")
    shutil.copytree(made.directory, mine.directory)
    mine.volume, mine.index, mine.channels, mine.inodes = made.volume, made.index, made.channels, dict(made.inodes)
    mine.memory = copy.deepcopy(made.memory)
    return mine
