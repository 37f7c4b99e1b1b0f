"""What the kernel does not ask: it may remember all that it was told, since every change passes through it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.product import Product


def asked(disk: Product) -> Counter[str]:
    """How many requests of each kind have reached the daemon so far."""
    return Counter(disk.status()["kernel_requests"])


def test_close_is_no_request(disk: Product) -> None:
    """Only the first close of a mount asks whether there is anything to do; what was written is there all the same."""
    for number in range(10):
        (disk.mountpoint / f"{number}").write_bytes(b"x" * number)
    assert 1 == asked(disk)["flush"]
    assert list(range(10)) == [len((disk.mountpoint / f"{number}").read_bytes()) for number in range(10)]


def test_what_was_read_and_looked_up_once_is_not_asked_for_again(disk: Product) -> None:
    """Names, absent names, attributes and contents come from the kernel the second time."""

    def look() -> None:
        for number in range(20):
            path = disk.mountpoint / f"{number}"
            assert path.exists() == (number < 10)
            if number < 10:
                assert path.read_bytes() == b"x" * 5000
                assert 5000 == path.stat().st_size

    for number in range(10):
        (disk.mountpoint / f"{number}").write_bytes(b"x" * 5000)
    asked(disk)  # a moment later: a read in the very tick of the write would leave the atime due
    look()
    before = asked(disk)
    look()
    # Opening and closing are always asked; a directory's attributes, when something was read in it.
    assert {"open", "release"} == set(asked(disk) - before) - {"getattr", "statfs"}
