"""The dirty chunks that a send may take, in every order that the scheduler asks for. No I/O.

Each change costs a few microseconds however many chunks wait: with tens of gigabytes unsent, sorting them all
for each message would hold the main thread for a tenth of a second (262,144 chunks: 100 ms; a change here: 2 to 6 us).

A chunk is urgent while somebody waits for it. That is one number: revisions are counted across the volume, so
"everything written so far" is every chunk whose first unsent write is not newer than the newest revision of that
moment. Asking for all costs nothing, and a chunk that is written again afterwards is urgent once, not for ever.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING

from sortedcontainers import SortedList

from disfs.values import Revision

if TYPE_CHECKING:
    from disfs.chunkstore.inode_chunks import Entry
    from disfs.values import ChunkKey


class WaitingChunks:
    """The chunks in state DIRTY. `ChunkMap` keeps it; the scheduler reads it."""

    def __init__(self) -> None:
        self.by_quiet: OrderedDict[ChunkKey, Entry] = OrderedDict()
        """The one that was not written for longest first."""
        self.by_age: OrderedDict[ChunkKey, Entry] = OrderedDict()
        """The one that is dirty for longest first."""
        self.bytes = 0
        """How long their contents are together."""
        self.urgent_count = 0
        self._in_order: SortedList = SortedList()
        self._asked_until = Revision(0)

    def __len__(self) -> int:
        return len(self.by_quiet)

    def is_urgent(self, entry: Entry) -> bool:
        """Whether somebody waits until this dirty chunk is in Discord."""
        return entry.asked or entry.born <= self._asked_until

    def ask(self, revision: Revision) -> None:
        """Somebody waits for everything up to `revision`, the newest one of the volume."""
        self._asked_until = max(self._asked_until, revision)
        self.urgent_count = len(self.by_quiet)

    def ask_for(self, entry: Entry) -> None:
        """Somebody waits for this one, which is among the waiting."""
        if not self.is_urgent(entry):
            entry.asked = True
            self.urgent_count += 1

    def add(self, key: ChunkKey, entry: Entry, *, again: bool = False) -> None:
        """A chunk became one that a send may take; `again` when a send of it came to nothing: it has waited before."""
        self._in_order.add(key)
        self.by_quiet[key] = self.by_age[key] = entry
        if again:
            self.by_age.move_to_end(key, last=False)
            if entry.sent_revision == entry.revision:
                self.by_quiet.move_to_end(key, last=False)
        self.bytes += entry.length
        self.urgent_count += self.is_urgent(entry)

    def remove(self, key: ChunkKey, entry: Entry) -> None:
        """A chunk is on its way, or gone; its length has not changed since."""
        self._in_order.remove(key)
        del self.by_quiet[key], self.by_age[key]
        self.bytes -= entry.length
        self.urgent_count -= self.is_urgent(entry)

    def wrote(self, key: ChunkKey, growth_bytes: int) -> None:
        """A chunk that waits was written, and is that much longer."""
        self.by_quiet.move_to_end(key)
        self.bytes += growth_bytes

    def between(self, after: ChunkKey, until: ChunkKey | None, count: int) -> list[ChunkKey]:
        """Up to `count` keys behind `after` and not behind `until`, by (inode, index)."""
        return list(islice(self._in_order.irange(after, until, inclusive=(False, True)), count))
