"""The control socket: server and client against a daemon made of a few fields."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fake_daemon import FakeDaemon, asked, raw_answer, served

from disfs.control.address import listen, may_talk, short_address
from disfs.control.client import ControlClient
from disfs.control.protocol import (
    MAX_INODES,
    MAX_REQUEST_BYTES,
    SOCKET_NAME,
    Progress,
    Undeleted,
    WarmProgress,
    encode,
    error_of,
)
from disfs.control.server import serve
from disfs.errors import ExitCode, FilesystemError, UserError
from disfs.quantities import Bandwidth
from disfs.values import InodeNumber

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


async def test_status_is_what_the_daemon_says(tmp_path: Path) -> None:
    """The daemon's status arrives as it is."""
    async with served(tmp_path):
        assert {"pid": 1, "dirty_bytes": 7} == await asked(tmp_path, ControlClient.status)
        await asked(tmp_path, ControlClient.ping)


async def test_states_and_history_of_files(tmp_path: Path) -> None:
    """Many files are asked for at once, in their order; what is wrong with one of them is said."""
    async with served(tmp_path) as daemon:
        inodes = [InodeNumber(number) for number in range(1, MAX_INODES + 1)]
        states = await asked(tmp_path, lambda client: client.states(inodes))
        assert MAX_INODES == len(states)
        assert ["discord", None, 100, True] == states[6]
        assert {"path": "/9"} == await asked(tmp_path, lambda client: client.history(InodeNumber(9)))
        daemon.error = UserError("nothing is known of it", ExitCode.USAGE)
        with pytest.raises(UserError, match="nothing is known"):
            await asked(tmp_path, lambda client: client.history(InodeNumber(9)))


async def test_events_are_passed_on_with_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener hears that the daemon is there, then what happens; one too many is told why it may not listen."""
    monkeypatch.setattr("disfs.control.server.ALIVE_SECONDS", 0.001)
    async with served(tmp_path) as daemon:

        def listen_to_two(client: ControlClient) -> list[Mapping[str, Any] | None]:
            told = client.events()
            first = next(told)
            trio.from_thread.run_sync(daemon.may_finish.set)
            return [first, next(filter(None, told))]

        assert [None, {"event": "paused", "at": 1.5}] == await asked(tmp_path, listen_to_two)
        daemon.error = UserError("8 programs listen already", ExitCode.USAGE)
        with pytest.raises(UserError, match="listen already"):
            await asked(tmp_path, lambda client: next(client.events()))


async def test_long_directory_is_no_obstacle(tmp_path: Path) -> None:
    """A state directory far deeper than a socket address is long works all the same."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    async with served(deep):
        assert {"pid": 1, "dirty_bytes": 7} == await asked(deep, ControlClient.status)


async def test_socket_is_private_and_goes_away(tmp_path: Path) -> None:
    """Only the owner may connect, and after the end there is no socket left."""
    async with served(tmp_path):
        assert 0o600 == stat.S_IMODE((tmp_path / SOCKET_NAME).stat().st_mode)
    assert not (tmp_path / SOCKET_NAME).exists()


async def test_socket_of_a_killed_daemon_is_replaced(tmp_path: Path) -> None:
    """What a kill -9 left behind does not keep the next daemon from listening."""
    listen(tmp_path).close()
    assert (tmp_path / SOCKET_NAME).exists()
    async with served(tmp_path):
        await asked(tmp_path, ControlClient.ping)


def test_nobody_listening_means_not_mounted(tmp_path: Path) -> None:
    """Without a daemon, or with a dead one's socket, the client says NOT_MOUNTED."""
    for is_left_over in (False, True):
        if is_left_over:
            listen(tmp_path).close()
        with pytest.raises(UserError) as caught:
            ControlClient.connect(tmp_path)
        assert ExitCode.NOT_MOUNTED == caught.value.exit_code


async def test_sync_reports_progress_until_done(tmp_path: Path) -> None:
    """A client that waits is told how far the daemon is, and then that it is done."""
    seen: list[Progress] = []

    async with served(tmp_path) as daemon:

        def show(progress: Progress) -> None:
            seen.append(progress)
            trio.from_thread.run_sync(daemon.may_finish.set)

        await asked(tmp_path, lambda client: client.sync(show))
    assert Progress(7, 1) == seen[0]


