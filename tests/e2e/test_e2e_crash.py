"""After kill -9 at any instant the volume mounts again by itself, with no fsck, and everything fsynced is there."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from support.trees import differences, manifest

if TYPE_CHECKING:
    from pathlib import Path

    from support.product import Product

pytestmark = pytest.mark.fuse


def fsynced_copies(target: Path, kept: dict[str, bytes], stop: threading.Event) -> None:
    """Write files until told or until the mount dies; note each one only after it and its directory are fsynced."""
    target.mkdir()
    number = 0
    try:
        while not stop.is_set():
            name, content = f"f{number}", os.urandom(1000 + 37_000 * (number % 9))
            with (target / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            directory = os.open(target, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
            kept[name] = content
            number += 1
    except OSError:
        return


@pytest.mark.parametrize("files_before_kill", [3, 40])
def test_kill_in_the_middle_of_a_copy(disk: Product, files_before_kill: int) -> None:
    """kill -9 while a copy runs; the next mount, umount and a cold mount show every fsynced file unchanged."""
    kept: dict[str, bytes] = {}
    stop = threading.Event()
    target = disk.mountpoint / "copy"
    writer = threading.Thread(target=fsynced_copies, args=(target, kept, stop))
    writer.start()
    try:
        while len(kept) < files_before_kill and writer.is_alive():
            writer.join(0.01)
        disk.kill()
    finally:
        stop.set()
        writer.join(60)
    assert not writer.is_alive()
    expected = dict(kept)
    assert len(expected) >= files_before_kill

    disk.mount()
    assert expected == {name: (target / name).read_bytes() for name in expected}
    (target / "after").write_bytes(b"the mount is alive")
    before = manifest(disk.mountpoint)
    disk.cold()
    assert [] == differences(before, manifest(disk.mountpoint))
    assert expected == {name: (target / name).read_bytes() for name in expected}


def test_dirty_data_survives_an_unmount_that_does_not_wait(disk: Product) -> None:
    """umount --no-wait keeps what was not sent; the next mount has it and sends it."""
    content = os.urandom(3_000_000)
    (disk.mountpoint / "later").write_bytes(content)
    disk.umount("--no-wait")
    disk.mount()
    assert content == (disk.mountpoint / "later").read_bytes()
    disk.cold()
    assert content == (disk.mountpoint / "later").read_bytes()


def test_an_external_unmount_loses_nothing(disk: Product) -> None:
    """After fusermount3 -u the daemon ends by itself, and the next mount goes on uploading."""
    content = os.urandom(2_000_000)
    (disk.mountpoint / "file").write_bytes(content)
    pid = disk.pid()
    disk.clear_mount()
    disk._wait_gone(pid)
    disk.mount()
    disk.cold()
    assert content == (disk.mountpoint / "file").read_bytes()


def test_an_overwritten_file_keeps_its_newest_bytes_over_a_crash(disk: Product) -> None:
    """Sent once, overwritten in part, fsynced, killed: the newest bytes are there, warm and cold."""
    path = disk.mountpoint / "file"
    content = bytearray(os.urandom(1_000_000))
    path.write_bytes(content)
    disk.run("sync", str(disk.mountpoint))
    content[400_000:400_010] = b"0123456789"
    with path.open("r+b") as file:
        file.seek(400_000)
        file.write(b"0123456789")
        file.flush()
        os.fsync(file.fileno())
    disk.kill()
    disk.mount()
    assert bytes(content) == path.read_bytes()
    disk.cold()
    assert bytes(content) == path.read_bytes()


def test_small_files_that_grow_over_a_crash(disk: Product) -> None:
    """Small files that are fsynced and grown past what is kept in the metadata: after kill -9 each begins with what was
    fsynced and has nothing that was not written; a cold mount shows the same."""
    target = disk.mountpoint / "small"
    target.mkdir()
    fsynced: dict[str, bytes] = {}
    written: dict[str, bytes] = {}
    for number in range(60):
        name, parts = f"f{number}", [os.urandom(500 + 900 * (number % 7)) for _ in range(1 + number % 6)]
        with (target / name).open("wb", buffering=0) as file:
            for position, part in enumerate(parts):
                file.write(part)
                if position <= number % 3:
                    os.fsync(file.fileno())
                    fsynced[name] = b"".join(parts[: position + 1])
            file.write(tail := os.urandom(4000 * (number % 5)))
        written[name] = b"".join(parts) + tail
    directory = os.open(target, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    disk.kill()
    disk.mount()
    found = {name: (target / name).read_bytes() for name in fsynced}
    assert [] == [name for name in found if not found[name].startswith(fsynced[name])]
    assert [] == [name for name in found if not written[name].startswith(found[name])]
    for name in found:
        with (target / name).open("ab") as file:
            file.write(b"after")
    disk.cold()
    assert {name: content + b"after" for name, content in found.items()} == {
        name: (target / name).read_bytes() for name in found
    }
