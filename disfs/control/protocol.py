"""What is said over the control socket, and what the daemon must be able to do. Pure.

One JSON object a line. A client sends one request and reads until an answer that ends it:

    {"request": "ping"}                    {"event": "done", "result": {}}
    {"request": "status"}                  {"event": "done", "result": {"pid": ...}}
    {"request": "sync"}                    {"event": "progress", ...}*, then done
    {"request": "unmount", "wait": true}   {"event": "progress", ...}*, then done
    {"request": "pause"}, "resume"         done
    {"request": "bandwidth"}               {"event": "done", "result": {"up_bytes_per_second": null, ...}}
    {"request": "limit_bandwidth", "up_bytes_per_second": 1048576, "down_bytes_per_second": null}     done
    {"request": "setting", "name": "cache_size", "value": "10G"}
                                           {"event": "done", "result": {"applied": true}}
    {"request": "warm", "inodes": [2], "pin": true, "wait": true}
                                           {"event": "progress", ...}*, then done with what was brought
    {"request": "unpin", "inodes": [2]}    {"event": "progress", ...}*, then done
    {"request": "states", "inodes": [2]}   {"event": "progress", ...}*, then done with {"states": [["discord", null,
                                           100, false]]}: the word, percent sent, percent cached, pinned
    {"request": "history", "inode": 2}     {"event": "progress", ...}*, then done with where its contents lie
    {"request": "events"}                  {"event": "told", "told": {"event": "paused", "at": 1.5}}*, and
                                           {"event": "progress"} now and then; it has no end
    {"request": "trash", "directory": 1, "rest": "a/b", "after": null}
                                           {"event": "done", "result": {"entries": [...], "after": ["/a/b", 7]}}
    {"request": "undelete", "directory": 1, "rest": "a/b", "version": null, "since_ns": null}
                                           {"event": "progress", ...}*, then done with what was restored
    {"request": "snapshots"}               {"event": "done", "result": {"snapshots": [...]}}
    {"request": "snapshot", "action": "create", "name": "monday"}, "delete"
                                           {"event": "progress", ...}*, then done
    anything that fails                    {"event": "error", "message": "...", "exit_code": 28}

Files and directories are named by their inode numbers: short, and nothing outside the volume has one. Closing the
connection cancels the request. Neither direction carries file contents, keys, tokens or URLs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from disfs.errors import DisfsError, ExitCode, UserError
from disfs.quantities import Bandwidth
from disfs.values import InodeNumber

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

MAX_REQUEST_BYTES = 64 * 1024
MAX_INODES = 2000
"""How many files and directories one request may name; a client that has more asks several times."""
_INODE_LIMIT = 1 << 63
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
    paused: bool = False
    """Somebody has said that nothing shall be sent now."""
    taken_bytes: int = 0
    """Of the dirty bytes, what the network has taken: the part of a message that is under way."""

    @property
    def left_bytes(self) -> int:
        """What is neither in Discord nor has the network taken it."""
        return max(0, self.dirty_bytes - self.taken_bytes)


@dataclass(frozen=True, slots=True)
class WarmProgress:
    """How much of what was asked for is in the cache. Zeros while it is still being counted."""

    done_bytes: int = 0
    total_bytes: int = 0
    done_files: int = 0
    total_files: int = 0
    path: str = ""
    """What is being brought just now, from the root of the volume; for people."""
    unreadable_files: int = 0
    """Files of which something could not be had; the log names them."""


@dataclass(frozen=True, slots=True)
class Undeleted:
    """How much was restored from the trash."""

    restored: int = 0
    taken: int = 0
    """What was left alone, as something is in its place."""
    path: str = ""
    """What was restored last, from the root of the volume; for people."""

    def with_restored(self, path: bytes) -> Undeleted:
        """One more."""
        return Undeleted(self.restored + 1, self.taken, path.decode(errors="surrogateescape"))

    def with_taken(self) -> Undeleted:
        """One that was left alone."""
        return Undeleted(self.restored, self.taken + 1, self.path)

    def to_json(self) -> Mapping[str, object]:
        """As it is sent."""
        return asdict(self)


class Undeletion(Protocol):
    """Something that is being restored on somebody's behalf."""

    def progress(self) -> Undeleted:
        """How far it is. Answers at once."""
        ...

    async def run(self) -> Mapping[str, object]:
        """Restore it; says what was restored. USAGE when there is nothing. Cancel: what is restored stays so."""
        ...


class Warmup(Protocol):
    """Files that are on their way into the cache on somebody's behalf."""

    def progress(self) -> WarmProgress:
        """How far it is. Answers at once."""
        ...

    async def run(self) -> Mapping[str, object]:
        """Bring everything; says what was brought. STATE_FULL when it does not fit. Cancel: what has come stays."""
        ...

    async def start(self) -> Mapping[str, object]:
        """The same in the background: return once it is known what there is to bring. STATE_FULL."""
        ...


