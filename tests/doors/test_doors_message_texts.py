"""What people read in a volume's channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.rest_client import RestClient

from disfs import message_texts
from disfs.chunkstore.transport.base import CONTENT_LIMIT

if TYPE_CHECKING:
    from support.emulator import Emulator
    from support.home import Home

LONGEST = "x" * 64
TOPIC_LIMIT = 1024


def test_texts_fit_and_are_one_line() -> None:
    """All but the superblock's; each names the volume and says that deleting destroys, the lease's that it goes."""
    lines = [
        message_texts.data_text(LONGEST),
        message_texts.shipment_text(LONGEST, "checkpoint copy", 1 << 63),
        message_texts.lease_text(LONGEST),
    ]
    topics = [message_texts.index_topic(LONGEST), message_texts.data_topic(LONGEST)]
    for text in (*lines, *topics):
        assert LONGEST in text
        assert "\n" not in text
        assert len(text) <= (TOPIC_LIMIT if text in topics else 200)
    assert len(message_texts.superblock_text(LONGEST)) <= CONTENT_LIMIT
    assert all("destroys" in text for text in (*lines[:2], *topics))
    assert "goes by itself" in lines[2]


@pytest.mark.fuse
def test_messages_of_a_mount_say_what_they_are_and_no_name_of_a_file(home: Home, discord: Emulator) -> None:
    """One line each, with the name of the volume; nothing that files are called."""
    home.done("init", "readable", "--channels", "1")
    home.ok("mount", str(home.mountpoint))
    (home.mountpoint / "veryprivate").mkdir()
    (home.mountpoint / "veryprivate" / "veryprivate.txt").write_bytes(bytes(range(256)) * 400)
    home.ok("sync", str(home.mountpoint))
    home.ok("snapshot", "create", "veryprivate")
    (home.mountpoint / "another").touch()
    home.ok("sync", str(home.mountpoint))
    rest = RestClient(discord)
    channels = rest("GET", f"/guilds/{discord.guild_id}/channels").json
    (category,) = (each["id"] for each in channels if each["name"] == "disfs readable")
    messages = [
        message
        for channel in channels
        if channel["parent_id"] == category
        for message in rest("GET", f"/channels/{channel['id']}/messages?limit=100").json
    ]
    home.ok("umount", str(home.mountpoint))
    texts = [message["content"] for message in messages]
    for what in (
        "contents of files",
        "journal",
        "checkpoint copy",
        "snapshot",
        "a machine has it mounted",
        "is a disk",
    ):
        assert any(what in text for text in texts), what
    for message, text in zip(messages, texts, strict=True):
        assert "`readable`" in text
        assert "veryprivate" not in text + str(message["attachments"])
        assert ("\n" in text) == ("is a disk" in text)
