"""Mount options and sizes."""

from __future__ import annotations

import datetime

import pytest

from disfs.config import VolumeSettings
from disfs.errors import ExitCode, UserError
from disfs.metadata.base import Atime
from disfs.mount_options import Behaviour, parse_options
from disfs.quantities import Bandwidth, human_count, human_duration, parse_bandwidth, parse_moment, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("0", 0), ("4096", 4096), ("1K", 1024), ("20m", 20 << 20), ("1G", 1 << 30), ("1GiB", 1 << 30), ("2 TB", 2 << 40)],
)
def test_size_is_read_as_people_write_it(text: str, size_bytes: int) -> None:
    """Sizes take the usual suffixes, all of them powers of two."""
    assert size_bytes == parse_size(text)


@pytest.mark.parametrize("text", ["", "G", "-1", "1.5G", "1X", "1 G B", "9" * 5000])
def test_size_that_is_none_is_refused(text: str) -> None:
    """What is no size raises ValueError."""
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


def test_options_are_sorted_by_whom_they_concern() -> None:
    """Our settings, the kernel's flags and fstab's words go to their places, from several -o alike."""
    parsed = parse_options(
        ("ro,cache_size=1G,defaults,kernel_cache=0", "allow_other,x-systemd.automount,writeback_delay=0.5,,_netdev")
    )
    assert frozenset({"ro", "allow_other"}) == parsed.flags
    settings = parsed.apply(VolumeSettings())
    assert (1 << 30, 0.5) == (settings.cache_bytes, settings.writeback_delay_seconds)
    assert 0 == settings.kernel_cache_seconds


def test_last_of_opposite_options_counts() -> None:
    """As for mount(8): an option revokes its opposite before it, and only that."""
    parsed = parse_options(("ro,noexec,sync,strictatime,nodiratime", "rw,exec,async,noatime,diratime,allow_other"))
    assert frozenset({"rw", "exec", "async", "noatime", "diratime", "allow_other"}) == parsed.flags
    assert frozenset({"rw", "exec", "async", "noatime", "allow_other"}) == parsed.kernel_flags
    assert Behaviour(atime=Atime.NEVER, directory_atime=Atime.NEVER) == parsed.behaviour


@pytest.mark.parametrize(
    ("options", "behaviour"),
    [
        ("", Behaviour()),
        ("ro", Behaviour(read_only=True, atime=Atime.NEVER, directory_atime=Atime.NEVER)),
        ("ro,strictatime", Behaviour(read_only=True, atime=Atime.NEVER, directory_atime=Atime.NEVER)),
        ("strictatime", Behaviour(atime=Atime.STRICT, directory_atime=Atime.STRICT)),
        ("nodiratime", Behaviour(directory_atime=Atime.NEVER)),
        ("dirsync", Behaviour(syncs_names=True)),
        ("sync", Behaviour(syncs_names=True, syncs_everything=True)),
        ("fsync=remote", Behaviour(syncs_remotely=True)),
        ("fsync=remote,fsync=local", Behaviour()),
    ],
)
def test_flags_say_how_the_daemon_behaves(options: str, behaviour: Behaviour) -> None:
    """What the kernel leaves to the daemon is asked of the daemon."""
    assert behaviour == parse_options((options,)).behaviour


def test_words_of_fstab_are_taken_and_dropped() -> None:
    """What mount(8), systemd and desktops put among the options is not ours."""
    words = "defaults,user=joe,users,nofail,_netdev,comment=x-gvfs-show,x-systemd.idle-timeout=1min,X-mount.mkdir"
    assert frozenset() == parse_options((words,)).flags


def test_everybody_and_root_alone_exclude_one_another() -> None:
    """allow_other and allow_root together make no sense, and are refused in one line."""
    with pytest.raises(UserError, match="exclude one another") as caught:
        parse_options(("allow_other,allow_root",))
    assert ExitCode.USAGE == caught.value.exit_code


def test_size_of_the_volume_is_an_option() -> None:
    """--size and -o size= say how large the volume may be; less than 1 MiB is refused."""
    parsed = parse_options(("size=100G",))
    assert None is VolumeSettings().size_bytes
    assert 100 << 30 == parsed.apply(VolumeSettings()).size_bytes
    assert 2 << 50 == parsed.overruled("--size", "2P").apply(VolumeSettings()).size_bytes
    with pytest.raises(UserError, match="-o size must lie between 1 MiB and 1024 PiB"):
        parse_options(("size=1023K",)).apply(VolumeSettings())


