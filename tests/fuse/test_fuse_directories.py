"""Listings on a real mount, above all while the directory changes."""

# ruff: noqa: PTH108, PTH208 - these tests are about system calls

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 5000


def test_listing_of_5000_names_is_exact(here: Path) -> None:
    """Every name is listed once, with its right inode number and kind."""
    for number in range(COUNT):
        (here / f"{number:05d}").touch() if number % 10 else (here / f"{number:05d}").mkdir()
    with os.scandir(here) as entries:
        found = [(entry.name, entry.inode(), entry.is_dir()) for entry in entries]
    assert COUNT == len(found)
    assert {f"{n:05d}" for n in range(COUNT)} == {name for name, _, _ in found}
    for name, inode, is_directory in random.Random(1).sample(found, 300):
        assert (here / name).stat().st_ino == inode
        assert (int(name) % 10 == 0) == is_directory
    with os.scandir(here) as entries:
        names = []
        for position, entry in enumerate(entries):
            names.append(entry.name)
            if position % 3 == 0:
                # Names that this listing has passed, and names that it has not reached yet.
                victim = here / f"{(int(entry.name) + 2500) % COUNT:05d}" if entry.name.isdigit() else None
                if victim is not None and victim.exists() and victim.is_file():
                    victim.unlink()
                (here / f"new-{position}").touch()
    assert len(names) == len(set(names))
    stayed = {path.name for path in here.iterdir() if path.name.isdigit()}
    assert stayed <= set(names)


def test_removal_while_listing_leaves_nothing(here: Path) -> None:
    """Unlinking each name as it is listed, as rm -r does, empties the directory in one pass."""
    for number in range(1000):
        (here / f"{number}").touch()
    with os.scandir(here) as entries:
        for entry in entries:
            os.unlink(entry.path)
    assert [] == os.listdir(here)


def test_rewound_listing_shows_the_present(here: Path) -> None:
    """A second pass over an open directory sees what was made since, and not what was removed."""
    (here / "a").touch()
    (here / "b").touch()
    fd = os.open(here, os.O_RDONLY)
    assert {"a", "b"} == set(os.listdir(fd))
    (here / "a").unlink()
    (here / "c").touch()
    assert {"b", "c"} == set(os.listdir(fd))
    os.close(fd)


def test_attributes_from_a_listing_are_fresh(here: Path) -> None:
    """Sizes that came with a listing do not outlive a later write."""
    for number in range(50):
        (here / f"{number}").write_bytes(b"x")
    sizes = {entry.name: entry.stat().st_size for entry in os.scandir(here)}
    assert {1} == set(sizes.values())
    with os.scandir(here) as entries:
        first = next(entries)
        (here / first.name).write_bytes(b"longer than before")
        rest = list(entries)
    assert 18 == (here / first.name).stat().st_size
    assert 49 == len(rest)


def test_dot_dot_leads_up(here: Path) -> None:
    """`..` is the parent, also after a move."""
    (here / "a" / "b").mkdir(parents=True)
    fd = os.open(here / "a" / "b", os.O_RDONLY)
    (here / "a" / "b").rename(here / "b")
    assert here.stat().st_ino == os.stat("..", dir_fd=fd).st_ino
    os.close(fd)
