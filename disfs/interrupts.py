"""A signal ends the waiting of an fsync, of a file or a directory: libfuse's word of it reaches the task that answers.

The kernel says that somebody who waits got a signal, and goes on waiting; libfuse passes that on to whoever has asked
for it by `fuse_req_interrupt_func`, and pyfuse3 never asks. So on its way to pyfuse3 (see `session_hook`) an fsync
is registered here, and its handle replaced by a number that stands for this one request; the handler turns
that into the handle again, and into the scope in which it waits.
"""

from __future__ import annotations

import ctypes
import itertools
import logging
from typing import Any, ClassVar, Final

import trio

log = logging.getLogger(__name__)

_LIBFUSE: Final = "libfuse3.so.3"
_MARK: Final = 1 << 62
"""Marks what stands for a request; no handle is so large."""


class FileInfo(ctypes.Structure):
    """The beginning of libfuse's `struct fuse_file_info`."""

    _fields_: ClassVar = [("flags", ctypes.c_int), ("bits", ctypes.c_uint32 * 2), ("fh", ctypes.c_uint64)]


# pyfuse3's function wants the interpreter's lock held; what libfuse calls takes it, held or not.
_Sync = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int, ctypes.POINTER(FileInfo))
_Interrupted = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


class SyncRequests:
    """The fsyncs that are being answered. To be kept until the session is over: libfuse calls what it holds."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[int, trio.CancelScope]] = {}
        self._interrupted = _Interrupted(self._interrupt)
        # PyDLL: it may call back at once, and must not have let go of the lock then.
        self._register = ctypes.PyDLL(_LIBFUSE).fuse_req_interrupt_func
        self._register.argtypes = [ctypes.c_void_p, _Interrupted, ctypes.c_void_p]
        self._register.restype = None

    def hook(self, address: int) -> Any:
        """What libfuse is to call instead of pyfuse3's fsync or fsyncdir at `address`."""
        pyfuse3_sync = _Sync(address)

        def sync(request: int | None, inode: int, datasync: int, file_info: Any) -> None:
            number = self._begin(int(file_info.contents.fh))
            file_info.contents.fh = number
            self._register(request, self._interrupted, number)
            pyfuse3_sync(request, inode, datasync, file_info)

        return _Sync(sync)

    def _begin(self, fh: int) -> int:
        number = next(self._numbers) | _MARK
        self._waiting[number] = fh, trio.CancelScope()
        return number

    def _interrupt(self, _request: int | None, number: int | None) -> None:
        found = self._waiting.get(number or 0)
        if found is not None:
            found[1].cancel()

    def take(self, fh: int) -> tuple[int, trio.CancelScope]:
        """The handle that a request is about, and the scope that ends when somebody is tired of waiting.

        A handle that came by no hook is itself, and its scope never ends. `release` it afterwards.
        """
        return self._waiting.get(fh) or (fh, trio.CancelScope())

    def release(self, fh: int) -> None:
        """The request is answered."""
        self._waiting.pop(fh, None)


def sync_requests() -> SyncRequests | None:
    """Make them; None where libfuse has no words for it: an fsync is then waited for whatever happens."""
    try:
        return SyncRequests()
    except (OSError, AttributeError) as error:
        log.info("signals do not end the waiting of fsync: %s", error)
        return None
