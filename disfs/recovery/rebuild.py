"""Rebuild a volume's metadata from its index channel: the newest state that can be had, and what is missing of it.

What turns out to be damaged while it is read is left out, and the next best state is taken: an older copy with the
journals after it, or an older state. Nothing in Discord is changed.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.codec import PackKind
from disfs.errors import CorruptDataError, ExitCode, NotFoundError, UserError
from disfs.metadata.completing import Origin
from disfs.metadata.restoring import Restoration
from disfs.metadata.shipping import ShippedMessage
from disfs.recovery.absent import Contents
from disfs.recovery.chain import Chain, gather
from disfs.recovery.frames import MAX_SUPERSEDED
from disfs.recovery.index_channel import UNREADABLE
from disfs.recovery.rebuild_snapshots import Volume, rebuild_snapshots
from disfs.values import MessageId

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from disfs.chunkstore.transport.base import Transport
    from disfs.metadata.completing import Rebuilt
    from disfs.recovery.chain import Plan, Shipment, State
    from disfs.recovery.frames import PartReader
    from disfs.recovery.index_channel import IndexChannel
    from disfs.values import MessageId as Message


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild is."""

    step: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Report:
    """What was rebuilt, from what, and what is missing."""

    rebuilt: Rebuilt
    sequence: int
    created_ns: int
    """When the state was fixed, by the clock of the machine that did."""
    journal_count: int
    missing: tuple[str, ...]
    """What should have been there and was not, or could not be used; empty when all is well."""
    snapshots: tuple[str, ...] = ()
    """Those that came back too."""


async def rebuild(
    index: IndexChannel,
    transport: Transport,
    path: Path,
    *,
    volume: bytes,
    chunk_bytes: int,
    device: str | None,
    settings: Mapping[str, str],
    on_progress: Callable[[Progress], None],
) -> Report:
    """Make the database at `path`, where there is no file, from what is in the index channel.

    What the contents of the state lie in is looked for by `transport`: chunks whose message is gone are lost, and told.
    `settings` are further ones that the database begins with. `device`: the first digits of the id of the machine
    whose branch counts, where there are several. UserError: VOLUME_DAMAGED when nothing can be rebuilt or the format is
    newer, USAGE when it is not clear which branch is meant. Storage errors as of `Transport`. A file that is left
    behind by an error is of no use.
    """
    found = await look_through(index, on_progress)
    restoration = await trio.to_thread.run_sync(Restoration, path)
    try:
        while True:
            plan = _choose(found, device)
            broken = await apply_plan(index, restoration, plan, on_progress)
            if broken is None:
                break
            found.missing.append(what_is_wrong(broken))
            await trio.to_thread.run_sync(restoration.clear)
        header = plan.state.header
        origin = Origin(
            volume,
            chunk_bytes,
            header.state,
            header.sequence,
            found.chain.superseded_by(plan.state)[:MAX_SUPERSEDED],
            header.counters,
            _messages(found, plan.state),
            found.newest,
            settings,
        )
        contents = Contents(transport)
        found.missing += await _lose_absent(contents, restoration, on_progress)
        on_progress(Progress("checking", 0, 0))
        rebuilt = await trio.to_thread.run_sync(restoration.finish, origin)
    finally:
        restoration.close()
    found.missing += _out_of_reach(found.chain, plan.state)
    names, missing = await rebuild_snapshots(
        index,
        found.snapshots,
        path,
        Volume(volume, chunk_bytes),
        contents,
        lambda done, total: on_progress(Progress("snapshots", done, total)),
    )
    found.missing += missing
    told = tuple(dict.fromkeys(found.missing))
    return Report(rebuilt, header.sequence, header.created_ns, len(plan.journals), told, tuple(names))


@dataclass(slots=True)
class Found:
    """What lies in an index channel."""

    shipments: list[Shipment]
    chain: Chain
    snapshots: list[Shipment]
    newest: Message
    missing: list[str]


async def look_through(index: IndexChannel, on_progress: Callable[[Progress], None]) -> Found:
    """List the index channel and read the header of each part in it. Errors as of `IndexChannel`."""
    on_progress(Progress("listing", 0, 0))
    messages = await index.messages(MessageId(0))
    total = sum(len(message.attachments) for message in messages)
    done = 0

    def looked() -> None:
        nonlocal done
        done += 1
        on_progress(Progress("looking through", done, total))

    gathered = gather(await index.parts(messages, looked))
    shipments = [each for each in gathered if each.kind is not PackKind.SNAPSHOT]
    snapshots = [each for each in gathered if each.kind is PackKind.SNAPSHOT]
    newest = messages[-1].message if messages else MessageId(0)
    count = index.unreadable_count
    missing = [f"attachments of the index channel that are {UNREADABLE}: {count}"] if count else []
    return Found(shipments, Chain(shipments), snapshots, newest, missing)


