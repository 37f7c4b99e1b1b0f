"""Access control lists to test with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from disfs.posix_acl import AclEntry, Tag

if TYPE_CHECKING:
    from disfs.posix_acl import Acl

PERMISSIONS = st.integers(0, 7)
NAMED = st.lists(st.tuples(PERMISSIONS, st.integers(0, 2**32 - 2)), max_size=3)


@st.composite
def acls(draw: st.DrawFn) -> Acl:
    """Valid ones: with names and a mask, with a mask alone, minimal."""
    users = [AclEntry(Tag.USER, *each) for each in draw(NAMED)]
    groups = [AclEntry(Tag.GROUP, *each) for each in draw(NAMED)]
    has_mask: bool = bool(users or groups) or draw(st.booleans())
    masks = [AclEntry(Tag.MASK, draw(PERMISSIONS))] if has_mask else []
    owner, group, other = (AclEntry(tag, draw(PERMISSIONS)) for tag in (Tag.USER_OBJ, Tag.GROUP_OBJ, Tag.OTHER))
    return (owner, *users, group, *groups, *masks, other)


def an_acl(owner: int, group: int, other: int, *, mask: int | None = None, users: dict[int, int] | None = None) -> Acl:
    """The permissions of each, `users` by uid."""
    named = tuple(AclEntry(Tag.USER, permissions, uid) for uid, permissions in (users or {}).items())
    bound = () if mask is None else (AclEntry(Tag.MASK, mask),)
    return (
        AclEntry(Tag.USER_OBJ, owner),
        *named,
        AclEntry(Tag.GROUP_OBJ, group),
        *bound,
        AclEntry(Tag.OTHER, other),
    )
