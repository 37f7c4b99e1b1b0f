"""Mount options and sizes."""

from __future__ import annotations

import pytest

from disfs.config import VolumeSettings
from disfs.errors import ExitCode, UserError
from disfs.mount_options import parse_options
from disfs.quantities import parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("0", 0), ("4096", 4096), ("1K", 1024), ("20m", 20 << 20), ("1G", 1 << 30), ("1GiB", 1 << 30), ("2 TB", 2 << 40)],
)
def test_size_is_read_as_people_write_it(text: str, size_bytes: int) -> None:
    """Sizes take the usual suffixes, all of them powers of two."""
    assert size_bytes == parse_size(text)


@pytest.mark.parametrize("text", ["", "G", "-1", "1.5G", "1X", "1 G B"])
def test_size_that_is_none_is_refused(text: str) -> None:
    """What is no size raises ValueError."""
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


def test_options_are_sorted_by_whom_they_concern() -> None:
    """Our settings, the kernel's flags and fstab's words go to their places, from several -o alike."""
    parsed = parse_options(
        ("ro,cache_size=1G,defaults", "allow_other,x-systemd.automount,writeback_delay=0.5,,_netdev")
    )
    assert frozenset({"ro", "allow_other"}) == parsed.flags
    settings = parsed.apply(VolumeSettings())
    assert (1 << 30, 0.5) == (settings.cache_bytes, settings.writeback_delay_seconds)


@pytest.mark.parametrize(
    "option", ["frobnicate", "cache_size", "cache_size=", "cache_size=big", "writeback_delay=x", "ro=1", "fsname=x"]
)
def test_unknown_option_is_a_usage_error(option: str) -> None:
    """What nobody knows, or the daemon sets itself, is refused by name."""
    with pytest.raises(UserError, match=option) as caught:
        parse_options((option,))
    assert ExitCode.USAGE == caught.value.exit_code


def test_value_out_of_bounds_is_a_usage_error() -> None:
    """A cache of no use is refused before anything is mounted, by the name that was typed."""
    with pytest.raises(UserError, match="-o cache_size must be at least 16 MiB") as caught:
        parse_options(("cache_size=1K",)).apply(VolumeSettings())
    assert ExitCode.USAGE == caught.value.exit_code
