"""The metadata against Discord: every recorded message and attachment is there, and what is there is known.

Every data channel is listed once from its beginning, a hundred messages a request, beside the recorded messages in the
same order. Where the volume is mounted the daemon sends, compacts and sweeps meanwhile: what looks wrong is asked about
once more, and what nobody knows may be on its way, so it is no finding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.directories import fetch_directory
from disfs.chunkstore.transport.base import LIST_LIMIT, Urgency
from disfs.errors import CorruptDataError, NotFoundError
from disfs.recovery.fsck_findings import Kind
from disfs.values import Location, MessageId, SlotTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.packer import PackDirectory
    from disfs.chunkstore.transport.base import StoredMessage, Transport
    from disfs.metadata.inspected import KnownPack
    from disfs.metadata.inspection import Inspection
    from disfs.recovery.fsck_findings import Findings
    from disfs.values import ChannelId, PackId

_RECORDED_AT_ONCE = 500
MESSAGE_GONE = "the message in Discord that holds it was deleted"
CHANNEL_GONE = "the channel in Discord that holds it was deleted"
ATTACHMENT_GONE = "the attachment in Discord that holds it was deleted"
ATTACHMENT_CHANGED = "the attachment in Discord that holds it has another size"


class Unreferenced(NamedTuple):
    """A message of this volume that no record refers to."""

    channel: ChannelId
    message: MessageId
    packs: tuple[PackId, ...]


class DiscordCheck:
    """One comparison. `strays` and `unknown` are what may be deleted afterwards."""

    def __init__(
        self,
        inspection: Inspection,
        transport: Transport,
        key: VolumeKey,
        findings: Findings,
        *,
        mounted: bool,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._inspection = inspection
        self._transport = transport
        self._key = key
        self._findings = findings
        self._mounted = mounted
        self._on_progress = on_progress
        self._seen = 0
        self._total = 0
        self.foreign_count = 0
        """Messages that are none of this volume's; nothing else is said about them."""
        self.strays: list[Unreferenced] = []
        self.unknown: list[Unreferenced] = []
        self.gone_packs: set[PackId] = set()
        """Recorded packs that are not in Discord, or not as they were."""
        self.slot_tables: dict[int, SlotTable] = {}
        """By the number of a pack: its own slot table, where what is recorded of it cannot be right."""

    async def run(self, channels: tuple[ChannelId, ...]) -> None:
        """Compare these data channels, and all others that the metadata name. Storage errors as of `Transport`."""
        recorded = self._inspection.channels()
        self._total = self._inspection.message_count()
        for channel in dict.fromkeys((*channels, *recorded)):
            try:
                await self._compare(channel)
            except NotFoundError:
                self._channel_is_gone(channel)
        self._on_progress(self._total, self._total)

    def _channel_is_gone(self, channel: ChannelId) -> None:
        self._findings.add(Kind.MISSING, f"the data channel {channel} was deleted", channel=channel)
        for message in self._recorded(channel, MessageId(0), None):
            for pack in self._inspection.packs_of(message):
                self._note_bad(pack, CHANNEL_GONE)

    def _note_bad(self, pack: KnownPack, cause: str) -> bool:
        """What lies in the pack cannot be had; False when nothing of the volume itself lies there."""
        self.gone_packs.add(pack.record.pack)
        return self._inspection.note_bad_pack(pack.number, cause)

    async def _compare(self, channel: ChannelId) -> None:
        position = MessageId(0)
        while True:
            listed = await self._transport.list_messages(channel, after=position, urgency=Urgency.SWEEP)
            page = {message.message: message for message in reversed(listed)}
            until = listed[0].message if len(listed) == LIST_LIMIT else None
            for message in self._recorded(channel, position, until):
                self._on_progress(min(self._seen, self._total), self._total)
                self._seen += 1
                found = page.pop(message, None)
                if found is None:
                    await self._is_not_listed(channel, message)
                else:
                    await self._check_attachments(found)
            for unrecorded in page.values():
                if not self._inspection.is_recorded(unrecorded.message):
                    await self._is_not_recorded(unrecorded)
            if until is None:
                return
            position = until

    def _recorded(self, channel: ChannelId, after: MessageId, until: MessageId | None) -> Iterator[MessageId]:
        while page := self._inspection.messages(channel, after, until, _RECORDED_AT_ONCE):
            yield from page
            after = page[-1]

    async def _is_not_listed(self, channel: ChannelId, message: MessageId) -> None:
        # A listing may be older than the newest messages; and a daemon sweeps.
        around = await self._transport.list_messages(channel, around=message, urgency=Urgency.SWEEP)
        found = next((other for other in around if other.message == message), None)
        if found is not None:
            await self._check_attachments(found)
            return
        packs = self._inspection.packs_of(message)
        if not packs:
            return
        concerned = [self._note_bad(pack, MESSAGE_GONE) for pack in packs]
        if any(concerned) or self._inspection.is_held(message):
            what = f"message {message} of channel {channel} was deleted"
            self._findings.add(Kind.MISSING, what, channel=channel, message=message)
        elif not self._mounted:
            what = f"message {message} was deleted; nothing in it was needed any more"
            self._findings.add(Kind.NOTE, what, channel=channel, message=message)

    async def _check_attachments(self, found: StoredMessage) -> None:
        sizes = {attachment.attachment: attachment.size_bytes for attachment in found.attachments}
        for pack in self._inspection.packs_of(found.message):
            size_bytes = sizes.get(pack.record.location.attachment)
            if size_bytes == pack.record.size_bytes:
                if pack.number in self._inspection.suspect_packs:
                    await self._ask_for_slots(pack)
                continue
            gone = size_bytes is None
            what = f"message {found.message}: " + (
                "an attachment is gone"
                if gone
                else f"an attachment has {size_bytes} bytes, not {pack.record.size_bytes}"
            )
            is_needed = self._note_bad(pack, ATTACHMENT_GONE if gone else ATTACHMENT_CHANGED)
            if is_needed or self._inspection.is_held(found.message):
                self._findings.add(Kind.MISSING, what, channel=found.channel, message=found.message)

    async def _ask_for_slots(self, pack: KnownPack) -> None:
        """What is recorded of the pack's slots cannot be right; the pack itself knows."""
        location, size_bytes = pack.record.location, pack.record.size_bytes
        try:
            found = await fetch_directory(self._transport, self._key, location, size_bytes, Urgency.SWEEP)
        except (CorruptDataError, NotFoundError):
            return
        if found.pack == pack.record.pack:
            self.slot_tables[pack.number] = slots_of(found)

    async def _is_not_recorded(self, message: StoredMessage) -> None:
        directories = await self._directories(message)
        if not directories:
            self.foreign_count += 1
            return
        if self._mounted:
            return
        packs = tuple(directory.pack for directory in directories)
        unreferenced = Unreferenced(message.channel, message.message, packs)
        where = f"message {message.message} of channel {message.channel}"
        ours = self._inspection.has_sent(packs)
        what = f"{where} is of this volume, and nothing refers to it" + (
            ": a send that failed left it" if ours else "; it is newer than what this machine knows, or of another one"
        )
        (self.strays if ours else self.unknown).append(unreferenced)
        kind = Kind.STRAY if ours else Kind.UNKNOWN
        self._findings.add(kind, what, channel=message.channel, message=message.message)

    async def _directories(self, message: StoredMessage) -> list[PackDirectory]:
        """What the attachments say of themselves; nothing unless each of them is a pack of this volume's chunks."""
        directories = []
        for attachment in message.attachments:
            location = Location(message.channel, message.message, attachment.attachment)
            try:
                found = await fetch_directory(
                    self._transport, self._key, location, attachment.size_bytes, Urgency.SWEEP
                )
            except (CorruptDataError, NotFoundError):
                return []
            directories.append(found)
        return directories if all(found.kind is PackKind.CHUNKS for found in directories) else []


def slots_of(directory: PackDirectory) -> SlotTable:
    """The slot table that a pack's own directory states."""
    entries = directory.entries
    return SlotTable([entry.stored_bytes for entry in entries], [entry.compressed for entry in entries])
