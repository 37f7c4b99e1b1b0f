"""Making a volume, for `disfs init` and `disfs setup`: its half in Discord, then its half on this machine."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from disfs.config import VolumeConfig, save_global, save_volume
from disfs.volume_state import VolumeLock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import TypeVar

    from disfs.chunkstore.transport.stack import Connection
    from disfs.cli.connect import Access
    from disfs.config import GlobalConfig, Paths
    from disfs.values import GuildId
    from disfs.volume import NewVolume, PlacedVolume

    T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class NewVolumeRequest:
    """A volume that somebody wants, and where this machine finds its secrets from now on."""

    name: str
    guild: GuildId | None
    """None: the only guild that the bot is in."""
    channels: int
    """How many data channels."""
    passphrase: str = dataclasses.field(repr=False)
    emulator: bool = False
    token_file: Path | None = None
    passphrase_file: Path | None = None

    def new_volume(self) -> NewVolume:
        """The half in Discord, with a fresh volume key, wrapped."""
        from disfs.chunkstore.keys import VolumeKey, wrap
        from disfs.volume import NewVolume

        wrapped = wrap(VolumeKey.generate(), self.passphrase).to_bytes()
        return NewVolume(self.name, wrapped, self.guild, self.channels)


def ask_discord(access: Access, question: Callable[[Connection], Awaitable[T]]) -> T:
    """Open a connection, await `question(connection)`, close it. Errors as of `question`."""
    import trio

    from disfs.chunkstore.transport.stack import open_connection

    async def run() -> T:
        async with open_connection(access.token, api_url=access.api_url) as connection:
            return await question(connection)

    return trio.run(run)


def make_volume(paths: Paths, config: GlobalConfig, access: Access, wanted: NewVolumeRequest) -> PlacedVolume:
    """Make the volume, or finish what an interrupted attempt began; a token that was typed in goes to config.toml.

    STATE_FULL before anything is made; VOLUME_BUSY, WRONG_PASSPHRASE for one that is adopted; as `place_volume`.
    """
    from disfs.local_volume import check_room

    paths.make_volume_directories(wanted.name)
    check_room(paths.volume_state(wanted.name))
    lock = VolumeLock.acquire(paths.volume_state(wanted.name), wanted.name)
    try:
        placed = _place(wanted, access)
        _keep(paths, config, access, placed, wanted)
    finally:
        lock.release()
    return placed


def keep_token(paths: Paths, config: GlobalConfig, access: Access) -> None:
    """Write a token that was typed in to config.toml, for the mounts to come."""
    if access.token_asked:
        save_global(paths, dataclasses.replace(config, token=access.token))


def _place(wanted: NewVolumeRequest, access: Access) -> PlacedVolume:
    """Make the volume in Discord; an adopted one must open with the passphrase that was given now."""
    from disfs.cli.unlock import unlock
    from disfs.volume import place_volume

    new = wanted.new_volume()
    placed = ask_discord(access, lambda discord: place_volume(discord.admin, discord.transport, new))
    if placed.adopted:
        unlock(placed.superblock, wanted.passphrase)
    return placed


def _keep(paths: Paths, config: GlobalConfig, access: Access, placed: PlacedVolume, wanted: NewVolumeRequest) -> None:
    """Write down what this machine must know. The volume's own file comes last: with it the volume exists."""
    from disfs.local_volume import make_metadata

    make_metadata(paths.volume_state(wanted.name), placed.superblock)
    keep_token(paths, config, access)
    volume = VolumeConfig(
        name=wanted.name,
        guild=placed.guild.guild,
        category=placed.category,
        index_channel=placed.index_channel,
        superblock=placed.superblock,
        emulator=wanted.emulator,
        api_url=None if wanted.emulator else access.api_url,
        token_file=wanted.token_file,
        passphrase_file=wanted.passphrase_file,
    )
    save_volume(paths, volume)
