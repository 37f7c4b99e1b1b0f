"""What is compared side by side: the arithmetic, the calls that are timed, the trees and the file systems beside."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from pathlib import Path

import pytest
from support.kernel_requests import CONTEXT, errno_of

from bench import filler, peers
from bench.contents import Contents
from bench.duel import Data, Names, take_turns
from bench.pairs import Comparison
from bench.placing import mark_top
from bench.reference.contents import NAME, ContentsReference
from bench.reference.names import NamesReference
from bench.rows.listing import kinds
from bench.shape import MIB
from bench.trees import MOST_BYTES, directory_names, file_sizes, make_tree
from disfs.metadata.store import SqliteMetadataStore
from disfs.values import ROOT_INODE


def test_a_comparison_is_the_median_of_the_rounds() -> None:
    """One round in which the machine was busy elsewhere says nothing, whichever side it hit."""
    found = Comparison.of([(1.0, 2.0), (1.0, 2.2), (50.0, 2.0), (1.0, 1.8), (1.0, 90.0)])
    assert pytest.approx(2.0) == found.ratio
    assert pytest.approx((1.8, 2.2)) == (found.low, found.high)
    assert (1.0, 2.0) == (found.left_seconds, found.right_seconds)


def test_rates_name_both_sides_and_the_spread() -> None:
    """A ratio without what it is a ratio of, and how sure it is, would be worth little."""
    line = Comparison.of([(1.0, 2.0), (1.0, 2.0)]).rates(100, "/s")
    assert "100 /s, the other side 50; half of the rounds between 2.00x and 2.00x" == line


def test_sides_take_turns_in_beginning() -> None:
    """Who begins changes from round to round, and what is done before a turn is not timed as part of another's."""
    done: list[str] = []
    left = {"work": lambda number: done.append(f"left {number}")}
    right = {"work": lambda number: done.append(f"right {number}")}
    seconds = take_turns(left, right, 2, lambda: done.append("before"))
    assert ["before", "left 0", "before", "right 0", "before", "right 1", "before", "left 1"] == done
    assert [2, 2] == [len(pair) for pair in seconds["work"]]


def test_a_round_of_names_leaves_only_what_was_there(tmp_path: Path) -> None:
    """What a round creates it renames and unlinks, so the next one finds the same."""
    for work in Names(str(tmp_path), 5).works().values():
        work(3)
    assert ["opened"] == [path.name for path in tmp_path.iterdir()]


