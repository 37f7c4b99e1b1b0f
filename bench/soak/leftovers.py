"""What lies in Discord, held against what the volume knows: in the end each message is known and holds something."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.soak.disk import Disk

PAGE = 100


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Message ids; all but `known` should be empty."""

    known: int
    """How many messages both have."""
    orphans: tuple[int, ...]
    """In Discord, but the volume does not know of them: nobody will ever delete them."""
    duplicates: tuple[int, ...]
    """Those of the orphans whose attachments another message has too: a send that was repeated and stored twice."""
    vanished: tuple[int, ...]
    """The volume refers to them, but Discord does not have them: lost data."""
    garbage: tuple[int, ...]
    """Nothing in them is live any more, and the sweep has not deleted them."""
    unsound: tuple[str, ...]
    """What SQLite says of the metadata, if it is not that all is well."""


def find(disk: Disk) -> Leftovers:
    """Look at Discord's side, then at the volume's, while nothing is being sent; Discord sets no limits."""
    stored = dict(_stored(disk))
    known, garbage, unsound = _known(disk.metadata)
    orphans = stored.keys() - known
    names = Counter(name for attachments in stored.values() for name in attachments)
    return Leftovers(
        known=len(stored.keys() & known),
        orphans=tuple(sorted(orphans)),
        duplicates=tuple(sorted(m for m in orphans if any(names[name] > 1 for name in stored[m]))),
        vanished=tuple(sorted(known - stored.keys())),
        garbage=tuple(sorted(garbage)),
        unsound=tuple(unsound),
    )


def _stored(disk: Disk) -> Iterator[tuple[int, list[str]]]:
    """The messages of all data channels, with the names of their attachments."""
    for channel in disk.api(f"/guilds/{disk.emulator.guild}/channels"):
        if channel["type"] != 0 or "data" not in channel["name"]:
            continue
        before = ""
        while True:
            page = disk.api(f"/channels/{channel['id']}/messages?limit={PAGE}{before}")
            for message in page:
                yield int(message["id"]), [attachment["filename"] for attachment in message["attachments"]]
            if len(page) < PAGE:
                break
            before = f"&before={page[-1]['id']}"


def _known(metadata: Path) -> tuple[set[int], set[int], list[str]]:
    """Message ids that the volume knows, those of them that are garbage, and what is wrong with the database."""
    connection = sqlite3.connect(f"file:{metadata}?mode=ro", uri=True)
    try:
        rows = connection.execute("SELECT message, dead_since FROM messages").fetchall()
        checked = [line for (line,) in connection.execute("PRAGMA integrity_check")]
    finally:
        connection.close()
    return {row[0] for row in rows}, {row[0] for row in rows if row[1] is not None}, [x for x in checked if x != "ok"]
