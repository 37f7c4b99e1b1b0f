"""What a row found out, and how it is shown: for people, as JSON, as a table for the documentation. Pure."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_QUANTILES = {"p50": 0.5, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Check:
    """One figure beside its limit, and whether it meets its target."""

    name: str
    measured: float
    unit: str
    limit: float
    """What the shape allows at best, in the same unit; or what the figure is compared with."""
    must: str
    """The target in words."""
    passed: bool

    @property
    def ratio(self) -> float:
        """The figure in limits."""
        return self.measured / self.limit if self.limit else float("inf")

    @classmethod
    def at_most(cls, name: str, measured: float, unit: str, limit: float, *, factor: float = 1.0) -> Self:
        """Passes up to `factor` limits."""
        return cls(name, measured, unit, limit, f"at most {factor:g}x", measured <= limit * factor)

    @classmethod
    def at_least(cls, name: str, measured: float, unit: str, limit: float, *, factor: float = 1.0) -> Self:
        """Passes from `factor` limits on."""
        return cls(name, measured, unit, limit, f"at least {factor:g}x", measured >= limit * factor)

    @classmethod
    def bounded(cls, name: str, measured: float, unit: str, limit: float, target: float) -> Self:
        """Passes up to the absolute `target`; `limit` only shows how good it could be."""
        return cls(name, measured, unit, limit, f"at most {target:g} {unit}", measured <= target)

    def line(self) -> str:
        """For people."""
        verdict = "pass" if self.passed else "FAIL"
        return (
            f"{verdict}  {self.name:<34} {figure(self.measured):>9} {self.unit:<8} "
            f"limit {figure(self.limit):>8}  ratio {self.ratio:6.2f}  must be {self.must}"
        )


@dataclass(frozen=True, slots=True)
class Costs:
    """What a stretch of work took, as the emulator and the kernel counted it."""

    label: str
    operations: int
    operation: str
    """What an operation is: "MiB", "file", "read"."""
    written_bytes: int
    """What programs wrote into the mount; 0 where nothing was written."""
    seconds: float
    requests: dict[str, int]
    rate_limited: int
    """429s that the emulator answered."""
    sent_bytes: int
    """From disfs to Discord."""
    fetched_bytes: int
    """From Discord to disfs."""
    cpu_seconds: dict[str, float]
    """By process: daemon, emulator, driver (with what it started), others (everything else on the machine)."""

    def lines(self) -> Iterator[str]:
        """For people."""
        per_operation = ", ".join(
            f"{route} {count} ({count / max(1, self.operations):.3g} per {self.operation})"
            for route, count in sorted(self.requests.items())
        )
        yield f"{self.label}: {self.seconds:.2f} s; requests: {per_operation or 'none'}; 429s: {self.rate_limited}"
        sent = f"{self.sent_bytes / 1e6:.1f} MB sent, {self.fetched_bytes / 1e6:.1f} MB fetched"
        if self.written_bytes:
            sent += f", {self.sent_bytes / self.written_bytes:.3f} bytes sent per byte written"
        shares = ", ".join(
            f"{name} {used:.1f} s ({used / max(self.seconds, 1e-9):.0%} of a core)"
            for name, used in self.cpu_seconds.items()
        )
        yield f"  {sent}; CPU: {shares}"


@dataclass(frozen=True, slots=True)
class Noise:
    """How quiet the machine was before a row."""

    load_average: float
    calibration_ms: float
    """A fixed loop on one core; what makes it slower makes the figures worse."""

    def line(self, fastest_ms: float) -> str:
        """For people; `fastest_ms` is the best calibration of the run."""
        slower = self.calibration_ms / fastest_ms
        return f"noise: load average {self.load_average:.2f}, calibration {self.calibration_ms:.1f} ms ({slower:.2f}x)"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a row returns."""

    checks: tuple[Check, ...]
    costs: tuple[Costs, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every target is met."""
        return all(check.passed for check in self.checks)


@dataclass(frozen=True, slots=True)
class RowReport:
    """An outcome and where it comes from; `failure` when the row could not be carried out."""

    name: str
    work: str
    scale: float
    noise: Noise
    outcome: Outcome | None
    failure: str | None = None

    def lines(self, fastest_ms: float) -> Iterator[str]:
        """For people."""
        yield f"{self.name}: {self.work}" + (f" (scale {self.scale:g})" if self.scale != 1 else "")
        if self.failure is not None:
            yield f"  FAIL  {self.failure}"
        if self.outcome is not None:
            yield from (f"  {check.line()}" for check in self.outcome.checks)
            yield from (f"  {name}: {text}" for name, text in self.outcome.notes.items())
            yield from (f"  {line}" for costs in self.outcome.costs for line in costs.lines())
        yield f"  {self.noise.line(fastest_ms)}"

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        plain = dataclasses.asdict(self)
        if self.outcome is not None:
            for check, shown in zip(self.outcome.checks, plain["outcome"]["checks"], strict=True):
                shown["ratio"] = check.ratio
        return plain


def markdown(reports: Iterable[RowReport]) -> str:
    """The table of docs/benchmarks.md."""
    lines = ["| row | figure | measured | limit | ratio | must | |", "|---|---|---|---|---|---|---|"]
    for report in reports:
        if report.outcome is None:
            lines.append(f"| {report.name} | {report.failure} | | | | | **fail** |")
            continue
        for check in report.outcome.checks:
            verdict = "pass" if check.passed else "**fail**"
            lines.append(
                f"| {report.name} | {check.name} | {figure(check.measured)} {check.unit} | {figure(check.limit)} | "
                f"{check.ratio:.2f} | {check.must} | {verdict} |"
            )
    return "\n".join(lines) + "\n"


def figure(value: float) -> str:
    """A number with three or four digits that say something."""
    return f"{value:.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """p50 and p99: the smallest value that so large a share of all does not exceed."""
    ordered = sorted(values)
    return {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in _QUANTILES.items()}


def milliseconds(seconds: Sequence[float]) -> str:
    """Latencies in one line."""
    found = quantiles(seconds)
    shown = ", ".join(f"{name} {value * 1000:.3g} ms" for name, value in found.items())
    return f"{shown}, mean {statistics.fmean(seconds) * 1000:.3g} ms, most {max(seconds) * 1000:.3g} ms"
