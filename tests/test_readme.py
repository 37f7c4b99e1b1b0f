"""What the README promises is tested, and what it lists is what the code has."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from disfs.errors import ExitCode

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PROMISES = re.findall(r"^\d+\. \*\*(.+?)\*\*$", README, re.MULTILINE)


def flat(text: str) -> str:
    """The words alone: line breaks and backquotes do not matter."""
    return " ".join(text.replace("`", "").split())


@functools.cache
def docstrings() -> str:
    """All docstrings of all tests and test modules."""
    nodes = (
        node for path in sorted((ROOT / "tests").rglob("test_*.py")) for node in ast.walk(ast.parse(path.read_text()))
    )
    documented = (n for n in nodes if isinstance(n, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef))
    return flat("\n".join(ast.get_docstring(node) or "" for node in documented))


@pytest.mark.parametrize("promise", PROMISES)
def test_each_promise_is_quoted_by_a_test(promise: str) -> None:
    """Each numbered promise of the README stands word for word in the docstring of a test that shows it."""
    assert flat(promise) in docstrings()


def test_there_are_promises() -> None:
    """The README makes ten promises, so the test above has something to check."""
    assert 10 == len(PROMISES)


def test_exit_codes_are_listed() -> None:
    """The README lists every exit code, and no other."""
    section = README.split("## Exit codes")[1].split("##")[0]
    listed = {int(number) for number in re.findall(r"\| (\d+) \|", section)}
    assert {int(code) for code in ExitCode} == listed
