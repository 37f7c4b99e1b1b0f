"""Databases that are not what they were: refused in one line, or served with EIO for what is damaged."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
import trio
from support.answers import answer
from support.new_inodes import a_directory, a_file, a_symlink

from disfs.errors import ExitCode, FilesystemError, UserError
from disfs.metadata.base import RenameMode, XattrMode
from disfs.metadata.checking import find_damage
from disfs.metadata.schema import SCHEMA_VERSION
from disfs.metadata.settings import VOLUME_ID
from disfs.metadata.store import SqliteMetadataStore
from disfs.metadata.upkeep import look_for_damage
from disfs.values import ROOT_INODE, AttributeChanges, ChunkIndex, InodeNumber

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from disfs.metadata.store import MetadataStatistics

FILES = 300
PAGE = 4096
SAMPLES = 60


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a volume with some hundred files, stopped in order."""
    path = tmp_path_factory.mktemp("sound") / "metadata.db"
    with contextlib.closing(SqliteMetadataStore.open(path, create=True, now_ns=1)) as store:
        folder = answer(store.make_inode(ROOT_INODE, b"folder", a_directory(), 1)).inode
        for number in range(FILES):
            file = answer(store.make_inode(folder, b"file %d" % number, a_file(), number + 2)).inode
            answer(store.set_xattr(file, b"user.number", b"%d" % number * 20, XattrMode.EITHER, 2))
            store.mark_dirty(file, ChunkIndex(number), 1)
            answer(store.note_write(file, number + 1, number + 2))
        answer(store.make_inode(folder, b"link", a_symlink(b"file 1"), 2))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM outbox")  # its rows have pages that no query looks at
        connection.execute("VACUUM")
    return path


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    path = tmp_path / "metadata.db"
    shutil.copy(sound, path)
    return path


def refusal(path: Path) -> UserError:
    """What opening is refused with: one line that says what to do."""
    with pytest.raises(UserError) as caught:
        SqliteMetadataStore.open(path)
    assert "\n" not in str(caught.value)
    return caught.value


def empty(path: Path) -> None:
    """Nothing in it."""
    path.write_bytes(b"")


def header(path: Path) -> None:
    """Its first bytes are gone."""
    with path.open("r+b") as file:
        file.write(bytes(16))


def garbage(path: Path) -> None:
    """Never was a database."""
    path.write_bytes(os.urandom(100_000))


def truncated(path: Path) -> None:
    """The half of it."""
    os.truncate(path, path.stat().st_size // 2 // PAGE * PAGE)


def cut_within_a_page(path: Path) -> None:
    """Not even whole pages."""
    os.truncate(path, path.stat().st_size - 1000)


def directory(path: Path) -> None:
    """A directory in its place."""
    path.unlink()
    path.mkdir()


def foreign(path: Path) -> None:
    """Another program's database."""
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (a)")


def schema(path: Path) -> None:
    """The page that says which tables there are."""
    with path.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(PAGE - 100))


def counters(path: Path) -> None:
    """No counters any more."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM counters")


def chunk_size(path: Path) -> None:
    """A chunk size that is none."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE settings SET value = 'many' WHERE name = 'chunk_bytes'")


