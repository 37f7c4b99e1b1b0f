"""Answers requests on the control socket; one task per connection, in the daemon's nursery."""

from __future__ import annotations

import contextlib
import errno
import logging
from typing import TYPE_CHECKING, Any

import trio

from disfs.control.address import listen, may_talk, peer_pid_and_uid
from disfs.control.protocol import (
    MAX_REQUEST_BYTES,
    PROGRESS_SECONDS,
    SOCKET_NAME,
    ProtocolError,
    decode,
    done,
    encode,
    failed,
    progressed,
)
from disfs.errors import DisfsError, ExitCode, FilesystemError, UserError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from disfs.control.protocol import (
        Controlled,
    )

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 32
IDLE_SECONDS = 10.0
"""How long a connection may take to say what it wants."""
LAST_WORD_SECONDS = 2.0
"""How long a client that does not read may hold up the end of the daemon."""


async def serve(
    daemon: Controlled, directory: Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve the control socket in `directory` until cancelled; then the socket is gone. Started: it listens."""
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(_non_blocking(directory)))
    limit = trio.CapacityLimiter(MAX_CONNECTIONS)
    try:
        async with listener, trio.open_nursery() as nursery:
            task_status.started()
            while True:
                stream = await listener.accept()
                nursery.start_soon(_answer, daemon, stream, limit)
    finally:
        (directory / SOCKET_NAME).unlink(missing_ok=True)


def _non_blocking(directory: Path) -> Any:
    listener = listen(directory)
    listener.setblocking(False)
    return listener


async def _answer(daemon: Controlled, stream: trio.SocketStream, limit: trio.CapacityLimiter) -> None:
    """One connection: one request, its answers."""
    async with stream:
        try:
            _pid, uid = peer_pid_and_uid(stream.socket)  # type: ignore[arg-type]  # trio's socket has getsockopt too
            if not may_talk(uid):
                log.warning("refused a control connection of user %d", uid)
                return
            async with limit:
                await _converse(daemon, stream)
        except trio.BrokenResourceError:
            log.debug("a control client went away")


async def _converse(daemon: Controlled, stream: trio.SocketStream) -> None:
    try:
        with trio.fail_after(IDLE_SECONDS):
            request = decode(await _read_line(stream))
        await _perform(daemon, request, stream)
    except UserError as error:
        await stream.send_all(encode(failed(error)))
    except (ProtocolError, trio.TooSlowError) as error:
        reason = f"the daemon did not understand the request: {error}"
        await stream.send_all(encode(failed(UserError(reason, ExitCode.INTERNAL))))


async def _read_line(stream: trio.SocketStream) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        if len(line) > MAX_REQUEST_BYTES:
            raise ProtocolError("the request is too long")
        piece = await stream.receive_some(MAX_REQUEST_BYTES)
        if not piece:
            raise ProtocolError("the connection was closed")
        line += piece
    return line


async def _perform(daemon: Controlled, request: dict[str, Any], stream: trio.SocketStream) -> None:
    match request:
        case {"request": "ping"}:
            await stream.send_all(encode(done()))
        case {"request": "status"}:
            await stream.send_all(encode(done(daemon.status())))
        case {"request": "sync"}:
            await _with_progress(daemon, stream, daemon.sync)
        case {"request": "unmount", "wait": bool(wait)}:
            await _with_progress(daemon, stream, lambda: daemon.unmount(wait=wait))
        case _:
            raise ProtocolError("unknown request")


async def _with_progress(daemon: Controlled, stream: trio.SocketStream, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` while the client is told how far it is, then tell it the end; its going away cancels the work."""
    sending = trio.Lock()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_report, daemon, stream, sending, nursery.cancel_scope)
        nursery.start_soon(_watch_hang_up, stream, nursery.cancel_scope)
        try:
            await work()
            answer = done()
        except DisfsError as error:
            # Whatever it is, the one who asked is told of it; it is no reason to take the mount from everybody else.
            answer = failed(_explained(error))
        # Shielded: an unmount ends the daemon, and the one who asked for it shall still hear that it is done.
        with trio.move_on_after(LAST_WORD_SECONDS, shield=True), contextlib.suppress(trio.BrokenResourceError):
            async with sending:
                await stream.send_all(encode(answer))
        nursery.cancel_scope.cancel()


def _explained(error: DisfsError) -> UserError:
    if isinstance(error, UserError):
        return error
    log.warning("a request of a control client failed: %s", error)
    if isinstance(error, FilesystemError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"a disk of this machine is full ({error}); free some space on it, then try again", ExitCode.STATE_FULL
        )
    return UserError(f"{error}; the log says more", ExitCode.INTERNAL)


async def _report(
    daemon: Controlled, stream: trio.SocketStream, sending: trio.Lock, conversation: trio.CancelScope
) -> None:
    try:
        while True:
            async with sending:
                await stream.send_all(encode(progressed(daemon.progress())))
            await trio.sleep(PROGRESS_SECONDS)
    except trio.BrokenResourceError:
        conversation.cancel()


async def _watch_hang_up(stream: trio.SocketStream, conversation: trio.CancelScope) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some(MAX_REQUEST_BYTES):
            pass  # a client has nothing more to say; what it says all the same is no reason to stop
    conversation.cancel()
