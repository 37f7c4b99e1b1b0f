"""What a file keeps of its privileges when somebody changes its contents."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from support.filesystem_world import Member

from disfs.callers import mode_after_change
from disfs.values import AttributeChanges

if TYPE_CHECKING:
    from support.filesystem_world import World

CAPABILITY = b"security.capability"


@pytest.mark.parametrize(
    ("mode", "by_member", "by_stranger"),
    [
        (0o644, 0o644, 0o644),
        (0o4755, 0o755, 0o755),
        (0o6755, 0o755, 0o755),
        (0o2755, 0o755, 0o755),
        (0o2745, 0o2745, 0o745),
        (0o6644, 0o2644, 0o644),
        (0o1666, 0o1666, 0o1666),
    ],
)
def test_set_id_bits_after_a_change(mode: int, by_member: int, by_stranger: int) -> None:
    """setuid goes; setgid goes with the right to execute, and else for strangers to the group; root leaves all."""
    mode |= stat.S_IFREG
    assert stat.S_IFREG | by_member == mode_after_change(mode, 5, Member(frozenset({5})))
    assert stat.S_IFREG | by_stranger == mode_after_change(mode, 5, Member(frozenset()))
    assert mode == mode_after_change(mode, 5, Member(is_privileged=True))


@pytest.mark.parametrize("privileged", [False, True])
async def test_regression_emptying_takes_privileges(world: World, privileged: bool) -> None:
    """O_TRUNC takes set-id bits from all but root's hands, and the capability from everybody's."""
    fh, inode = await world.create()
    await world.filesystem.release(fh)
    await world.filesystem.change_attributes(inode, AttributeChanges(mode=0o6755))
    caller = Member(is_privileged=privileged)
    await world.filesystem.set_xattr(inode, CAPABILITY, b"any", caller)
    await world.filesystem.files.open(inode, os.O_WRONLY | os.O_TRUNC, caller)
    assert (0o106755 if privileged else 0o100755) == (await world.filesystem.attributes(inode)).mode
    assert await world.filesystem.get_xattr(inode, CAPABILITY) is None
    assert [] == list(await world.filesystem.list_xattrs(inode, Member(is_privileged=True)))


async def test_opening_takes_nothing(world: World) -> None:
    """Neither does emptying by the daemon itself change the mode."""
    fh, inode = await world.create()
    await world.filesystem.release(fh)
    await world.filesystem.change_attributes(inode, AttributeChanges(mode=0o6755))
    await world.filesystem.files.open(inode, os.O_WRONLY, Member())
    await world.filesystem.files.open(inode, os.O_WRONLY | os.O_TRUNC)
    assert 0o106755 == (await world.filesystem.attributes(inode)).mode
