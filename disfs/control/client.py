"""The command line's end of the control socket: plain blocking sockets, so that Ctrl-C simply interrupts."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from disfs.control.address import may_talk, peer_pid_and_uid, short_address
from disfs.control.protocol import (
    MAX_ANSWER_BYTES,
    ProtocolError,
    bandwidth_of,
    decode,
    encode,
    error_of,
    progress_of,
    undeleted_of,
    warm_progress_of,
)
from disfs.errors import ExitCode, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from disfs.control.protocol import Progress, Undeleted, WarmProgress
    from disfs.quantities import Bandwidth
    from disfs.values import InodeNumber

ANSWER_SECONDS = 10.0
"""How long a daemon that is asked something may stay silent; progress comes several times a second."""
END_SECONDS = 60.0


class ControlClient:
    """A connection to the daemon of one volume; one request each."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._pid, uid = peer_pid_and_uid(connection)
        if not may_talk(uid):
            raise UserError(f"the daemon belongs to user {uid}; run the command as that user", ExitCode.STATE_UNUSABLE)

    @classmethod
    def connect(cls, directory: Path, *, answer_seconds: float = ANSWER_SECONDS) -> Self:
        """Connect to the daemon whose state directory this is. NOT_MOUNTED when there is none.

        One that is there and says nothing for `answer_seconds` is an error of the request: INTERNAL.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(answer_seconds)
            with short_address(directory) as address:
                connection.connect(address)
            return cls(connection)
        except OSError as error:
            connection.close()
            raise UserError(
                "no daemon answers for this volume; it is not mounted: 'disfs mount' starts it", ExitCode.NOT_MOUNTED
            ) from error
        except BaseException:
            connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._lines.close()
        self._connection.close()

    def ping(self) -> None:
        """Return if the daemon answers."""
        self._request({"request": "ping"})

    def status(self) -> dict[str, Any]:
        """What the daemon says of itself."""
        return self._request({"request": "status"})

    def sync(self, on_progress: Callable[[Progress], None]) -> None:
        """Return when everything written so far is in Discord."""
        self._request({"request": "sync"}, lambda message: on_progress(progress_of(message)))

    def unmount(self, on_progress: Callable[[Progress], None], *, wait: bool) -> None:
        """Return when the mount is away and, with `wait`, everything is in Discord. MOUNT_BUSY."""
        self._request({"request": "unmount", "wait": wait}, lambda message: on_progress(progress_of(message)))

    def pause(self) -> None:
        """Let no upload begin until `resume` or the next mount."""
        self._request({"request": "pause"})

    def resume(self) -> None:
        """Let uploads go on."""
        self._request({"request": "resume"})

    def bandwidth(self) -> Bandwidth:
        """The limit in force."""
        return bandwidth_of(self._request({"request": "bandwidth"}))

    def limit_bandwidth(self, limit: Bandwidth) -> None:
        """Change the limit until the next mount."""
        self._request({"request": "limit_bandwidth", **asdict(limit)})

    def change_setting(self, name: str, value: str | None) -> bool:
        """Change a setting of the mount, None: to its default; whether it holds at once. USAGE."""
        return bool(self._request({"request": "setting", "name": name, "value": value}).get("applied"))

    def warm(
        self, inodes: Sequence[InodeNumber], on_progress: Callable[[WarmProgress], None], *, pin: bool, wait: bool
    ) -> WarmProgress:
        """Return when the files are in the cache, or, without `wait`, on their way; says how far it is. STATE_FULL.

        At most MAX_INODES at once. With `pin` they stay there.
        """
        request = {"request": "warm", "inodes": list(inodes), "pin": pin, "wait": wait}
        return warm_progress_of(self._request(request, lambda message: on_progress(warm_progress_of(message))))

    def unpin(self, inodes: Sequence[InodeNumber]) -> None:
        """Let the files, and everything below the directories, be evicted again. At most MAX_INODES at once."""
        self._request({"request": "unpin", "inodes": list(inodes)})

    def states(self, inodes: Sequence[InodeNumber]) -> Sequence[Sequence[Any] | None]:
        """Where the contents of files are, one for each inode; see the protocol. At most MAX_INODES at once."""
        found: Sequence[Sequence[Any] | None] = self._request({"request": "states", "inodes": list(inodes)})["states"]
        return found

    def history(self, inode: InodeNumber) -> dict[str, Any]:
        """Where the contents of one file lie, and its path. USAGE."""
        return self._request({"request": "history", "inode": inode})

    def events(self) -> Iterator[Mapping[str, Any] | None]:
        """What happens from now on, one after another; None when nothing does for a while. Ends with the daemon."""
        try:
            self._connection.sendall(encode({"request": "events"}))
            while line := self._lines.readline(MAX_ANSWER_BYTES):
                answer = decode(line)
                if answer.get("event") == "error":
                    raise error_of(answer)
                yield answer.get("told")
        except TimeoutError as error:
            raise self._silent() from error
        except ProtocolError as error:
            raise UserError("the daemon broke off; its log says why", ExitCode.INTERNAL) from error
        except ConnectionError:
            return  # it was killed

    def trash(self, directory: InodeNumber, rest: str, after: Sequence[object] | None) -> dict[str, Any]:
        """Some of what is in the trash at a path and below it: `entries`, and `after`, where the next ones begin."""
        return self._request({"request": "trash", "directory": directory, "rest": rest, "after": after})

    def undelete(
        self,
        directory: InodeNumber,
        rest: str,
        version: InodeNumber | None,
        since_ns: int | None,
        on_progress: Callable[[Undeleted], None],
    ) -> Undeleted:
        """Restore what was at a path, and is missing below it; or one version; of what was deleted since a moment."""
        request = {
            "request": "undelete",
            "directory": directory,
            "rest": rest,
            "version": version,
            "since_ns": since_ns,
        }
        return undeleted_of(self._request(request, lambda message: on_progress(undeleted_of(message))))

    def snapshots(self) -> Sequence[Mapping[str, Any]]:
        """All snapshots, oldest first."""
        found: Sequence[Mapping[str, Any]] = self._request({"request": "snapshots"})["snapshots"]
        return found

    def create_snapshot(self, name: str, on_progress: Callable[[Progress], None]) -> dict[str, Any]:
        """Return when a snapshot is made and in Discord."""
        request = {"request": "snapshot", "action": "create", "name": name}
        return self._request(request, lambda message: on_progress(progress_of(message)))

    def delete_snapshot(self, name: str) -> None:
        """Return when a snapshot is deleted."""
        self._request({"request": "snapshot", "action": "delete", "name": name})

    def kill(self) -> None:
        """Kill the daemon, and return when its process is gone. INTERNAL when it does not go.

        For one that does not answer: it has no chance to put anything in order, and what was synced is kept.
        """
        try:
            descriptor = os.pidfd_open(self._pid)
        except ProcessLookupError:
            return
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            ended, _, _ = select.select([descriptor], [], [], END_SECONDS)
        finally:
            os.close(descriptor)
        if not ended:
            raise UserError(
                f"the daemon (pid {self._pid}) cannot be killed: the kernel keeps it, perhaps waiting for a disk; "
                "see 'dmesg', then try again",
                ExitCode.INTERNAL,
            )

    @contextlib.contextmanager
    def daemon_ends(self) -> Any:
        """Leave the block only when the daemon's process is gone, so that the volume can be mounted again at once."""
        try:
            # A pidfd cannot be fooled by a process number that is used again; it is taken while the daemon lives.
            descriptor = os.pidfd_open(self._pid) if self._pid > 0 else None
        except OSError:
            descriptor = None
        try:
            yield
            if descriptor is not None:
                select.select([descriptor], [], [], END_SECONDS)
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _request(
        self, request: Mapping[str, object], on_progress: Callable[[Mapping[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        try:
            self._connection.sendall(encode(request))
            while True:
                answer = decode(self._read_line())
                if answer.get("event") == "progress":
                    if on_progress is not None:
                        on_progress(answer)
                    continue
                if answer.get("event") == "done":
                    return dict(answer.get("result") or {})
                raise error_of(answer)
        except TimeoutError as error:
            raise self._silent() from error
        except (OSError, ProtocolError, KeyError, TypeError, ValueError) as error:
            raise UserError("the daemon broke off; its log says why", ExitCode.INTERNAL) from error

    def _silent(self) -> UserError:
        return UserError(
            f"the daemon (pid {self._pid}) does not answer; see its log, or end it with "
            "'disfs umount --force MOUNTPOINT': what was synced is kept",
            ExitCode.INTERNAL,
        )

    def _read_line(self) -> bytes:
        line = self._lines.readline(MAX_ANSWER_BYTES)
        if not line.endswith(b"\n"):
            raise ProtocolError("the answer ended in the middle")
        return line
