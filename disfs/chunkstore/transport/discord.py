"""MessageSource and GuildAdmin on a real Discord: the trio side, which passes values over the bridge.

What happens on the other side is `service.py`. Statistics come from there whenever they change.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from disfs.chunkstore.transport.base import (
    DELETE_LIMIT,
    Account,
    Application,
    ChannelInfo,
    Guild,
    StoredMessage,
    TransportStatistics,
    Urgency,
    assert_sendable,
)
from disfs.chunkstore.transport.permissions import Granted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.chunkstore.transport.base import Upload
    from disfs.chunkstore.transport.bridge import Bridge
    from disfs.values import ChannelId, GuildId, Location, MessageId

log = logging.getLogger(__name__)


class DiscordTransport:
    """A MessageSource whose service lives behind `bridge`."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._statistics = TransportStatistics()
        bridge.listen(TransportStatistics, self._note_statistics)

    async def send(
        self,
        channel: ChannelId,
        uploads: Sequence[Upload],
        *,
        nonce: str,
        content: str = "",
        urgency: Urgency = Urgency.WRITEBACK,
    ) -> StoredMessage:
        """See `Transport.send`."""
        assert_sendable(uploads, nonce, content)
        stored = await self._bridge.call("send", channel, tuple(uploads), nonce=nonce, content=content)
        assert isinstance(stored, StoredMessage)
        log.debug("sent %d attachments to channel %d: message %d", len(uploads), channel, stored.message)
        return stored

    async def fetch(self, location: Location, start: int, length: int, *, urgency: Urgency = Urgency.READER) -> bytes:
        """See `Transport.fetch`."""
        assert start >= 0
        assert length >= 1
        content = await self._bridge.call("fetch", location, start, length)
        assert isinstance(content, bytes)
        assert len(content) == length
        log.debug("fetched %d bytes from %d of attachment %d", length, start, location.attachment)
        return content

    async def list_messages(
        self,
        channel: ChannelId,
        *,
        before: MessageId | None = None,
        after: MessageId | None = None,
        around: MessageId | None = None,
        urgency: Urgency = Urgency.READER,
    ) -> list[StoredMessage]:
        """See `Transport.list_messages`."""
        assert sum(edge is not None for edge in (before, after, around)) <= 1
        messages = await self._bridge.call("list_messages", channel, before=before, after=after, around=around)
        assert isinstance(messages, list)
        log.debug("listed %d messages of channel %d", len(messages), channel)
        return messages

    async def get_message(
        self, channel: ChannelId, message: MessageId, *, urgency: Urgency = Urgency.READER
    ) -> StoredMessage:
        """See `MessageSource.get_message`."""
        stored = await self._bridge.call("get_message", channel, message)
        assert isinstance(stored, StoredMessage)
        log.debug("got message %d of channel %d", message, channel)
        return stored

    async def delete(
        self, channel: ChannelId, messages: Sequence[MessageId], *, urgency: Urgency = Urgency.SWEEP
    ) -> None:
        """See `Transport.delete`."""
        assert len(messages) <= DELETE_LIMIT
        if messages:
            await self._bridge.call("delete", channel, tuple(messages))
            log.debug("deleted %d messages of channel %d", len(messages), channel)

    def send_delay_seconds(self, channel: ChannelId) -> float:
        """Nothing is known here; see `limits.py`."""
        return 0.0

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        return self._statistics

    def _note_statistics(self, statistics: TransportStatistics) -> None:
        self._statistics = statistics


class DiscordAdmin:
    """A GuildAdmin whose service lives behind `bridge`."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    async def account(self) -> Account:
        """See `GuildAdmin.account`."""
        account = await self._bridge.call("account")
        assert isinstance(account, Account)
        return account

    async def guilds(self) -> list[Guild]:
        """See `GuildAdmin.guilds`."""
        guilds = await self._bridge.call("guilds")
        assert isinstance(guilds, list)
        return guilds

    async def guild(self, guild: GuildId) -> Guild:
        """See `GuildAdmin.guild`."""
        found = await self._bridge.call("guild", guild)
        assert isinstance(found, Guild)
        return found

    async def channels(self, guild: GuildId) -> list[ChannelInfo]:
        """See `GuildAdmin.channels`."""
        channels = await self._bridge.call("channels", guild)
        assert isinstance(channels, list)
        return channels

    async def create_category(self, guild: GuildId, name: str) -> ChannelInfo:
        """See `GuildAdmin.create_category`."""
        return await self._create(guild, name, parent=None, topic="", is_category=True)

    async def create_channel(self, guild: GuildId, name: str, *, parent: ChannelId, topic: str) -> ChannelInfo:
        """See `GuildAdmin.create_channel`."""
        return await self._create(guild, name, parent=parent, topic=topic, is_category=False)

    async def application(self) -> Application:
        """See `GuildAdmin.application`."""
        application = await self._bridge.call("application")
        assert isinstance(application, Application)
        return application

    async def permissions(self, guild: GuildId) -> Granted:
        """See `GuildAdmin.permissions`."""
        granted = await self._bridge.call("permissions", guild)
        assert isinstance(granted, Granted)
        return granted

    async def set_topic(self, channel: ChannelId, topic: str) -> None:
        """See `GuildAdmin.set_topic`."""
        await self._bridge.call("set_topic", channel, topic)

    async def delete_channel(self, channel: ChannelId) -> None:
        """See `GuildAdmin.delete_channel`."""
        await self._bridge.call("delete_channel", channel)

    async def clock_ahead_seconds(self) -> float:
        """See `GuildAdmin.clock_ahead_seconds`."""
        seconds = await self._bridge.call("clock_ahead_seconds")
        assert isinstance(seconds, float)
        return seconds

    async def _create(
        self, guild: GuildId, name: str, *, parent: ChannelId | None, topic: str, is_category: bool
    ) -> ChannelInfo:
        made = await self._bridge.call(
            "create_channel", guild, name, parent=parent, topic=topic, is_category=is_category
        )
        assert isinstance(made, ChannelInfo)
        return made
