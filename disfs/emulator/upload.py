"""The body of Create Message: JSON, or multipart with files that stream to disk."""

from __future__ import annotations

import json
import mimetypes
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from disfs.emulator.call import JSON_LIMIT_BYTES, parse_object, parse_snowflake
from disfs.emulator.errors import invalid_form, too_large
from disfs.emulator.multipart import (
    MalformedMultipartError,
    MultipartParser,
    PartBegin,
    PartData,
    boundary_of,
)

if TYPE_CHECKING:
    from disfs.emulator.blobs import BlobStore, IncomingBlob
    from disfs.emulator.call import Call
    from disfs.emulator.settings import Settings

NONCE_CHARACTERS = 25
_FILE_PART = re.compile(r"files?(?:\[([0-9]{1,9})\])?")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(slots=True)
class ReceivedFile:
    """One file part."""

    blob: IncomingBlob
    filename: str
    too_large: bool = False


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file with what the payload says about it."""

    blob: IncomingBlob
    filename: str
    title: str | None
    description: str | None
    content_type: str | None


@dataclass(slots=True)
class Upload:
    """A whole received body. `discard` what was not kept."""

    payload: dict[str, Any] = field(default_factory=dict)
    files: dict[int, ReceivedFile] = field(default_factory=dict)

    def discard(self) -> None:
        """Drop all files that were not kept as blobs."""
        for file in self.files.values():
            file.blob.discard()

    def content(self, settings: Settings) -> str:
        """The checked text."""
        content = self.payload.get("content")
        if content is None:
            return ""
        if not isinstance(content, str):
            raise invalid_form("content", "STRING_TYPE_CONVERT", "Could not interpret value as string.")
        if len(content) > settings.content_characters:
            limit = settings.content_characters
            raise invalid_form("content", "BASE_TYPE_MAX_LENGTH", f"Must be {limit} or fewer in length.")
        return content

    def nonce(self) -> str | None:
        """The checked nonce, in JSON."""
        nonce = self.payload.get("nonce")
        if nonce is None:
            return None
        if isinstance(nonce, bool) or not isinstance(nonce, str | int) or len(str(nonce)) > NONCE_CHARACTERS:
            raise invalid_form("nonce", "NONCE_TYPE_TOO_LONG", "Nonce must be at most 25 characters.")
        return json.dumps(nonce)

    def named_files(self, settings: Settings) -> list[NamedFile]:
        """The files in the order of their numbers."""
        if any(file.too_large for file in self.files.values()):
            raise too_large()
        described = self._descriptions()
        if max(len(described), len(self.files)) > settings.attachments_per_message:
            limit = settings.attachments_per_message
            raise invalid_form("attachments", "BASE_TYPE_MAX_LENGTH", f"Must be {limit} or fewer in length.")
        if missing := described.keys() - self.files.keys():
            raise invalid_form("attachments", "ATTACHMENT_NOT_FOUND", f"No file for attachment {min(missing)}.")
        return [_named(file, described.get(number, {})) for number, file in sorted(self.files.items())]

    def _descriptions(self) -> dict[int, dict[str, Any]]:
        entries = self.payload.get("attachments")
        if entries is None:
            return {}
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise invalid_form("attachments", "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
        return {parse_snowflake(entry.get("id"), "attachments"): entry for entry in entries}


async def receive_upload(call: Call, blobs: BlobStore, settings: Settings) -> Upload:
    """Read a body, files to disk. Raises `ApiError`; nothing is left behind then."""
    if call.request.content_type == "application/json":
        return Upload(await call.json())
    upload = Upload()
    try:
        await _receive_parts(call, upload, blobs, settings)
    except BaseException:
        upload.discard()
        raise
    return upload


async def _receive_parts(call: Call, upload: Upload, blobs: BlobStore, settings: Settings) -> None:
    try:
        parser = MultipartParser(boundary_of(call.request.headers.get("Content-Type", "")))
        receiver = _Receiver(upload, blobs, settings)
        async for piece in call.body():
            for event in parser.feed(piece):
                if isinstance(event, PartBegin):
                    receiver.begin(event)
                elif isinstance(event, PartData):
                    await receiver.data(event.data)
        parser.close()
    except MalformedMultipartError as error:
        raise invalid_form("_", "CONTENT_TYPE_INVALID", f"Malformed multipart body: {error}") from error
    if receiver.received > settings.request_limit_bytes:
        raise too_large()
    upload.payload = parse_object(bytes(receiver.payload))


class _Receiver:
    """Puts the parts where they belong, in whatever order they come."""

    def __init__(self, upload: Upload, blobs: BlobStore, settings: Settings) -> None:
        self._upload = upload
        self._blobs = blobs
        self._settings = settings
        self._file: ReceivedFile | None = None
        self._in_payload = False
        self.payload = bytearray()
        self.received = 0

    def begin(self, part: PartBegin) -> None:
        self._in_payload = part.name == "payload_json"
        self._file = None
        found = _FILE_PART.fullmatch(part.name)
        if found is None or part.filename is None:
            return
        number = int(found.group(1) or 0)
        if number in self._upload.files:
            raise invalid_form("files", "DUPLICATE", f"File {number} is there twice.")
        self._file = self._upload.files[number] = ReceivedFile(self._blobs.receive(), part.filename)

    async def data(self, piece: bytes) -> None:
        self.received += len(piece)
        if self._in_payload:
            self.payload += piece
            if len(self.payload) > JSON_LIMIT_BYTES:
                raise too_large()
        elif self._file is not None and not self._file.too_large:
            over = self._file.blob.size + len(piece) > self._settings.attachment_limit_bytes
            if over or self.received > self._settings.request_limit_bytes:
                self._file.too_large = True
                self._file.blob.discard()
            else:
                await self._file.blob.write(piece)


def _named(file: ReceivedFile, described: dict[str, Any]) -> NamedFile:
    sent = described.get("filename") or file.filename
    if not isinstance(sent, str) or len(sent) > 1024:
        raise invalid_form("attachments", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 1024 in length.")
    description = described.get("description")
    if description is not None and (not isinstance(description, str) or len(description) > 1024):
        raise invalid_form("attachments", "BASE_TYPE_MAX_LENGTH", "Must be 1024 or fewer in length.")
    filename = stored_filename(sent)
    title = described.get("title")
    if not isinstance(title, str):
        title = sent.rpartition(".")[0] or sent if filename != sent else None
    return NamedFile(file.blob, filename, title, description, mimetypes.guess_type(filename)[0])


def stored_filename(sent: str) -> str:
    """The name that Discord keeps: ASCII letters, digits, `._-`; a name without any of those is replaced."""
    spaced = sent.replace(" ", "_")
    if spaced.isascii():
        return _UNSAFE.sub("", spaced).strip(".") or secrets.token_hex(8)
    _, dot, extension = spaced.rpartition(".")
    return secrets.token_hex(8) + (f".{extension}" if dot and not _UNSAFE.search(extension) else "")
