"""The control socket against whoever does not keep to its protocol: other users, crowds, silence, and nonsense."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.controls_world import controls, write
from support.fake_daemon import FakeDaemon, asked, raw_answer, served

from disfs.control.address import listen, short_address
from disfs.control.client import ControlClient
from disfs.control.protocol import MAX_REQUEST_BYTES, SOCKET_NAME, decode, encode
from disfs.control.server import IDLE_SECONDS, LAST_WORD_SECONDS, MAX_CONNECTIONS, serve
from disfs.errors import ExitCode, UserError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.testing import MockClock


@contextlib.asynccontextmanager
async def connected(directory: Path) -> AsyncIterator[trio.SocketStream]:
    with short_address(directory) as address:
        stream = await trio.open_unix_socket(address)
    async with stream:
        yield stream


async def line_of(stream: trio.SocketStream) -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):
        piece = await stream.receive_some()
        assert piece, "the connection was closed without an answer"
        line += piece
    return decode(line)


def test_directory_of_the_socket_is_made_private(tmp_path: Path) -> None:
    """A state directory that others could look into is closed to them before there is a socket in it."""
    tmp_path.chmod(0o755)
    listen(tmp_path).close()
    assert 0o700 == stat.S_IMODE(tmp_path.stat().st_mode)
    assert 0o600 == stat.S_IMODE((tmp_path / SOCKET_NAME).stat().st_mode)


def test_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No socket is made where another user could replace it."""
    monkeypatch.setattr("disfs.control.address.may_talk", lambda _uid: False)
    with pytest.raises(UserError, match="belongs to user") as caught:
        listen(tmp_path)
    assert ExitCode.STATE_UNUSABLE == caught.value.exit_code
    assert [] == list(tmp_path.iterdir())


async def test_another_user_gets_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gets through to the socket all the same is asked who it is, and the line is cut."""
    monkeypatch.setattr("disfs.control.server.peer_pid_and_uid", lambda _socket: (1, 12345))
    async with served(tmp_path) as daemon, connected(tmp_path) as stream:
        await stream.send_all(encode({"request": "pause"}))
        with contextlib.suppress(trio.BrokenResourceError):
            assert b"" == await stream.receive_some()
        assert not daemon.paused


async def test_silent_client_is_sent_away(tmp_path: Path, autojump_clock: MockClock) -> None:
    """One that says nothing, or stops in the middle of a line, hears so after a while, and its place is free."""
    for beginning in (b"", b'{"request":'):
        async with served(tmp_path), connected(tmp_path) as stream:
            await stream.send_all(beginning)
            began = trio.current_time()
            assert "in time" in (await line_of(stream))["message"]
            assert IDLE_SECONDS == pytest.approx(trio.current_time() - began, abs=1)
            assert b"" == await stream.receive_some()


async def test_endless_line_is_cut(tmp_path: Path) -> None:
    """A request without an end is read no further than the longest one may be."""
    async with served(tmp_path), connected(tmp_path) as stream:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(b"x" * (3 * MAX_REQUEST_BYTES))
        assert "too long" in (await line_of(stream))["message"]


async def test_crowd_is_turned_away_and_places_come_free(tmp_path: Path) -> None:
    """One client too many hears so at once; when another one leaves there is room again."""
    async with served(tmp_path), contextlib.AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(connected(tmp_path)) for _ in range(MAX_CONNECTIONS)]
        for each in crowd:
            await each.send_all(encode({"request": "sync"}))
            assert "progress" == (await line_of(each))["event"]
        async with connected(tmp_path) as late:
            assert "are talking to this mount" in (await line_of(late))["message"]
        await crowd.pop().aclose()
        await trio.testing.wait_all_tasks_blocked(0.01)
        await asked(tmp_path, ControlClient.ping)


async def test_client_that_does_not_read_is_left(tmp_path: Path, autojump_clock: MockClock) -> None:
    """An answer that is not read blocks nothing but its own connection, and that not for long."""
    daemon = FakeDaemon()
    monkey: Any = daemon
    monkey.status = lambda: {"long": "x" * 8_000_000}  # more than a socket's buffer holds
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, daemon, tmp_path)
        async with connected(tmp_path) as stream:
            await stream.send_all(encode({"request": "status"}))
            await trio.sleep(2 * LAST_WORD_SECONDS)
            assert 1 == len(nursery.child_tasks)
            read = 0
            with contextlib.suppress(trio.BrokenResourceError):
                while piece := await stream.receive_some(1 << 20):
                    read += len(piece)
            assert read < 8_000_000
        nursery.cancel_scope.cancel()


async def test_regression_no_more_descriptors_do_not_end_a_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """When the machine cannot take a connection, it takes it later; before, that error ended the daemon."""
    accept, failures = trio.SocketListener.accept, [errno.EMFILE, errno.ENFILE]

    async def scarce(listener: trio.SocketListener) -> trio.SocketStream:
        if failures:
            raise OSError(number := failures.pop(), os.strerror(number))
        return await accept(listener)

    monkeypatch.setattr(trio.SocketListener, "accept", scarce)
    async with served(tmp_path):
        assert "done" == (await raw_answer(tmp_path, encode({"request": "ping"})))["event"]
    assert [] == failures


async def test_regression_bug_in_an_answer_does_not_end_a_mount(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected error is logged with its traceback and told in one line; before, it ended the daemon."""
    async with served(tmp_path) as daemon:
        monkey: Any = daemon
        monkey.pause = lambda: 1 // 0
        answer = await raw_answer(tmp_path, encode({"request": "pause"}))
        assert (ExitCode.INTERNAL, "ZeroDivisionError" in answer["message"]) == (answer["exit_code"], False)
        await asked(tmp_path, ControlClient.ping)
    assert [ZeroDivisionError] == [record.exc_info[0] for record in caplog.records if record.exc_info]


