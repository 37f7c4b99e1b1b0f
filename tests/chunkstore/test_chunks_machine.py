"""Random operations, faults, crashes and restarts against a dict of byte strings."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import inspect
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.chunk_worlds import SETTINGS, ChunkWorld, in_this_thread

from disfs.chunkstore.packer import PackReader
from disfs.chunkstore.states import ON_THEIR_WAY, UNSENT, ChunkState
from disfs.chunkstore.transport.faults import Fault
from disfs.errors import FilesystemError, StorageError, TokenRejectedError, TooLargeError, TransientStorageError
from disfs.values import InodeNumber

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from disfs.values import AttachmentId, ChunkKey

EXAMPLES = int(os.environ.get("DISFS_CHUNK_EXAMPLES", "60"))
CHUNK = 64
INODES = [InodeNumber(7), InodeNumber(8), InodeNumber(0x107)]
TINY = dataclasses.replace(
    SETTINGS,
    chunk_bytes=CHUNK,
    cache_bytes=24 * CHUNK,
    dirty_limit_bytes=12 * CHUNK,
    open_files=2,
    small_content_bytes=48,
    attachment_bytes=600,
    message_bytes=1300,
    fetch_bytes=300,
    readahead_bytes=4 * CHUNK,
    sweep_grace_seconds=20,
    stray_seconds=30,
    compaction_share=0.5,
    compaction_interval_seconds=30,
    compaction_patience_seconds=5,
)

inodes = st.sampled_from(INODES)
small = st.tuples(st.just("write"), inodes, st.integers(0, 40), st.integers(1, 40))
"""Around what a small content may be long."""
positions = st.one_of(st.integers(0, 10 * CHUNK), st.integers(0, 10).map(lambda n: n * CHUNK))
lengths = st.one_of(st.integers(1, 5 * CHUNK), st.integers(1, 4).map(lambda n: n * CHUNK))
operations = st.one_of(
    st.tuples(st.just("write"), inodes, positions, lengths),
    st.tuples(st.just("write"), inodes, positions, lengths),
    small,
    small,
    st.tuples(st.just("read"), inodes, positions, lengths),
    st.tuples(st.just("cut"), inodes, positions),
    st.tuples(st.just("cut"), inodes, st.integers(0, 60)),
    st.tuples(st.just("discard"), inodes),
    st.tuples(st.just("drain")),
    st.tuples(st.just("begin_drain")),
    st.tuples(st.just("begin_drain_file"), inodes),
    st.tuples(st.just("evict")),
    st.tuples(st.just("begin_compact")),
    st.tuples(st.just("compact")),
    st.tuples(st.just("commit")),
    st.tuples(st.just("sync"), inodes),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.05, 0.3, 2.0, 7.0, 40.0])),
    st.tuples(st.just("crash")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("replace"), inodes, positions, st.booleans()),
    st.tuples(
        st.just("fault"),
        st.sampled_from(["send", "fetch", "delete", "list_messages"]),
        st.integers(1, 3),
        st.sampled_from(["transient", "rejected", "too_large"]),
        st.booleans(),
    ),
)


class SlowTransport:
    """Takes its time before and after each call, so that everything else happens meanwhile."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        return functools.partial(self._slowly, attribute) if inspect.iscoroutinefunction(attribute) else attribute

    async def _slowly(self, call: Any, *args: Any, **named: Any) -> Any:
        await trio.sleep(0.1)
        result = await call(*args, **named)
        await trio.sleep(0.1)
        return result


