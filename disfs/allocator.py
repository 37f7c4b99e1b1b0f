"""Have the C library give memory back that contents passed through.

A daemon that carries gigabytes allocates and frees large blocks from several threads: packs, and what one request
brings. glibc's allocator learns from that to keep such blocks for the next time, in heaps of each thread, and what is
freed in between others stays with the process: resident memory grows to several times what is in use. With a fixed
threshold such blocks are mappings of their own, which end with the block; a mapping costs some microseconds, the
encryption of what is in it far more.

Where the C library is another one (musl) nothing is changed.
"""

from __future__ import annotations

import ctypes
import logging

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_THRESHOLD_BYTES = 2 * 1024 * 1024
"""Blocks of this size and more are mappings. Chunks are smaller, and so are the kernel's writes of up to 1 MiB: they
come and go in the heaps, since a mapping of that size costs 257 page faults, about as much as writing it."""
_TRIM_BYTES = 4 * 1024 * 1024
"""So much may be free at the end of a heap: less, and a write that was answered would give its memory back for the next
one to ask for again."""
_ARENAS = 2
"""For all threads together."""


def return_freed_memory() -> bool:
    """From now on, in this process. Whether the C library took it."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    wishes = ((_M_MMAP_THRESHOLD, _THRESHOLD_BYTES), (_M_TRIM_THRESHOLD, _TRIM_BYTES), (_M_ARENA_MAX, _ARENAS))
    taken = all(mallopt(parameter, value) for parameter, value in wishes)
    if not taken:
        log.debug("the C library keeps its own ways with memory")
    return taken
