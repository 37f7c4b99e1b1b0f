"""Sizes and habits that keep the code readable."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = sorted([*(ROOT / "disfs").rglob("*.py"), *(ROOT / "bench").rglob("*.py")])
TESTS = sorted((ROOT / "tests").rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> list[Function]:
    """Every function of a file, nested ones included."""
    return [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def length(function: Function) -> int:
    """Lines from `def` to the end."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def name_of(path: Path) -> str:
    """The path below the checkout."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_sizes_stay_in_budget(path: Path) -> None:
    """No function passes 70 lines, no module 600."""
    long = [f"{f.name}: {length(f)}" for f in functions(path) if length(f) > 70]
    assert [] == long
    assert len(path.read_text().splitlines()) <= 600


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_every_test_has_its_sentence(path: Path) -> None:
    """Each test says in one docstring what must hold."""
    bare = [f.name for f in functions(path) if f.name.startswith("test_") and not ast.get_docstring(f)]
    assert [] == bare


@pytest.mark.parametrize("path", PRODUCT + TESTS, ids=name_of)
def test_exemptions_name_their_rule_and_reason(path: Path) -> None:
    """Each noqa and each type exemption names its rule and, behind it, a reason."""
    if path == Path(__file__).resolve():
        return
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for mark, form in (("# noqa", "# noqa: "), ("# type: ignore", "# type: ignore[")):
            if mark in line:
                place = f"{name_of(path)}:{number}"
                assert form in line, f"{place} names no rule"
                reason = line.split(mark, 1)[1].rpartition(" # ")[2].rpartition(" - ")[2]
                assert len(reason.strip()) > 10, f"{place} gives no reason"
                assert reason != line.split(mark, 1)[1], f"{place} gives no reason"
