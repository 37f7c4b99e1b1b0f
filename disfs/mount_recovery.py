"""What a mount did to go on where the last one ended, for people and programs; shown when that one crashed. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from disfs.quantities import human_count


@dataclass(frozen=True, slots=True, kw_only=True)
class MountRecovery:
    """Part of what `disfs status --json` promises."""

    crashed: bool
    """Whether the last mount did not end in order."""
    seconds: float
    """How long all of this took before the mount could be used, requests to Discord included."""
    unsent_chunks: int
    """Found again in the cache, to be sent."""
    lost_chunks: int
    """Neither in Discord nor in the cache: what the cache lost unsent, and what a recovery could not bring back."""
    arrived_messages: int
    """They had arrived in Discord, which had not been written down: recorded, not sent again."""
    arrived_chunks: int
    orphans: int
    """Deleted files that had been open; removed."""

    def line(self) -> str | None:
        """One line for a person, None when there is nothing to tell."""
        if not (self.crashed or self.lost_chunks or self.arrived_messages):
            return None
        lost = f"{human_count(self.lost_chunks, 'chunk')} can no longer be read, 'disfs fsck' names the files"
        if not (self.crashed or self.arrived_messages):  # said at each mount, until somebody does something about it
            return lost
        parts = [f"{human_count(self.unsent_chunks, 'unsent chunk')} found again"]
        if self.arrived_messages:
            arrived = human_count(self.arrived_messages, "message")
            parts.append(f"{arrived} with {human_count(self.arrived_chunks, 'chunk')} had arrived in Discord already")
        if self.orphans:
            parts.append(f"{human_count(self.orphans, 'deleted file')} removed that had been open")
        if self.lost_chunks:
            parts.append(lost)
        why = "recovered after a crash" if self.crashed else "went on where the last mount ended"
        return f"{why} in {self.seconds:.1f} s: {', '.join(parts)}"
