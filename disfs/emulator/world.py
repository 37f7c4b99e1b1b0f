"""Everything that the routes share: the stores, the clock, the settings, who we are."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from disfs.emulator.blobs import BlobStore
from disfs.emulator.channel_store import ChannelStore
from disfs.emulator.clock import Clock
from disfs.emulator.database import Database
from disfs.emulator.message_store import MessageStore
from disfs.emulator.model import TEXT_CHANNEL, Channel
from disfs.emulator.render import Identity, Renderer
from disfs.emulator.signing import UrlSigner
from disfs.emulator.snowflake import SnowflakeFactory

if TYPE_CHECKING:
    from pathlib import Path

    from disfs.emulator.settings import Settings

TOMBSTONE_SECONDS = 3600
"""How long a deleted message is remembered for its nonce, at least."""


@dataclass(frozen=True, slots=True)
class World:
    """The emulated Discord, as its data directory keeps it."""

    settings: Settings
    clock: Clock
    snowflakes: SnowflakeFactory
    database: Database
    channels: ChannelStore
    messages: MessageStore
    blobs: BlobStore
    identity: Identity
    signer: UrlSigner
    renderer: Renderer

    async def shift_clock(self, seconds: float) -> None:
        """Move the clock, for good."""
        self.clock.shift_seconds += seconds
        await self.database.set_meta("shift_seconds", repr(self.clock.shift_seconds))

    async def purge(self) -> None:
        """Free the files of attachments whose grace is over, and forget old tombstones."""
        now_ms = self.clock.now_ms()
        grace_ms = int(self.settings.delete_grace_seconds * 1000)
        memory_ms = int(max(TOMBSTONE_SECONDS, 2 * self.settings.nonce_seconds) * 1000)
        await self.blobs.remove(await self.messages.purge(now_ms - grace_ms, now_ms - memory_ms))


async def open_world(directory: Path, settings: Settings) -> World:
    """Open a data directory, or fill a new one: a guild with one text channel and a bot in it.

    What a killed run left half done is removed. Raises `OSError` and `aiosqlite.Error`.
    """
    database = await Database.open(directory / "emulator.sqlite")
    try:
        return await _assemble(directory, settings, database)
    except BaseException:
        await database.close()
        raise


async def _assemble(directory: Path, settings: Settings, database: Database) -> World:
    await database.set_fsync(settings.fsync)
    clock = Clock(float(await database.meta("shift_seconds") or 0.0))
    snowflakes = SnowflakeFactory(clock, await database.last_snowflake())
    channels = ChannelStore(database)
    identity = await _identity(database, snowflakes, channels)
    messages = MessageStore(database)
    blobs = BlobStore(directory)
    await asyncio.to_thread(blobs.prepare, await messages.attachment_ids())
    url_key = bytes.fromhex(await database.meta("url_key") or "")
    signer = UrlSigner(url_key, settings, clock)
    renderer = Renderer(identity, settings, signer)
    return World(settings, clock, snowflakes, database, channels, messages, blobs, identity, signer, renderer)


async def _identity(database: Database, snowflakes: SnowflakeFactory, channels: ChannelStore) -> Identity:
    """Who we are; made up at the first start. The guild's id is written last: before it, nothing counts."""
    names = ("guild_id", "user_id", "application_id", "owner_id")
    if await database.meta("guild_id") is None:
        await database.set_meta("url_key", secrets.token_hex(32))
        for name in reversed(names):
            if name == "guild_id" and not await channels.list_all():
                await channels.put(Channel(snowflakes.next(), TEXT_CHANNEL, "general", None, None, 0))
            await database.set_meta(name, str(snowflakes.next()))
    guild, user, application, owner = [int(await database.meta(name) or 0) for name in names]
    return Identity(guild, user, application, owner)
