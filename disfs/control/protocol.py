"""What is said over the control socket, and what the daemon must be able to do. Pure.

One JSON object a line. A client sends one request and reads until an answer that ends it:

    {"request": "ping"}                    {"event": "done", "result": {}}
    {"request": "status"}                  {"event": "done", "result": {"pid": ...}}
    {"request": "sync"}                    {"event": "progress", ...}*, then done
    {"request": "unmount", "wait": true}   {"event": "progress", ...}*, then done
    anything that fails                    {"event": "error", "message": "...", "exit_code": 28}

Closing the connection cancels the request. Neither direction carries file contents, keys, tokens or URLs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from disfs.errors import DisfsError, ExitCode, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_REQUEST_BYTES = 4096
MAX_ANSWER_BYTES = 256 * 1024
SOCKET_NAME = "control.sock"
PROGRESS_SECONDS = 0.2
"""How often a request that takes long says how far it is."""


class ProtocolError(DisfsError):
    """The other side said something that this protocol does not know."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How much there is still to send."""

    dirty_bytes: int
    dirty_chunks: int
    failure: str | None = None
    """Why uploads do not get on, in words for a person; None while they do."""


class Controlled(Protocol):
    """The daemon as the control server sees it."""

    def status(self) -> Mapping[str, object]:
        """What `disfs status --json` prints: names and plain JSON values, no secrets. Answers at once."""
        ...

    def progress(self) -> Progress:
        """How far writeback is. Answers at once."""
        ...

    async def sync(self) -> None:
        """Return when everything written before the call is in Discord. Cancel: it is sent later."""
        ...

    async def unmount(self, *, wait: bool) -> None:
        """Take the mount away, then stop the daemon; with `wait` only after everything is in Discord.

        MOUNT_BUSY when it is in use: nothing has changed then. Once the mount is away there is no going back: a cancel
        makes the daemon stop without waiting; what is unsent stays on this machine for the next mount.
        """
        ...


def encode(message: Mapping[str, object]) -> bytes:
    """One message as its line."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The message that a line holds; `ProtocolError` if it holds none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("not a line of JSON") from error
    if not isinstance(message, dict):
        raise ProtocolError("not a JSON object")
    return message


def done(result: Mapping[str, object] | None = None) -> dict[str, object]:
    """The answer that ends a request well."""
    return {"event": "done", "result": dict(result or {})}


def failed(error: UserError) -> dict[str, object]:
    """The answer that ends a request badly."""
    return {"event": "error", "message": str(error), "exit_code": int(error.exit_code)}


def progressed(progress: Progress) -> dict[str, object]:
    """An answer in between."""
    return {"event": "progress", **asdict(progress)}


def progress_of(message: Mapping[str, Any]) -> Progress:
    """Read what `progressed` made."""
    return Progress(int(message["dirty_bytes"]), int(message["dirty_chunks"]), message.get("failure"))


def error_of(message: Mapping[str, Any]) -> UserError:
    """Read what `failed` made; an exit code of a newer daemon becomes INTERNAL."""
    try:
        code = ExitCode(message["exit_code"])
    except (KeyError, ValueError):
        code = ExitCode.INTERNAL
    return UserError(str(message.get("message", "the daemon gave no reason")), code)
