"""A machine that does random operations on the real metadata store and on dicts, with commits, crashes between."""

from __future__ import annotations

import itertools
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from disfs.errors import FilesystemError
from disfs.metadata.base import RenameMode, Unlinked, VolumeUsage
from disfs.metadata.store import SqliteMetadataStore
from disfs.posix_acl import AclKind
from disfs.spans import DEFAULT_CHUNK_BYTES, allocated_bytes, chunk_count, chunk_range
from disfs.values import ROOT_INODE, AttributeChanges, Attributes, ChunkIndex
from support.acls import an_acl
from support.answers import answer
from support.memory_metadata import MemoryMetadataStore
from support.new_inodes import a_directory, a_file

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from disfs.metadata.base import MetadataStore
    from disfs.posix_acl import Acl
    from disfs.values import InodeNumber

OFFSETS = st.sampled_from([0, 1, DEFAULT_CHUNK_BYTES - 1, DEFAULT_CHUNK_BYTES, 5 * DEFAULT_CHUNK_BYTES + 4097])
NAMES = st.sampled_from([b"a", b"b", b"c"])
ACLS = st.sampled_from([(), an_acl(6, 4, 0), an_acl(7, 5, 1, mask=3), an_acl(6, 0, 4, mask=7, users={5: 2})])
MODES = st.sampled_from([0o700, 0o2666])
PLACES = st.integers(0, 5)
"""Which of the inodes made so far; 0 is the root."""


def outcome(call: Coroutine[Any, Any, Any]) -> object:
    """What a call returned or which errno it raised."""
    try:
        return answer(call)
    except FilesystemError as error:
        return f"errno {error.errno}"


def acls_of(store: MetadataStore, inode: InodeNumber) -> list[tuple[bytes, object]]:
    """What is listed, and its values."""
    return [(name, outcome(store.get_xattr(inode, name))) for name in answer(store.list_xattrs(inode))]


