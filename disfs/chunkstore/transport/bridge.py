"""The one place where trio and asyncio meet: an asyncio loop in its own thread, called from trio.

What crosses are values: a method's name with its arguments one way; a result, an error or "cancelled" the
other way. Each side posts to the other's thread-safe queue (`call_soon_threadsafe`, `run_sync_soon`), and
neither ever blocks the other. Callers hold no object of the asyncio side, so that it could move into a
process of its own without their noticing.

Rejected, because measured to be slower in the foreground (DESIGN, section 4): trio-asyncio, which puts both on
one loop, and guest mode.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

import outcome
import trio

from disfs.errors import DisfsError, PermanentStorageError

if TYPE_CHECKING:
    from types import TracebackType

log = logging.getLogger(__name__)

T = TypeVar("T")
Publish: TypeAlias = Callable[[object], None]
OpenService: TypeAlias = Callable[[Publish], AbstractAsyncContextManager[object]]


@dataclass(frozen=True, slots=True)
class Call:
    """Please await `method` of the service with these arguments."""

    number: int
    method: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a call: a value or an error, or neither when it was cancelled."""

    number: int
    result: outcome.Value[Any] | outcome.Error | None


@dataclass(slots=True)
class _Waiter:
    """A trio task that waits for its reply; `raise_cancel` is set once trio wants it back."""

    task: trio.lowlevel.Task
    raise_cancel: Callable[[], NoReturn] | None = None


class Bridge:
    """A service that lives in an asyncio loop in another thread, and whose methods trio tasks call.

    `open_service` is called in that thread, with a function that publishes a value to `published`. Entering starts
    thread and service and raises what the service raised; leaving cancels the calls that still
    run, closes the service and ends the thread, also when trio is cancelling.
    """

    def __init__(self, open_service: OpenService) -> None:
        self.published: object = None
        """The last value that the service published for no listener, None before the first."""
        self._listeners: dict[type[Any], Callable[[Any], None]] = {}
        self._open_service = open_service
        self._trio = trio.lowlevel.current_trio_token()
        self._numbers = itertools.count(1)
        self._waiters: dict[int, _Waiter] = {}
        self._started = trio.Event()
        self._ended = trio.Event()
        self._failure: BaseException | None = None
        # A daemon thread: should the main thread ever die without unwinding, the process still ends.
        self._thread = threading.Thread(target=self._run, name="disfs-transport", daemon=True)
        # The rest belongs to the asyncio side.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._service: object = None
        self._dying = False
        self._tasks: dict[int, asyncio.Task[Any]] = {}

    # In the trio thread.

    async def __aenter__(self) -> Bridge:
        self._thread.start()
        with trio.CancelScope(shield=True):
            await self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True):
            if self._stop is not None:
                self._post(self._stop.set)
            await self._ended.wait()
        # Telling of its end is the last thing that the thread does: this does not wait.
        self._thread.join()

    def listen(self, kind: type[T], listener: Callable[[T], None]) -> None:
        """Give each published value of just this type to `listener`, in the trio thread, as soon as it comes.

        In order: what a method published before it returned is heard before its caller goes on. A listener must
        not raise.
        """
        self._listeners[kind] = listener

    async def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Await `method` of the service over there; return its result or raise its error.

        A cancel is passed on, and this returns only when the other side has let go of the arguments. When the
        call had finished by then, its result is returned: what was achieved is never forgotten. When the
        other side has stopped, raises `PermanentStorageError`; that is never a hang.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        number = next(self._numbers)
        waiter = _Waiter(trio.lowlevel.current_task())

        def abort(raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
            waiter.raise_cancel = raise_cancel
            self._post(self._cancel, number)
            return trio.lowlevel.Abort.FAILED

        if not self._post(self._begin, Call(number, method, arguments, options)):
            await self._ended.wait()  # the loop is closed already; now also know why
            raise self._stopped()
        self._waiters[number] = waiter
        # An error that is raised here keeps this frame, and the frame must not keep the caller's buffers.
        del arguments, options
        return await trio.lowlevel.wait_task_rescheduled(abort)

    def tell(self, method: str, *arguments: Any) -> None:
        """Run `method` of the service over there, without waiting and without hearing what became of it.

        For a method that cannot fail. What was told before a call has begun by the time that this call begins.
        """
        self._post(self._begin, Call(next(self._numbers), method, arguments, {}))

    def _deliver(self, reply: Reply) -> None:
        waiter = self._waiters.pop(reply.number, None)
        if waiter is None:
            return
        result: outcome.Value[Any] | outcome.Error
        if reply.result is not None:
            result = reply.result
        elif waiter.raise_cancel is not None:
            result = outcome.capture(waiter.raise_cancel)
        else:
            result = outcome.Error(self._stopped())
        trio.lowlevel.reschedule(waiter.task, result)

    def _end(self, failure: BaseException | None) -> None:
        """The other side is gone: nobody will ever answer those who still wait."""
        self._failure = failure
        self._ended.set()
        self._started.set()
        for number in list(self._waiters):
            self._deliver(Reply(number, outcome.Error(self._stopped())))

    def _stopped(self) -> PermanentStorageError:
        reason = f": {type(self._failure).__name__}" if self._failure is not None else ""
        return PermanentStorageError(f"the transport thread has stopped{reason}")

    def _post(self, function: Callable[..., None], *arguments: Any) -> bool:
        """Run `function` in the asyncio thread soon; False when there is none any more."""
        if self._loop is None or self._ended.is_set():
            return False
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed; the call of `_end` is on its way
            return False
        return True

    def _note(self, value: object) -> None:
        listener = self._listeners.get(type(value))
        if listener is not None:
            listener(value)
        else:
            self.published = value

    # In the asyncio thread.

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            asyncio.run(self._main())
        except BaseException as error:
            failure = error
        self._tell(self._end, failure)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with self._open_service(functools.partial(self._tell, self._note)) as service:
            self._service = service
            self._tell(self._started.set)
            await self._stop.wait()
            running = list(self._tasks.values())
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _begin(self, call: Call) -> None:
        assert self._loop is not None
        if self._dying:
            return
        task = self._loop.create_task(self._invoke(call))
        self._tasks[call.number] = task
        task.add_done_callback(functools.partial(self._finish, call.number))

    async def _invoke(self, call: Call) -> Any:
        return await getattr(self._service, call.method)(*call.arguments, **call.options)

    def _cancel(self, number: int) -> None:
        task = self._tasks.get(number)
        if task is not None:
            task.cancel()

    def _finish(self, number: int, task: asyncio.Task[Any]) -> None:
        del self._tasks[number]
        result: outcome.Value[Any] | outcome.Error | None
        if task.cancelled():
            result = None
        elif isinstance(error := task.exception(), Exception):
            result = outcome.Error(_as_value(error))
        elif error is not None:
            # A SystemExit or the like, which takes the loop down: `_end` tells everybody.
            self._dying = True
            return
        else:
            result = outcome.Value(task.result())
        self._tell(self._deliver, Reply(number, result))

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        """Run `function` in the trio thread soon."""
        try:
            self._trio.run_sync_soon(function, *arguments)
        except trio.RunFinishedError:
            log.debug("trio has finished before the transport thread: nobody is left to be told")


def _as_value(error: Exception) -> Exception:
    """An error of ours as it would look after crossing to another process: no frames, no foreign causes.

    Frames would keep buffers alive, and the causes of a failed download name signed URLs. An error that is
    not ours is a bug, and keeps everything that helps to find it.
    """
    if isinstance(error, DisfsError):
        error.__cause__ = error.__context__ = None
        error.__traceback__ = None
    return error
