"""Volumes whose half in Discord, or whose cache, is not what the metadata say."""

from __future__ import annotations

import errno
import json
import os
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.chunk_worlds import CHUNK
from support.fsck_world import CONTENTS, kinds
from support.metadata_invariants import faults_of

from disfs.chunkstore.transport.base import LIST_LIMIT, Upload
from disfs.errors import FilesystemError, NotFoundError, TransientStorageError
from disfs.new_superblock import replace_superblock
from disfs.recovery.fsck_data import ALL, parse_subset
from disfs.recovery.fsck_findings import Kind
from disfs.volume import find_superblock

if TYPE_CHECKING:
    from pathlib import Path

    from support.fsck_world import FsckWorld

    from disfs.chunkstore.transport.base import StoredMessage
    from disfs.recovery.fsck_findings import Finding
    from disfs.values import ChannelId, Location


def of_kind(findings: list[Finding], kind: Kind) -> list[str | None]:
    """The paths among findings of a kind."""
    return [finding.path for finding in findings if finding.kind is kind]


def without_cache(world: FsckWorld) -> None:
    """Nothing that Discord has is cached any more; what was not sent is."""
    for path in (world.cache / "files").rglob("*"):
        if path.is_file() and path.name != f"{world.inodes[b'unsent']:x}":
            path.unlink()
    (world.cache / "present.json").unlink()
    world.sql("DELETE FROM small_contents WHERE inode NOT IN (SELECT inode FROM dirty)")


def evict_chunk(world: FsckWorld, name: bytes, chunk: int) -> Path:
    """One chunk of a cached file is a hole; returns the cache file."""
    inode = world.inodes[name]
    path = world.cache / "files" / f"{inode & 255:02x}" / f"{inode:x}"
    with path.open("r+b") as file:
        file.seek(chunk * CHUNK)
        file.write(bytes(CHUNK))
    note = json.loads((world.cache / "present.json").read_text())
    ((first, end),) = note["runs"][str(inode)]
    note["runs"][str(inode)] = [[first, chunk], [chunk + 1, end]]
    note["checksum"] = zlib.crc32(json.dumps(note["runs"]).encode())
    (world.cache / "present.json").write_text(json.dumps(note))
    return path


async def delete(world: FsckWorld, message: StoredMessage) -> None:
    """As a moderator would."""
    await world.memory.delete(message.channel, [message.message])


async def test_a_deleted_message_is_sent_again_from_the_cache(world: FsckWorld) -> None:
    """The file is named; a repair marks it unsent; the next mount sends it, and nothing is missing any more."""
    await delete(world, world.messages()[0])
    findings = await world.check()
    assert ["/first"] == of_kind(findings, Kind.SEND_AGAIN)
    assert {Kind.MISSING, Kind.SEND_AGAIN} == set(kinds(findings))
    assert [] == await world.repair()
    async with world.mounted():
        await world.chunks.drain()
        await world.chunks.sweep()
    assert {Kind.NOTE} >= set(kinds(await world.check(subset=ALL)))
    without_cache(world)
    assert CONTENTS[b"first"] == (await world.contents())["/first"]


async def test_a_small_content_is_sent_again_too(world: FsckWorld) -> None:
    """A row of the metadata is a cached copy as good as a file."""
    await delete(world, world.messages()[2])
    assert ["/tiny"] == of_kind(await world.check(), Kind.SEND_AGAIN)
    await world.repair()
    async with world.mounted():
        await world.chunks.drain()
    assert [] == of_kind(await world.check(subset=ALL), Kind.SEND_AGAIN)


async def test_what_nobody_has_is_moved_aside(world: FsckWorld) -> None:
    """Reading it is EIO, under a new name for each old one; all else is whole; later checks only mention it."""
    without_cache(world)
    await delete(world, world.messages()[0])
    assert ["/first"] == of_kind(await world.check(), Kind.DAMAGED_FILE)
    assert errno.EIO == (await world.contents())["/first"]
    assert [] == await world.repair()
    contents = await world.contents()
    inode = world.inodes[b"first"]
    aside = {f"/lost+found/damaged/{inode}-first": errno.EIO, f"/lost+found/damaged/{inode}-inside": errno.EIO}
    assert aside.items() <= contents.items()
    assert CONTENTS[b"second"] == contents["/second"]
    assert 5 == len(contents)
    findings = await world.check()
    assert {Kind.SET_ASIDE, Kind.MISSING} == set(kinds(findings))
    assert [] == await world.repair()
    assert contents == await world.contents()