class Listening(Protocol):
    """Somebody who is told of what happens."""

    async def next(self) -> Mapping[str, object]:
        """What comes next: plain JSON values, no secrets. Cancel: it is not lost."""
        ...


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

    def pause(self) -> None:
        """Send nothing new until `resume`, or until the next mount. Paused already: no-op."""
        ...

    def resume(self) -> None:
        """Send again. Not paused: no-op."""
        ...

    def listener(self) -> AbstractContextManager[Listening]:
        """Hear of what happens from now on. USAGE when too many listen."""
        ...

    def bandwidth(self) -> Bandwidth:
        """The limit in force."""
        ...

    def limit_bandwidth(self, limit: Bandwidth) -> None:
        """From now on transfers keep to `limit`, those under way included."""
        ...

    async def change_setting(self, name: str, value: str | None) -> Mapping[str, object]:
        """Change one setting of this mount, None: to its default; `applied`: whether that can be done now. USAGE."""
        ...

    def warmup(self, inodes: Sequence[InodeNumber], *, pin: bool) -> Warmup:
        """The files among `inodes` and everything below the directories among them; not begun yet. MOUNT_BUSY.

        With `pin` they are marked as pinned first.
        """
        ...

    async def unpin(self, inodes: Sequence[InodeNumber]) -> None:
        """Take the mark from `inodes` and everything below them; what has none is passed over."""
        ...

    async def states(self, inodes: Sequence[InodeNumber]) -> Mapping[str, object]:
        """Where the contents of files are: `states`, one for each inode."""
        ...

    async def history(self, inode: InodeNumber) -> Mapping[str, object]:
        """What is known of one file: `path`, `state`, `places`, `message_count`. USAGE."""
        ...

    async def trash(
        self, directory: InodeNumber, rest: str, after: tuple[str, InodeNumber] | None
    ) -> Mapping[str, object]:
        """Some of what is in the trash at a path, and below it; where to go on after, or null. USAGE."""
        ...

    def undeletion(
        self, directory: InodeNumber, rest: str, version: InodeNumber | None, since_ns: int | None
    ) -> Undeletion:
        """What restores what was at a path, and is missing below it; see `TrashDesk.order`. Not begun yet. USAGE."""
        ...

    def snapshots(self) -> Mapping[str, object]:
        """All snapshots. Answers at once."""
        ...

    async def create_snapshot(self, name: str) -> Mapping[str, object]:
        """Make one, and ship it; says of how many files newer contents were not sent. USAGE. Cancel: there is none."""
        ...

    async def delete_snapshot(self, name: str) -> None:
        """Delete one. USAGE. Cancel: the next mount finishes it."""
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


def request_of(line: bytes) -> dict[str, Any]:
    """The request that a line holds. `ProtocolError`; also for text that can be no name: lone surrogates."""
    request = decode(line)
    try:
        json.dumps(request, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ProtocolError("not text that could be a name") from error
    return request


def done(result: Mapping[str, object] | None = None) -> dict[str, object]:
    """The answer that ends a request well."""
    return {"event": "done", "result": dict(result or {})}


def failed(error: UserError) -> dict[str, object]:
    """The answer that ends a request badly."""
    return {"event": "error", "message": str(error), "exit_code": int(error.exit_code)}


def progressed(progress: Progress | WarmProgress | Undeleted) -> dict[str, object]:
    """An answer in between."""
    return {"event": "progress", **asdict(progress)}


def progress_of(message: Mapping[str, Any]) -> Progress:
    """Read what `progressed` made."""
    return Progress(
        dirty_bytes=int(message["dirty_bytes"]),
        dirty_chunks=int(message["dirty_chunks"]),
        failure=message.get("failure"),
        paused=bool(message.get("paused")),
        taken_bytes=int(message.get("taken_bytes", 0)),
    )


def warm_progress_of(message: Mapping[str, Any]) -> WarmProgress:
    """Read what `progressed` made of a `WarmProgress`."""
    return WarmProgress(
        done_bytes=int(message["done_bytes"]),
        total_bytes=int(message["total_bytes"]),
        done_files=int(message["done_files"]),
        total_files=int(message["total_files"]),
        path=str(message["path"]),
        unreadable_files=int(message["unreadable_files"]),
    )


def undeleted_of(message: Mapping[str, Any]) -> Undeleted:
    """Read what `progressed` made of an `Undeleted`."""
    return Undeleted(int(message["restored"]), int(message["taken"]), str(message["path"]))


def since_of(number: object) -> int | None:
    """From when on a restoration goes back, in nanoseconds since 1970; None: for ever. `ProtocolError`."""
    if number is None or (type(number) is int and 0 <= number < 1 << 63):
        return number
    raise ProtocolError("not a moment")


def position_of(after: Sequence[object]) -> tuple[str, InodeNumber]:
    """Where a listing of the trash goes on. `ProtocolError`."""
    match after:
        case [str(path), int(inode)] if 0 <= inode < _INODE_LIMIT:
            return path, InodeNumber(inode)
    raise ProtocolError("not a place in a listing")


def bandwidth_of(message: Mapping[str, Any]) -> Bandwidth:
    """The limit that a message carries. `ProtocolError` unless both directions are whole numbers in bounds or null."""
    limits = [message.get(name) for name in ("up_bytes_per_second", "down_bytes_per_second")]
    if not all(limit is None or type(limit) is int for limit in limits):
        raise ProtocolError("a bandwidth is a whole number or null")
    try:
        return Bandwidth(*limits)
    except ValueError as error:
        raise ProtocolError(str(error)) from error


def inodes_of(numbers: Sequence[object]) -> list[InodeNumber]:
    """The inode numbers that a request carries. `ProtocolError` when they are none, or too many."""
    if not 1 <= len(numbers) <= MAX_INODES:
        raise ProtocolError(f"a request names 1 to {MAX_INODES} inodes")
    # type() and not isinstance(): true is no inode number.
    inodes = [InodeNumber(number) for number in numbers if type(number) is int and 0 < number < _INODE_LIMIT]
    if len(inodes) != len(numbers):
        raise ProtocolError("not an inode number")
    return inodes


def error_of(message: Mapping[str, Any]) -> UserError:
    """Read what `failed` made; an exit code of a newer daemon becomes INTERNAL."""
    try:
        code = ExitCode(message["exit_code"])
    except (KeyError, ValueError):
        code = ExitCode.INTERNAL
    return UserError(str(message.get("message", "the daemon gave no reason")), code)
