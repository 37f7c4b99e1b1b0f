"""The fake ledger keeps the contract that the real one keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.fake_ledger import FakeLedger
from support.ledger_contract import LedgerContract, LedgerMachine

if TYPE_CHECKING:
    from disfs.chunkstore.ledger import ChunkLedger


class TestFakeLedger(LedgerContract):
    """The contract."""

    @pytest.fixture
    def ledger(self) -> ChunkLedger:
        """A new fake."""
        return FakeLedger()


class FakeLedgerMachine(LedgerMachine):
    """The contract's state machine."""

    def make_ledger(self) -> ChunkLedger:
        """A new fake."""
        return FakeLedger()


TestFakeLedgerMachine = FakeLedgerMachine.TestCase
