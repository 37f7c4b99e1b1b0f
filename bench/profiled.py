"""`python -m bench.profiled OUTPUT ARGUMENTS...`: run `disfs ARGUMENTS` here, and say where its CPU time went.

A thread looks at the stacks of all others several hundred times a second and charges each with the CPU time that its
thread has used since the last look, by the thread's own clock: waiting costs nothing, and C code is charged to the line
that called it. The interpreter's switch interval is made short for it: with the usual 5 ms the thread would get its
turn only where the others wait, and so would charge everything to the places where they do.

Besides, every step of trio's loop is timed: while one lasts, no other request of the kernel is answered; and every
round of steps, for a request waits until its task's turn comes.

SIGUSR1 begins a profile anew, SIGUSR2 ends it and writes OUTPUT-N.txt: the lines and stacks that cost most, by thread,
and the tasks with the longest steps.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import threading
import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import FrameType

_Key = TypeVar("_Key")

INTERVAL_SECONDS = 0.001
SWITCH_SECONDS = 0.0002
LONG_STEP_SECONDS = 0.001
RECENT = 200
"""How many looks at the main thread are kept."""
SHOWN = 45
_DEPTH = 6
"""How many callers a stack is shown with."""


@dataclass(slots=True)
class TaskSteps:
    """The steps of all tasks of one name that were long."""

    count: int = 0
    cpu_seconds: float = 0.0
    most_cpu_seconds: float = 0.0
    most_seconds: float = 0.0


class StepTimer(trio.abc.Instrument):
    """How long the main thread is not to be had: the steps between two awaits that really wait."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self.reset()
        self._step_began = self._step_cpu = self._round_began = 0.0
        self._round_names: Counter[str] = Counter()

    def reset(self) -> None:
        """Forget all steps."""
        self._count, self._seconds, self._cpu_seconds = 0, 0.0, 0.0
        self._long: defaultdict[tuple[str, str], TaskSteps] = defaultdict(TaskSteps)
        self._seen: Counter[str] = Counter()
        self._rounds: list[tuple[float, Counter[str]]] = []

    def after_io_wait(self, timeout: float) -> None:
        """Trio calls it: a round of steps begins, in which nothing new from the kernel is seen."""
        self._round_began = time.perf_counter()
        self._round_names = Counter()

    def before_io_wait(self, timeout: float) -> None:
        """Trio calls it."""
        seconds = time.perf_counter() - self._round_began
        if self._round_began and seconds > LONG_STEP_SECONDS:
            self._rounds.append((seconds, self._round_names))

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Trio calls it."""
        self._step_began, self._step_cpu = time.perf_counter(), time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Trio calls it."""
        seconds = time.perf_counter() - self._step_began
        cpu = time.thread_time() - self._step_cpu
        self._count += 1
        self._seconds += seconds
        self._cpu_seconds += cpu
        self._round_names[_task_name(task)] += 1
        if seconds > LONG_STEP_SECONDS:
            steps = self._long[_task_name(task), _awaited(task.coro)]
            steps.count += 1
            steps.cpu_seconds += cpu
            steps.most_cpu_seconds = max(steps.most_cpu_seconds, cpu)
            steps.most_seconds = max(steps.most_seconds, seconds)
            self._seen.update(self._sampler.main_thread_since(self._step_began))

    def lines(self) -> Iterator[str]:
        """What was found. Wall time beyond CPU time is waiting for the interpreter lock, the processor, or a disk."""
        yield f"{self._count} steps of the main thread: {self._seconds:.2f} s, of them {self._cpu_seconds:.2f} s CPU"
        yield f"longer than {LONG_STEP_SECONDS * 1000:g} ms (count, CPU s, most CPU ms, most ms, task, then waits at):"
        for (task, place), steps in sorted(self._long.items(), key=lambda item: -item[1].most_cpu_seconds)[:SHOWN]:
            yield (
                f"{steps.count:6} {steps.cpu_seconds:7.2f} {steps.most_cpu_seconds * 1000:7.1f} "
                f"{steps.most_seconds * 1000:7.1f}  {task}  {place}"
            )
        rounds = sorted(self._rounds, key=lambda item: -item[0])
        yield ""
        together = sum(seconds for seconds, _ in rounds)
        yield f"rounds longer than that: {len(rounds)}, together {together:.2f} s (ms, steps):"
        yield from (
            f"{seconds * 1000:7.1f}  {', '.join(f'{name} {count}' for name, count in names.most_common(6))}"
            for seconds, names in rounds[:SHOWN]
        )
        yield ""
        yield "where the main thread was seen in these steps, working or not:"
        yield from (f"{count:6}  {stack}" for stack, count in self._seen.most_common(SHOWN))


