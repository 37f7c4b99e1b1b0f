"""The tables of a volume, with the meaning of every column.

The types and constraints are those that PostgreSQL knows too (INTEGER stands for BIGINT, BLOB for BYTEA);
`STRICT` and `WITHOUT ROWID` behind a closing parenthesis are SQLite's storage options and nothing
depends on them. Names and link targets are bytes: Unix does not promise that they are text. Primary
keys are never reused or renumbered: the journal will name rows by them.
"""

from __future__ import annotations

APPLICATION_ID = int.from_bytes(b"dsfs", "big")
"""In the header of the database file (`PRAGMA application_id`): tells our databases from others."""

SCHEMA_VERSION = 6
"""In the header of the database file (`PRAGMA user_version`)."""

MESSAGES_SPARSE = (
    "CREATE INDEX messages_sparse ON messages (stored_bytes - live_bytes)"
    " WHERE live_bytes > 0 AND live_bytes * 2 < stored_bytes AND held = 0"
)
"""Finds the messages that compaction rewrites, most garbage first."""

MESSAGES_DEAD = "CREATE INDEX messages_dead ON messages (dead_since) WHERE dead_since IS NOT NULL AND held = 0"

# Who lies in a pack is asked by compaction (the chunks of a mostly dead message) and by reading (the neighbours of a
# small file). Pack numbers rise, so entries are appended: no difference was measured in recording a message (0.8 ms
# for 190 chunks of one file). Rejected: reading the pack's own directory (a request each time, and it names
# the dead slots too), and a list of keys kept with the pack (a query for each of its thousands of small files).
EXTENTS_BY_PACK = "CREATE INDEX extents_by_pack ON extents (pack, first_slot)"

# The order of listings. With the inode in it, a page of a listing reads no row of `dentries`: the name is there as part
# of the primary key. Cookies are unique by their counter.
DENTRIES_BY_COOKIE = "CREATE INDEX dentries_by_cookie ON dentries (parent, cookie, inode)"

# Inodes whose chunks stay in the cache once they are there. Local to this machine.
PINS = """
    CREATE TABLE pins (
        inode INTEGER NOT NULL PRIMARY KEY
    ) STRICT
    """

# How far each data channel was looked through for messages that nobody knows of. Local to this machine.
EXAMINED = """
    CREATE TABLE examined (
        channel INTEGER NOT NULL PRIMARY KEY,  -- Discord's id
        message INTEGER NOT NULL               -- up to this one, included, each message is known or none of ours
    ) STRICT
    """

# Packs that this state of the volume has begun to send, the newest ones: what it does not know of is not its to delete.
# Local to this machine.
SENT_PACKS = """
    CREATE TABLE sent_packs (
        number INTEGER NOT NULL PRIMARY KEY,  -- rises
        pack_id BLOB NOT NULL UNIQUE          -- as packs.pack_id; most of them are recorded there, or were once
    ) STRICT
    """

# Cached contents that are too small for a cache file of their own. Local to this machine.
SMALL_CONTENTS = """
    CREATE TABLE small_contents (
        inode INTEGER NOT NULL PRIMARY KEY,
        content BLOB NOT NULL,     -- chunk 0 of the inode, up to where its cached content ends: 1 byte or more
        checksum INTEGER NOT NULL  -- CRC-32 of it, as of zlib
    ) STRICT
    """

# Which replicated rows have changed since they were last shipped, see outbox.py. Local to this machine.
OUTBOX = """
    CREATE TABLE outbox (
        number INTEGER NOT NULL PRIMARY KEY,  -- rises with each group commit that changed such rows
        noted_ns INTEGER NOT NULL,            -- when, in nanoseconds since 1970
        keys BLOB NOT NULL                    -- the primary keys of these rows, see outbox.Noted
    ) STRICT
    """

# Messages of the index channel that hold journals and checkpoint copies, or remains of one that was never completed:
# what is to be deleted one day. Local to this machine.
SHIPPED = """
    CREATE TABLE shipped (
        message INTEGER NOT NULL PRIMARY KEY,  -- Discord's id
        kind INTEGER NOT NULL,                 -- 2: journal, 3: checkpoint copy, 0: remains
        sequence INTEGER NOT NULL              -- of the state that it leads to
    ) STRICT
    """

