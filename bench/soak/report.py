"""What a run has shown: verdicts first, then the figures behind them; as text for people and JSON for programs."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench.soak.watch import growth

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.soak.faults import TrialResult
    from bench.soak.leftovers import Leftovers
    from bench.soak.watch import Seen
    from bench.soak.work import WorkReport

MIB = 1 << 20
PACK_BYTES = 10 * MIB
"""By how much the cache may be above its budget."""
MOST_RESIDENT_BYTES = 200 * MIB
MOST_DESCRIPTORS = 512
"""The daemon keeps 256 files of its cache open, the rest are connections."""
MOST_GROWTH = 0.15
"""Of the median between the second quarter of the run and the last one, before it counts as a leak."""
WARM_SECONDS = 600
"""Shorter runs are growing all the time: there the caches are still filling."""
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that must hold, and whether it did."""

    what: str
    holds: bool
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that came to its end."""

    seed: int
    probability: float
    seconds: float
    works: list[WorkReport]
    trials: list[TrialResult]
    seen: Seen
    status: dict[str, Any]
    """What the daemon said before it was unmounted."""
    left: Leftovers
    cold: list[str]
    """What a cold mount had different."""
    problems: list[str]
    log: str
    swept: bool
    """There was time for the sweep: no garbage may be left."""

    def verdicts(self) -> list[Verdict]:
        """Everything that must hold."""
        wrong = [f"{work.name}: {line}" for work in self.works for line in work.wrong]
        errors = [f"{work.name}: {line}" for work in self.works for line in work.errors]
        return [
            Verdict("no wrong byte while it went on", not wrong, tuple(wrong)),
            Verdict("no wrong byte on a cold mount", not self.cold, tuple(self.cold)),
            Verdict("no system call failed", not errors, tuple(errors)),
            Verdict("every process and command did its work", not self.problems, tuple(self.problems)),
            *self._discord_verdicts(),
            *self._daemon_verdicts(),
        ]

    def _discord_verdicts(self) -> Iterator[Verdict]:
        left = self.left
        yield Verdict("everything was sent", self.status["dirty_chunks"] == 0, (f"{self.status['dirty_bytes']} left",))
        yield Verdict("no message is lost", not left.vanished, _listed(left.vanished))
        if self.swept:
            yield Verdict("no duplicate message is left", not left.duplicates, _listed(left.duplicates))
            yield Verdict("no unknown message is left", not left.orphans, _listed(left.orphans))
            yield Verdict("no garbage is left after the sweep", not left.garbage, _listed(left.garbage))
        yield Verdict("the metadata is sound", not left.unsound, left.unsound)

    def _daemon_verdicts(self) -> Iterator[Verdict]:
        seen, status = self.seen, self.status
        lost = status["lost_chunks"], status["fetch"]["damaged_chunks"]
        yield Verdict("no chunk counts as lost or damaged", lost == (0, 0), (f"lost, damaged: {lost}",))
        over = max(seen.cache_bytes, default=0) - seen.cache_limit_bytes
        yield Verdict("the cache kept to its budget", over <= PACK_BYTES, (f"{_mib(over)} above it",))
        resident, opened = max(seen.resident_bytes, default=0), max(seen.descriptors, default=0)
        yield Verdict("memory stays low", resident <= MOST_RESIDENT_BYTES, (_mib(resident),))
        yield Verdict("descriptors stay few", opened <= MOST_DESCRIPTORS, (f"{opened}",))
        if len(seen.resident_bytes) >= WARM_SECONDS:
            for name, samples in (("memory", seen.resident_bytes), ("descriptors", seen.descriptors)):
                yield Verdict(f"{name}: flat", growth(samples) <= MOST_GROWTH, (f"{growth(samples):+.0%}",))
        tracebacks = self.log.count("Traceback (most recent call last)")
        yield Verdict("the log shows no traceback", tracebacks == 0, (f"{tracebacks} of them",))

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "seed": self.seed,
            "probability": self.probability,
            "seconds": round(self.seconds, 1),
            "holds": all(verdict.holds for verdict in self.verdicts()),
            "verdicts": [asdict(verdict) for verdict in self.verdicts()],
            "figures": dict(self._figures()),
            "operations": {name: asdict(row) for name, row in self._operations().items()},
            "requests": dict(self.seen.requests),
            "statuses": dict(self.seen.statuses),
            "trials": [asdict(trial) for trial in self.trials],
            "troubles": dict(self.seen.troubles),
            "left": asdict(self.left),
            "status": self.status,
        }

    def lines(self) -> Iterator[str]:
        """The report for people, in Markdown."""
        yield f"## Soak: {self.seconds / 60:.0f} minutes, seed {self.seed}, {self.probability:.1%} of requests fail"
        yield ""
        for verdict in self.verdicts():
            yield f"- {'holds' if verdict.holds else '**FAILS**'}: {verdict.what}"
            if not verdict.holds:
                yield from (f"  - {line}" for line in verdict.details[:SHOWN])
        yield from ["", "| figure | value |", "|---|---|"]
        yield from (f"| {name} | {value} |" for name, value in self._figures())
        yield from ["", "| operation | calls | p50 ms | p99 ms | longest s |", "|---|---|---|---|---|"]
        for name, row in sorted(self._operations().items()):
            yield f"| {name} | {row.count} | {row.p50 * 1e3:.1f} | {row.p99 * 1e3:.0f} | {row.longest:.1f} |"
        yield from ["", "| trial | s | requests | hit | answers |", "|---|---|---|---|---|"]
        for trial in self.trials:
            answers = ", ".join(f"{status}: {count}" for status, count in sorted(trial.statuses.items()))
            yield f"| {trial.name} | {trial.seconds:.0f} | {trial.seen} | {trial.fired} | {answers} |"
        if self.seen.troubles:
            yield from ["", "| what status complained about | times |", "|---|---|"]
            yield from (f"| {text} | {count} |" for text, count in self.seen.troubles.most_common(SHOWN))

    def _figures(self) -> Iterator[tuple[str, str]]:
        seen = self.seen
        calls = sum(sum(work.counts.values()) for work in self.works)
        written, read = sum(w.written_bytes for w in self.works), sum(w.read_bytes for w in self.works)
        requests = sum(seen.requests.values())
        yield "system calls acknowledged", str(calls)
        yield "written, read and compared", f"{_mib(written)}, {_mib(read)}"
        yield "requests", f"{requests}: " + ", ".join(f"{route} {n}" for route, n in seen.requests.most_common())
        yield "requests per call", f"{requests / max(1, calls):.3f}"
        yield "bytes sent per byte written", f"{seen.received_bytes / max(1, written):.2f}"
        yield "bytes fetched per byte read", f"{seen.sent_bytes / max(1, read):.2f}"
        yield "429s, those of the faults included", str(seen.statuses["429"])
        yield "faults that hit", str(sum(trial.fired for trial in self.trials))
        yield "requests repeated", str(self.status["transport"]["retries"])
        yield "messages in the end", str(self.left.known)
        sweep = self.status["sweep"]
        yield "messages swept, unknown ones deleted", f"{sweep['swept_messages']}, {sweep['stray_messages']}"
        yield "memory, median and most", f"{_mib(_median(seen.resident_bytes))}, {_mib(max(seen.resident_bytes))}"
        yield "descriptors, median and most", f"{_median(seen.descriptors):.0f}, {max(seen.descriptors)}"
        yield "cache, most of", f"{_mib(max(seen.cache_bytes))} of {_mib(seen.cache_limit_bytes)}"
        yield "status answers in, most", f"{max(seen.status_seconds) * 1e3:.0f} ms"
        yield "emulator started again", str(seen.revivals)

    def _operations(self) -> dict[str, Operation]:
        seconds: dict[str, list[float]] = {}
        for work in self.works:
            for name, took in work.seconds.items():
                seconds.setdefault(name, []).extend(took)
        return {name: Operation.of(took) for name, took in seconds.items()}


@dataclass(frozen=True, slots=True)
class Operation:
    """How long the calls of one kind took, in seconds."""

    count: int
    p50: float
    p99: float
    longest: float

    @classmethod
    def of(cls, seconds: list[float]) -> Operation:
        """Of the times of one or more calls."""
        ordered = sorted(seconds)
        return cls(len(ordered), ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1])


def _median(samples: list[int]) -> float:
    return statistics.median(samples) if samples else 0.0


def _mib(count: float) -> str:
    return f"{count / MIB:.1f} MiB"


def _listed(messages: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"message {message}" for message in messages)
