"""Inodes of the model file system: what stat shows, when each time last moved, which chunks a file has. No I/O."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field

DAY_NS = 86_400 * 10**9


@dataclass
class Moment:
    """When something happened, as exactly as an observer outside can say: some time from `low_ns` to `high_ns`."""

    low_ns: int
    high_ns: int

    @classmethod
    def exactly(cls, time_ns: int) -> Moment:
        """A time that somebody set."""
        return cls(time_ns, time_ns)

    def holds(self, time_ns: int) -> bool:
        """Whether this moment may be `time_ns`."""
        return self.low_ns <= time_ns <= self.high_ns


@dataclass
class Node:
    """One inode. Two nodes are the same inode exactly if their numbers are equal, also in copies of the tree."""

    number: int
    mode: int
    uid: int
    gid: int
    born: Moment
    rdev: int = 0
    target: str = ""
    parent: Node | None = None
    nlink: int = 1
    content: bytearray = field(default_factory=bytearray)
    written: set[int] = field(default_factory=set)
    """The chunks in which a byte was ever written since they were last cut off."""
    entries: dict[str, Node] = field(default_factory=dict)
    xattrs: dict[str, bytes] = field(default_factory=dict)
    atime: Moment = field(init=False)
    mtime: Moment = field(init=False)
    ctime: Moment = field(init=False)
    late_atimes: list[Moment] = field(default_factory=list)
    """Other times that the atime may show where reads are answered from a page cache: each read may be unseen."""

    def __post_init__(self) -> None:
        self.atime = self.mtime = self.ctime = self.born
        if self.is_directory:
            self.nlink = 2

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def size(self) -> int:
        return len(self.target) if self.is_symlink else len(self.content)

    def changed(self, now: Moment) -> None:
        """Contents or entries changed."""
        self.mtime = self.ctime = now

    def read(self, now: Moment, *, seen: bool = True) -> None:
        """Contents were read: relatime. Without `seen` the file system may not have been asked."""
        moved = [moment for moment in (self.atime, *self.late_atimes) if not self._moves(moment, now)]
        if len(moved) == 1 + len(self.late_atimes):
            return
        if seen:
            self.late_atimes = moved
        else:
            self.late_atimes = [self.atime, *self.late_atimes, now]
        if self._moves(self.atime, now):
            self.atime = now

    def set_atime(self, moment: Moment) -> None:
        """The atime is known again."""
        self.atime, self.late_atimes = moment, []

    def observed_atime(self, time_ns: int) -> bool:
        """Whether the atime may be `time_ns`, which from now on is known."""
        possible = [moment for moment in (self.atime, *self.late_atimes) if moment.holds(time_ns)]
        if possible:
            self.late_atimes = [moment for moment in possible if moment is not self.atime]
        return bool(possible)

    def _moves(self, atime: Moment, now: Moment) -> bool:
        known = atime.low_ns
        return known <= self.mtime.low_ns or known <= self.ctime.low_ns or now.low_ns - known >= DAY_NS

    def write(self, offset: int, data: bytes, chunk_bytes: int) -> None:
        """Bytes at a place; what lies between the end and it is a hole."""
        end = offset + len(data)
        self.content.extend(bytes(max(0, end - len(self.content))))
        self.content[offset:end] = data
        self.written.update(range(offset // chunk_bytes, (end - 1) // chunk_bytes + 1))

    def resize(self, size: int, chunk_bytes: int) -> None:
        """A cut, or a longer hole at the end."""
        del self.content[size:]
        self.content.extend(bytes(max(0, size - len(self.content))))
        self.written = {chunk for chunk in self.written if chunk * chunk_bytes < size}

    def fewest_bytes(self) -> int:
        """What st_blocks must account for: one byte of each chunk that was written."""
        return len(self.written)

    def most_bytes(self, chunk_bytes: int, block_bytes: int) -> int:
        """What st_blocks may account for: no hole chunk, and nothing behind the end."""
        return min(-(-len(self.content) // block_bytes) * block_bytes, len(self.written) * chunk_bytes)