async def test_a_deleted_channel_damages_what_lay_in_it(world: FsckWorld) -> None:
    """The other channel's files are whole."""
    without_cache(world)
    gone = world.messages()[0].channel
    world.memory.remove_channel(gone)
    findings = await world.check()
    assert Kind.MISSING in kinds(findings)
    assert "/first" in of_kind(findings, Kind.DAMAGED_FILE)
    assert "/unsent" not in of_kind(findings, Kind.DAMAGED_FILE)


async def test_what_was_written_again_needs_no_old_copy(world: FsckWorld) -> None:
    """A dirty chunk whose older content is gone from Discord is no damage."""
    inode = world.inodes[b"first"]
    world.sql(
        "WITH RECURSIVE n (chunk) AS (SELECT 0 UNION ALL SELECT chunk + 1 FROM n WHERE chunk < 4)"
        f" INSERT INTO dirty SELECT {inode}, chunk, 1000, 1000 FROM n"
    )
    await delete(world, world.messages()[0])
    assert [] == [f for f in await world.check() if f.kind in {Kind.DAMAGED_FILE, Kind.SEND_AGAIN}]


@pytest.mark.parametrize("position", [0, CHUNK, -1, -30])
async def test_every_flipped_byte_of_a_pack_is_found(world: FsckWorld, position: int) -> None:
    """In a chunk: its file is damaged, that chunk alone. In what a pack says of itself: said, and no file is hurt."""
    without_cache(world)
    (attachment,) = world.messages()[0].attachments
    raw = bytearray(world.memory.stored_bytes(attachment.attachment))
    raw[position] ^= 1
    world.memory.damage(attachment.attachment, bytes(raw))
    assert [] == await world.check()
    findings = await world.check(subset=ALL)
    assert Kind.DAMAGED_PACK in kinds(findings)
    assert [1] * (position >= 0) == [f.chunks for f in findings if f.kind is Kind.DAMAGED_FILE]


async def test_an_attachment_of_another_size_is_found_without_reading(world: FsckWorld) -> None:
    """A pack that was cut short is damaged as a whole."""
    without_cache(world)
    message = world.messages()[0]
    world.sql(f"UPDATE packs SET attachment = attachment + 1 WHERE message = {message.message}")
    assert ["/first"] == of_kind(await world.check(), Kind.DAMAGED_FILE)


async def test_a_chunk_in_anothers_place_is_found_by_reading(world: FsckWorld) -> None:
    """Metadata that lead to another file's slot would show its bytes: reading data finds that."""
    without_cache(world)
    first, second = (world.inodes[name] for name in (b"first", b"second"))
    world.sql(
        f"UPDATE extents SET inode = -inode WHERE inode IN ({first}, {second})",
        f"UPDATE extents SET inode = {first} + {second} + inode WHERE inode < 0",
    )
    assert [] == await world.check()
    assert {"/first", "/second"} == set(of_kind(await world.check(subset=ALL), Kind.DAMAGED_FILE))


async def test_a_slot_table_is_taken_from_the_pack(world: FsckWorld) -> None:
    """What the metadata say of a pack's slots is put right by the pack itself."""
    without_cache(world)
    world.sql(
        "UPDATE packs SET slots = CAST(x'01000000' || substr(slots, 5) AS BLOB)"
        " WHERE pack = (SELECT min(pack) FROM packs)"
    )
    assert Kind.METADATA in kinds(await world.check())
    assert [] == await world.repair()
    assert [] == await world.check(subset=ALL)
    assert CONTENTS[b"first"] == (await world.contents())["/first"]


async def test_a_flag_of_a_slot_is_taken_from_the_pack(world: FsckWorld) -> None:
    """Whether a slot is compressed changes no sum: reading finds it."""
    without_cache(world)
    world.sql(
        "UPDATE packs SET slots = CAST(substr(slots, 1, 3) || x'80' || substr(slots, 5) AS BLOB)"
        " WHERE pack = (SELECT min(pack) FROM packs)"
    )
    assert [] == await world.check()
    assert Kind.METADATA in kinds(await world.check(subset=ALL))
    assert [] == await world.repair(subset=ALL)
    assert CONTENTS[b"first"] == (await world.contents())["/first"]


async def test_a_run_without_slots_is_lost_not_zeros(world: FsckWorld) -> None:
    """Its chunks would read as a hole: a repair makes reading them an error, and moves the file aside."""
    without_cache(world)
    world.sql(f"UPDATE extents SET pack = 999 WHERE inode = {world.inodes[b'second']}")
    assert ["/second"] == of_kind(await world.check(), Kind.DAMAGED_FILE)
    assert [] == await world.repair()
    assert errno.EIO == (await world.contents())[f"/lost+found/damaged/{world.inodes[b'second']}-second"]
    assert [] == faults_of(world.database)


