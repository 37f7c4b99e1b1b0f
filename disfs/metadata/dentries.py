"""Rows of the dentries table: finding, listing, and the way from an inode back to its paths.

An entry keeps its cookie while it is renamed within its directory, and a name that is renamed over keeps its own.
So a program that renames every entry that it is shown comes to an end, and a name that is replaced in
place (as editors save files) is never missing from a listing.

What was looked up last is known in memory, absent names too, and names are changed there; the rows follow when the
database flushes what is held back. Whatever asks for names by a query flushes first. Of a directory that was made a
short while ago all names are known, so that filling it asks for none; and of a small one in which names were looked for
in vain, as whoever makes files in it does for each.
"""

from __future__ import annotations

import errno
import itertools
import logging
import stat
from typing import TYPE_CHECKING, Any, TypeAlias

from disfs.errors import FilesystemError, MetadataDamagedError
from disfs.metadata.base import NAME_MAX
from disfs.metadata.batches import insert_rows
from disfs.metadata.inodes import COLUMNS, LastName, stale
from disfs.metadata.views import SNAPSHOTS_NAME, refuse_view
from disfs.values import (
    FIRST_VIEW_INODE,
    REPORTS_INODE,
    REPORTS_NAME,
    ROOT_INODE,
    Attributes,
    DirectoryEntry,
    InodeNumber,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.metadata.counters import Counter
    from disfs.metadata.database import Database
    from disfs.metadata.inodes import Inodes
    from disfs.metadata.outbox import Outbox
    from disfs.values import TrashReason

log = logging.getLogger(__name__)

_Key: TypeAlias = tuple[InodeNumber, bytes]
_Entry: TypeAlias = tuple[InodeNumber, int]
"""What a name stands for, and the name's cookie."""

_INODE_COLUMNS = ", ".join(f"inodes.{column}" for column in COLUMNS.split(", "))
_KNOWN = 32_768
"""Names that are kept in memory, about 250 bytes each."""
_COMPLETE = 4096
"""Directories of which all names are known at most."""
_IN_VAIN = 16
"""After so many absent names, a power of two, all names of a directory are learnt, if they are not many."""
_LEARNT = 512
"""So many: half a millisecond."""
_PATHS = 4096
"""Paths of directories that are kept in memory at most."""
_UNKNOWN: Any = object()
_LOOKUP = (
    f"SELECT {_INODE_COLUMNS}, dentries.cookie FROM dentries JOIN inodes ON inodes.inode = dentries.inode"  # noqa: S608 - constants of this module
    " WHERE dentries.parent = ? AND dentries.name = ?"
)
_INSERT = "INSERT INTO dentries (parent, name, inode, cookie) VALUES {values}"
_NAMES = "SELECT name, inode, cookie FROM dentries WHERE parent = ? LIMIT ?"
_LIST = (
    f"SELECT dentries.name, dentries.cookie, {_INODE_COLUMNS}"  # noqa: S608 - constants of this module
    " FROM dentries JOIN inodes ON inodes.inode = dentries.inode"
    " WHERE dentries.parent = ? AND dentries.cookie > ? ORDER BY dentries.cookie LIMIT ?"
)


def check_name(name: bytes) -> None:
    """Raise unless `name` may stand in a directory; `.` and `..` are the caller's affair."""
    if len(name) > NAME_MAX:
        raise FilesystemError(errno.ENAMETOOLONG)
    if not name or b"/" in name or b"\0" in name:
        raise FilesystemError(errno.EINVAL, "a name is 1 to 255 bytes without / and NUL")


class Dentries:
    """Names in directories. Methods that change rows must be called inside a change, after their caller's checks."""

    def __init__(self, database: Database, outbox: Outbox, inodes: Inodes, cookies: Counter) -> None:
        self._database = database
        self._outbox = outbox
        self._inodes = inodes
        self._cookies = cookies
        self._known: dict[_Key, _Entry | None] = {}
        """What names stand for; None for one that is not there."""
        self._changed: dict[_Key, bool] = {}
        """Names whose row is not as known, and whether there may be a row at all."""
        self._complete: dict[InodeNumber, int] = {}
        """Directories whose names are all known, and how many they are."""
        self._in_vain: dict[InodeNumber, int] = {}
        """In which others names were looked for that are not there, and how often."""
        self._paths: dict[InodeNumber, bytes] = {}
        """Where directories are, with a slash at the end; forgotten when any of them moves."""
        self.notes_paths = False
        """Whether an inode that loses its last name is told what it was."""
        database.held_back.append(self._write_rows)
        database.after_failure += (self._known.clear, self._complete.clear, self._paths.clear)
        database.after_rollback.append(self._paths.clear)

    def lookup(self, parent: InodeNumber, name: bytes) -> Attributes:
        """See MetadataStore. The common case, a name that is there, takes one statement, or none."""
        found = self.find(parent, name)
        if found is not None:
            return found
        directory = self.directory(parent)
        check_name(name)
        if name == b".":
            return directory
        if name == b"..":
            return self._inodes.attributes(self.parent_of(parent))
        raise FilesystemError(errno.ENOENT)

    def find(self, parent: InodeNumber, name: bytes) -> Attributes | None:
        """The inode that an ordinary name stands for, None when there is no such name."""
        entry = self._known.get((parent, name), _UNKNOWN)
        if entry is _UNKNOWN:
            if len(self._known) >= _KNOWN or len(self._complete) > _COMPLETE:
                self._make_room()
            return self._unnamed(parent, name) if parent in self._complete else self._query(parent, name)
        return None if entry is None else self._inodes.attributes(entry[0])

    def _query(self, parent: InodeNumber, name: bytes) -> Attributes | None:
        if parent >= FIRST_VIEW_INODE:
            return self._inodes.views.lookup(parent, name)
        row = self._database.row(_LOOKUP, (parent, name))
        if row is None:
            shown = self._unnamed(parent, name)
            if shown is None:
                self._known[parent, name] = None
                self._looked_in_vain(parent)
            return shown
        self._known[parent, name] = (row[0], row[-1])
        return self._inodes.learn(row[:-1])

    def _unnamed(self, parent: InodeNumber, name: bytes) -> Attributes | None:
        """What a name stands for that is in no row: mostly nothing."""
        if name == SNAPSHOTS_NAME and parent == ROOT_INODE:
            return self._inodes.attributes(FIRST_VIEW_INODE)
        if name == REPORTS_NAME and parent == ROOT_INODE:
            return self._inodes.attributes(REPORTS_INODE)
        return None

    def _looked_in_vain(self, parent: InodeNumber) -> None:
        """Learn all names of a directory if this was often enough. Not between the alterations of a change."""
        count = self._in_vain.get(parent, 0) + 1
        if len(self._in_vain) >= _COMPLETE:
            self._in_vain.clear()
        self._in_vain[parent] = count
        # At each power of two: it may be larger than what is learnt. Where damage is feared nothing else is looked at.
        if count < _IN_VAIN or count & (count - 1) or self._database.guards_changes:
            return
        try:
            self._database.flush()
            rows = self._database.rows(_NAMES, (parent, _LEARNT + 1))
        except MetadataDamagedError as error:
            log.debug("the names of directory %d are not learnt: %s", parent, error)
            return
        if len(rows) > _LEARNT:
            return
        for name, inode, cookie in rows:
            self._known.setdefault((parent, name), (inode, cookie))
        self._complete[parent] = len(rows)
        del self._in_vain[parent]

    def directory(self, inode: InodeNumber) -> Attributes:
        """The attributes of a directory in which a name is looked for: ENOENT when it is gone, ENOTDIR."""
        attributes = self._inodes.find(inode)
        if attributes is None:
            raise FilesystemError(errno.ENOENT, f"directory {inode} was removed")
        if not stat.S_ISDIR(attributes.mode):
            raise FilesystemError(errno.ENOTDIR)
        return attributes

    def living_directory(self, inode: InodeNumber) -> Attributes:
        """`directory` for a new name: a removed one takes none, although it is open somewhere (ENOENT)."""
        attributes = self.directory(inode)
        refuse_view(inode)
        if attributes.nlink == 0:
            raise FilesystemError(errno.ENOENT, f"directory {inode} was removed")
        return attributes

    def is_empty(self, directory: InodeNumber) -> bool:
        """Whether there is no name in it."""
        count = self._complete.get(directory)
        if count is not None:
            return not count
        self._database.flush()
        return self._database.row("SELECT 1 FROM dentries WHERE parent = ? LIMIT 1", (directory,)) is None

    def list_directory(self, inode: InodeNumber, after_cookie: int, limit: int) -> Sequence[DirectoryEntry]:
        """See MetadataStore."""
        if inode >= FIRST_VIEW_INODE:
            rows = []
            entries = self._inodes.views.entries(inode, after_cookie, limit)
            if entries:
                return entries
        else:
            self._database.flush()
            rows = self._database.rows(_LIST, (inode, after_cookie, limit))
        if not rows:
            attributes = self._inodes.attributes(inode)
            if not stat.S_ISDIR(attributes.mode):
                raise FilesystemError(errno.ENOTDIR)
        return [DirectoryEntry(row[0], row[1], Attributes._make(row[2:])) for row in rows]

    def parent_of(self, directory: InodeNumber) -> InodeNumber:
        """See MetadataStore."""
        if directory >= FIRST_VIEW_INODE:
            return self._inodes.views.parent_of(directory)
        self._database.flush()
        row = self._database.row("SELECT parent FROM dentries WHERE inode = ?", (directory,))
        if row is not None:
            return InodeNumber(row[0])
        if self._inodes.find(directory) is None:
            raise stale(directory)
        return directory

    def is_within(self, inode: InodeNumber, directory: InodeNumber) -> bool:
        """Whether `inode`, a directory, is `directory` or lies anywhere below it."""
        while inode != directory:
            if inode == ROOT_INODE:
                return False
            parent = self.parent_of(inode)
            if parent == inode:
                return False
            inode = parent
        return True

    def paths(self, inode: InodeNumber) -> Sequence[bytes]:
        """Every path from the root that leads to the inode, in order; empty for an orphan or an unknown one."""
        if inode == ROOT_INODE:
            return [b"/"]
        if inode >= FIRST_VIEW_INODE:
            return self._inodes.views.paths(inode)
        self._database.flush()
        rows = self._database.rows("SELECT parent, name FROM dentries WHERE inode = ?", (inode,))
        return sorted(self._path_of_directory(parent) + name for parent, name in rows)

    def path(self, inode: InodeNumber) -> bytes | None:
        """One path from the root that leads to the inode, however many do; None for an orphan or an unknown one."""
        if inode == ROOT_INODE or inode >= FIRST_VIEW_INODE:
            return next(iter(self.paths(inode)), None)
        self._database.flush()
        row = self._database.row("SELECT parent, name FROM dentries WHERE inode = ? LIMIT 1", (inode,))
        return None if row is None else self.path_of_directory(InodeNumber(row[0])) + row[1]

    def last_name(self, parent: InodeNumber, name: bytes, reason: TrashReason) -> LastName | None:
        """What an inode is about to lose, if that is to be noted. Before the first alteration of a change."""
        return LastName(self.path_of_directory(parent) + name, reason) if self.notes_paths else None

    def path_of_directory(self, directory: InodeNumber) -> bytes:
        """Its path with a slash at the end. Not between the alterations of a change."""
        path = self._paths.get(directory)
        if path is None:
            self._database.flush()
            if len(self._paths) >= _PATHS:
                self._paths.clear()
            path = self._paths[directory] = self._path_of_directory(directory)
        return path

    def moved_directory(self) -> None:
        """Some directory has another place than before. Inside a change."""
        self._paths.clear()

    def made_directory(self, inode: InodeNumber) -> None:
        """There is a new directory, with no name in it. Inside a change."""
        self._database.alter(self._complete, inode, 0)

    def removed_directory(self, inode: InodeNumber) -> None:
        """An empty directory has lost its name. Inside a change."""
        self._database.erase(self._complete, inode)
        self._paths.pop(inode, None)

    def insert(self, parent: InodeNumber, name: bytes, inode: InodeNumber) -> None:
        """A new name."""
        self._put((parent, name), (inode, self._cookies.take()), has_row=False)
        self._count(parent, 1)

    def point(self, parent: InodeNumber, name: bytes, inode: InodeNumber) -> None:
        """An existing name stands for another inode."""
        _, cookie = self._entry((parent, name))
        self._put((parent, name), (inode, cookie), has_row=True)

    def rename_within(self, parent: InodeNumber, name: bytes, new_name: bytes) -> None:
        """An existing name reads otherwise, in the same directory."""
        entry = self._entry((parent, name))
        self._remove((parent, name))
        self._put((parent, new_name), entry, has_row=False)

    def remove(self, parent: InodeNumber, name: bytes) -> None:
        """A name is no more."""
        self._remove((parent, name))
        self._count(parent, -1)

    def _remove(self, key: _Key) -> None:
        if self._changed.get(key, True):
            self._put(key, None, has_row=True)
        else:
            # Made since the last flush: there is nothing to delete.
            if key[0] in self._complete:
                self._database.erase(self._known, key)
            else:
                self._database.alter(self._known, key, None)
            self._database.erase(self._changed, key)

    def _count(self, parent: InodeNumber, more: int) -> None:
        count = self._complete.get(parent)
        if count is not None:
            self._database.alter(self._complete, parent, count + more)

    def _entry(self, key: _Key) -> _Entry:
        """Of a name that the caller has found; it may have been forgotten since."""
        if key not in self._known:
            self._query(*key)
        entry = self._known[key]
        assert entry is not None, "an existing name"
        return entry

    def _put(self, key: _Key, entry: _Entry | None, *, has_row: bool) -> None:
        self._database.alter(self._known, key, entry)
        if key not in self._changed:
            self._database.alter(self._changed, key, has_row)

    def _write_rows(self) -> None:
        """Bring the table up to date with what is known; deletes first, since a cookie may move to another name."""
        if not self._changed:
            return
        self._outbox.note_names(self._changed)
        self._database.write_all(
            "DELETE FROM dentries WHERE parent = ? AND name = ?",
            [key for key, has_row in self._changed.items() if has_row],
        )
        rows = [(*key, *entry) for key in self._changed if (entry := self._known[key]) is not None]
        insert_rows(self._database, _INSERT, rows, width=4)
        for key in self._changed:
            # Of a directory whose names are all known it is no news what is not there.
            if key[0] in self._complete and self._known[key] is None:
                del self._known[key]
        self._changed.clear()

    def _make_room(self) -> None:
        """Much is known: forget a quarter of it, what was learnt first. Not between the alterations of a change."""
        if len(self._complete) > _COMPLETE:
            self._complete.clear()
        if len(self._known) < _KNOWN:
            return
        for key in list(itertools.islice(self._known, _KNOWN // 4)):
            if key not in self._changed and self._known.pop(key) is not None:
                self._complete.pop(key[0], None)

    def _path_of_directory(self, directory: InodeNumber) -> bytes:
        """Its path with a slash at the end."""
        names: list[bytes] = []
        while directory != ROOT_INODE:
            row = self._database.row("SELECT parent, name FROM dentries WHERE inode = ?", (directory,))
            assert row is not None, "only empty directories lose their name"
            directory = InodeNumber(row[0])
            names.append(row[1] + b"/")
        return b"/" + b"".join(reversed(names))
