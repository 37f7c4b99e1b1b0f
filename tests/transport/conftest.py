"""The emulator for the transport's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.register_assert_rewrite("transport.contract")


@pytest.fixture(scope="session")
def one_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One process for all tests."""
    with Emulator.start(tmp_path_factory.mktemp("emulator"), rate_limits=False, fsync=False) as emulator:
        yield emulator


@pytest.fixture
def emulator(one_emulator: Emulator) -> Iterator[Emulator]:
    """The emulator without faults, with nothing counted; what a test sets is undone."""
    settings = one_emulator.settings()
    one_emulator.reset_counters()
    yield one_emulator
    one_emulator.clear_faults()
    one_emulator.settings(**settings)
