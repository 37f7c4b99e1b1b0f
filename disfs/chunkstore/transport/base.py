"""The contract of a store whose objects are attachments of messages.

Every implementation and every wrapper passes the same suite, `tests/transport/contract.py`. Methods run
under trio. All of them may raise `TransientStorageError`, `TokenRejectedError` and
`PermissionMissingError`; what else they raise stands in their docstrings. After a cancel the remote
effect is unknown, as after a lost answer; nothing local is left behind.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from disfs.errors import PermanentStorageError, TransientStorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.chunkstore.transport.permissions import Granted
    from disfs.values import AttachmentId, ChannelId, GuildId, Location, MessageId

Buffer: TypeAlias = bytes | bytearray | memoryview

LIST_LIMIT = 100
"""The most messages that one call of `list_messages` returns."""
DELETE_LIMIT = 100
"""The most messages that one call of `delete` takes."""
UPLOAD_LIMIT = 10
"""The most attachments that one message takes."""
NONCE_LIMIT = 25
"""The most characters that a nonce may have."""
CONTENT_LIMIT = 2000
"""The most characters that a bot's message may have beside its attachments."""


_NAME = re.compile(r"[a-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Upload:
    """One attachment to be sent. `parts` are sent one after another, without being joined in memory.

    `name` is ASCII of [a-z0-9._-], and differs from the other names in its message.
    """

    name: str
    parts: tuple[Buffer, ...]

    @property
    def size_bytes(self) -> int:
        """How long the attachment will be."""
        return sum(len(memoryview(part).cast("B")) for part in self.parts)


def assert_sendable(uploads: Sequence[Upload], nonce: str, content: str) -> None:
    """Hold the caller of `send` to the contract; every implementation begins with it."""
    assert 1 <= len(uploads) <= UPLOAD_LIMIT
    assert len({upload.name for upload in uploads}) == len(uploads)
    assert all(_NAME.fullmatch(upload.name) for upload in uploads)
    assert nonce.isascii()
    assert 1 <= len(nonce) <= NONCE_LIMIT
    assert len(content) <= CONTENT_LIMIT


class Urgency(enum.IntEnum):
    """Who waits for a request; the most urgent goes first when Discord's limits make requests queue."""

    READER = 0
    """A person's program waits for these bytes."""
    SYNC = 1
    """Somebody waits until what they wrote is in Discord."""
    WRITEBACK = 2
    SWEEP = 3
    """Nobody waits: deleting garbage, rewriting mostly dead packs."""


@dataclass(frozen=True, slots=True)
class StoredAttachment:
    """An attachment as a message lists it. There is no URL: URLs expire and are the transport's own business."""

    attachment: AttachmentId
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as Discord has it, attachments in the order in which they were sent."""

    channel: ChannelId
    message: MessageId
    content: str
    attachments: tuple[StoredAttachment, ...]


@dataclass(frozen=True, slots=True)
class BucketView:
    """One of Discord's rate limit buckets as it is known now."""

    channel: ChannelId
    route: str
    limit: int | None
    """How many requests it takes, as announced."""
    remaining: int
    """How many of these may start now."""
    wait_seconds: float
    """How long the next one would wait."""


@dataclass(frozen=True, slots=True)
class TransportStatistics:
    """Counters since the start, for `disfs status`. A wrapper adds its own to those of what it wraps."""

    sends: int = 0
    fetches: int = 0
    lists: int = 0
    deletes: int = 0
    retries: int = 0
    rate_limited: int = 0
    """Answers with status 429, those of the CDN included."""
    rate_limited_user: int = 0
    """Of these, how many were about the bucket of one of our channels."""
    rate_limited_shared: int = 0
    """How many were about a limit that other bots use up too."""
    rate_limited_global: int = 0
    """How many were about everything that this bot or this address asks for."""
    limit_wait_seconds: float = 0.0
    """How long requests have waited for Discord's limits before they began, all together."""
    refreshes: int = 0
    """Listings made to renew download addresses; they are among `lists`."""
    whole_downloads: int = 0
    """Answers that brought a whole attachment although a part was asked for."""
    sent_bytes: int = 0
    fetched_bytes: int = 0
    up_limit_bytes_per_second: float | None = None
    """The bandwidth limit of uploads; None without one."""
    down_limit_bytes_per_second: float | None = None
    """That of downloads."""
    buckets: tuple[BucketView, ...] = ()
    trouble: str | None = None
    """Why requests are being tried again at this moment; None when all is well."""

    @property
    def requests(self) -> int:
        """All requests together."""
        return self.sends + self.fetches + self.lists + self.deletes


class Transport(Protocol):
    """Sends, fetches, lists and deletes attachments of one bot's messages."""

    async def send(
        self,
        channel: ChannelId,
        uploads: Sequence[Upload],
        *,
        nonce: str,
        content: str = "",
        urgency: Urgency = Urgency.WRITEBACK,
    ) -> StoredMessage:
        """Store 1 to 10 attachments as one new message and return it once Discord has acknowledged it.

        `nonce` (1 to 25 ASCII characters) makes it idempotent: a repeat with the same nonce and channel within
        a few minutes returns the first message and stores nothing. The returned attachments are in the
        order of `uploads` and of their sizes; anything else raises `CorruptDataError`. When a
        `TransientStorageError` with `maybe_done` is raised, the message may or may not exist.
        Raises `TooLargeError`, and `NotFoundError` when the channel is gone, or when the message that
        this nonce made has been deleted since. The buffers must not change until this returns.
        """
        ...

    async def fetch(self, location: Location, start: int, length: int, *, urgency: Urgency = Urgency.READER) -> bytes:
        """Return exactly `length` (at least 1) bytes from `start` of an attachment.

        Raises `NotFoundError` when message or attachment is gone, `CorruptDataError` when the range lies
        outside the attachment. A short, torn or wrong-ranged answer is a `TransientStorageError`, never data.
        """
        ...

    async def list_messages(
        self,
        channel: ChannelId,
        *,
        before: MessageId | None = None,
        after: MessageId | None = None,
        around: MessageId | None = None,
        urgency: Urgency = Urgency.READER,
    ) -> list[StoredMessage]:
        """Return up to `LIST_LIMIT` messages, newest first.

        With `before`, those just older than it. With `after`, those just newer than it, still newest
        first. With `around`, the message of that id, if it exists, and about as many on each side. With none of them,
        the newest ones. At most one of the three may be given. Raises `NotFoundError` when the
        channel is gone.
        """
        ...

    async def delete(
        self, channel: ChannelId, messages: Sequence[MessageId], *, urgency: Urgency = Urgency.SWEEP
    ) -> None:
        """Delete up to `DELETE_LIMIT` messages; one that does not exist counts as deleted. Empty is a no-op."""
        ...

    def send_delay_seconds(self, channel: ChannelId) -> float:
        """How long a send to that channel would wait for its rate limit if it were begun now; 0 when nothing is known.

        Who can choose among channels, or fill a message better while waiting, asks before.
        """
        ...

    def statistics(self) -> TransportStatistics:
        """Counters since the start."""
        ...


class UrlMissingError(TransientStorageError):
    """The address of an attachment is not known (any more); listing its message brings a new one.

    `was_tried`: one was known, and it led nowhere.
    """

    def __init__(self, message: str, *, was_tried: bool) -> None:
        super().__init__(message)
        self.was_tried = was_tried


class BulkRefusedError(PermanentStorageError):
    """Discord does not delete these messages in one request; one by one it may.

    `lacks_permission`: it will not do so for any messages of that channel.
    """

    def __init__(self, message: str, *, lacks_permission: bool) -> None:
        super().__init__(message)
        self.lacks_permission = lacks_permission


class MessageSource(Transport, Protocol):
    """What lies below the wrappers: a Transport that makes one request for each call, and leaves it at that.

    So it does two things less than a Transport: `fetch` raises `UrlMissingError` when it knows no address of the
    attachment, or when the one it knew led nowhere; and `delete` of several messages may raise `BulkRefusedError`.
    Any call that returns messages makes the addresses of their attachments known.
    """

    async def get_message(
        self, channel: ChannelId, message: MessageId, *, urgency: Urgency = Urgency.READER
    ) -> StoredMessage:
        """Return one message; `NotFoundError` when it or its channel is gone. Sees what a listing does not yet show."""
        ...


@dataclass(frozen=True, slots=True)
class Account:
    """Who the token belongs to."""

    user_id: int
    name: str


@dataclass(frozen=True, slots=True)
class Application:
    """What the bot belongs to; its id is what an invitation names."""

    application_id: int
    name: str


@dataclass(frozen=True, slots=True)
class Guild:
    """A Discord server that the bot is a member of."""

    guild: GuildId
    name: str
    attachment_limit_bytes: int
    """How large an attachment this guild's boost tier allows; a first guess, Discord's 413 has the last word."""


@dataclass(frozen=True, slots=True)
class ChannelInfo:
    """A text channel, or a category when `is_category`."""

    channel: ChannelId
    name: str
    is_category: bool
    parent: ChannelId | None
    topic: str


class GuildAdmin(Protocol):
    """What making, adopting and checking a volume needs beyond messages. Errors as in `Transport`."""

    async def account(self) -> Account:
        """Who we are; the cheapest way to check a token."""
        ...

    async def guilds(self) -> list[Guild]:
        """The guilds that the bot was invited to."""
        ...

    async def guild(self, guild: GuildId) -> Guild:
        """One guild; `NotFoundError` when it does not exist or the bot is not in it."""
        ...

    async def channels(self, guild: GuildId) -> list[ChannelInfo]:
        """The categories and text channels of a guild; `NotFoundError` as in `guild`."""
        ...

    async def create_category(self, guild: GuildId, name: str) -> ChannelInfo:
        """Make a category; `PermissionMissingError` names Manage Channels."""
        ...

    async def create_channel(self, guild: GuildId, name: str, *, parent: ChannelId, topic: str) -> ChannelInfo:
        """Make a text channel in a category; `PermissionMissingError` names Manage Channels."""
        ...

    async def application(self) -> Application:
        """What the token's bot belongs to."""
        ...

    async def permissions(self, guild: GuildId) -> Granted:
        """What the bot may do in a guild and its channels; `NotFoundError` as in `guild`."""
        ...

    async def set_topic(self, channel: ChannelId, topic: str) -> None:
        """Change what stands above a channel; `PermissionMissingError` names Manage Channels, `NotFoundError`."""
        ...

    async def delete_channel(self, channel: ChannelId) -> None:
        """Delete a channel with its messages, or a category, whose channels stay; one that is gone counts as deleted.

        `PermissionMissingError` names Manage Channels.
        """
        ...

    async def clock_ahead_seconds(self) -> float:
        """How far this machine's clock is ahead of Discord's, to about a second; makes a request."""
        ...