def test_a_pass_over_the_data_covers_all_of_it(tmp_path: Path) -> None:
    """A written pass changes every byte, and a file that is too short is no measurement."""
    path = tmp_path / "data"
    path.write_bytes(bytes(2 * MIB))
    works = Data(str(path), 2 * MIB).works()
    works["write 128 KiB"](0)
    works["read 1 MiB"](0)
    assert path.stat().st_size == 2 * MIB
    pieces = {path.read_bytes()[start : start + MIB // 8] for start in range(0, 2 * MIB, MIB // 8)}
    assert bytes(MIB // 8) not in pieces
    os.truncate(path, MIB)
    with pytest.raises(EOFError):
        works["read 1 MiB"](1)


def test_directories_come_after_their_parents() -> None:
    """Each directory can be made when its turn has come, and no two are the same."""
    names = directory_names(500)
    seen: set[str] = set()
    for name in names:
        parent = name.rpartition("/")[0]
        assert not parent or parent in seen
        seen.add(name)
    assert 500 == len(seen)


def test_a_tree_has_what_was_asked_for(tmp_path: Path) -> None:
    """As many small files in as many directories, and the bytes that are said."""
    size = make_tree(tmp_path / "tree", Contents(pool_bytes=MIB), files=40, directories=15)
    files = [path for path in (tmp_path / "tree").rglob("*") if path.is_file()]
    assert (40, size) == (len(files), sum(path.stat().st_size for path in files))
    assert 15 == sum(1 for path in (tmp_path / "tree").rglob("*") if path.is_dir())
    assert MOST_BYTES >= max(file_sizes(40))


def test_requests_are_shown_most_first() -> None:
    """What costs most is read first; nothing at all is said so."""
    assert "readdir 5, lookup 2" == kinds(Counter(lookup=2, readdir=5))
    assert "no requests" == kinds(Counter())


async def test_filler_makes_names_and_tells_their_cookies(tmp_path: Path) -> None:
    """Every file has two names, and the directory of all is listed from the first cookie to the last."""
    metadata = SqliteMetadataStore.open(tmp_path / "volume.db", create=True)
    try:
        said = await filler.fill(metadata, 1500)
        flat = (await metadata.lookup(ROOT_INODE, filler.FLAT.encode())).inode
        entries = await metadata.list_directory(flat, 0, 2000)
        last = await metadata.lookup(ROOT_INODE, filler.directory_name(1).encode())
        found = await metadata.lookup(last.inode, filler.file_name(1499).encode())
    finally:
        metadata.close()
    assert {"files": 1500, "first_cookie": entries[0].cookie, "last_cookie": entries[-1].cookie} == said
    assert (1500, 2) == (len(entries), found.nlink)


async def test_reference_of_names_answers_as_a_file_system_does() -> None:
    """What disfs is compared with does the work: names appear, move and go, and nothing is kept of what is gone."""
    reference = NamesReference()
    info, made = await reference.create(ROOT_INODE, b"a", 0o666, os.O_WRONLY, CONTEXT)
    assert 5 == await reference.write(info.fh, 3, b"hello")
    assert bytes(3) + b"hello" == await reference.read(info.fh, 0, 100)
    await reference.release(info.fh)
    await reference.rename(ROOT_INODE, b"a", ROOT_INODE, b"b", 0, CONTEXT)
    absent = await reference.lookup(ROOT_INODE, b"a", CONTEXT)
    found = await reference.lookup(ROOT_INODE, b"b", CONTEXT)
    assert (0, made.st_ino, 8, stat.S_IFREG | 0o644) == (absent.st_ino, found.st_ino, found.st_size, found.st_mode)
    assert 0 == found.attr_timeout == found.entry_timeout
    assert errno.EEXIST == await errno_of(reference.create(ROOT_INODE, b"b", 0o666, os.O_WRONLY, CONTEXT))
    await reference.unlink(ROOT_INODE, b"b", CONTEXT)
    await reference.forget([(made.st_ino, 2)])
    assert errno.ESTALE == await errno_of(reference.getattr(made.st_ino, CONTEXT))
    assert errno.ENOENT == await errno_of(reference.unlink(ROOT_INODE, b"b", CONTEXT))


async def test_reference_of_contents_is_the_file_behind_it(tmp_path: Path) -> None:
    """Reads and writes are those of the local file."""
    path = tmp_path / "backing"
    path.write_bytes(b"0123456789")
    reference = ContentsReference(path)
    found = await reference.lookup(ROOT_INODE, NAME, CONTEXT)
    info = await reference.open(found.st_ino, os.O_RDWR, CONTEXT)
    await reference.write(info.fh, 4, b"xy")
    assert (10, b"3xy6") == (found.st_size, await reference.read(info.fh, 3, 4))
    assert b"0123xy6789" == path.read_bytes()


def test_settling_ends_when_the_processor_time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that still works in the background is waited for, and no longer."""
    monkeypatch.setattr("bench.peers.time.sleep", lambda _seconds: None)
    spent = iter([1.0, 2.0, 2.5, 2.51])
    peers.settle(lambda: next(spent))
    assert [] == list(spent)


def test_marking_the_top_of_a_hierarchy_says_whether_it_was_taken(tmp_path: Path) -> None:
    """A file system that keeps no flags, such as the one of processes, is no reason not to measure."""
    assert not mark_top(Path("/proc"))
    marked = mark_top(tmp_path)
    assert marked == mark_top(tmp_path)
