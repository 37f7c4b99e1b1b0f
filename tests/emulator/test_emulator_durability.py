"""What survives a crash, and that nothing half done does."""

from __future__ import annotations

import contextlib
import http.client
import stat
import threading
import time
from typing import TYPE_CHECKING

import pytest
from support.emulator import Emulator
from support.rest_client import RestClient, http_request

from disfs.emulator.blobs import BlobStore

if TYPE_CHECKING:
    from pathlib import Path


def test_acknowledged_message_survives_kill(tmp_path: Path) -> None:
    """Message, nonce, file and signatures are there again after kill -9, under a new port."""
    with Emulator.start(tmp_path / "data") as emulator:
        rest = RestClient(emulator)
        channel = rest.new_channel()
        sent = rest.send(channel, b"content", nonce="n", enforce_nonce=True).json
        guild, token = emulator.guild_id, emulator.token
        emulator.kill()
        emulator.restart()
        again = rest.send(channel, b"content", nonce="n", enforce_nonce=True).json

        assert (guild, token, sent["id"]) == (emulator.guild_id, emulator.token, again["id"])
        assert [sent["id"]] == rest.messages(channel)
        assert b"content" == http_request(again["attachments"][0]["url"]).body
        assert int(rest.send(channel, content="x").json["id"]) > int(sent["id"])


def test_kill_in_the_middle_of_an_upload_leaves_nothing(tmp_path: Path) -> None:
    """A half received file is removed at the next start, and no message knows of it."""
    with Emulator.start(tmp_path / "data", rate_limits=False) as emulator:
        rest = RestClient(emulator)
        channel = rest.new_channel()
        emulator.settings(upload_bytes_per_second=4_000_000.0)

        def send() -> None:
            with contextlib.suppress(ConnectionError, http.client.HTTPException):
                rest.send(channel, b"x" * 9_000_000)

        sender = threading.Thread(target=send)
        sender.start()
        incoming = tmp_path / "data" / "incoming"
        deadline = time.monotonic() + 20
        while not any(path.stat().st_size for path in incoming.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        emulator.kill()
        sender.join()
        left = list(incoming.iterdir())
        emulator.restart()

        assert 1 == len(left)
        assert [] == list(incoming.iterdir())
        assert [] == rest.messages(channel)


@pytest.mark.parametrize(("when", "count"), [("before", 0), ("after", 1)])
def test_crash_at_a_chosen_moment(tmp_path: Path, when: str, count: int) -> None:
    """The crash fault is kill -9 before or after the commit; the next start knows which it was."""
    with Emulator.start(tmp_path / "data") as emulator:
        rest = RestClient(emulator)
        channel = rest.new_channel()
        emulator.fault(kind="crash", route="create_message", when=when)
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            rest.send(channel, b"x")
        emulator.kill()
        emulator.restart()

        assert count == len(rest.messages(channel))


def test_file_without_a_row_is_removed_at_start(tmp_path: Path) -> None:
    """A crash between file and commit leaves a file that nobody will ever ask for."""
    store = BlobStore(tmp_path)
    store.prepare(set())
    for number in (5, 6):
        store.path(number).write_bytes(b"x")
    (store.path(7).parent / "strange").write_bytes(b"x")

    assert 2 == store.prepare({5})
    assert [store.path(5)] == [path for path in (tmp_path / "blobs").glob("*/*") if path.is_file()]


def test_broken_disk_is_a_server_error(tmp_path: Path) -> None:
    """When a file cannot be written the client gets Discord's 500 in JSON, and the emulator goes on."""
    with Emulator.start(tmp_path / "data", rate_limits=False) as emulator:
        rest = RestClient(emulator)
        channel = rest.new_channel()
        incoming = tmp_path / "data" / "incoming"
        incoming.rmdir()
        failed = rest.send(channel, b"x" * 1_000_000)
        incoming.mkdir()

        assert (500, 0) == (failed.status, failed.code)
        assert 200 == rest.send(channel, b"x").status


def test_clock_shift_survives_a_restart(tmp_path: Path) -> None:
    """Time does not jump back when the emulator starts again."""
    with Emulator.start(tmp_path / "data") as emulator:
        emulator.shift_clock(1000)
        emulator.restart()

        assert 1000 == emulator.control("GET", "/clock")["shift_seconds"]


def test_files_of_the_data_directory_are_private(tmp_path: Path) -> None:
    """The token is for the owner's eyes only."""
    with Emulator.start(tmp_path / "data") as emulator:
        modes = [stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) for name in ("info.json", "token", "lock")]
        directory = stat.S_IMODE((tmp_path / "data").stat().st_mode)
        emulator.stop()

    assert [0o600] * 3 == modes
    assert 0o700 == directory


def test_log_holds_no_token(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither token nor control path nor signatures are written to the log."""
    with Emulator.start(tmp_path / "data") as emulator:
        rest = RestClient(emulator)
        url = rest.send(rest.new_channel(), b"x").json["attachments"][0]["url"]
        http_request(url)
        secrets = [emulator.token, emulator.control_url.rpartition("/")[2], url.partition("hm=")[2]]
    log = capfd.readouterr().err

    assert "listening" in log
    assert [] == [secret for secret in secrets if secret in log]
