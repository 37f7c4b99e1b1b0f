"""All suites, in the order of their value: what people do first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.suites import cpython, gnulib, libraries, loads, stress
from bench.suites.posix import suites as posix

if TYPE_CHECKING:
    from bench.suites.base import Suite

SUITES: tuple[Suite, ...] = (
    *posix.SUITES,
    *cpython.SUITES,
    *stress.SUITES,
    *gnulib.SUITES,
    *libraries.SUITES,
    *loads.SUITES,
)
