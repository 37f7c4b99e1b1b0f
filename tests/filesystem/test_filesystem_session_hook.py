"""The way to the kernel's kept listings, without a kernel: what is recognised, what is refused, what is left behind."""

from __future__ import annotations

import ctypes
import logging
import struct
from pathlib import Path

import pyfuse3
import pytest

from disfs import session_hook
from disfs.elf_imports import ImportSlot, Mapping, UnknownLayoutError, find_slot, mappings_of
from disfs.session_hook import OPERATIONS, UNUSED, SessionHook, checked_operations

MODULE = Path(str(pyfuse3.__file__))
IMPORTED = "fuse_session_new"


@pytest.fixture
def slot() -> ImportSlot:
    return ImportSlot(MODULE, IMPORTED)


def test_slot_holds_what_the_linker_says(slot: ImportSlot) -> None:
    """The slot found in the file is the one through which the loaded module calls."""
    library = ctypes.CDLL(str(MODULE))
    assert ctypes.cast(getattr(library, IMPORTED), ctypes.c_void_p).value == slot.function


def test_replaced_slot_is_restored(slot: ImportSlot) -> None:
    """Inside the block the slot cannot be mistaken for untouched; after it, also after an error, it is as before."""
    with pytest.raises(UnknownLayoutError, match="does not hold its address"), slot.replaced(0xDEAD0):
        ImportSlot(MODULE, IMPORTED)
    assert slot.function == ImportSlot(MODULE, IMPORTED).function


def test_function_that_is_not_imported_has_no_slot() -> None:
    """A name that only begins like an imported one is not found."""
    assert find_slot(MODULE.read_bytes(), b"fuse_session_ne") is None
    with pytest.raises(UnknownLayoutError, match="does not import"):
        ImportSlot(MODULE, "fuse_session_newer")


def test_object_that_is_not_loaded_is_refused(tmp_path: Path) -> None:
    """A copy of the file, which the process does not use, is not taken for it."""
    copy = tmp_path / MODULE.name
    copy.write_bytes(MODULE.read_bytes())
    assert not mappings_of(copy)
    with pytest.raises(UnknownLayoutError, match="not loaded"):
        ImportSlot(copy, IMPORTED)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, b"\x7fELG"), (4, b"\x01"), (5, b"\x02"), (18, struct.pack("<H", 8)), (54, struct.pack("<H", 32))],
    ids=["magic", "32 bits", "big-endian", "another machine", "another header"],
)
def test_file_of_another_kind_is_refused(offset: int, value: bytes) -> None:
    """What is not a 64-bit little-endian object of a known machine is not looked into."""
    elf = bytearray(MODULE.read_bytes())
    elf[offset : offset + len(value)] = value
    with pytest.raises(UnknownLayoutError, match="known machine"):
        find_slot(bytes(elf), IMPORTED.encode())


@pytest.mark.parametrize("length", [0, 10, 64, 100, 1000, 10_000, 30_000])
def test_file_that_is_cut_short_is_refused(length: int) -> None:
    """Wherever the file ends too early, it is unknown, never another error."""
    with pytest.raises(UnknownLayoutError):
        find_slot(MODULE.read_bytes()[:length], IMPORTED.encode())


def offered(caplog: pytest.LogCaptureFixture) -> str:
    """What offering the hook logs; nothing must fail."""
    caplog.set_level(logging.INFO, session_hook.__name__)
    with SessionHook().offered():
        pass
    return caplog.text


def test_known_module_is_hooked(caplog: pytest.LogCaptureFixture, slot: ImportSlot) -> None:
    """Inside the block pyfuse3 calls the hook, after it libfuse."""
    with SessionHook().offered(), pytest.raises(UnknownLayoutError, match="does not hold its address"):
        ImportSlot(MODULE, IMPORTED)
    assert slot.function == ImportSlot(MODULE, IMPORTED).function
    assert not caplog.text


def test_unknown_version_is_left_alone(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of pyfuse3 that nobody has read the sources of is not touched, and one line says so."""
    monkeypatch.setattr(pyfuse3, "__version__", "3.6.0")
    assert "pyfuse3 3.6.0 is not known" in offered(caplog)


def test_module_of_another_build_is_left_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that does not import libfuse as expected is not touched, and one line says so."""
    monkeypatch.setattr(pyfuse3, "__file__", struct.__file__)
    assert "keeps no listings" in offered(caplog)


CODE = [Mapping(0x1000, 0x2000, "r-xp", 0)]


def operations(changes: dict[str, int] | None = None, further: int = 2) -> bytes:
    """A table of operations as pyfuse3 makes it, its code at 0x1000 to 0x2000, with some entries changed."""
    usual = {name: 0 if name in UNUSED else 0x1000 + 16 * number for number, name in enumerate(OPERATIONS)}
    pointers = usual | dict(changes or {})
    return struct.pack(f"={len(OPERATIONS) + further}Q", *pointers.values(), *[0] * further)


@pytest.mark.parametrize("further", [0, 2, 7])
def test_table_of_operations_is_known(further: int) -> None:
    """As libfuse 3.10, 3.14 or a later one has it: operations that pyfuse3 does not know are NULL at the end."""
    found = checked_operations(operations(further=further), CODE)
    assert 0x1000 + 16 * 41 == found[OPERATIONS.index("readdirplus")]


@pytest.mark.parametrize(
    "table",
    [
        b"",
        operations()[:-4],
        operations(further=0)[:-8],
        operations({"readdirplus": 0}),
        operations({"readdir": 0x1010}),
        operations({"lookup": 0x0FFF}),
        operations({"init": 0x2000}),
        operations(further=1)[:-8] + struct.pack("=Q", 0x1008),
    ],
    ids=["empty", "cut", "short", "no readdirplus", "readdir", "below the code", "beyond the code", "one more"],
)
def test_other_table_of_operations_is_refused(table: bytes) -> None:
    """One entry that is not as pyfuse3 sets it, or a shorter table, and nothing is changed."""
    with pytest.raises(UnknownLayoutError):
        checked_operations(table, CODE)


def test_opendir_is_needed_until_a_readdir_came_with_an_inode() -> None:
    """Without the hook, handles that opendir gave come back, and opendir is never refused."""
    listings = SessionHook()
    for inode in (1, 77, 1 << 62):
        assert inode == listings.directory_of(listings.open_directory(inode))
    # A kernel that has not said that it can do without opendir.
    assert 5 == listings.directory_of(5)
    assert 5 == listings.directory_of(listings.open_directory(5))
