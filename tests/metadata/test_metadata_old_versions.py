"""Volumes of earlier versions open for ever, and what they were is kept beside what they become.

`tests/golden/metadata-vN.db.gz` is what the last disfs of schema version N wrote: `check_sample` knows what.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import sqlite3
from pathlib import Path

import pytest
from support.answers import answer

from disfs.errors import ExitCode, UserError
from disfs.metadata import old_copies
from disfs.metadata.old_copies import old_copy
from disfs.metadata.opening import VolumeFacts, look_at
from disfs.metadata.schema import SCHEMA_VERSION
from disfs.metadata.settings import VOLUME_ID
from disfs.metadata.store import SqliteMetadataStore
from disfs.values import ROOT_INODE, ChunkIndex, ChunkKey

GOLDEN = Path(__file__).parent.parent / "golden"
VERSIONS = sorted(int(path.name.removeprefix("metadata-v").removesuffix(".db.gz")) for path in GOLDEN.glob("*.db.gz"))
TIME_NS = 10**18 + 5


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    """Each version of which there is a sample."""
    number: int = request.param
    return number


@pytest.fixture
def sample(version: int, tmp_path: Path) -> Path:
    """A volume as that version left it."""
    path = tmp_path / "metadata.db"
    path.write_bytes(gzip.decompress((GOLDEN / f"metadata-v{version}.db.gz").read_bytes()))
    return path


def version_of(path: Path) -> int:
    """The schema version of a database file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
    return int(version)


def check_sample(store: SqliteMetadataStore) -> None:
    """Everything that was put into the samples is there."""
    assert (4096, bytes(range(16)).hex(), True) == (store.chunk_bytes, store.settings.get(VOLUME_ID), store.was_clean)
    root = answer(store.attributes(ROOT_INODE))
    assert (0o40755, 3, 1000, 1000) == (root.mode, root.nlink, root.uid, root.gid)
    names = {entry.name: entry.attributes.inode for entry in answer(store.list_directory(ROOT_INODE, 0, 100))}
    assert {b"docs", b"second name", b"link", b"sparse"} == set(names)
    report = answer(store.lookup(names[b"docs"], b"report\n\xff.txt"))
    assert names[b"second name"] == report.inode
    assert (0o100640, 2, 10_000, TIME_NS, 3) == (
        report.mode,
        report.nlink,
        report.size_bytes,
        report.mtime_ns,
        report.chunk_count,
    )
    assert b"docs/nowhere" == answer(store.symlink_target(names[b"link"]))
    assert b"blue\0" == answer(store.get_xattr(report.inode, b"user.colour"))
    sparse = answer(store.attributes(names[b"sparse"]))
    assert (1 << 50, 2) == (sparse.size_bytes, sparse.chunk_count)
    (gone,) = answer(store.orphans())
    # report: 10000 bytes in 3 chunks; sparse: 2 chunks; gone: 100 bytes.
    usage = answer(store.usage())
    assert (6, 10_000 + (1 << 50) + 100, 12288 + 8192 + 4096) == (
        usage.inode_count,
        usage.logical_bytes,
        usage.allocated_bytes,
    )
    assert {ChunkKey(report.inode, ChunkIndex(1)), ChunkKey(gone, ChunkIndex(0))} == {
        row.key for row in store.dirty_chunks()
    }
    assert [(0, 3), (256, 2)] == [
        (run.first_chunk, run.count)
        for inode, last in ((report.inode, 9), (sparse.inode, 999))
        for run in answer(store.extents(inode, ChunkIndex(0), ChunkIndex(last)))
    ]
    assert b"docs" in answer(store.paths(report.inode))[0]


def test_there_is_a_sample_of_every_earlier_version() -> None:
    """Whoever makes a new version of the schema leaves a sample of the one before."""
    assert list(range(1, SCHEMA_VERSION)) == VERSIONS


def test_sample_opens_with_everything_in_it(sample: Path, version: int) -> None:
    """A volume of an earlier version opens, and again after that."""
    for was_new in (False, True):
        with contextlib.closing(SqliteMetadataStore.open(sample)) as store:
            check_sample(store)
        assert was_new is False or SCHEMA_VERSION == version_of(sample)


