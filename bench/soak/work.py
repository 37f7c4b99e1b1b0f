"""One process of the load: random operations in a directory of its own, each repeated on the twin once acknowledged.

The twin therefore is the log of what was acknowledged, as bytes; `operations.jsonl` is the same as a list, for whoever
looks for a cause. Everything follows from the seed, except for how far it gets.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from bench.soak.twin import compare_range, differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.synchronize import Event
    from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
PIECE_BYTES = 128 * KIB
MOST_FINDINGS = 50

WEIGHTS: dict[str, dict[str, int]] = {
    "streams": {"write_big": 6, "read_all": 4, "rename": 2, "unlink": 2, "save": 1, "append": 2, "truncate": 1},
    "crowds": {"make_tree": 5, "read_tree": 4, "rename_tree": 2, "delete_tree": 2, "save": 4, "unlink": 2},
    "patches": {"patch": 8, "append": 3, "truncate": 3, "read_random": 4, "read_all": 1, "save": 2, "write_big": 1},
    "readers": {"read_random": 10, "read_all": 3, "seek": 6, "write_big": 1},
}
"""What each kind of process does, and how often."""


class CallFailedError(Exception):
    """A system call on the mount failed, and that has been noted."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much one process keeps and writes at once."""

    kept_bytes: int = 96 * MIB
    big_bytes: int = 32 * MIB
    crowd: int = 200
    """Files in one directory of small ones."""


@dataclass(slots=True)
class WorkReport:
    """What one process did and found."""

    name: str
    counts: dict[str, int] = field(default_factory=dict)
    """Acknowledged calls of each operation."""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """How long each call took."""
    written_bytes: int = 0
    read_bytes: int = 0
    wrong: list[str] = field(default_factory=list)
    """What was read and is not what was written."""
    errors: list[str] = field(default_factory=list)
    """System calls that failed."""


def run(kind: str, top: Path, twin: Path, report: Path, seed: str, scale: Scale, stop: Event) -> None:
    """Work until told to stop, then compare everything and write the report. The entry of a process."""
    worker = Worker(kind, top, twin, seed, scale, report.with_suffix(".operations.jsonl"))
    worker.work(stop.is_set)
    worker.compare_everything()
    report.write_text(json.dumps(asdict(worker.report)))