async def test_error_arrives_with_its_exit_code(tmp_path: Path) -> None:
    """What the daemon raises is raised by the client, message and exit code alike."""
    async with served(tmp_path) as daemon:
        daemon.error = UserError("it is in use; leave it", ExitCode.MOUNT_BUSY)
        with pytest.raises(UserError, match="it is in use; leave it") as caught:
            await asked(tmp_path, lambda client: client.unmount(lambda _progress: None, wait=True))
    assert ExitCode.MOUNT_BUSY == caught.value.exit_code
    assert [] == daemon.unmounted


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, ExitCode.STATE_FULL), (errno.EIO, ExitCode.INTERNAL)])
async def test_request_that_fails_ends_nothing_else(tmp_path: Path, number: int, code: ExitCode) -> None:
    """A disk that does not take what a sync makes durable is the client's to hear of; the daemon goes on serving."""
    async with served(tmp_path) as daemon:
        daemon.error = FilesystemError(number, "the write-ahead log cannot be synced")
        daemon.may_finish.set()
        with pytest.raises(UserError, match="write-ahead log") as caught:
            await asked(tmp_path, lambda client: client.sync(lambda _progress: None))
        assert code == caught.value.exit_code
        await asked(tmp_path, ControlClient.ping)


@pytest.mark.parametrize("wait", [True, False])
async def test_unmount_passes_on_whether_to_wait(tmp_path: Path, wait: bool) -> None:
    """The daemon learns whether the client waits for uploads."""
    async with served(tmp_path) as daemon:
        await asked(tmp_path, lambda client: client.unmount(lambda _progress: None, wait=wait))
        assert [wait] == daemon.unmounted


async def test_pause_and_resume_arrive(tmp_path: Path) -> None:
    """The daemon is told to pause, and to resume."""
    async with served(tmp_path) as daemon:
        await asked(tmp_path, ControlClient.pause)
        assert daemon.paused
        await asked(tmp_path, ControlClient.resume)
        assert not daemon.paused


@pytest.mark.parametrize("limit", [Bandwidth(), Bandwidth(1 << 20), Bandwidth(None, 2048), Bandwidth(4096, 1 << 40)])
async def test_bandwidth_limit_is_set_and_read(tmp_path: Path, limit: Bandwidth) -> None:
    """A limit arrives as it was sent, and can be asked for."""
    async with served(tmp_path) as daemon:
        await asked(tmp_path, lambda client: client.limit_bandwidth(limit))
        assert limit == daemon.limit == await asked(tmp_path, ControlClient.bandwidth)


@pytest.mark.parametrize("pin", [True, False])
async def test_warming_reports_how_far_it_is(tmp_path: Path, pin: bool) -> None:
    """Inodes and mark arrive, progress comes until the end, and the end says what was brought."""
    seen: list[WarmProgress] = []
    async with served(tmp_path) as daemon:

        def show(progress: WarmProgress) -> None:
            seen.append(progress)
            trio.from_thread.run_sync(daemon.may_finish.set)

        inodes = [InodeNumber(2), InodeNumber((1 << 63) - 1)]
        result = await asked(tmp_path, lambda client: client.warm(inodes, show, pin=pin, wait=True))
        assert [(inodes, pin)] == daemon.asked
    assert WarmProgress(5, 10, 1, 2, "/music/\u00e4 song", 0) == seen[0]
    assert WarmProgress(10, 10, 2, 2) == result


async def test_warming_in_the_background_answers_at_once(tmp_path: Path) -> None:
    """Without waiting the answer says how far it is; most inodes that a request may name do fit into one."""
    inodes = [InodeNumber((1 << 63) - 1 - n) for n in range(MAX_INODES)]
    async with served(tmp_path) as daemon:
        result = await asked(tmp_path, lambda client: client.warm(inodes, print, pin=True, wait=False))
        assert 5 == result.done_bytes
        await asked(tmp_path, lambda client: client.unpin(inodes))
        assert [(inodes, True), (inodes, None)] == daemon.asked


async def test_undeleting_says_what_it_did(tmp_path: Path) -> None:
    """Directory, rest of the path and version arrive, whatever bytes a name has; progress comes until the end."""
    seen: list[Undeleted] = []
    async with served(tmp_path) as daemon:

        def show(progress: Undeleted) -> None:
            seen.append(progress)
            trio.from_thread.run_sync(daemon.may_finish.set)

        root = InodeNumber(1)
        result = await asked(tmp_path, lambda client: client.undelete(root, "a/\udcff", InodeNumber(7), 5, show))
    assert Undeleted() == seen[0]
    assert Undeleted(1, 7, "/a/\udcff") == result


async def test_trash_is_listed_page_by_page(tmp_path: Path) -> None:
    """The client says where the daemon has ended."""
    async with served(tmp_path):
        first = await asked(tmp_path, lambda client: client.trash(InodeNumber(1), "a", None))
        assert {"entries": [{"asked": [1, "a", None]}], "after": ["/a/b", 7]} == first
        second = await asked(tmp_path, lambda client: client.trash(InodeNumber(1), "a", first["after"]))
        assert {"entries": [{"asked": [1, "a", ["/a/b", 7]]}], "after": None} == second


