"""What disfs asks of libfuse that pyfuse3 has no words for: the umask left to us, and listings kept by the kernel.

The umask. Where a directory has a default ACL the umask does not count, so modes have to come without it taken off. The
kernel does that for whoever wants FUSE_DONT_MASK.

Listings. The kernel keeps listings and opens directories by itself once an opendir was answered with ENOSYS (Linux 5.1
and newer; `fuse_file_open` in its fs/fuse/file.c). Otherwise each listing costs an opendir, two readdirs and a
releasedir. But with no opendir there is no number of ours that could come back with a readdir, and the one thing that
the kernel then says, the inode, is what pyfuse3 does not pass on to `readdir`. libfuse does: the operation
`readdirplus` that pyfuse3 gives it is called with the inode.

So the table of operations is changed on its way from pyfuse3 to libfuse, at the only place where both have agreed on
its layout, the public call `fuse_session_new`: its `readdirplus` becomes one that puts the inode into the place of the
handle and then calls pyfuse3's own, and its `init` one that adds the wish about the umask. As both are rare then,
a detour through Python costs nothing.

Interrupts. Where fsync may wait long, it is registered on its way (see `interrupts`).

How the call is got hold of: during `pyfuse3.init` the import of `fuse_session_new` in pyfuse3's extension module is
replaced (see `elf_imports`). All that is touched are public interfaces: ELF, `fuse_session_new`, and three structs of
libfuse's headers, whose parts used here have been the same in all of libfuse 3. And all is checked first: the
version of pyfuse3; that the slot of the import holds the function's address; that the table has an entry, which leads
into pyfuse3's own code, wherever pyfuse3 sets one, and none elsewhere. Last, the first opendir is answered as ever,
with a handle that no inode can be: if a readdir then comes with an inode, the hook works, and only from then on ENOSYS
is said. If anything differs, a line is logged and the mount works as pyfuse3 made it: with more requests, and default
ACLs cut by the umask.

Whether a kept listing is still right is the kernel's affair, and exact: each change of names through it raises a
counter of the directory, which is compared whenever a listing begins. A change that does not come through the kernel
has to be followed by `pyfuse3.invalidate_inode` for the directory, which drops its listing.

Rejected: searching memory for libfuse's session or pyfuse3's objects (private layouts, recognised by luck);
`fuse_session_custom_io` (a Python call for each request); a socket in the place of the FUSE descriptor for the
exchange of INIT; a patched pyfuse3 (a fork to maintain). The right thing are an inode argument and a list of
capabilities in pyfuse3; then this module can go.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

import pyfuse3
from pyfuse3 import FUSEError

from disfs.elf_imports import ImportSlot, UnknownLayoutError, mappings_of
from disfs.interrupts import FileInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disfs.elf_imports import Mapping
    from disfs.interrupts import SyncRequests

    _Pointer: TypeAlias = Any

log = logging.getLogger(__name__)

KNOWN_VERSIONS: Final = ("3.5.",)
"""Beginnings of the versions of pyfuse3 whose use of libfuse is known to be as described here."""

# fmt: off
OPERATIONS: Final = (
    "init", "destroy", "lookup", "forget", "getattr", "setattr", "readlink", "mknod", "mkdir", "unlink", "rmdir",
    "symlink", "rename", "link", "open", "read", "write", "flush", "release", "fsync", "opendir", "readdir",
    "releasedir", "fsyncdir", "statfs", "setxattr", "getxattr", "listxattr", "removexattr", "access", "create",
    "getlk", "setlk", "bmap", "ioctl", "poll", "write_buf", "retrieve_reply", "forget_multi", "flock", "fallocate",
    "readdirplus",
)
# fmt: on
"""The beginning of libfuse's `struct fuse_lowlevel_ops`, in order; each a pointer."""
UNUSED: Final = frozenset(
    {"destroy", "readdir", "getlk", "setlk", "bmap", "ioctl", "retrieve_reply", "flock", "fallocate"}
)
"""What pyfuse3 leaves NULL of them."""
_INIT: Final = OPERATIONS.index("init")
_SYNCS: Final = (OPERATIONS.index("fsync"), OPERATIONS.index("fsyncdir"))
_READDIRPLUS: Final = OPERATIONS.index("readdirplus")
_POINTER_BYTES: Final = 8
_DONT_MASK: Final = 1 << 6
"""libfuse's FUSE_CAP_DONT_MASK."""
_NO_OPENDIR_SUPPORT: Final = 1 << 24
"""libfuse's FUSE_CAP_NO_OPENDIR_SUPPORT."""
_GIVEN_BY_OPENDIR: Final = 1 << 63
"""Marks a handle; no inode is so large. Where the hook works, no marked handle comes back."""


class _ConnectionInfo(ctypes.Structure):
    """The beginning of libfuse's `struct fuse_conn_info`."""

    _fields_: ClassVar = [
        ("proto_major", ctypes.c_uint),
        ("proto_minor", ctypes.c_uint),
        ("max_write", ctypes.c_uint),
        ("max_read", ctypes.c_uint),
        ("max_readahead", ctypes.c_uint),
        ("capable", ctypes.c_uint),
        ("want", ctypes.c_uint),
    ]


# Not CFUNCTYPE: pyfuse3's functions want the interpreter's lock held.
_Init = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(_ConnectionInfo))
_Readdirplus = ctypes.PYFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_int64, ctypes.POINTER(FileInfo)
)
_SESSION_NEW: Final = {
    "fuse_session_new": ctypes.PYFUNCTYPE(
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p
    ),
    "fuse_session_new_versioned": ctypes.PYFUNCTYPE(
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p
    ),
}
"""What makes a session; the second is what the first is called by the headers of libfuse 3.17 and newer. Both take
the command line, the table of operations, its size, and what does not matter here."""


