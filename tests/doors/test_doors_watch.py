"""When Discord is looked at again, and what status then says."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from support.volumes import VOLUME

from disfs.chunkstore.transport.base import Guild
from disfs.chunkstore.transport.memory import MemoryTransport
from disfs.discord_watch import AGAIN_SECONDS, REGULARLY_SECONDS, DiscordWatch
from disfs.errors import PermissionMissingError, TokenRejectedError, TransientStorageError
from disfs.volume import Look

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from disfs.errors import StorageError
    from disfs.values import GuildId


class Discord(MemoryTransport):
    """Answers for the guild, or fails as told; counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.error: StorageError | None = None
        self.attachment_bytes = 10
        self.asked: list[float] = []
        self.is_refusing = False
        self.offered: list[int] = []

    async def guild(self, guild: GuildId) -> Guild:
        await trio.lowlevel.checkpoint()
        self.asked.append(trio.current_time())
        if self.error is not None:
            raise self.error
        return Guild(guild, "a guild", self.attachment_bytes)


@asynccontextmanager
async def watched(discord: Discord, warning: str | None = None) -> AsyncIterator[DiscordWatch]:
    watch = DiscordWatch(
        discord,
        VOLUME,
        Look(warning=warning),
        is_refused=lambda: discord.is_refusing,
        on_attachment_bytes=discord.offered.append,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        yield watch
        nursery.cancel_scope.cancel()


async def test_limit_is_learnt_after_an_offline_mount(autojump_clock: MockClock) -> None:
    """A mount without Discord looks again soon: the warning goes, and the guild's attachment limit is passed on."""
    discord = Discord()
    discord.error = TransientStorageError("down")
    async with watched(discord, "Discord cannot be reached") as watch:
        await trio.sleep(2.5 * AGAIN_SECONDS)
        assert 2 == len(discord.asked)
        assert "cannot be reached" in (watch.warning or "")
        discord.error = None
        await trio.sleep(AGAIN_SECONDS)
        assert watch.warning is None
        assert [10] == discord.offered


async def test_boost_tier_is_looked_at_now_and_then(autojump_clock: MockClock) -> None:
    """When all is well Discord is asked a few times a day, and a limit that has changed is passed on."""
    discord = Discord()
    async with watched(discord):
        await trio.sleep(1.5 * REGULARLY_SECONDS)
        discord.attachment_bytes = 50
        await trio.sleep(REGULARLY_SECONDS)
    assert [10, 50] == discord.offered


async def test_refused_uploads_are_explained_at_once(autojump_clock: MockClock) -> None:
    """A token that is revoked while mounted is told within seconds, with what to do, and Discord is not pestered."""
    discord = Discord()
    async with watched(discord) as watch:
        await trio.sleep(60)
        assert [] == discord.asked
        discord.is_refusing = True
        discord.error = TokenRejectedError("Discord rejected the bot token")
        await trio.sleep(6)
        assert "put a new one" in (watch.warning or "")
        assert "kept" in (watch.warning or "")
        await trio.sleep(10 * AGAIN_SECONDS)
        assert len(discord.asked) <= 11


async def test_refusal_of_a_channel_alone_is_no_reason_to_pester(autojump_clock: MockClock) -> None:
    """While channels refuse although the guild answers, it is asked every half minute, not more."""
    discord = Discord()
    discord.is_refusing = True
    async with watched(discord) as watch:
        await trio.sleep(10.5 * AGAIN_SECONDS)
        assert watch.warning is None
    assert 10 <= len(discord.asked) <= 11


async def test_warning_follows_what_is_wrong_now(autojump_clock: MockClock) -> None:
    """One problem after another is told as it is, and none when it is over."""
    discord = Discord()
    discord.error = PermissionMissingError("403", "View Channel")
    async with watched(discord, "Discord cannot be reached") as watch:
        await trio.sleep(1.5 * AGAIN_SECONDS)
        assert "View Channel" in (watch.warning or "")
        discord.error = None
        await trio.sleep(AGAIN_SECONDS)
        assert watch.warning is None
