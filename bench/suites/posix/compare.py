"""Runs a case on two sides and compares every answer."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.suites.base import SuiteResult

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bench.suites.base import Place


class Answers:
    """What the calls of one case answered, by label, in order."""

    def __init__(self) -> None:
        self.by_label: dict[str, object] = {}

    def see(self, label: str, call: Callable[..., object], *arguments: Any) -> object:
        """Make a call and note its answer, or the name of its errno."""
        assert label not in self.by_label, f"{label} is there twice"
        try:
            answer: object = call(*arguments)
        except OSError as error:
            answer = errno.errorcode.get(error.errno or 0, str(error))
        self.by_label[label] = answer
        return answer


Case = Callable[[Answers], None]
"""Works in the current directory, which is empty, and notes answers."""


def compared(place: Place, cases: Iterable[tuple[str, Case]]) -> SuiteResult:
    """Every answer of every case is a test: passed when both sides say the same."""
    before = os.getcwd()
    answers: dict[str, str | None] = {}
    try:
        for name, case in cases:
            ours, theirs = (_answers(root / name, case) for root in (place.files, place.scratch))
            assert ours.keys() == theirs.keys(), f"{name} does different things on the two sides"
            for label, answer in ours.items():
                other = theirs[label]
                answers[f"{name}: {label}"] = None if answer == other else f"{answer!r}, on the local disk {other!r}"
    finally:
        os.chdir(before)
    return SuiteResult.of(answers)


def _answers(directory: Path, case: Case) -> dict[str, object]:
    # One level down, so that `..` holds the same on both sides.
    root = directory / "root"
    root.mkdir(parents=True)
    os.chdir(root)
    answers = Answers()
    try:
        case(answers)
    finally:
        os.chdir("/")
        shutil.rmtree(directory, ignore_errors=True)
    return answers.by_label


def in_new_directory(name: str, work: Callable[[], None]) -> None:
    """Do `work` in a directory made for it, which is the current one meanwhile and is gone afterwards."""
    os.mkdir(name)
    os.chdir(name)
    try:
        work()
    finally:
        os.chdir("..")
        shutil.rmtree(name, ignore_errors=True)
