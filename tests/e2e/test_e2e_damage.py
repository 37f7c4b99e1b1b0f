"""No reader ever sees bytes that fail authentication: the read is EIO, a log line names the file, and other files
are not affected."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.product import Product

pytestmark = pytest.mark.fuse


def separate_packs(disk: Product) -> dict[str, bytes]:
    """Two files that went to Discord in packs of their own."""
    contents = {}
    for name in ("first", "second"):
        contents[name] = os.urandom(300_000)
        (disk.mountpoint / name).write_bytes(contents[name])
        disk.run("sync", str(disk.mountpoint))
    disk.umount()
    disk.drop_cache()
    return contents


def packs_by_age(disk: Product) -> list[str]:
    """The emulator's files that hold the data packs, oldest first."""
    found = [
        p
        for p in (disk.emulator_directory / "blobs").rglob("*")
        if p.is_file() and 300_000 <= p.stat().st_size < 400_000
    ]
    return [str(p) for p in sorted(found, key=lambda p: p.stat().st_mtime_ns)]


def test_a_corrupt_pack_hurts_its_file_alone(disk: Product) -> None:
    """One flipped bit in Discord: reading that file is EIO, the log names it, the other file is whole."""
    contents = separate_packs(disk)
    packs = packs_by_age(disk)
    assert 2 == len(packs)
    with open(packs[0], "r+b") as file:
        file.seek(150_000)
        byte = file.read(1)[0]
        file.seek(150_000)
        file.write(bytes([byte ^ 1]))
    disk.mount()
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        (disk.mountpoint / "first").read_bytes()
    assert contents["second"] == (disk.mountpoint / "second").read_bytes()
    assert "first" in disk.log()


def test_a_vanished_message_hurts_its_file_alone(disk: Product) -> None:
    """A message that somebody deleted: reading its file is EIO, the other file is whole."""
    contents = separate_packs(disk)
    disk.delete_message(min(disk.data_messages()))
    disk.mount()
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        (disk.mountpoint / "first").read_bytes()
    assert contents["second"] == (disk.mountpoint / "second").read_bytes()
