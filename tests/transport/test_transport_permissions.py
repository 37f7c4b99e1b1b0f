"""Discord's rules of who may do what, as far as they matter here."""

from __future__ import annotations

from typing import Any

import pytest

from disfs.chunkstore.transport.decode import granted_of
from disfs.chunkstore.transport.permissions import (
    IN_CHANNELS,
    NEEDED,
    Overwrite,
    Permission,
    in_channel,
    in_guild,
    invite_url,
    missing_names,
)
from disfs.errors import TransientStorageError
from disfs.values import ChannelId

EVERYONE, ROLE, OTHER_ROLE, USER = 1, 2, 3, 9
SEND, VIEW = int(Permission.SEND_MESSAGES), int(Permission.VIEW_CHANNEL)


def test_roles_add_up() -> None:
    """What all have and what each role of the member gives; other roles give nothing, Administrator everything."""
    roles = {EVERYONE: VIEW, ROLE: SEND, OTHER_ROLE: int(Permission.ATTACH_FILES)}
    assert VIEW | SEND == in_guild(roles, EVERYONE, [ROLE])
    assert [] == missing_names(in_guild(roles | {ROLE: int(Permission.ADMINISTRATOR)}, EVERYONE, [ROLE]))


@pytest.mark.parametrize(
    ("overwrites", "expected"),
    [
        ([], VIEW | SEND),
        ([Overwrite(EVERYONE, 0, SEND)], VIEW),
        ([Overwrite(EVERYONE, 0, SEND), Overwrite(ROLE, SEND, 0)], VIEW | SEND),
        ([Overwrite(ROLE, 0, SEND), Overwrite(OTHER_ROLE, SEND, 0)], VIEW | SEND),
        ([Overwrite(ROLE, SEND, 0), Overwrite(USER, 0, SEND)], VIEW),
        ([Overwrite(77, 0, SEND)], VIEW | SEND),
    ],
)
def test_channel_overwrites_in_the_order_of_discord(overwrites: list[Overwrite], expected: int) -> None:
    """First those for all, then those of roles together, allowing last, then the member's own."""
    assert expected == in_channel(VIEW | SEND, EVERYONE, [ROLE, OTHER_ROLE], USER, overwrites)


def test_administrator_is_not_bound_by_channels() -> None:
    """Whatever they deny."""
    everything = in_guild({EVERYONE: int(Permission.ADMINISTRATOR)}, EVERYONE, [])
    assert [] == missing_names(in_channel(everything, EVERYONE, [], USER, [Overwrite(USER, 0, SEND)]))


def test_missing_ones_are_named_as_discord_does() -> None:
    """In the order of its settings, and only those that are asked about."""
    assert ["View Channels", "Attach Files"] == missing_names(
        int(NEEDED & ~(VIEW | Permission.ATTACH_FILES | Permission.MANAGE_CHANNELS)), int(IN_CHANNELS)
    )


def test_invitation_asks_for_what_is_needed_and_no_more() -> None:
    """The number is the one that the README shows."""
    assert invite_url(5).endswith("?client_id=5&scope=bot&permissions=109584")


def test_answers_are_put_together() -> None:
    """From the guild's roles, the member's roles and the channels' overwrites, numbers as strings as Discord sends."""
    guild: dict[str, Any] = {
        "id": "1",
        "roles": [{"id": "1", "permissions": str(VIEW)}, {"id": "2", "permissions": "0"}],
    }
    member = {"user": {"id": "9"}, "roles": ["2"]}
    denied = [{"id": "2", "type": 0, "allow": str(SEND), "deny": str(VIEW)}]
    granted = granted_of(guild, member, [{"id": "5"}, {"id": "6", "permission_overwrites": denied}])
    assert (VIEW, {ChannelId(5): VIEW, ChannelId(6): SEND}) == (granted.guild, granted.channels)
    with pytest.raises(TransientStorageError):
        granted_of({"id": "1"}, member, [])
