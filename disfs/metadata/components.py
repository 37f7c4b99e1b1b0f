"""The components of one volume's metadata, made in the order in which they build on each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.metadata.acls import Acls
from disfs.metadata.counters import COOKIES, INODES, PACKS, REVISIONS, SNAPSHOTS, Counter
from disfs.metadata.dentries import Dentries
from disfs.metadata.dirty import Dirty
from disfs.metadata.extents import Extents
from disfs.metadata.inodes import Inodes
from disfs.metadata.names import Names
from disfs.metadata.outbox import Outbox
from disfs.metadata.packs import Packs
from disfs.metadata.pins import Examined, Pins, SentPacks
from disfs.metadata.recording import Recording
from disfs.metadata.rename import Renames
from disfs.metadata.settings import Settings
from disfs.metadata.small_contents import SmallContents
from disfs.metadata.totals import Totals
from disfs.metadata.trash import Trash
from disfs.metadata.xattrs import Xattrs

if TYPE_CHECKING:
    from disfs.metadata.database import Database


class Components:
    """What `Namespace` and `Ledger` answer from. Their methods call a component each, with no object in between:
    create, write and read are measured, and a further call would show.
    """

    def __init__(self, database: Database, *, chunk_bytes: int, capacity_bytes: int, trash_seconds: float) -> None:
        self.chunk_bytes = chunk_bytes
        """Fixed when the volume was made."""
        self._database = database
        self.settings = Settings(database)
        """Facts about the volume, see settings.py for the keys."""
        self._counters = {kind.name: Counter(database, kind) for kind in (INODES, COOKIES, REVISIONS, PACKS, SNAPSHOTS)}
        revisions = self._counters[REVISIONS.name]
        self._totals = Totals(database, self.settings, chunk_bytes, capacity_bytes)
        self._outbox = outbox = Outbox(database, self.settings)
        acls = Acls(database, outbox, self.settings)
        self._inodes = Inodes(database, outbox, self._counters[INODES.name], self._totals, acls)
        self._dentries = Dentries(database, outbox, self._inodes, self._counters[COOKIES.name])
        self._names = Names(database, self._inodes, self._dentries)
        self._renames = Renames(database, self._inodes, self._dentries)
        self._xattrs = Xattrs(database, outbox, self._inodes, acls)
        self._dirty = Dirty(database, revisions)
        self._packs = Packs(database, outbox, self._counters[PACKS.name], revisions)
        self._extents = Extents(database, outbox, self._packs, chunk_bytes)
        self.trash = Trash(database, outbox, self._inodes, self._dentries, self._dirty, self._extents, trash_seconds)
        """What was deleted or replaced and can be restored."""
        self._small = SmallContents(database, self._dentries.paths)
        self._recording = Recording(
            database,
            outbox,
            self._inodes,
            self._dirty,
            self._extents,
            self._packs,
            self._small,
            self._totals,
            self.trash,
            chunk_bytes,
        )
        self._pins = Pins(database)
        self._examined = Examined(database)
        self._sent_packs = SentPacks(database)