def root(path: Path) -> None:
    """No root directory any more."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM inodes WHERE inode = 1")


@pytest.mark.parametrize(
    "damage",
    [empty, header, garbage, truncated, cut_within_a_page, directory, foreign, schema, counters, chunk_size, root],
)
def test_damage_that_is_plain_is_refused(copy: Path, damage: Callable[[Path], None]) -> None:
    """A database that cannot be used is refused with its path and what to do, and is not changed by that."""
    damage(copy)
    before = copy.read_bytes() if copy.is_file() else None
    error = refusal(copy)
    assert ExitCode.VOLUME_DAMAGED == error.exit_code
    assert f"{copy} is damaged" in str(error)
    assert f"put a backup of it back: 'cp -a BACKUP {copy.parent}'" in str(error)
    assert before == (copy.read_bytes() if copy.is_file() else None)


def test_version_of_the_future_is_named_and_left_alone(copy: Path) -> None:
    """A volume that a later disfs has upgraded is not touched; the line has its version and what to do."""
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 4}")
    before = copy.read_bytes()
    error = refusal(copy)
    assert f"version {SCHEMA_VERSION + 4}, this disfs knows {SCHEMA_VERSION}: use a newer disfs" in str(error)
    assert before == copy.read_bytes()


def test_symbolic_link_leads_to_the_database_and_its_log(copy: Path, tmp_path: Path) -> None:
    """A database that was moved and linked to works, and its log lies beside the database itself."""
    link = tmp_path / "elsewhere" / "metadata.db"
    link.parent.mkdir()
    link.symlink_to(copy)
    store = SqliteMetadataStore.open(link)
    answer(store.make_inode(ROOT_INODE, b"new", a_file(), 1))
    answer(store.commit())
    store._wal.sync()
    store.close()
    assert [link] == list(link.parent.iterdir())


def test_garbage_in_the_log_is_not_taken_for_changes(copy: Path) -> None:
    """What is no valid log is no change: the volume opens as it was."""
    copy.with_name("metadata.db-wal").write_bytes(os.urandom(100_000))
    with contextlib.closing(SqliteMetadataStore.open(copy)) as store:
        assert [] == failures(store)


def failures(store: SqliteMetadataStore) -> list[str]:
    """Ask for everything that `sound` holds; what is wrong, but EIO is not."""
    wrong = []
    for number in range(FILES):
        for question in (lookup_file, read_xattr):
            try:
                if not answer(question(store, number)):
                    wrong.append(f"{question.__name__} {number}")
            except FilesystemError as error:
                if error.errno != errno.EIO:
                    wrong.append(f"{question.__name__} {number}: {error}")
    return wrong


async def lookup_file(store: SqliteMetadataStore, number: int) -> bool:
    """Whether a file has the attributes that it was given."""
    folder = (await store.lookup(ROOT_INODE, b"folder")).inode
    found = await store.lookup(folder, b"file %d" % number)
    return (found.size_bytes, found.mtime_ns, found.chunk_count, found.nlink) == (number + 1, number + 2, 1, 1)


async def read_xattr(store: SqliteMetadataStore, number: int) -> bool:
    """Whether a file has the extended attribute that it was given."""
    folder = (await store.lookup(ROOT_INODE, b"folder")).inode
    inode = (await store.lookup(folder, b"file %d" % number)).inode
    return await store.get_xattr(inode, b"user.number") == b"%d" % number * 20


def pages_of(path: Path) -> list[int]:
    """The numbers of the pages that hold rows of tables, the first two apart."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = ("inodes", "dentries", "xattrs", "dentries_by_cookie", "dentries_by_inode", "dirty")
        roots = {
            row[0]
            for name in tables
            for row in connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,))
        }
        (count,) = connection.execute("PRAGMA page_count").fetchone()
        others = {
            row[0]
            for row in connection.execute("SELECT rootpage FROM sqlite_master WHERE rootpage > 0")
            if row[0] not in roots
        }
    return [number for number in range(2, count + 1) if number not in others]


def wipe(path: Path, page: int) -> None:
    """A page reads as zeros, as after a bad sector."""
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(bytes(PAGE))


def changes(store: SqliteMetadataStore, folder: InodeNumber, number: int) -> Iterator[Coroutine[Any, Any, object]]:
    """One of each kind of change, at some file."""
    file = InodeNumber(folder + 1 + number)
    yield store.make_inode(folder, b"new %d" % number, a_file(), 5)
    yield store.set_xattr(file, b"user.new", b"x" * 300, XattrMode.EITHER, 5)
    yield store.change_attributes(file, AttributeChanges(mode=0o600), 5)
    yield store.note_write(file, 5000, 5)
    yield store.rename(folder, b"file %d" % number, ROOT_INODE, b"renamed %d" % number, RenameMode.REPLACE, 5)
    yield store.unlink(ROOT_INODE, b"renamed %d" % number, 5)


def test_damaged_page_is_eio_for_who_needs_it(sound: Path, tmp_path: Path) -> None:
    """Whichever page is wiped: opening is refused, or every answer is right or EIO, and changes are made or EIO."""
    outcomes = set()
    for page in pages_of(sound):
        path = tmp_path / f"{page}.db"
        shutil.copy(sound, path)
        wipe(path, page)
        store = opened(path)
        if store is None:
            outcomes.add("refused")
            continue
        try:
            assert [] == failures(store), page
            outcomes.add("sound" if store.statistics().damage is None else "damaged")
            outcomes |= {result(change) for number in (0, 150) for change in changes(store, InodeNumber(2), number)}
        finally:
            with contextlib.suppress(FilesystemError):
                store.close()
    assert {"damaged", "done", "EIO"} <= outcomes <= {"refused", "sound", "damaged", "done", "EIO", "ENOENT"}


