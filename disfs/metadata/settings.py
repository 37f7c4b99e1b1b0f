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
