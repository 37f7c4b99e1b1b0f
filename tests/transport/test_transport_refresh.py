"""Where attachments can be downloaded is found out in batches, once for all who ask, and ahead of time."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

import pytest
import trio
from transport.contract import location, send
from transport.worlds import world_of

from disfs.chunkstore.transport.base import BulkRefusedError, Upload, Urgency, UrlMissingError
from disfs.chunkstore.transport.faults import Fault, FaultyTransport
from disfs.chunkstore.transport.memory import MemoryTransport
from disfs.chunkstore.transport.one_by_one import ASK_AGAIN_SECONDS, OneByOneTransport
from disfs.chunkstore.transport.refresh import AHEAD_INTERVAL_SECONDS, RefreshingTransport
from disfs.chunkstore.transport.stack import open_connection
from disfs.chunkstore.transport.urls import AHEAD_SECONDS, MARGIN_SECONDS, UrlCache, UrlEnding
from disfs.errors import NotFoundError, PermissionMissingError, TransientStorageError
from disfs.values import ChannelId, MessageId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.emulator import Emulator

    from disfs.chunkstore.transport.base import StoredMessage
    from disfs.errors import StorageError
    from disfs.values import AttachmentId, Location


class ForgetfulDiscord(MemoryTransport):
    """Knows the address of an attachment only after a listing has shown it."""

    def __init__(self) -> None:
        super().__init__()
        self.known: set[AttachmentId] = set()
        self.dead: set[AttachmentId] = set()
        """Their addresses lead nowhere however new they are."""
        self.listed: list[tuple[ChannelId, Urgency]] = []
        self.hold = trio.Event()
        self.hold.set()
        self.error: StorageError | None = None
        self.listing_lags = False

    async def fetch(self, location: Location, start: int, length: int, *, urgency: Urgency = Urgency.READER) -> bytes:
        if location.attachment not in self.known:
            raise UrlMissingError("not known", was_tried=False)
        if location.attachment in self.dead:
            self.known.discard(location.attachment)
            raise UrlMissingError("dead", was_tried=True)
        return await super().fetch(location, start, length, urgency=urgency)

    async def list_messages(
        self,
        channel: ChannelId,
        *,
        before: MessageId | None = None,
        after: MessageId | None = None,
        around: MessageId | None = None,
        urgency: Urgency = Urgency.READER,
    ) -> list[StoredMessage]:
        self.listed.append((channel, urgency))
        await self.hold.wait()
        if self.error is not None:
            raise self.error
        found = await super().list_messages(channel, around=around)
        if self.listing_lags:
            return []
        self.known |= {a.attachment for message in found for a in message.attachments}
        return found

    async def get_message(
        self, channel: ChannelId, message: MessageId, *, urgency: Urgency = Urgency.READER
    ) -> StoredMessage:
        found = await super().get_message(channel, message)
        self.known |= {a.attachment for a in found.attachments}
        return found


class Setting:
    """A Discord that was never listed, behind the wrapper."""

    def __init__(self) -> None:
        self.discord = ForgetfulDiscord()
        self.refreshing = RefreshingTransport(self.discord)
        self.channel = self.discord.add_channel()

    async def fill(self, count: int, channels: int = 1) -> list[Location]:
        """Messages, dealt out to channels."""
        there = [self.channel, *(self.discord.add_channel() for _ in range(channels - 1))]
        stored = [
            await self.discord.send(there[n % channels], [Upload("a.bin", (b"%04d" % n,))], nonce=f"n{n}")
            for n in range(count)
        ]
        return [location(message) for message in stored]

    async def fetch_all(self, locations: Sequence[Location]) -> list[bytes]:
        """All at once; their contents in order."""
        got: dict[Location, bytes] = {}

        async def one(there: Location) -> None:
            got[there] = await self.refreshing.fetch(there, 0, 4)

        async with trio.open_nursery() as nursery:
            for there in locations:
                nursery.start_soon(one, there)
        return [got[there] for there in locations]


async def test_cold_start_takes_a_handful_of_listings() -> None:
    """The first read of a file of ninety messages in four channels, all at once, lists each channel once."""
    setting = Setting()
    locations = await setting.fill(90, channels=4)
    assert [b"%04d" % n for n in range(90)] == await setting.fetch_all(locations)
    assert 4 == len(setting.discord.listed) == setting.refreshing.statistics().refreshes


async def test_far_apart_messages_are_listed_each() -> None:
    """What one listing does not bring is asked for by the next one."""
    setting = Setting()
    locations = await setting.fill(250)
    assert [b"0000", b"0249"] == await setting.fetch_all([locations[0], locations[249]])
    assert 2 == len(setting.discord.listed)


async def test_failure_reaches_all_who_wait() -> None:
    """A listing that fails fails for everybody who waited for it, and is not tried once for each of them."""
    setting = Setting()
    locations = await setting.fill(5)
    setting.discord.error = TransientStorageError("down", retry_after_seconds=3)
    errors = []

    async def one(there: Location) -> None:
        with pytest.raises(TransientStorageError) as caught:
            await setting.refreshing.fetch(there, 0, 4)
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        for there in locations:
            nursery.start_soon(one, there)
    assert [3] * 5 == [error.retry_after_seconds for error in errors]
    assert 1 == len(setting.discord.listed)


async def test_regression_permission_lost_while_others_wait() -> None:
    """Every error of a listing reaches all who waited for it as what it is, however it wants to be made."""
    setting = Setting()
    locations = await setting.fill(2)
    setting.discord.error = PermissionMissingError("the bot may not look", "View Channel")

    async def one(there: Location) -> None:
        with pytest.raises(PermissionMissingError, match="may not look") as caught:
            await setting.refreshing.fetch(there, 0, 4)
        assert caught.value.permission == "View Channel"

    async with trio.open_nursery() as nursery:
        for there in locations:
            nursery.start_soon(one, there)
    assert 1 == len(setting.discord.listed)


async def test_cancelled_listing_is_taken_over() -> None:
    """When the one who lists is cancelled, those who waited go on by themselves."""
    setting = Setting()
    locations = await setting.fill(2)
    setting.discord.hold = trio.Event()
    scope = trio.CancelScope()

    async def first() -> None:
        with scope:
            await setting.refreshing.fetch(locations[0], 0, 4)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(setting.refreshing.fetch, locations[1], 0, 4)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        setting.discord.hold.set()
    assert 2 == len(setting.discord.listed)


async def test_reader_does_not_wait_for_a_sweeps_listing() -> None:
    """Somebody more urgent than the one who lists asks for itself."""
    setting = Setting()
    (there,) = await setting.fill(1)
    setting.discord.hold = trio.Event()
    async with trio.open_nursery() as nursery:
        for urgency in (Urgency.SWEEP, Urgency.READER, Urgency.SYNC):
            nursery.start_soon(functools.partial(setting.refreshing.fetch, there, 0, 4, urgency=urgency))
            await trio.testing.wait_all_tasks_blocked()
        assert [Urgency.SWEEP, Urgency.READER] == [urgency for _, urgency in setting.discord.listed]
        setting.discord.hold.set()


async def test_dead_address_is_renewed_once() -> None:
    """An address that leads nowhere before its end is renewed once; a new one that does so too is the CDN's trouble."""
    setting = Setting()
    (there,) = await setting.fill(1)
    setting.discord.known.add(there.attachment)
    setting.discord.dead.add(there.attachment)
    with pytest.raises(TransientStorageError, match="leads nowhere"):
        await setting.refreshing.fetch(there, 0, 4)
    assert 1 == len(setting.discord.listed)
    setting.discord.dead.clear()
    assert b"0000" == await setting.refreshing.fetch(there, 0, 4)


