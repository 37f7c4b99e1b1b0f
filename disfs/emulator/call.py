"""One request on its way through the emulator: its body as shaped bytes, its fault, its cut connections."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from disfs.emulator.errors import ApiError, invalid_form, too_large
from disfs.emulator.faults import CONNECTION_KINDS
from disfs.emulator.snowflake import MAXIMUM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from disfs.emulator.counters import Counters
    from disfs.emulator.faults import Fault
    from disfs.emulator.shaping import Shaper

JSON_LIMIT_BYTES = 1024 * 1024
READ_BUFFER_BYTES = 256 * 1024
STALL_POLL_SECONDS = 0.02


class ConnectionCutError(Exception):
    """The connection is to be ended without an answer, in the way `kind` says."""

    def __init__(self, kind: str, seconds: float) -> None:
        super().__init__(kind)
        self.kind = kind
        self.seconds = seconds


@dataclass(slots=True)
class Call:
    """What a route is given beside the stores."""

    request: web.Request
    shaper: Shaper
    counters: Counters
    fault: Fault | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def snowflake(self, name: str) -> int:
        """An id from the path; anything but a snowflake is a form error, as with Discord."""
        return parse_snowflake(self.request.match_info[name], name)

    def cut_at(self) -> int | None:
        """After how many bytes of the body this call's fault cuts the connection; None when it does not."""
        fault = self.fault
        if fault is None or fault.when != "during" or fault.kind not in CONNECTION_KINDS:
            return None
        return fault.bytes

    async def body(self) -> AsyncIterator[bytes]:
        """The request's body, piece by piece, no faster than the settings allow."""
        ramp = self.shaper.transfer()
        cut_at = self.cut_at()
        received = 0
        async for piece in self.request.content.iter_any():
            received += len(piece)
            self.counters.received_bytes += len(piece)
            await self.shaper.received(len(piece), ramp)
            if cut_at is not None and received > cut_at:
                assert self.fault is not None  # cut_at comes from it
                raise ConnectionCutError(self.fault.kind, self.fault.seconds)
            yield piece

    async def drain(self) -> None:
        """Read what is left of the body: the proxy in front of Discord does that before it passes an answer on."""
        if self.request.body_exists:
            async for _ in self.body():
                pass

    async def json(self) -> dict[str, Any]:
        """The body as a JSON object."""
        if self.request.content_type != "application/json":
            raise invalid_form("_", "CONTENT_TYPE_INVALID", "Expected Content-Type to be application/json.")
        pieces = []
        size = 0
        async for piece in self.body():
            size += len(piece)
            if size > JSON_LIMIT_BYTES:
                raise too_large()
            pieces.append(piece)
        return parse_object(b"".join(pieces))


def parse_object(text: bytes) -> dict[str, Any]:
    """JSON that must be an object."""
    try:
        value = json.loads(text or b"{}")
    except ValueError as error:
        raise ApiError(400, 50109, "The request body contains invalid JSON.") from error
    if not isinstance(value, dict):
        raise invalid_form("_", "DICT_TYPE_CONVERT", "Only dictionaries may be used in a DictType")
    return value


def parse_snowflake(value: Any, field_name: str) -> int:
    """An id given as text or number."""
    text = str(value) if not isinstance(value, bool) else ""
    if not text.isascii() or not text.isdecimal() or int(text) > MAXIMUM:
        raise invalid_form(field_name, "NUMBER_TYPE_COERCE", f'Value "{text}" is not snowflake.')
    return int(text)


def json_response(value: Any, status: int = 200) -> web.Response:
    """A JSON reply whose content type has no charset: discord.py compares it as a whole."""
    return web.Response(body=json.dumps(value).encode(), status=status, content_type="application/json")


async def cut_connection(request: web.Request, cut: ConnectionCutError, stopping: asyncio.Event) -> None:
    """End the connection of a request without an answer."""
    if cut.kind == "stall":
        await stall(request, cut.seconds, stopping)
    transport = request.transport
    if transport is None:
        return
    if cut.kind == "reset":
        raw: socket.socket | None = transport.get_extra_info("socket")
        if raw is not None:
            # Lingering for zero seconds makes the kernel send RST instead of FIN.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()


async def stall(request: web.Request, seconds: float, stopping: asyncio.Event) -> None:
    """Say nothing for a time, or until the client gives up or the emulator stops."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while loop.time() < deadline and not stopping.is_set():
        if request.transport is None or request.transport.is_closing():
            return
        await asyncio.sleep(min(STALL_POLL_SECONDS, deadline - loop.time()))
