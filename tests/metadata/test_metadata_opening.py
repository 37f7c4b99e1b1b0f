"""Opening and making volumes, settings, migrations."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.answers import answer
from support.ledger_contract import a_pack, key, mark, pack_id
from support.new_inodes import a_file

import disfs
from disfs.chunkstore.keys import VolumeKey
from disfs.chunkstore.packer import PackBuilder
from disfs.errors import ExitCode, UserError
from disfs.metadata.connections import Access, connected
from disfs.metadata.migrations import STEPS, create_tables, upgrade
from disfs.metadata.schema import APPLICATION_ID, SCHEMA_VERSION
from disfs.metadata.settings import VOLUME_ID, Setting
from disfs.metadata.store import SqliteMetadataStore
from disfs.values import ROOT_INODE, AttachmentId, ChannelId, Location, MessageId, PackRecord, Revision, SentPack

if TYPE_CHECKING:
    from disfs.values import ChunkKey


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the volume lies."""
    return tmp_path / "a name?#%.db"


def exit_code_of(path: Path, *, create: bool = False) -> ExitCode:
    """With which exit code opening fails."""
    with pytest.raises(UserError) as caught:
        SqliteMetadataStore.open(path, create=create)
    return caught.value.exit_code


def test_new_volume(path: Path) -> None:
    """A new volume has a root directory that belongs to who asked, and is readable by its owner alone."""
    store = SqliteMetadataStore.open(path, create=True, chunk_bytes=4096, root_uid=3, root_gid=4, now_ns=5)
    assert (1, 0o40755, 2, 3, 4, 0, 0, 5, 5, 5, 0) == answer(store.attributes(ROOT_INODE))
    assert (4096, 0o600) == (store.chunk_bytes, path.stat().st_mode & 0o777)
    store.close()


def test_missing_volume(path: Path) -> None:
    """Opening what is not there names the path, and makes no file."""
    assert ExitCode.NO_SUCH_VOLUME == exit_code_of(path)
    assert not path.exists()


def test_existing_volume_is_not_made_again(path: Path) -> None:
    """Making a volume where one is raises, and leaves it alone."""
    SqliteMetadataStore.open(path, create=True, chunk_bytes=4096).close()
    assert ExitCode.VOLUME_EXISTS == exit_code_of(path, create=True)
    store = SqliteMetadataStore.open(path)
    assert (4096, True) == (store.chunk_bytes, store.was_clean)
    store.close()


def test_half_made_volume(path: Path) -> None:
    """A file that a crash left empty is no volume yet, and can become one."""
    path.touch()
    assert ExitCode.VOLUME_DAMAGED == exit_code_of(path)
    SqliteMetadataStore.open(path, create=True).close()


def test_damaged_volume(path: Path) -> None:
    """A file that is no database is reported as damage, with its path."""
    path.write_bytes(b"not a database " * 1000)
    assert ExitCode.VOLUME_DAMAGED == exit_code_of(path)


def test_directory_that_is_not_there(path: Path) -> None:
    """A volume cannot be made where it cannot be written."""
    assert ExitCode.STATE_UNUSABLE == exit_code_of(path / "none.db", create=True)


def test_foreign_database(path: Path) -> None:
    """Another program's database is left alone."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    assert ExitCode.VOLUME_DAMAGED == exit_code_of(path)


def test_settings_are_kept(path: Path) -> None:
    """A setting that was never set is None; one that was comes back with its type after a restart."""
    number: Setting[int] = Setting("number", str, int)
    store = SqliteMetadataStore.open(path, create=True)
    assert None is store.settings.get(number)
    store.settings.set(number, 1)
    store.settings.set(number, 2)
    store.settings.set(VOLUME_ID, "ab")
    store.close()
    store = SqliteMetadataStore.open(path)
    assert (2, "ab") == (store.settings.get(number), store.settings.get(VOLUME_ID))
    store.close()


def test_newer_schema_is_refused(path: Path) -> None:
    """A volume that a later disfs has migrated is not touched; the message says what to do."""
    SqliteMetadataStore.open(path, create=True).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(UserError, match="use a newer disfs") as caught:
        SqliteMetadataStore.open(path)
    assert (ExitCode.VOLUME_DAMAGED, before) == (caught.value.exit_code, path.read_bytes())


@pytest.fixture
def old_connection() -> sqlite3.Connection:
    """A database in the schema of this version."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("BEGIN")
    create_tables(connection)
    connection.execute("COMMIT")
    return connection