async def test_a_run_without_slots_is_sent_again_from_the_cache(world: FsckWorld) -> None:
    """While the cache has it nothing is lost."""
    world.sql(f"UPDATE extents SET pack = 999 WHERE inode = {world.inodes[b'second']}")
    assert [] == await world.repair()
    async with world.mounted():
        await world.chunks.drain()
    without_cache(world)
    assert CONTENTS[b"second"] == (await world.contents())["/second"]


async def test_of_a_run_without_slots_what_is_a_hole_in_the_cache_is_lost(world: FsckWorld) -> None:
    """The cache file reaches over it, but has zeros there: an error, never those zeros."""
    evict_chunk(world, b"second", 1)
    world.sql(f"UPDATE extents SET pack = 999 WHERE inode = {world.inodes[b'second']}")
    findings = await world.check()
    assert [1] == [f.chunks for f in findings if f.kind is Kind.DAMAGED_FILE]
    assert [] == await world.repair()
    aside = f"/lost+found/damaged/{world.inodes[b'second']}-second"
    assert errno.EIO == (await world.contents())[aside]
    assert [aside] == of_kind(await world.check(online=False), Kind.SET_ASIDE)


async def test_of_a_deleted_message_only_what_is_cached_is_sent_again(world: FsckWorld) -> None:
    """The rest is damage: the file is moved aside, and what is left of it can be read."""
    evict_chunk(world, b"first", 1)
    await delete(world, world.messages()[0])
    findings = await world.check()
    assert {Kind.SEND_AGAIN: 4, Kind.DAMAGED_FILE: 1} == {f.kind: f.chunks for f in findings if f.path == "/first"}
    assert [] == await world.repair()
    async with world.mounted() as filesystem:
        await world.chunks.drain()
        handle = await filesystem.files.open(world.inodes[b"first"], os.O_RDONLY)
        assert CONTENTS[b"first"][:CHUNK] == await filesystem.files.read(handle, 0, CHUNK)
        with pytest.raises(FilesystemError):
            await filesystem.files.read(handle, CHUNK, CHUNK)
        assert CONTENTS[b"first"][2 * CHUNK :] == await filesystem.files.read(handle, 2 * CHUNK, 4 * CHUNK)
        await filesystem.release(handle)


async def test_unsent_chunks_that_left_the_cache_are_damage(world: FsckWorld) -> None:
    """The only copy is gone: the file is named, and moved aside."""
    (world.cache / "files" / f"{world.inodes[b'unsent'] & 255:02x}" / f"{world.inodes[b'unsent']:x}").unlink()
    assert ["/unsent"] == of_kind(await world.check(), Kind.DAMAGED_FILE)
    assert [] == await world.repair()
    assert errno.EIO == (await world.contents())[f"/lost+found/damaged/{world.inodes[b'unsent']}-unsent"]


async def test_a_damaged_small_content_is_fetched_again(world: FsckWorld) -> None:
    """What Discord has too is dropped from the cache."""
    world.sql("UPDATE small_contents SET content = CAST(x'00' || substr(content, 2) AS BLOB)")
    assert [Kind.CACHE] == kinds(await world.check())
    assert [] == await world.repair()
    assert [] == await world.check()
    assert CONTENTS[b"tiny"] == (await world.contents())["/tiny"]


async def test_a_damaged_small_content_that_was_not_sent_is_damage(world: FsckWorld) -> None:
    """Its checksum is all that is known of it: an error, never other bytes."""
    inode = world.inodes[b"tiny"]
    world.sql(
        f"INSERT INTO dirty VALUES ({inode}, 0, 1000, 1000)",
        "UPDATE small_contents SET content = CAST(x'00' || substr(content, 2) AS BLOB)",
    )
    stale = world.cache / "files" / f"{inode & 255:02x}" / f"{inode:x}"
    stale.write_bytes(b"of an earlier life")
    assert ["/tiny"] == of_kind(await world.check(), Kind.DAMAGED_FILE)
    assert [] == await world.repair()
    assert errno.EIO == (await world.contents())[f"/lost+found/damaged/{inode}-tiny"]


@pytest.mark.parametrize("note", ["present.json", "lost.json"])
async def test_damaged_notes_of_the_cache_are_not_believed(world: FsckWorld, note: str) -> None:
    """Whatever byte of them changes: no error, and never zeros for what is not cached."""
    path = world.cache / note
    if note == "lost.json":
        path.write_text(json.dumps([[1, 2, 3]]))
    evict_chunk(world, b"first", 1)
    raw = path.read_bytes()
    for position in range(0, len(raw), 7):
        path.write_bytes(raw[:position] + bytes([raw[position] ^ 4]) + raw[position + 1 :])
        assert [] == [f for f in await world.check(online=False) if f.kind is Kind.DATABASE]
    path.write_bytes(raw.replace(b"[[0, 1]", b"[[0, 2]"))
    contents = await world.contents()
    assert [CONTENTS[b"first"], CONTENTS[b"second"]] == [contents["/first"], contents["/second"]]