class NamesMachine(RuleBasedStateMachine):
    """The same calls to both; inode numbers are translated, as they may differ after a crash."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "volume.db"
        self.real = SqliteMetadataStore.open(self.path, create=True, now_ns=0)
        self.model = MemoryMetadataStore()
        self.clock = itertools.count(1)
        self.inodes = [(ROOT_INODE, ROOT_INODE)]

    def place(self, number: int) -> tuple[InodeNumber, InodeNumber]:
        """An inode, in the model and in the real store."""
        return self.inodes[number % len(self.inodes)]

    def same(self, model: object, real: object) -> None:
        """Both answered alike."""
        if isinstance(model, Attributes):
            assert isinstance(real, Attributes)
            assert model[1:] == real[1:]
            model, real = model.inode, real.inode
        if isinstance(model, Unlinked):
            assert isinstance(real, Unlinked)
            assert model.nlink == real.nlink
            model, real = model.inode, real.inode
        if isinstance(model, int):
            assert (model, real) in self.inodes
        else:
            assert model == real

    @rule(place=PLACES, name=NAMES, directory=st.booleans(), umask=st.sampled_from([0, 0o22]))
    def make(self, place: int, name: bytes, directory: bool, umask: int) -> None:
        """create and mkdir."""
        model, real = self.place(place)
        now, new = next(self.clock), a_directory(0o2775, gid=next(self.clock)) if directory else a_file(0o666)
        new = new._replace(umask=umask)
        made = (
            outcome(self.model.make_inode(model, name, new, now)),
            outcome(self.real.make_inode(real, name, new, now)),
        )
        if isinstance(made[0], Attributes) and isinstance(made[1], Attributes):
            self.inodes.append((made[0].inode, made[1].inode))
        self.same(*made)

    @rule(place=PLACES, parent=PLACES, name=NAMES)
    def link(self, place: int, parent: int, name: bytes) -> None:
        """A further name."""
        (model, real), (model_parent, real_parent), now = self.place(place), self.place(parent), next(self.clock)
        self.same(
            outcome(self.model.link(model, model_parent, name, now)),
            outcome(self.real.link(real, real_parent, name, now)),
        )

    @rule(place=PLACES, name=NAMES, directory=st.booleans())
    def remove(self, place: int, name: bytes, directory: bool) -> None:
        """unlink and rmdir."""
        (model, real), now = self.place(place), next(self.clock)
        if directory:
            self.same(outcome(self.model.rmdir(model, name, now)), outcome(self.real.rmdir(real, name, now)))
        else:
            self.same(outcome(self.model.unlink(model, name, now)), outcome(self.real.unlink(real, name, now)))

    @rule(old=PLACES, name=NAMES, new=PLACES, new_name=NAMES, mode=st.sampled_from(RenameMode))
    def rename(self, old: int, name: bytes, new: int, new_name: bytes, mode: RenameMode) -> None:
        """All three kinds."""
        (model_old, real_old), (model_new, real_new), now = self.place(old), self.place(new), next(self.clock)
        self.same(
            outcome(self.model.rename(model_old, name, model_new, new_name, mode, now)),
            outcome(self.real.rename(real_old, name, real_new, new_name, mode, now)),
        )

    @rule(place=PLACES, size_bytes=st.integers(0, 2))
    def resize(self, place: int, size_bytes: int) -> None:
        """truncate, and a write."""
        (model, real), now = self.place(place), next(self.clock)
        changes = AttributeChanges(size_bytes=size_bytes)
        self.same(
            outcome(self.model.change_attributes(model, changes, now)),
            outcome(self.real.change_attributes(real, changes, now)),
        )

    @rule(place=PLACES, offset=OFFSETS)
    def write(self, place: int, offset: int) -> None:
        """Two bytes come to a file, which may lie in two chunks, as the chunk store and a write tell."""
        (model, real), now = self.place(place), next(self.clock)
        if not stat.S_ISREG(answer(self.model.attributes(model)).mode):
            return
        chunks = chunk_range(offset, 2, DEFAULT_CHUNK_BYTES)
        for store, inode in ((self.model, model), (self.real, real)):
            store.mark_dirty(inode, ChunkIndex(chunks.start), len(chunks))
            answer(store.note_write(inode, offset + 2, now))

    @rule(place=PLACES, size_bytes=OFFSETS)
    def truncate(self, place: int, size_bytes: int) -> None:
        """A file gets shorter or longer, as the chunk store and a truncate tell."""
        (model, real), now = self.place(place), next(self.clock)
        if not stat.S_ISREG(answer(self.model.attributes(model)).mode):
            return
        for store, inode in ((self.model, model), (self.real, real)):
            store.cut_chunks(inode, ChunkIndex(chunk_count(size_bytes, DEFAULT_CHUNK_BYTES)))
            answer(store.change_attributes(inode, AttributeChanges(size_bytes=size_bytes), now))

    @rule(place=PLACES, offset=OFFSETS)
    def crash_before_commit(self, place: int, offset: int) -> None:
        """What was not committed never happened, in the totals neither."""
        answer(self.real.commit())
        (model, real), now = self.place(place), next(self.clock)
        if not stat.S_ISREG(answer(self.model.attributes(model)).mode):
            return
        self.real.mark_dirty(real, ChunkIndex(offset // DEFAULT_CHUNK_BYTES), 1)
        answer(self.real.note_write(real, offset + 1, now))
        self.path = crashed_copy(self.path)
        self.real.close()
        self.real = SqliteMetadataStore.open(self.path)

    @rule(place=PLACES, mode=MODES)
    def chmod(self, place: int, mode: int) -> None:
        """A change of mode."""
        (model, real), now, changes = self.place(place), next(self.clock), AttributeChanges(mode=mode)
        self.same(
            outcome(self.model.change_attributes(model, changes, now)),
            outcome(self.real.change_attributes(real, changes, now)),
        )

    @rule(place=PLACES, kind=st.sampled_from(AclKind), acl=ACLS, clears_setgid=st.booleans())
    def set_acl(self, place: int, kind: AclKind, acl: Acl, clears_setgid: bool) -> None:
        """Set and remove either ACL."""
        (model, real), now = self.place(place), next(self.clock)
        self.same(
            outcome(self.model.set_acl(model, kind, acl, now, clears_setgid=clears_setgid)),
            outcome(self.real.set_acl(real, kind, acl, now, clears_setgid=clears_setgid)),
        )

    @rule()
    def forget_orphans(self) -> None:
        """Nobody holds the removed ones any more."""
        for model in answer(self.model.orphans()):
            self.model.cut_chunks(model, ChunkIndex(0))
            answer(self.model.remove_orphan(model))
        for real in answer(self.real.orphans()):
            self.real.cut_chunks(real, ChunkIndex(0))
            answer(self.real.remove_orphan(real))
        known = self.model._nodes
        self.inodes = [pair for pair in self.inodes if pair[0] in known]

    @rule()
    def stop_cleanly(self) -> None:
        """Close and open again."""
        self.real.close()
        self.real = SqliteMetadataStore.open(self.path)
        assert self.real.was_clean

    @rule()
    def crash_after_commit(self) -> None:
        """What was committed is there after kill -9: the files as they are, without a close."""
        answer(self.real.commit())
        self.path = crashed_copy(self.path)
        self.real.close()
        self.real = SqliteMetadataStore.open(self.path)
        assert not self.real.was_clean

    @invariant()
    def trees_are_equal(self) -> None:
        """Attributes, ACLs, names and parents of all inodes are equal, and so are the totals and the orphans."""
        to_real = dict(self.inodes)
        assert answer(self.model.usage()) == answer(self.real.usage())
        assert recount(self.real) == answer(self.real.usage())
        assert sorted(to_real[inode] for inode in answer(self.model.orphans())) == list(answer(self.real.orphans()))
        for model, real in self.inodes:
            self.same(answer(self.model.attributes(model)), answer(self.real.attributes(real)))
            assert acls_of(self.model, model) == acls_of(self.real, real)
            if answer(self.model.attributes(model)).mode & 0o40000:
                self.same(answer(self.model.parent_of(model)), answer(self.real.parent_of(real)))
                expected = {e.name: to_real[e.attributes.inode] for e in answer(self.model.list_directory(model, 0, 9))}
                found = answer(self.real.list_directory(real, 0, 9))
                assert expected == {entry.name: entry.attributes.inode for entry in found}

    def teardown(self) -> None:
        """Nothing is left behind."""
        self.real.close()
        self.directory.cleanup()


def recount(store: SqliteMetadataStore) -> VolumeUsage:
    """The totals as the rows themselves have them."""
    store._database.flush()
    rows = store._database.rows("SELECT mode, size_bytes, chunk_count FROM inodes")
    files = [(size_bytes, count) for mode, size_bytes, count in rows if stat.S_ISREG(mode)]
    allocated = sum(allocated_bytes(size_bytes, count, store.chunk_bytes) for size_bytes, count in files)
    return VolumeUsage(len(rows), sum(size_bytes for size_bytes, _ in files), allocated)


def crashed_copy(path: Path) -> Path:
    """A copy of a database and its log as they are on disk at this moment."""
    copy = path.with_name(path.name + "x")
    shutil.copy(path, copy)
    shutil.copy(path.with_name(path.name + "-wal"), copy.with_name(copy.name + "-wal"))
    return copy
