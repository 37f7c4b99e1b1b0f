"""Bring snapshots back from the index channel: their databases beside the rebuilt one, and what they hold into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import trio

from disfs.chunkstore.codec import PackKind
from disfs.errors import CorruptDataError, NotFoundError
from disfs.metadata.completing import Origin
from disfs.metadata.replicated import Table
from disfs.metadata.restoring import Restoration
from disfs.metadata.snapshot_files import ToldSnapshot, adopt, note_remains
from disfs.metadata.snapshots import DIRECTORY
from disfs.quantities import human_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from disfs.recovery.absent import Contents
    from disfs.recovery.chain import Shipment
    from disfs.recovery.frames import PartReader
    from disfs.recovery.index_channel import IndexChannel


class Volume(NamedTuple):
    """Which volume it is."""

    volume_id: bytes
    chunk_bytes: int


async def rebuild_snapshots(
    index: IndexChannel,
    shipments: Sequence[Shipment],
    path: Path,
    volume: Volume,
    contents: Contents,
    on_snapshot: Callable[[int, int], None],
) -> tuple[list[str], list[str]]:
    """Rebuild every snapshot that is whole, into the database at `path` and files beside it; says which, and what not.

    Storage errors as of `Transport`. What is damaged is left out. Of what `contents` does not find, reading is EIO.
    """
    whole = sorted((each for each in shipments if each.is_whole), key=lambda each: each.header.created_ns)
    # Of one that was sent twice, as a kill leaves it, the second time counts.
    newest = {each.header.sequence: each for each in whole}
    (path.parent / DIRECTORY).mkdir(mode=0o700, exist_ok=True)
    names, missing = [], []
    for done, (number, shipment) in enumerate(sorted(newest.items())):
        on_snapshot(done, len(newest))
        file = path.parent / DIRECTORY / f"{number}.db"
        file.unlink(missing_ok=True)  # of an attempt that was interrupted
        try:
            told, lost = await rebuild_one(index, shipment, file, volume, contents)
        except (CorruptDataError, NotFoundError) as error:
            file.unlink(missing_ok=True)
            missing.append(f"snapshot {number} is damaged ({error})")
            continue
        messages = [message for each in whole if each.header.sequence == number for message in each.messages]
        name = await trio.to_thread.run_sync(adopt, path, file, told, messages, PackKind.SNAPSHOT)
        names.append(name.decode(errors="backslashreplace"))
        if lost:
            concerned = human_count(lost, "file")
            missing.append(f"snapshot {names[-1]}: not all contents of {concerned} are in Discord any more")
    await trio.to_thread.run_sync(
        note_remains, path, [m for each in shipments if not each.is_whole for m in each.messages]
    )
    return names, missing


async def rebuild_one(
    index: IndexChannel, shipment: Shipment, file: Path, volume: Volume, contents: Contents | None = None
) -> tuple[ToldSnapshot, int]:
    """Rebuild the database of a snapshot at `file`, where there is none.

    Returns what it says of itself, and of how many files `contents` does not find all. CorruptDataError, NotFoundError,
    FilesystemError; other errors as of `Transport`. A file that is left behind by an error is of no use.
    """
    restoration = await trio.to_thread.run_sync(Restoration, file)
    told: list[ToldSnapshot] = []
    rows = lost = 0
    try:
        for part in range(len(shipment.parts)):
            reader = await index.read(shipment.parts[part])
            await trio.to_thread.run_sync(_apply, restoration, reader, told)
            rows += reader.rows
        if len(told) != 1 or reader.total != (len(shipment.parts), rows):
            raise CorruptDataError("it has not the rows that it says")
        if contents is not None:
            absent = await contents.absent(await trio.to_thread.run_sync(restoration.messages))
            lost = await trio.to_thread.run_sync(restoration.lose, absent)
        header = shipment.header
        origin = Origin(
            volume.volume_id, volume.chunk_bytes, header.state, header.sequence, (), header.counters, (), 0, {}
        )
        await trio.to_thread.run_sync(lambda: restoration.finish(origin, keeps_unsent=True))
    finally:
        restoration.close()
    return told[0], lost


def _apply(restoration: Restoration, reader: PartReader, told: list[ToldSnapshot]) -> None:
    for block in reader.blocks():
        if block.table is Table.SNAPSHOT:
            told += [ToldSnapshot(*row) for row in block.rows()]
        else:
            restoration.apply(block)
