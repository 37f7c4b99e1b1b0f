"""Which SQLite the metadata are kept by."""

from __future__ import annotations

import sqlite3


def sqlite_version() -> str:
    """As SQLite says it, such as 3.45.1."""
    return sqlite3.sqlite_version
