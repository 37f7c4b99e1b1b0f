"""What every Transport and every GuildAdmin must do. Implementations inherit the classes and provide `world`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import trio

from disfs.chunkstore.transport.base import LIST_LIMIT, Upload, Urgency
from disfs.chunkstore.transport.permissions import missing_names
from disfs.errors import CorruptDataError, NotFoundError, TooLargeError
from disfs.values import AttachmentId, ChannelId, GuildId, Location, MessageId

if TYPE_CHECKING:
    from collections.abc import Callable

    from disfs.chunkstore.transport.base import GuildAdmin, StoredMessage, Transport

NOWHERE = ChannelId(1234567)


@dataclass(frozen=True)
class World:
    """A transport to be tested and what surrounds it."""

    transport: Transport
    admin: GuildAdmin
    guild: GuildId
    channel: ChannelId
    """An empty channel."""
    set_attachment_limit: Callable[[int], None]
    remove_channel: Callable[[ChannelId], None]


_nonces = itertools.count(1)


def new_nonce() -> str:
    """A nonce that no other test uses."""
    return f"contract-{next(_nonces)}"


async def send(world: World, *contents: bytes, nonce: str | None = None) -> StoredMessage:
    """Send each content as one attachment of one message."""
    uploads = [Upload(f"pack-{n}.bin", (content,)) for n, content in enumerate(contents)]
    return await world.transport.send(world.channel, uploads, nonce=nonce or new_nonce())


def location(message: StoredMessage, n: int = 0) -> Location:
    """Where the `n`th attachment of a message lies."""
    return Location(message.channel, message.message, message.attachments[n].attachment)


class TransportContract:
    """Run on every Transport."""

    async def test_parts_come_back_joined(self, world: World) -> None:
        """Parts of any buffer type are stored one after another, the empty ones too."""
        parts = (b"one", bytearray(b"two"), b"", memoryview(b"xxthreexx")[2:-2])
        message = await world.transport.send(world.channel, [Upload("a.bin", parts)], nonce=new_nonce())
        assert b"onetwothree" == await world.transport.fetch(location(message), 0, 11)

    async def test_send_returns_what_is_stored(self, world: World) -> None:
        """The message that send returns is the message that a listing shows, attachments in the order sent."""
        uploads = [Upload(name, (bytes(size),)) for name, size in (("z.bin", 3), ("a.bin", 2), ("m-1_x.y", 1))]
        message = await world.transport.send(world.channel, uploads, nonce=new_nonce(), content="hello")
        assert [("z.bin", 3), ("a.bin", 2), ("m-1_x.y", 1)] == [(a.name, a.size_bytes) for a in message.attachments]
        assert (world.channel, "hello") == (message.channel, message.content)
        assert [message] == await world.transport.list_messages(world.channel)

    async def test_ten_attachments_fit(self, world: World) -> None:
        """A message takes ten attachments, each with its own bytes."""
        message = await send(world, *(bytes([n]) * (n + 1) for n in range(10)))
        assert b"\x09" * 10 == await world.transport.fetch(location(message, 9), 0, 10)

    async def test_range_is_exact(self, world: World) -> None:
        """A fetch returns the bytes asked for: at the start, in the middle, at the end, all."""
        content = bytes(range(256)) * 20
        message = await send(world, content)
        for start, length in ((0, 1), (1000, 999), (5119, 1), (0, 5120)):
            assert content[start : start + length] == await world.transport.fetch(location(message), start, length)

    async def test_range_outside_is_corrupt(self, world: World) -> None:
        """A range that leaves the attachment is an error, even if it begins inside."""
        message = await send(world, b"0123456789")
        for start, length in ((5, 6), (10, 1), (100, 1)):
            with pytest.raises(CorruptDataError):
                await world.transport.fetch(location(message), start, length)

    async def test_same_nonce_stores_once(self, world: World) -> None:
        """A repeat with the same nonce returns the first message and stores nothing."""
        nonce = new_nonce()
        first = await send(world, b"x", nonce=nonce)
        assert first == await send(world, b"x", nonce=nonce)
        assert [first] == await world.transport.list_messages(world.channel)

    async def test_other_nonce_stores_again(self, world: World) -> None:
        """The same content with another nonce is another message."""
        first, second = await send(world, b"x"), await send(world, b"x")
        assert [second, first] == await world.transport.list_messages(world.channel)

    async def test_too_large_is_refused(self, world: World) -> None:
        """An attachment above the limit raises TooLargeError and leaves no message; one of just the limit is taken."""
        world.set_attachment_limit(1000)
        with pytest.raises(TooLargeError):
            await send(world, bytes(1001))
        assert [] == await world.transport.list_messages(world.channel)
        await send(world, bytes(1000), bytes(1000))

    async def test_listing_pages(self, world: World) -> None:
        """Listings are newest first; `before` and `after` exclude their message."""
        sent = [await send(world, b"x") for _ in range(5)]
        listed = world.transport.list_messages
        assert sent[::-1] == await listed(world.channel)
        assert sent[1::-1] == await listed(world.channel, before=sent[2].message)
        assert sent[:2:-1] == await listed(world.channel, after=sent[2].message)
        assert [] == await listed(world.channel, before=sent[0].message)
        assert [] == await listed(world.channel, after=sent[4].message)

    async def test_listing_after_begins_with_the_oldest(self, world: World) -> None:
        """A page of `after` holds the messages just newer, not the newest ones."""
        sent = [await send(world, b"x") for _ in range(LIST_LIMIT + 2)]
        page = await world.transport.list_messages(world.channel, after=sent[0].message)
        assert sent[LIST_LIMIT:0:-1] == page

    async def test_listing_around(self, world: World) -> None:
        """A page of `around` holds that message and neighbours on both sides, also when it is at an end or gone."""
        sent = [await send(world, b"x") for _ in range(5)]
        for middle in (sent[0], sent[2], sent[4]):
            assert sent[::-1] == await world.transport.list_messages(world.channel, around=middle.message)
        await world.transport.delete(world.channel, [sent[2].message])
        around = await world.transport.list_messages(world.channel, around=sent[2].message)
        assert [sent[4], sent[3], sent[1], sent[0]] == around

    async def test_listing_around_is_in_the_middle(self, world: World) -> None:
        """In a long channel about half of a page of `around` is older, and half newer."""
        sent = [await send(world, b"x") for _ in range(2 * LIST_LIMIT)]
        page = await world.transport.list_messages(world.channel, around=sent[LIST_LIMIT].message)
        assert len(page) <= LIST_LIMIT + 1
        assert sent[LIST_LIMIT] in page
        assert LIST_LIMIT // 3 < page.index(sent[LIST_LIMIT]) < LIST_LIMIT * 2 // 3
        assert page == sorted(page, key=lambda message: message.message, reverse=True)

    @pytest.mark.parametrize("urgency", list(Urgency))
    async def test_urgency_changes_nothing_else(self, world: World, urgency: Urgency) -> None:
        """Every call does the same whatever its urgency."""
        uploads = [Upload("a.bin", (b"abc",))]
        message = await world.transport.send(world.channel, uploads, nonce=new_nonce(), urgency=urgency)
        assert b"b" == await world.transport.fetch(location(message), 1, 1, urgency=urgency)
        assert [message] == await world.transport.list_messages(world.channel, urgency=urgency)
        await world.transport.delete(world.channel, [message.message], urgency=urgency)
        assert [] == await world.transport.list_messages(world.channel)

    async def test_send_delay_is_no_time_when_nothing_is_full(self, world: World) -> None:
        """Where there is room, and where nothing is known, a send would not wait."""
        assert 0 == world.transport.send_delay_seconds(NOWHERE)
        await send(world, b"x")
        assert 0 == world.transport.send_delay_seconds(world.channel)

    async def test_deleted_is_gone(self, world: World) -> None:
        """Deleting one or several removes those and no other; twice is as good as once."""
        sent = [await send(world, b"x") for _ in range(5)]
        ids = [message.message for message in sent]
        await world.transport.delete(world.channel, ids[:1])
        await world.transport.delete(world.channel, ids[:3])
        await world.transport.delete(world.channel, ids[:1])
        await world.transport.delete(world.channel, [])
        assert sent[:2:-1] == await world.transport.list_messages(world.channel)

    async def test_fetch_of_a_message_that_never_was(self, world: World) -> None:
        """A location that does not exist raises NotFoundError."""
        message = await send(world, b"x")
        for there in (
            Location(world.channel, MessageId(99), AttachmentId(98)),
            Location(NOWHERE, message.message, AttachmentId(98)),
            Location(world.channel, message.message, AttachmentId(98)),
        ):
            with pytest.raises(NotFoundError):
                await world.transport.fetch(there, 0, 1)

    async def test_gone_channel(self, world: World) -> None:
        """In a channel that is gone, sending and listing raise NotFoundError, and deleting has nothing to do."""
        message = await send(world, b"x")
        world.remove_channel(world.channel)
        with pytest.raises(NotFoundError):
            await send(world, b"x")
        with pytest.raises(NotFoundError):
            await world.transport.list_messages(world.channel)
        await world.transport.delete(world.channel, [message.message])
        await world.transport.delete(world.channel, [message.message, MessageId(5)])

    async def test_many_at_once(self, world: World) -> None:
        """Sends and fetches that overlap do not mix their bytes."""
        got: dict[int, bytes] = {}

        async def one(n: int) -> None:
            content = bytes([n]) * (1000 + n)
            message = await send(world, content)
            got[n] = await world.transport.fetch(location(message), 0, 1000 + n)

        async with trio.open_nursery() as nursery:
            for n in range(8):
                nursery.start_soon(one, n)
        assert {n: bytes([n]) * (1000 + n) for n in range(8)} == got
        assert 8 == len(await world.transport.list_messages(world.channel))

    async def test_statistics_count(self, world: World) -> None:
        """Requests and bytes are counted."""
        before = world.transport.statistics()
        message = await send(world, b"12345", b"678")
        await world.transport.fetch(location(message), 1, 2)
        await world.transport.list_messages(world.channel)
        await world.transport.delete(world.channel, [message.message])
        after = world.transport.statistics()
        changes = [
            getattr(after, name) - getattr(before, name)
            for name in ("sends", "fetches", "lists", "deletes", "sent_bytes", "fetched_bytes", "retries")
        ]
        assert [1, 1, 1, 1, 8, 2, 0] == changes
        assert after.trouble is None

    async def test_cancel_leaves_it_usable(self, world: World) -> None:
        """After a cancelled call the next one works."""
        with trio.move_on_after(0):
            await send(world, b"x")
        with trio.move_on_after(0):
            await world.transport.list_messages(world.channel)
        message = await send(world, b"y")
        assert b"y" == await world.transport.fetch(location(message), 0, 1)


class AdminContract:
    """Run on every GuildAdmin."""

    async def test_guild_is_listed(self, world: World) -> None:
        """The guild is found in the list and by its id, and says who the bot is."""
        assert (await world.admin.account()).user_id > 0
        assert world.guild in {guild.guild for guild in await world.admin.guilds()}
        found = await world.admin.guild(world.guild)
        assert (world.guild, 10 * 1024 * 1024) == (found.guild, found.attachment_limit_bytes)

    async def test_unknown_guild(self, world: World) -> None:
        """A guild that the bot is not in raises NotFoundError."""
        with pytest.raises(NotFoundError):
            await world.admin.guild(GuildId(4711))
        with pytest.raises(NotFoundError):
            await world.admin.channels(GuildId(4711))

    async def test_created_channels_are_listed(self, world: World) -> None:
        """A category and a channel in it are listed as they were made."""
        category = await world.admin.create_category(world.guild, "volume")
        channel = await world.admin.create_channel(world.guild, "data-0", parent=category.channel, topic="keep out")
        assert (True, None, "volume") == (category.is_category, category.parent, category.name)
        assert (False, category.channel, "keep out") == (channel.is_category, channel.parent, channel.topic)
        listed = await world.admin.channels(world.guild)
        assert category in listed
        assert channel in listed

    async def test_topic_is_changed(self, world: World) -> None:
        """What stands above a channel can be replaced; a channel that is gone is not found."""
        await world.admin.set_topic(world.channel, "new")
        assert "new" in {
            info.topic for info in await world.admin.channels(world.guild) if info.channel == world.channel
        }
        world.remove_channel(world.channel)
        with pytest.raises(NotFoundError):
            await world.admin.set_topic(world.channel, "new")

    async def test_deleted_channels_are_gone(self, world: World) -> None:
        """A channel goes with its messages, a category without its channels, and deleting again is no error."""
        category = await world.admin.create_category(world.guild, "doomed")
        inside = await world.admin.create_channel(world.guild, "inside", parent=category.channel, topic="")
        for doomed in (category.channel, world.channel, world.channel):
            await world.admin.delete_channel(doomed)
        present = {info.channel: info for info in await world.admin.channels(world.guild)}
        assert category.channel not in present
        assert world.channel not in present
        assert present[inside.channel].parent is None

    async def test_permissions_are_known(self, world: World) -> None:
        """The bot may do all that is needed, in the guild and in a channel; a guild it is not in is not found."""
        granted = await world.admin.permissions(world.guild)
        assert [] == missing_names(granted.guild)
        assert [] == missing_names(granted.channels[world.channel])
        with pytest.raises(NotFoundError):
            await world.admin.permissions(GuildId(4711))

    async def test_application_has_an_id(self, world: World) -> None:
        """With it the invitation is made."""
        assert (await world.admin.application()).application_id > 0

    async def test_clock_is_compared(self, world: World) -> None:
        """Both run on this machine's clock."""
        assert abs(await world.admin.clock_ahead_seconds()) < 5
