"""Have the kernel leave the umask to us, which pyfuse3 does not ask it for.

Where a directory has a default ACL, the umask does not count; so the file system must get modes without it. The kernel
sends them so to whoever sets FUSE_DONT_MASK in the answer to its first request, INIT. pyfuse3 has no way to set it (nor
can a mount option), so for this one exchange another socket stands at the number of the FUSE descriptor: the request
is passed on to pyfuse3 through it, and the answer from it, with the flag added. From then on nothing is in between.

Without this, as with the stock request loop, all works but that default ACLs are cut by the umask.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final

import trio

FUSE_INIT: Final = 26
FUSE_DONT_MASK: Final = 1 << 6
_REQUEST_BYTES: Final = 1 << 20
"""The kernel refuses a smaller buffer than its largest request; INIT itself has about a hundred bytes."""
_OPCODE: Final = struct.Struct("=4xI")
"""Where a request says what it is: behind its length."""
_REQUEST_FLAGS: Final = struct.Struct("=40x12xI")
"""What the kernel offers: behind the header of the request, the version, and max_readahead."""
_ANSWER: Final = struct.Struct("=4xi8x12xI")
"""An errno and, behind the version and max_readahead, what is wanted of what the kernel offers."""
_ANSWER_FLAGS_AT: Final = 28
_UNMOUNTED: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.EPERM})
"""What the device says to an answer that nobody waits for any more."""


def with_dont_mask(request: bytes, answer: bytes) -> bytes:
    """The answer to INIT with FUSE_DONT_MASK, if the kernel offers it and the answer takes its offer."""
    if len(request) < _REQUEST_FLAGS.size or len(answer) < _ANSWER.size:
        return answer
    (opcode,), (offered,) = _OPCODE.unpack_from(request), _REQUEST_FLAGS.unpack_from(request)
    error, wanted = _ANSWER.unpack_from(answer)
    if opcode != FUSE_INIT or error != 0 or not offered & FUSE_DONT_MASK:
        return answer
    flags = struct.pack("=I", wanted | FUSE_DONT_MASK)
    return answer[:_ANSWER_FLAGS_AT] + flags + answer[_ANSWER_FLAGS_AT + len(flags) :]


class InitExchange:
    """Stands between the kernel and pyfuse3 for the first request. Use `step` before each read until `is_over`."""

    def __init__(self) -> None:
        self.is_over = False
        self._request = b""
        self._kernel = -1
        """The FUSE descriptor, while a socket is at its place."""
        self._socket: socket.socket | None = None
        """Our end of it."""

    async def step(self, fd: int) -> None:
        """Return when `fd` has a request, the first one; the second time, pass its answer on. Then it is over."""
        if self._socket is None:
            await trio.lowlevel.wait_readable(fd)
            self._begin(fd)
        else:
            self._end(fd)

    def close(self) -> None:
        """Let go of what is left of an exchange that broke off."""
        self.is_over = True
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._kernel >= 0:
            os.close(self._kernel)
            self._kernel = -1

    def _begin(self, fd: int) -> None:
        try:
            self._request = os.read(fd, _REQUEST_BYTES)
        except OSError:
            # Unmounted already. pyfuse3 will meet the same error and knows what it means.
            self.close()
            return
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._kernel = os.dup(fd)
            os.dup2(theirs.fileno(), fd, inheritable=False)
        self._socket.send(self._request)

    def _end(self, fd: int) -> None:
        assert self._socket is not None
        try:
            answer = self._socket.recv(_REQUEST_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            answer = b""  # then the kernel gets none either
        os.dup2(self._kernel, fd, inheritable=False)
        try:
            if answer:
                os.write(self._kernel, with_dont_mask(self._request, answer))
        except OSError as error:
            if error.errno not in _UNMOUNTED:
                raise
        finally:
            self.close()
