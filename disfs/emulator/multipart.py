"""A multipart/form-data parser that is fed bytes and gives events; it holds back at most one delimiter's length.

aiohttp's own reader pulls parts of a few KiB through several awaits each, and cannot be given a slowed-down
body; this one does no I/O, so the same code serves full speed, shaped bandwidth and tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.message import Message
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_HEADER_BYTES = 16 * 1024


class MalformedMultipartError(ValueError):
    """The body is not what its content type says."""


@dataclass(frozen=True, slots=True)
class PartBegin:
    """A part starts."""

    name: str
    filename: str | None
    content_type: str | None


@dataclass(frozen=True, slots=True)
class PartData:
    """Some bytes of the current part."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The current part is complete."""


Event: TypeAlias = PartBegin | PartData | PartEnd


def boundary_of(content_type: str) -> str:
    """The boundary that a Content-Type header names. Raises `MalformedMultipartError`."""
    message = Message()
    message["content-type"] = content_type
    boundary = message.get_boundary()
    if message.get_content_type() != "multipart/form-data" or not boundary:
        raise MalformedMultipartError("not multipart/form-data with a boundary")
    return boundary


class MultipartParser:
    """Turns pieces of a body into events; call `close` at its end."""

    def __init__(self, boundary: str) -> None:
        self._delimiter = b"\r\n--" + boundary.encode("latin-1")
        # The first delimiter has no line end before it; with one put there, all are alike.
        self._buffer = bytearray(b"\r\n")
        self._state = "preamble"

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take the next bytes; gives what they complete. Raises `MalformedMultipartError`."""
        self._buffer += data
        while True:
            state = self._state
            if state in {"preamble", "data"}:
                yield from self._until_delimiter()
            elif state == "delimiter":
                self._after_delimiter()
            elif state == "headers":
                yield from self._headers()
            else:
                self._buffer.clear()
            if self._state == state:
                return

    def close(self) -> None:
        """The body has ended. Raises `MalformedMultipartError` when it should not have."""
        if self._state != "end":
            raise MalformedMultipartError("the body ends before its last delimiter")

    def _until_delimiter(self) -> Iterator[Event]:
        at = self._buffer.find(self._delimiter)
        end = at if at >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1)
        if self._state == "data" and end:
            yield PartData(bytes(memoryview(self._buffer)[:end]))
        del self._buffer[: end if at < 0 else at + len(self._delimiter)]
        if at >= 0:
            if self._state == "data":
                yield PartEnd()
            self._state = "delimiter"

    def _after_delimiter(self) -> None:
        if len(self._buffer) < 2:
            return
        ending = bytes(self._buffer[:2])
        del self._buffer[:2]
        if ending == b"--":
            self._state = "end"
        elif ending == b"\r\n":
            self._state = "headers"
        else:
            raise MalformedMultipartError("a delimiter is followed by neither a line end nor --")

    def _headers(self) -> Iterator[Event]:
        at = self._buffer.find(b"\r\n\r\n")
        if at < 0 or at > MAX_HEADER_BYTES:
            if at > MAX_HEADER_BYTES or len(self._buffer) > MAX_HEADER_BYTES:
                raise MalformedMultipartError("the headers of a part are too long")
            return
        lines = bytes(self._buffer[:at]).decode("utf-8", "replace").split("\r\n")
        del self._buffer[: at + 4]
        self._state = "data"
        yield _begin(lines)


def _begin(lines: list[str]) -> PartBegin:
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise MalformedMultipartError("a part has a header without a colon")
        headers[name.strip().lower()] = value.strip()
    disposition = headers.get("content-disposition", "")
    name_value = _parameter(disposition, "name")
    if not disposition.lower().startswith("form-data") or name_value is None:
        raise MalformedMultipartError("a part has no form-data name")
    return PartBegin(name_value, _parameter(disposition, "filename"), headers.get("content-type"))


def _parameter(disposition: str, name: str) -> str | None:
    found = re.search(rf';\s*{name}="((?:[^"\\]|\\.)*)"', disposition) or re.search(
        rf";\s*{name}=([^;\s]+)", disposition
    )
    if found is None:
        return None
    return re.sub(r"\\(.)", r"\1", found.group(1))
