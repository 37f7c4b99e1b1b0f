"""What the log calls a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.errors import FilesystemError

if TYPE_CHECKING:
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.values import InodeNumber


async def name_of(ledger: ChunkLedger, inode: InodeNumber) -> str:
    """Its paths; its inode for one that has none, or whose names are damaged."""
    try:
        paths = [path.decode(errors="backslashreplace") for path in await ledger.paths(inode)]
    except FilesystemError:
        paths = []
    return " = ".join(paths) or f"inode {inode} (no name)"