async def test_listing_that_lags_behind() -> None:
    """A message that the listing does not show yet is asked for by itself; one that is gone is not found."""
    setting = Setting()
    there, gone = await setting.fill(2)
    setting.discord.listing_lags = True
    assert b"0000" == await setting.refreshing.fetch(there, 0, 4)
    await setting.discord.delete(gone.channel, [gone.message])
    with pytest.raises(NotFoundError):
        await setting.refreshing.fetch(gone, 0, 4)


async def test_ending_addresses_are_renewed_in_the_background(autojump_clock: trio.testing.MockClock) -> None:
    """Each channel in use is listed once, also when many of its addresses end, and again only after a while."""
    setting = Setting()
    locations = await setting.fill(10, channels=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(setting.refreshing.run)
        for _ in range(2):
            for there in locations:
                setting.refreshing.note_ending(UrlEnding(there))
            await trio.testing.wait_all_tasks_blocked()
        assert 2 == len(setting.discord.listed)
        await trio.sleep(AHEAD_INTERVAL_SECONDS)
        setting.refreshing.note_ending(UrlEnding(locations[0]))
        await trio.testing.wait_all_tasks_blocked()
        assert 3 == len(setting.discord.listed)
        nursery.cancel_scope.cancel()


async def test_renewing_ahead_survives_failures() -> None:
    """A renewal that fails disturbs nobody, and any number of endings is taken."""
    setting = Setting()
    locations = await setting.fill(2, channels=2)
    setting.discord.error = TransientStorageError("down")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(setting.refreshing.run)
        for _ in range(200):
            setting.refreshing.note_ending(UrlEnding(locations[0]))
        await trio.testing.wait_all_tasks_blocked()
        setting.discord.error = None
        setting.refreshing.note_ending(UrlEnding(locations[1]))
        await trio.testing.wait_all_tasks_blocked()
        assert {there.channel for there in locations} == {channel for channel, _ in setting.discord.listed}
        nursery.cancel_scope.cancel()


async def test_nobody_waits_at_the_end_of_an_address(emulator: Emulator) -> None:
    """With a real connection: while a file is read its addresses are renewed before they end."""
    ahead = 0.0
    urls = UrlCache(now=lambda: time.time() + ahead, monotonic=lambda: time.time() + ahead)
    async with open_connection(emulator.token, emulator.api_url, urls=urls) as connection:
        world = await world_of(emulator, connection.transport, connection.admin)
        message = await send(world, b"0123456789")
        emulator.reset_counters()
        known = urls.usable(location(message).attachment)
        assert known is not None
        assert known.ends_at is not None
        ahead = known.ends_at - time.time() - (MARGIN_SECONDS + AHEAD_SECONDS) / 2
        assert b"0" == await world.transport.fetch(location(message), 0, 1)
        with trio.fail_after(5):
            while world.transport.statistics().refreshes == 0:  # noqa: ASYNC110 - the other thread sets no event
                await trio.sleep(0.005)
        assert 1 == emulator.counts()["list_messages"]


class OldDiscord(MemoryTransport):
    """Refuses to delete in bulk."""

    lacks_permission = True

    async def delete(
        self, channel: ChannelId, messages: Sequence[MessageId], *, urgency: Urgency = Urgency.SWEEP
    ) -> None:
        if len(messages) > 1:
            self._count(deletes=1)
            raise BulkRefusedError("no", lacks_permission=self.lacks_permission)
        await super().delete(channel, messages, urgency=urgency)


@pytest.mark.parametrize(("lacks_permission", "requests"), [(True, 1 + 3 + 3), (False, 2 * (1 + 3))])
async def test_deleting_one_by_one(lacks_permission: bool, requests: int) -> None:
    """What bulk does not delete is deleted singly; a missing permission is remembered, too old messages are not."""
    discord = OldDiscord()
    discord.lacks_permission = lacks_permission
    channel = discord.add_channel()
    transport = OneByOneTransport(discord)
    for _ in range(2):
        ids = [
            (await discord.send(channel, [Upload("a.bin", (b"x",))], nonce=f"{n}-{trio.current_time()}")).message
            for n in range(3)
        ]
        await transport.delete(channel, [*ids, ids[0]])
    assert [] == discord.messages(channel)
    assert requests == discord.statistics().deletes


async def test_permission_that_was_given_is_noticed(autojump_clock: trio.testing.MockClock) -> None:
    """A channel where bulk deletion was refused is asked again after an hour: no remount is needed."""
    discord = OldDiscord()
    channel = discord.add_channel()
    transport = OneByOneTransport(discord)
    await transport.delete(channel, [MessageId(1), MessageId(2)])
    before = discord.statistics().deletes
    await trio.sleep(ASK_AGAIN_SECONDS)
    await transport.delete(channel, [MessageId(1), MessageId(2)])
    assert 1 + 2 == discord.statistics().deletes - before


async def test_single_delete_that_is_refused_is_an_error() -> None:
    """When one of them may not be deleted either, that is told."""
    faulty = FaultyTransport(OldDiscord())
    faulty.plan("delete", 2, Fault(before=PermissionMissingError("no", "View Channel")))
    with pytest.raises(PermissionMissingError):
        await OneByOneTransport(faulty).delete(ChannelId(1), [MessageId(1), MessageId(2)])
