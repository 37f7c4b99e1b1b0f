"""The index channel against the metadata: a recovery would bring back what this machine believes to have sent.

That is tried out: the newest acknowledged state is rebuilt beside the metadata, every byte of its copy and its journals
authenticated, and its rows are compared with those here. What differs must be noted as still to be sent.

Where the volume is mounted the daemon goes on meanwhile: rows are not compared, and what looks wrong is looked at
once more.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import trio

from disfs.errors import ExitCode, FilesystemError, UserError
from disfs.metadata.restoring import Restoration
from disfs.recovery.arrivals import ForkedError, check_follows
from disfs.recovery.fsck_findings import Kind
from disfs.recovery.rebuild import apply_plan, look_through, what_is_wrong
from disfs.volume_state import METADATA_NAME

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from disfs.metadata.shipping import Position
    from disfs.metadata.told import ToldRows
    from disfs.recovery.chain import Plan
    from disfs.recovery.fsck_findings import Findings
    from disfs.recovery.index_channel import IndexChannel
    from disfs.recovery.rebuild import Found, Progress

REBUILT_NAME = f"{METADATA_NAME}.checking"
_WILL_BE_SENT = "; the next mount sends a whole copy"
_SHOWN = 5


class IndexCheck:
    """One comparison. `directory` takes what is rebuilt meanwhile."""

    def __init__(
        self,
        rows: ToldRows,
        index: IndexChannel,
        findings: Findings,
        directory: Path,
        *,
        mounted: bool,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._rows = rows
        self._index = index
        self._findings = findings
        self._directory = directory
        self._mounted = mounted
        self._on_progress = on_progress

    async def run(self) -> Found:
        """Compare; returns what lies in the channel. Errors as of `IndexChannel`; FilesystemError, STATE_FULL."""
        while True:
            position = self._rows.position()
            found = await look_through(self._index, self._show)
            wrong = await self._try_out(found, position) if position is not None and position.sequence else None
            if wrong is None or not self._mounted or self._rows.position() == position:
                break
        if position is None:
            return found
        if wrong is not None:
            told = _WILL_BE_SENT if position.needs_copy else ""
            what = f"the names in Discord cannot be recovered as they were sent last: {wrong}{told}"
            self._findings.add(Kind.NOTE if position.needs_copy else Kind.COPY, what)
        if not self._mounted:
            self._look_for_a_fork(found, position)
        return found

    def _show(self, progress: Progress) -> None:
        self._on_progress(progress.done, progress.total)

    async def _try_out(self, found: Found, position: Position) -> str | None:
        """Rebuild the state at `position`, and compare its rows; returns what keeps it from being rebuilt."""
        plan = found.chain.plan(position.state)
        if plan is None:
            broken = [what_is_wrong(each) for each in found.shipments if not each.is_whole]
            listed = "; ".join(broken[:_SHOWN]) or "its checkpoint copy, or a journal after it, is gone"
            return f"state {position.sequence} is not whole there ({listed})"
        path = self._directory / REBUILT_NAME
        path.unlink(missing_ok=True)
        try:
            return await self._rebuild(path, plan, position)
        finally:
            path.unlink(missing_ok=True)

    async def _rebuild(self, path: Path, plan: Plan, position: Position) -> str | None:
        restoration = await trio.to_thread.run_sync(Restoration, path)
        try:
            broken = await apply_plan(self._index, restoration, plan, self._show)
            if broken is not None:
                return what_is_wrong(broken)
            await trio.to_thread.run_sync(restoration.keep)
        except FilesystemError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise UserError(
                f"the disk of {path} is full: a check needs room there for a second copy of the metadata; free some, "
                "or check with --local",
                ExitCode.STATE_FULL,
            ) from error
        finally:
            restoration.close()
        if not self._mounted and not position.needs_copy:
            await trio.to_thread.run_sync(self._compare, path)
        return None

    def _compare(self, path: Path) -> None:
        for untold in self._rows.untold(path):
            what = f"Discord was told something else of {untold.rows} {untold.what} (of {untold.first}, for one)"
            self._findings.add(Kind.OUTBOX, f"{what}, and nothing says that they are still to be sent")

    def _look_for_a_fork(self, found: Found, position: Position) -> None:
        known = {each.message for each in self._rows.messages()}
        for shipment in found.shipments:
            new = {message for message in shipment.messages if message > position.examined} - known
            if new:
                try:
                    check_follows(shipment, position)
                except ForkedError as error:
                    self._findings.add(Kind.FORK, str(error))
                    return


def check_outbox(rows: ToldRows, findings: Findings) -> None:
    """What is noted as changed must be readable: it says what is still to be sent. And it must be known what was."""
    count = rows.unreadable_notes()
    position = rows.position()
    if position is None:
        findings.add(Kind.DATABASE, "the metadata database: what was sent of the names is not known any more")
        return
    if not count:
        return
    what = f"{count} notes of what has changed cannot be read"
    if position.needs_copy:
        findings.add(Kind.NOTE, f"{what}{_WILL_BE_SENT}")
    else:
        findings.add(Kind.OUTBOX, what)