class SlowWorld(ChunkWorld):
    """Every store of it has the slow transport."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.reclaims = True

    def new_store(self, transport: Any = None) -> Any:
        """A store on what there is."""
        return super().new_store(SlowTransport(self.transport))


class Machine:
    """Carries operations out on a world and on the model."""

    def __init__(self, world: ChunkWorld, nursery: trio.Nursery) -> None:
        self.world = world
        self.nursery = nursery
        self.files: dict[InodeNumber, bytes] = {}
        self.history: list[dict[InodeNumber, bytes]] = [{}]
        self.counter = 0
        commit = world.ledger.commit

        def commit_and_remember() -> None:
            commit()
            self.history = [dict(self.files)]

        world.ledger.commit = commit_and_remember  # type: ignore[method-assign] # the model commits with the ledger

    async def carry_out(self, operation: Sequence[Any]) -> None:
        """One operation, and what must hold after every one."""
        await getattr(self, f"do_{operation[0]}")(*operation[1:])
        self.history.append(dict(self.files))
        self.check_invariants()

    async def do_write(self, inode: InodeNumber, offset: int, length: int) -> None:
        self.counter += 1
        data = bytes((self.counter * 31 + i) % 255 + 1 for i in range(length))
        with _refusals():
            await self.world.write(inode, offset, data)
            before = self.files.get(inode, b"").ljust(offset, b"\0")
            self.files[inode] = before[:offset] + data + before[offset + length :]

    async def do_read(self, inode: InodeNumber, offset: int, length: int) -> None:
        with _refusals():
            found = await self.world.store.read(inode, offset, length, self.world.store.new_readahead())
            assert self.files.get(inode, b"")[offset : offset + length].ljust(length, b"\0") == found

    async def do_cut(self, inode: InodeNumber, size: int) -> None:
        with _refusals():
            await self.world.cut(inode, size)
            self.files[inode] = self.files.get(inode, b"")[:size].ljust(size, b"\0")

    async def do_discard(self, inode: InodeNumber) -> None:
        self.world.discard(inode)
        self.files.pop(inode, None)

    async def do_drain(self) -> None:
        await self.world.store.drain()

    async def do_begin_drain(self) -> None:
        assert self.world.nursery is not None
        self.world.nursery.start_soon(self.world.store.drain)

    async def do_begin_drain_file(self, inode: InodeNumber) -> None:
        async def drain_file() -> None:
            with _refusals():
                await self.world.store.drain_file(inode)

        assert self.world.nursery is not None
        self.world.nursery.start_soon(drain_file)

    async def do_compact(self) -> None:
        with contextlib.suppress(StorageError):
            await self.world.store.compact()

    async def do_begin_compact(self) -> None:
        assert self.world.nursery is not None
        self.world.nursery.start_soon(self.do_compact)

    async def do_evict(self) -> None:
        self.world.store.evict_all()

    async def do_commit(self) -> None:
        self.world.ledger.commit()

    async def do_sync(self, inode: InodeNumber) -> None:
        await self.world.store.sync(inode)

    async def do_wait(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def do_replace(self, inode: InodeNumber, size: int, committed: bool) -> None:
        """What a crash in the middle of O_TRUNC or a rename over the file finds."""
        self.world.ledger.commit()
        await (self.do_cut(inode, size) if size else self.do_discard(inode))
        self.history.append(dict(self.files))
        if committed:
            self.world.ledger.commit()
        await self.do_crash()

    async def do_restart(self) -> None:
        await self.world.restart(self.nursery)

    async def do_crash(self) -> None:
        await self.world.crash(self.nursery)
        allowed, self.files = self.history, {}
        assert {inode: len(data) for inode, data in allowed[0].items()} == self.world.ledger.state.sizes
        for inode, committed in allowed[0].items():
            found = await self.settled_contents(inode)
            for position, byte in enumerate(found):
                versions = {h[inode][position] for h in allowed if inode in h and position < len(h[inode])}
                assert byte in versions, (inode, position)
            if len({h.get(inode) for h in allowed}) == 1:
                assert committed == found
            self.files[inode] = found
        self.history = [dict(self.files)]

    async def do_fault(self, method: Any, number: int, kind: str, before: bool) -> None:
        error: Exception = TransientStorageError("the network", maybe_done=not before)
        if kind == "rejected":
            error = TokenRejectedError("401")
        elif kind == "too_large" and method == "send":
            error, before = TooLargeError("413"), True
        self.world.transport.plan(method, number, Fault(before=error) if before else Fault(after=error))

    async def settled_contents(self, inode: InodeNumber) -> bytes:
        """The whole file, without the faults that are still planned."""
        self.world.transport._plans.clear()
        return await self.world.contents(inode)

    def check_invariants(self) -> None:
        """What the store believes agrees with the ledger, the disk and its budget."""
        chunks = self.world.store._map
        assert chunks.weight <= TINY.cache_bytes
        assert chunks.weight == sum(record.weight for record in chunks.inodes.values())
        assert {row.key for row in self.world.ledger.dirty_chunks()} == set(chunks.all_keys(UNSENT))
        unsent = dict.fromkeys(chunks.inodes, 0) | Counter(key.inode for key in chunks.all_keys(UNSENT))
        assert unsent == {record.inode: record.unsent_count for record in chunks.inodes.values()}
        waiting, dirty = chunks.waiting, sorted(chunks.all_keys([ChunkState.DIRTY]))
        assert dirty == sorted(waiting.by_quiet) == sorted(waiting.by_age) == list(waiting._in_order)
        assert waiting.bytes == sum(chunks.inodes[key.inode].entries[key.chunk].length for key in dirty)
        assert waiting.urgent_count == sum(waiting.is_urgent(entry) for entry in waiting.by_quiet.values())
        assert set(chunks.unsent) == {record.inode for record in chunks.inodes.values() if record.unsent_count}
        for record in chunks.inodes.values():
            assert record.unsent_bytes == sum(entry.length for entry in record.entries.values())
            assert record.sending_count == sum(entry.state in ON_THEIR_WAY for entry in record.entries.values())
            assert not record.sent_bytes or record.unsent_count
        assert chunks.dirty_bytes == sum(e.length for r in chunks.inodes.values() for e in r.entries.values())
        small = {inode: record.end for inode, record in chunks.inodes.items() if record.is_small}
        assert small == dict(self.world.ledger.small_lengths())
        assert sum(small.values()) == self.world.store._small.total_bytes <= TINY.small_limit_bytes
        for record in chunks.inodes.values():
            assert record.count == len(list(record.indices()))
            assert (self.world.store._files.length(record.inode) or 0) == record.disk_end
            assert record.end <= len(self.files.get(record.inode, b""))

    async def finish(self) -> None:
        """In the end everything is in Discord, and a cold read gives the model."""
        self.world.transport._plans.clear()
        await self.world.store.drain()
        self.world.store.evict_all()
        assert 0 == self.world.store.statistics().dirty_bytes
        for inode, data in self.files.items():
            assert data == await self.world.contents(inode)
        await trio.sleep(200)
        live = {record.location.message for record in self.world.ledger.state.packs.values()}
        for inode in self.files:
            for extent in await self.world.ledger.extents(inode, 0, 1000):  # type: ignore[arg-type] # plain numbers
                assert (await self.world.ledger.pack(extent.pack)).location.message in live
        messages = [m for channel in self.world.channels for m in self.world.memory.messages(channel)]
        assert live == {message.message for message in messages}, "no stray is left"
        self.check_packs(a.attachment for message in messages for a in message.attachments)

    def check_packs(self, attachments: Iterable[AttachmentId]) -> None:
        """Of all slots for a live chunk, those of the newest revision hold its content: packs explain themselves."""
        newest: dict[ChunkKey, tuple[int, set[bytes]]] = {}
        for attachment in attachments:
            for entry, plain in PackReader(self.world.key, self.world.memory.stored_bytes(attachment)).chunks():
                revision, contents = newest.get(entry.key, (0, set()))
                if entry.revision > revision:
                    revision, contents = entry.revision, set()
                newest[entry.key] = revision, contents | {plain.ljust(CHUNK, b"\0")}
        for key in self.world.ledger.state.where:
            start = key.chunk * CHUNK
            expected = self.files[key.inode][start : start + CHUNK].ljust(CHUNK, b"\0")
            assert {expected} == newest[key][1], key


@contextlib.contextmanager
def _refusals() -> Any:
    """EIO and ENOSPC may happen under faults; they must have changed nothing."""
    try:
        yield
    except FilesystemError as error:
        if error.errno not in {errno.EIO, errno.ENOSPC}:
            raise


async def _scenario(directory: Path, plan: Sequence[Any]) -> None:
    world = SlowWorld(directory, TINY)
    try:
        async with trio.open_nursery() as nursery:
            await world.start(nursery)
            machine = Machine(world, nursery)
            for operation in plan:
                with trio.fail_after(10_000):
                    await machine.carry_out(operation)
            with trio.fail_after(10_000):
                await machine.finish()
            nursery.cancel_scope.cancel()
    finally:
        world.store.close()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(operations, min_size=1, max_size=40))
def test_contents_are_those_of_the_model(plan: Sequence[Any]) -> None:
    """Whatever happens in whichever order, each file reads as the model says, warm, cold, and after every crash."""
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio.to_thread, "run_sync", in_this_thread)
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(_scenario, Path(directory), plan, clock=clock)
