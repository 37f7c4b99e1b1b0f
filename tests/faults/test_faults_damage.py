"""Bytes that change in Discord: always noticed by who recovers, reads or checks, and never shown as data.

Of each attachment a few positions are flipped, and cut; `DISFS_FLIPS=N` takes N of each, `DISFS_FLIPS=all` every one.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import random
from typing import TYPE_CHECKING, NamedTuple

from support.fault_actor import Actor, walk
from support.fault_machine import KEY, Worlds, new_discord, send_superblock
from support.fault_model import CHUNK, Model
from support.shipped_rows import shipped_rows

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.packer import TRAILER_BYTES, PackReader, stated_version
from disfs.errors import CorruptDataError, ExitCode, UserError
from disfs.recovery.fsck import Check, Scope
from disfs.recovery.fsck_data import ALL
from disfs.recovery.fsck_findings import Kind
from disfs.volume import find_superblock
from disfs.volume_state import METADATA_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pytest
    from support.fault_disk import Image
    from support.fault_machine import Life
    from support.fault_model import FoundTree
    from support.fault_tape import Discord
    from trio.testing import MockClock

    from disfs.chunkstore.transport.base import StoredMessage
    from disfs.config import VolumeConfig

WANTED = os.environ.get("DISFS_FLIPS", "3")


class Volume(NamedTuple):
    """A volume with something of every kind in Discord, killed while it was mounted."""

    discord: Discord
    config: VolumeConfig
    image: Image
    found: FoundTree
    rows: dict[int, dict[str, list[tuple[object, ...]]]]
    """What the metadata were at each state that was shipped."""


async def made(worlds: Worlds) -> Volume:
    """Files in two packs, a snapshot, copies, journals, and a lease."""
    discord, config = new_discord()
    await send_superblock(discord, config)
    left: list[Volume] = []
    rows: dict[int, dict[str, list[tuple[object, ...]]]] = {}
    with worlds.machine({}, discord, config) as machine:
        machine.init()

        async def script(life: Life) -> None:
            actor = Actor(life, Model())
            for number in range(4):
                await actor.put(b"/%d" % number, random.Random(number).randbytes(CHUNK * 2 + number))
                await actor.send()
                await life.metadata.commit()
                rows[life.metadata.shipping.sequence] = shipped_rows(machine.state / METADATA_NAME)
                if number == 1:
                    await actor.make_snapshot("kept")
            left.append(Volume(discord.copy(), config, machine.disk.as_killed(), await walk(life), rows))

        await machine.live(script)
    return left[0]


def kind_of(raw: bytes) -> str:
    """What an attachment is."""
    try:
        return PackReader(KEY, raw).kind.name
    except CorruptDataError:
        return "superblock"


def damages(raw: bytes, seed: int) -> Iterator[bytes]:
    """The bytes with one bit flipped, and cut there, at a few positions, one of them near the end."""
    positions: Sequence[int] = range(len(raw))
    if WANTED != "all":
        near_end = len(raw) - 1 - seed % TRAILER_BYTES
        positions = [*random.Random(seed).sample(positions, int(WANTED) - 1), near_end]
    for position in positions:
        yield raw[:position] + bytes([raw[position] ^ 1 << position % 8]) + raw[position + 1 :]
        yield raw[:position]


def replace(discord: Discord, stored: StoredMessage, content: bytes) -> None:
    """Put other bytes in the place of a message's only attachment, as long as they are."""
    attachment = dataclasses.replace(stored.attachments[0], size_bytes=len(content))
    discord._channels[stored.channel][stored.message] = dataclasses.replace(stored, attachments=(attachment,))
    discord.damage(attachment.attachment, content)