def _task_name(task: trio.lowlevel.Task) -> str:
    return task.name.rpartition(".")[2].rstrip("0123456789-")


def _awaited(coroutine: object) -> str:
    """Where a task waits now."""
    place = "the end"
    at: object = coroutine
    while at is not None:
        frame = getattr(at, "cr_frame", None) or getattr(at, "gi_frame", None)
        if frame is not None and "/trio/" not in frame.f_code.co_filename:
            place = _place(frame)
        at = getattr(at, "cr_await", None) or getattr(at, "gi_yieldfrom", None)
    return place


class Sampler:
    """Charges CPU time to stacks for as long as the process lives."""

    def __init__(self) -> None:
        self._clocks: dict[int, float] = {}
        self._thread = threading.Thread(target=self._watch, name="profiler", daemon=True)
        self._written = 0
        self._recent: deque[tuple[float, str]] = deque(maxlen=RECENT)
        self.reset()

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def reset(self) -> None:
        """Forget what was charged so far."""
        self._lines: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._stacks: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._threads: defaultdict[str, float] = defaultdict(float)
        self._began = time.monotonic()

    def write(self, path: Path, more: Iterable[str]) -> None:
        """Write down what was charged since the last `reset`, beside earlier profiles, and what else is known."""
        wall = time.monotonic() - self._began
        threads, lines, stacks = dict(self._threads), dict(self._lines), dict(self._stacks)
        text = [f"{wall:.1f} s; CPU seconds by thread:"]
        text += [f"{used:8.2f}  {name}" for name, used in _largest(threads)]
        text += ["", *more]
        for title, found in (("line", lines), ("stack", stacks)):
            text += ["", f"CPU seconds by {title}:"]
            text += [f"{used:8.2f}  [{thread}] {place}" for (thread, place), used in _largest(found)]
        self._written += 1
        path.with_name(f"{path.stem}-{self._written}.txt").write_text("\n".join(text) + "\n")

    def main_thread_since(self, began: float) -> Iterator[str]:
        """Where the main thread was seen since then, by `time.perf_counter`."""
        return (stack for seen, stack in tuple(self._recent) if seen >= began)

    def _watch(self) -> None:
        main = threading.main_thread().ident
        while True:
            time.sleep(INTERVAL_SECONDS)
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():  # noqa: SLF001 - made for exactly this
                if ident == main:
                    self._recent.append((time.perf_counter(), " < ".join(_stack(frame)[:4])))
                if ident != self._thread.ident:
                    self._charge(ident, names.get(ident, "unnamed"), frame)

    def _charge(self, ident: int, thread: str, frame: FrameType) -> None:
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            now = time.clock_gettime(time.pthread_getcpuclockid(ident))
            used = now - self._clocks.get(ident, now)
            self._clocks[ident] = now
            if used <= 0:
                return
            thread = thread.split(" from ", maxsplit=1)[0].rstrip("0123456789-_ ")
            stack = _stack(frame)
            self._threads[thread] += used
            self._lines[thread, stack[0]] += used
            self._stacks[thread, " < ".join(stack)] += used


def _largest(found: Mapping[_Key, float]) -> list[tuple[_Key, float]]:
    return sorted(found.items(), key=lambda item: -item[1])[:SHOWN]


def _stack(frame: FrameType) -> list[str]:
    """The innermost places, innermost first."""
    places: list[str] = []
    at: FrameType | None = frame
    while at is not None and len(places) < _DEPTH:
        places.append(_place(at))
        at = at.f_back
    return places


def _place(frame: FrameType) -> str:
    name = "/".join(Path(frame.f_code.co_filename).parts[-2:])
    return f"{name}:{frame.f_lineno} {frame.f_code.co_name}"


def main() -> None:
    """Run disfs under the sampler."""
    from disfs.__main__ import main as disfs_main

    output = Path(sys.argv[1])
    sys.argv = ["disfs", *sys.argv[2:]]
    sys.setswitchinterval(SWITCH_SECONDS)
    sampler = Sampler()
    steps = StepTimer(sampler)
    trio.run = functools.partial(trio.run, instruments=[steps])  # type: ignore[assignment] # the daemon has no such door

    def begin(*_: object) -> None:
        sampler.reset()
        steps.reset()

    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, lambda *_: sampler.write(output, steps.lines()))
    sampler.start()
    disfs_main()


if __name__ == "__main__":
    main()
