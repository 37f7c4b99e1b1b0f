"""Where a loaded shared object keeps the address of a function that it imports, and replacing it there for a while.

A shared object calls what it imports through a slot that the dynamic linker has filled in. Which slot belongs
to which function stands in the object's relocation table, in the documented format of ELF; where the object was loaded
stands in /proc/self/maps. So the slot is computed, not searched for. It is used only if it holds the very
address that `dlsym` gives for the function: whatever else might be misread, then nothing is touched.

Known are 64-bit little-endian objects of the two kinds of machine in `_SLOT_RELOCATIONS`; all others are refused.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_SLOT_RELOCATIONS: Final = {62: (6, 7), 183: (1025, 1026)}
"""By e_machine (x86-64, AArch64): the relocations GLOB_DAT and JUMP_SLOT, whose slot holds just the address."""
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_DYNAMIC: Final = struct.Struct("<qQ")
_RELOCATION: Final = struct.Struct("<QQq")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_ELF64_LITTLE: Final = b"\x7fELF\x02\x01\x01"
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB = 0, 2, 5, 6
_DT_RELA, _DT_RELASZ, _DT_RELAENT, _DT_PLTREL, _DT_JMPREL = 7, 8, 9, 20, 23


class UnknownLayoutError(Exception):
    """The object, or the process, does not look as it must; nothing was changed."""


class _Segment(NamedTuple):
    kind: int
    offset: int
    address: int
    size: int


def _segments(elf: bytes) -> tuple[int, list[_Segment]]:
    """The kind of machine, and the program headers."""
    ident, _, machine, _, _, start, _, _, _, size, count, *_ = _HEADER.unpack_from(elf)
    if not ident.startswith(_ELF64_LITTLE) or size != _SEGMENT.size or machine not in _SLOT_RELOCATIONS:
        raise UnknownLayoutError("not a shared object of a known machine")
    found = []
    for number in range(count):
        kind, _, offset, address, _, file_bytes, _, _ = _SEGMENT.unpack_from(elf, start + number * size)
        found.append(_Segment(kind, offset, address, file_bytes))
    return machine, found


def _file_offset(segments: list[_Segment], address: int) -> int:
    for segment in segments:
        if segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.size:
            return address - segment.address + segment.offset
    raise UnknownLayoutError(f"address {address:#x} is not in the file")


def _dynamic(elf: bytes, segments: list[_Segment]) -> dict[int, int]:
    for segment in segments:
        if segment.kind == _PT_DYNAMIC:
            entries = dict(_DYNAMIC.iter_unpack(elf[segment.offset : segment.offset + segment.size]))
            if entries.get(_DT_RELAENT) == _RELOCATION.size and entries.get(_DT_PLTREL, _DT_RELA) == _DT_RELA:
                return entries
    raise UnknownLayoutError("no dynamic section with relocations of the known kind")


def find_slot(elf: bytes, function: bytes) -> int | None:
    """The address, relative to the load address, of the slot for an imported function; None if it is not imported.

    `elf` is the whole file. `UnknownLayoutError` for a file that is no shared object of a known kind, or in
    which several slots belong to the function.
    """
    try:
        machine, segments = _segments(elf)
        dynamic = _dynamic(elf, segments)
        symbols = _file_offset(segments, dynamic[_DT_SYMTAB])
        strings = _file_offset(segments, dynamic[_DT_STRTAB])
        slots = set()
        for table, size in ((_DT_RELA, _DT_RELASZ), (_DT_JMPREL, _DT_PLTRELSZ)):
            if table not in dynamic:
                continue
            start = _file_offset(segments, dynamic[table])
            for slot, info, addend in _RELOCATION.iter_unpack(elf[start : start + dynamic[size]]):
                if info & 0xFFFFFFFF not in _SLOT_RELOCATIONS[machine] or addend:
                    continue
                name = strings + _SYMBOL.unpack_from(elf, symbols + (info >> 32) * _SYMBOL.size)[0]
                if elf[name : name + len(function) + 1] == function + b"\0":
                    slots.add(slot)
    except (struct.error, KeyError) as error:
        raise UnknownLayoutError("the file is cut short or lacks a table") from error
    if len(slots) > 1:
        raise UnknownLayoutError(f"{len(slots)} slots for one function")
    return slots.pop() if slots else None


class Mapping(NamedTuple):
    """One line of /proc/self/maps."""

    start: int
    end: int
    permissions: str
    offset: int


def mappings_of(path: Path) -> list[Mapping]:
    """Where in this process the file is mapped, in order of address; empty if it was replaced since."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        # address permissions offset device inode path
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == str(path):
            start, end = (int(text, 16) for text in fields[0].split("-"))
            found.append(Mapping(start, end, fields[1], int(fields[2], 16)))
    return found


class ImportSlot:
    """The slot of one function that a loaded shared object imports."""

    def __init__(self, path: Path, function: str) -> None:
        """Find the slot of `function` in the loaded object `path`. `UnknownLayoutError` if anything is unexpected."""
        self.path = path = path.resolve()
        elf = path.read_bytes()
        relative = find_slot(elf, function.encode())
        if relative is None:
            raise UnknownLayoutError(f"{path.name} does not import {function}")
        first = next(segment for segment in _segments(elf)[1] if segment.kind == _PT_LOAD)
        mappings = mappings_of(path)
        if not mappings or (mappings[0].offset, first.offset, first.address) != (0, 0, 0):
            raise UnknownLayoutError(f"{path.name} is not loaded in the usual way")
        self._address = mappings[0].start + relative
        holding = [m for m in mappings if m.start <= self._address < m.end]
        if sys.maxsize != 2**63 - 1 or self._address % 8 or not holding or not holding[0].permissions.startswith("r"):
            raise UnknownLayoutError(f"the slot of {function} is not where it can be")
        self._is_writable = "w" in holding[0].permissions
        self.function = ctypes.cast(getattr(ctypes.CDLL(str(path)), function), ctypes.c_void_p).value or 0
        """The address of the function itself."""
        if self._value.value != self.function:
            raise UnknownLayoutError(f"the slot of {function} does not hold its address")

    @property
    def _value(self) -> ctypes.c_uint64:
        return ctypes.c_uint64.from_address(self._address)

    @contextlib.contextmanager
    def replaced(self, address: int) -> Iterator[None]:
        """Inside the block the object calls `address` instead. `OSError` before it, if the page cannot be written."""
        with self._writable():
            self._value.value = address
        try:
            yield
        finally:
            with self._writable():
                self._value.value = self.function

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        """Inside the block the slot can be written: the linker may have made its page read-only after loading."""
        if self._is_writable:
            yield
            return
        page = self._address - self._address % mmap.PAGESIZE
        _protect(page, mmap.PROT_READ | mmap.PROT_WRITE)
        try:
            yield
        finally:
            _protect(page, mmap.PROT_READ)


def _protect(page: int, protection: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), protection) != 0:
        raise OSError(ctypes.get_errno(), "mprotect failed")
