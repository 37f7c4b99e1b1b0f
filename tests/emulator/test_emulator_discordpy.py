"""discord.py itself against the emulator."""

from __future__ import annotations

import asyncio
import io
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import discord
import pytest
from discord.http import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from support.emulator import Emulator

    Connect = Callable[[], AbstractAsyncContextManager[discord.Client]]


@pytest.fixture
def logged_in(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Connect:
    monkeypatch.setattr(Route, "BASE", emulator.api_url)

    @asynccontextmanager
    async def connect() -> AsyncIterator[discord.Client]:
        async with discord.Client(intents=discord.Intents.none()) as client:
            await client.login(emulator.token)
            yield client

    return connect


def test_discord_py_makes_a_volume_and_moves_files(emulator: Emulator, logged_in: Connect) -> None:
    """Category, channel, send, history, fetch, edit, single and bulk delete all work as with Discord."""
    content = bytes(range(256)) * 8192

    async def action() -> None:
        async with logged_in() as client:
            guild = await client.fetch_guild(emulator.guild_id)
            assert [emulator.guild_id] == [found.id async for found in client.fetch_guilds()]
            category = await guild.create_category("volume")
            channel = await category.create_text_channel("data", topic="topic")
            assert {category.id, channel.id} < {found.id for found in await guild.fetch_channels()}
            files = [discord.File(io.BytesIO(content[number:]), filename=f"{number}.bin") for number in range(3)]
            message = await channel.send("hello", files=files, nonce="n-1")
            listed = [found async for found in channel.history(limit=None)]
            assert [message.id] == [found.id for found in listed]
            assert [content[number:] for number in range(3)] == [
                await attachment.read() for attachment in listed[0].attachments
            ]
            edited = await message.edit(attachments=message.attachments[:1])
            assert 1 == len(edited.attachments)
            again = await channel.send("hello", nonce="n-1")
            assert message.id == again.id
            others = [await channel.send(str(number)) for number in range(3)]
            await channel.delete_messages(others)
            await message.delete()
            assert [] == [found async for found in channel.history()]
            with pytest.raises(discord.NotFound):
                await channel.fetch_message(message.id)

    asyncio.run(action())


def test_discord_py_honours_the_limits(emulator: Emulator, logged_in: Connect) -> None:
    """With the limits on, discord.py waits as told by the headers and no request is refused."""
    emulator.settings(
        rate_limits=True, limits={"create_message": {"limit": 2, "seconds": 0.2}}, rate_limit_mode="fixed"
    )

    async def action() -> None:
        async with logged_in() as client:
            guild = await client.fetch_guild(emulator.guild_id)
            channel = await guild.create_text_channel("limits")
            for number in range(4):
                await channel.send(str(number))

    asyncio.run(action())
    assert {"200": 4} == emulator.counters()["statuses"]["create_message"]


def test_discord_py_maps_the_errors(emulator: Emulator, logged_in: Connect) -> None:
    """A wrong token, a missing permission and a file too large arrive as discord.py's own exceptions."""
    emulator.settings(attachment_limit_bytes=10)

    async def action() -> None:
        async with logged_in() as client:
            guild = await client.fetch_guild(emulator.guild_id)
            channel = await guild.create_text_channel("errors")
            with pytest.raises(discord.HTTPException) as too_large:
                await channel.send(file=discord.File(io.BytesIO(b"x" * 11), filename="x.bin"))
            emulator.fault(kind="missing_permissions", route="create_message")
            with pytest.raises(discord.Forbidden) as forbidden:
                await channel.send("x")
            emulator.fault(kind="rate_limit", route="create_message", scope="user", retry_after=0.05)
            await channel.send("retried")
            assert (413, 40005, 50013) == (too_large.value.status, too_large.value.code, forbidden.value.code)
        emulator.settings(token_revoked=True)
        with pytest.raises(discord.LoginFailure):
            async with logged_in():
                pass

    asyncio.run(action())
