"""`--size` and `-o ro` of the installed program, on a volume that lies in Discord."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from support.product import product
from support.trouble import told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.product import Product

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
MIB = 1 << 20
SIZE = 24 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Product]:
    """A home without a volume yet."""
    with product(tmp_path) as found:
        yield found


def used(disk: Product) -> tuple[int, int]:
    """What statfs says: how large the volume is, and how much of it is used."""
    found = os.statvfs(disk.mountpoint)
    return found.f_blocks * found.f_frsize, (found.f_blocks - found.f_bfree) * found.f_frsize


def test_size_of_a_volume_holds_over_sending_and_remounting(disk: Product) -> None:
    """A volume is as large as --size says, wherever its contents lie; the file of its settings can say so too, and
    without either there is no limit that anybody would notice."""
    disk.mount("--size", str(SIZE))
    data = os.urandom(16 * MIB)
    (disk.mountpoint / "file").write_bytes(data)
    assert (SIZE, 16 * MIB) == used(disk)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        (disk.mountpoint / "other").write_bytes(os.urandom(9 * MIB))
    (disk.mountpoint / "other").unlink()
    disk.umount()

    disk.drop_cache()
    settings = disk.home / "config" / "volumes" / "emulator.toml"
    settings.write_text(settings.read_text() + f"\n[settings]\nsize_bytes = {SIZE}\n")
    disk.mount()
    assert (SIZE, 16 * MIB) == used(disk)
    with (disk.mountpoint / "file").open("r+b") as file:
        file.seek(MIB)
        file.write(b"overwritten on a volume that is nearly full")
    assert data[: MIB // 2] == (disk.mountpoint / "file").read_bytes()[: MIB // 2]
    (disk.mountpoint / "other").write_bytes(os.urandom(8 * MIB))
    assert (SIZE, SIZE) == used(disk)
    disk.umount()

    disk.mount("-o", "size=1P")
    assert (1 << 50, SIZE) == used(disk)


def test_read_only_mount_reads_and_changes_nothing_in_discord(disk: Product) -> None:
    """-o ro: contents come from Discord, writes are EROFS, and what lies in Discord stays as it was."""
    disk.mount("-o", "sweep_grace=0,trash_days=0")
    data = os.urandom(2 * MIB)
    (disk.mountpoint / "file").write_bytes(data)
    (disk.mountpoint / "garbage").write_bytes(data)
    disk.run("sync", str(disk.mountpoint))
    disk.run("umount", str(disk.mountpoint))
    disk.drop_cache()
    before = sorted(disk.data_messages())

    disk.mount("-o", "ro,sweep_grace=0,trash_days=0")
    assert data == (disk.mountpoint / "file").read_bytes()
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        (disk.mountpoint / "garbage").unlink()
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        (disk.mountpoint / "new").touch()
    assert "problem" not in told(disk)
    disk.umount()
    assert before == sorted(disk.data_messages())

    disk.mount()
    assert ["file", "garbage"] == sorted(path.name for path in disk.mountpoint.iterdir())
    (disk.mountpoint / "garbage").unlink()
