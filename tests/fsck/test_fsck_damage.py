"""Bytes of the local files that flip or are cut off: a check says what it can see, and never breaks off."""

from __future__ import annotations

import errno
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fsck_world import CONTENTS, kinds

from disfs.errors import ExitCode, FilesystemError, UserError
from disfs.metadata.repair_runs import Run, parted
from disfs.metadata.repairs import Repairs
from disfs.recovery.fsck_findings import Kind

if TYPE_CHECKING:
    import contextlib

    from support.fsck_world import FsckWorld

SAMPLES = 40
REFUSED = {ExitCode.VOLUME_DAMAGED, ExitCode.STATE_UNUSABLE}


@pytest.fixture
def whole(world: FsckWorld) -> bytes:
    """The metadata as they are, all in one file."""
    world.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return world.database.read_bytes()


def put(world: FsckWorld, raw: bytes) -> None:
    """These are the metadata now."""
    for leftover in world.directory.glob("metadata.db*"):
        leftover.unlink()
    world.database.write_bytes(raw)


async def found_in(world: FsckWorld, raw: bytes) -> set[Kind]:
    """What a check finds of these metadata; a refusal in one line is a finding of the database."""
    put(world, raw)
    try:
        return set(kinds(await world.check(online=False)))
    except UserError as error:
        return {Kind.DATABASE} if error.exit_code in REFUSED else set()


async def test_flipped_bytes_of_the_metadata_never_break_a_check_off(world: FsckWorld, whole: bytes) -> None:
    """Anywhere: they are refused, or checked, or repaired; a repaired volume has no contradiction left."""
    chosen = random.Random(1)
    for _ in range(SAMPLES):
        position = chosen.randrange(len(whole))
        raw = whole[:position] + bytes([whole[position] ^ (1 << chosen.randrange(8))]) + whole[position + 1 :]
        if {Kind.METADATA} == await found_in(world, raw):
            assert [] == await world.repair(online=False), position


async def test_metadata_that_are_cut_off_are_found(world: FsckWorld, whole: bytes) -> None:
    """Wherever they end: refused, or found by SQLite."""
    for length in range(0, len(whole), len(whole) // 12):
        assert Kind.DATABASE in await found_in(world, whole[:length]), length


async def test_pages_of_noise_are_found(world: FsckWorld, whole: bytes) -> None:
    """A page that is overwritten is damage, whatever it was."""
    for page in range(0, len(whole), 4096):
        assert Kind.DATABASE in await found_in(world, whole[:page] + b"\xa5" * 4096 + whole[page + 4096 :]), page


@pytest.mark.parametrize("fails_at", range(1, 12))
async def test_a_repair_that_breaks_off_leaves_a_volume_that_mounts(
    world: FsckWorld, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """At each of its transactions: what was there is there, and the next repair ends it."""
    world.sql(
        "UPDATE inodes SET nlink = 7",
        f"UPDATE extents SET pack = 999 WHERE inode = {world.inodes[b'second']}",
        "UPDATE settings SET value = '3' WHERE name = 'inode_count'",
    )
    await world.memory.delete(world.messages()[0].channel, [world.messages()[0].message])
    count = 0
    transaction = Repairs._transaction

    def failing(self: Repairs) -> contextlib.AbstractContextManager[object]:
        nonlocal count
        count += 1
        if count == fails_at:
            raise FilesystemError(errno.EIO, "planned")
        return transaction(self)

    with monkeypatch.context() as patched:
        patched.setattr(Repairs, "_transaction", failing)
        with pytest.raises(FilesystemError, match="planned"):
            await world.repair()
    contents = await world.contents()
    assert CONTENTS[b"first"] == contents["/first"]
    assert [] == await world.repair()
    async with world.mounted():
        await world.chunks.drain()
    contents = await world.contents()
    assert {CONTENTS[name] for name in CONTENTS} <= set(contents.values())


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10), st.integers(1, 8)), max_size=8))
def test_parted_runs_hold_each_chunk_once_and_the_newest(runs: list[tuple[int, int, int]]) -> None:
    """Painting the packs over each other, oldest first, gives the same."""
    given_runs = [Run(first, -pack, count, slot * 100) for slot, (first, count, pack) in enumerate(runs)]
    wanted: dict[int, int] = {}
    for run in sorted(given_runs, key=lambda run: -run.older):
        for index in range(run.chunk_count):
            wanted[run.first + index] = -run.older
    found: dict[int, int] = {}
    for run in parted(given_runs):
        assert run.chunk_count > 0
        for index in range(run.chunk_count):
            assert run.first + index not in found
            found[run.first + index] = -run.older
            origin = next(each for each in given_runs if each.slot // 100 == run.slot // 100)
            assert (run.slot + index) - (run.first + index) == origin.slot - origin.first
    assert wanted == found
