"""One emulator for the session, put back to its defaults before each test; each test takes its own channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.emulator import Emulator
from support.rest_client import RestClient

from disfs.emulator.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def shared_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator.start(tmp_path_factory.mktemp("emulator") / "data", fsync=False) as emulator:
        yield emulator


@pytest.fixture
def emulator(shared_emulator: Emulator) -> Emulator:
    """The shared one, without limits. Its clock must not be shifted."""
    shared_emulator.settings(**(Settings().as_json() | {"rate_limits": False, "fsync": False}))
    shared_emulator.clear_faults()
    shared_emulator.control("DELETE", "/limits")
    shared_emulator.reset_counters()
    return shared_emulator


@pytest.fixture
def own_emulator(tmp_path: Path) -> Iterator[Emulator]:
    """One that the test may shift, kill and restart."""
    with Emulator.start(tmp_path / "data", rate_limits=False, fsync=False) as started:
        yield started


@pytest.fixture
def rest(emulator: Emulator) -> RestClient:
    return RestClient(emulator)


@pytest.fixture
def channel(rest: RestClient) -> str:
    """A channel of the test's own."""
    return rest.new_channel()
