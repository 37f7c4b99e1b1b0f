"""`python -m disfs.emulator`: one process, in the foreground, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import secrets
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiosqlite
import click

from disfs.emulator.app import run_emulator
from disfs.emulator.settings import InvalidSettingError, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("disfs.emulator")

USAGE = 2
DIRECTORY_UNUSABLE = 21
PORT_TAKEN = 23
"""Also: the directory is in use. The numbers are those of `disfs`, which passes them on."""

REAL_BOT_TOKEN = re.compile(r"[\w-]{23,28}\.[\w-]{6,7}\.[\w-]{27,}")


class StartError(Exception):
    """One line that says what is wrong, and the exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Directory that keeps everything.")
@click.option(
    "--port", default=0, show_default="any free one", type=click.IntRange(0, 65535), help="Port to listen on."
)
@click.option("--set", "assignments", multiple=True, metavar="NAME=JSON", help="A setting to start with; repeatable.")
@click.option("--verbose", is_flag=True, help="Log every request.")
def main(data: Path, port: int, assignments: tuple[str, ...], verbose: bool) -> None:
    """Run a Discord emulator on 127.0.0.1 in the foreground."""
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    log.setLevel(level)
    try:
        settings = _settings(assignments)
        with _locked(data):
            asyncio.run(_serve(data, port, settings))
    except StartError as error:
        click.echo(f"emulator: {error}", err=True)
        sys.exit(error.exit_code)


async def _serve(data: Path, port: int, settings: Settings) -> None:
    stop_signals = _catch_signals()
    token = _token(data)
    async with contextlib.AsyncExitStack() as stack:
        try:
            running = await stack.enter_async_context(run_emulator(data, token, port, settings))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES} and port and not error.filename:
                why = "taken" if error.errno == errno.EADDRINUSE else "not allowed"
                raise StartError(f"port {port} is {why}; choose another with --port", PORT_TAKEN) from error
            raise _unusable(data, error) from error
        except aiosqlite.Error as error:
            raise _unusable(data, error) from error
        info = {
            "pid": os.getpid(),
            "api_url": running.api_url,
            "token": token,
            "guild_id": str(running.world.identity.guild),
            "control_url": running.control_url,
        }
        with _published(data / "info.json", info):
            log.info("Emulator (not Discord) listening on %s", running.api_url)
            await _first(stop_signals, running.stop)
            log.info("Stopping")


def _catch_signals() -> asyncio.Event:
    caught = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, caught.set)
    return caught


async def _first(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def _settings(assignments: tuple[str, ...]) -> Settings:
    settings = Settings()
    try:
        for assignment in assignments:
            name, _, value = assignment.partition("=")
            settings.update({name: json.loads(value)})
    except (InvalidSettingError, json.JSONDecodeError) as error:
        raise StartError(f"--set {assignment}: {error}", USAGE) from error
    return settings


@contextlib.contextmanager
def _locked(data: Path) -> Iterator[None]:
    """Make the directory and hold its lock."""
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(data, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartError(f"an emulator is already running on {data}", PORT_TAKEN) from error
        # What a killed run left: nobody shall take it for this one while it starts.
        (data / "info.json").unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


def _token(data: Path) -> str:
    """The token of this directory, made at the first start; one that could be real is refused."""
    path = data / "token"
    try:
        try:
            token = path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            token = f"emulator-{secrets.token_hex(16)}"
            _write_private(path, token + "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(data, error) from error
    if not token or REAL_BOT_TOKEN.fullmatch(token):
        raise StartError(f"{path} is empty or looks like a real bot token; delete it", USAGE)
    return token


@contextlib.contextmanager
def _published(path: Path, info: dict[str, Any]) -> Iterator[None]:
    """Have the info file there while the block runs."""
    try:
        _write_private(path, json.dumps(info, indent=1) + "\n")
    except OSError as error:
        raise _unusable(path.parent, error) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    aside = path.with_name(path.name + ".new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _unusable(data: Path, error: Exception) -> StartError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return StartError(f"cannot use {data}: {reason}", DIRECTORY_UNUSABLE)


if __name__ == "__main__":
    main()
