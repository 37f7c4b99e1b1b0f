"""What a mount says of how it went on."""

from __future__ import annotations

from disfs.mount_recovery import MountRecovery


def recovery(
    *, crashed: bool = True, unsent: int = 0, lost: int = 0, messages: int = 0, chunks: int = 0, orphans: int = 0
) -> str | None:
    """The line."""
    return MountRecovery(
        crashed=crashed,
        seconds=0.25,
        unsent_chunks=unsent,
        lost_chunks=lost,
        arrived_messages=messages,
        arrived_chunks=chunks,
        orphans=orphans,
    ).line()


def test_stop_in_order_says_nothing() -> None:
    """Unsent chunks after a stop in order are as usual."""
    assert None is recovery(crashed=False, unsent=100)


def test_crash_says_what_was_found() -> None:
    """All of it in one line."""
    line = recovery(unsent=1, lost=2, messages=1, chunks=7, orphans=3)
    assert line == (
        "recovered after a crash in 0.2 s: 1 unsent chunk found again, 1 message with 7 chunks had arrived in Discord"
        " already, 3 deleted files removed that had been open, 2 chunks can no longer be read,"
        " 'disfs fsck' names the files"
    )
    assert "recovered after a crash in 0.2 s: 0 unsent chunks found again" == recovery()


def test_losses_and_arrivals_are_told_without_a_crash_too() -> None:
    """A cache that was deleted between two mounts; a send that an unmount cancelled."""
    assert "2 chunks can no longer be read, 'disfs fsck' names the files" == recovery(crashed=False, lost=2)
    assert str(recovery(crashed=False, messages=1)).startswith("went on where the last mount ended")
