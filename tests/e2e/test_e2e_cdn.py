"""A CDN that does something else than it is asked for: readers get their bytes or wait, never anything else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from support.trouble import MIB, fault, no_faults, problems, read_cold, settings, sync, told, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.product import Product

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


@pytest.fixture
def disk(shared_disk: Product) -> Iterator[Product]:
    """The volume of all tests here; the next one finds Discord as it should be."""
    yield shared_disk
    no_faults(shared_disk)
    settings(shared_disk, ignore_range=False)


def test_a_cdn_that_ignores_ranges_gives_the_right_bytes(disk: Product) -> None:
    """The CDN sends whole attachments instead of the ranges asked for: every read gets its own bytes, and status says
    what the CDN does."""
    content = write(disk, "ranges", 6 * MIB)
    sync(disk)
    disk.cold()
    settings(disk, ignore_range=True)
    for start in (5 * MIB + 17, 3 * MIB, 0):
        assert content[start : start + 4096] == read_cold(disk.mountpoint / "ranges", start, 4096)
    assert content == read_cold(disk.mountpoint / "ranges")
    assert "the CDN sent a whole attachment where a part was asked for" in told(disk)
    assert (0, []) == (disk.status()["fetch"]["damaged_chunks"], problems(disk))


@pytest.mark.parametrize("page_bytes", [0, 8 * MIB], ids=["short", "long"])
def test_a_page_of_html_in_the_place_of_a_file_is_waited_out(disk: Product, page_bytes: int) -> None:
    """Somebody on the way answers a web page with status 200: the reader waits and status says what comes instead; when
    it is over the reader has the right bytes, and nothing counts as damaged."""
    name = f"page of {page_bytes}"
    content = write(disk, name, MIB)
    sync(disk)
    disk.cold()
    fault(disk, kind="html", route="cdn_get", bytes=page_bytes)
    with ThreadPoolExecutor(1) as readers:
        reading = readers.submit(read_cold, disk.mountpoint / name)
        disk.wait_for(lambda: bool(problems(disk)) or reading.done(), seconds=20)
        complaint = " ".join(problems(disk)).lower()
        no_faults(disk)
        assert content == reading.result()

    assert "page" in complaint, complaint
    assert (0, []) == (disk.status()["fetch"]["damaged_chunks"], problems(disk))
