"""The suites notice what they are there to notice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.suites.base import Place, Suite, SuiteResult, command, scripts
from bench.suites.catalogue import SUITES
from bench.suites.cpython import read_junit
from bench.suites.everyday import checks
from bench.suites.exerciser import Exerciser, WrongBytesError
from bench.suites.posix.compare import compared

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.suites.posix.compare import Answers


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("files", "scratch"):
        (tmp_path / name).mkdir()
    return Place(tmp_path / "files", tmp_path / "scratch", tmp_path, "python3")


def test_names_of_suites_and_checks_are_unique() -> None:
    """A name stands for one suite, and for one check of everyday programs, so that a failure can be found."""
    names = [suite.name for suite in SUITES]
    assert len(set(names)) == len(names)
    assert all(isinstance(suite, Suite) for suite in SUITES)
    assert len({name for name, _ in checks()}) == len(checks())
    assert 61 <= len(checks())


def test_compare_finds_what_differs(place: Place) -> None:
    """An answer that is another one on the local disk is a failure that names both; the others pass."""
    inode = place.files.stat().st_ino

    def case(answers: Answers) -> None:
        here = Path("../..").stat().st_ino == inode
        answers.see("same", lambda: 1)
        answers.see("raises here", lambda: Path("absent").stat() if here else None)

    result = compared(place, [("case", case)])

    assert (1, ("case: raises here",)) == (result.passed, result.failures)
    assert "'ENOENT', on the local disk None" in result.details


@pytest.mark.parametrize("broken", ["pread", "ftruncate", "pwrite"])
def test_exerciser_finds_wrong_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """A read that returns another byte, a truncate to another size and a write elsewhere are all found."""
    exerciser = Exerciser(tmp_path / "file", seed=1)
    real: Callable[..., object] = getattr(os, broken)
    wrong: dict[str, Callable[..., object]] = {
        "pread": lambda fd, length, offset: bytes(length),
        "ftruncate": lambda fd, size: real(fd, size + 1),
        "pwrite": lambda fd, data, offset: real(fd, data, offset + 1),
    }
    monkeypatch.setattr(os, broken, wrong[broken])
    with pytest.raises(WrongBytesError, match="after"):
        exerciser.run(200)


def test_exerciser_finds_nothing_on_the_local_disk(tmp_path: Path) -> None:
    """Where nothing is wrong nothing is found."""
    Exerciser(tmp_path / "file", seed=2, longest_bytes=20_000).run(200)


def test_scripts_stop_at_the_first_failure(place: Place) -> None:
    """A check passes when all of its commands do; a failure shows what was printed."""
    result = scripts(place, [("good", "echo x >f; cmp f $M/f"), ("bad", "echo why; false; true")])

    assert (1, ("bad",)) == (result.passed, result.failures)
    assert "why" in result.details


def test_command_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    """Nothing of a command goes on after its time, nor after its end, whatever process group it made for itself."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    done = command("bash", "-c", f"timeout 600 sleep 600 >{fifo} & sleep 600", timeout=1)
    assert 124 == done.code
    assert "killed after 1 s" in done.output
    os.set_blocking(reader, True)
    assert b"" == os.read(reader, 1), "nobody holds the other end any more"
    os.close(reader)


def test_junit_reports_are_read(tmp_path: Path) -> None:
    """Passed, failed, broken and skipped test cases of a JUnit report are told apart."""
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuite><testcase classname="a" name="good"/>'
        '<testcase name="bad"><failure message="m">t</failure></testcase>'
        '<testcase name="broken"><error message="e"/></testcase><testcase name="left"><skipped/></testcase></testsuite>'
    )
    found = read_junit(report)
    assert SuiteResult(1, ("bad", "broken"), 1, found.details) == found
    assert "bad: m\nt" in found.details
