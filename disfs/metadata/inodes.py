"""Rows of the inodes table: attributes, sizes, times, link counts, orphans.

The attributes of the inodes that were used last are known in memory, and what changes is changed there; the rows
follow when the database flushes what is held back. So `_known` is what is true, and a row may only be read for an
inode that is neither known nor gone.
"""

from __future__ import annotations

import errno
import itertools
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from disfs.errors import FilesystemError
from disfs.metadata.acls import mode_with_umask
from disfs.metadata.base import SYMLINK_MAX, Unlinked, read_moves_atime
from disfs.metadata.batches import insert_rows
from disfs.metadata.views import Views, refuse_view
from disfs.values import FIRST_VIEW_INODE, ROOT_INODE, Attributes, InodeNumber, TrashReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.metadata.acls import Acls
    from disfs.metadata.base import Atime
    from disfs.metadata.counters import Counter
    from disfs.metadata.database import Database, Row
    from disfs.metadata.outbox import Outbox
    from disfs.metadata.totals import Totals
    from disfs.values import AttributeChanges, NewInode

COLUMNS = "inode, mode, nlink, uid, gid, rdev, size_bytes, atime_ns, mtime_ns, ctime_ns, chunk_count"
"""In the order of the fields of Attributes."""

MAX_INTEGER = (1 << 63) - 1
"""What a column of the database holds at most."""

_PERMISSION_BITS = 0o7777

_KNOWN = 16_384
"""Inodes whose attributes are kept in memory, about 400 bytes each. The kernel's own cache is far larger; it does not
keep those that change: parents of new names, files that are written."""

_SELECT = f"SELECT {COLUMNS} FROM inodes WHERE inode = ?"  # noqa: S608 - constants of this module
_UPDATE = f"UPDATE inodes SET {' = ?, '.join(COLUMNS.split(', ')[1:])} = ? WHERE inode = ?"  # noqa: S608 - names of columns
_INSERT = f"INSERT INTO inodes ({COLUMNS}, target) VALUES {{values}}"  # noqa: S608 - constants of this module


class LastName(NamedTuple):
    """Which path an inode lost last, and by what."""

    path: bytes
    reason: TrashReason


def stale(inode: InodeNumber) -> FilesystemError:
    """What an operation on an inode that is gone raises."""
    return FilesystemError(errno.ESTALE, f"inode {inode} is gone")


