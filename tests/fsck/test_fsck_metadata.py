"""Metadata that contradict themselves: each contradiction is found, and put right without losing a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.fsck_world import CONTENTS, kinds
from support.metadata_invariants import faults_of

from disfs.errors import UserError
from disfs.recovery.fsck_findings import Kind

if TYPE_CHECKING:
    from support.fsck_world import FsckWorld

FIRST = "(SELECT inode FROM dentries WHERE name = CAST('first' AS BLOB))"
SECOND = "(SELECT inode FROM dentries WHERE name = CAST('second' AS BLOB))"
DIRECTORY = "(SELECT inode FROM dentries WHERE name = CAST('directory' AS BLOB))"

BREAKAGES = {
    "name without an inode": "INSERT INTO dentries VALUES (1, CAST('ghost' AS BLOB), 999, 50)",
    "name in no directory": "INSERT INTO dentries VALUES (999, CAST('x' AS BLOB), 2, 50)",
    "name in a file": f"UPDATE dentries SET parent = {FIRST} WHERE name = CAST('second' AS BLOB)",
    "name with a slash": "UPDATE dentries SET name = CAST('sec/nd' AS BLOB) WHERE name = CAST('second' AS BLOB)",
    "name that is empty": "UPDATE dentries SET name = x'' WHERE name = CAST('second' AS BLOB)",
    "place in a listing": "UPDATE dentries SET cookie = 7 WHERE parent = 1",
    "file without a name": "DELETE FROM dentries WHERE name = CAST('second' AS BLOB)",
    "directory without a name": "DELETE FROM dentries WHERE name = CAST('directory' AS BLOB)",
    "directory in itself": f"UPDATE dentries SET parent = {DIRECTORY} WHERE name = CAST('directory' AS BLOB)",
    "directory with two names": f"INSERT INTO dentries VALUES (1, CAST('again' AS BLOB), {DIRECTORY}, 51)",
    "root that is gone": "DELETE FROM inodes WHERE inode = 1",
    "root that is a file": "UPDATE inodes SET mode = 33188 WHERE inode = 1",
    "nlink of a file": f"UPDATE inodes SET nlink = 7 WHERE inode = {FIRST}",
    "nlink that is 0": f"UPDATE inodes SET nlink = 0 WHERE inode = {SECOND}",
    "nlink of a directory": "UPDATE inodes SET nlink = 9 WHERE inode = 1",
    "type of an inode": f"UPDATE inodes SET mode = 0 WHERE inode = {FIRST}",
    "type of a directory": f"UPDATE inodes SET mode = 0 WHERE inode = {DIRECTORY}",
    "file that became a FIFO": f"UPDATE inodes SET mode = 4516 WHERE inode = {FIRST}",
    "size of a link": "UPDATE inodes SET size_bytes = 1 WHERE target IS NOT NULL",
    "attribute of nobody": "INSERT INTO xattrs VALUES (999, CAST('user.x' AS BLOB), x'00')",
    "ACLs that nobody looks for": "INSERT INTO xattrs VALUES (2, CAST('system.posix_acl_access' AS BLOB), x'02000000')",
    "orphan with a name": f"INSERT INTO orphans (inode) VALUES ({FIRST})",
    "inode that is gone": f"DELETE FROM inodes WHERE inode = {SECOND}",
    "size that is too small": f"UPDATE inodes SET size_bytes = 5 WHERE inode = {SECOND}",
    "chunk_count": f"UPDATE inodes SET chunk_count = 77 WHERE inode = {FIRST}",
    "live bytes of a pack": "UPDATE packs SET live_bytes = live_bytes + 5 WHERE pack = (SELECT min(pack) FROM packs)",
    "live bytes of a message": "UPDATE messages SET live_bytes = 0, dead_since = 1",
    "stored bytes of a message": "UPDATE messages SET stored_bytes = stored_bytes * 3",
    "death of a message": "UPDATE messages SET dead_since = 1",
    "bytes of a run": f"UPDATE extents SET stored_bytes = 1 WHERE inode = {FIRST}",
    "dirty before it was born": "UPDATE dirty SET born = revision + 5",
    "inode count": "UPDATE settings SET value = '3' WHERE name = 'inode_count'",
    "sum of sizes": "UPDATE settings SET value = 'many' WHERE name = 'logical_bytes'",
    "sum of blocks": "DELETE FROM settings WHERE name = 'allocated_bytes'",
    "counter of inodes": "UPDATE counters SET value = 2 WHERE name = 'inode'",
    "counter of revisions": "DELETE FROM counters WHERE name = 'revision'",
    "counter of packs": "UPDATE counters SET value = 1 WHERE name = 'pack'",
}


async def test_sound_metadata_have_no_findings(world: FsckWorld) -> None:
    """The volume as it was made."""
    assert [] == await world.check()
    assert [] == await world.check(mounted=True)


@pytest.mark.parametrize("breakage", BREAKAGES)
async def test_each_contradiction_is_found_and_put_right(world: FsckWorld, breakage: str) -> None:
    """It is found; a repair leaves none; the volume mounts, and every byte of every file is there."""
    world.sql(BREAKAGES[breakage])
    assert {Kind.METADATA} == set(kinds(await world.check(online=False))) - {Kind.NOTE}
    assert [] == await world.repair(online=False)
    assert [] == await world.check()
    assert [] == faults_of(world.database)
    found = await world.contents()
    wanted = [*CONTENTS.values(), b"u" * 8192]
    # A file whose inode is gone is made anew in whole chunks: how long it was nobody knows.
    held = [content.rstrip(b"\0") if isinstance(content, bytes) else content for content in found.values()]
    assert all(content.rstrip(b"\0") in held for content in wanted), found.keys()


async def test_a_circle_of_directories_is_opened(world: FsckWorld) -> None:
    """Directories that lie in each other come to lost+found, with all that is in them."""
    world.sql(
        "INSERT INTO inodes SELECT 500, mode, 3, uid, gid, 0, 0, 1, 1, 1, 0, NULL FROM inodes WHERE inode = 1",
        f"UPDATE dentries SET parent = 500 WHERE inode = {DIRECTORY}",
        f"INSERT INTO dentries VALUES ({DIRECTORY}, CAST('up' AS BLOB), 500, 60)",
    )
    assert Kind.METADATA in kinds(await world.check(online=False))
    assert [] == await world.repair(online=False)
    assert [] == await world.check()
    found = await world.contents()
    assert any(path.startswith("/lost+found/") and path.endswith("/inside") for path in found)


async def test_an_index_that_is_damaged_is_built_anew(world: FsckWorld) -> None:
    """What an index lacks is found by comparing it with its table, and a repair builds it anew."""
    world.sql(
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = replace(sql, '(inode)', '(parent)') WHERE name = 'dentries_by_inode'",
    )
    findings = await world.check(online=False)
    assert Kind.DATABASE in kinds(findings)
    assert all("index" in finding.what for finding in findings if finding.kind is Kind.DATABASE)
    assert [] == await world.repair(online=False)
    assert Kind.DATABASE not in kinds(await world.check(online=False))


async def test_a_copy_of_the_metadata_is_kept_before_a_repair(world: FsckWorld) -> None:
    """What a repair did can be undone: the copy has the contradiction still."""
    world.sql(BREAKAGES["chunk_count"])
    await world.repair(online=False)
    (copy,) = world.directory.glob("metadata.db.before-fsck-*")
    assert any("chunk_count" in fault for fault in faults_of(copy))
    assert 0o600 == copy.stat().st_mode & 0o777


async def test_a_check_changes_nothing(world: FsckWorld) -> None:
    """Not a byte of the metadata, nor of the cache."""
    world.sql(BREAKAGES["nlink of a file"])

    def state() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes()
            for path in world.directory.rglob("*")
            if path.is_file() and not path.name.endswith(("-shm", "-wal"))
        }

    before = state()
    await world.check()
    assert before == state()


async def test_metadata_of_an_older_version_are_refused(world: FsckWorld) -> None:
    """One line that says what to do."""
    world.sql("PRAGMA user_version = 3")
    with pytest.raises(UserError, match="mount and unmount the volume once"):
        await world.check()
