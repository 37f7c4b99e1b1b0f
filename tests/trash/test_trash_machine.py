"""Random writing, sending, deleting, crashing: what is restored is what a model says, and nothing else is touched."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.metadata_invariants import faults_of
from support.real_stores import real_stores
from support.trash_worlds import DAY, Paths
from trio.testing import MockClock

from disfs.errors import UserError

CHUNK = 4096
FILES = (b"/a", b"/b", b"/d/a")
CONTENTS = (b"", b"x", b"y" * 3 * CHUNK, b"z" * (CHUNK + 1))


@dataclass
class File:
    """What the model knows of a file that is there."""

    content: bytes
    sent: bool = False
    """Whether Discord has all of it."""
    ever: bool = False
    """Whether Discord has any of it, since it was last empty."""


class Model:
    """What is there, and what can be restored, newest last."""

    def __init__(self) -> None:
        self.files: dict[bytes, File] = {}
        self.directories: set[bytes] = set()
        self.trash: list[tuple[bytes, File | None]] = []

    def drop(self, path: bytes) -> None:
        """A file has lost its name."""
        file = self.files.pop(path)
        if file.ever or not file.content:
            self.trash.append((path, file))

    def send(self) -> None:
        """Contents of the trash too: those that were kept had been sent in part."""
        for file in [*self.files.values(), *(file for _, file in self.trash if file is not None)]:
            file.sent = True
            file.ever = bool(file.content)

    def restore_missing(self) -> None:
        """All of it that is not there: the newest of each path."""
        newest = {path: number for number, (path, _) in enumerate(self.trash)}
        gone = set()
        for path, number in sorted(newest.items()):
            if path not in self.files and path not in self.directories:
                gone.add(number)
                file = self.trash[number][1]
                if file is None:
                    self.directories.add(path)
                else:
                    self.files[path] = file
                    if path.startswith(b"/d/"):
                        self.directories.add(b"/d")
        self.trash = [entry for number, entry in enumerate(self.trash) if number not in gone]

    def tree(self) -> dict[bytes, bytes | None]:
        return dict.fromkeys(self.directories) | {path: file.content for path, file in self.files.items()}


write = st.tuples(st.just("write"), st.sampled_from(FILES), st.sampled_from(CONTENTS))
empty = st.tuples(st.just("empty"), st.sampled_from(FILES), st.sampled_from(CONTENTS))
others = st.tuples(
    st.sampled_from(["unlink", "rename", "rmdir", "send", "crash", "undelete", "evict"]),
    st.sampled_from(FILES),
    st.sampled_from(FILES),
)
STEPS = st.lists(write | empty | others, max_size=25)


async def perform(step: tuple[str, bytes, bytes], paths: Paths, model: Model, nursery: trio.Nursery) -> None:
    """The same on both. What was made is committed at once: the trash looks at whether it was."""
    what, path, other = step
    world, files = paths.world, model.files
    if what == "write" and (path not in files or len(other) >= len(files[path].content)):
        if path == b"/d/a" and b"/d" not in model.directories:
            await paths.make_directory(b"/d")
            model.directories.add(b"/d")
        old = files.get(path)
        await paths.write(path, other)
        if other:
            files[path] = File(other, ever=old is not None and old.ever)
        else:
            files.setdefault(path, File(b""))
    elif what == "empty" and path in files:
        file = files[path]
        if file.sent and file.content:
            model.trash.append((path, File(file.content, sent=True, ever=True)))
        await paths.write(path, other, flags=os.O_TRUNC)
        files[path] = File(other)
    elif what == "unlink" and path in files:
        await paths.unlink(path)
        model.drop(path)
    elif what == "rename" and path in files and other != path and (other != b"/d/a" or b"/d" in model.directories):
        await paths.rename(path, other)
        if other in files:
            model.drop(other)
        files[other] = files.pop(path)
    elif what == "rmdir" and b"/d" in model.directories:
        if b"/d/a" in files:
            await paths.unlink(b"/d/a")
            model.drop(b"/d/a")
        await paths.rmdir(b"/d")
        model.directories.discard(b"/d")
        model.trash.append((b"/d", None))
    elif what == "send":
        await paths.sent()
        model.send()
    elif what == "crash":
        await world.crash(nursery)
    elif what == "evict":
        world.chunks.evict_all()
    elif what == "undelete":
        with contextlib.suppress(UserError):
            await paths.undelete(b"/")
        model.restore_missing()
    await world.metadata.commit()


async def run(steps: list[tuple[str, bytes, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with real_stores(directory, 2, trash_seconds=DAY, writeback_delay_seconds=1e6) as (world, nursery):
            paths, model = Paths(world), Model()
            for step in [*steps, ("send", b"", b""), ("undelete", b"", b"")]:
                await perform(step, paths, model, nursery)
                assert model.tree() == await paths.tree()
                kept = [(path, -1 if file is None else len(file.content)) for path, file in model.trash]
                found = [(each.path, -1 if each.mode & 0o40000 else each.size_bytes) for each in paths.trash()]
                assert sorted(kept) == sorted(found)
            await world.filesystem.close()
            await world.metadata.commit()
            assert [] == faults_of(directory / "volume.db")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_what_comes_back_is_what_was_deleted(steps: list[tuple[str, bytes, bytes]]) -> None:
    """After every step tree and trash are the model's; in the end all that is missing comes back, to the last byte."""
    trio.run(run, steps, clock=MockClock(autojump_threshold=0))
