"""How large a volume may be: what counts, and which writes are refused."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

import pytest
from support.answers import answer
from support.ledger_contract import a_pack, key, mark
from support.new_inodes import a_file, fails

from disfs.errors import FilesystemError
from disfs.metadata.store import SqliteMetadataStore
from disfs.spans import allocated_bytes
from disfs.values import ROOT_INODE, AttributeChanges, ChunkIndex

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from disfs.values import InodeNumber

CHUNK = 16384
BLOCK = 4096
CAPACITY = 10 * CHUNK


@pytest.mark.parametrize(
    ("size_bytes", "chunk_count", "allocated"),
    [
        (0, 0, 0),
        (1, 0, 0),
        (1, 1, BLOCK),
        (BLOCK, 1, BLOCK),
        (BLOCK + 1, 1, 2 * BLOCK),
        (CHUNK + 1, 2, CHUNK + BLOCK),
        (1 << 60, 1, CHUNK),
        (100 * CHUNK, 100, 100 * CHUNK),
    ],
)
def test_files_take_whole_blocks_and_holes_nothing(size_bytes: int, chunk_count: int, allocated: int) -> None:
    """What a file takes is its size in whole blocks, but no more than its chunks."""
    assert allocated == allocated_bytes(size_bytes, chunk_count, CHUNK)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteMetadataStore]:
    """A volume of ten chunks."""
    path = tmp_path / "volume.db"
    with contextlib.closing(
        SqliteMetadataStore.open(path, create=True, chunk_bytes=CHUNK, capacity_bytes=CAPACITY)
    ) as made:
        yield made


def write(store: SqliteMetadataStore, inode: InodeNumber, offset: int, length: int) -> None:
    """As the chunk store and the file system do it, in one step."""
    store.check_room(inode, offset, length)
    first, last = offset // CHUNK, (offset + length - 1) // CHUNK
    store.mark_dirty(inode, ChunkIndex(first), last - first + 1)
    answer(store.note_write(inode, offset + length, 1))


def truncate(store: SqliteMetadataStore, inode: InodeNumber, size_bytes: int) -> None:
    """As the chunk store and the file system do it, in one step."""
    store.cut_chunks(inode, ChunkIndex(-(-size_bytes // CHUNK)))
    answer(store.change_attributes(inode, AttributeChanges(size_bytes=size_bytes), 1))


def make(store: SqliteMetadataStore, name: bytes) -> InodeNumber:
    """A new file."""
    return answer(store.make_inode(ROOT_INODE, name, a_file(), 1)).inode


def used(store: SqliteMetadataStore) -> int:
    """What statfs counts."""
    return answer(store.usage()).allocated_bytes


def refused(store: SqliteMetadataStore, inode: InodeNumber, offset: int, length: int) -> bool:
    """Whether such a write is refused for want of room; then nothing may have changed."""
    before = (answer(store.attributes(inode)), used(store), store.dirty_chunks())
    number = 0
    try:
        store.check_room(inode, offset, length)
    except FilesystemError as error:
        number = error.errno
    assert number in (0, errno.ENOSPC)
    assert before == (answer(store.attributes(inode)), used(store), store.dirty_chunks())
    return number != 0


def test_last_block_can_be_written_and_no_further(store: SqliteMetadataStore) -> None:
    """A volume fills up to its last block exactly."""
    file, small = make(store, b"file"), make(store, b"small")
    write(store, file, 0, CAPACITY - 2 * BLOCK)
    write(store, small, 0, 1)
    assert refused(store, file, CAPACITY - 2 * BLOCK, BLOCK + 1)
    write(store, file, CAPACITY - 2 * BLOCK, BLOCK)
    assert CAPACITY == used(store)
    assert refused(store, file, CAPACITY - BLOCK, 1)
    assert refused(store, file, 1 << 40, 1)


def test_full_volume_can_be_overwritten(store: SqliteMetadataStore) -> None:
    """What takes no more room is never refused: dirty chunks, sent ones, the rest of a block."""
    sent, file = make(store, b"sent"), make(store, b"file")
    write(store, sent, 0, 2 * CHUNK)
    revision = mark(store, 0, 2, sent)
    answer(store.record_packs([a_pack(1, [(key(n, sent), revision) for n in (0, 1)])]))
    write(store, file, 0, CAPACITY - 2 * CHUNK - 100)
    assert CAPACITY == used(store)
    assert not refused(store, sent, 10, CHUNK)
    assert not refused(store, file, 0, CAPACITY - 2 * CHUNK)
    assert refused(store, file, 1, CAPACITY - 2 * CHUNK)


def test_names_can_be_made_and_removed_on_a_full_volume(store: SqliteMetadataStore) -> None:
    """Names, empty files and holes take none of the volume's size."""
    file = make(store, b"file")
    write(store, file, 0, CAPACITY)
    sparse = make(store, b"sparse")
    truncate(store, sparse, 1 << 50)
    assert CAPACITY == used(store)
    assert refused(store, sparse, 1 << 49, 1)


def test_regression_longer_truncate_took_more_than_there_was(store: SqliteMetadataStore) -> None:
    """What a truncate takes of the last chunk counts, up to the last block; a hole behind it takes nothing."""
    file, short = make(store, b"file"), make(store, b"short")
    write(store, short, 0, 1)
    write(store, file, 0, CAPACITY - 2 * BLOCK)
    before = answer(store.attributes(short))
    with fails(errno.ENOSPC):
        truncate(store, short, 2 * BLOCK + 1)
    assert (before, CAPACITY - BLOCK) == (answer(store.attributes(short)), used(store))
    truncate(store, short, 2 * BLOCK)
    assert CAPACITY == used(store)
    truncate(store, file, CAPACITY - 2 * BLOCK)
    truncate(store, short, 1)
    assert CAPACITY - BLOCK == used(store)


@pytest.mark.parametrize("gone", [False, True])
def test_room_that_is_given_back_can_be_written_again(store: SqliteMetadataStore, gone: bool) -> None:
    """A cut gives room back at once, a deleted file when the last who has it open is gone."""
    file, other = make(store, b"file"), make(store, b"other")
    write(store, file, 0, CAPACITY)
    if gone:
        answer(store.unlink(ROOT_INODE, b"file", 1))
        assert refused(store, other, 0, 1)
        store.cut_chunks(file, ChunkIndex(0))
        answer(store.remove_orphan(file))
    else:
        truncate(store, file, 0)
    assert 0 == used(store)
    write(store, other, 0, CAPACITY)
    assert CAPACITY == used(store)


def test_volume_that_holds_more_than_it_may_goes_on(tmp_path: Path) -> None:
    """A size below what is there already refuses growth, and nothing else."""
    path = tmp_path / "volume.db"
    with contextlib.closing(SqliteMetadataStore.open(path, create=True, chunk_bytes=CHUNK)) as store:
        file = make(store, b"file")
        write(store, file, 0, 3 * CHUNK)
    with contextlib.closing(SqliteMetadataStore.open(path, capacity_bytes=CHUNK)) as store:
        assert refused(store, file, 3 * CHUNK, 1)
        assert not refused(store, file, 0, 3 * CHUNK)
        truncate(store, file, 10)
        assert BLOCK == used(store)
        write(store, file, 10, CHUNK - 10)