def test_upgrade_keeps_what_was_before(sample: Path, version: int) -> None:
    """Beside the upgraded volume lies the old one, whole, private, and with the same rows."""
    before = rows_of(sample)
    SqliteMetadataStore.open(sample).close()
    copy = old_copy(sample, version)
    assert f"metadata.db.v{version}" == copy.name
    assert (version, before, 0o600) == (version_of(copy), rows_of(copy), copy.stat().st_mode & 0o777)
    assert [copy] == sorted(sample.parent.glob("metadata.db.*"))


def test_upgrade_keeps_what_only_the_log_has(sample: Path, version: int) -> None:
    """What the old disfs committed last, and never copied out of its log, is in the copy too."""
    with contextlib.closing(sqlite3.connect(sample, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("INSERT INTO settings VALUES ('last', 'word')")
        before = hashlib.sha256(sample.read_bytes()).digest()
        crashed = sample.with_name("crashed.db")
        for end in ("", "-wal"):
            crashed.with_name(f"crashed.db{end}").write_bytes(sample.with_name(f"metadata.db{end}").read_bytes())
        assert before == hashlib.sha256(crashed.read_bytes()).digest()
    SqliteMetadataStore.open(crashed).close()
    with contextlib.closing(sqlite3.connect(old_copy(crashed, version))) as connection:
        assert [("word",)] == connection.execute("SELECT value FROM settings WHERE name = 'last'").fetchall()


def test_volume_of_others_is_refused_before_it_is_upgraded(sample: Path) -> None:
    """What does not belong to the volume stays as it was, whatever its version, and no copy is made of it."""
    before, asked = sample.read_bytes(), []

    def is_ours(facts: VolumeFacts) -> bool:
        asked.append(facts)
        return False

    with pytest.raises(UserError, match="belongs to another volume") as caught:
        SqliteMetadataStore.open(sample, is_ours=is_ours)
    facts = VolumeFacts(bytes(range(16)).hex(), 4096, 6)
    assert (ExitCode.VOLUME_DAMAGED, [facts], facts) == (caught.value.exit_code, asked, look_at(sample))
    assert (before, [sample]) == (sample.read_bytes(), list(sample.parent.iterdir()))


def test_volume_of_this_version_is_not_copied(tmp_path: Path) -> None:
    """Without an upgrade there is nothing to keep."""
    path = tmp_path / "metadata.db"
    SqliteMetadataStore.open(path, create=True).close()
    SqliteMetadataStore.open(path).close()
    assert [path] == list(tmp_path.iterdir())


def rows_of(path: Path) -> list[str]:
    """Every row of a database."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A volume of version 1."""
    path = tmp_path / "metadata.db"
    path.write_bytes(gzip.decompress((GOLDEN / "metadata-v1.db.gz").read_bytes()))
    return path


def test_upgrade_without_room_for_the_copy_does_not_begin(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No copy, no upgrade: one line says what it needs, and the old volume is as it was."""
    before = old.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(old_copies, "_SLACK_BYTES", 1 << 60)
        with pytest.raises(UserError, match=r"no room to keep the old one as .*metadata.db.v1; free \d+ MiB") as caught:
            SqliteMetadataStore.open(old)
    assert (ExitCode.STATE_FULL, before, 1) == (caught.value.exit_code, old.read_bytes(), version_of(old))
    assert not old_copy(old, 1).exists()
    SqliteMetadataStore.open(old).close()
    assert (SCHEMA_VERSION, 1) == (version_of(old), version_of(old_copy(old, 1)))


def test_copy_that_breaks_off_leaves_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up while it is copied is told as a full disk, and the half copy is gone."""

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(old_copies, "_sync", full)
    with pytest.raises(UserError) as caught:
        SqliteMetadataStore.open(old)
    assert ExitCode.STATE_FULL == caught.value.exit_code
    assert [old] == list(old.parent.glob("metadata.db*"))


def test_copy_of_an_upgrade_that_was_killed_is_made_again(old: Path) -> None:
    """What a killed copy left is no copy; and a copy of an earlier upgrade from the same version gives way."""
    old_copy(old, 1).with_name("metadata.db.v1.new").write_bytes(b"half")
    old_copy(old, 1).write_bytes(b"of long ago")
    SqliteMetadataStore.open(old).close()
    assert 1 == version_of(old_copy(old, 1))
    assert [old_copy(old, 1)] == list(old.parent.glob("metadata.db.*"))
