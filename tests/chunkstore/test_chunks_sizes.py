"""What refusals, failures and durations teach about sizes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disfs.chunkstore.sizes import SizeLimits, UploadRate, write_delay_seconds

FLOOR = 100


def limits(*, attachment_bytes: int = 1000, message_bytes: int = 2400) -> SizeLimits:
    """What is known at the start."""
    return SizeLimits(attachment_bytes=attachment_bytes, message_bytes=message_bytes, floor_bytes=FLOOR)


def test_guess_below_the_floor_is_raised() -> None:
    """A pack of one chunk fits, whatever was set."""
    known = limits(attachment_bytes=1, message_bytes=1)
    assert (FLOOR, FLOOR) == (known.attachment_bytes, known.message_bytes)


def test_unknown_size_refused_lowers_the_attachment() -> None:
    """When nothing so large was taken before, the attachment is what was too large."""
    known = limits()
    assert known.refused([1000, 1000])
    assert (750, 2400) == (known.attachment_bytes, known.message_bytes)


def test_known_size_refused_lowers_the_message() -> None:
    """When each attachment was taken before, only the message can have been too large."""
    known = limits()
    known.accepted([1000])
    assert known.refused([1000, 1000])
    assert (1000, 1500) == (known.attachment_bytes, known.message_bytes)


def test_lone_known_size_refused_forgets_that_it_was_taken() -> None:
    """Limits that fell meanwhile are learned anew, for attachments first."""
    known = limits()
    known.accepted([1000])
    assert known.refused([1000])
    assert known.refused([760, 760])
    assert (570, 2400) == (known.attachment_bytes, known.message_bytes)


def test_smallest_pack_refused_is_the_end() -> None:
    """One pack of one chunk cannot be made smaller."""
    assert not limits().refused([FLOOR])


@given(taken_bytes=st.integers(FLOOR, 10_000), message_taken_bytes=st.integers(FLOOR, 30_000))
def test_refusals_end(taken_bytes: int, message_taken_bytes: int) -> None:
    """Whatever Discord takes, from one chunk a message up, a few refusals lead there."""
    known = limits(attachment_bytes=10_000, message_bytes=24_000)
    for _ in range(60):
        count = max(1, known.message_bytes // known.attachment_bytes)
        sizes = [min(known.attachment_bytes, known.message_bytes)] * count
        if max(sizes) <= taken_bytes and sum(sizes) <= message_taken_bytes:
            return
        assert known.refused(sizes)
    raise AssertionError("it never sends less than is refused")


def test_slow_link_shrinks_messages() -> None:
    """A message that took too long is followed by smaller ones, until one takes no longer than it should."""
    known = limits()
    for _ in range(8):
        size = known.message_bytes
        known.accepted([size], seconds=size / 50)  # 50 bytes a second: 500 in the ten seconds that a message may take
    assert 400 <= known.message_bytes <= 500


def test_quick_link_grows_messages_again() -> None:
    """When the link is quick again, messages grow to what was set."""
    known = limits()
    known.accepted([2400], seconds=40.0)
    assert 1200 == known.message_bytes
    for _ in range(10):
        known.accepted([known.message_bytes], seconds=1.0)
    assert 2400 == known.message_bytes


def test_small_message_says_nothing_about_the_link() -> None:
    """A small message that waited long does not shrink the others."""
    known = limits()
    known.accepted([100], seconds=60.0)
    assert 2400 == known.message_bytes


def test_failed_message_is_halved() -> None:
    """A failure halves messages, down to one chunk; several at once do not count twice."""
    known = limits()
    known.failed([1000, 1000, 400])
    known.failed([1000, 1000, 400])
    assert 1200 == known.message_bytes
    for _ in range(10):
        known.failed([known.message_bytes])
    assert FLOOR == known.message_bytes


def test_outage_is_soon_forgotten() -> None:
    """After an outage messages double with each success up to half of what failed first, and grow slowly beyond."""
    known = limits()
    for _ in range(10):
        known.failed([known.message_bytes])
    grown = []
    for _ in range(8):
        known.accepted([known.message_bytes], seconds=0.1)
        grown.append(known.message_bytes)
    assert [200, 400, 800, 1600, 2000, 2400, 2400, 2400] == grown


def test_lowered_limit_is_tried_upwards() -> None:
    """After enough successes close to a lowered limit more is tried, in the end as much as before."""
    known = limits()
    assert known.refused([1000])
    for _ in range(500):
        known.accepted([known.attachment_bytes])
    assert 1000 == known.attachment_bytes


def test_refused_attempts_become_rare() -> None:
    """While Discord keeps to its lower limit, attempts at more are ever more seldom, and change nothing for long."""
    known = limits()
    assert known.refused([1000])
    proven = known.attachment_bytes
    refusals = []
    for number in range(3000):
        if known.attachment_bytes > proven:
            assert known.refused([known.attachment_bytes])
            assert proven == known.attachment_bytes
            refusals.append(number)
        else:
            known.accepted([known.attachment_bytes])
    gaps = [later - earlier for earlier, later in itertools.pairwise(refusals)]
    assert len(refusals) <= 7
    assert gaps == sorted(gaps)


def test_offer_raises_the_limit() -> None:
    """A guild that is learnt to allow more, or less, is believed; the same news twice forgets no refusal."""
    known = limits()
    known.offered(5000)
    assert 5000 == known.attachment_bytes
    assert known.refused([4000])
    known.offered(5000)
    assert 3000 == known.attachment_bytes
    known.offered(800)
    assert 800 == known.attachment_bytes


def test_both_are_suspected_in_turn() -> None:
    """When messages of known sizes are refused again and again, not the message alone is made smaller."""
    known = limits()
    known.accepted([1000])
    assert known.refused([1000, 1000, 400])
    assert known.refused([1000, 800])
    assert (750, 1800) == (known.attachment_bytes, known.message_bytes)


def test_rate_is_that_of_busy_times() -> None:
    """The upload rate counts time in which something is on its way, however many messages share it, and no other."""
    rate = UploadRate()
    assert rate.bytes_per_second is None
    rate.began(0.0)
    rate.began(0.0)
    rate.ended(2.0, 100)
    rate.ended(2.0, 100)
    rate.began(1000.0)
    rate.ended(1002.0, 200)
    assert rate.bytes_per_second == pytest.approx(100, rel=0.05)


def test_writers_meet_the_limit_softly() -> None:
    """Below the soft mark a write waits for nothing; at the limit as long as its upload takes; a second at the most."""
    assert 0.0 == write_delay_seconds(100, 750, 750, 1000, 50.0)
    assert 0.5 == write_delay_seconds(50, 875, 750, 1000, 50.0)
    assert 1.0 == write_delay_seconds(50, 1000, 750, 1000, 50.0)
    assert 1.0 == write_delay_seconds(5000, 1000, 750, 1000, 50.0)
    assert 0.0 == write_delay_seconds(0, 1000, 750, 1000, 50.0)
