"""The asyncio side of the Discord transport: what the bridge calls.

Logs in when it is first needed, so that a volume mounts while Discord cannot be reached; one attempt serves all who
wait, and a failed one is repeated by the next call. Every public method raises errors of ours alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import discord
from discord.http import handle_message_parameters
from discord.utils import MISSING

from disfs.chunkstore.transport.answers import MISSING_ACCESS, TOO_OLD_FOR_BULK_DELETE, RefusedError
from disfs.chunkstore.transport.base import LIST_LIMIT, TransportStatistics
from disfs.chunkstore.transport.cdn import CdnClient
from disfs.chunkstore.transport.decode import account_of, channel_of, guild_of, list_of, message_of, urls_of
from disfs.chunkstore.transport.parts import PartsReader
from disfs.chunkstore.transport.rest import RestClient
from disfs.errors import CorruptDataError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from disfs.chunkstore.transport.base import Account, ChannelInfo, Guild, StoredMessage, Upload
    from disfs.chunkstore.transport.bridge import Publish
    from disfs.chunkstore.transport.urls import UrlCache
    from disfs.values import ChannelId, GuildId, Location, MessageId

_GUILD_PAGE = 200
_REMEMBERED_CHANNELS = 1000


class DiscordService:
    """One bot at one address. Made by `open_service`, inside the loop."""

    def __init__(self, token: str, api_url: str, urls: UrlCache, publish: Publish) -> None:
        self._token = token
        self._api_url = api_url
        self._urls = urls
        self._publish = publish
        self._statistics = TransportStatistics()
        self._cdn = CdnClient(self._count_rate_limited)
        self._rest: RestClient | None = None
        self._login: asyncio.Task[RestClient] | None = None
        self._account: Account | None = None
        self._refreshing: OrderedDict[ChannelId, asyncio.Lock] = OrderedDict()
        self._no_bulk: set[ChannelId] = set()

    def __repr__(self) -> str:
        return f"<DiscordService at {self._api_url}>"  # never the token

    async def close(self) -> None:
        """End all connections."""
        if self._login is not None:
            self._login.cancel()
            await asyncio.gather(self._login, return_exceptions=True)
        if self._rest is not None:
            await self._rest.close()
        await self._cdn.close()

    # Messages

    async def send(self, channel: ChannelId, uploads: Sequence[Upload], *, nonce: str, content: str) -> StoredMessage:
        """See `Transport.send`."""
        readers = [PartsReader(upload.parts) for upload in uploads]
        try:
            with _translated():
                rest = await self._client()
                self._count(sends=1)
                files = [
                    discord.File(reader, upload.name)  # type: ignore[arg-type] # any seekable reader will do
                    for reader, upload in zip(readers, uploads, strict=True)
                ]
                with handle_message_parameters(
                    content or MISSING,
                    nonce=nonce,
                    files=files,
                    allowed_mentions=discord.AllowedMentions.none(),
                ) as params:
                    raw = await rest.send_message(channel, params=params)
        finally:
            for reader in readers:
                reader.release()
        message = _as_sent(self._noted(raw), uploads)
        self._count(sent_bytes=sum(upload.size_bytes for upload in uploads))
        return message

    async def list_messages(
        self, channel: ChannelId, *, before: MessageId | None, after: MessageId | None, around: MessageId | None
    ) -> list[StoredMessage]:
        """See `Transport.list_messages`."""
        with _translated():
            rest = await self._client()
            self._count(lists=1)
            raw = await rest.logs_from(channel, LIST_LIMIT, before=before, after=after, around=around)
        return sorted((self._noted(one) for one in list_of(raw)), key=lambda message: message.message, reverse=True)

    async def delete(self, channel: ChannelId, messages: Sequence[MessageId]) -> None:
        """See `Transport.delete`."""
        wanted = list(dict.fromkeys(messages))
        with _translated():
            rest = await self._client()
            if len(wanted) > 1 and channel not in self._no_bulk and await self._delete_in_bulk(rest, channel, wanted):
                return
            for message in wanted:
                await self._delete_one(rest, channel, message)

    async def _delete_in_bulk(self, rest: RestClient, channel: ChannelId, messages: list[MessageId]) -> bool:
        """Whether Discord took them in one request; it does not for old ones, and not without Manage Messages."""
        self._count(deletes=1)
        try:
            await rest.delete_messages(channel, [*messages])
        except RefusedError as error:
            if error.answer.status == 404:
                return True
            if error.answer.status == 403:
                # Deleting its own messages one by one needs no permission; and too many 403 get a bot blocked.
                self._no_bulk.add(channel)
                return False
            if error.answer.code == TOO_OLD_FOR_BULK_DELETE:
                return False
            raise
        return True

    async def _delete_one(self, rest: RestClient, channel: ChannelId, message: MessageId) -> None:
        self._count(deletes=1)
        try:
            await rest.delete_message(channel, message)
        except RefusedError as error:
            # A repeat whose first answer was lost also ends here: aiohttp repeats a DELETE by itself.
            if error.answer.status != 404:
                raise

    # Attachments

    async def fetch(self, location: Location, start: int, length: int) -> bytes:
        """See `Transport.fetch`."""
        url = self._urls.usable(location.attachment)
        remembered = url is not None
        if url is None:
            url = await self._refreshed(location, stale=None)
        self._count(fetches=1)
        try:
            content = await self._cdn.fetch(url, start, length)
        except NotFoundError:
            if not remembered:
                raise
            # It ended early, or our clock is wrong.
            self._count(fetches=1)
            content = await self._cdn.fetch(await self._refreshed(location, stale=url), start, length)
        self._count(fetched_bytes=length)
        return content

    async def _refreshed(self, location: Location, stale: str | None) -> str:
        """A URL that Discord has only now handed out, other than `stale`.

        One request brings the URLs of a hundred neighbours, which readers of a file are likely to want next. Those
        who need a URL of the same channel wait for each other, and mostly find theirs there already.
        """
        async with self._refresh_lock(location.channel):
            url = self._urls.usable(location.attachment)
            if url is not None and url != stale:
                return url
            with _translated():
                rest = await self._client()
                self._count(lists=1)
                around = await rest.logs_from(location.channel, LIST_LIMIT, around=location.message)
                messages = [self._noted(one) for one in list_of(around)]
                if location.message not in {message.message for message in messages}:
                    self._count(lists=1)
                    messages = [self._noted(await rest.get_message(location.channel, location.message))]
            if not any(a.attachment == location.attachment for m in messages for a in m.attachments):
                self._urls.forget(location.attachment)
                raise NotFoundError("the message no longer has this attachment")
            url = self._urls.usable(location.attachment)
            assert url is not None, "what was noted just now is usable"
            return url

    def _refresh_lock(self, channel: ChannelId) -> asyncio.Lock:
        lock = self._refreshing.setdefault(channel, asyncio.Lock())
        self._refreshing.move_to_end(channel)
        while len(self._refreshing) > _REMEMBERED_CHANNELS:
            self._refreshing.popitem(last=False)
        return lock

    # The guild

    async def account(self) -> Account:
        """See `GuildAdmin.account`."""
        with _translated():
            raw = await (await self._client()).request(discord.http.Route("GET", "/users/@me"))
        return account_of(raw)

    async def guilds(self) -> list[Guild]:
        """See `GuildAdmin.guilds`."""
        found: list[Guild] = []
        with _translated():
            rest = await self._client()
            while True:
                after = found[-1].guild if found else None
                page = list_of(await rest.get_guilds(_GUILD_PAGE, after=after, with_counts=False))
                found += [guild_of(raw) for raw in page]
                if len(page) < _GUILD_PAGE:
                    return found

    async def guild(self, guild: GuildId) -> Guild:
        """See `GuildAdmin.guild`."""
        with _guild_translated():
            return guild_of(await (await self._client()).get_guild(guild, with_counts=False))

    async def channels(self, guild: GuildId) -> list[ChannelInfo]:
        """See `GuildAdmin.channels`."""
        with _guild_translated():
            raw = await (await self._client()).get_all_guild_channels(guild)
        return [info for one in list_of(raw) if (info := channel_of(one)) is not None]

    async def create_channel(
        self, guild: GuildId, name: str, *, parent: ChannelId | None, topic: str, is_category: bool
    ) -> ChannelInfo:
        """See `GuildAdmin.create_channel` and `create_category`."""
        kind = discord.ChannelType.category if is_category else discord.ChannelType.text
        options: dict[str, Any] = {} if is_category else {"parent_id": parent, "topic": topic}
        with _guild_translated():
            rest = await self._client()
            made = channel_of(await rest.create_channel(guild, kind.value, name=name, **options))
        assert made is not None
        return made

    # Logging in

    async def _client(self) -> RestClient:
        """A client that has logged in, now or before."""
        if self._rest is not None:
            return self._rest
        if self._login is None:
            self._login = asyncio.create_task(self._log_in())
            self._login.add_done_callback(self._logged_in)
        # Shielded: one caller's cancel must not fail the others who wait for the same attempt.
        return await asyncio.shield(self._login)

    async def _log_in(self) -> RestClient:
        rest = RestClient(self._api_url, self._count_rate_limited)
        try:
            await rest.static_login(self._token)
        except BaseException:
            await rest.close()
            raise
        return rest

    def _logged_in(self, attempt: asyncio.Task[RestClient]) -> None:
        self._login = None
        if not attempt.cancelled() and attempt.exception() is None:
            self._rest = attempt.result()

    # What it knows by the way

    def _noted(self, raw: Any) -> StoredMessage:
        """A message, decoded; its URLs are remembered."""
        for attachment, url in urls_of(raw):
            self._urls.remember(attachment, url)
        return message_of(raw)

    def _count_rate_limited(self) -> None:
        self._count(rate_limited=1)

    def _count(self, **added: int) -> None:
        old = self._statistics
        self._statistics = replace(old, **{name: getattr(old, name) + n for name, n in added.items()})
        self._publish(self._statistics)


def _as_sent(message: StoredMessage, uploads: Sequence[Upload]) -> StoredMessage:
    """The message with its attachments in the order of the uploads; raises when they are not what was sent."""
    by_name = {a.name: a for a in message.attachments}
    if set(by_name) == {upload.name for upload in uploads}:
        message = replace(message, attachments=tuple(by_name[upload.name] for upload in uploads))
    if [a.size_bytes for a in message.attachments] != [upload.size_bytes for upload in uploads]:
        raise CorruptDataError("Discord acknowledged other attachments than were sent")
    return message


@contextmanager
def _translated() -> Iterator[None]:
    """Let no refusal out but as an error of ours."""
    try:
        yield
    except RefusedError as error:
        raise error.storage_error from error


@contextmanager
def _guild_translated() -> Iterator[None]:
    """The same for requests about a guild: one that the bot is not in is refused with 403 50001."""
    with _translated():
        try:
            yield
        except RefusedError as error:
            if error.answer.code == MISSING_ACCESS:
                raise NotFoundError("the bot is not in this guild") from error
            raise


@asynccontextmanager
async def open_service(token: str, api_url: str, urls: UrlCache, publish: Publish) -> AsyncIterator[DiscordService]:
    """A service that is closed at the end. Makes no request."""
    # At DEBUG discord.py logs whole answers, signed URLs included.
    library_log = logging.getLogger("discord")
    if library_log.level < logging.INFO:
        library_log.setLevel(logging.INFO)
    service = DiscordService(token, api_url, urls, publish)
    try:
        yield service
    finally:
        await service.close()