async def test_damage_in_the_index_channel_is_noticed_by_a_recovery(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Journal, copy, snapshot, lease: what comes back is a state that there was, and what is damaged is told."""
    worlds = Worlds(tmp_path, monkeypatch)
    volume = await made(worlds)
    newest = max(volume.rows)
    kinds = set()
    for seed, stored in enumerate(volume.discord.messages(volume.config.index_channel)):
        raw = volume.discord.stored_bytes(stored.attachments[0].attachment)
        kind = kind_of(raw)
        kinds.add(kind)
        for content in damages(raw, seed) if kind != "superblock" else ():
            discord = volume.discord.copy()
            replace(discord, stored, content)
            with worlds.machine({}, discord, volume.config, elsewhere=True) as machine:
                try:
                    report = await machine.recover()
                except UserError as error:
                    assert ExitCode.VOLUME_DAMAGED == error.exit_code  # noqa: PT017 - a recovery may end so or otherwise
                    continue
                assert shipped_rows(machine.state / METADATA_NAME) == volume.rows[report.sequence]
                # What says no more that it is of disfs may be anybody's, and is as good as deleted.
                told = report.missing or stated_version(content[-TRAILER_BYTES:].rjust(TRAILER_BYTES)) is None
                assert told or kind == "LEASE" or report.sequence == newest
                assert ("kept",) == report.snapshots or (kind == "SNAPSHOT" and told)
    assert {"superblock", "JOURNAL", "CHECKPOINT", "SNAPSHOT", "LEASE"} == kinds


async def test_damaged_superblock_is_noticed(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused in one line, or nothing of what it says has changed."""
    volume = await made(Worlds(tmp_path, monkeypatch))
    stored = volume.discord.messages(volume.config.index_channel)[0]
    for content in damages(volume.discord.stored_bytes(stored.attachments[0].attachment), 1):
        discord = volume.discord.copy()
        replace(discord, stored, content)
        try:
            found = await find_superblock(discord, volume.config.index_channel)
        except UserError as error:
            assert ExitCode.VOLUME_DAMAGED == error.exit_code  # noqa: PT017 - a recovery may end so or otherwise
        else:
            assert volume.config.superblock == found


async def test_damaged_lease_lets_nobody_down(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine that was killed goes on; a lease that cannot be read is nobody's."""
    worlds = Worlds(tmp_path, monkeypatch)
    volume = await made(worlds)
    messages = volume.discord.messages(volume.config.index_channel)
    (stored,) = [
        each for each in messages if kind_of(volume.discord.stored_bytes(each.attachments[0].attachment)) == "LEASE"
    ]

    async def script(life: Life) -> None:
        assert volume.found == await walk(life)

    for content in damages(volume.discord.stored_bytes(stored.attachments[0].attachment), 2):
        discord = volume.discord.copy()
        replace(discord, stored, content)
        with worlds.machine(volume.image, discord, volume.config) as machine:
            assert ExitCode.OK == await machine.live(script)


async def test_damaged_pack_is_noticed_by_readers_and_fsck(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slots, directory, trailer: each chunk reads as it was or is an error, and `fsck --read-data` names the pack."""
    worlds = Worlds(tmp_path, monkeypatch)
    volume = await made(worlds)
    packs = [
        message for channel in volume.config.superblock.data_channels for message in volume.discord.messages(channel)
    ]
    assert packs
    for seed, stored in enumerate(packs):
        raw = volume.discord.stored_bytes(stored.attachments[0].attachment)
        assert PackKind.CHUNKS is PackReader(KEY, raw).kind
        with worlds.machine(volume.image, volume.discord.copy(), volume.config) as machine:
            discord = machine.discord

            async def script(life: Life) -> None:
                for content in damages(raw, seed):  # noqa: B023 - it runs in this turn
                    replace(discord, stored, content)  # noqa: B023 - it runs in this turn
                    life.chunks.evict_all()
                    for path, file in (await walk(life)).items():
                        expected = volume.found[path]
                        assert file is not None
                        assert expected is not None
                        pairs = zip(expected.chunks, file.chunks, strict=True)
                        assert all(got in (wanted, errno.EIO) for wanted, got in pairs)
                replace(discord, stored, raw[: len(raw) // 2] + bytes(len(raw) - len(raw) // 2))  # noqa: B023 - it runs in this turn
                life.chunks.evict_all()

            assert ExitCode.OK == await machine.live(script)
            with Check(Scope(volume.config, machine.state, machine.cache, mounted=False)) as check:
                await check.run(machine.transport, KEY, ALL)
                assert check.findings.counts[Kind.DAMAGED_PACK]