# Against the real controls

_TEXT = st.text(st.characters(), max_size=12) | st.sampled_from(
    ["file", "dir/file", "..", "/", "a//b", "\0", "\ud800", "."]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
)
_FALSE = st.just(value=False)
_INODE = st.integers(0, 6) | _JSON
_INODES = st.lists(_INODE, max_size=3)
_REQUESTS = st.one_of(
    st.fixed_dictionaries(
        {"request": st.sampled_from(["ping", "status", "snapshots", "bandwidth", "pause", "resume"])}
    ),
    st.fixed_dictionaries({"request": st.just("trash"), "directory": _INODE, "rest": _TEXT, "after": _JSON}),
    st.fixed_dictionaries({"request": st.just("undelete"), "directory": _INODE, "rest": _TEXT, "version": _INODE}),
    st.fixed_dictionaries({"request": st.just("unpin"), "inodes": _INODES}),
    st.fixed_dictionaries(
        {
            "request": st.just("warm"),
            "inodes": _INODES,
            "pin": st.booleans(),
            "wait": st.just(value=False),
        }
    ),
    st.fixed_dictionaries({"request": st.just("snapshot"), "action": st.just("delete"), "name": _TEXT}),
    st.dictionaries(_TEXT | st.just("request"), _JSON, max_size=4),
).map(lambda request: json.dumps(request).encode())
_LINES = _REQUESTS | st.binary(max_size=80).map(lambda raw: raw.replace(b"\n", b""))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - what is open, not a directory of anybody's


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(_LINES, min_size=1, max_size=20))
async def test_whatever_is_asked_of_a_real_mount_is_answered(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture, lines: list[bytes]
) -> None:
    """Any bytes and any JSON get an answer that ends the request; nothing is logged as a bug, nothing stays open, and
    what is in the volume is as before."""
    directory = tmp_path_factory.mktemp("fuzz")
    caplog.clear()
    async with controls(directory) as (made, world, _), trio.open_nursery() as nursery:
        await write(world, b"file", b"content")
        await nursery.start(serve, made, directory)
        await raw_answer(directory, b'{"request":"ping"}\n')
        before = descriptors()
        for line in lines:
            answer = await final_answer(directory, line + b"\n")
            assert answer["event"] in ("done", "error"), line
            assert "Traceback" not in str(answer.get("message"))
        assert {"event": "done", "result": {}} == await raw_answer(directory, b'{"request":"ping"}\n')
        assert before >= descriptors()
        assert b"file" in {name async for name in names(world)}
        nursery.cancel_scope.cancel()
    assert [] == [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def names(world: Any) -> AsyncIterator[bytes]:
    found: list[bytes] = []

    def add(name: bytes, *_: object) -> bool:
        found.append(name)
        return True

    await world.filesystem.read_directory(1, 0, add)
    for name in found:
        yield name


async def final_answer(directory: Path, request: bytes) -> dict[str, Any]:
    """The answer that ends a request."""
    async with connected(directory) as stream:
        await stream.send_all(request)
        raw = b""
        while True:
            *lines, raw = raw.split(b"\n")
            for line in lines:
                if (answer := decode(line))["event"] != "progress":
                    return answer
            piece = await stream.receive_some()
            assert piece, f"no answer to {request!r}"
            raw += piece


def test_peer_credentials_are_the_kernels(tmp_path: Path) -> None:
    """A client knows which process listens, whatever that one says."""
    listener = listen(tmp_path)
    with ControlClient.connect(tmp_path) as client:
        assert os.getpid() == client._pid
    listener.close()
    assert isinstance(listener, socket.socket)
