"""Restores from the trash of a mounted volume, and empties it of what has been there long enough.

The kernel believes what it was told for a long time: what comes back behind its back has to be told to it.
"""

from __future__ import annotations

import errno
import logging
import posixpath
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import trio

from disfs.control.protocol import Undeleted
from disfs.errors import DisfsError, ExitCode, FilesystemError, UserError
from disfs.metadata.base import NAME_MAX
from disfs.values import ROOT_INODE, AttributeChanges, NewInode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from disfs.metadata.store import SqliteMetadataStore
    from disfs.values import InodeNumber, Trashed

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0
"""How often it is looked whether something has been in the trash long enough."""
_PAGE_COUNT = 64
_LISTED_BYTES = 64 * 1024
"""Of paths in one answer."""
_MADE_MODE = 0o755
_TRIES = 1000


class TrashChunks(Protocol):
    """What the desk needs of the chunk store."""

    async def shrink(self, inode: InodeNumber) -> None:
        """See ChunkStore."""
        ...

    def discard(self, inode: InodeNumber) -> None:
        """See ChunkStore."""
        ...

    def inherit_pin(self, parent: InodeNumber, inode: InodeNumber) -> None:
        """See ChunkStore."""
        ...


@dataclass(slots=True)
class _Restoring:
    """One restoration and how far it is."""

    done: Undeleted = field(default_factory=Undeleted)
    since_ns: int = 0
    """What was deleted before stays where it is."""
    directories: list[Trashed] = field(default_factory=list)
    """Those that were restored; their times are set last."""


