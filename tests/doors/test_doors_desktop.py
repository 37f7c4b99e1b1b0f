"""What the person at the desktop is told, when, and that nothing waits for it."""

from __future__ import annotations

import os
import shlex
import signal
from typing import TYPE_CHECKING, Any

import pytest
import trio
from support.controls_world import controls, write
from support.processes import is_gone, until

from disfs import desktop as desktop_module
from disfs.config import VolumeSettings
from disfs.desktop import AGAIN_SECONDS, LOOK_SECONDS, Desktop
from disfs.errors import CorruptDataError
from disfs.mount_options import parse_options

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from support.emulator import Emulator
    from support.home import Home
    from trio.testing import MockClock

BUS = {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere"}


def program(directory: Path, script: str = "") -> Path:
    """A notify-send that writes down what it is told, and with which secrets; its log."""
    file, log = directory / "notify-send", directory / "told"
    record = f'printf "%s|" "$@" "token:$DISFS_TOKEN" >> {shlex.quote(str(log))}; echo >> {shlex.quote(str(log))}'
    file.write_text(f"#!/bin/sh\n{record}\n{script}\n")
    file.chmod(0o755)
    return log


def told(log: Path) -> list[str]:
    """What came after the options, message by message."""
    return [line.split("|--|")[1] for line in log.read_text().splitlines()] if log.exists() else []


class Recorder(Desktop):
    """One that remembers what it would have told, and when."""

    def __init__(self) -> None:
        super().__init__("notify-send")
        self.told: list[tuple[str, float]] = []

    async def _tell(self, title: str, text: str) -> None:
        await trio.lowlevel.checkpoint()
        self.told.append((text, trio.current_time()))


async def test_each_kind_is_told_when_it_comes_up(autojump_clock: MockClock) -> None:
    """What stays is told once; what comes back within the hour is not told again, what comes back later is."""
    found: dict[str, str] = {}
    recorder = Recorder()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.run, "disfs: photos", lambda: dict(found))
        await trio.sleep(60)
        found |= {"damage": "one", "full": "two"}
        await trio.sleep(3 * AGAIN_SECONDS)
        assert ["one", "two"] == [text for text, _ in recorder.told]
        for pause in (LOOK_SECONDS * 2, AGAIN_SECONDS / 2, AGAIN_SECONDS):
            found.clear()
            await trio.sleep(pause)
            found["full"] = f"again after {pause:.0f}"
            await trio.sleep(LOOK_SECONDS * 2)
        nursery.cancel_scope.cancel()
    assert ["again after 10", "again after 3600"] == [text for text, _ in recorder.told[2:]]


async def test_message_is_passed_on_as_it_is(tmp_path: Path) -> None:
    """Title and text arrive as arguments, markup made harmless, and no secret is in the program's environment."""
    log = program(tmp_path)
    environment = BUS | {"PATH": f"{tmp_path}:/usr/bin:/bin", "DISFS_TOKEN": "s3cr3t"}
    with trio.move_on_after(30) as scope:
        await run_once(Desktop.from_environment(environment), {"damage": "-a <b> & 'c'"}, scope, log)
    assert ["disfs: photos|-a &lt;b&gt; &amp; 'c'|token:|"] == told(log)


async def run_once(desktop: Desktop, troubles: Mapping[str, str], scope: trio.CancelScope, log: Path) -> None:
    """Run until the message is there: the program is another process, and there is nothing to wait on but its log."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desktop.run, "disfs: photos", lambda: troubles)
        while not told(log):  # noqa: ASYNC110 - another process writes it
            await trio.sleep(0.01)
        scope.cancel()


@pytest.mark.parametrize("environment", [{}, {"PATH": "/nowhere", **BUS}, {"DBUS_SESSION_BUS_ADDRESS": ""}])
async def test_nobody_at_a_desktop(environment: dict[str, str]) -> None:
    """Without a session bus, or without the program, nobody is told, and nothing is asked."""
    await Desktop.from_environment(environment).run("disfs", lambda: pytest.fail("nobody to tell"))


async def test_program_that_hangs_or_is_broken_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not end is ended, and one that cannot be started is passed over; the next message is tried."""
    monkeypatch.setattr(desktop_module, "PATIENCE_SECONDS", 0.1)
    log = program(tmp_path, "exec sleep 60")
    hanging = Desktop(str(tmp_path / "notify-send"), os.environ)
    await hanging._tell("title", "one")
    await hanging._tell("title", "two")
    assert 2 == len(told(log))
    await Desktop(str(tmp_path / "absent"), {})._tell("title", "text")


async def test_what_is_wrong_becomes_a_sentence(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Nothing while all is well; damage, a full dirty limit, a lost lease and a refused token each have theirs."""
    async with controls(tmp_path) as (made, world, _):
        assert {} == made.troubles()
        made.pause()
        half = b"x" * (world.chunks.statistics().dirty_limit_bytes // 2)
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(write, world, b"%d" % number, half)
            await trio.testing.wait_all_tasks_blocked()
            assert ["full"] == list(made.troubles())
            made.resume()
        await world.chunks.drain()
        assert {} == made.troubles()
        watch: Any = made._watch
        watch.rejects_token, watch.warning = True, "Discord rejects the bot token"
        world.shipper.give_way(CorruptDataError("another machine has it"))
        assert {"lease", "token"} == made.troubles().keys()
        assert "another machine has it" in made.troubles()["lease"]


def test_notifications_can_be_turned_off() -> None:
    """-o nonotify is a setting of the mount, and the last one counts."""
    assert VolumeSettings().notifications
    assert not parse_options(("notify,nonotify",)).apply(VolumeSettings()).notifications


@pytest.mark.fuse
def test_refused_token_reaches_the_desktop(home: Home, discord: Emulator, tmp_path: Path) -> None:
    """A token that is revoked while mounted is told once, by the program in PATH, with what to do."""
    log = program(tmp_path)
    home.environment |= BUS | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    home.ok("init", f"n{os.getpid()}")
    home.ok("mount", str(home.mountpoint), "-o", "writeback_delay=0")
    pid = home.status()["pid"]
    discord.settings(token_revoked=True)
    (home.mountpoint / "file").write_text("x")
    until(lambda: told(log))
    os.kill(pid, signal.SIGKILL)
    until(is_gone(pid))
    discord.settings(token_revoked=False)
    assert 1 == len(told(log))
    assert f"disfs: n{os.getpid()}|Discord rejects the bot token" in told(log)[0]
    assert told(log)[0].endswith("|token:|")