def version_of(connection: sqlite3.Connection) -> int:
    """Its schema version."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def test_upgrade_runs_each_step_once(old_connection: sqlite3.Connection) -> None:
    """Steps are applied in order from the version at hand, and not again."""
    steps = {
        SCHEMA_VERSION: ["CREATE TABLE added (a INTEGER)", "INSERT INTO added VALUES (1)"],
        SCHEMA_VERSION + 1: ["UPDATE added SET a = a + 1"],
    }
    upgrade(old_connection, steps, SCHEMA_VERSION + 2)
    upgrade(old_connection, steps, SCHEMA_VERSION + 2)
    assert (2,) == old_connection.execute("SELECT a FROM added").fetchone()
    assert SCHEMA_VERSION + 2 == version_of(old_connection)
    old_connection.close()


def test_upgrade_that_fails_changes_nothing(old_connection: sqlite3.Connection) -> None:
    """A step is applied whole or not at all."""
    steps = {SCHEMA_VERSION: ["CREATE TABLE added (a INTEGER)", "INSERT INTO nowhere VALUES (1)"]}
    with pytest.raises(sqlite3.OperationalError):
        upgrade(old_connection, steps, SCHEMA_VERSION + 1)
    assert SCHEMA_VERSION == version_of(old_connection)
    assert None is old_connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'added'").fetchone()
    old_connection.close()


def test_database_says_what_it_is(old_connection: sqlite3.Connection) -> None:
    """The file carries the application id, and each table's columns explain themselves in the stored schema."""
    assert (APPLICATION_ID,) == old_connection.execute("PRAGMA application_id").fetchone()
    assert 0x64736673 == APPLICATION_ID
    old_connection.close()


VERSION_5 = (
    "DROP TABLE trash",
    "ALTER TABLE orphans DROP COLUMN path",
    "ALTER TABLE orphans DROP COLUMN reason",
    "DROP TABLE snapshots",
    "DROP TABLE holds",
    "DELETE FROM counters WHERE name = 'snapshot'",
    "DROP INDEX messages_dead",
    "DROP INDEX messages_sparse",
    "ALTER TABLE messages DROP COLUMN held",
    "CREATE INDEX messages_dead ON messages (dead_since) WHERE dead_since IS NOT NULL",
    (
        "CREATE INDEX messages_sparse ON messages (stored_bytes - live_bytes)"
        " WHERE live_bytes > 0 AND live_bytes * 2 < stored_bytes"
    ),
)
VERSION_4 = (*VERSION_5, "DROP TABLE outbox", "DROP TABLE shipped", "DELETE FROM settings WHERE name = 'unshipped'")
VERSION_3 = (*VERSION_4, "DROP TABLE small_contents", "DELETE FROM settings WHERE name = 'allocated_bytes'")
VERSION_2 = (
    *VERSION_3,
    "DROP INDEX messages_sparse",
    "DROP INDEX extents_by_pack",
    "ALTER TABLE messages DROP COLUMN stored_bytes",
    "DROP TABLE pins",
    "DROP TABLE examined",
    "DROP TABLE sent_packs",
)
VERSION_1 = (*VERSION_2, "ALTER TABLE inodes DROP COLUMN chunk_count")


def bring_back(path: Path, version: int) -> None:
    """Make the volume one that an older disfs left."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in {1: VERSION_1, 2: VERSION_2, 3: VERSION_3, 4: VERSION_4, 5: VERSION_5}[version]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")


def schema_of(path: Path) -> list[tuple[str, ...]]:
    """Every table's columns with their types, and every index, without what formatting differs."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = connection.execute(
            "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite%' ORDER BY type, name"
        )
        found = names.fetchall()
        for kind, name in found:
            if kind == "table":
                columns = connection.execute(f"SELECT name, type, [notnull], pk FROM pragma_table_info('{name}')")
                found = [*found, *((name, *column) for column in sorted(columns))]
        return found


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
def test_upgraded_schema_is_the_new_one(path: Path, version: int) -> None:
    """Upgrading an old volume gives the tables, columns and indexes that a new volume has."""
    SqliteMetadataStore.open(path, create=True).close()
    fresh = schema_of(path)
    bring_back(path, version)
    assert fresh != schema_of(path)
    SqliteMetadataStore.open(path).close()
    assert fresh == schema_of(path)


def a_true_pack(number: int, chunks: list[tuple[ChunkKey, int]], message: int) -> SentPack:
    """A pack as it is built, its length and slot table those of the format."""
    builder = PackBuilder(VolumeKey(bytes(32)), limit_bytes=1 << 20, chunk_bytes=4096, pack=pack_id(number))
    for name, revision in chunks:
        builder.add(name, Revision(revision), os.urandom(100))
    done = builder.finish()
    location = Location(ChannelId(1), MessageId(message), AttachmentId(number))
    return SentPack(PackRecord(done.pack, location, done.upload.size_bytes, done.slots), done.chunks)


