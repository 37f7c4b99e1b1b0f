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

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_THRESHOLD_BYTES = 1024 * 1024
"""Blocks of this size and more are mappings; single chunks are smaller, and come and go in the heaps."""
_ARENAS = 2
"""For all threads together."""


def return_freed_memory() -> bool:
    """From now on, in this process. Whether the C library took it."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    taken = bool(mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES) and mallopt(_M_ARENA_MAX, _ARENAS))
    if not taken:
        log.debug("the C library keeps its own ways with memory")
    return taken
