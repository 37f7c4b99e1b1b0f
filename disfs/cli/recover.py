"""`disfs recover`."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from disfs.cli.connect import discord_access, emulator_access
from disfs.cli.exits import complain
from disfs.cli.init import absolute
from disfs.cli.making import ask_discord, keep_token
from disfs.cli.progress import rebuilding_shown
from disfs.cli.unlock import volume_key
from disfs.config import (
    Paths,
    VolumeConfig,
    check_volume_name,
    load_global,
    load_volume,
    save_volume,
)
from disfs.errors import ExitCode, FilesystemError, UserError
from disfs.private_files import explained
from disfs.quantities import human_count, human_size
from disfs.values import ChannelId, GuildId
from disfs.volume_state import METADATA_NAME, VolumeLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from disfs.chunkstore.keys import VolumeKey
    from disfs.cli.connect import Access
    from disfs.metadata.completing import Incomplete
    from disfs.recovery.rebuild import Progress, Report
    from disfs.volume import PlacedVolume

_UNFINISHED = f"{METADATA_NAME}.recovering"
_LISTED = 20
"""How many files are named of each kind."""


@click.command(short_help="Rebuild a volume from Discord, on a machine that knows nothing of it.")
@click.argument("name")
@click.option("--guild", type=click.IntRange(1), help="The server's id. [default: all that the bot is in]")
@click.option(
    "--category", type=click.IntRange(1), help="The id of the volume's category, where several have its name."
)
@click.option("--device", help="Whose state counts, where two machines went on apart from each other.")
@click.option("--from-packs", is_flag=True, help="Contents alone, without names: when the index channel is of no use.")
@click.option("--token-file", type=click.Path(path_type=Path), help="A file with the bot token on its first line.")
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="A file with the passphrase.")
@click.option("--key-file", type=click.Path(path_type=Path), help="A file that 'disfs key export' made.")
@click.option("--emulator", is_flag=True, help="From the emulator of this machine instead of Discord.")
def recover(
    name: str,
    guild: int | None,
    category: int | None,
    device: str | None,
    from_packs: bool,
    token_file: Path | None,
    passphrase_file: Path | None,
    key_file: Path | None,
    emulator: bool,
) -> None:
    """Rebuild the volume NAME from what is in Discord: every name and attribute, as of the last journal.

    Token and passphrase come from where 'disfs mount' finds them. What is on this machine of a volume of that name is
    never replaced, and nothing in Discord is changed. From the first mount on the volume lives here: a machine that
    still has it mounted keeps you out until it is unmounted or 'disfs mount --takeover', and then sends nothing more.

    With --from-packs, the last resort, what can be found of contents comes as files of `lost+found`, called by numbers.

    \b
    Examples:
        disfs recover photos
        disfs recover work --guild 123456789012345678
    """
    paths = Paths.from_environment(os.environ)
    name = check_volume_name(name)
    state = paths.volume_state(name)
    refuse_existing(state, name)
    known = load_volume(paths, name) if paths.volume_file(name).exists() else None
    emulator = emulator or (known is not None and known.emulator)
    access = _access(paths, known, emulator=emulator, token_file=token_file)
    wanted = GuildId(guild) if guild else access.guild if known is None else known.guild
    placed = _find(access, name, wanted, ChannelId(category) if category else known.category if known else None)
    if known is not None and known.superblock.volume_id != placed.superblock.volume_id:
        raise UserError(
            f"{paths.volume_file(name)} describes another volume than the one in Discord; put that file aside",
            ExitCode.VOLUME_EXISTS,
        )
    volume = _described(paths, known, placed, access, emulator=emulator, token_file=token_file)
    key = volume_key(volume, passphrase_file, key_file)
    volume = dataclasses.replace(
        volume,
        passphrase_file=None
        if os.environ.get("DISFS_PASSPHRASE")
        else absolute(passphrase_file or volume.passphrase_file),
        key_file=absolute(key_file) or volume.key_file,
    )
    bring_back(paths, access, volume, key, device=device, from_packs=from_packs)


def bring_back(
    paths: Paths,
    access: Access,
    volume: VolumeConfig,
    key: VolumeKey,
    *,
    device: str | None = None,
    from_packs: bool = False,
) -> None:
    """Rebuild a volume's half on this machine, write down where the rest is, and print what came back.

    Errors as of `rebuild`; then nothing is here that a mount, or another recovery, would stumble over.
    """
    name, state = volume.name, paths.volume_state(volume.name)
    paths.make_volume_directories(name)
    lock = VolumeLock.acquire(state, name)
    try:
        report = _rebuild(access, volume, key, state, device, from_packs=from_packs)
        keep_token(paths, load_global(paths), access)
        save_volume(paths, volume)
        # The last step: before it the volume is not here.
        with explained(state):
            put_in_place(state / _UNFINISHED, state / METADATA_NAME)
    finally:
        lock.release()
    for line in report_lines(name, report):
        click.echo(line)
    for warning in warnings(report):
        complain(warning)


@contextlib.contextmanager
def metadata_explained() -> Iterator[None]:
    """Turn what the disk says of the file that is being built into an OSError, for `explained`."""
    try:
        yield
    except FilesystemError as error:
        raise OSError(error.errno, os.strerror(error.errno)) from error


def put_in_place(unfinished: Path, place: Path) -> None:
    """Rename, and make that durable. OSError."""
    unfinished.replace(place)
    directory = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def refuse_existing(state: Path, name: str) -> None:
    """Raise VOLUME_EXISTS where the volume has metadata, or the logs of some, which SQLite would apply to new ones."""
    if (state / METADATA_NAME).exists():
        raise UserError(
            f"there is a volume {name!r} on this machine already; mount it, or put {state} aside first",
            ExitCode.VOLUME_EXISTS,
        )
    for suffix in ("-wal", "-journal"):
        left = state / f"{METADATA_NAME}{suffix}"
        if left.exists():
            raise UserError(
                f"{left} is left of a volume {name!r} that was on this machine; put {state} aside first",
                ExitCode.VOLUME_EXISTS,
            )


def _described(
    paths: Paths,
    known: VolumeConfig | None,
    placed: PlacedVolume,
    access: Access,
    *,
    emulator: bool,
    token_file: Path | None,
) -> VolumeConfig:
    """The volume as this machine is to see it, with what is kept here of its secrets."""
    name = placed.superblock.name
    base = known or VolumeConfig(
        name, placed.guild.guild, placed.category, placed.index_channel, placed.superblock, emulator=emulator
    )
    kept = paths.passphrase_file(name)
    return dataclasses.replace(
        base,
        superblock=placed.superblock,
        api_url=None if emulator else access.api_url,
        token_file=absolute(token_file) or base.token_file,
        passphrase_file=base.passphrase_file or (kept if kept.exists() else None),
    )


def _access(paths: Paths, known: VolumeConfig | None, *, emulator: bool, token_file: Path | None) -> Access:
    if emulator:
        return emulator_access(paths)
    remembered = known.token_file if known else None
    return discord_access(
        load_global(paths), token_file=token_file or remembered, api_url=known.api_url if known else None
    )


def _find(access: Access, name: str, guild: GuildId | None, category: ChannelId | None) -> PlacedVolume:
    from disfs.volume import find_volume

    return ask_discord(access, lambda discord: find_volume(discord.admin, discord.transport, name, guild, category))


def _rebuild(
    access: Access, volume: VolumeConfig, key: VolumeKey, state: Path, device: str | None, *, from_packs: bool
) -> Report:
    """Build the metadata as a file that is not theirs yet."""
    import trio

    from disfs.chunkstore.transport.stack import open_connection
    from disfs.local_volume import CACHE_IDENTITY, check_room
    from disfs.recovery.frames import SHIPMENT_KINDS
    from disfs.recovery.index_channel import KEEP_BYTES, IndexChannel
    from disfs.recovery.rebuild import rebuild
    from disfs.recovery.salvage import PackSearch, salvage

    check_room(state)
    unfinished = state / _UNFINISHED
    unfinished.unlink(missing_ok=True)  # of an attempt that was interrupted
    superblock = volume.superblock
    # No cache directory has this name: what lies in one is another state's, and is put aside.
    settings = {CACHE_IDENTITY.name: os.urandom(16).hex()}

    async def run(show: Callable[[Progress], None]) -> Report:
        async with open_connection(access.token, api_url=access.api_url) as connection:
            index = IndexChannel(
                connection.transport,
                volume.index_channel,
                key,
                superblock.volume_id,
                SHIPMENT_KINDS,
                keep_bytes=KEEP_BYTES,
            )
            if from_packs:
                return await salvage(
                    PackSearch(connection.transport, superblock.data_channels, key),
                    index,
                    unfinished,
                    volume=superblock.volume_id,
                    chunk_bytes=superblock.chunk_bytes,
                    settings=settings,
                    on_progress=show,
                )
            return await rebuild(
                index,
                connection.transport,
                unfinished,
                volume=superblock.volume_id,
                chunk_bytes=superblock.chunk_bytes,
                device=device,
                settings=settings,
                on_progress=show,
            )

    try:
        with rebuilding_shown() as show, explained(state), metadata_explained():
            return trio.run(run, show)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def report_lines(name: str, report: Report) -> Iterator[str]:
    """What was recovered, for people. Pure."""
    rebuilt = report.rebuilt
    when = datetime.datetime.fromtimestamp(report.created_ns / 1e9).astimezone()
    yield (
        f"volume {name!r} is recovered as it was at {when:%Y-%m-%d %H:%M:%S}: {human_count(rebuilt.file_count, 'file')}"
        f" among {human_count(rebuilt.inode_count, 'inode')}, {human_size(rebuilt.logical_bytes)}"
    )
    if report.snapshots:
        yield f"{human_count(len(report.snapshots), 'snapshot')} came back too: {', '.join(report.snapshots)}"
    if not (rebuilt.lost.count or rebuilt.older.count or rebuilt.lost_trash or report.missing or rebuilt.problems):
        yield "nothing is missing; 'disfs mount MOUNTPOINT' mounts it"


def warnings(report: Report) -> Iterator[str]:
    """What is missing. Pure."""
    yield from report.missing
    rebuilt = report.rebuilt
    yield from (f"it did not all fit together: {problem}" for problem in rebuilt.problems)
    if rebuilt.lost_trash:
        deleted = human_count(rebuilt.lost_trash, "deleted file")
        yield f"{deleted} cannot be restored any more: Discord has not got all contents"
    for files, what in (
        (rebuilt.lost, "had contents that Discord has not got; reading those parts is an error"),
        (rebuilt.older, "had newer contents that had not been sent, and shows those from before"),
    ):
        if files.count:
            yield f"{human_count(files.count, 'file')} {what}: {_listed(files)}"


def _listed(files: Incomplete) -> str:
    shown = ", ".join(repr(path)[1:-1] for path in files.paths[:_LISTED])
    more = files.count - min(len(files.paths), _LISTED)
    return f"{shown} and {more} more" if more else shown
