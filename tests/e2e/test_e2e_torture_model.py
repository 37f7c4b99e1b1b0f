"""The judge of the torture test is itself judged: what it must let pass, and what it must not."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.torture_model import PAGE_BYTES, History, Node, State
from support.torture_writer import Interrupted, Writer, read_all

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = b"a" * 3 * PAGE_BYTES, b"b" * 3 * PAGE_BYTES


def one_file(content: bytes, name: str = "f", mode: int = 0o600) -> State:
    """A tree of one file."""
    return State({name: 1}, {1: Node(content, mode)}, {})


def history(*states: State) -> History:
    """The first state was fsynced, the others were not."""
    made = History(states[0])
    for state in states[1:]:
        made.add(state)
    return made


@pytest.mark.parametrize("seen", [OLD, NEW, NEW[:PAGE_BYTES] + OLD[PAGE_BYTES:], OLD[:5] + NEW[5:]])
def test_bytes_of_each_state_since_the_fsync_are_legal(seen: bytes) -> None:
    """Every byte may be the one of before or after an operation that was not fsynced."""
    assert history(one_file(OLD), one_file(NEW)).verdict(one_file(seen)) is None


@pytest.mark.parametrize("seen", [bytes(len(OLD)), OLD[:-1] + b"\0", OLD[:-1] + b"c", OLD[:-1], OLD + b"a", b""])
def test_other_bytes_and_sizes_are_illegal(seen: bytes) -> None:
    """Zeros that nobody wrote, foreign bytes, and sizes that the file never had are found."""
    assert history(one_file(OLD), one_file(NEW)).verdict(one_file(seen)) is not None


def test_bytes_of_before_the_fsync_are_illegal() -> None:
    """After an fsync nothing older may come back."""
    made = history(one_file(OLD), one_file(NEW))
    made.settled()
    assert made.verdict(one_file(OLD)) is not None
    assert made.verdict(one_file(NEW)) is None


def test_old_bytes_under_newer_names_are_illegal() -> None:
    """Operations are kept in order: a later rename cannot be there without the write before it."""
    renamed = one_file(NEW, "g")
    made = history(one_file(OLD), one_file(NEW), renamed)
    assert made.verdict(one_file(OLD, "g")) is not None
    assert made.verdict(renamed) is None


def test_a_write_is_caught_at_a_page_only() -> None:
    """A growing file may have any whole number of pages between its sizes, and no other size."""
    grown = replace(one_file(OLD + NEW), growing=1)
    made = history(one_file(OLD), grown)
    assert made.verdict(one_file(OLD + NEW[:PAGE_BYTES])) is None
    assert made.verdict(one_file(OLD + NEW[: PAGE_BYTES + 1])) is not None
    assert made.verdict(one_file(OLD + bytes(PAGE_BYTES))) is not None


def test_a_lost_link_is_found() -> None:
    """Two names of one file must not come back as two files, nor with another mode."""
    linked = State({"f": 1, "g": 1}, {1: Node(OLD, 0o600)}, {})
    copied = State({"f": 1, "g": 2}, {1: Node(OLD, 0o600), 2: Node(OLD, 0o600)}, {})
    assert History(linked).verdict(copied) is not None
    assert History(one_file(OLD)).verdict(one_file(OLD, mode=0o644)) is not None


def test_regression_read_that_a_kill_cuts_short_is_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that dies in the middle of a read makes it short; only the next one says that it is dead."""
    file = tmp_path / "file"
    file.write_bytes(b"x" * 3000)
    pread = os.pread

    def dying(descriptor: int, length: int, offset: int) -> bytes:
        if offset:
            raise OSError(errno.ENOTCONN, "dead")
        return pread(descriptor, min(length, 1000), offset)

    descriptor = os.open(file, os.O_RDONLY)
    try:
        assert b"x" * 3000 == read_all(descriptor)
        monkeypatch.setattr(os, "pread", dying)
        with pytest.raises(OSError, match="dead"):
            read_all(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("is_dead", [True, False])
def test_regression_eio_counts_as_the_kill_only_if_the_daemon_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_dead: bool
) -> None:
    """The kernel says EIO where a kill met it copying; from a daemon that lives, EIO is a failure."""

    def ask(_path: Path) -> None:
        if is_dead:
            raise OSError(errno.ENOTCONN, "dead")

    monkeypatch.setattr(os, "statvfs", ask)
    with pytest.raises(Interrupted if is_dead else OSError), Writer(tmp_path, "seed")._alive():
        raise OSError(errno.EIO, "cut short")
