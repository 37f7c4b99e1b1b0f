"""What people read who look into a volume's channels: one line for each message, and a few with the superblock. Pure.

The texts name the volume, as its channels do, and never anything of its contents. Nothing reads them: a message is
known by its attachments alone.
"""

from __future__ import annotations

_TOPIC = "disfs volume {name}: {what}. A program reads and writes here; deleting messages destroys files."


def index_topic(name: str) -> str:
    """What stands above the index channel."""
    return _TOPIC.format(name=name, what="which files there are, encrypted")


def data_topic(name: str) -> str:
    """What stands above a data channel."""
    return _TOPIC.format(name=name, what="contents of files, encrypted")


def superblock_text(name: str) -> str:
    """What comes with the superblock, the first message of the index channel: what all of this is."""
    return (
        f"**This category is a disk.** disfs keeps the volume `{name}` here: files, encrypted, as attachments of "
        "messages.\n"
        "Please do not delete messages, channels or the bot: files would be lost. What the bot does not need any more "
        "it deletes by itself.\n"
        "Please do not write here; it does no harm, but it is not read either. The category may be hidden from "
        "everybody but the bot.\n"
        f"To use the disk: `disfs mount`, or on another machine `disfs recover {name}` with the passphrase. Without "
        "this message nobody can."
    )


def data_text(name: str) -> str:
    """What comes with packs of contents."""
    return f"disfs volume `{name}`: contents of files, encrypted; deleting this message destroys them"


def shipment_text(name: str, what: str, number: int) -> str:
    """What comes with a journal, a checkpoint copy or a snapshot: `what` it is, and which one."""
    return f"disfs volume `{name}`: {what} {number}, encrypted; deleting this message destroys what is recovered from"


def lease_text(name: str) -> str:
    """What comes with a lease."""
    return f"disfs volume `{name}`: a machine has it mounted; this message goes by itself"
