"""Random work on a volume with snapshots: each shows for ever what the volume was when it was made."""

from __future__ import annotations

import os
import posixpath
import tempfile
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
CONTENTS = (b"x", b"y" * 3 * CHUNK, b"z" * (CHUNK + 1))
NAMES = ("one", "two")
Tree = dict[bytes, bytes | None]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(FILES), st.sampled_from(CONTENTS)),
        st.tuples(st.just("empty"), st.sampled_from(FILES), st.sampled_from(CONTENTS)),
        st.tuples(st.just("unlink"), st.sampled_from(FILES), st.just(b"")),
        st.tuples(st.just("rename"), st.sampled_from(FILES), st.sampled_from(FILES)),
        st.tuples(st.sampled_from(["create", "delete"]), st.sampled_from(NAMES), st.just(b"")),
        st.tuples(
            st.sampled_from(["crash", "restart", "evict", "sweep", "compact", "undelete"]), st.just(b""), st.just(b"")
        ),
    ),
    max_size=25,
)


async def perform(
    step: tuple[str, bytes | str, bytes], paths: Paths, taken: dict[str, Tree], nursery: trio.Nursery
) -> None:
    what, target, other = step
    world = paths.world
    desk = world.make_snapshot_desk()
    if isinstance(target, str):
        if what == "create" and target not in taken:
            await desk.create(target)
            taken[target] = await paths.tree()
        elif what == "delete" and target in taken:
            await desk.delete(target)
            del taken[target]
        return
    if what in ("write", "empty"):
        if await paths.find(posixpath.dirname(target)) is None:
            await paths.make_directory(posixpath.dirname(target))
        await paths.write(target, other, flags=os.O_TRUNC if what == "empty" else 0)
    elif what == "unlink" and await paths.find(target) is not None:
        await paths.unlink(target)
    elif what == "rename" and await paths.find(target) is not None:
        if target != other and await paths.find(posixpath.dirname(other)) is not None:
            await paths.rename(target, other)
    elif what in ("crash", "restart"):
        await (world.crash(nursery) if what == "crash" else world.restart(nursery))
        world.metadata.snapshots.show()
    elif what == "evict":
        world.chunks.evict_all()
    elif what == "sweep":
        await world.chunks.drain()
        await world.shipper.drain()
        await world.chunks.sweep()
    elif what == "compact":
        await world.chunks.compact()
    elif what == "undelete":
        try:
            await paths.undelete(b"/")
        except UserError:
            await world.make_trash_desk().empty()
    await world.metadata.commit()


async def run(steps: list[tuple[str, bytes | str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with real_stores(directory, 2, ships=True, trash_seconds=DAY, sweep_grace_seconds=0) as (world, nursery):
            paths = Paths(world)
            taken: dict[str, Tree] = {}
            for step in [*steps, ("sweep", b"", b""), ("evict", b"", b"")]:
                await perform(step, paths, taken, nursery)
            for each, expected in taken.items():
                top = b"/.snapshots/" + each.encode()
                assert {top + path: content for path, content in expected.items()} == await paths.tree(top)
            await world.filesystem.close()
            await world.metadata.commit()
            assert [] == faults_of(directory / "volume.db")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_snapshots_are_what_the_volume_was(steps: list[tuple[str, bytes | str, bytes]]) -> None:
    """Read from Discord, after all that was done to the volume, by writers, sweep, compaction, trash and kills."""
    trio.run(run, steps, clock=MockClock(autojump_threshold=0))
