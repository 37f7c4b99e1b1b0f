"""All suites, in the order of their value: what people do first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.suites import cpython, everyday, exerciser, gnulib, libraries, loads, stress
from bench.suites.posix import suites as posix

if TYPE_CHECKING:
    from bench.suites.base import Suite

SUITES: tuple[Suite, ...] = (
    *everyday.SUITES,
    *posix.SUITES,
    *exerciser.SUITES,
    *cpython.SUITES,
    *stress.SUITES,
    *gnulib.SUITES,
    *libraries.SUITES,
    *loads.SUITES,
)