@pytest.mark.parametrize(("word", "keeps"), [("on", True), ("off", False)])
def test_kernel_listings_are_a_switch(word: str, keeps: bool) -> None:
    """The kernel keeps listings unless it is told not to; anything but on and off is refused."""
    assert VolumeSettings().kernel_listings
    assert keeps == parse_options((f"kernel_listings={word}",)).apply(VolumeSettings()).kernel_listings


@pytest.mark.parametrize(("options", "has_acls"), [("", True), ("acl", True), ("noacl", False), ("noacl,acl", True)])
def test_acls_can_be_switched_off(options: str, has_acls: bool) -> None:
    """They are on unless somebody says noacl; the last word counts."""
    parsed = parse_options((options,))
    assert (has_acls, frozenset()) == (parsed.apply(VolumeSettings()).has_acls, parsed.flags)


@pytest.mark.parametrize(
    "option",
    [
        "frobnicate",
        "kernel_listings=maybe",
        "noacl=1",
        "cache_size",
        "cache_size=",
        "cache_size=big",
        "writeback_delay=x",
        "ro=1",
        "fsname=x",
        "bwlimit=fast",
        "bwlimit=0",
        "readahead=far",
        "kernel_cache=off",
    ],
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


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("off", Bandwidth()),
        ("OFF:off", Bandwidth()),
        ("10M", Bandwidth(10 << 20, 10 << 20)),
        ("512K:4M", Bandwidth(512 << 10, 4 << 20)),
        ("off:4M", Bandwidth(None, 4 << 20)),
        (" 2MiB : off ", Bandwidth(2 << 20, None)),
    ],
)
def test_bandwidth_is_read_as_people_write_it(text: str, limit: Bandwidth) -> None:
    """UP:DOWN, one number for both, or off; what is kept in a file reads back equal."""
    assert limit == parse_bandwidth(text)
    assert limit == parse_bandwidth(limit.to_option())


@pytest.mark.parametrize("text", ["", ":", "1M:", ":1M", "1M:2M:3M", "fast", "-1", "0", "0:off", "1023", "9999999T"])
def test_bandwidth_that_is_none_is_refused(text: str) -> None:
    """What is no limit, or one that would stop everything, raises ValueError."""
    with pytest.raises(ValueError, match="bandwidth limit"):
        parse_bandwidth(text)


def test_options_with_a_name_of_their_own_overrule_o() -> None:
    """--bwlimit and --cache-size win over -o, and their mistakes are told by the name that was typed."""
    parsed = parse_options(("bwlimit=1M,cache_size=1G,readahead=0",)).overruled("--bwlimit", "2M:off")
    settings = parsed.overruled("--cache-size", "2G").apply(VolumeSettings())
    assert (Bandwidth(2 << 20), 2 << 30, 0) == (settings.bandwidth, settings.cache_bytes, settings.readahead_bytes)
    with pytest.raises(UserError, match=r"^--bwlimit: 'x' is not a bandwidth limit") as caught:
        parsed.overruled("--bwlimit", "x")
    assert ExitCode.USAGE == caught.value.exit_code


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "1 h"),
        (7500, "2 h 5 min"),
        (86_400 * 3, "3 days"),
        (-1, "0 s"),
    ],
)
def test_duration_is_shown_as_people_say_it(seconds: float, text: str) -> None:
    """A duration has at most two units."""
    assert text == human_duration(seconds)


def test_count_has_its_plural() -> None:
    """One file, two files."""
    assert ["1 file", "0 files", "2 fetches"] == [
        human_count(1, "file"),
        human_count(0, "file"),
        human_count(2, "fetch", "fetches"),
    ]


NOW = datetime.datetime(2026, 11, 25, 12, 0, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", NOW - datetime.timedelta(seconds=90)),
        ("2h", NOW - datetime.timedelta(hours=2)),
        (" 3 D ", NOW - datetime.timedelta(days=3)),
        ("1w", NOW - datetime.timedelta(weeks=1)),
        ("2026-11-25 10:00+00:00", NOW - datetime.timedelta(hours=2)),
        ("2026-11-20", datetime.datetime(2026, 11, 20).astimezone()),
        ("2026-11-20 10:30", datetime.datetime(2026, 11, 20, 10, 30).astimezone()),
    ],
)
def test_moment_is_what_a_person_means(text: str, moment: datetime.datetime) -> None:
    """So long ago, or a date of here."""
    assert moment == parse_moment(text, NOW)


@pytest.mark.parametrize("text", ["", "2", "h", "2 fortnights", "yesterday", "2026-13-01", "2026-11-26", "999999999w"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    """Neither is what lies in the future."""
    with pytest.raises(ValueError, match=r"is not a time|lies in the future"):
        parse_moment(text, NOW)
