"""Random operations on names, on the real store and on dicts, with commits, crashes and clean stops in between."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from support.answers import answer
from support.names_machine import NamesMachine, outcome

from disfs.metadata import dentries, inodes


class HeldBackMachine(NamesMachine):
    """The same while rows are held back: what is looked at after each step makes the store write nothing.

    With `_KNOWN` so small that most of what is asked for has to be read again, and small directories learnt at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patched = pytest.MonkeyPatch()
        self.patched.setattr(inodes, "_KNOWN", 4)
        self.patched.setattr(dentries, "_KNOWN", 4)
        self.patched.setattr(dentries, "_COMPLETE", 2)
        self.patched.setattr(dentries, "_IN_VAIN", 1)
        self.patched.setattr(dentries, "_LEARNT", 2)

    @rule(flushed=st.booleans())
    def look_at_everything(self, flushed: bool) -> None:
        """Everything is equal, what queries see too."""
        if flushed:
            answer(self.real.commit())
        super().trees_are_equal()

    @invariant()
    def trees_are_equal(self) -> None:
        """What can be answered from memory is equal."""
        assert answer(self.model.usage()) == answer(self.real.usage())
        for model, real in self.inodes:
            self.same(outcome(self.model.attributes(model)), outcome(self.real.attributes(real)))
            for name in (b"a", b"b", b"c"):
                self.same(outcome(self.model.lookup(model, name)), outcome(self.real.lookup(real, name)))

    def teardown(self) -> None:
        """As before, and a last look."""
        super().trees_are_equal()
        self.patched.undo()
        super().teardown()


TestNamesMachine = NamesMachine.TestCase
TestHeldBackMachine = HeldBackMachine.TestCase
TestHeldBackMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestNamesMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