class TrashDesk:
    """The trash of one volume. `tell_kernel(directory, name)`: what it knows of both is not so any more."""

    def __init__(
        self,
        metadata: SqliteMetadataStore,
        chunks: TrashChunks,
        keep_seconds: float,
        tell_kernel: Callable[[InodeNumber, bytes], Awaitable[None]],
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._metadata = metadata
        self._trash = metadata.trash
        self._chunks = chunks
        self._keep_ns = int(keep_seconds * 1e9)
        self._tell_kernel = tell_kernel
        self._clock_ns = clock_ns
        self._lock = trio.Lock()
        """What is being restored is not emptied meanwhile."""

    def keep_for(self, seconds: float) -> None:
        """Keep things so long from now on, those included that are in the trash already; 0: nothing gets there."""
        self._keep_ns = int(seconds * 1e9)
        self._trash.keep_for(seconds)

    # -- emptying -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Empty the trash of what is old, now and then, until cancelled."""
        while True:
            try:
                await self.empty()
            except (DisfsError, OSError) as error:
                log.warning("the trash cannot be emptied now, trying again: %s", error)
            await trio.sleep(LOOK_SECONDS)

    async def empty(self) -> None:
        """Remove what has been in the trash for its time, in steps that nobody notices."""
        while True:
            old = self._trash.expired(self._clock_ns() - self._keep_ns, _PAGE_COUNT)
            if not old:
                return
            for inode in old:
                async with self._lock:
                    await self._chunks.shrink(inode)
                    # One step: nothing in the trash without its chunks, and no chunks without their inode.
                    if self._trash.entry(inode) is not None:
                        self._chunks.discard(inode)
                        self._trash.remove(inode)

    # -- looking ------------------------------------------------------------------------------------------------

    async def path(self, directory: InodeNumber, rest: str) -> bytes:
        """What is meant by `rest`, a relative path, in a directory of the volume. USAGE."""
        paths = await self._metadata.paths(directory)
        if not paths:
            raise UserError("that directory is not there any more; name another one", ExitCode.USAGE)
        path = posixpath.normpath(posixpath.join(paths[0], rest.encode(errors="surrogateescape")))
        return b"/" + path.lstrip(b"/")

    def listed(self, path: bytes, after: tuple[bytes, InodeNumber] | None) -> tuple[Sequence[Trashed], bool]:
        """Some of what is in the trash at a path and below it, in order, after an entry; whether there is more."""
        found: list[Trashed] = []
        if after is None or after[0] == path:
            at_path = sorted(self._trash.at(path), key=lambda entry: entry.inode)
            found += [entry for entry in at_path if after is None or entry.inode > after[1]]
            after = None
        page = self._trash.below(path, after, _PAGE_COUNT)
        room = _LISTED_BYTES
        for number, entry in enumerate([*found, *page]):
            room -= len(entry.path) + 200
            if room < 0 and number:
                return [*found, *page][:number], True
        return [*found, *page], len(page) == _PAGE_COUNT

    # -- restoring ----------------------------------------------------------------------------------------------

    def order(
        self, directory: InodeNumber, rest: str, version: InodeNumber | None, since_ns: int | None = None
    ) -> Undeletion:
        """What restores the path `rest` in a directory, of what was deleted since a moment; not begun yet."""
        return Undeletion(self, directory, rest, version, since_ns)

    async def restore(self, path: bytes, version: InodeNumber | None, restoring: _Restoring) -> None:
        """Restore what was last at a path, and what is missing below it; or one version. USAGE when there is nothing.

        Nothing that was deleted before `restoring.since_ns`, save directories in which the rest lay.
        Cancel, or an error: what is restored stays restored.
        """
        async with self._lock:
            entries = [entry for entry in self._trash.at(path) if entry.trashed_ns >= restoring.since_ns]
            if version is not None:
                entries = [entry for entry in entries if entry.inode == version]
            if entries:
                newest = entries[-1]
                if version is not None or not (stat.S_ISDIR(newest.mode) and await self._is_taken(path)):
                    await self._restore(newest, restoring, beside=True)
            if version is None and not (entries and not stat.S_ISDIR(entries[-1].mode)):
                await self._restore_below(path, restoring)
            for entry in reversed(restoring.directories):
                await self._set_times(entry)
        if not entries and not restoring.done.restored and not restoring.done.taken:
            shown = path.decode(errors="backslashreplace")
            since = " since then" if restoring.since_ns else ""
            raise UserError(
                f"there is nothing of {shown} in the trash{since}; 'disfs undelete --list' shows it", ExitCode.USAGE
            )

    async def _set_times(self, directory: Trashed) -> None:
        """Of a directory that was restored, now that what was in it is there again."""
        changes = AttributeChanges(atime_ns=directory.atime_ns, mtime_ns=directory.mtime_ns)
        try:
            await self._metadata.change_attributes(directory.inode, changes, self._clock_ns())
        except FilesystemError as error:
            if error.errno != errno.ESTALE:  # removed again meanwhile
                raise
        await self._tell(directory.inode, b"")

    async def _tell(self, directory: InodeNumber, name: bytes) -> None:
        with trio.CancelScope(shield=True):
            await self._tell_kernel(directory, name)

    async def _restore_below(self, directory: bytes, restoring: _Restoring) -> None:
        """The newest of each path that is not there."""
        position: tuple[bytes, InodeNumber] | None = None
        best: Trashed | None = None
        while True:
            page = self._trash.below(directory, position, _PAGE_COUNT)
            for entry in page:
                position = entry.path, entry.inode
                if entry.trashed_ns < restoring.since_ns:
                    continue
                if best is not None and best.path != entry.path:
                    await self._restore_missing(best, restoring)
                    best = None
                if best is None or entry.trashed_ns >= best.trashed_ns:
                    best = entry
            if len(page) < _PAGE_COUNT:
                if best is not None:
                    await self._restore_missing(best, restoring)
                return

    async def _restore_missing(self, entry: Trashed, restoring: _Restoring) -> None:
        if await self._is_taken(entry.path):
            restoring.done = restoring.done.with_taken()
        else:
            await self._restore(entry, restoring, beside=False)

    async def _restore(self, entry: Trashed, restoring: _Restoring, *, beside: bool) -> None:
        directory, name = posixpath.split(entry.path)
        parent = await self._directory(directory, entry, restoring)
        for candidate in _candidates(name) if beside else (name,):
            try:
                self._trash.restore(entry.inode, parent, candidate, self._clock_ns())
            except FilesystemError as error:
                if error.errno == errno.EEXIST and beside:
                    continue
                raise
            # Same step: nobody has seen it yet.
            self._chunks.inherit_pin(parent, entry.inode)
            if stat.S_ISDIR(entry.mode):
                restoring.directories.append(entry)
            restoring.done = restoring.done.with_restored(posixpath.join(directory, candidate))
            await self._tell(parent, candidate)
            return
        raise UserError(f"all names beside {entry.path.decode(errors='backslashreplace')} are taken", ExitCode.USAGE)

    async def _directory(self, path: bytes, like: Trashed, restoring: _Restoring) -> InodeNumber:
        """The directory at a path, made again where it is missing: from the trash, if it is there."""
        inode = ROOT_INODE
        position = b"/"
        for name in filter(None, path.split(b"/")):
            position = posixpath.join(position, name)
            try:
                found = await self._metadata.lookup(inode, name)
            except FilesystemError as error:
                if error.errno != errno.ENOENT:
                    raise
                inode = await self._make_directory(inode, name, position, like, restoring)
                continue
            if not stat.S_ISDIR(found.mode):
                shown = position.decode(errors="backslashreplace")
                raise UserError(f"{shown} is no directory now; move it away, then try again", ExitCode.USAGE)
            inode = found.inode
        return inode

    async def _make_directory(
        self, parent: InodeNumber, name: bytes, path: bytes, like: Trashed, restoring: _Restoring
    ) -> InodeNumber:
        for entry in reversed(self._trash.at(path)):
            if stat.S_ISDIR(entry.mode):
                self._trash.restore(entry.inode, parent, name, self._clock_ns())
                restoring.directories.append(entry)
                made = entry.inode
                break
        else:
            new = NewInode(mode=stat.S_IFDIR | _MADE_MODE, uid=like.uid, gid=like.gid)
            made = (await self._metadata.make_inode(parent, name, new, self._clock_ns())).inode
        self._chunks.inherit_pin(parent, made)
        await self._tell(parent, name)
        return made

    async def _is_taken(self, path: bytes) -> bool:
        inode = ROOT_INODE
        for name in filter(None, path.split(b"/")):
            try:
                inode = (await self._metadata.lookup(inode, name)).inode
            except FilesystemError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR):
                    return False
                raise
        return True


class Undeletion:
    """Something that is being restored on somebody's behalf."""

    def __init__(
        self,
        desk: TrashDesk,
        directory: InodeNumber,
        rest: str,
        version: InodeNumber | None,
        since_ns: int | None = None,
    ) -> None:
        self._desk = desk
        self._directory = directory
        self._rest = rest
        self._version = version
        self._restoring = _Restoring(since_ns=since_ns or 0)

    def progress(self) -> Undeleted:
        """How far it is."""
        return self._restoring.done

    async def run(self) -> Mapping[str, object]:
        """Restore everything; says what. UserError, FilesystemError."""
        path = await self._desk.path(self._directory, self._rest)
        await self._desk.restore(path, self._version, self._restoring)
        return self._restoring.done.to_json()


def _candidates(name: bytes) -> Iterator[bytes]:
    """Names for something whose own may be taken."""
    yield name
    for number in range(1, _TRIES):
        end = b".undeleted" if number == 1 else b".undeleted-%d" % number
        yield name[: NAME_MAX - len(end)] + end