def _choose(found: Found, device: str | None) -> Plan:
    heads = found.chain.heads()
    if not heads and found.shipments:
        wrong = found.missing or [what_is_wrong(each) for each in found.shipments if not each.is_whole]
        raise UserError(
            "no state of this volume is whole in Discord any more: "
            f"{'; '.join(wrong[:5]) or 'no checkpoint copy is left'}; --from-packs brings contents back without names",
            ExitCode.VOLUME_DAMAGED,
        )
    if not heads:
        raise UserError(
            "Discord holds no whole copy of this volume's names: it was never mounted by a disfs that sends them, or "
            "the messages were deleted; --from-packs brings contents back without names",
            ExitCode.VOLUME_DAMAGED,
        )
    if device is not None:
        heads = [head for head in heads if head.header.device.hex().startswith(device.lower())]
        if not heads:
            raise UserError(f"no machine {device!r} has a state of this volume", ExitCode.USAGE)
    if len(heads) > 1:
        listed = ", ".join(f"{head.header.device.hex()[:8]} (state of {_when(head)})" for head in heads)
        raise UserError(
            f"two machines have gone on with this volume apart from each other; choose one with --device: {listed}",
            ExitCode.USAGE,
        )
    plan = found.chain.plan(heads[0].header.state)
    assert plan is not None, "a head can be rebuilt"
    return plan


async def apply_plan(
    index: IndexChannel, restoration: Restoration, plan: Plan, on_progress: Callable[[Progress], None]
) -> Shipment | None:
    """Read a plan's shipments into a restoration; returns the one that turned out to be damaged, if one did.

    Errors as of `IndexChannel`, and FilesystemError.
    """
    shipments = (plan.copy, *plan.journals)
    total = sum(shipment.size_bytes for shipment in shipments)
    done = 0
    for shipment in shipments:
        rows = 0
        for part in range(len(shipment.parts)):
            seen = shipment.parts[part]
            try:
                reader = await index.read(seen)
                await trio.to_thread.run_sync(_apply_part, restoration, reader)
            except (CorruptDataError, NotFoundError) as error:
                shipment.broken = str(error)
                return shipment
            rows += reader.rows
            done += seen.size_bytes
            on_progress(Progress("reading", done, total))
        if reader.total != (len(shipment.parts), rows):
            shipment.broken = "it has not as many rows as it says"
            return shipment
    return None


def _apply_part(restoration: Restoration, reader: PartReader) -> None:
    for block in reader.blocks():
        restoration.apply(block)


async def _lose_absent(
    contents: Contents, restoration: Restoration, on_progress: Callable[[Progress], None]
) -> list[str]:
    """Look whether the contents are there; returns what is to be said of those that are not."""
    wanted = await trio.to_thread.run_sync(restoration.messages)
    total = sum(len(messages) for messages in wanted.values())
    done = 0

    def looked(count: int) -> None:
        nonlocal done
        done += count
        on_progress(Progress("looking for contents", done, total))

    looked(0)
    absent = await contents.absent(wanted, looked)
    if not absent:
        return []
    await trio.to_thread.run_sync(restoration.lose, absent)
    return [f"messages with contents that are not in Discord any more: {len(absent)}"]


def _messages(found: Found, chosen: State) -> list[ShippedMessage]:
    """What the rebuilt state answers for, and deletes one day: what led to it. Other branches are left alone."""
    lineage = found.chain.ancestors(chosen) | {chosen.header.state}
    return [
        ShippedMessage(message, shipment.kind if shipment.is_whole else 0, shipment.header.sequence)
        for shipment in found.shipments
        if shipment.header.state in lineage
        for message in sorted(shipment.messages)
    ]


def what_is_wrong(shipment: Shipment) -> str:
    """Of one that is not whole or is damaged, for people. Pure."""
    what = "journal" if shipment.kind is PackKind.JOURNAL else "checkpoint copy"
    if shipment.broken is None:
        return f"{what} {shipment.header.sequence} is not whole"
    return f"{what} {shipment.header.sequence} is damaged ({shipment.broken})"


def _out_of_reach(chain: Chain, head: State) -> list[str]:
    return [
        f"state {state.header.sequence} of {_when(state)} is not whole in Discord" for state in chain.out_of_reach(head)
    ]


def _when(state: State) -> str:
    moment = datetime.datetime.fromtimestamp(state.header.created_ns / 1e9).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S")
