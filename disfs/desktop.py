"""Tells the person at the desktop of what must not wait until somebody looks at `disfs status`.

Through notify-send, where that is installed and there is a session bus to say it on. Nothing waits for it: one message
is said at a time, in a process of its own that is given up after a while.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
from typing import TYPE_CHECKING, Self

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""How soon somebody hears of it."""
AGAIN_SECONDS = 3600.0
"""The least time between two messages of one kind, however often it comes and goes."""
PATIENCE_SECONDS = 10.0
"""How long notify-send may take."""
_SECRETS = ("DISFS_TOKEN", "DISFS_PASSPHRASE")


class Desktop:
    """Where a person may sit; nobody, where there is no program to tell them."""

    def __init__(self, program: str | None = None, environment: Mapping[str, str] | None = None) -> None:
        """`environment` is what the program runs with."""
        self._program = program
        self._environment = {k: v for k, v in (environment or {}).items() if k not in _SECRETS}
        self._present: frozenset[str] = frozenset()
        self._told_at: dict[str, float] = {}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """The desktop that this process was started in, if it was."""
        if not environment.get("DBUS_SESSION_BUS_ADDRESS"):
            return cls()
        return cls(shutil.which("notify-send", path=environment.get("PATH")), environment)

    async def run(self, title: str, troubles: Callable[[], Mapping[str, str]]) -> None:
        """Tell of what comes up until cancelled. `troubles`: what is wrong now, a sentence for each kind."""
        if self._program is None:
            return
        while True:
            now = troubles()
            for kind, text in now.items():
                if self._is_due(kind):
                    await self._tell(title, text)
            self._present = frozenset(now)
            await trio.sleep(LOOK_SECONDS)

    def _is_due(self, kind: str) -> bool:
        """Whether it has just come up, and nobody was told of its kind a short while ago; notes that it is told."""
        now = trio.current_time()
        if kind in self._present or now - self._told_at.get(kind, -AGAIN_SECONDS) < AGAIN_SECONDS:
            return False
        self._told_at[kind] = now
        return True

    async def _tell(self, title: str, text: str) -> None:
        assert self._program is not None
        # The text may have words of Discord's in it, and a desktop takes what looks like markup for that.
        plain = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        command = [self._program, "--app-name=disfs", "--icon=drive-harddisk", "--urgency=critical", "--", title, plain]
        try:
            with trio.move_on_after(PATIENCE_SECONDS) as scope:
                done = await trio.run_process(
                    command,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    check=False,
                )
                log.debug("notify-send ended with %d", done.returncode)
            if scope.cancelled_caught:
                log.info("notify-send took too long and was ended")
        except OSError as error:
            log.info("the desktop cannot be told: %s", error)
