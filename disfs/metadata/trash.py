"""What was deleted or replaced, for as long as it can be restored.

Packs never change, so keeping a file costs nothing but its rows: its extents and extended attributes stay as they are,
and what they refer to stays live; only its row of `inodes` becomes one of `trash`. An emptied file lives on, so what
was in it gets a number of its own. What takes no part in this: contents that were never sent.

    kept                                                      not kept
    a file with recorded contents, if little of it is unsent  a file of which nothing, or not nearly all, was sent
    links, special files, directories, empty files,           those that were made an instant ago
    of an emptied file what lies before its first unsent      an emptied file whose beginning is unsent
    chunk                                                     what lies at a path of more than 64 KiB

The trash counts neither as inodes nor as bytes of the volume: deleting gives room at once.
"""

from __future__ import annotations

import errno
import stat
import time
from typing import TYPE_CHECKING

from disfs.errors import FilesystemError
from disfs.metadata.dentries import check_name
from disfs.metadata.inodes import LastName
from disfs.values import Attributes, ChunkIndex, InodeNumber, Trashed, TrashReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.metadata.database import Database
    from disfs.metadata.dentries import Dentries
    from disfs.metadata.dirty import Dirty
    from disfs.metadata.extents import Extents
    from disfs.metadata.inodes import Inodes
    from disfs.metadata.outbox import Outbox

PATH_BYTES = 64 * 1024
"""What lies at a longer path is not kept: directories can be as deep as one likes, and a row that tells of a path must
fit into any attachment."""
UNSENT_CHUNKS = 64
"""A file with more dirty chunks than this is not kept: whoever deletes it would have them sent first."""
_COLUMNS = "inode, path, trashed_ns, reason, mode, uid, gid, rdev, size_bytes, atime_ns, mtime_ns, target"
_SELECT = f"SELECT {_COLUMNS} FROM trash"  # noqa: S608 - constants of this module
_INSERT = f"INSERT INTO trash ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants of this module
_PAGE = f"{_SELECT} WHERE (path, inode) > (?, ?) AND path < ? ORDER BY path, inode LIMIT ?"