class SessionHook:
    """What one mount knows of it. To be kept until `pyfuse3.close`: libfuse calls what it holds."""

    def __init__(self, *, keeps_listings: bool = True, syncs: SyncRequests | None = None) -> None:
        self._keeps_listings = keeps_listings
        self._syncs = syncs
        self._can_do_without_opendir = False
        self._works = False
        self._held: list[object] = []
        """What libfuse has pointers to."""

    def open_directory(self, inode: int) -> int:
        """What opendir answers. `FUSEError` with ENOSYS, which is no error, once it is proven that it is not needed."""
        if self._works:
            raise FUSEError(errno.ENOSYS)
        return inode | _GIVEN_BY_OPENDIR

    def directory_of(self, handle: int) -> int:
        """The inode of the directory that a readdir is about. The first that comes by way of the hook is the proof."""
        if handle & _GIVEN_BY_OPENDIR:
            return handle ^ _GIVEN_BY_OPENDIR
        self._works = self._can_do_without_opendir
        return handle

    @contextlib.contextmanager
    def offered(self) -> Iterator[None]:
        """To be put around `pyfuse3.init`. Never fails: if it cannot be, the mount works without."""
        with contextlib.ExitStack() as stack:
            try:
                if not pyfuse3.__version__.startswith(KNOWN_VERSIONS):
                    raise UnknownLayoutError(f"pyfuse3 {pyfuse3.__version__} is not known")
                name, slot = _session_new_of(Path(str(pyfuse3.__file__)))
                stack.enter_context(slot.replaced(self._session_hook(name, slot)))
            except (UnknownLayoutError, OSError) as error:
                log.info("the kernel keeps no listings and applies the umask: %s", error)
            yield

    def _session_hook(self, name: str, slot: ImportSlot) -> int:
        """What pyfuse3 is to call instead: the same with a changed table, or with the table as it is."""
        prototype = _SESSION_NEW[name]
        session_new = prototype(slot.function)
        code = [m for m in mappings_of(slot.path) if "x" in m.permissions]

        def new(arguments: int | None, table: int | None, size: int, *rest: int | None) -> int | None:
            try:
                table = self._changed(table or 0, size, code)
            except UnknownLayoutError as error:
                log.info("the kernel keeps no listings and applies the umask: %s", error)
            return session_new(arguments, table, size, *rest)  # type: ignore[no-any-return]  # ctypes has no types

        return self._hold(prototype(new))

    def _changed(self, table: int, size: int, code: list[Mapping]) -> int:
        """The address of a copy of pyfuse3's table in which `init` and `readdirplus` are ours."""
        operations = checked_operations(ctypes.string_at(table, size), code)
        copy = (ctypes.c_uint64 * len(operations))(*operations)
        copy[_INIT] = self._hold(self._init_hook(operations[_INIT]))
        copy[_READDIRPLUS] = self._hold(_readdirplus_hook(operations[_READDIRPLUS]))
        if self._syncs is not None:
            for index in _SYNCS:
                copy[index] = self._hold(self._syncs.hook(operations[index]))
        self._held.append(copy)
        return ctypes.addressof(copy)

    def _init_hook(self, address: int) -> _Pointer:
        pyfuse3_init = _Init(address)

        def init(userdata: int | None, connection: Any) -> None:
            pyfuse3_init(userdata, connection)
            known = connection.contents
            known.want |= known.capable & _DONT_MASK
            self._can_do_without_opendir = self._keeps_listings and bool(known.capable & _NO_OPENDIR_SUPPORT)

        return _Init(init)

    def _hold(self, function: _Pointer) -> int:
        self._held.append(function)
        address = ctypes.cast(function, ctypes.c_void_p).value
        assert address is not None
        return address


def _session_new_of(path: Path) -> tuple[str, ImportSlot]:
    problem = UnknownLayoutError()
    for name in _SESSION_NEW:
        try:
            return name, ImportSlot(path, name)
        except UnknownLayoutError as error:
            problem = error
    raise problem


def checked_operations(table: bytes, code: list[Mapping]) -> tuple[int, ...]:
    """The table's pointers. `UnknownLayoutError` unless what pyfuse3 sets leads into `code`, and all else is NULL."""
    if len(table) % _POINTER_BYTES:
        raise UnknownLayoutError("the table of operations is cut short")
    found = struct.unpack(f"={len(table) // _POINTER_BYTES}Q", table)
    names = [*OPERATIONS, *[None] * (len(found) - len(OPERATIONS))]
    if len(found) < len(OPERATIONS):
        raise UnknownLayoutError("libfuse is too old")
    for name, pointer in zip(names, found, strict=True):
        is_ours = any(mapping.start <= pointer < mapping.end for mapping in code)
        is_right = pointer == 0 if name is None or name in UNUSED else is_ours
        if not is_right:
            raise UnknownLayoutError(f"the table of operations is unlike pyfuse3's at {name}")
    return found


def _readdirplus_hook(address: int) -> _Pointer:
    pyfuse3_readdirplus = _Readdirplus(address)

    def readdirplus(request: int | None, inode: int, size: int, offset: int, file_info: Any) -> None:
        file_info.contents.fh = inode
        pyfuse3_readdirplus(request, inode, size, offset, file_info)

    return _Readdirplus(readdirplus)