async def test_left_over_messages_are_deleted_and_others_kept(world: FsckWorld) -> None:
    """A failed send's message goes; one that this state never sent stays unless that is asked for."""
    await world.send_pack()
    count = len(world.messages())
    assert [Kind.UNKNOWN] == kinds(await world.check())
    assert [] == await world.repair()
    assert count == len(world.messages())
    world.sql(f"INSERT INTO sent_packs VALUES (999, x'{world.stray_pack.hex()}')")
    assert [Kind.STRAY] == kinds(await world.check())
    assert [] == kinds(await world.check(mounted=True))
    await world.repair()
    assert count - 1 == len(world.messages())


async def test_unknown_messages_are_deleted_when_that_is_asked_for(world: FsckWorld) -> None:
    """Explicitly, and only then."""
    await world.send_pack()
    count = len(world.messages())
    await world.repair(delete_unknown=True)
    assert count - 1 == len(world.messages())


async def test_the_superblock_is_sent_again(world: FsckWorld) -> None:
    """Without it nobody could recover the volume."""
    (message,) = world.memory.messages(world.index)
    await delete(world, message)
    for number in range(LIST_LIMIT + 1):  # it comes to lie behind journals
        await world.memory.send(world.index, [Upload("journal.bin", (b"x",))], nonce=f"j{number}")
    assert [Kind.SUPERBLOCK] == kinds(await world.check())
    assert [] == await world.repair()
    assert [] == await world.check()


async def test_another_passphrase_is_no_fault(world: FsckWorld) -> None:
    """It was given on another machine: the key is the same. Anything else in the superblock is a fault."""
    superblock = await find_superblock(world.memory, world.index)
    assert superblock is not None
    await replace_superblock(world.memory, world.index, replace(superblock, wrapped_key=b"another"))
    assert [] == await world.check()
    await replace_superblock(world.memory, world.index, replace(superblock, name="another"))
    assert [Kind.SUPERBLOCK] == kinds(await world.check())


@pytest.mark.parametrize("text", ["0/3", "4/3", "x", "101%", "0%", "1/0", ""])
def test_subsets_that_make_no_sense_are_refused(text: str) -> None:
    """A part of parts, or a percentage."""
    with pytest.raises(ValueError, match="neither"):
        parse_subset(text)


async def test_parts_together_are_everything(world: FsckWorld) -> None:
    """Each pack is in exactly one of the parts."""
    packs = [bytes([number]) * 16 for number in range(50)]
    taken = [pack for n in (1, 2, 3) for pack in packs if parse_subset(f"{n}/3").takes(pack)]  # type: ignore[arg-type] # ids are bytes
    assert sorted(packs) == sorted(taken)
    assert all(parse_subset("100%").takes(pack) for pack in packs)  # type: ignore[arg-type] # ids are bytes


async def test_discord_that_does_not_answer_ends_the_check(world: FsckWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading data, too: the error is that of Discord, and no group of errors."""

    async def refuse(*_: object, **__: object) -> bytes:
        raise TransientStorageError("the network")

    monkeypatch.setattr(world.memory, "fetch", refuse)
    with pytest.raises(TransientStorageError):
        await world.check(subset=ALL)


async def test_a_pack_that_is_moved_while_it_is_read_is_no_damage(
    world: FsckWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a mount: what the metadata say afterwards counts."""
    without_cache(world)
    fetch = world.memory.fetch
    first = world.messages()[0]

    async def moved(location: Location, start: int, length: int, **named: Any) -> bytes:
        if location.message == first.message:
            world.sql(f"DELETE FROM extents WHERE inode = {world.inodes[b'first']}")
            raise NotFoundError("swept")
        return await fetch(location, start, length, **named)

    monkeypatch.setattr(world.memory, "fetch", moved)
    findings = await world.check(subset=ALL, mounted=True)
    assert [] == of_kind(findings, Kind.DAMAGED_FILE)
    assert Kind.DAMAGED_PACK not in kinds(findings)


async def test_a_listing_that_lags_behind_is_asked_again(world: FsckWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a listing does not show yet is looked for by its own id before it is called missing."""
    listing = world.memory.list_messages

    async def lagging(channel: ChannelId, **named: Any) -> list[StoredMessage]:
        listed = await listing(channel, **named)
        return listed if "around" in named or channel == world.index else listed[1:]

    monkeypatch.setattr(world.memory, "list_messages", lagging)
    assert [] == await world.check()
