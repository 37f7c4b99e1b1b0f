"""Which replicated rows have changed since they were last shipped: noted with each commit, in the very transaction.

One row of the outbox holds the keys of all rows that one group commit has touched, each once. So noting costs a
fraction of a microsecond a key, where a trigger on each table costs several (a row of its own to insert, in a tree of
its own); and what was noted again after it was shipped is simply in a later row. The price is that each
component notes what it writes: a test compares a copy that was made from what is noted with the whole.

While Discord takes nothing the outbox grows with each commit. At a bound the oldest rows go and it is noted, in the
same transaction, that a checkpoint copy goes next: it has everything, so nothing has to be known of what has changed.

Too many keys do no harm (the state of a row is shipped, whatever it is), too few would: so what was noted stays noted
when a transaction is undone.
"""

from __future__ import annotations

import logging
import struct
import time
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from disfs.metadata.columns import ColumnReader, pack_integers, pack_strings
from disfs.metadata.settings import UNSHIPPED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from disfs.metadata.database import Database
    from disfs.metadata.settings import Settings

log = logging.getLogger(__name__)

_HEADER = struct.Struct("<6I")
"""CRC-32 of what follows, and how many keys there are of each kind."""

_FORGOTTEN_AT_ONCE = 64
"""Rows that are deleted in one step of the main thread."""
MAX_ROWS = 20_000
"""A quarter of an hour in which something changes all the time."""


@dataclass(slots=True)
class Noted:
    """Keys of rows whose state is to be shipped."""

    inodes: set[int] = field(default_factory=set)
    names: set[tuple[int, bytes]] = field(default_factory=set)
    xattrs: set[tuple[int, bytes]] = field(default_factory=set)
    packs: set[int] = field(default_factory=set)
    extents: set[tuple[int, int, int]] = field(default_factory=set)
    """(inode, first, end): what begins in these chunks, end excluded, is as it is now."""

    def __bool__(self) -> bool:
        return bool(self.inodes or self.names or self.xattrs or self.packs or self.extents)

    def to_bytes(self) -> bytes:
        """For a row of the outbox; read on this machine alone."""
        inodes, names, xattrs = list(self.inodes), list(self.names), list(self.xattrs)
        packs, extents = list(self.packs), list(self.extents)
        integers = [
            *inodes,
            *(parent for parent, _ in names),
            *(inode for inode, _ in xattrs),
            *packs,
            *(number for key in extents for number in key),
        ]
        columns = pack_integers(integers) + pack_strings([name for _, name in names + xattrs])
        counts = (len(inodes), len(names), len(xattrs), len(packs), len(extents))
        return _HEADER.pack(zlib.crc32(columns), *counts) + columns

    @classmethod
    def from_bytes(cls, raw: bytes) -> Noted:
        """What `to_bytes` wrote; ValueError for anything else."""
        if len(raw) < _HEADER.size:
            raise ValueError("a row of the outbox is too short")
        checksum, inodes, names, xattrs, packs, extents = _HEADER.unpack_from(raw)
        columns = memoryview(raw)[_HEADER.size :]
        if zlib.crc32(columns) != checksum:
            raise ValueError("a row of the outbox is not what was written")
        reader = ColumnReader(columns)
        integers = iter(reader.integers(inodes + names + xattrs + packs + 3 * extents))
        strings = iter(reader.strings(names + xattrs))
        reader.finish()
        return cls(
            {next(integers) for _ in range(inodes)},
            {(next(integers), next(strings)) for _ in range(names)},
            {(next(integers), next(strings)) for _ in range(xattrs)},
            {next(integers) for _ in range(packs)},
            {(next(integers), next(integers), next(integers)) for _ in range(extents)},
        )


class Outbox:
    """Collects what components write, and adds a row with each commit. What is noted must be noted inside a change."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._noted = Noted()
        row = database.row("SELECT coalesce(max(number), 0) FROM outbox")
        assert row is not None
        self._last: int = row[0]
        self._oldest_ns: int | None
        self._first: int
        self._find_first()
        self._dropped = 0
        self.pending = trio.Event()
        """Set while anything is noted; a new Event once all is shipped."""
        if self._oldest_ns is not None:
            self.pending.set()
        database.before_commit.append(self._write_row)

    @property
    def last(self) -> int:
        """The number of the newest row: all that was committed so far is noted in rows up to it."""
        return self._last

    @property
    def dropped(self) -> int:
        """Rows up to this number went, in this life of the process, because there were too many; 0: none did."""
        return self._dropped

    @property
    def oldest_ns(self) -> int | None:
        """When the oldest change was committed that is not shipped; None when all is."""
        return self._oldest_ns

    def is_empty(self, last: int) -> bool:
        """Whether nothing that rows up to `last` noted is still to be shipped."""
        return self._database.row("SELECT 1 FROM outbox WHERE number <= ? LIMIT 1", (last,)) is None

    def note_inodes(self, inodes: Iterable[int]) -> None:
        """Their attributes have changed, or they are gone."""
        self._noted.inodes.update(inodes)

    def note_names(self, names: Iterable[tuple[int, bytes]]) -> None:
        """What these names (parent, name) stand for has changed."""
        self._noted.names.update(names)

    def note_xattr(self, inode: int, name: bytes) -> None:
        """An extended attribute has changed."""
        self._noted.xattrs.add((inode, name))

    def note_packs(self, packs: Iterable[int]) -> None:
        """These packs, by number, are new, or gone."""
        self._noted.packs.update(packs)

    def note_extents(self, keys: Iterable[tuple[int, int]]) -> None:
        """The extents with these keys (inode, first chunk) have changed."""
        self._noted.extents.update((inode, first, first + 1) for inode, first in keys)

    def note_extents_from(self, inode: int, first: int, end: int) -> None:
        """All extents of an inode that begin in chunks `first` to `end`, end excluded, have changed."""
        self._noted.extents.add((inode, first, end))

    def forget(self, last: int) -> bool:
        """What rows up to `last` note is shipped; True when there are more of them than go at once. Inside a change."""
        # Rows are in the order of their numbers, and some long: after a day without a network there are many.
        self._database.write(
            "DELETE FROM outbox WHERE number < min(?1 + 1, (SELECT min(number) FROM outbox) + ?2)",
            (last, _FORGOTTEN_AT_ONCE),
        )
        self._find_first()
        if self._oldest_ns is None:
            self.pending = trio.Event()
        return not self.is_empty(last)

    def _find_first(self) -> None:
        # The first row is the oldest one: a look at all of them would hold up the main thread.
        row = self._database.row("SELECT noted_ns, number FROM outbox ORDER BY number LIMIT 1")
        self._oldest_ns, self._first = row or (None, self._last + 1)

    def _write_row(self) -> None:
        if not self._noted:
            return
        now_ns = time.time_ns()
        self._database.write(
            "INSERT INTO outbox (number, noted_ns, keys) VALUES (?, ?, ?)",
            (self._last + 1, now_ns, self._noted.to_bytes()),
        )
        self._last += 1
        self._noted = Noted()
        if self._oldest_ns is None:
            self._oldest_ns = now_ns
        if self._last - self._first >= MAX_ROWS:
            self._drop_oldest()
        self.pending.set()

    def _drop_oldest(self) -> None:
        if not self._dropped:
            log.warning("too much has changed that Discord does not have: a whole copy of the metadata goes next")
        self._settings.put(UNSHIPPED, True)
        self._first += _FORGOTTEN_AT_ONCE
        self._dropped = self._first - 1
        self._database.write("DELETE FROM outbox WHERE number < ?", (self._first,))
