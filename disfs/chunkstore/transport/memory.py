"""A Discord in memory: Transport and GuildAdmin for tests, held to the same contract suite as the real thing.

Time is trio's clock and ids are made from it and a counter, so that a test under an autojump clock sees the same
ids each time. Failures are not its business: wrap it in `faults.FaultyTransport`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.transport.base import (
    DELETE_LIMIT,
    LIST_LIMIT,
    Account,
    Application,
    ChannelInfo,
    Guild,
    StoredAttachment,
    StoredMessage,
    TransportStatistics,
    Urgency,
    assert_sendable,
)
from disfs.chunkstore.transport.permissions import NEEDED, Granted
from disfs.errors import CorruptDataError, NotFoundError, TooLargeError
from disfs.values import AttachmentId, ChannelId, GuildId, MessageId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.chunkstore.transport.base import Upload
    from disfs.values import Location

_FIRST_MOMENT_MS = 58_000_000_000
"""Milliseconds since Discord's epoch at which a fake world begins."""


@dataclass(slots=True)
class _Sent:
    """What a nonce made, and when."""

    channel: ChannelId
    message: MessageId
    sent_at: float


class MemoryTransport:
    """The fake. Each instance is a Discord of its own with one guild, `GUILD`."""

    GUILD = Guild(GuildId(1000), "memory", 10 * 1024 * 1024)

    def __init__(self, *, attachment_limit_bytes: int = 10 * 1024 * 1024, nonce_window_seconds: float = 180) -> None:
        self.attachment_limit_bytes = attachment_limit_bytes
        """May be changed at any time, as Discord does."""
        self._nonce_window_seconds = nonce_window_seconds
        self._counter = itertools.count(1)
        self._began: float | None = None
        self._newest_ms = 0
        """Since `_began`, of the newest id."""
        self._infos: dict[ChannelId, ChannelInfo] = {}
        self._channels: dict[ChannelId, dict[MessageId, StoredMessage]] = {}
        self._bytes: dict[AttachmentId, bytes] = {}
        self._nonces: dict[str, _Sent] = {}
        self._statistics = TransportStatistics()

    # Transport

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
        await trio.lowlevel.checkpoint()
        self._count(sends=1)
        messages = self._messages(channel)
        known = self._nonces.get(nonce)
        if known and known.channel == channel and trio.current_time() - known.sent_at < self._nonce_window_seconds:
            if known.message not in messages:
                raise NotFoundError("the message that this nonce made is deleted")
            return messages[known.message]
        if any(upload.size_bytes > self.attachment_limit_bytes for upload in uploads):
            raise TooLargeError("an attachment is larger than Discord takes")
        message = MessageId(self._snowflake())
        stored = StoredMessage(channel, message, content, tuple(self._store(upload) for upload in uploads))
        messages[message] = stored
        self._nonces[nonce] = _Sent(channel, message, trio.current_time())
        self._count(sent_bytes=sum(upload.size_bytes for upload in uploads))
        return stored

    async def fetch(self, location: Location, start: int, length: int, *, urgency: Urgency = Urgency.READER) -> bytes:
        """See `Transport.fetch`."""
        assert start >= 0
        assert length >= 1
        await trio.lowlevel.checkpoint()
        self._count(fetches=1)
        message = self._channels.get(location.channel, {}).get(location.message)
        if message is None or location.attachment not in {a.attachment for a in message.attachments}:
            raise NotFoundError("no such attachment")
        content = self._bytes[location.attachment]
        if start + length > len(content):
            raise CorruptDataError("the range lies outside the attachment")
        self._count(fetched_bytes=length)
        return content[start : start + length]

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
        await trio.lowlevel.checkpoint()
        self._count(lists=1)
        ids = sorted(self._messages(channel))
        if around is not None:
            newer = [i for i in ids if i >= around]
            ids = ids[max(0, len(ids) - len(newer) - LIST_LIMIT // 2) :][:LIST_LIMIT]
        elif after is not None:
            ids = [i for i in ids if i > after][:LIST_LIMIT]
        elif before is not None:
            ids = [i for i in ids if i < before]
        return [self._channels[channel][i] for i in reversed(ids[-LIST_LIMIT:])]

    async def get_message(
        self, channel: ChannelId, message: MessageId, *, urgency: Urgency = Urgency.READER
    ) -> StoredMessage:
        """See `MessageSource.get_message`."""
        await trio.lowlevel.checkpoint()
        self._count(lists=1)
        try:
            return self._messages(channel)[message]
        except KeyError:
            raise NotFoundError("no such message") from None

    async def delete(
        self, channel: ChannelId, messages: Sequence[MessageId], *, urgency: Urgency = Urgency.SWEEP
    ) -> None:
        """See `Transport.delete`."""
        assert len(messages) <= DELETE_LIMIT
        await trio.lowlevel.checkpoint()
        if not messages:
            return
        self._count(deletes=1)
        stored = self._channels.get(channel, {})
        for message in messages:
            gone = stored.pop(message, None)
            for attachment in gone.attachments if gone else ():
                del self._bytes[attachment.attachment]

    def send_delay_seconds(self, channel: ChannelId) -> float:
        """See `Transport.send_delay_seconds`."""
        return 0.0

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        return self._statistics

    # GuildAdmin

    async def account(self) -> Account:
        """See `GuildAdmin.account`."""
        await trio.lowlevel.checkpoint()
        return Account(1, "memory-bot")

    async def guilds(self) -> list[Guild]:
        """See `GuildAdmin.guilds`."""
        await trio.lowlevel.checkpoint()
        return [self.GUILD]

    async def guild(self, guild: GuildId) -> Guild:
        """See `GuildAdmin.guild`."""
        await trio.lowlevel.checkpoint()
        if guild != self.GUILD.guild:
            raise NotFoundError("no such guild")
        return self.GUILD

    async def channels(self, guild: GuildId) -> list[ChannelInfo]:
        """See `GuildAdmin.channels`."""
        await self.guild(guild)
        return list(self._infos.values())

    async def create_category(self, guild: GuildId, name: str) -> ChannelInfo:
        """See `GuildAdmin.create_category`."""
        await self.guild(guild)
        return self._create(name, is_category=True, parent=None, topic="")

    async def create_channel(self, guild: GuildId, name: str, *, parent: ChannelId, topic: str) -> ChannelInfo:
        """See `GuildAdmin.create_channel`."""
        await self.guild(guild)
        return self._create(name, is_category=False, parent=parent, topic=topic)

    async def application(self) -> Application:
        """See `GuildAdmin.application`."""
        await trio.lowlevel.checkpoint()
        return Application(2, "memory")

    async def permissions(self, guild: GuildId) -> Granted:
        """See `GuildAdmin.permissions`."""
        await self.guild(guild)
        return Granted(NEEDED, dict.fromkeys(self._infos, int(NEEDED)))

    async def set_topic(self, channel: ChannelId, topic: str) -> None:
        """See `GuildAdmin.set_topic`."""
        await trio.lowlevel.checkpoint()
        if channel not in self._infos:
            raise NotFoundError("no such channel")
        self._infos[channel] = replace(self._infos[channel], topic=topic)

    async def delete_channel(self, channel: ChannelId) -> None:
        """See `GuildAdmin.delete_channel`."""
        await trio.lowlevel.checkpoint()
        if channel in self._channels:
            self.remove_channel(channel)
        elif self._infos.pop(channel, None) is not None:
            inside = [info for info in self._infos.values() if info.parent == channel]
            self._infos |= {info.channel: replace(info, parent=None) for info in inside}

    async def clock_ahead_seconds(self) -> float:
        """See `GuildAdmin.clock_ahead_seconds`."""
        await trio.lowlevel.checkpoint()
        return 0.0

    # What only a fake can do.

    def add_channel(self) -> ChannelId:
        """Make a channel without waiting, for tests that only need one."""
        return self._create("data", is_category=False, parent=None, topic="").channel

    def remove_channel(self, channel: ChannelId) -> None:
        """Delete a channel with all its messages, as its owner may at any time."""
        del self._infos[channel]
        for message in self._channels.pop(channel).values():
            for attachment in message.attachments:
                del self._bytes[attachment.attachment]

    def stored_bytes(self, attachment: AttachmentId) -> bytes:
        """An attachment's whole content, without a request; KeyError when it was deleted."""
        return self._bytes[attachment]

    def damage(self, attachment: AttachmentId, content: bytes) -> None:
        """Replace an attachment's content, as nothing but bit rot would."""
        assert attachment in self._bytes
        self._bytes[attachment] = content

    def messages(self, channel: ChannelId) -> list[StoredMessage]:
        """Every message of a channel, oldest first, without a request."""
        return [self._channels[channel][i] for i in sorted(self._channels[channel])]

    def _messages(self, channel: ChannelId) -> dict[MessageId, StoredMessage]:
        try:
            return self._channels[channel]
        except KeyError:
            raise NotFoundError("no such channel") from None

    def _create(self, name: str, *, is_category: bool, parent: ChannelId | None, topic: str) -> ChannelInfo:
        info = ChannelInfo(ChannelId(self._snowflake()), name, is_category, parent, topic)
        self._infos[info.channel] = info
        if not is_category:
            self._channels[info.channel] = {}
        return info

    def _store(self, upload: Upload) -> StoredAttachment:
        content = b"".join(upload.parts)
        attachment = AttachmentId(self._snowflake())
        self._bytes[attachment] = content
        return StoredAttachment(attachment, upload.name, len(content))

    def _snowflake(self) -> int:
        """An id as Discord makes them: milliseconds, then a counter; they sort by time."""
        now = trio.current_time() if trio.lowlevel.in_trio_run() else 0.0  # a fixture may make channels beforehand
        if self._began is None or now < self._began:
            self._began = now - self._newest_ms / 1000  # another run of trio: its clock begins anew, ids do not
        self._newest_ms = max(self._newest_ms, int((now - self._began) * 1000))
        return ((_FIRST_MOMENT_MS + self._newest_ms) << 22) | next(self._counter)

    def _count(self, **added: int) -> None:
        old = self._statistics
        self._statistics = replace(old, **{name: getattr(old, name) + n for name, n in added.items()})