# What was deleted or replaced and can be restored for a while. Its extents and extended attributes stay where they are,
# under its number; an inode number is either here or in `inodes`.
TRASH = """
    CREATE TABLE trash (
        inode INTEGER NOT NULL PRIMARY KEY,  -- as it was; of an emptied file, a number for what was in it
        path BLOB NOT NULL,                  -- the last one that led to it, from the root of the volume, as in /a/b
        trashed_ns INTEGER NOT NULL,         -- when, in nanoseconds since 1970
        reason INTEGER NOT NULL,             -- see values.TrashReason
        mode INTEGER NOT NULL,               -- as inodes.mode, as are the next ones of their names
        uid INTEGER NOT NULL,
        gid INTEGER NOT NULL,
        rdev INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL,
        atime_ns INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        target BLOB
    ) STRICT
    """
# Snapshots of the volume. What is in one lies in a database of its own, `snapshots/NUMBER.db` beside this one, in this
# very schema. Local to this machine; in Discord each is a shipment of its own.
SNAPSHOTS = """
    CREATE TABLE snapshots (
        snapshot INTEGER NOT NULL PRIMARY KEY,  -- rises, never used twice; part of its inode numbers
        name BLOB NOT NULL UNIQUE,
        created_ns INTEGER NOT NULL,            -- of which moment it is, in nanoseconds since 1970
        state INTEGER NOT NULL,                 -- see snapshots.SnapshotState
        sent_after INTEGER NOT NULL             -- its shipments come after this message
    ) STRICT
    """
# Which messages the snapshots refer to: these are not deleted. Local to this machine.
HOLDS = """
    CREATE TABLE holds (
        snapshot INTEGER NOT NULL,
        message INTEGER NOT NULL,  -- messages.message
        PRIMARY KEY (snapshot, message)
    ) STRICT, WITHOUT ROWID
    """
TRASH_BY_PATH = "CREATE INDEX trash_by_path ON trash (path, inode)"
TRASH_BY_TIME = "CREATE INDEX trash_by_time ON trash (trashed_ns)"

