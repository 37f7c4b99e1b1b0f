"""What is done to a volume while a fault happens: for each path of the product a short script, and what comes before.

A scenario begins with what its `before` has made, on a machine that was unmounted in order, or killed (`killed`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from support.fault_model import CHUNK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import TypeAlias

    from support.fault_actor import Actor

    Script: TypeAlias = Callable[[Actor], Awaitable[None]]

LONG = b"a" * (3 * CHUNK) + b"tail"
"""Several chunks: it lies in a cache file. What fits into one chunk is a row of the metadata."""


@dataclass(frozen=True)
class Scenario:
    """`before` runs undisturbed, and `during` on the tape."""

    before: Script
    during: Script
    killed: bool = False
    """`before` ends with kill -9."""
    elsewhere: bool = False
    """`during` begins with a recovery on another machine."""


async def _nothing(_actor: Actor) -> None:
    """The volume is new."""


async def _files(actor: Actor) -> None:
    """Two long files and a small one in a directory, all in Discord."""
    await actor.make_directory(b"/d")
    await actor.put(b"/long", LONG)
    await actor.put(b"/d/other", b"o" * 2 * CHUNK)
    await actor.put(b"/d/small", b"small content")
    await actor.send()


async def _write(actor: Actor) -> None:
    """Written and synced, a new file and a small one; time enough that it is sent meanwhile."""
    await actor.put(b"/new", b"n" * 2 * CHUNK)
    await actor.fsync(b"/new")
    await actor.put(b"/tiny", b"t")
    await actor.fsync(b"/tiny")
    await actor.write(b"/new", CHUNK, b"N" * 2 * CHUNK)
    await actor.wait(12)
    await actor.write(b"/tiny", 1, b"unsynced")


async def _overwrite(actor: Actor) -> None:
    """What Discord has is written over, in whole chunks and in part, cut and made longer."""
    actor.life.chunks.evict_all()
    await actor.write(b"/d/other", 0, b"whole chunks".ljust(2 * CHUNK, b"!"))
    await actor.fsync(b"/d/small")
    await actor.write(b"/long", CHUNK - 10, b"x" * (CHUNK + 20))
    await actor.fsync(b"/long")
    await actor.write(b"/d/small", 3, b"SMALL")
    await actor.fsync(b"/d/small")
    await actor.truncate(b"/long", 2 * CHUNK - 5)
    await actor.fsync(b"/long")
    await actor.truncate(b"/long", 4 * CHUNK)
    await actor.write(b"/d/small", 0, b"grows" * 1000)
    await actor.wait(12)
    await actor.fsync(b"/d/small")
    await actor.check()


async def _cut_and_grow(actor: Actor) -> None:
    """What was cut, and whose cut was synced, never shows again where the file grows anew; nothing of it was sent."""
    await actor.put(b"/mark", b"m")
    for path, size_bytes in ((b"/some", CHUNK + 100), (b"/all", 0)):
        await actor.put(path, LONG)
        await actor.fsync(path)
        await actor.truncate(path, size_bytes)
        await actor.fsync(path)
    await actor.wait(2)
    await actor.truncate(b"/some", 3 * CHUNK)
    await actor.write(b"/all", 0, b"anew" * 1500)
    await actor.fsync(b"/mark")
    await actor.truncate(b"/all", 0)
    await actor.write(b"/all", 0, b"once more" * 1000)
    await actor.fsync(b"/mark")
    await actor.check()


async def _names(actor: Actor) -> None:
    """The way editors save: a new file, synced, renamed over the old one; and directories."""
    await actor.put(b"/long.new", b"saved" * 1000)
    await actor.fsync(b"/long.new")
    await actor.rename(b"/long.new", b"/long")
    await actor.make_directory(b"/e")
    await actor.rename(b"/d/other", b"/e/moved")
    await actor.sync()
    await actor.unlink(b"/d/small")
    await actor.put(b"/d/small", b"another")
    await actor.wait(12)


async def _trash(actor: Actor) -> None:
    """Deleted, one restored, the other's time passes, and what it took goes from Discord."""
    other, small = actor.model.tree[b"/d/other"], actor.model.tree[b"/d/small"]
    assert other is not None
    assert small is not None
    await actor.unlink(b"/d/other")
    await actor.unlink(b"/d/small")
    await actor.unlink(b"/long")
    await actor.sync()
    await actor.undelete(b"/d/other", other)
    await actor.send()
    await actor.empty_trash()
    await actor.send()
    await actor.sweep()
    await actor.check()


async def _scattered(actor: Actor) -> None:
    """Files of which each message has some."""
    for number in range(4):
        await actor.put(b"/%d" % number, b"%d" % number * (3 * CHUNK + 7))
    await actor.send()
    for number in range(4):
        await actor.write(b"/%d" % number, 0, b"w" * 2 * CHUNK)
    await actor.send()


async def _compact(actor: Actor) -> None:
    """Mostly dead messages are written anew, and the old ones go."""
    await actor.truncate(b"/0", 0)
    await actor.truncate(b"/1", CHUNK)
    await actor.empty_trash()
    await actor.send()
    await actor.compact()
    await actor.put(b"/after", b"x")
    await actor.send()
    await actor.sweep()
    await actor.check()


async def _snapshots(actor: Actor) -> None:
    """One is made, its files are changed and deleted, it is deleted, and what it held goes."""
    await actor.make_snapshot("monday")
    await actor.write(b"/long", 0, b"later" * 1000)
    await actor.unlink(b"/d/other")
    await actor.empty_trash()
    await actor.send()
    await actor.sweep()
    await actor.delete_snapshot("monday")
    await actor.send()
    await actor.sweep()
    await actor.check()


async def _copies(actor: Actor) -> None:
    """Journal upon journal, so that copies follow and old ones go."""
    for number in range(5):
        await actor.put(b"/j%d" % number, b"j")
        await actor.send()
        await actor.wait(20)


async def _unsent(actor: Actor) -> None:
    """What Discord has, what is only here, and a message that arrives when nobody listens any more."""
    await _files(actor)
    await actor.write(b"/long", 0, b"unsent" * 1000)
    await actor.put(b"/only here", b"h" * 3 * CHUNK)
    await actor.fsync(b"/only here")
    await actor.sync()


async def _mount_again(actor: Actor) -> None:
    """It goes on where the last life ended."""
    await actor.check()
    await actor.send()


SCENARIOS: Mapping[str, Scenario] = {
    "write and fsync": Scenario(_nothing, _write),
    "overwrite and truncate": Scenario(_files, _overwrite),
    "cut and grow": Scenario(_nothing, _cut_and_grow),
    "names": Scenario(_files, _names),
    "trash and sweep": Scenario(_files, _trash),
    "compaction": Scenario(_scattered, _compact),
    "snapshots": Scenario(_files, _snapshots),
    "copies and retention": Scenario(_nothing, _copies),
    "mount after a crash": Scenario(_unsent, _mount_again, killed=True),
    "recovery": Scenario(_scattered, _mount_again, elsewhere=True),
}
