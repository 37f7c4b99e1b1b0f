"""Access control lists as values: by laws that they must keep, and against what the kernel makes of the same bytes."""

# ruff: noqa: PTH101 - these tests are about system calls

from __future__ import annotations

import errno
import os
import stat
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.acls import acls, an_acl
from support.new_inodes import fails
from support.syscalls import failing

from disfs.errors import FilesystemError
from disfs.posix_acl import (
    AclKind,
    Tag,
    acl_with_mode,
    build_acl,
    inherited_acl,
    is_minimal,
    mode_with_acl,
    parse_acl,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disfs.posix_acl import Acl

ACCESS, DEFAULT = (os.fsdecode(kind.value) for kind in AclKind)
MODES = st.integers(0, 0o777)
ENTRIES = st.tuples(
    st.sampled_from([1, 2, 4, 8, 16, 32, 0, 3, 64]), st.integers(0, 8), st.sampled_from([0, 5, 2**32 - 1])
)
VALUES = st.one_of(
    st.builds(
        lambda version, entries, rest: (
            struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in sorted(entries)) + rest
        ),
        st.sampled_from([2, 2, 2, 1]),
        st.lists(ENTRIES, max_size=7),
        st.sampled_from([b"", b"", b"x"]),
    ),
    acls().map(build_acl),
    acls().map(lambda acl: build_acl(acl)[:-3]),
    acls().map(lambda acl: build_acl(acl)[:4] + build_acl(acl)[:3:-1]),
    st.binary(max_size=30),
)
"""Attributes, most of them near to something valid."""


@pytest.fixture(scope="module")
def local() -> Iterator[Path]:
    """A directory on the local disk, which must know ACLs."""
    with tempfile.TemporaryDirectory() as name:
        if failing(lambda: os.getxattr(name, ACCESS)) == errno.EOPNOTSUPP:
            pytest.skip("the local disk has no ACLs to compare with")
        yield Path(name)


def stored(path: Path, kind: AclKind) -> Acl:
    """The ACL that the local disk has."""
    name = os.fsdecode(kind.value)
    return parse_acl(os.getxattr(path, name)) if name in os.listxattr(path) else ()


def parsed(value: bytes) -> Acl | int:
    """The ACL, or the errno."""
    try:
        return parse_acl(value)
    except FilesystemError as error:
        return error.errno


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@given(acls())
def test_acl_survives_being_stored(acl: Acl) -> None:
    """What is built is parsed to the same, and takes 4 bytes and 8 for each entry."""
    assert acl == parse_acl(build_acl(acl))
    assert 4 + 8 * len(acl) == len(build_acl(acl))


def test_stored_form() -> None:
    """The bytes are those that the kernel passes."""
    acl = an_acl(7, 5, 0, mask=4, users={1000: 6})
    value = "02000000 01000700ffffffff 02000600e8030000 04000500ffffffff 10000400ffffffff 20000000ffffffff"
    assert bytes.fromhex(value) == build_acl(acl)


@pytest.mark.parametrize("value", [b"", b"\2\0\0\0"])
def test_no_entries_are_no_acl(value: bytes) -> None:
    """As in the kernel, where setting this removes the ACL."""
    assert parse_acl(value) == ()


def test_entries_that_name_nobody_have_no_id() -> None:
    """What stands in the id of the owner's entry is not kept."""
    value = b"\2\0\0\0" + struct.pack("<HHI", 1, 6, 77) + struct.pack("<HHIHHI", 4, 4, 5, 32, 4, 6)
    assert an_acl(6, 4, 4) == parse_acl(value)


def test_unknown_version() -> None:
    """EOPNOTSUPP, before anything else is looked at."""
    with fails(errno.EOPNOTSUPP):
        parse_acl(struct.pack("<IHHI", 3, 99, 99, 99))


@given(acls(), MODES)
def test_acl_follows_a_mode(acl: Acl, mode: int) -> None:
    """After chmod the bits are those asked for, no entry came or went, and named ones are as before."""
    followed = acl_with_mode(acl, mode)
    assert mode == mode_with_acl(0, followed)
    assert acl == acl_with_mode(followed, mode_with_acl(0, acl))
    for before, after in zip(acl, followed, strict=True):
        assert before._replace(permissions=0) == after._replace(permissions=0)
        assert before == after or before.tag not in (Tag.USER, Tag.GROUP)


@given(acls(), st.integers(0, 0o177777))
def test_other_bits_of_a_mode_stay(acl: Acl, mode: int) -> None:
    """An ACL says nothing of the type, of set-id bits and of the sticky bit."""
    assert mode & ~0o777 == mode_with_acl(mode, acl) & ~0o777


@given(acls(), MODES)
def test_inherited_acl_grants_no_more(default: Acl, mode: int) -> None:
    """Neither than the default ACL nor than the mode that was asked for."""
    inherited = inherited_acl(default, mode)
    assert mode_with_acl(0, default) & mode == mode_with_acl(0, inherited)
    assert is_minimal(default) == is_minimal(inherited)
    assert all(a.permissions & ~b.permissions == 0 for a, b in zip(inherited, default, strict=True))


@given(VALUES)
def test_values_are_taken_as_the_kernel_takes_them(local: Path, value: bytes) -> None:
    """The same bytes give the same ACL and mode, or the same errno."""
    path = local / "file"
    path.touch()
    os.chmod(path, 0o640)
    os.setxattr(path, ACCESS, b"")
    number = failing(lambda: os.setxattr(path, ACCESS, value))
    acl = parsed(value)
    if isinstance(acl, int):
        assert number == acl
        return
    assert number == 0
    assert permissions(path) == (mode_with_acl(0o640, acl) if acl else 0o640)
    assert stored(path, AclKind.ACCESS) == (() if is_minimal(acl) else acl)


@given(acls(), MODES)
def test_chmod_is_the_kernels(local: Path, acl: Acl, mode: int) -> None:
    """chmod does to an ACL what it does on the local disk."""
    path = local / "file"
    path.touch()
    os.setxattr(path, ACCESS, build_acl(acl))
    os.chmod(path, mode)
    assert stored(path, AclKind.ACCESS) == (() if is_minimal(acl) else acl_with_mode(acl, mode))
    assert mode == permissions(path)


@given(acls(), MODES, st.booleans())
def test_inheritance_is_the_kernels(local: Path, default: Acl, mode: int, directory: bool) -> None:
    """A new file or directory begins with what it begins with on the local disk, whatever the umask."""
    parent = Path(tempfile.mkdtemp(dir=local))
    os.setxattr(parent, DEFAULT, build_acl(default))
    child = parent / "child"
    if directory:
        child.mkdir(mode)
    else:
        os.close(os.open(child, os.O_CREAT | os.O_WRONLY, mode))
    inherited = inherited_acl(default, mode)
    assert stored(child, AclKind.ACCESS) == (() if is_minimal(inherited) else inherited)
    assert mode_with_acl(0, inherited) == permissions(child)
    assert stored(child, AclKind.DEFAULT) == (default if directory else ())