def opened(path: Path) -> SqliteMetadataStore | None:
    """The store, None when it was refused for the right reason."""
    try:
        return SqliteMetadataStore.open(path)
    except UserError as error:
        # A flipped byte of the version makes it one of a later disfs.
        right = error.exit_code == ExitCode.VOLUME_DAMAGED or "use a newer disfs" in str(error)
        if not right:
            raise
    return None


def result(change: Coroutine[Any, Any, object]) -> str:
    """How a change ended."""
    try:
        answer(change)
    except FilesystemError as error:
        return errno.errorcode[error.errno]
    return "done"


@pytest.mark.parametrize("seed", range(SAMPLES))
def test_flipped_bytes_never_end_the_store(sound: Path, tmp_path: Path, seed: int) -> None:
    """A byte that is another one, anywhere: a refusal, or a store whose answers are answers or errno values.

    Which of them SQLite cannot notice it cannot: a name that reads otherwise is another name.
    """
    dice = random.Random(seed)
    path = tmp_path / "metadata.db"
    raw = bytearray(sound.read_bytes())
    for _ in range(dice.choice([1, 1, 8])):
        raw[dice.randrange(len(raw))] ^= dice.randrange(1, 256)
    path.write_bytes(raw[: dice.choice([len(raw), len(raw), dice.randrange(len(raw))])])
    store = opened(path)
    if store is None:
        return
    try:
        failures(store)
        for number in (0, 150, 299):
            for change in changes(store, InodeNumber(2), number):
                assert result(change)
    finally:
        with contextlib.suppress(FilesystemError):
            store.close()


