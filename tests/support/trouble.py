"""Long-lasting trouble for a mounted volume, and what a person sees of it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.product import Product

MIB = 1 << 20


def told(disk: Product) -> str:
    """What `disfs status` prints for a person."""
    return disk.run("status", str(disk.mountpoint)).stdout


def problems(disk: Product) -> list[str]:
    """The lines of it that say what is wrong."""
    return [line for line in told(disk).splitlines() if line.startswith("problem")]


def sync(disk: Product) -> None:
    """Return when everything is in Discord."""
    disk.run("sync", str(disk.mountpoint))


def settings(disk: Product, **changes: Any) -> None:
    """Change the emulator's settings."""
    disk.control("PATCH", "/settings", changes)


def fault(disk: Product, **fields: Any) -> None:
    """A failure that lasts until `no_faults`."""
    disk.control("POST", "/faults", {"count": None, **fields})


def fired(disk: Product) -> int:
    """How often the faults that are in force have hit."""
    return sum(rule["fired"] for rule in disk.control("GET", "/faults"))


def no_faults(disk: Product) -> None:
    """End what `fault` began."""
    disk.control("DELETE", "/faults")


def write(disk: Product, name: str, size_bytes: int) -> bytes:
    """A new file of random bytes; returns them."""
    content = os.urandom(size_bytes)
    (disk.mountpoint / name).write_bytes(content)
    return content


def read_cold(path: Path, start: int = 0, length: int | None = None) -> bytes:
    """A part of a file, or all of it, asked of the daemon and not of the kernel's page cache."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(file.fileno(), path.stat().st_size if length is None else length, start)


def data_channels(disk: Product) -> dict[int, int]:
    """The volume's data channels, and how many messages each holds."""
    guild = disk.emulator()["guild_id"]
    listed = disk.api("GET", f"/guilds/{guild}/channels")
    counts = {int(c["id"]): 0 for c in listed if c["type"] == 0 and "data" in c["name"]}
    for _, channel in disk.data_messages():
        counts[channel] += 1
    return counts


def unknown_messages(disk: Product) -> set[int]:
    """Messages with packs in Discord that the volume's metadata does not know of, and so would never delete."""
    # Discord first: what is sent between the two looks is then no false alarm.
    stored = {message for message, _ in disk.data_messages()}
    path = next(disk.home.glob("state/volumes/*/metadata.db"))
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as metadata:
        return stored - {message for (message,) in metadata.execute("SELECT message FROM messages")}


def eventually(disk: Product, condition: Callable[[], bool]) -> None:
    """A daemon that tries again on its own may take as long as its pause between two tries."""
    disk.wait_for(condition, seconds=40)