async def test_client_that_leaves_cancels_its_request(tmp_path: Path) -> None:
    """Ctrl-C in a client ends the daemon's waiting on its behalf, and nothing else."""
    async with served(tmp_path) as daemon:
        with short_address(tmp_path) as address:
            stream = await trio.open_unix_socket(address)
        await stream.send_all(b'{"request":"sync"}\n')
        await stream.receive_some(10)
        await stream.aclose()
        with trio.fail_after(5):
            await daemon.cancelled.wait()
        await asked(tmp_path, ControlClient.ping)


async def test_last_word_is_heard_when_the_daemon_ends(tmp_path: Path) -> None:
    """A daemon that ends right after an unmount still tells the client that it is done."""
    daemon = FakeDaemon()

    async with trio.open_nursery() as nursery:

        async def unmount(*, wait: bool) -> None:
            nursery.cancel_scope.cancel()

        daemon.unmount = unmount  # type: ignore[method-assign] # a fake of the fake, for this one test
        await nursery.start(serve, daemon, tmp_path)
        with trio.CancelScope(shield=True), trio.fail_after(5):
            await asked(tmp_path, lambda client: client.unmount(lambda _progress: None, wait=True))


_NO_LIMITS: tuple[object, ...] = (0, -5, 10, 1 << 80, True, "1M", 1e6, [])


@pytest.mark.parametrize(
    "request_line",
    [
        b"\n",
        b"not json\n",
        b"[]\n",
        b"{}\n",
        b'{"request":"format"}\n',
        b'{"request":"unmount","wait":"yes"}\n',
        b'{"request":"status"',
        b"x" * (MAX_REQUEST_BYTES * 2) + b"\n",
        b"[" * 4000 + b"\n",
        *(
            encode({"request": "warm", "inodes": inodes, "pin": True, "wait": True})
            for inodes in ([], [0], [-1], [1 << 63], [True], ["2"], [1.5], [None], "2", [2] * (MAX_INODES + 1))
        ),
        b'{"request":"warm","inodes":[2],"pin":1,"wait":true}\n',
        b'{"request":"warm","inodes":[2]}\n',
        b'{"request":"unpin","inodes":[]}\n',
        b'{"request":"unpin","inodes":{"2":3}}\n',
        *(
            encode({"request": "limit_bandwidth", "up_bytes_per_second": up, "down_bytes_per_second": None})
            for up in _NO_LIMITS
        ),
        b'{"request":"limit_bandwidth","up_bytes_per_second":4096}\n',
        b'{"request":"pin","inodes":[2]}\n',
    ],
)
async def test_nonsense_is_answered_with_an_error(tmp_path: Path, request_line: bytes) -> None:
    """Whatever is sent, the daemon answers with an error and goes on serving."""
    async with served(tmp_path):
        answer = await raw_answer(tmp_path, request_line)
        assert ExitCode.INTERNAL == error_of(answer).exit_code
        await asked(tmp_path, ControlClient.ping)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_WORDS = ("ping", "status", "sync", "unmount", "pause", "resume", "bandwidth", "limit_bandwidth", "warm", "unpin")
_FIELDS = ("inodes", "pin", "wait", "up_bytes_per_second", "down_bytes_per_second")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(
        st.binary(max_size=60).map(lambda raw: raw.replace(b"\n", b"") + b"\n")
        | st.builds(
            lambda word, fields: encode({"request": word} | fields),
            st.sampled_from(_WORDS) | st.text(max_size=8),
            st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=5),
        ),
        min_size=1,
        max_size=5,
    )
)
async def test_any_request_is_answered(tmp_path: Path, lines: list[bytes]) -> None:
    """Whatever a client sends, it gets an answer that ends its request, and the daemon goes on serving."""
    async with served(tmp_path) as daemon:
        daemon.may_finish.set()
        for line in lines:
            answer = await raw_answer(tmp_path, line)
            assert answer["event"] in ("done", "error", "progress")
        await asked(tmp_path, ControlClient.ping)
        for inodes, _pin in daemon.asked:
            assert all(type(inode) is int and 0 < inode < 1 << 63 for inode in inodes)


def test_only_the_owner_and_root_may_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other users are refused by the kernel's word on who they are."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert [True, True, False] == [may_talk(uid) for uid in (1000, 0, 1001)]


def test_client_refuses_a_socket_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client does not talk to a daemon that another user planted."""
    listener = listen(tmp_path)
    monkeypatch.setattr("disfs.control.client.peer_pid_and_uid", lambda _socket: (1, 12345))
    with pytest.raises(UserError, match="user 12345"):
        ControlClient.connect(tmp_path)
    listener.close()


def test_unknown_exit_code_becomes_internal() -> None:
    """A newer daemon's exit code does not break an older client."""
    assert ExitCode.INTERNAL == error_of({"message": "x", "exit_code": 999}).exit_code
