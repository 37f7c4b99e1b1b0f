"""Which rows a copy of the metadata needs, and in which form they travel. Pure.

What can be worked out from other rows does not travel: live bytes, counts of chunks, totals, messages. What concerns
this machine alone does not either: cached contents above all, which are not sealed here. Of a dirty chunk it travels
*that* it is dirty, so that a copy knows what it lacks.

Rows are named by their primary keys, and a change is the new state of the rows that it touched, so that what is
applied twice is as if it was applied once. An inode's row replaces what was said of its dirty chunks before.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

END_OF_CHUNKS = 1 << 62
"""Past the last chunk of the largest possible file."""


class Table(enum.IntEnum):
    """What the rows of a block are. Numbers of a stored format: never renumbered.

    The deletions come first when they are applied: see ORDER.
    """

    INODES = 1
    NAMES = 2
    XATTRS = 3
    PACKS = 4
    EXTENTS = 5
    DIRTY = 6
    """Runs of chunks whose newest content Discord does not have."""
    GONE_INODES = 7
    """Their extended attributes are gone too."""
    GONE_NAMES = 8
    GONE_XATTRS = 9
    GONE_PACKS = 10
    CLEARED_EXTENTS = 11
    """Extents of an inode that begin in chunks `first` to `end`, end excluded, are gone, but for those that follow."""
    TRASH = 12
    """What can be restored: no inode any more, but with extents and extended attributes."""
    SNAPSHOT = 13
    """One row that comes first in the shipment of a snapshot, and nowhere else: what it is called."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a table, as they travel."""

    integers: tuple[str, ...]
    strings: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All of them, integers first."""
        return self.integers + self.strings


_ATTRIBUTES = ("mode", "nlink", "uid", "gid", "rdev", "size_bytes", "atime_ns", "mtime_ns", "ctime_ns")

LAYOUTS: Mapping[Table, Layout] = MappingProxyType(
    {
        Table.INODES: Layout(("inode", *_ATTRIBUTES), ("target",)),
        Table.NAMES: Layout(("parent", "inode", "cookie"), ("name",)),
        Table.XATTRS: Layout(("inode",), ("name", "value")),
        Table.PACKS: Layout(("pack", "message", "channel", "attachment", "size_bytes"), ("pack_id", "slots")),
        Table.EXTENTS: Layout(("inode", "first_chunk", "count", "pack", "first_slot", "stored_bytes")),
        Table.DIRTY: Layout(("inode", "first_chunk", "count")),
        Table.GONE_INODES: Layout(("inode",)),
        Table.GONE_NAMES: Layout(("parent",), ("name",)),
        Table.GONE_XATTRS: Layout(("inode",), ("name",)),
        Table.GONE_PACKS: Layout(("pack",)),
        Table.CLEARED_EXTENTS: Layout(("inode", "first", "end")),
        Table.TRASH: Layout(
            ("inode", "trashed_ns", "reason", "mode", "uid", "gid", "rdev", "size_bytes", "atime_ns", "mtime_ns"),
            ("path", "target"),
        ),
        Table.SNAPSHOT: Layout(("snapshot", "created_ns"), ("name",)),
    }
)
"""What is no symbolic link has an empty target."""

ORDER: tuple[Table, ...] = (
    Table.GONE_INODES,
    Table.GONE_NAMES,
    Table.GONE_XATTRS,
    Table.GONE_PACKS,
    Table.CLEARED_EXTENTS,
    Table.INODES,
    Table.TRASH,
    Table.NAMES,
    Table.XATTRS,
    Table.PACKS,
    Table.EXTENTS,
    Table.DIRTY,
)
"""In which order blocks come and are applied: an inode's row forgets its dirty chunks, its dirty chunks follow."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of one table, column by column in the order of its layout; all columns are of one length."""

    table: Table
    columns: tuple[Sequence[Any], ...]

    def __len__(self) -> int:
        return len(self.columns[0])

    @classmethod
    def of_rows(cls, table: Table, rows: Sequence[tuple[Any, ...]]) -> Block:
        """At least one row, each a tuple in the order of the layout."""
        return cls(table, tuple(zip(*rows, strict=True)))

    def halves(self) -> tuple[Block, Block]:
        """The first and the second half of its rows; it has two at least."""
        middle = len(self) // 2
        return (
            Block(self.table, tuple(column[:middle] for column in self.columns)),
            Block(self.table, tuple(column[middle:] for column in self.columns)),
        )

    def rows(self) -> list[tuple[Any, ...]]:
        """The rows again."""
        return list(zip(*self.columns, strict=True))