TABLES: tuple[str, ...] = (
    # Facts about the volume as a whole, as text; `settings.py` names the keys and their types.
    """
    CREATE TABLE settings (
        name TEXT NOT NULL PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT
    """,
    # Sources of numbers that are never used twice.
    """
    CREATE TABLE counters (
        name TEXT NOT NULL PRIMARY KEY,  -- inode, cookie, revision, pack or snapshot
        value INTEGER NOT NULL           -- every number below it may be in use; those from it on are not
    ) STRICT
    """,
    # Files, directories, symbolic links, devices, FIFOs, sockets.
    """
    CREATE TABLE inodes (
        inode INTEGER NOT NULL PRIMARY KEY,  -- 1 is the root directory
        mode INTEGER NOT NULL,               -- type and permission bits, as st_mode
        nlink INTEGER NOT NULL,              -- names of a file; 2 + subdirectories of a directory; 0 is an orphan
        uid INTEGER NOT NULL,
        gid INTEGER NOT NULL,
        rdev INTEGER NOT NULL,               -- of a device file; of what was in an emptied file, its inode; else 0
        size_bytes INTEGER NOT NULL,         -- of a file or a link's target, else 0
        atime_ns INTEGER NOT NULL,           -- nanoseconds since 1970, as are the next two
        mtime_ns INTEGER NOT NULL,
        ctime_ns INTEGER NOT NULL,
        chunk_count INTEGER NOT NULL DEFAULT 0,  -- chunks in `dirty` or `extents` or both: those that are no holes
        target BLOB                          -- of a symbolic link, else NULL
    ) STRICT
    """,
    # The names in directories. `.` and `..` are not stored.
    """
    CREATE TABLE dentries (
        parent INTEGER NOT NULL,  -- inode of the directory
        name BLOB NOT NULL,       -- 1 to 255 bytes
        inode INTEGER NOT NULL,   -- what the name stands for
        cookie INTEGER NOT NULL,  -- place in the listing of the directory: rises, is never reused, 3 or more
        PRIMARY KEY (parent, name)
    ) STRICT, WITHOUT ROWID
    """,
    DENTRIES_BY_COOKIE,
    "CREATE INDEX dentries_by_inode ON dentries (inode)",
    # Extended attributes.
    """
    CREATE TABLE xattrs (
        inode INTEGER NOT NULL,
        name BLOB NOT NULL,   -- with its namespace, as in user.comment; ACLs are system.posix_acl_*
        value BLOB NOT NULL,  -- up to 64 KiB
        PRIMARY KEY (inode, name)
    ) STRICT
    """,
    # Inodes without a name, that somebody may still have open. Local to this machine.
    """
    CREATE TABLE orphans (
        inode INTEGER NOT NULL PRIMARY KEY,
        path BLOB,      -- the last one that led to it, as trash.path; NULL where nobody asked for it
        reason INTEGER  -- as trash.reason; NULL as path
    ) STRICT
    """,
    # Messages that hold packs; one lives as long as any byte of any of its packs does.
    """
    CREATE TABLE messages (
        message INTEGER NOT NULL PRIMARY KEY,  -- Discord's id
        channel INTEGER NOT NULL,              -- Discord's id
        live_bytes INTEGER NOT NULL,           -- sum over its packs
        dead_since INTEGER,                    -- the revision at which live_bytes became 0; NULL while it is not
        stored_bytes INTEGER NOT NULL DEFAULT 0,  -- of all slots of its packs: live ones and others
        held INTEGER NOT NULL DEFAULT 0        -- how many rows of `holds` name it
    ) STRICT
    """,
    MESSAGES_DEAD,
    MESSAGES_SPARSE,
    # Packs that Discord has acknowledged.
    """
    CREATE TABLE packs (
        pack INTEGER NOT NULL PRIMARY KEY,  -- number by which extents name it
        pack_id BLOB NOT NULL UNIQUE,       -- 16 random bytes
        message INTEGER NOT NULL,           -- its message
        attachment INTEGER NOT NULL,        -- Discord's id
        size_bytes INTEGER NOT NULL,        -- of the attachment
        slots BLOB NOT NULL,                -- slot table, see values.SlotTable
        live_bytes INTEGER NOT NULL,        -- stored bytes of the slots that extents refer to
        state INTEGER NOT NULL              -- 0: recorded; others are reserved
    ) STRICT
    """,
    "CREATE INDEX packs_by_message ON packs (message)",
    # Where chunks lie: runs of consecutive chunks in consecutive slots. Runs of an inode never overlap.
    """
    CREATE TABLE extents (
        inode INTEGER NOT NULL,
        first_chunk INTEGER NOT NULL,
        count INTEGER NOT NULL,         -- of chunks, 1 or more
        pack INTEGER NOT NULL,          -- packs.pack
        first_slot INTEGER NOT NULL,    -- slot of first_chunk
        stored_bytes INTEGER NOT NULL,  -- of the run's slots together: lets live_bytes follow without slot tables
        PRIMARY KEY (inode, first_chunk)
    ) STRICT, WITHOUT ROWID
    """,
    EXTENTS_BY_PACK,
    # Chunks whose content is newer than any recorded location. Local to this machine.
    """
    CREATE TABLE dirty (
        inode INTEGER NOT NULL,
        chunk INTEGER NOT NULL,
        revision INTEGER NOT NULL,  -- of the newest write
        born INTEGER NOT NULL,      -- packs sealed from a lower revision are not recorded, see values.DirtyChunk
        PRIMARY KEY (inode, chunk)
    ) STRICT, WITHOUT ROWID
    """,
    PINS,
    EXAMINED,
    SENT_PACKS,
    SMALL_CONTENTS,
    OUTBOX,
    SHIPPED,
    TRASH,
    TRASH_BY_PATH,
    TRASH_BY_TIME,
    SNAPSHOTS,
    HOLDS,
)
