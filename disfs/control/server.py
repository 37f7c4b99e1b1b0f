"""Answers requests on the control socket; one task per connection, in the daemon's nursery."""

from __future__ import annotations

import contextlib
import errno
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import trio

from disfs.control.address import listen, may_talk, peer_pid_and_uid
from disfs.control.protocol import (
    MAX_REQUEST_BYTES,
    PROGRESS_SECONDS,
    SOCKET_NAME,
    ProtocolError,
    Undeleted,
    WarmProgress,
    bandwidth_of,
    done,
    encode,
    failed,
    inodes_of,
    position_of,
    progressed,
    request_of,
    since_of,
)
from disfs.errors import DisfsError, ExitCode, FilesystemError, UserError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from disfs.control.protocol import Controlled, Listening, Progress

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 32
IDLE_SECONDS = 10.0
"""How long a connection may take to say what it wants."""
ALIVE_SECONDS = 2.0
"""How often a listener hears that the daemon is there."""
AGAIN_SECONDS = 0.5
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED})
LAST_WORD_SECONDS = 2.0
"""How long a client that does not read is waited for, also at the end of the daemon."""


async def serve(
    daemon: Controlled, directory: Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve the control socket in `directory` until cancelled; then the socket is gone. Started: it listens."""
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(_non_blocking(directory)))
    try:
        async with listener, trio.open_nursery() as nursery:
            task_status.started()
            while True:
                stream = await _accepted(listener)
                if len(nursery.child_tasks) < MAX_CONNECTIONS:
                    nursery.start_soon(_answer, daemon, stream)
                else:
                    await _turn_away(stream)
    finally:
        (directory / SOCKET_NAME).unlink(missing_ok=True)


async def _accepted(listener: trio.SocketListener) -> trio.SocketStream:
    """The next connection. What a machine may run out of for a while is no reason to end a mount."""
    while True:
        try:
            return await listener.accept()
        except OSError as error:
            if error.errno not in _SCARCE:
                raise
            log.warning("a control connection cannot be taken now: %s", error)
            await trio.sleep(AGAIN_SECONDS)


async def _turn_away(stream: trio.SocketStream) -> None:
    """Let a client know that there are too many; it has a fresh buffer, so this does not wait for anybody."""
    busy = UserError(f"{MAX_CONNECTIONS} commands are talking to this mount; wait for one to end", ExitCode.INTERNAL)
    async with stream:
        await _say(stream, failed(busy))


async def _say(stream: trio.SocketStream, answer: Mapping[str, object]) -> None:
    """An answer, for as long as a client that does not read may take."""
    with trio.move_on_after(LAST_WORD_SECONDS), contextlib.suppress(trio.BrokenResourceError):
        await stream.send_all(encode(answer))


def _non_blocking(directory: Path) -> Any:
    listener = listen(directory)
    listener.setblocking(False)
    return listener


async def _answer(daemon: Controlled, stream: trio.SocketStream) -> None:
    """One connection: one request, its answers. Whatever goes wrong with it is told to it, and ends nothing else."""
    async with stream:
        try:
            _pid, uid = peer_pid_and_uid(stream.socket)  # type: ignore[arg-type]  # trio's socket has getsockopt too
            if not may_talk(uid):
                log.warning("refused a control connection of user %d", uid)
                return
            await _converse(daemon, stream)
        except trio.BrokenResourceError:
            log.debug("a control client went away")
        except Exception:  # the door of the control socket: a bug in an answer must not take the mount from everybody
            log.exception("a request of a control client failed with an unexpected error")
            await _say(stream, failed(UserError("a bug in the daemon; its log has the details", ExitCode.INTERNAL)))


async def _converse(daemon: Controlled, stream: trio.SocketStream) -> None:
    try:
        with trio.fail_after(IDLE_SECONDS):
            request = request_of(await _read_line(stream))
        await _perform(daemon, request, stream)
    except UserError as error:
        await _say(stream, failed(error))
    except (ProtocolError, trio.TooSlowError) as error:
        reason = str(error) or "it did not come in time"
        message = f"the daemon did not understand the request: {reason}"
        await _say(stream, failed(UserError(message, ExitCode.INTERNAL)))


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
    """Do what is asked. What answers at once is answered here; what takes its time reports how far it is."""
    match request:
        case {"request": "sync"}:
            await _with_progress(stream, daemon.sync, daemon.progress)
        case {"request": "unmount", "wait": bool(wait)}:
            await _with_progress(stream, lambda: daemon.unmount(wait=wait), daemon.progress)
        case {"request": "setting", "name": str(name), "value": str() | None as value}:
            await _with_progress(stream, lambda: daemon.change_setting(name, value), daemon.progress)
        case {"request": "warm", "inodes": list(numbers), "pin": bool(pin), "wait": bool(wait)}:
            warmup = daemon.warmup(inodes_of(numbers), pin=pin)
            await _with_progress(stream, warmup.run if wait else warmup.start, warmup.progress)
        case {"request": "unpin", "inodes": list(numbers)}:
            inodes = inodes_of(numbers)
            await _with_progress(stream, lambda: daemon.unpin(inodes), WarmProgress)
        case {"request": "events"}:
            with daemon.listener() as listener:
                await _tell(stream, listener)
        case {"request": "states", "inodes": list(numbers)}:
            inodes = inodes_of(numbers)
            await _with_progress(stream, lambda: daemon.states(inodes), WarmProgress)
        case {"request": "history", "inode": number}:
            inode = inodes_of([number])[0]
            await _with_progress(stream, lambda: daemon.history(inode), WarmProgress)
        case {"request": "trash", "directory": number, "rest": str(rest), "after": after}:
            directory, place = inodes_of([number])[0], position_of(after) if isinstance(after, list) else None
            await _with_progress(stream, lambda: daemon.trash(directory, rest, place), Undeleted)
        case {"request": "undelete", "directory": number, "rest": str(rest), "version": version}:
            chosen = None if version is None else inodes_of([version])[0]
            since_ns = since_of(request.get("since_ns"))
            undeletion = daemon.undeletion(inodes_of([number])[0], rest, chosen, since_ns)
            await _with_progress(stream, undeletion.run, undeletion.progress)
        case {"request": "snapshot", "action": "create", "name": str(name)}:
            await _with_progress(stream, lambda: daemon.create_snapshot(name), daemon.progress)
        case {"request": "snapshot", "action": "delete", "name": str(name)}:
            await _with_progress(stream, lambda: daemon.delete_snapshot(name), daemon.progress)
        case _:
            await _say(stream, done(_answer_at_once(daemon, request)))


async def _tell(stream: trio.SocketStream, listener: Listening) -> None:
    """Pass on what happens until the client goes away; a sign of life when nothing does."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_hang_up, stream, nursery.cancel_scope)
        while True:
            message: Mapping[str, object] = {"event": "progress"}
            with trio.move_on_after(ALIVE_SECONDS):
                message = {"event": "told", "told": await listener.next()}
            try:
                await stream.send_all(encode(message))
            except trio.BrokenResourceError:
                nursery.cancel_scope.cancel()
                return


def _answer_at_once(daemon: Controlled, request: dict[str, Any]) -> Mapping[str, object] | None:
    match request:
        case {"request": "ping"}:
            return None
        case {"request": "status"}:
            return daemon.status()
        case {"request": "snapshots"}:
            return daemon.snapshots()
        case {"request": "pause"}:
            daemon.pause()
        case {"request": "resume"}:
            daemon.resume()
        case {"request": "bandwidth"}:
            return asdict(daemon.bandwidth())
        case {"request": "limit_bandwidth", "up_bytes_per_second": _, "down_bytes_per_second": _}:
            daemon.limit_bandwidth(bandwidth_of(request))
        case _:
            raise ProtocolError("unknown request")
    return None


async def _with_progress(
    stream: trio.SocketStream,
    work: Callable[[], Awaitable[Mapping[str, object] | None]],
    progress: Callable[[], Progress | WarmProgress | Undeleted],
) -> None:
    """Run `work` while the client is told how far it is, then tell it the end; its going away cancels the work."""
    sending = trio.Lock()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_report, stream, progress, sending, nursery.cancel_scope)
        nursery.start_soon(_watch_hang_up, stream, nursery.cancel_scope)
        try:
            answer = done(await work())
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
    stream: trio.SocketStream,
    progress: Callable[[], Progress | WarmProgress | Undeleted],
    sending: trio.Lock,
    conversation: trio.CancelScope,
) -> None:
    try:
        while True:
            async with sending:
                await stream.send_all(encode(progressed(progress())))
            await trio.sleep(PROGRESS_SECONDS)
    except trio.BrokenResourceError:
        conversation.cancel()


async def _watch_hang_up(stream: trio.SocketStream, conversation: trio.CancelScope) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some(MAX_REQUEST_BYTES):
            pass  # a client has nothing more to say; what it says all the same is no reason to stop
    conversation.cancel()
