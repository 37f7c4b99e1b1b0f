"""Clocks jump: Discord's as seen from here, and this machine's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from support.trouble import MIB, eventually, problems, read_cold, sync, write

from disfs.chunkstore.transport.urls import UrlCache
from disfs.values import AttachmentId

if TYPE_CHECKING:
    from support.product import Product

DAY_SECONDS = 86_400
NOW = 1_800_000_000.0


class WallClock:
    """This machine's clock, as somebody sets it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def url_of(urls: UrlCache, attachment: int) -> str | None:
    """What would be used to fetch an attachment."""
    known = urls.usable(AttachmentId(attachment))
    return None if known is None else known.url


@pytest.mark.parametrize("jump_days", [-400, -1, 1, 400])
def test_a_wall_clock_that_jumps_never_makes_addresses_useless_for_long(jump_days: int) -> None:
    """An address from before the jump may be renewed or used; one that Discord gives after it is good at once, even
    where our clock says that it has expired, so that no read asks for a new one again and again."""
    clock = WallClock()
    urls = UrlCache(now=clock, monotonic=lambda: 0.0)
    signed = f"https://cdn.example/1/2/pack?ex={int(NOW + DAY_SECONDS):x}&is=0&hm=0"
    urls.remember(AttachmentId(1), signed, 1000)
    clock.now += jump_days * DAY_SECONDS
    urls.remember(AttachmentId(2), signed, 1000)

    assert signed == url_of(urls, 2)


def test_address_from_before_a_sleep_is_not_taken_for_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the machine sleeps addresses grow old as well: the clock that says how new one is goes on."""
    asked: list[int] = []

    def clock_gettime(clock: int) -> float:
        asked.append(clock)
        return NOW + 1000.0 * len(asked)

    monkeypatch.setattr("time.clock_gettime", clock_gettime)
    urls = UrlCache(now=lambda: NOW + 2 * DAY_SECONDS)
    urls.remember(AttachmentId(1), f"https://cdn.example/1/2/pack?ex={int(NOW + DAY_SECONDS):x}&is=0&hm=0", 1000)
    assert url_of(urls, 1) is None
    assert {time.CLOCK_BOOTTIME} == set(asked)


@pytest.mark.fuse
@pytest.mark.slow
def test_clock_jumps_are_survived(disk: Product) -> None:
    """Discord's clock, as seen from here, jumps a month ahead and back: addresses of files that have expired are
    renewed, sending goes on, and what is deleted then is swept."""
    content = {"first": write(disk, "first", 2 * MIB)}
    sync(disk)
    disk.umount()
    disk.drop_cache()
    disk.mount("-o", "sweep_grace=0,trash_days=0")
    assert content["first"][:4096] == read_cold(disk.mountpoint / "first", 0, 4096)
    disk.control("POST", "/clock", {"seconds": 30 * DAY_SECONDS})
    assert content["first"] == read_cold(disk.mountpoint / "first")
    content["second"] = write(disk, "second", 2 * MIB)
    sync(disk)
    disk.control("POST", "/clock", {"seconds": -30 * DAY_SECONDS})
    content["third"] = write(disk, "third", 2 * MIB)
    sync(disk)
    del content["first"]
    (disk.mountpoint / "first").unlink()
    eventually(disk, lambda: disk.status()["sweep"]["swept_messages"] >= 1)

    assert [] == problems(disk)
    disk.cold()
    assert content == {name: (disk.mountpoint / name).read_bytes() for name in content}
