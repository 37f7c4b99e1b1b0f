"""In which order clean chunks leave the cache. No I/O, and no knowledge of which chunks are clean.

Recency is kept per group of 64 chunks: the longest unused group goes first. Two things keep it useful:

- A file that streams through once must not push out what is used again and again. What a sequential reader has passed,
  and nobody has read since it came, is *spent*: it goes before everything else, the longest spent first. A
  chunk that is read again is spent no more. So a stream takes the room of its own past, behind the reader.
- A *pinned* inode's chunks have an order of their own, of which nothing goes but what exceeds the room for pinned data.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from disfs.values import InodeNumber

GROUP_CHUNKS = 64
Group: TypeAlias = "tuple[InodeNumber, int]"
"""An inode, and the number of 64 chunks of it."""


@dataclass(slots=True)
class _Marks:
    """What is known of single chunks of a group, a bit for each."""

    fresh: int = 0
    """Came from Discord, and no sequential reader has passed them yet."""
    unread: int = 0
    """Were fetched ahead, and nobody has read them yet."""
    spent: int = 0

    @property
    def empty(self) -> bool:
        return not (self.fresh or self.unread or self.spent)


class Recency:
    """The order of eviction, and what became of the chunks that were fetched ahead."""

    def __init__(self) -> None:
        self.pinned: set[InodeNumber] = set()
        """Change it through `pin` and `unpin`."""
        self.ahead_used_count = 0
        """Chunks that were fetched ahead and then read."""
        self.ahead_wasted_count = 0
        """Chunks that were fetched ahead and left the cache, or were overwritten, before anybody read them."""
        self._groups: OrderedDict[Group, None] = OrderedDict()
        self._pinned_groups: OrderedDict[Group, None] = OrderedDict()
        self._spent: OrderedDict[Group, None] = OrderedDict()
        self._marks: dict[Group, _Marks] = {}

    # -- what happens to chunks ---------------------------------------------------------------------------------

    def became_clean(self, inode: InodeNumber, index: int) -> None:
        """A chunk may be evicted from now on; its group counts as used."""
        group = (inode, index // GROUP_CHUNKS)
        order = self._order(inode)
        order[group] = None
        order.move_to_end(group)

    def came(self, inode: InodeNumber, index: int, *, ahead: bool) -> None:
        """A chunk that is clean now came from Discord; `ahead` when nobody waited for it."""
        group = (inode, index // GROUP_CHUNKS)
        marks = self._marks.get(group)
        if marks is None:
            marks = self._marks[group] = _Marks()
        bit = 1 << index % GROUP_CHUNKS
        marks.fresh |= bit
        if ahead:
            marks.unread |= bit

    def used(self, inode: InodeNumber, chunks: range) -> None:
        """Chunks were read: their groups are evicted last."""
        order = self._pinned_groups if inode in self.pinned else self._groups
        number = chunks.start // GROUP_CHUNKS
        if not self._marks and (chunks.stop - 1) // GROUP_CHUNKS == number:
            # Most reads, of files that were there before.
            if (inode, number) in order:
                order.move_to_end((inode, number))
            return
        for group, bits in group_bits(inode, chunks):
            if group in order:
                order.move_to_end(group)
            marks = self._marks.get(group)
            if marks is not None and (marks.unread | marks.spent) & bits:
                self.ahead_used_count += (marks.unread & bits).bit_count()
                self._clear(group, marks, unread=bits, spent=bits)

    def passed(self, inode: InodeNumber, chunks: range) -> None:
        """A sequential reader will not come back to these chunks: those that came for it are spent."""
        if inode in self.pinned:
            return
        for group, bits in group_bits(inode, chunks):
            marks = self._marks.get(group)
            if marks is not None and (newly := marks.fresh & bits):
                marks.spent |= newly
                marks.fresh &= ~newly
                self._spent[group] = None

    def gone(self, inode: InodeNumber, index: int) -> None:
        """A chunk is not in the cache any more, or has other content now."""
        group = (inode, index // GROUP_CHUNKS)
        marks = self._marks.get(group)
        if marks is not None:
            bit = 1 << index % GROUP_CHUNKS
            self.ahead_wasted_count += bool(marks.unread & bit)
            self._clear(group, marks, fresh=bit, unread=bit, spent=bit)

    def _clear(self, group: Group, marks: _Marks, *, fresh: int = 0, unread: int = 0, spent: int = 0) -> None:
        marks.fresh &= ~fresh
        marks.unread &= ~unread
        marks.spent &= ~spent
        if not marks.spent:
            self._spent.pop(group, None)
        if marks.empty:
            del self._marks[group]

    # -- pins ---------------------------------------------------------------------------------------------------

    def pin(self, inode: InodeNumber, groups: Iterable[int]) -> None:
        """`groups` are the groups of which something is cached."""
        self.pinned.add(inode)
        self._move_over(inode, groups, self._groups, self._pinned_groups)
        for number in groups:
            if (marks := self._marks.get((inode, number))) is not None:
                self._clear((inode, number), marks, spent=marks.spent)

    def unpin(self, inode: InodeNumber, groups: Iterable[int]) -> None:
        """The opposite."""
        self.pinned.discard(inode)
        self._move_over(inode, groups, self._pinned_groups, self._groups)

    @staticmethod
    def _move_over(
        inode: InodeNumber, groups: Iterable[int], source: OrderedDict[Group, None], target: OrderedDict[Group, None]
    ) -> None:
        for number in groups:
            if (inode, number) in source:
                del source[inode, number]
                target[inode, number] = None

    def _order(self, inode: InodeNumber) -> OrderedDict[Group, None]:
        return self._pinned_groups if inode in self.pinned else self._groups

    # -- who goes first -----------------------------------------------------------------------------------------

    def first_spent(self) -> tuple[Group, int] | None:
        """The group with the longest spent chunks, and the bits of these chunks."""
        group = next(iter(self._spent), None)
        return None if group is None else (group, self._marks[group].spent)

    def first(self, *, pinned: bool = False) -> Group | None:
        """The longest unused group, of those that are pinned or of those that are not."""
        return next(iter(self._pinned_groups if pinned else self._groups), None)

    def pass_over_spent(self, group: Group) -> None:
        """Nothing that is spent in the group can be evicted now."""
        marks = self._marks[group]
        self._clear(group, marks, spent=marks.spent)

    def pass_over(self, group: Group) -> None:
        """Nothing in the group can be evicted now; it comes back when one of its chunks becomes clean."""
        self._groups.pop(group, None)
        self._pinned_groups.pop(group, None)
        if group in self._spent:
            self.pass_over_spent(group)


def group_bits(inode: InodeNumber, chunks: range) -> Iterator[tuple[Group, int]]:
    """The groups that `chunks` touch, each with the bits of those of its chunks that are meant."""
    position = chunks.start
    while position < chunks.stop:
        number, first = divmod(position, GROUP_CHUNKS)
        end = min(chunks.stop, (number + 1) * GROUP_CHUNKS)
        yield (inode, number), ((1 << end - position) - 1) << first
        position = end
