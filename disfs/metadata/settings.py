"""Facts about the volume as a whole: typed keys over a table of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from disfs.errors import MetadataDamagedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from disfs.metadata.database import Database

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """A key, and how its values are written as text and read again."""

    name: str
    encode: Callable[[T], str]
    decode: Callable[[str], T]


def _flag(text: str) -> bool:
    return text == "1"


def _text(value: str) -> str:
    return value


CHUNK_BYTES: Setting[int] = Setting("chunk_bytes", str, int)
"""Fixed when the volume is made."""
VOLUME_ID: Setting[str] = Setting("volume_id", _text, _text)
"""Which volume's metadata these are: must equal the superblock's."""
CLEAN_SHUTDOWN: Setting[bool] = Setting("clean_shutdown", lambda flag: "1" if flag else "0", _flag)
"""Set by `close`, cleared (durably) by `open`."""
HAS_ACLS: Setting[bool] = Setting("has_acls", lambda flag: "1" if flag else "0", _flag)
"""Set with the first ACL of the volume and never cleared: while it is not, nothing looks for ACLs."""
INODE_COUNT: Setting[int] = Setting("inode_count", str, int)
LOGICAL_BYTES: Setting[int] = Setting("logical_bytes", str, int)
"""Text and not a counter: a few sparse files together pass 2**63."""
ALLOCATED_BYTES: Setting[int] = Setting("allocated_bytes", str, int)

DEVICE: Setting[str] = Setting("device", _text, _text)
"""Random, hexadecimal: tells this state of the volume from others of the same volume, those of other machines."""
SEQUENCE: Setting[int] = Setting("sequence", str, int)
"""Of the newest state that Discord has acknowledged; 0: none."""
STATE: Setting[str] = Setting("state", _text, _text)
"""The id of that state, hexadecimal; empty: none."""
REVISION: Setting[int] = Setting("shipped_revision", str, int)
"""Whatever got a lower revision is part of that state."""
UNSHIPPED: Setting[bool] = Setting("unshipped", lambda flag: "1" if flag else "0", _flag)
"""No state that was acknowledged has all rows: a checkpoint copy goes first."""
ATTEMPTS: Setting[str] = Setting("attempts", _text, _text)
"""Ids of the states that were begun to be sent after the acknowledged one, separated by blanks."""
INDEX_EXAMINED: Setting[int] = Setting("index_examined", str, int)
"""Every message of the index channel up to this one is known."""
COPY_SEQUENCE: Setting[int] = Setting("copy_sequence", str, int)
"""The state that the newest checkpoint copy holds; 0: there is none."""
COPY_BYTES: Setting[int] = Setting("copy_bytes", str, int)
JOURNAL_BYTES: Setting[int] = Setting("journal_bytes", str, int)
"""Of the journals since that copy, all together."""
SUPERSEDED: Setting[str] = Setting("superseded", _text, _text)
"""Ids of states that were left behind for this one, separated by blanks. Told with every shipment, for good."""
LEASE: Setting[str] = Setting("lease", _text, _text)
"""This machine's newest lease: its message, the first of its chain, the one that took over (0: none). Empty: none."""


class Settings:
    """Read and write the settings. A change joins the open transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, setting: Setting[T]) -> T | None:
        """The value, None when it was never set. MetadataDamagedError when it makes no sense."""
        row = self._database.row("SELECT value FROM settings WHERE name = ?", (setting.name,))
        if row is None:
            return None
        try:
            return setting.decode(row[0])
        except (TypeError, ValueError) as error:
            raise MetadataDamagedError(f"the setting {setting.name} cannot be {row[0]!r}") from error

    def set(self, setting: Setting[T], value: T) -> None:
        """Give a setting a value."""
        with self._database.changing:
            self.put(setting, value)

    def put(self, setting: Setting[T], value: T) -> None:
        """`set` for callers that are inside a change already."""
        self._database.write(
            "INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (setting.name, setting.encode(value)),
        )
