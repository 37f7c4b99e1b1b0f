"""What a refusal for size teaches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from disfs.chunkstore.sizes import SizeLimits

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
