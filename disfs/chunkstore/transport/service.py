"""The asyncio side of the Discord transport: what the bridge calls.

Each call about messages makes one request, and what its answer says about rate limits is published before it returns:
waiting, repeating and looking for lost URLs are the business of the wrappers on the other side.

Logs in when it is first needed, so that a volume mounts while Discord cannot be reached; one attempt serves all who
wait, and a failed one is repeated by the next call. Every public method raises errors of ours alone.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import discord
from discord.http import handle_message_parameters
from discord.utils import MISSING

from disfs.chunkstore.transport.answers import MISSING_ACCESS, TOO_OLD_FOR_BULK_DELETE, RefusedError
from disfs.chunkstore.transport.base import LIST_LIMIT, BulkRefusedError, TransportStatistics, UrlMissingError
from disfs.chunkstore.transport.cdn import CdnClient
from disfs.chunkstore.transport.decode import (
    account_of,
    application_of,
    channel_of,
    granted_of,
    guild_of,
    list_of,
    message_of,
    urls_of,
)
from disfs.chunkstore.transport.parts import PartsReader
from disfs.chunkstore.transport.rest import RestClient
from disfs.chunkstore.transport.taken import Taking
from disfs.chunkstore.transport.throttle import Throttle
from disfs.chunkstore.transport.urls import UrlEnding
from disfs.errors import CorruptDataError, NotFoundError, TransientStorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from disfs.chunkstore.transport.answers import Answer
    from disfs.chunkstore.transport.base import Account, Application, ChannelInfo, Guild, StoredMessage, Upload
    from disfs.chunkstore.transport.bridge import Publish
    from disfs.chunkstore.transport.permissions import Granted
    from disfs.chunkstore.transport.urls import UrlCache
    from disfs.values import ChannelId, GuildId, Location, MessageId

_GUILD_PAGE = 200


class DiscordService:
    """One bot at one address. Made by `open_service`, inside the loop."""

    def __init__(self, token: str, api_url: str, urls: UrlCache, publish: Publish) -> None:
        self._token = token
        self._api_url = api_url
        self._urls = urls
        self._publish = publish
        self._statistics = TransportStatistics()
        self._cdn = CdnClient(self._count_rate_limited, self._count_whole)
        self._up = Throttle()
        self._rest: RestClient | None = None
        self._login: asyncio.Task[RestClient] | None = None
        self._account: Account | None = None

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
        taken = Taking(nonce, self._publish)
        readers = [PartsReader(upload.parts, self._up, taken.note) for upload in uploads]
        taken.readers = readers
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
            taken.end()
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

    async def get_message(self, channel: ChannelId, message: MessageId) -> StoredMessage:
        """See `MessageSource.get_message`."""
        with _translated():
            rest = await self._client()
            self._count(lists=1)
            return self._noted(await rest.get_message(channel, message))

    async def delete(self, channel: ChannelId, messages: Sequence[MessageId]) -> None:
        """See `MessageSource.delete`."""
        with _translated():
            rest = await self._client()
            self._count(deletes=1)
            try:
                if len(messages) > 1:
                    await rest.delete_messages(channel, [*messages])
                else:
                    await rest.delete_message(channel, messages[0])
            except RefusedError as error:
                # A repeat whose first answer was lost also ends here: aiohttp repeats a DELETE by itself.
                if error.answer.status == 404:
                    return
                if len(messages) > 1 and _refuses_bulk(error.answer):
                    raise BulkRefusedError(
                        str(error.storage_error), lacks_permission=error.answer.status == 403
                    ) from error
                raise

    # Attachments

    async def fetch(self, location: Location, start: int, length: int) -> bytes:
        """See `MessageSource.fetch`. Publishes a `UrlEnding` when the URL should be renewed soon."""
        known = self._urls.usable(location.attachment)
        if known is None:
            raise UrlMissingError("the attachment's address is not known", was_tried=False)
        if self._urls.is_ending(known):
            self._publish(UrlEnding(location))
        self._count(fetches=1)
        try:
            content = await self._cdn.fetch(known.url, start, length, known.size_bytes)
        except NotFoundError as error:
            # It ended early, or our clock is wrong, or the attachment is gone.
            self._urls.forget(location.attachment)
            raise UrlMissingError("the attachment's address has ended", was_tried=True) from error
        self._count(fetched_bytes=length)
        return content

    async def limit_bandwidth(self, up_bytes_per_second: float | None, down_bytes_per_second: float | None) -> None:
        """See `Connection.limit_bandwidth`."""
        self._up.limit(up_bytes_per_second)
        self._cdn.throttle.limit(down_bytes_per_second)
        self._statistics = replace(
            self._statistics,
            up_limit_bytes_per_second=up_bytes_per_second,
            down_limit_bytes_per_second=down_bytes_per_second,
        )
        self._publish(self._statistics)

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

    async def application(self) -> Application:
        """See `GuildAdmin.application`."""
        with _translated():
            return application_of(await (await self._client()).application_info())

    async def permissions(self, guild: GuildId) -> Granted:
        """See `GuildAdmin.permissions`."""
        with _guild_translated():
            rest = await self._client()
            user = account_of(await rest.request(discord.http.Route("GET", "/users/@me"))).user_id
            found = await rest.get_guild(guild, with_counts=False)
            member = await rest.get_member(guild, user)
            return granted_of(found, member, await rest.get_all_guild_channels(guild))

    async def set_topic(self, channel: ChannelId, topic: str) -> None:
        """See `GuildAdmin.set_topic`."""
        with _translated():
            await (await self._client()).edit_channel(channel, topic=topic)

    async def delete_channel(self, channel: ChannelId) -> None:
        """See `GuildAdmin.delete_channel`."""
        with _translated():
            try:
                await (await self._client()).delete_channel(channel)
            except RefusedError as error:
                # A repeat whose first answer was lost also ends here.
                if error.answer.status != 404:
                    raise

    async def clock_ahead_seconds(self) -> float:
        """See `GuildAdmin.clock_ahead_seconds`."""
        await self.account()
        rest = await self._client()
        if rest.clock_ahead_seconds is None:
            raise TransientStorageError("Discord's answer says no time")
        return rest.clock_ahead_seconds

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
        rest = RestClient(self._api_url, self._count_rate_limited, self._publish)
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
        for attachment, url, size_bytes in urls_of(raw):
            self._urls.remember(attachment, url, size_bytes)
        return message_of(raw)

    def _count_rate_limited(self) -> None:
        self._count(rate_limited=1)

    def _count_whole(self) -> None:
        self._count(whole_downloads=1)

    def _count(self, **added: int) -> None:
        old = self._statistics
        self._statistics = replace(old, **{name: getattr(old, name) + n for name, n in added.items()})
        self._publish(self._statistics)


def _refuses_bulk(answer: Answer) -> bool:
    """Whether messages may yet be deleted one by one: some are too old for bulk, or Manage Messages is missing."""
    return answer.status == 403 or answer.code == TOO_OLD_FOR_BULK_DELETE


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
