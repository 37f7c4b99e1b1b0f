"""`python -m disfs.emulator`: start, refusals, stop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and standard error of a start that should fail."""
    command = [sys.executable, "-m", "disfs.emulator", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr


def assert_one_line(text: str) -> None:
    assert 1 == len(text.splitlines()), text
    assert "Traceback" not in text


def test_taken_port_is_one_line_and_code_23(tmp_path: Path) -> None:
    """Another listener on the port: the line names the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, text = run("--data", tmp_path / "data", "--port", str(port))

    assert 23 == code
    assert_one_line(text)
    assert str(port) in text


def test_second_start_on_a_directory_is_one_line_and_code_23(tmp_path: Path) -> None:
    """The first one goes on, its info file untouched."""
    with Emulator.start(tmp_path / "data") as emulator:
        code, text = run("--data", tmp_path / "data")

        assert 23 == code
        assert_one_line(text)
        assert emulator.counts() == {}
        assert (tmp_path / "data" / "info.json").exists()


@pytest.mark.parametrize("what", ["file", "below a file", "no database", "other version"])
def test_unusable_directory_is_one_line_and_code_21(tmp_path: Path, what: str) -> None:
    """Whatever is wrong with the directory, the line names it."""
    data = tmp_path / "data"
    if what == "no database":
        data.mkdir()
        (data / "emulator.sqlite").write_bytes(b"this is not a database" * 100)
    elif what == "other version":
        data.mkdir()
        with contextlib.closing(sqlite3.connect(data / "emulator.sqlite", isolation_level=None)) as database:
            database.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT)")
            database.execute("INSERT INTO meta VALUES ('schema_version', '99')")
    else:
        data.write_bytes(b"")
        data = data / "below" if what == "below a file" else data
    code, text = run("--data", data)

    assert 21 == code
    assert_one_line(text)
    assert str(data) in text


def test_token_that_looks_real_is_refused(tmp_path: Path) -> None:
    """A real bot token must never be used with an emulator, nor be printed."""
    data = tmp_path / "data"
    data.mkdir()
    token = "A" * 26 + "." + "B" * 6 + "." + "C" * 38
    (data / "token").write_text(token)
    code, text = run("--data", data)

    assert 2 == code
    assert_one_line(text)
    assert token not in text


def test_wrong_setting_is_refused(tmp_path: Path) -> None:
    """--set takes known names and JSON values."""
    for assignment in ("nothing=1", "latency_seconds=x", "latency_seconds"):
        code, text = run("--data", tmp_path / "data", "--set", assignment)
        assert 2 == code
        assert_one_line(text)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    """Exit code 0, no info file left, even while a request stalls."""
    with Emulator.start(tmp_path / "data", rate_limits=False) as emulator:
        process = emulator._process
        assert process is not None
        emulator.fault(kind="stall", route="get_me", seconds=60)
        with socket.create_connection(("127.0.0.1", int(emulator.api_url.split(":")[2].split("/")[0]))) as client:
            head = f"GET /api/v10/users/@me HTTP/1.1\r\nHost: x\r\nAuthorization: Bot {emulator.token}\r\n"
            client.sendall(f"{head}User-Agent: DiscordBot (x, 0)\r\n\r\n".encode())
            while not emulator.faults()[0]["fired"]:
                pass
            os.kill(emulator.pid, number)
            assert 0 == process.wait(timeout=5)

        assert not (tmp_path / "data" / "info.json").exists()


def test_control_api_can_stop_it(tmp_path: Path) -> None:
    """POST /shutdown is as good as a signal."""
    with Emulator.start(tmp_path / "data") as emulator:
        process = emulator._process
        emulator.control("POST", "/shutdown")

        assert process is not None
        assert 0 == process.wait(timeout=5)


def test_info_file_tells_who_listens_where(tmp_path: Path) -> None:
    """The process, the loopback address, ids as text."""
    with Emulator.start(tmp_path / "data") as emulator:
        info = emulator._info

        assert {"pid", "api_url", "token", "guild_id", "control_url"} == set(info)
        assert info["api_url"].startswith("http://127.0.0.1:")
        assert info["api_url"].endswith("/api/v10")
        assert isinstance(info["guild_id"], str)
        assert info["pid"] == getattr(emulator._process, "pid", None)