class Trash:
    """The trash of a volume. `seconds`: how long things stay in it; 0: nothing gets there."""

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        inodes: Inodes,
        dentries: Dentries,
        dirty: Dirty,
        extents: Extents,
        seconds: float,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._inodes = inodes
        self._dentries = dentries
        self._dirty = dirty
        self._extents = extents
        self._keep_ns = int(seconds * 1e9)
        dentries.notes_paths = self._keep_ns > 0
        row = database.row("SELECT count(*), coalesce(sum(size_bytes), 0) FROM trash")
        assert row is not None
        self._totals = {None: (row[0], row[1])}

    def keep_for(self, seconds: float) -> None:
        """Keep what is deleted from now on so long; 0: not at all. What is here goes when somebody asks for it."""
        self._keep_ns = int(seconds * 1e9)
        self._dentries.notes_paths = self._keep_ns > 0

    @property
    def totals(self) -> tuple[int, int]:
        """How many things there are, and their sizes together."""
        return self._totals[None]

    def take_orphan(self, inode: InodeNumber, now_ns: int) -> bool:
        """See TrashStore."""
        old = self._inodes.find(inode) if self._keep_ns else None
        if old is None or old.nlink or not self._is_worth_it(old):
            return False
        last = self._inodes.last_name(inode)
        if last is None or len(last.path) > PATH_BYTES or self._database.room.is_low:
            return False
        target = self._inodes.symlink_target(inode) if stat.S_ISLNK(old.mode) else None
        with self._database.changing:
            self._inodes.forget(old, to_trash=True)
            self._insert(inode, last, now_ns, old, old.size_bytes, target)
        return True

    def _is_worth_it(self, old: Attributes) -> bool:
        if not stat.S_ISREG(old.mode) or not old.chunk_count:
            return not self._inodes.is_new(old.inode)
        return self._extents.has_any(old.inode) and not self._dirty.has_more(old.inode, UNSENT_CHUNKS)

    def emptying(self, inode: InodeNumber) -> LastName | None:
        """A file is about to be cut to nothing: under which path `take_content` keeps what is in it, if it does."""
        if not self._keep_ns or self._database.room.is_low or not self._extents.has_any(inode):
            return None
        attributes = self._inodes.find(inode)
        if attributes is None or not attributes.nlink:
            return None
        path = next(iter(self._dentries.paths(inode)), None)
        return None if path is None or len(path) > PATH_BYTES else LastName(path, TrashReason.EMPTIED)

    def take_content(self, inode: InodeNumber, last: LastName) -> None:
        """What is recorded of a file's content, up to the first chunk that is dirty, moves away. Inside a change."""
        old = self._inodes.attributes(inode)
        size_bytes = old.size_bytes
        unsent = self._dirty.first(inode)
        if unsent is not None:
            if unsent == 0:
                return
            self._extents.cut(inode, ChunkIndex(unsent))
            size_bytes = min(size_bytes, unsent * self._extents.chunk_bytes)
        kept = self._inodes.take_number()
        if not self._extents.move(inode, kept):
            return
        for (name,) in self._database.rows("SELECT name FROM xattrs WHERE inode = ?", (inode,)):
            self._outbox.note_xattr(kept, name)
        self._database.write(
            "INSERT INTO xattrs (inode, name, value) SELECT ?, name, value FROM xattrs WHERE inode = ?", (kept, inode)
        )
        # Of a regular file this says that its slots name another inode.
        self._insert(kept, last, time.time_ns(), old._replace(rdev=inode), size_bytes, None)

    def _insert(
        self,
        inode: InodeNumber,
        last: LastName,
        now_ns: int,
        old: Attributes,
        size_bytes: int,
        target: bytes | None,
    ) -> None:
        self._outbox.note_inodes([inode])
        told = (inode, last.path, now_ns, last.reason)
        kept = (old.mode, old.uid, old.gid, old.rdev, size_bytes, old.atime_ns, old.mtime_ns, target)
        self._database.write(_INSERT, told + kept)
        self._count(1, size_bytes)

    def _count(self, count: int, size_bytes: int) -> None:
        before_count, before_bytes = self._totals[None]
        self._database.alter(self._totals, None, (before_count + count, before_bytes + size_bytes))

    def is_renumbered(self, inode: InodeNumber) -> bool:
        """See ChunkLedger."""
        found = self._inodes.find(inode) or self.entry(inode)
        return found is not None and stat.S_ISREG(found.mode) and found.rdev != 0

    def entry(self, inode: InodeNumber) -> Trashed | None:
        """What has this number; None when it is not in the trash."""
        row = self._database.row(f"{_SELECT} WHERE inode = ?", (inode,))
        return None if row is None else _trashed(row)

    def at(self, path: bytes) -> Sequence[Trashed]:
        """See TrashStore."""
        return [_trashed(row) for row in self._database.rows(f"{_SELECT} WHERE path = ? ORDER BY trashed_ns", (path,))]

    def below(self, directory: bytes, after: tuple[bytes, InodeNumber] | None, limit: int) -> Sequence[Trashed]:
        """See TrashStore."""
        begin = directory.rstrip(b"/") + b"/"
        position = after or (begin, InodeNumber(0))
        end = begin[:-1] + b"0"  # the byte after a slash
        return [_trashed(row) for row in self._database.rows(_PAGE, (*position, end, limit))]

    def expired(self, before_ns: int, limit: int) -> Sequence[InodeNumber]:
        """See TrashStore."""
        rows = self._database.rows(
            "SELECT inode FROM trash WHERE trashed_ns <= ? ORDER BY trashed_ns LIMIT ?", (before_ns, limit)
        )
        return [InodeNumber(row[0]) for row in rows]

    def remove(self, inode: InodeNumber) -> None:
        """See TrashStore."""
        entry = self.entry(inode)
        if entry is None:
            return
        with self._database.changing:
            self._outbox.note_inodes([inode])
            self._database.write("DELETE FROM trash WHERE inode = ?", (inode,))
            self._database.write("DELETE FROM xattrs WHERE inode = ?", (inode,))
            self._count(-1, -entry.size_bytes)

    def restore(self, inode: InodeNumber, parent: InodeNumber, name: bytes, now_ns: int) -> Attributes:
        """See TrashStore."""
        with self._database.growing:
            self._database.flush()  # the rows of an inode that has just come here are still to be deleted
            entry = self.entry(inode)
            if entry is None:
                raise FilesystemError(errno.ENOENT, "it is not in the trash any more")
            self._dentries.living_directory(parent)
            check_name(name)
            if name in (b".", b"..") or self._dentries.find(parent, name) is not None:
                raise FilesystemError(errno.EEXIST)
            is_directory = stat.S_ISDIR(entry.mode)
            attributes = Attributes(
                inode,
                entry.mode,
                2 if is_directory else 1,
                entry.uid,
                entry.gid,
                entry.rdev,
                entry.size_bytes,
                entry.atime_ns,
                entry.mtime_ns,
                now_ns,
                self._extents.chunk_total(inode) if stat.S_ISREG(entry.mode) else 0,
            )
            self._inodes.revive(attributes, entry.target)
            self._dentries.insert(parent, name, inode)
            self._inodes.touch_directory(parent, int(is_directory), now_ns)
            self._database.write("DELETE FROM trash WHERE inode = ?", (inode,))
            self._count(-1, -entry.size_bytes)
        return attributes


def _trashed(row: tuple[object, ...]) -> Trashed:
    inode, path, trashed_ns, reason, *rest = row
    return Trashed(inode, path, trashed_ns, TrashReason(reason), *rest)  # type: ignore[arg-type] # columns of that type
