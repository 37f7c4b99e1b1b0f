"""What a check of a volume found. Findings wait in a file without a name: there may be one for each of a million files.

The names of kinds and fields are an interface: `disfs fsck --json` prints them, the README lists them.
"""

from __future__ import annotations

import enum
import json
import tempfile
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHOWN_BYTES = 400
"""How much of one text is kept: a damaged database may hold anything."""


class Kind(enum.Enum):
    """What is wrong. The values are an interface."""

    DATABASE = "database"
    """SQLite cannot read the metadata, or finds them damaged."""
    METADATA = "metadata"
    """The metadata contradict themselves."""
    CACHE = "cache"
    """Something cached is not what was written; Discord has it too."""
    DAMAGED_FILE = "damaged-file"
    """Some of a file cannot be read any more: reading it there is EIO."""
    SEND_AGAIN = "send-again"
    """Some of a file is gone from Discord, and the cache has a copy."""
    MISSING = "missing"
    """A recorded channel, message or attachment is not in Discord, or not as it was."""
    DAMAGED_PACK = "damaged-pack"
    """Something in a pack fails authentication, or is another's."""
    OUTBOX = "outbox"
    """What has changed since Discord was told the last time is not all known."""
    COPY = "copy"
    """A recovery would not bring back the names as they were sent last."""
    FORK = "fork"
    """Another machine, or another state of this one, has gone on with the volume."""
    SNAPSHOT = "snapshot"
    """A snapshot, or some file in it, cannot be read or recovered any more."""
    SUPERBLOCK = "superblock"
    """The volume's superblock in Discord is gone or another one."""
    STRAY = "stray"
    """A message that a failed send of this machine left behind: nothing refers to it."""
    UNKNOWN = "unknown"
    """A message of this volume that this machine never sent: its state was put back from a backup, perhaps."""
    SET_ASIDE = "set-aside"
    """A damaged file that an earlier repair has moved to lost+found/damaged."""
    IN_TRASH = "in-trash"
    """Some of a deleted file cannot be read any more; it goes with the trash."""
    NOTE = "note"
    """Worth knowing, and nothing wrong."""


ERRORS = frozenset(
    {
        Kind.DATABASE,
        Kind.METADATA,
        Kind.CACHE,
        Kind.DAMAGED_FILE,
        Kind.SEND_AGAIN,
        Kind.OUTBOX,
        Kind.COPY,
        Kind.FORK,
        Kind.SNAPSHOT,
        Kind.SUPERBLOCK,
    }
)
"""Kinds that make a volume not clean. What is missing or damaged in Discord is one where a file needs it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found; fields that do not apply are None."""

    kind: Kind
    what: str
    """One line for a person."""
    path: str | None = None
    """Of a file, from the volume's root."""
    inode: int | None = None
    channel: int | None = None
    message: int | None = None
    chunks: int | None = None
    """How many chunks of the file are concerned."""

    def to_json(self) -> dict[str, object]:
        """The fields that apply. Ids of Discord are strings, as Discord writes them."""
        fields: dict[str, object] = {"kind": self.kind.value, "error": self.kind in ERRORS, "what": self.what}
        fields |= {"path": self.path, "inode": self.inode, "chunks": self.chunks}
        for name, number in (("channel_id", self.channel), ("message_id", self.message)):
            fields[name] = None if number is None else str(number)
        return {name: value for name, value in fields.items() if value is not None}


def shown_path(path: bytes | None, inode: int) -> str:
    """A path for people and for JSON: bytes that are no text are escaped."""
    return f"inode {inode} (no name)" if path is None else path.decode("utf-8", "backslashreplace")


class Findings:
    """Everything that was found, in order. `close` it."""

    def __init__(self, directory: Path | None = None) -> None:
        """`directory` takes the file, which holds names of the volume."""
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8", dir=directory)  # noqa: SIM115 - `__exit__` closes it
        self.counts: Counter[Kind] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._file.close()

    def add(self, kind: Kind, what: str, **fields: object) -> None:
        """Note one more; the fields are those of `Finding`."""
        self.counts[kind] += 1
        row = {"kind": kind.name, "what": what[:SHOWN_BYTES], **fields}
        self._file.write(json.dumps(row) + "\n")

    def __iter__(self) -> Iterator[Finding]:
        self._file.seek(0)
        for line in self._file:
            row = json.loads(line)
            yield Finding(Kind[row.pop("kind")], **row)
        self._file.seek(0, 2)

    @property
    def error_count(self) -> int:
        """How many errors were found."""
        return sum(count for kind, count in self.counts.items() if kind in ERRORS)
