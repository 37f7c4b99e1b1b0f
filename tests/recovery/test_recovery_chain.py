"""Which state is rebuilt, from which shipments: whole ones, damaged ones, and those of two machines."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from support.shipments import OTHER_DEVICE, header, seen, state

from disfs.chunkstore.codec import PackKind
from disfs.recovery.chain import Chain, gather

if TYPE_CHECKING:
    from disfs.recovery.chain import SeenPart, State
    from disfs.recovery.frames import Header

COPY, JOURNAL = PackKind.CHECKPOINT, PackKind.JOURNAL


def chain(*parts: list[SeenPart]) -> Chain:
    """Of all parts, which come in any order."""
    return Chain(gather([part for each in reversed(parts) for part in reversed(each)]))


def heads(found: Chain) -> list[str]:
    """The names of the newest states that can be rebuilt."""
    return [head.header.state.decode().rstrip(".") for head in found.heads()]


def told_by(found: Chain, chosen: State | None) -> tuple[str, ...]:
    """The names of the states that are left behind for one."""
    return tuple(each.rstrip(b".").decode() for each in found.superseded_by(chosen))


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


def test_regression_left_behind_branch_stays_left_behind_after_another_recovery() -> None:
    """A volume is recovered from a fork, and later once more: nobody is asked again about the fork."""
    x1 = header("x", "a", 2, device=OTHER_DEVICE)
    x2 = header("y", "x", 9, device=OTHER_DEVICE)
    chosen = header("z", "b", 3, device=b"a third device 3", superseded=("y",))
    parts = [seen(A, COPY), seen(B, JOURNAL), seen(x1, JOURNAL), seen(x2, COPY), seen(chosen, COPY)]
    found = chain(*parts)
    assert ["z"] == heads(found)
    head = found.heads()[0]
    told = told_by(found, head)
    again = header("w", "z", 4, device=b"fourth device 04", superseded=told)
    later = header("v", "w", 5, device=b"fourth device 04", superseded=told)
    # The retention of the fourth device deletes what it followed, once it has two copies of its own.
    assert ["v"] == heads(chain(seen(x1, JOURNAL), seen(x2, COPY), seen(again, COPY), seen(later, COPY)))


def test_regression_attempt_that_was_made_again_is_no_fork_after_a_recovery() -> None:
    """What the old machine sent twice stays no branch when another machine has gone on."""
    again = header("b2", "a", 2)
    parts = [seen(A, COPY), seen(B, JOURNAL), seen(again, JOURNAL), seen(C, JOURNAL)]
    found = chain(*parts)
    assert ["c"] == heads(found)
    told = told_by(found, found.heads()[0])
    other = header("x", "c", 4, device=OTHER_DEVICE, superseded=told)
    assert ["x"] == heads(chain(*parts, seen(other, COPY)))


def test_left_behind_state_stays_so_when_what_followed_it_is_damaged() -> None:
    """All of a branch is named, not only its end; what matters most comes first."""
    x1 = header("x", "a", 2, device=OTHER_DEVICE)
    x2 = header("y", "x", 3, device=OTHER_DEVICE)
    found = chain(seen(A, COPY), seen(B, JOURNAL), seen(x1, COPY), seen(x2, JOURNAL))
    chosen = found.states[state("b")]
    assert ("y", "x") == told_by(found, chosen)
    assert ("b", "y", "a", "x") == (*sorted(told_by(found, None)[:2]), *sorted(told_by(found, None)[2:]))
    other = header("z", "b", 3, device=b"a third device 3", superseded=told_by(found, chosen))
    damaged = seen(x2, JOURNAL, parts=2, missing=(0,))
    assert ["z"] == heads(chain(seen(A, COPY), seen(B, JOURNAL), seen(x1, COPY), damaged, seen(other, COPY)))


def test_two_recoveries_of_different_branches_are_a_fork_that_a_third_one_ends() -> None:
    """Neither knew of the other, so neither is nothing; whoever then chooses one of them leaves the other one."""
    x = header("x", "a", 2, device=OTHER_DEVICE)
    third = header("p", "b", 3, device=b"a third device 3", superseded=("x",))
    fourth = header("q", "x", 3, device=b"fourth device 04", superseded=("b",))
    parts = [seen(A, COPY), seen(B, JOURNAL), seen(x, COPY), seen(third, COPY), seen(fourth, COPY)]
    found = chain(*parts)
    assert ["p", "q"] == sorted(heads(found))
    fifth = header("r", "p", 4, device=b"the fifth one 05", superseded=told_by(found, found.states[state("p")]))
    later = header("s", "q", 9, device=b"fourth device 04", superseded=("b",))
    assert ["r"] == heads(chain(*parts, seen(fifth, COPY)))
    assert ["r"] == heads(chain(*parts, seen(fifth, COPY), seen(later, JOURNAL)))
