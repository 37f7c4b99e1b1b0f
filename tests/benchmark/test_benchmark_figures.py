"""The arithmetic of the benchmark: limits, verdicts, what is printed."""

from __future__ import annotations

import json

import pytest

from bench.contents import PIECE_BYTES, Contents
from bench.report import Check, Costs, Noise, Outcome, RowReport, markdown, quantiles
from bench.rows import ROWS
from bench.shape import GIB, KIB, MIB, Shape, messages_for

SHAPE = Shape()
COSTS = Costs(
    label="write",
    operations=10,
    operation="file",
    written_bytes=1000,
    seconds=2.0,
    requests={"create_message": 5},
    rate_limited=1,
    sent_bytes=1500,
    fetched_bytes=0,
    cpu_seconds={"daemon": 1.0},
)


def report(*checks: Check) -> RowReport:
    return RowReport("row", "work", 1.0, Noise(0.5, 12.0), Outcome(checks, (COSTS,), {"note": "text"}))


def test_writing_much_is_limited_by_the_bandwidth() -> None:
    """1 GiB at 100 Mbit/s takes 85.9 s; its 43 messages would take a fraction of that."""
    assert pytest.approx(85.9, abs=0.05) == SHAPE.write_seconds(GIB)
    assert messages_for(GIB) == 43
    assert pytest.approx(10.75) == SHAPE.sending_seconds(43)


def test_writing_on_a_fast_line_is_limited_by_the_messages() -> None:
    """With all the bandwidth one wants, the rate of sends is the limit, and more channels raise it."""
    fast = Shape(up_bytes_per_second=1e12)
    assert pytest.approx(fast.sending_seconds(43)) == fast.write_seconds(GIB)
    assert pytest.approx(fast.write_seconds(GIB) / 2) == Shape(up_bytes_per_second=1e12, channels=8).write_seconds(GIB)


def test_reading_a_chunk_takes_a_latency_and_its_bytes() -> None:
    """A sealed chunk of 128 KiB at 400 Mbit/s takes 2.6 ms after the 80 ms."""
    assert pytest.approx(0.08 + 128 * KIB / 50e6) == SHAPE.chunk_read_seconds()


def test_the_smallest_write_takes_one_message() -> None:
    """However little was written, one message is the least."""
    assert messages_for(1) == 1
    assert messages_for(24 * MIB) == 1
    assert messages_for(24 * MIB + 1) == 2


@pytest.mark.parametrize(
    ("check", "passed"),
    [
        (Check.at_most("time", 114, "s", 100, factor=1.15), True),
        (Check.at_most("time", 116, "s", 100, factor=1.15), False),
        (Check.at_least("rate", 85, "MB/s", 100, factor=0.85), True),
        (Check.at_least("rate", 84, "MB/s", 100, factor=0.85), False),
        (Check.bounded("messages", 6, "messages", 2, 6), True),
        (Check.bounded("messages", 7, "messages", 2, 6), False),
    ],
)
def test_a_verdict_follows_from_the_ratio_or_from_the_target(check: Check, passed: bool) -> None:
    """Relative targets are multiples of the limit, absolute ones stay what they are."""
    assert passed == check.passed
    assert ("pass" if passed else "FAIL") in check.line()


def test_a_row_passes_when_all_its_checks_do() -> None:
    """One missed target fails the row."""
    good, bad = Check.at_most("a", 1, "s", 1), Check.at_most("b", 2, "s", 1)
    assert Outcome((good,)).passed
    assert not Outcome((good, bad)).passed


def test_costs_are_shown_per_operation_and_per_byte() -> None:
    """Requests per operation, bytes sent per byte written, 429s and shares of the processor are in the text."""
    text = "\n".join(COSTS.lines())
    for expected in (
        "create_message 5 (0.5 per file)",
        "429s: 1",
        "1.500 bytes sent per byte written",
        "50% of a core",
    ):
        assert expected in text


def test_a_report_becomes_json_with_its_ratios() -> None:
    """Programs get every figure and the ratio to its limit."""
    plain = json.loads(json.dumps(report(Check.at_most("time", 3, "s", 2)).as_json()))
    assert plain["outcome"]["checks"][0]["ratio"] == 1.5
    assert plain["outcome"]["costs"][0]["requests"] == {"create_message": 5}


def test_the_table_has_a_line_for_each_check_and_for_each_failure() -> None:
    """A row that could not be carried out is in the table too."""
    broken = RowReport("broken", "work", 1.0, Noise(0.5, 12.0), None, "it broke")
    lines = markdown([report(Check.at_most("a", 1, "s", 1), Check.at_most("b", 1, "s", 1)), broken]).splitlines()
    assert len(lines) == 2 + 3
    assert "it broke" in lines[-1]


def test_quantiles_of_a_hundred_values() -> None:
    """p99 of 0..99 is 99, p50 is 50."""
    assert quantiles([float(n) for n in range(100)]) == {"p50": 50.0, "p99": 99.0}


def test_contents_can_be_told_again_at_any_offset() -> None:
    """What is expected across the border of two pieces is the end of one and the beginning of the next."""
    contents = Contents(pool_bytes=4 * MIB)
    expected = contents.piece(1, 0)[-10:] + contents.piece(1, 1)[:10]
    assert expected == contents.expected(1, PIECE_BYTES - 10, 20)
    assert contents.piece(1, 0) != contents.piece(2, 0)


def test_rows_have_names_of_their_own() -> None:
    """A row is chosen by its name."""
    assert len(ROWS) == len({row.name for row in ROWS})