class Worker:
    """Works below `top`, which nobody else touches, and repeats what was acknowledged below `twin`."""

    def __init__(self, kind: str, top: Path, twin: Path, seed: str, scale: Scale, journal: Path) -> None:
        self.top = top
        self.twin = twin
        self._random = Random(f"{seed} {kind}")
        self._scale = scale
        self._numbers = 0
        self._journal = journal.open("w")
        self._counts: Counter[str] = Counter()
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.report = WorkReport(kind)
        names = WEIGHTS[kind]
        self._operations = [getattr(self, f"_{name}") for name, weight in names.items() for _ in range(weight)]

    def work(self, stopped: Callable[[], bool]) -> None:
        """Operations at random until `stopped`, or until too much went wrong to go on."""
        for directory in (self.top, self.twin):
            directory.mkdir()
        while not stopped() and len(self.report.errors) + len(self.report.wrong) < MOST_FINDINGS:
            try:
                if self._kept_bytes() > self._scale.kept_bytes:
                    self._delete_something()
                else:
                    self._random.choice(self._operations)()
            except CallFailedError:
                break  # not even what was left could be taken away
            self._journal.flush()
        self.report.counts, self.report.seconds = dict(self._counts), dict(self._seconds)

    def compare_everything(self) -> None:
        """Hold the whole tree against its twin."""
        self.report.wrong += differences(self.top, self.twin)

    # -- noting ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _call(self, operation: str, name: str, **details: Any) -> Iterator[None]:
        """Time a call on the mount, and note it when it was acknowledged; an error is a finding and goes on."""
        began, clock = time.time(), time.perf_counter()
        try:
            yield
        except OSError as error:
            self.report.errors.append(f"{began:.1f}: {operation} {name} {details or ''}: {error.strerror}")
            raise CallFailedError from error
        took = time.perf_counter() - clock
        self._counts[operation] += 1
        self._seconds[operation].append(round(took, 6))
        line = {"at": round(began, 3), "took": round(took, 4), "do": operation, "name": name} | details
        self._journal.write(json.dumps(line) + "\n")

    @contextmanager
    def _giving_up(self, *names: str) -> Iterator[None]:
        """After a call that failed nobody knows what the file holds: take it away on both sides."""
        try:
            yield
        except CallFailedError:
            for name in names:
                with self._call("remove", name):
                    _remove(self.top / name)
                _remove(self.twin / name)

    # -- choosing --------------------------------------------------------------------------------------------------

    def _kept_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.twin.rglob("*") if path.is_file())

    def _files(self) -> list[str]:
        return sorted(path.name for path in self.twin.iterdir() if path.is_file())

    def _trees(self) -> list[str]:
        return sorted(path.name for path in self.twin.iterdir() if path.is_dir())

    def _some_file(self) -> str:
        files = self._files()
        if not files:
            self._write_big()
            files = self._files()
        return self._random.choice(files) if files else self._new_name("nothing")

    def _size(self, name: str) -> int:
        path = self.twin / name
        return path.stat().st_size if path.exists() else 0

    def _new_name(self, stem: str) -> str:
        self._numbers += 1
        return f"{stem}-{self._numbers}"

    def _bytes(self, length: int) -> bytes:
        """Bytes without a zero, so that a hole shows; one in four compresses well."""
        if self._random.randrange(4):
            return self._random.randbytes(length).replace(b"\0", b"\1")
        pattern = self._random.randbytes(61).replace(b"\0", b"\1")
        return (pattern * (length // 61 + 1))[:length]

    # -- writing ---------------------------------------------------------------------------------------------------

    def _write(self, name: str, flags: int, pieces: Iterator[tuple[int, bytes]], *, fsync: bool = False) -> None:
        """Write pieces at their offsets, first to the mount, then to the twin, and close it."""
        with self._call("open", name):
            mounted = os.open(self.top / name, flags | os.O_CLOEXEC, 0o644)
        twin = os.open(self.twin / name, flags | os.O_CLOEXEC, 0o644)
        try:
            for offset, data in pieces:
                with self._call("write", name, offset=offset, bytes=len(data)):
                    _write_all(mounted, data, offset)
                _write_all(twin, data, offset)
                self.report.written_bytes += len(data)
            if fsync:
                with self._call("fsync", name):
                    os.fsync(mounted)
        finally:
            os.close(twin)
            with self._call("close", name):
                os.close(mounted)

    def _in_pieces(self, start: int, length: int) -> Iterator[tuple[int, bytes]]:
        for offset in range(start, start + length, PIECE_BYTES):
            yield offset, self._bytes(min(PIECE_BYTES, start + length - offset))

    def _write_big(self) -> None:
        name = self._new_name("big")
        length = self._random.randint(MIB, self._scale.big_bytes)
        with self._giving_up(name):
            self._write(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self._in_pieces(0, length), fsync=self._one_in(3))

    def _append(self) -> None:
        name = self._some_file()
        with self._giving_up(name):
            self._write(
                name,
                os.O_WRONLY,
                self._in_pieces(self._size(name), self._random.randint(1, MIB)),
                fsync=self._one_in(4),
            )

    def _patch(self) -> None:
        """Scattered small overwrites."""
        name = self._some_file()
        size = self._size(name)
        count = self._random.randint(5, 60)
        pieces = ((self._random.randrange(size + 1), self._bytes(self._random.randint(1, 9000))) for _ in range(count))
        with self._giving_up(name):
            self._write(name, os.O_WRONLY, pieces, fsync=self._one_in(3))

    def _save(self) -> None:
        """As careful editors do: a new file, fsync, rename over the old one."""
        target, name = self._some_file(), self._new_name("saved")
        with self._giving_up(target, name):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            self._write(name, flags, self._in_pieces(0, self._random.randint(0, 2 * MIB)), fsync=True)
            self._renamed(name, target)

    def _truncate(self) -> None:
        name = self._some_file()
        size = self._size(name)
        to = self._random.choice((0, size // 2, self._random.randint(0, size), size + self._random.randint(1, MIB)))
        with self._giving_up(name):
            with self._call("truncate", name, to=to):
                os.truncate(self.top / name, to)
            os.truncate(self.twin / name, to)

    def _one_in(self, count: int) -> bool:
        return self._random.randrange(count) == 0

    # -- names -----------------------------------------------------------------------------------------------------

    def _rename(self) -> None:
        old = self._some_file()
        new = self._some_file() if self._one_in(3) else self._new_name("renamed")
        with self._giving_up(old, new):
            self._renamed(old, new)

    def _renamed(self, old: str, new: str) -> None:
        with self._call("rename", old, to=new):
            (self.top / old).rename(self.top / new)
        (self.twin / old).rename(self.twin / new)

    def _unlink(self) -> None:
        name = self._some_file()
        with self._giving_up(name):
            with self._call("unlink", name):
                (self.top / name).unlink()
            (self.twin / name).unlink()

    def _make_tree(self) -> None:
        """A directory of small files, as an archive that is unpacked."""
        tree = self._new_name("tree")
        with self._giving_up(tree):
            with self._call("mkdir", tree):
                (self.top / tree / "below").mkdir(parents=True)
            (self.twin / tree / "below").mkdir(parents=True)
            for number in range(self._random.randint(1, self._scale.crowd)):
                name = f"{tree}/below/{number}" if self._one_in(2) else f"{tree}/{number}"
                pieces = iter([(0, self._bytes(self._random.randint(0, 12 * KIB)))])
                self._write(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, pieces)

    def _rename_tree(self) -> None:
        if trees := self._trees():
            old, new = self._random.choice(trees), self._new_name("moved")
            with self._giving_up(old, new):
                self._renamed(old, new)

    def _delete_tree(self) -> None:
        if trees := self._trees():
            self._delete(self._random.choice(trees))

    def _delete_something(self) -> None:
        self._delete(self._random.choice([*self._files(), *self._trees()]))

    def _delete(self, name: str) -> None:
        with self._giving_up(name):
            with self._call("delete", name):
                _remove(self.top / name)
            _remove(self.twin / name)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read_range(self, operation: str, name: str, start: int, length: int | None) -> None:
        wrong = None
        try:
            with self._call(operation, name, offset=start, bytes=length):
                wrong = compare_range(self.top / name, self.twin / name, start, length)
        except CallFailedError:
            return  # a file is not changed by a read that failed
        self.report.read_bytes += self._size(name) if length is None else length
        if wrong is not None:
            self.report.wrong.append(f"{time.time():.1f}: {name} {wrong}")

    def _read_all(self) -> None:
        self._read_range("read all", self._some_file(), 0, None)

    def _read_random(self) -> None:
        name = self._some_file()
        size = self._size(name)
        for _ in range(self._random.randint(1, 20)):
            start = self._random.randint(0, size)
            self._read_range("read 4 KiB", name, start, min(4 * KIB, size - start))

    def _seek(self) -> None:
        """As a player does: somewhere, and on from there."""
        name = self._some_file()
        size = self._size(name)
        start = self._random.randint(0, size)
        self._read_range("read 1 MiB", name, start, min(MIB, size - start))

    def _read_tree(self) -> None:
        for tree in self._trees()[:1]:
            try:
                with self._call("read tree", tree):
                    wrong = differences(self.top / tree, self.twin / tree)
            except CallFailedError:
                return
            self.report.wrong += [f"{time.time():.1f}: {tree}/{line}" for line in wrong]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    written = os.pwrite(descriptor, data, offset)
    if written != len(data):
        raise OSError(0, f"{written} of {len(data)} bytes written")
