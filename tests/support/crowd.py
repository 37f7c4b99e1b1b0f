"""One of many processes that work in the same directory of a mount: `python -m support.crowd ROLE PLACE SEED TURNS`.

Each role does something whose outcome does not depend on what the others do meanwhile, or fails in one of the ways that
POSIX names for it. Anything else ends the process with a traceback and exit code 1.
"""

# ruff: noqa: PTH102, PTH104, PTH106, PTH108, PTH116, PTH208 - this program is about system calls

from __future__ import annotations

import errno
import mmap
import os
import random
import sys
from typing import TYPE_CHECKING

from bench.suites.posix.calls import EXCHANGE, NOREPLACE, renameat2

if TYPE_CHECKING:
    from collections.abc import Callable

RACES = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.EPERM}
"""How a change of names may fail when somebody else was quicker."""
STABLE_COUNT = 400
CUT_BYTES = 300_000
MAPPED_BYTES = 1 << 16
MAPPERS = 4
RECORD_MARK = b"\x01"


def names(place: str, rng: random.Random) -> Callable[[], None]:
    """Make, link, rename and remove the same few names, files and directories, as everybody does."""

    def path() -> str:
        directory = rng.choice(("", "d0/", "d1/", "d0/d1/"))
        return f"{place}/{directory}{rng.choice(('n0', 'n1', 'n2', 'd0', 'd1'))}"

    calls: tuple[Callable[[], object], ...] = (
        lambda: os.close(os.open(path(), os.O_CREAT | os.O_WRONLY)),
        lambda: os.close(os.open(path(), os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
        lambda: os.mkdir(path()),
        lambda: os.unlink(path()),
        lambda: os.rmdir(path()),
        lambda: os.link(path(), path(), follow_symlinks=False),
        lambda: os.rename(path(), path()),
        lambda: os.rename(path(), path()),
        lambda: renameat2(path(), path(), EXCHANGE),
        lambda: renameat2(path(), path(), NOREPLACE),
        lambda: os.stat(path()),
        lambda: os.listdir(os.path.dirname(path())),  # noqa: PTH120 - paths as text throughout
    )

    def turn() -> None:
        try:
            rng.choice(calls)()
        except OSError as error:
            if error.errno not in RACES:
                raise

    return turn


def append(place: str, rng: random.Random) -> Callable[[], None]:
    """Append records of all lengths to one log, each by one write: a mark, who, which, how long, and filler."""
    log = os.open(f"{place}/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    number = iter(range(10**9))
    who = os.getpid()

    def turn() -> None:
        record = a_record(who, next(number), rng.choice((0, 1, 50, 4000, 4096, 9000)))
        if len(record) != os.write(log, record):
            raise AssertionError("a short write")

    return turn


def a_record(who: int, number: int, length: int) -> bytes:
    """What `append` writes."""
    return RECORD_MARK + f"{who} {number} {length} ".encode() + bytes([65 + number % 26]) * length


def records(log: bytes) -> dict[int, list[int]]:
    """The numbers of everybody's records, in the order of the log. AssertionError if one is torn."""
    found: dict[int, list[int]] = {}
    for raw in log.split(RECORD_MARK)[1:]:
        who, number, length = (int(word) for word in raw.split(b" ", 3)[:3])
        assert a_record(who, number, length) == RECORD_MARK + raw, f"record {number} of {who} is torn"
        found.setdefault(who, []).append(number)
    return found


def churn(place: str, rng: random.Random) -> Callable[[], None]:
    """Make, rename and remove names that are not the stable ones; none is ever used twice."""
    numbers = iter(range(10**9))
    existing: list[str] = []

    def turn() -> None:
        new = f"{place}/passing-{os.getpid()}-{next(numbers)}-{'x' * 60}"
        if len(existing) < 20 or rng.random() < 0.4:
            os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            existing.append(new)
            return
        old = existing.pop(rng.randrange(len(existing)))
        if rng.random() < 0.7:
            os.unlink(old)
        else:
            os.rename(old, new)
            existing.append(new)

    return turn


def stable_name(number: int) -> str:
    """A name that stays; long, so that a listing takes several requests."""
    return f"stable-{number:04d}-{'y' * 80}"


def listing(place: str, rng: random.Random) -> Callable[[], None]:
    """List the directory, as scandir, stopping now and then in the middle: each stable name once, no name twice."""

    def turn() -> None:
        found = []
        with os.scandir(place) as entries:
            for entry in entries:
                found.append(entry.name)
                if rng.random() < 0.01:
                    os.stat(place)
        if len(found) != len(set(found)):
            raise AssertionError(f"twice: {sorted(name for name in set(found) if found.count(name) > 1)[:5]}")
        missed = {stable_name(number) for number in range(STABLE_COUNT)} - set(found)
        if missed:
            raise AssertionError(f"{len(missed)} missed: {sorted(missed)[:5]}")

    return turn


def cut(place: str, rng: random.Random) -> Callable[[], None]:
    """Fill a file with the number of the turn, cut it, let it grow again: what was cut must be zeros ever after."""
    file = os.open(f"{place}/cut", os.O_RDWR | os.O_CREAT, 0o644)
    generation = iter(range(1, 250))

    def turn() -> None:
        value = bytes([next(generation)])
        os.ftruncate(file, 0)
        os.ftruncate(file, CUT_BYTES)
        for start in range(0, CUT_BYTES, 50_000):
            os.pwrite(file, value * rng.choice((10, 5000, 50_000)), start)

    return turn


def watch(place: str, rng: random.Random) -> Callable[[], None]:
    """Read the file that `cut` cuts: the numbers in it never go back, but to zero."""
    file = os.open(f"{place}/cut", os.O_RDONLY | os.O_CREAT, 0o644)
    newest = 0

    def turn() -> None:
        nonlocal newest
        if rng.random() < 0.3:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        found = set(os.pread(file, rng.choice((100, 5000, CUT_BYTES)), rng.randrange(CUT_BYTES)))
        old = sorted(value for value in found if 0 < value < newest)
        if old:
            raise AssertionError(f"bytes of turns {old} are back after those of turn {newest} were seen")
        newest = max([newest, *found])

    return turn


def mapped(place: str, rng: random.Random) -> Callable[[], None]:
    """Write into an own byte of each eight through a shared mapping; the seed says whose."""
    file = os.open(f"{place}/mapped", os.O_RDWR)
    view = mmap.mmap(file, MAPPED_BYTES)
    own = int(sys.argv[3]) % MAPPERS

    def turn() -> None:
        for start in range(own, MAPPED_BYTES, 8):
            view[start] = (view[start] + 1) % 256
        if rng.random() < 0.5:
            view.flush()

    return turn


ROLES = {role.__name__: role for role in (names, append, churn, listing, cut, watch, mapped)}


def main() -> None:
    """Do so many turns of one role."""
    role, place, seed, turns = sys.argv[1:]
    turn = ROLES[role](place, random.Random(seed))
    for _ in range(int(turns)):
        turn()


if __name__ == "__main__":
    main()