def test_store_goes_on_once_damage_is_known(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A change that meets damage after its first write is undone alone; all else goes on, and is there afterwards."""
    with contextlib.closing(SqliteMetadataStore.open(copy)) as store:
        caplog.set_level(logging.ERROR)
        store._database.note_damage("found by the test")
        answer(store.make_inode(ROOT_INODE, b"before", a_file(), 1))
        before = answer(store.usage())
        with pytest.MonkeyPatch.context() as patched:

            def broken(*arguments: object) -> None:
                meet_damage(store)

            patched.setattr(store._dentries, "insert", broken)
            with pytest.raises(FilesystemError, match="EIO"):
                answer(store.make_inode(ROOT_INODE, b"half", a_file(), 1))
        assert before == answer(store.usage())
        answer(store.make_inode(ROOT_INODE, b"after", a_file(), 1))
        assert (None, "found by the test") == (store.statistics().failure, store.statistics().damage)
        assert 1 == sum("metadata are damaged" in line for line in caplog.messages)
    with contextlib.closing(SqliteMetadataStore.open(copy)) as store:
        assert {b"folder", b"before", b"after"} == names(store)


def test_regression_query_that_met_damage_took_the_open_transaction_along(copy: Path) -> None:
    """Changes that were answered before somebody else's query met damage are committed all the same, and later ones."""
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'xattrs'").fetchone()
    wipe(copy, page)
    answered = [b"answered before", b"answered after"]
    with contextlib.closing(SqliteMetadataStore.open(copy)) as store:
        file = answer(store.make_inode(ROOT_INODE, answered[0], a_file(), 1)).inode
        store.mark_dirty(file, ChunkIndex(0), 2)
        with pytest.raises(FilesystemError, match="EIO"):
            answer(store.get_xattr(InodeNumber(3), b"user.number"))
        answer(store.make_inode(ROOT_INODE, answered[1], a_file(), 1))
        with pytest.raises(FilesystemError, match="EIO"):
            answer(store.set_xattr(file, b"user.new", b"1", XattrMode.EITHER, 2))
        answer(store.commit())
        assert None is store.statistics().failure
    with contextlib.closing(SqliteMetadataStore.open(copy)) as store:
        found = {entry.name: entry.attributes for entry in answer(store.list_directory(ROOT_INODE, 0, 100))}
        assert {b"folder", *answered} == found.keys()
        assert (2, 1) == (found[answered[0]].chunk_count, found[answered[0]].ctime_ns)


def test_small_content_on_a_damaged_page_is_named_in_the_log(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who cannot read a content learns from the log which file it was; its name can be removed."""
    with contextlib.closing(SqliteMetadataStore.open(copy)) as store:
        file = answer(store.make_inode(ROOT_INODE, b"small", a_file(), 1)).inode
        store.write_small(file, b"content")
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'small_contents'").fetchone()
    wipe(copy, page)
    with contextlib.closing(SqliteMetadataStore.open(copy)) as store:
        with pytest.raises(FilesystemError, match="EIO"):
            store.small_content(file)
        assert any("the content of /small that is kept with the metadata" in line for line in caplog.messages)
        answer(store.unlink(ROOT_INODE, b"small", 2))
        answer(store.commit())
        assert {b"folder"} == names(store)


def meet_damage(store: SqliteMetadataStore) -> None:
    """As when a statement meets a damaged page."""
    raise store._database._translated(corrupt())


def names(store: SqliteMetadataStore) -> set[bytes]:
    """What is in the root directory."""
    return {entry.name for entry in answer(store.list_directory(ROOT_INODE, 0, 100))}


def test_change_that_meets_damage_after_its_first_write_is_undone_alone(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a change that breaks off at damage nothing is written, of the ones before it everything."""
    with contextlib.closing(SqliteMetadataStore.open(copy)) as store:
        answer(store.set_xattr(ROOT_INODE, b"user.answered", b"1", XattrMode.EITHER, 1))
        with monkeypatch.context() as patched:
            patched.setattr(store._inodes, "set_ctime", lambda *_: meet_damage(store))
            with pytest.raises(FilesystemError, match="EIO"):
                answer(store.set_xattr(ROOT_INODE, b"user.half", b"1", XattrMode.EITHER, 1))
        assert [b"user.answered"] == answer(store.list_xattrs(ROOT_INODE))
        assert None is store.statistics().failure


def test_change_that_cannot_be_written_takes_no_other_along(copy: Path) -> None:
    """What was answered before damage was known, and is written later, survives a change that cannot be written."""
    with contextlib.closing(SqliteMetadataStore.open(copy)) as store:
        known = answer(store.make_inode(ROOT_INODE, b"answered", a_file(), 1)).inode
        store._database.note_damage("found by the test")

        def write_newer() -> None:
            if any(inode > known for inode in store._inodes._new):
                meet_damage(store)

        # Names are written before it, inodes after it.
        store._database.held_back.remove(store._inodes._write_rows)
        store._database.held_back += [write_newer, store._inodes._write_rows]
        with pytest.raises(FilesystemError, match="EIO"):
            answer(store.make_inode(ROOT_INODE, b"half", a_file(), 1))
        assert ({b"folder", b"answered"}, None) == (names(store), store.statistics().failure)
    with contextlib.closing(SqliteMetadataStore.open(copy)) as store:
        assert {b"folder", b"answered"} == names(store)


def test_change_that_is_mixed_with_others_stops_the_store(copy: Path) -> None:
    """A change whose writes cannot be told from those of others is not undone alone; what was answered is not lost
    without a word."""
    with contextlib.closing(SqliteMetadataStore.open(copy)) as store:
        answer(store.make_inode(ROOT_INODE, b"answered", a_file(), 1))
        with contextlib.suppress(FilesystemError), store._database.changing:
            store.settings.put(VOLUME_ID, "half")
            store._database.flush()
            meet_damage(store)
        assert "a change broke off halfway" in str(store.statistics().failure)


class BadSector:
    """A connection whose next query meets a sector that cannot be read: SQLite drops the open transaction then."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.is_near = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        """As the connection, but once."""
        if sql.startswith("SELECT") and self.is_near:
            self.is_near = False
            self.connection.execute("ROLLBACK")
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
            raise error
        return self.connection.execute(sql, *parameters)


def test_regression_bad_sector_took_the_open_transaction_along(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was answered before a query met a bad sector is committed all the same."""
    with contextlib.closing(SqliteMetadataStore.open(copy)) as store:
        answer(store.make_inode(ROOT_INODE, b"answered", a_file(), 1))
        answer(store.list_directory(ROOT_INODE, 0, 9))
        with monkeypatch.context() as patched:
            patched.setattr(store._database, "_connection", BadSector(store._database._connection))
            with pytest.raises(FilesystemError, match="EIO"):
                answer(store.get_xattr(InodeNumber(3), b"user.number"))
        answer(store.commit())
        assert None is store.statistics().failure
    with contextlib.closing(SqliteMetadataStore.open(copy)) as store:
        assert answer(store.lookup(ROOT_INODE, b"answered"))


def test_regression_damage_that_a_flush_meets_stops_the_store_once(sound: Path, tmp_path: Path) -> None:
    """What was answered and cannot be written stops the store, whose next user keeps working: EIO for who needs it."""
    stopped = 0
    for page in pages_of(sound):
        path = tmp_path / f"{page}.db"
        shutil.copy(sound, path)
        wipe(path, page)
        before = make_files(path)
        if before is None or before.failure is None:
            continue
        stopped += 1
        after = make_files(path)
        assert after is not None
        assert (None, True) == (after.failure, after.damage is not None), page
    assert stopped


def make_files(path: Path) -> MetadataStatistics | None:
    """Make some files, in one group commit; how the store is then, None where it was refused."""
    store = opened(path)
    if store is None:
        return None
    with contextlib.closing(store):
        for number in range(20):
            result(store.make_inode(ROOT_INODE, b"new %d" % number, a_file(), 5))
        result(store.commit())
        return store.statistics()


def corrupt() -> sqlite3.Error:
    """What SQLite raises for a damaged page."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE a (b)")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET rootpage = 1000")
        connection.execute("PRAGMA writable_schema = RESET")
        try:
            connection.execute("SELECT * FROM a")
        except sqlite3.DatabaseError as error:
            return error
    raise AssertionError("a table without pages can be read")


async def test_guard_ends_where_nothing_is_found(sound: Path, tmp_path: Path) -> None:
    """After a crash changes can be undone alone, until the look for damage has found nothing."""
    path = tmp_path / "metadata.db"
    shutil.copy(sound, path)
    set_crashed(path)
    with contextlib.closing(SqliteMetadataStore.open(path)) as store:
        guarded = [store._database.guards_changes]
        await look_for_damage(store._database, path)
        guarded.append(store._database.guards_changes)
        store._database.note_damage("found by the test")
        await look_for_damage(store._database, path)
        assert [True, False, True] == [*guarded, store._database.guards_changes]


def set_crashed(path: Path) -> None:
    """As if its last user had not closed it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE settings SET value = '0' WHERE name = 'clean_shutdown'")


@pytest.mark.parametrize("crashed", [False, True])
async def test_damage_is_looked_for_after_a_crash(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crashed: bool
) -> None:
    """After a stop that was not in order damage shows in status before anybody meets it; else nothing is looked at."""
    path = tmp_path / "metadata.db"
    shutil.copy(sound, path)
    if crashed:
        set_crashed(path)
    wipe(path, pages_of(path)[-1])
    with contextlib.closing(SqliteMetadataStore.open(path)) as store:
        noted, note = trio.Event(), store._database.note_damage
        monkeypatch.setattr(store._database, "note_damage", lambda reason: (note(reason), noted.set()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            with trio.move_on_after(30 if crashed else 0.2):
                await noted.wait()
            nursery.cancel_scope.cancel()
        assert crashed == (store.statistics().damage is not None)


async def test_look_for_damage_ends_when_it_is_cancelled(sound: Path) -> None:
    """Unmounting does not wait for a look through a large database; a sound one is found to be sound."""
    assert None is await find_damage(sound, sqlite3.connect)
    looks = []

    class Watched(sqlite3.Connection):
        """Says when it was stopped."""

        def set_progress_handler(self, handler: Any, n: int) -> None:
            """Look at each step, and remember the answers."""

            def look() -> bool:
                looks.append(handler.__self__.wait(30))  # the Event; the look itself ends sooner than the cancel comes
                return bool(looks[-1])

            super().set_progress_handler(look, 1)

    with trio.move_on_after(0) as scope:
        await find_damage(sound, lambda path: sqlite3.connect(path, factory=Watched))
    assert (True, True) == (scope.cancelled_caught, looks[-1])
