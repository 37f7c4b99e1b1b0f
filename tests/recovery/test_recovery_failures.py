"""What fails on this machine while its metadata are shipped: a later turn makes up for it, and the mount stays."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
from typing import TYPE_CHECKING

import pytest
import trio
from support.real_stores import real_stores
from test_recovery_shipping import (  # type: ignore[import-not-found]  # mypy sees no module in this directory
    EVERY_TIME,
    settle,
    write,
)

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.transport.faults import Fault
from disfs.errors import FilesystemError

if TYPE_CHECKING:
    from pathlib import Path

    from disfs.chunkstore.transport.base import Urgency
    from disfs.metadata.shipping import Begun
    from disfs.recovery.building import Built


async def test_regression_copy_that_cannot_be_read_back_ends_nothing(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spool on a bad sector: the copy goes with a later journal, and the volume stays mounted."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"1")
        await settle(world)
        world.shipper._builder = dataclasses.replace(world.shipper._builder, rule=EVERY_TIME)
        send = world.shipper._delivery.send

        async def bad_sector(built: Built, urgency: Urgency) -> None:
            if built.kind is PackKind.CHECKPOINT:
                raise OSError(5, "Input/output error")
            await send(built, urgency)

        monkeypatch.setattr(world.shipper._delivery, "send", bad_sector)
        await write(world, b"two", b"2")
        await settle(world)
        await trio.sleep(60)


async def test_regression_store_that_stops_while_a_copy_is_sent_ends_nothing(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """Everything raises EIO then, and the mount stays, as it does when the store stops at any other time."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"1")
        await settle(world)
        world.shipper._builder = dataclasses.replace(world.shipper._builder, rule=EVERY_TIME)
        held = trio.Event()
        world.transport.plan("send", 3, Fault(hold=held))  # contents, journal, copy
        await write(world, b"two", b"2")
        await settle(world)
        await trio.sleep(1)
        world.metadata._database.fail("a test")
        held.set()
        await trio.sleep(60)


async def test_regression_store_that_stopped_when_all_was_shipped_ends_nothing(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step that waits for the next change raises EIO then, which is told, and tried again."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"1")
        clean_up = world.shipper._retention.clean_up

        async def stops() -> None:
            await clean_up()
            world.metadata._database.fail("a test")

        monkeypatch.setattr(world.shipper._retention, "clean_up", stops)
        with contextlib.suppress(FilesystemError):
            await settle(world)
        await trio.sleep(60)


async def test_copy_is_closed_when_forgetting_fails(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal is acknowledged, the rest of the turn fails: the spool of the copy must not stay open."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"1")
        await settle(world)
        world.shipper._builder = dataclasses.replace(world.shipper._builder, rule=EVERY_TIME)
        copies: list[Built] = []

        def fails(begun: Begun) -> bool:
            raise FilesystemError(5, "a test")

        begin = world.shipper._begin

        async def begun() -> object:
            turn = await begin()
            if turn.copy is not None:
                copies.append(turn.copy)
            return turn

        monkeypatch.setattr(world.shipper, "_begin", begun)
        monkeypatch.setattr(world.metadata.shipping, "forget_more", fails)
        await write(world, b"two", b"2")
        await settle(world)
        await trio.sleep(1)
        assert [True] == [copy.spool.closed for copy in copies]


@pytest.mark.parametrize("call", [1, 2])
async def test_regression_remote_sync_ends_when_the_store_stops(
    call: int, tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """EIO within seconds, whether contents or names were on their way: what arrives can be recorded no more."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        world.filesystem.files.ship = world.shipper.drain
        await settle(world)
        handle, _ = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, bytes(9000))
        held = trio.Event()
        world.transport.plan("send", call, Fault(hold=held))
        raised: list[int | None] = []

        async def send() -> None:
            try:
                await world.filesystem.files.send(handle)
            except FilesystemError as error:
                raised.append(error.errno)

        with trio.move_on_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                await trio.sleep(30)
                assert [] == raised
                world.metadata._database.fail("a test")
                held.set()
        assert [errno.EIO] == raised


async def test_regression_remote_sync_of_names_ends_when_the_store_stops(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """EIO within seconds for fsync of a directory too, and while Discord does not answer at all."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        world.filesystem.files.ship = world.shipper.drain
        await settle(world)
        await write(world, b"file", b"1")
        world.transport.plan("send", 1, Fault(hold=trio.Event()))
        raised: list[int | None] = []

        async def send() -> None:
            try:
                await world.filesystem.send_names()
            except FilesystemError as error:
                raised.append(error.errno)

        with trio.move_on_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                await trio.sleep(30)
                assert [] == raised
                world.metadata._database.fail("a test")
        assert [errno.EIO] == raised
