"""The volume as snapshots have it: read-only, under inode numbers of their own, below `.snapshots` in the root.

A snapshot is a database of this schema, in a file that nobody writes any more. Its inodes are shown with the number of
the snapshot in the upper bits, so that they never collide with living ones, nor with another snapshot's, and are the
same at each mount. `.snapshots` can be looked up in the root and is not listed there; a volume that has such a name of
its own keeps it, and shows no snapshots.

The same holds for `.disfs`, where the daemon says how it is: names and attributes are here, what the files say is not.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from disfs.errors import FilesystemError
from disfs.metadata.connections import Access, connected
from disfs.metadata.sqlite_errors import translated
from disfs.values import (
    FIRST_VIEW_INODE,
    REPORT_NAMES,
    REPORTS_INODE,
    REPORTS_NAME,
    ROOT_INODE,
    Attributes,
    ChunkIndex,
    DirectoryEntry,
    Extent,
    InodeNumber,
    PackId,
    is_report,
    snapshot_of,
    view_inode,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SNAPSHOTS_NAME = b".snapshots"
_TOP_MODE = stat.S_IFDIR | 0o555
_FIRST_COOKIE = 3
_COLUMNS = (
    "inodes.inode, mode, nlink, uid, gid, rdev, size_bytes, atime_ns, mtime_ns, ctime_ns, chunk_count"  # as Attributes
)
_FIND = f"SELECT {_COLUMNS} FROM inodes WHERE inode = ?"  # noqa: S608 - constants of this module
_LOOKUP = (
    f"SELECT {_COLUMNS} FROM dentries JOIN inodes ON inodes.inode = dentries.inode"  # noqa: S608 - constants of this module
    " WHERE parent = ? AND name = ?"
)
_LIST = (
    f"SELECT name, cookie, {_COLUMNS} FROM dentries JOIN inodes ON inodes.inode = dentries.inode"  # noqa: S608 - constants of this module
    " WHERE parent = ? AND cookie > ? ORDER BY cookie LIMIT ?"
)
_EXTENTS = (
    "SELECT first_chunk, count, pack_id, first_slot FROM extents JOIN packs USING (pack) WHERE inode = ?1"
    " AND first_chunk < ?3 AND first_chunk >= coalesce((SELECT max(first_chunk) FROM extents WHERE inode = ?1"
    " AND first_chunk <= ?2), ?2) AND first_chunk + count > ?2 ORDER BY first_chunk"
)


def refuse_view(inode: InodeNumber) -> None:
    """Nothing changes in a snapshot. EROFS."""
    if inode >= FIRST_VIEW_INODE:
        raise FilesystemError(errno.EROFS)


@dataclass(frozen=True, slots=True)
class _View:
    name: bytes
    created_ns: int
    connection: sqlite3.Connection


class Views:
    """The snapshots that are shown. Answers without suspending, on the main thread, a few rows each time."""

    def __init__(self) -> None:
        self._views: dict[int, _View] = {}
        self._reports = _reports()
        """What the daemon says of itself; whose it is, nobody else reads it."""

    def open(self, snapshot: int, name: bytes, created_ns: int, path: Path) -> None:
        """Show a snapshot. FilesystemError when its database cannot be read."""
        try:
            connection = connected(path, Access.UNCHANGING)
            connection.execute("SELECT 1 FROM inodes WHERE inode = 1").fetchone()
        except sqlite3.Error as error:
            raise translated(error) from error
        self._views[snapshot] = _View(name, created_ns, connection)

    def hide(self, snapshot: int) -> None:
        """Show a snapshot no more; who has something of it open gets ESTALE."""
        view = self._views.pop(snapshot, None)
        if view is not None:
            view.connection.close()

    def close(self) -> None:
        """Show none any more."""
        for snapshot in list(self._views):
            self.hide(snapshot)

    def top(self, root: Attributes) -> Attributes:
        """The directory of all snapshots; it belongs to whom the root belongs to."""
        newest_ns = max((view.created_ns for view in self._views.values()), default=root.mtime_ns)
        times = (newest_ns, newest_ns, newest_ns)
        return Attributes(FIRST_VIEW_INODE, _TOP_MODE, 2 + len(self._views), root.uid, root.gid, 0, 0, *times)

    def find(self, inode: InodeNumber) -> Attributes | None:
        """Its attributes; None when there is no such inode. Not for the directory of all snapshots."""
        snapshot, number = snapshot_of(inode)
        if not snapshot:
            return self._reports.get(inode)
        row = self._row(snapshot, _FIND, (number,))
        return None if row is None else _shown(snapshot, row)

    def lookup(self, parent: InodeNumber, name: bytes) -> Attributes | None:
        """What a name stands for; None when there is no such name."""
        snapshot, number = snapshot_of(parent)
        if parent == REPORTS_INODE:
            return self._reports[report_inode(name)] if name in REPORT_NAMES else None
        if not snapshot:
            for each, view in self._views.items():
                if view.name == name:
                    return self.find(view_inode(each, ROOT_INODE))
            return None
        row = self._row(snapshot, _LOOKUP, (number, name))
        return None if row is None else _shown(snapshot, row)

    def entries(self, directory: InodeNumber, after_cookie: int, limit: int) -> Sequence[DirectoryEntry]:
        """Up to `limit` entries with cookies above `after_cookie`, in order; none for what is no directory."""
        snapshot, number = snapshot_of(directory)
        if snapshot:
            rows = self._rows(snapshot, _LIST, (number, after_cookie, limit))
            return [DirectoryEntry(row[0], row[1], _shown(snapshot, row[2:])) for row in rows]
        entries = []
        if directory == REPORTS_INODE:
            for cookie, name in enumerate(REPORT_NAMES, _FIRST_COOKIE):
                if cookie > after_cookie:
                    entries.append(DirectoryEntry(name, cookie, self._reports[report_inode(name)]))
            return entries[:limit]
        if directory != FIRST_VIEW_INODE:
            return []
        for each in sorted(self._views):
            cookie = _FIRST_COOKIE + each
            root = self.find(view_inode(each, ROOT_INODE)) if cookie > after_cookie else None
            if root is not None:
                entries.append(DirectoryEntry(self._views[each].name, cookie, root))
        return entries[:limit]

    def parent_of(self, directory: InodeNumber) -> InodeNumber:
        """Where `..` leads."""
        snapshot, number = snapshot_of(directory)
        if not snapshot:
            return ROOT_INODE
        if number == ROOT_INODE:
            return FIRST_VIEW_INODE
        row = self._row(snapshot, "SELECT parent FROM dentries WHERE inode = ?", (number,))
        return directory if row is None else view_inode(snapshot, row[0])

    def paths(self, inode: InodeNumber) -> Sequence[bytes]:
        """One path that leads there, from the root of the volume; for messages to people."""
        names: list[bytes] = []
        if is_report(inode):
            return [b"/" + REPORTS_NAME + b"/" + REPORT_NAMES[inode - REPORTS_INODE - 1]]
        if inode == REPORTS_INODE:
            return [b"/" + REPORTS_NAME]
        snapshot, number = snapshot_of(inode)
        view = self._views.get(snapshot)
        while view is not None and number != ROOT_INODE:
            row = self._row(snapshot, "SELECT parent, name FROM dentries WHERE inode = ? LIMIT 1", (number,))
            if row is None:
                return []
            number = row[0]
            names.append(row[1])
        below = [] if view is None else [view.name, *reversed(names)]
        return [b"/" + b"/".join([SNAPSHOTS_NAME, *below])]

    def symlink_target(self, inode: InodeNumber) -> bytes:
        """Where a symbolic link points."""
        snapshot, number = snapshot_of(inode)
        row = self._row(snapshot, "SELECT target FROM inodes WHERE inode = ?", (number,))
        assert row is not None, "the caller has found it"
        target: bytes = row[0]
        return target

    def xattr(self, inode: InodeNumber, name: bytes) -> bytes | None:
        """An extended attribute; None when there is none."""
        snapshot, number = snapshot_of(inode)
        row = self._row(snapshot, "SELECT value FROM xattrs WHERE inode = ? AND name = ?", (number, name))
        return None if row is None else row[0]

    def xattrs(self, inode: InodeNumber) -> Sequence[bytes]:
        """The names of all extended attributes, in order."""
        snapshot, number = snapshot_of(inode)
        return [
            row[0] for row in self._rows(snapshot, "SELECT name FROM xattrs WHERE inode = ? ORDER BY name", (number,))
        ]

    def extents(self, inode: InodeNumber, first: ChunkIndex, last: ChunkIndex) -> Sequence[Extent]:
        """See ChunkLedger. EIO for a chunk whose newest content was not in Discord when the snapshot was made."""
        snapshot, number = snapshot_of(inode)
        if snapshot not in self._views:
            raise FilesystemError(errno.ESTALE, "the snapshot is gone")
        unsent = "SELECT 1 FROM dirty WHERE inode = ? AND chunk BETWEEN ? AND ? LIMIT 1"
        if self._row(snapshot, unsent, (number, first, last)) is not None:
            raise FilesystemError(errno.EIO, "a part of it had not been sent when the snapshot was made")
        found = []
        for run_first, count, pack, slot in self._rows(snapshot, _EXTENTS, (number, first, last + 1)):
            begin, end = max(run_first, first), min(run_first + count, last + 1)
            found.append(Extent(inode, ChunkIndex(begin), end - begin, PackId(pack), slot + begin - run_first))
        return found

    def unsent_inodes(self, snapshot: int) -> Sequence[InodeNumber]:
        """Those of whose newest contents some was not in Discord when the snapshot was made; a thousand at most."""
        rows = self._rows(snapshot, "SELECT DISTINCT inode FROM dirty ORDER BY inode LIMIT 1000", ())
        return [view_inode(snapshot, row[0]) for row in rows]

    def _row(self, snapshot: int, sql: str, parameters: Sequence[Any]) -> tuple[Any, ...] | None:
        rows = self._rows(snapshot, sql, parameters)
        return rows[0] if rows else None

    def _rows(self, snapshot: int, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        view = self._views.get(snapshot)
        if view is None:
            return []
        try:
            return view.connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise translated(error) from error


def report_inode(name: bytes) -> InodeNumber:
    """The number of one of REPORT_NAMES."""
    return InodeNumber(REPORTS_INODE + 1 + REPORT_NAMES.index(name))


def _reports() -> dict[InodeNumber, Attributes]:
    """The directory and its files: of a constant size, as their texts are made when they are opened."""
    now_ns = time.time_ns()
    rest = (os.getuid(), os.getgid(), 0, 0, now_ns, now_ns, now_ns)
    files = [Attributes(report_inode(name), stat.S_IFREG | 0o400, 1, *rest) for name in REPORT_NAMES]
    top = Attributes(REPORTS_INODE, stat.S_IFDIR | 0o500, 2, *rest)
    return {each.inode: each for each in (top, *files)}


def _shown(snapshot: int, row: Sequence[Any]) -> Attributes:
    return Attributes(view_inode(snapshot, row[0]), *row[1:])
