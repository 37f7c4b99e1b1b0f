"""Tells systemd, or whoever else started us and speaks its protocol, how we are: sd_notify(3), a datagram for each.

    READY=1 the mount can be used    STATUS=... a line for people    WATCHDOG=1 the main loop turns    STOPPING=1

Nothing waits for the other side: a message that cannot be sent at once is dropped, and the next one says it again.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING, Self

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

log = logging.getLogger(__name__)

STATUS_SECONDS = 10.0
"""How often the status line is looked at where no watchdog asks for more."""
_MAX_STATUS = 500


class ServiceManager:
    """Who started us and wants to hear how we are; nobody, where nothing says otherwise."""

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        """`address` of its socket: a path, or `@` and an abstract name. `watchdog_seconds`: how soon it despairs."""
        self._address = f"\0{address[1:]}" if address is not None and address.startswith("@") else address
        self._pause_seconds = min(STATUS_SECONDS, (watchdog_seconds or float("inf")) / 3)
        self._has_watchdog = watchdog_seconds is not None
        self._socket = (
            None if address is None else socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        )
        self._said: str | None = None
        self._has_failed = False

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Self:
        """As the environment says, out of which that is taken: children are not who is meant."""
        address = environment.pop("NOTIFY_SOCKET", None)
        period, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", None)
        if address is not None and not address.startswith(("/", "@")):
            log.warning("NOTIFY_SOCKET is %r, which is no local socket: the service manager hears nothing", address)
            address = None
        is_meant = address is not None and period.isdecimal() and int(period) > 0 and pid in (None, str(os.getpid()))
        return cls(address, int(period) / 1e6 if is_meant else None)

    def ready(self) -> None:
        """The mount can be used."""
        self._tell("READY=1")

    async def run(self, describe: Callable[[], str], stopping: trio.Event) -> None:
        """Say how we are until cancelled. `describe` makes the line for people; `stopping` is set when we go."""
        if self._socket is None:
            return
        with self._socket:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._announce_end, stopping)
                while True:
                    self._tell(*(["WATCHDOG=1"] if self._has_watchdog else []), *self._status(describe()))
                    await trio.sleep(self._pause_seconds)

    async def _announce_end(self, stopping: trio.Event) -> None:
        await stopping.wait()
        self._tell("STOPPING=1")

    def _status(self, line: str) -> list[str]:
        """The status line, if it is another one than before."""
        line = " ".join(line.split())[:_MAX_STATUS]
        if line == self._said:
            return []
        self._said = line
        return [f"STATUS={line}"]

    def _tell(self, *lines: str) -> None:
        if self._socket is None or self._address is None or not lines:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(errors="replace"), self._address)
        except OSError as error:
            self._said = None
            if not self._has_failed:
                log.warning("the service manager cannot be told how we are: %s", error)
            self._has_failed = True