def a_volume_with_data(path: Path) -> None:
    """A file of three chunks in a message of two packs, two of them overwritten, and a file in a pack of its own."""
    with contextlib.closing(SqliteMetadataStore.open(path, create=True)) as store:
        one = answer(store.make_inode(ROOT_INODE, b"one", a_file(), 1)).inode
        two = answer(store.make_inode(ROOT_INODE, b"two", a_file(), 1)).inode
        revision = mark(store, 0, 3, one)
        packs = [
            a_true_pack(1, [(key(0, one), revision), (key(1, one), revision)], 77),
            a_true_pack(2, [(key(2, one), revision)], 77),
        ]
        answer(store.record_packs([*packs, a_true_pack(3, [(key(0, two), mark(store, 0, 1, two))], 78)]))
        revision = mark(store, 1, 2, one)
        answer(store.record_packs([a_true_pack(4, [(key(1, one), revision), (key(2, one), revision)], 79)]))


def test_upgrade_of_version_2_sums_up_the_messages(path: Path) -> None:
    """A volume of version 2 opens with its files; what each message holds, and for whom, can be asked."""
    a_volume_with_data(path)
    bring_back(path, 2)
    with contextlib.closing(SqliteMetadataStore.open(path)) as store:
        sizes = store._database.rows("SELECT message, stored_bytes, live_bytes FROM messages ORDER BY message")
        assert [(77, 3 * 116, 116), (78, 116, 116), (79, 232, 232)] == sizes
        assert [77] == [found.message for found in answer(store.sparse_messages(10))]
        file = answer(store.lookup(ROOT_INODE, b"one")).inode
        assert [(key(0, file), pack_id(1), 0)] == list(answer(store.chunks_of_pack(pack_id(1), 0, 9)))
        assert frozenset() == store.pinned_inodes()
        assert 0 == store.examined(ChannelId(100))


@pytest.mark.parametrize("broken_at", range(len(STEPS[2])))
def test_upgrade_that_is_killed_begins_again(path: Path, broken_at: int) -> None:
    """An upgrade that ends at any of its statements leaves the old version, which the next one brings up."""
    a_volume_with_data(path)
    fresh = schema_of(path)
    bring_back(path, 2)
    statements = [*STEPS[2]]
    statements[broken_at] = "INSERT INTO nowhere VALUES (1)"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            upgrade(connection, {**STEPS, 2: statements})
        assert 2 == version_of(connection)
    SqliteMetadataStore.open(path).close()
    assert fresh == schema_of(path)


def test_upgrade_of_version_3_has_no_small_contents_yet(path: Path) -> None:
    """A volume of version 3 opens with what is dirty and recorded, and takes small contents from then on."""
    a_volume_with_data(path)
    with contextlib.closing(SqliteMetadataStore.open(path)) as store:
        mark(store, 3, 1, answer(store.lookup(ROOT_INODE, b"one")).inode)
    bring_back(path, 3)
    with contextlib.closing(SqliteMetadataStore.open(path)) as store:
        file = answer(store.lookup(ROOT_INODE, b"one")).inode
        assert [key(3, file)] == [row.key for row in store.dirty_chunks()]
        assert [] == list(store.small_lengths())
        store.write_small(file, b"small")
    with contextlib.closing(SqliteMetadataStore.open(path)) as store:
        assert [(file, 5)] == list(store.small_lengths())
        assert b"small" == store.small_content(file)


def test_upgrade_counts_the_chunks_of_version_1(path: Path) -> None:
    """A volume of version 1 opens, and its files use what is dirty or lies in a pack."""
    with contextlib.closing(SqliteMetadataStore.open(path, create=True)) as store:
        inode = answer(store.make_inode(ROOT_INODE, b"file", a_file(), 1)).inode
        revision = mark(store, 5, 3, inode)
        answer(store.record_packs([a_pack(1, [(key(n, inode), revision) for n in (5, 6, 7)])]))
        mark(store, 7, 3, inode)
    bring_back(path, 1)
    with contextlib.closing(SqliteMetadataStore.open(path)) as store:
        assert 5 == answer(store.attributes(inode)).chunk_count


def test_no_connection_puts_names_into_temporary_files(tmp_path: Path) -> None:
    """What SQLite sorts, names among it, stays in memory: all connections of the product are made in one place."""
    (tmp_path / "some.db").touch()
    with contextlib.closing(connected(tmp_path / "some.db", Access.WRITE)) as connection:
        assert (2,) == connection.execute("PRAGMA temp_store").fetchone()
    package = Path(disfs.__file__).parent
    others = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "sqlite3.connect(" in path.read_text() and "emulator" not in path.parts
    }
    assert {"metadata/connections.py"} == others