class Inodes:
    """What the store does to one inode, whatever its names are."""

    def __init__(self, database: Database, outbox: Outbox, numbers: Counter, totals: Totals, acls: Acls) -> None:
        self._database = database
        self._outbox = outbox
        self._numbers = numbers
        self._totals = totals
        self._acls = acls
        self._known: dict[InodeNumber, Attributes] = {}
        self._new: dict[InodeNumber, bytes | None] = {}
        """Known inodes without a row yet, and where they point if they are symbolic links."""
        self._changed: dict[InodeNumber, None] = {}
        """Known inodes whose row is older than what is known."""
        self._gone: dict[InodeNumber, bool] = {}
        """Inodes that were removed and may still have rows, and whether one of them says that they are orphans."""
        self._orphaned: dict[InodeNumber, LastName | None] = {}
        """Orphans without a row yet that says so."""
        self._trashed: dict[InodeNumber, None] = {}
        """Those of the removed inodes that went to the trash, with their extended attributes."""
        self.views = Views()
        """What is known of the inodes of snapshots."""
        database.held_back.append(self._write_rows)
        database.after_failure.append(self._known.clear)

    def find(self, inode: InodeNumber) -> Attributes | None:
        """Its attributes; None when there is no such inode."""
        known = self._known.get(inode)
        if known is not None:
            return known
        if inode in self._gone:
            return None
        if inode >= FIRST_VIEW_INODE:
            return self.views.top(self.attributes(ROOT_INODE)) if inode == FIRST_VIEW_INODE else self.views.find(inode)
        row = self._database.row(_SELECT, (inode,))
        return None if row is None else self.learn(row)

    def learn(self, row: Row) -> Attributes:
        """Keep what a query has found of an inode, in the order of COLUMNS; what is known already is newer."""
        inode: InodeNumber = row[0]
        known = self._known.get(inode)
        if known is None:
            if len(self._known) >= _KNOWN:
                self._forget_some()
            known = self._known[inode] = Attributes._make(row)
        return known

    def is_directory(self, inode: InodeNumber) -> bool:
        """Whether there is such a directory."""
        found = self.find(inode)
        return found is not None and stat.S_ISDIR(found.mode)

    def attributes(self, inode: InodeNumber) -> Attributes:
        """See MetadataStore."""
        attributes = self._known.get(inode) or self.find(inode)
        if attributes is None:
            raise stale(inode)
        return attributes

    def change_attributes(self, inode: InodeNumber, changes: AttributeChanges, now_ns: int) -> Attributes:
        """See MetadataStore. Works where the disk is full, as it changes a row in place."""
        with self._database.changing:
            old = self.attributes(inode)
            if changes.size_bytes is not None:
                _check_size(old.mode, changes.size_bytes)
                # More of the last chunk than there was: see spans.allocated_bytes.
                self._totals.check_growth(old.size_bytes, old.chunk_count, changes.size_bytes, old.chunk_count)
            new = _with_changes(old, changes, now_ns)
            self._put(new)
            if new.size_bytes != old.size_bytes:
                self._totals.resized(old.size_bytes, old.chunk_count, new.size_bytes, old.chunk_count)
            if changes.mode is not None:
                self._acls.follow_mode(inode, new.mode)
        return new

    def note_write(self, inode: InodeNumber, end: int, now_ns: int) -> None:
        """See MetadataStore."""
        with self._database.changing:
            number, mode, nlink, uid, gid, rdev, size_bytes, atime_ns, _, _, chunk_count = self.attributes(inode)
            if end > size_bytes:
                self._totals.resized(size_bytes, chunk_count, end, chunk_count)
                size_bytes = end
            self._put(
                Attributes(number, mode, nlink, uid, gid, rdev, size_bytes, atime_ns, now_ns, now_ns, chunk_count)
            )

    def note_read(self, inode: InodeNumber, now_ns: int, rule: Atime) -> None:
        """See MetadataStore. Asks first: most reads move nothing and should open no transaction."""
        old = self.attributes(inode)
        if inode >= FIRST_VIEW_INODE:
            return
        if read_moves_atime(rule, old, now_ns):
            with self._database.changing:
                self._put(old._replace(atime_ns=now_ns))

    def symlink_target(self, inode: InodeNumber) -> bytes:
        """See MetadataStore."""
        if not stat.S_ISLNK(self.attributes(inode).mode):
            raise FilesystemError(errno.EINVAL, "not a symbolic link")
        if inode >= FIRST_VIEW_INODE:
            return self.views.symlink_target(inode)
        target = self._new.get(inode)
        if target is None:
            row = self._database.row("SELECT target FROM inodes WHERE inode = ?", (inode,))
            assert row is not None
            target = row[0]
        assert target is not None, "a symbolic link is made with its target"
        return target

    def create(self, new: NewInode, directory: Attributes, now_ns: int) -> Attributes:
        """A new row for a name in `directory`, inside a change."""
        is_directory = stat.S_ISDIR(new.mode)
        inherited = self._acls.inherited(directory.inode, new) if self._acls.may_exist else None
        mode, gid = mode_with_umask(new) if inherited is None else inherited.mode, new.gid
        if directory.mode & stat.S_ISGID:
            gid = directory.gid
            mode |= stat.S_ISGID if is_directory else 0
        size_bytes = 0 if new.target is None else len(new.target)
        made = Attributes(
            InodeNumber(self._numbers.take()),
            mode,
            2 if is_directory else 1,
            new.uid,
            gid,
            new.rdev,
            size_bytes,
            now_ns,
            now_ns,
            now_ns,
        )
        self._database.alter(self._known, made.inode, made)
        self._database.alter(self._new, made.inode, new.target)
        if inherited is not None:
            self._acls.give(made.inode, inherited)
        self._totals.add_inodes(1)
        return made

    def touch_directory(self, directory: InodeNumber, nlink_delta: int, now_ns: int) -> None:
        """A name in it came, went or changed: mtime, ctime, and its link count by `nlink_delta`. Inside a change."""
        number, mode, nlink, uid, gid, rdev, size_bytes, atime_ns, _, _, chunks = self.attributes(directory)
        nlink += nlink_delta
        self._put(Attributes(number, mode, nlink, uid, gid, rdev, size_bytes, atime_ns, now_ns, now_ns, chunks))

    def set_nlink(self, inode: InodeNumber, nlink: int, now_ns: int, last: LastName | None = None) -> Unlinked:
        """Its link count is `nlink` from now on; at 0 it is an orphan, `last` what it was called. Inside a change."""
        number, mode, _, uid, gid, rdev, size_bytes, atime_ns, mtime_ns, _, chunks = self.attributes(inode)
        self._put(Attributes(number, mode, nlink, uid, gid, rdev, size_bytes, atime_ns, mtime_ns, now_ns, chunks))
        if nlink == 0:
            self._database.alter(self._orphaned, inode, last)
        return Unlinked(inode, nlink)

    def chunk_count(self, inode: InodeNumber) -> int:
        """See Attributes; 0 for an inode that does not exist."""
        found = self.find(inode)
        return 0 if found is None else found.chunk_count

    def extent(self, inode: InodeNumber) -> tuple[int, int]:
        """Its size in bytes and its chunk count. ESTALE."""
        attributes = self.attributes(inode)
        return attributes.size_bytes, attributes.chunk_count

    def add_chunks(self, inode: InodeNumber, count: int) -> None:
        """`count` holes of a file have become chunks; negative: the other way round. Inside a change."""
        if not count or (old := self.find(inode)) is None:
            return
        number, mode, nlink, uid, gid, rdev, size_bytes, atime_ns, mtime_ns, ctime_ns, chunks = old
        new = Attributes(number, mode, nlink, uid, gid, rdev, size_bytes, atime_ns, mtime_ns, ctime_ns, chunks + count)
        self._put(new)
        if size_bytes:  # else it takes nothing, before and after
            self._totals.resized(size_bytes, chunks, size_bytes, chunks + count)

    def set_mode(self, inode: InodeNumber, mode: int, now_ns: int) -> None:
        """Its mode is another one, as is its ctime. Inside a change."""
        self._put(self.attributes(inode)._replace(mode=mode, ctime_ns=now_ns))

    def set_ctime(self, inode: InodeNumber, now_ns: int) -> None:
        """Something about it changed that no other column shows. Inside a change."""
        self._put(self.attributes(inode)._replace(ctime_ns=now_ns))

    def orphans(self) -> Sequence[InodeNumber]:
        """See MetadataStore."""
        self._database.flush()
        return [InodeNumber(row[0]) for row in self._database.rows("SELECT inode FROM orphans ORDER BY inode")]

    def last_name(self, inode: InodeNumber) -> LastName | None:
        """What an orphan was called; None when that was not noted."""
        if inode in self._orphaned:
            return self._orphaned[inode]
        row = self._database.row("SELECT path, reason FROM orphans WHERE inode = ?", (inode,))
        return None if row is None or row[0] is None else LastName(row[0], TrashReason(row[1]))

    def is_new(self, inode: InodeNumber) -> bool:
        """Whether it was made so short a while ago that it has no row yet."""
        return inode in self._new

    def take_number(self) -> InodeNumber:
        """A number that no inode ever had. Inside a change."""
        return InodeNumber(self._numbers.take())

    def remove_orphan(self, inode: InodeNumber) -> None:
        """See MetadataStore."""
        with self._database.changing:
            old = self.find(inode)
            if old is not None and not old.nlink:
                self.forget(old)

    def forget(self, old: Attributes, *, to_trash: bool = False) -> None:
        """An orphan is no inode any more; its extended attributes stay if it goes `to_trash`. Inside a change."""
        inode = old.inode
        self._database.alter(self._gone, inode, inode not in self._orphaned)
        if to_trash:
            self._database.alter(self._trashed, inode, None)
        self._database.erase(self._known, inode)
        notes: tuple[dict[InodeNumber, Any], ...] = (self._new, self._changed, self._orphaned)
        for note in notes:
            if inode in note:
                self._database.erase(note, inode)
        if stat.S_ISREG(old.mode):
            self._totals.removed(old.size_bytes, old.chunk_count)
        else:
            self._totals.removed(0, 0)

    def revive(self, attributes: Attributes, target: bytes | None) -> None:
        """What was in the trash is an inode again. Inside a change that began with a flush."""
        inode = attributes.inode
        assert inode not in self._gone, "its rows are written"
        if stat.S_ISREG(attributes.mode):
            self._totals.check_growth(0, 0, attributes.size_bytes, attributes.chunk_count)
            self._totals.resized(0, 0, attributes.size_bytes, attributes.chunk_count)
        self._totals.add_inodes(1)
        self._database.alter(self._known, inode, attributes)
        self._database.alter(self._new, inode, target)

    def _put(self, new: Attributes) -> None:
        """From now on an inode is like this. Inside a change."""
        inode = new.inode
        if inode >= FIRST_VIEW_INODE:
            refuse_view(inode)
        self._database.alter(self._known, inode, new)
        if inode not in self._changed and inode not in self._new:
            self._database.alter(self._changed, inode, None)

    def _write_rows(self) -> None:
        """Bring the tables up to date with what is known."""
        write_all = self._database.write_all
        if self._new:
            self._outbox.note_inodes(self._new)
            rows = [(*self._known[inode], target) for inode, target in self._new.items()]
            insert_rows(self._database, _INSERT, rows, width=12)
            self._new.clear()
        if self._changed:
            self._outbox.note_inodes(self._changed)
            write_all(_UPDATE, [(*self._known[inode][1:], inode) for inode in self._changed])
            self._changed.clear()
        if self._orphaned:
            write_all(
                "INSERT INTO orphans (inode, path, reason) VALUES (?, ?, ?)",
                [(inode, *(last or (None, None))) for inode, last in self._orphaned.items()],
            )
            self._orphaned.clear()
        if self._gone:
            self._outbox.note_inodes(self._gone)
            gone = [(inode,) for inode in self._gone]
            for_good = [(inode,) for inode in self._gone if inode not in self._trashed] if self._trashed else gone
            for table, inodes in (("inodes", gone), ("xattrs", for_good), ("pins", gone)):
                # The last two are empty in most volumes, and one look costs less than as many deletes.
                if self._database.row(f"SELECT 1 FROM {table} LIMIT 1"):  # noqa: S608 - constants of this function
                    write_all(f"DELETE FROM {table} WHERE inode = ?", inodes)  # noqa: S608 - constants of this function
            write_all("DELETE FROM orphans WHERE inode = ?", [(inode,) for inode, noted in self._gone.items() if noted])
            self._gone.clear()
            self._trashed.clear()

    def _forget_some(self) -> None:
        """Make room: a quarter of the known inodes goes, those that were learnt first."""
        oldest = list(itertools.islice(self._known, _KNOWN // 4))
        for inode in oldest:
            if inode not in self._changed and inode not in self._new:
                del self._known[inode]


def check_new(new: NewInode) -> None:
    """Whether an inode can be made as asked: a symbolic link needs a target of 1 to SYMLINK_MAX bytes."""
    if not stat.S_ISLNK(new.mode):
        assert new.target is None, "only symbolic links have a target"
        return
    if not new.target:
        raise FilesystemError(errno.ENOENT, "a symbolic link needs a target")
    if len(new.target) > SYMLINK_MAX:
        raise FilesystemError(errno.ENAMETOOLONG, "the target of a symbolic link is too long")


def _check_size(mode: int, size_bytes: int) -> None:
    if stat.S_ISDIR(mode):
        raise FilesystemError(errno.EISDIR)
    if not stat.S_ISREG(mode) or size_bytes < 0:
        raise FilesystemError(errno.EINVAL)
    if size_bytes > MAX_INTEGER:
        raise FilesystemError(errno.EFBIG)


def _with_changes(old: Attributes, changes: AttributeChanges, now_ns: int) -> Attributes:
    mtime_ns = now_ns if changes.size_bytes is not None else old.mtime_ns
    permissions = old.mode if changes.mode is None else changes.mode
    return old._replace(
        mode=stat.S_IFMT(old.mode) | permissions & _PERMISSION_BITS,
        uid=old.uid if changes.uid is None else changes.uid,
        gid=old.gid if changes.gid is None else changes.gid,
        size_bytes=old.size_bytes if changes.size_bytes is None else changes.size_bytes,
        atime_ns=old.atime_ns if changes.atime_ns is None else _clamped(changes.atime_ns),
        mtime_ns=mtime_ns if changes.mtime_ns is None else _clamped(changes.mtime_ns),
        ctime_ns=now_ns if changes.ctime_ns is None else _clamped(changes.ctime_ns),
    )


def _clamped(time_ns: int) -> int:
    """The nearest time that a column holds (1677 to 2262), as Linux does with what a file system cannot store."""
    return max(-MAX_INTEGER, min(time_ns, MAX_INTEGER))
