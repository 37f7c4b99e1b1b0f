"""What fails on this machine while its metadata are shipped: a later turn makes up for it, and the mount stays."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

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

    import pytest

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
