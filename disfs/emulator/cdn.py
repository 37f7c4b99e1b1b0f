"""The CDN: attachments by signed URL, whole or in ranges, streamed from their files."""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING

from aiohttp import web

from disfs.emulator.call import ConnectionCutError
from disfs.emulator.errors import ApiError

if TYPE_CHECKING:
    from disfs.emulator.call import Call
    from disfs.emulator.model import Attachment
    from disfs.emulator.world import World

GONE = "This content is no longer available."
PAGE = "<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>{filling}</body></html>"
"""What proxies, captive portals and bot checks answer with status 200 in the place of a file."""
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class UnsatisfiableRangeError(Exception):
    """A range that begins after the end."""


class CdnRoutes:
    """The handlers of /attachments."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def get(self, call: Call) -> web.StreamResponse:
        """GET and HEAD: 200, 206, 404 in text, 416."""
        attachment = await self._attachment(call)
        if attachment is None:
            return gone()
        if call.fault is not None and call.fault.kind == "html":
            return page(call.fault.bytes)
        path = self._world.blobs.path(attachment.id)
        try:
            descriptor = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return gone()
        try:
            return await self._send(call, attachment, descriptor)
        finally:
            os.close(descriptor)

    async def _attachment(self, call: Call) -> Attachment | None:
        request = call.request
        if not self._world.signer.valid(request.rel_url.raw_path, request.query):
            return None
        try:
            wanted = call.snowflake("attachment_id")
        except ApiError:
            return None
        attachment = await self._world.messages.attachment(wanted)
        if attachment is None or attachment.removed_ms is None:
            return attachment
        grace_ms = self._world.settings.delete_grace_seconds * 1000
        return attachment if self._world.clock.now_ms() < attachment.removed_ms + grace_ms else None

    async def _send(self, call: Call, attachment: Attachment, descriptor: int) -> web.StreamResponse:
        fault_kind = None if call.fault is None else call.fault.kind
        span = None
        if not self._world.settings.ignore_range and fault_kind != "ignore_range":
            try:
                span = parse_range(call.request.headers.get("Range"), attachment.size)
            except UnsatisfiableRangeError:
                return web.Response(status=416, headers={"Content-Range": f"bytes */{attachment.size}"})
        start, length = span or (0, attachment.size)
        response = web.StreamResponse(status=200 if span is None else 206)
        response.headers.update(
            {
                "Accept-Ranges": "bytes",
                "Cache-Control": "private, max-age=31536000",
                "Content-Disposition": f'attachment; filename="{attachment.filename}"',
                "Content-Type": attachment.content_type or "application/octet-stream",
                "ETag": f'"{attachment.id:x}"',
                "X-Emulator": "1",
            }
        )
        response.content_length = length
        if span is not None:
            shown = start + 1 if fault_kind == "wrong_range" else start
            response.headers["Content-Range"] = f"bytes {shown}-{shown + length - 1}/{attachment.size}"
        await response.prepare(call.request)
        if call.request.method == "GET":
            await self._send_body(call, response, descriptor, start, length)
        await response.write_eof()
        return response

    async def _send_body(
        self, call: Call, response: web.StreamResponse, descriptor: int, start: int, length: int
    ) -> None:
        ramp = call.shaper.transfer()
        fault = call.fault
        cut_at = call.cut_at()
        if fault is not None and fault.kind == "truncate":
            cut_at = fault.bytes
        corrupt_at = fault.bytes if fault is not None and fault.kind == "corrupt" else None
        sent = 0
        while sent < length:
            count = min(call.shaper.download_piece_bytes(), length - sent)
            if cut_at is not None:
                count = min(count, cut_at - sent)
                if count <= 0:
                    assert fault is not None  # cut_at comes from it
                    raise ConnectionCutError("close" if fault.kind == "truncate" else fault.kind, fault.seconds)
            piece = await asyncio.to_thread(os.pread, descriptor, count, start + sent)
            if not piece:
                raise ConnectionCutError("reset", 0)
            if corrupt_at is not None and sent <= corrupt_at < sent + len(piece):
                piece = flip(piece, corrupt_at - sent)
            await call.shaper.sent(len(piece), ramp)
            await response.write(piece)
            sent += len(piece)
            call.counters.sent_bytes += len(piece)


def gone() -> web.Response:
    """The answer for expired, unsigned, altered and deleted alike."""
    return web.Response(text=GONE, status=404)


def page(least_bytes: int) -> web.Response:
    """A page of HTML, at least so long: the Range is ignored, as by whoever does not know of it."""
    return web.Response(text=PAGE.format(filling=" " * least_bytes), content_type="text/html")


def flip(piece: bytes, at: int) -> bytes:
    """A piece with one byte wrong."""
    changed = bytearray(piece)
    changed[at] ^= 0xFF
    return bytes(changed)


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Start and length of a single byte range; None when there is none, or none that is understood.

    Raises `UnsatisfiableRangeError`.
    """
    found = _RANGE.fullmatch((header or "").strip())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        length = min(int(last), size)
        if length == 0:
            raise UnsatisfiableRangeError
        return size - length, length
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    if last and int(last) < start:
        return None
    if start >= size:
        raise UnsatisfiableRangeError
    return start, end - start + 1
