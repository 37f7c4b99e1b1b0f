"""Which state is rebuilt, from which shipments: whole ones, damaged ones, and those of two machines."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from support.shipments import OTHER_DEVICE, header, seen, state

from disfs.chunkstore.codec import PackKind
from disfs.recovery.chain import Chain, gather

if TYPE_CHECKING:
    from disfs.recovery.chain import SeenPart
    from disfs.recovery.frames import Header

COPY, JOURNAL = PackKind.CHECKPOINT, PackKind.JOURNAL


def chain(*parts: list[SeenPart]) -> Chain:
    """Of all parts, which come in any order."""
    return Chain(gather([part for each in reversed(parts) for part in reversed(each)]))


def heads(found: Chain) -> list[str]:
    """The names of the newest states that can be rebuilt."""
    return [head.header.state.decode().rstrip(".") for head in found.heads()]


def steps(found: Chain, name: str) -> list[tuple[str, str]] | None:
    """What a state is rebuilt from."""
    plan = found.plan(state(name))
    if plan is None:
        return None
    used = [plan.copy, *plan.journals]
    return [(each.kind.name, each.header.state.decode().rstrip(".")) for each in used]


A, B, C, D = header("a"), header("b", "a", 2), header("c", "b", 3), header("d", "c", 4)


def copy_of(head: Header, name: str) -> Header:
    """The header of a copy of the state that a journal leads to."""

    return replace(head, shipment=state(name))


def test_newest_state_is_a_copy_and_the_journals_after_it() -> None:
    """In order, whatever order they were found in."""
    found = chain(seen(A, COPY), seen(B, JOURNAL), seen(C, JOURNAL, parts=3))
    assert ["c"] == heads(found)
    assert [("CHECKPOINT", "a"), ("JOURNAL", "b"), ("JOURNAL", "c")] == steps(found, "c")


def test_newer_copy_is_preferred() -> None:
    """What came before it is not needed."""
    found = chain(
        seen(A, COPY), seen(B, JOURNAL), seen(C, JOURNAL), seen(copy_of(C, "k"), COPY, parts=2), seen(D, JOURNAL)
    )
    assert [("CHECKPOINT", "c"), ("JOURNAL", "d")] == steps(found, "d")


def test_half_sent_copy_is_passed_over() -> None:
    """The older copy and the journals since then lead to the same state."""
    found = chain(
        seen(A, COPY),
        seen(B, JOURNAL),
        seen(C, JOURNAL),
        seen(copy_of(C, "k"), COPY, parts=3, missing=(1,)),
        seen(D, JOURNAL),
    )
    assert [("CHECKPOINT", "a"), ("JOURNAL", "b"), ("JOURNAL", "c"), ("JOURNAL", "d")] == steps(found, "d")


def test_half_sent_journal_leaves_the_state_before() -> None:
    """And it is told what could not be reached."""
    found = chain(seen(A, COPY), seen(B, JOURNAL), seen(C, JOURNAL, parts=2, missing=(1,)))
    assert ["b"] == heads(found)
    assert ["c"] == [each.header.state.decode().rstrip(".") for each in found.out_of_reach(found.heads()[0])]


def test_gap_in_the_journals_ends_what_can_be_rebuilt() -> None:
    """Journals after a missing one are of no use; a copy after it makes it unnecessary."""
    assert ["b"] == heads(chain(seen(A, COPY), seen(B, JOURNAL), seen(D, JOURNAL)))
    assert ["d"] == heads(chain(seen(A, COPY), seen(B, JOURNAL), seen(copy_of(D, "k"), COPY)))
    damaged = chain(
        seen(A, COPY), seen(B, JOURNAL), seen(C, JOURNAL, parts=2, missing=(0,)), seen(copy_of(D, "k"), COPY)
    )
    assert ["d"] == heads(damaged)


def test_nothing_can_be_rebuilt_without_a_copy() -> None:
    """Journals alone lead nowhere, and neither does nothing."""
    assert [] == heads(chain(seen(B, JOURNAL), seen(C, JOURNAL)))
    assert [] == heads(chain())


def test_what_was_stored_twice_counts_once() -> None:
    """A part may lie in two messages; each of them belongs to the shipment."""
    twice = seen(B, JOURNAL)
    again = [part._replace(location=part.location.__class__(*(1, 777, 9))) for part in twice]  # type: ignore[arg-type] # ids of a test
    found = gather([*seen(A, COPY), *twice, *again])
    assert {20, 777} == {int(message) for message in found[1].messages}
    assert found[1].is_whole


def test_two_machines_that_went_on_are_two_heads() -> None:
    """Newest first."""
    other = header("x", "a", 2, device=OTHER_DEVICE)
    assert ["c", "x"] == heads(chain(seen(A, COPY), seen(B, JOURNAL), seen(C, JOURNAL), seen(other, COPY)))


def test_machine_that_went_on_after_a_recovery_is_no_fork() -> None:
    """Its first copy follows the last state of the other one, also when that journal is damaged."""
    other = header("x", "c", 4, device=OTHER_DEVICE)
    assert ["x"] == heads(chain(seen(A, COPY), seen(B, JOURNAL), seen(C, JOURNAL), seen(other, COPY)))
    half = seen(C, JOURNAL, parts=2, missing=(1,))
    assert ["x"] == heads(chain(seen(A, COPY), seen(B, JOURNAL), half, seen(other, COPY)))
    assert ["x"] == heads(chain(seen(A, COPY), seen(B, JOURNAL), seen(other, COPY)))


def test_branch_that_was_left_behind_is_no_head() -> None:
    """Whoever chose one of two branches says so in the first copy; what the other one adds later does not count."""
    other = header("x", "a", 2, device=OTHER_DEVICE)
    later = header("y", "x", 3, device=OTHER_DEVICE)
    chosen = header("z", "b", 3, device=b"a third device 3", superseded=("x",))
    parts = [seen(A, COPY), seen(B, JOURNAL), seen(other, COPY), seen(chosen, COPY)]
    assert ["z"] == heads(chain(*parts))
    assert ["z"] == heads(chain(*parts, seen(later, JOURNAL)))


def test_attempt_that_was_made_again_is_no_fork() -> None:
    """A machine that crashed may have sent one state twice: what it went on from counts."""
    again = header("b2", "a", 2)
    assert ["c"] == heads(chain(seen(A, COPY), seen(B, JOURNAL), seen(again, JOURNAL), seen(C, JOURNAL)))


def test_states_that_follow_each_other_in_a_circle_do_no_harm() -> None:
    """Nothing like that is ever written; reading it ends all the same."""
    found = chain(seen(header("a", "b", 1), JOURNAL), seen(header("b", "a", 2), JOURNAL))
    assert [] == heads(found)
    assert None is found.plan(state("a"))
